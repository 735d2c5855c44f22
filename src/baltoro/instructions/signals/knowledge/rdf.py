"""Ontologies and vocabularies in RDF: what RDFS, OWL, SKOS and OBO say of concepts, in our words.

Hypernyms are ``rdfs:subClassOf``, ``skos:broader`` (and ``skos:narrower`` turned round) and the classes of
named individuals; names ``rdfs:label``, ``skos:prefLabel`` and the alternative ones; ``owl:sameAs``,
``owl:equivalentClass`` and ``skos:exactMatch`` make two one where both have a name here. Of restrictions a
``hasValue`` or ``someValuesFrom`` is a relation. ``owl:imports`` are addresses of others and never followed.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from baltoro.instructions.signals.knowledge.concepts import Statements, readable_name

if TYPE_CHECKING:
    from rdflib import Graph

_RDF = "http://www.w3.org/1999/02/22-rdf-syntax-ns#"
_RDFS = "http://www.w3.org/2000/01/rdf-schema#"
_OWL = "http://www.w3.org/2002/07/owl#"
_SKOS = "http://www.w3.org/2004/02/skos/core#"
_OBO = "http://purl.obolibrary.org/obo/"
_OBO_IN_OWL = "http://www.geneontology.org/formats/oboInOwl#"

_PREFERRED = (f"{_RDFS}label", f"{_SKOS}prefLabel")
_ALTERNATIVE = (f"{_SKOS}altLabel", f"{_OBO_IN_OWL}hasExactSynonym")
_DEFINITIONS = (f"{_SKOS}definition", f"{_OBO}IAO_0000115")
_PARENTS = (f"{_RDFS}subClassOf", f"{_SKOS}broader")
_SAME = (f"{_OWL}sameAs", f"{_OWL}equivalentClass", f"{_SKOS}exactMatch")

# About the file or its editing, not about the thing.
_NOT_FACTS = (
    _RDF,
    _RDFS,
    _OWL,
    _SKOS,
    _OBO_IN_OWL,
    f"{_OBO}IAO_",
    "http://purl.org/dc/",
    "http://www.w3.org/ns/prov#",
    "http://xmlns.com/foaf/",
    "http://creativecommons.org/ns#",
    "http://purl.org/vocab/vann/",
    "http://schema.org/",
    "https://schema.org/",
)

RDFLIB_FORMATS = {"turtle": "turtle", "rdf_xml": "xml", "n_triples": "nt"}
"""Our names of notations → those of rdflib."""


def read_rdf(data: bytes, format: str, statements: Statements, *, language: str) -> None:
    """Collect what an RDF file says.

    Args:
        data: the file.
        format: a key of :data:`RDFLIB_FORMATS`.
        statements: where to collect.
        language: of names and definitions, as in ``@en``; ``en-GB`` counts as ``en``, none at all as any.

    Raises:
        ValueError: the file is not of this notation; the text says where, as far as the parser does.
    """
    from rdflib import Graph

    graph = Graph()
    try:
        graph.parse(data=data, format=RDFLIB_FORMATS[format])
    except Exception as error:  # each parser of rdflib raises kinds of its own
        raise ValueError(" ".join(str(error).split())[:300] or type(error).__name__) from error
    _collect(graph, statements, language)


def _collect(graph: Graph, statements: Statements, language: str) -> None:
    from rdflib import BNode, Literal, URIRef

    def texts(node: Any) -> list[str]:
        return [str(node)] if isinstance(node, Literal) and _speaks(node.language, language) else []

    properties = {
        predicate: _predicate_name(graph, predicate, language) for predicate in set(graph.predicates())
    }
    named = {subject for subject in set(graph.subjects()) if isinstance(subject, URIRef)}
    skipped = {
        subject
        for kind in ("Ontology", "ObjectProperty", "DatatypeProperty", "AnnotationProperty")
        for subject in graph.subjects(URIRef(f"{_RDF}type"), URIRef(f"{_OWL}{kind}"))
    }
    for subject, predicate, value in graph:
        if subject not in named or subject in skipped:
            continue
        key, verb = str(subject), str(predicate)
        if verb in _PREFERRED or verb in _ALTERNATIVE:
            for text in texts(value):
                statements.name(key, text, preferred=verb in _PREFERRED)
        elif verb in _DEFINITIONS:
            # A definition may be a node of its own that says its text and source.
            nodes = graph.objects(value) if isinstance(value, BNode) else [value]
            for node in nodes:
                if not isinstance(node, Literal) or node.datatype is None:
                    for text in texts(node):
                        statements.definition(key, text)
        elif verb in _PARENTS or verb == f"{_SKOS}narrower":
            if isinstance(value, URIRef):
                pair = (key, str(value)) if verb in _PARENTS else (str(value), key)
                if not pair[1].startswith((_OWL, _RDFS)):
                    statements.parent(*pair)
            elif isinstance(value, BNode):
                _restriction(graph, key, value, properties, statements)
        elif verb == f"{_RDF}type":
            if isinstance(value, URIRef) and not str(value).startswith((_OWL, _RDFS, _SKOS, _RDF)):
                statements.parent(key, str(value))
        elif verb in _SAME:
            if isinstance(value, URIRef) and value in named:
                statements.same(key, str(value))
        elif not verb.startswith(_NOT_FACTS):
            if isinstance(value, Literal):
                if _speaks(value.language, language):
                    statements.fact(key, properties[predicate], str(value))
            elif isinstance(value, URIRef) and readable_name(str(value)):
                statements.link(key, properties[predicate], str(value))


def _restriction(
    graph: Graph, subject: str, node: Any, properties: dict[Any, str], statements: Statements
) -> None:
    from rdflib import Literal, URIRef

    prop = graph.value(node, URIRef(f"{_OWL}onProperty"))
    if not isinstance(prop, URIRef):
        return
    name = properties.get(prop) or readable_name(str(prop))
    for verb in ("hasValue", "someValuesFrom"):
        value = graph.value(node, URIRef(f"{_OWL}{verb}"))
        if isinstance(value, Literal):
            statements.fact(subject, name, str(value))
        elif isinstance(value, URIRef):
            statements.link(subject, name, str(value))


def _predicate_name(graph: Graph, predicate: Any, language: str) -> str:
    from rdflib import Literal, URIRef

    labels = sorted(
        str(label)
        for label in graph.objects(predicate, URIRef(f"{_RDFS}label"))
        if isinstance(label, Literal) and _speaks(label.language, language)
    )
    return labels[0] if labels else readable_name(str(predicate))


def _speaks(tag: str | None, language: str) -> bool:
    return not tag or tag.lower().split("-")[0] == language.lower().split("-")[0]
