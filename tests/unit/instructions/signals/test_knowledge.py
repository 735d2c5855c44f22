import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from baltoro.core.errors import InputError
from baltoro.instructions.signals.config import KnowledgeSource, SignalsConfig
from baltoro.instructions.signals.knowledge.concepts import Statements, readable_name
from baltoro.instructions.signals.knowledge.entities import Vocabulary, entity_recognition
from baltoro.instructions.signals.knowledge.questions import Questions
from baltoro.instructions.signals.knowledge.read import notation_of, parse_knowledge, read_knowledge
from baltoro.instructions.signals.text import Flow
from baltoro.instructions.splits import HoldOut
from baltoro.papers.schema import Inline

TURTLE = b"""
@prefix : <http://example.org/rock/> .
@prefix owl: <http://www.w3.org/2002/07/owl#> .
@prefix rdfs: <http://www.w3.org/2000/01/rdf-schema#> .
@prefix skos: <http://www.w3.org/2004/02/skos/core#> .
<http://example.org/rock> a owl:Ontology ; owl:imports <http://example.org/nowhere> .
:Rock a owl:Class ; rdfs:label "rock"@en , "Gestein"@de .
:Basalt a owl:Class ; rdfs:subClassOf :Rock , <http://example.org/other/DarkMatter> ,
    [ a owl:Restriction ; owl:onProperty :hasTexture ; owl:someValuesFrom :Fine ] ;
    rdfs:label "basalt"@en ; skos:altLabel "trap rock" ;
    skos:definition [ rdfs:comment "A dark rock that flowed out as lava."@en ] .
:Fine a owl:Class ; rdfs:label "fine grain" .
:Al a :Metal ; owl:sameAs :Aluminium ; rdfs:label "al" .
:Aluminium a :Metal ; rdfs:label "aluminium" ; :hasNumber 13 ; :foundIn :Basalt .
:C_00012345 rdfs:subClassOf :Rock .
"""

NTRIPLES = b'<urn:x:a> <http://www.w3.org/2004/02/skos/core#prefLabel> "firn"@en-GB .\n'

RDF_XML = b"""<?xml version="1.0"?>
<rdf:RDF xmlns:rdf="http://www.w3.org/1999/02/22-rdf-syntax-ns#" xmlns:skos="http://www.w3.org/2004/02/skos/core#">
 <skos:Concept rdf:about="http://example.org/Firn"><skos:prefLabel xml:lang="en">firn</skos:prefLabel>
 <skos:broader rdf:resource="http://example.org/PackedSnow"/></skos:Concept></rdf:RDF>"""

SOURCE = KnowledgeSource(name="k", uri="k")
CSV = b"subject,predicate,object\nbasalt,is_a,rock\nbasalt,colour,black\nbasalt,synonym,trap rock\n"


def asked(knowledge, hold_out=HoldOut()):  # noqa: B008  (frozen)
    questions = Questions(knowledge, SignalsConfig(), hold_out)
    return [
        (task, candidate)
        for concept in knowledge.concepts.values()
        for task, candidate in questions.of(concept)
    ]


def slots_of(knowledge, task):
    return [c.slots for name, c in asked(knowledge) if name == task and not c.reason]


def test_an_ontology_in_turtle():
    knowledge = parse_knowledge([("rock.ttl", TURTLE)], SOURCE)
    basalt = knowledge.concepts["http://example.org/rock/Basalt"]
    assert basalt.names == ("basalt", "trap rock")
    assert basalt.definitions == ("A dark rock that flowed out as lava.",)
    assert [knowledge.name_of(key) for key in basalt.parents] == ["dark matter", "rock"]
    assert basalt.facts == (("has texture", "fine grain"),)
    aluminium = knowledge.concepts["http://example.org/rock/Al"]
    assert aluminium.names == ("aluminium", "Al")
    assert aluminium.facts == (("has number", "13"),)
    assert aluminium.relations == (("found in", "basalt"),)
    assert "http://example.org/rock" not in knowledge.concepts
    reasons = [(c.reason, c.detail) for _, c in asked(knowledge) if c.reason]
    assert ("unnamed_concept", "http://example.org/rock/C_00012345") in reasons


def test_skos_in_other_notations():
    knowledge = parse_knowledge([("a.xml", RDF_XML), ("b.nt", NTRIPLES)], SOURCE)
    assert slots_of(knowledge, "hypernym") == [{"child": "firn", "parent": "packed snow"}]
    assert knowledge.concepts["urn:x:a"].names == ("firn",)


@pytest.mark.parametrize(
    ("key", "data", "notation"),
    [
        ("a.owl", b'<?xml version="1.0"?>', "rdf_xml"),
        ("a.owl", b"# about\n@prefix a: <b> .", "turtle"),
        ("a.tsv", b"subject\tpredicate", "csv"),
        ("a.jsonl", b"{}", "json"),
        ("a.nt", b"<a> <b> <c> .", "n_triples"),
    ],
)
def test_notations_are_told_by_content_then_by_name(key, data, notation):
    assert notation_of(key, data) == notation


@pytest.mark.parametrize(
    ("key", "data"),
    [
        ("a.csv", CSV),
        ("a.csv", CSV.replace(b",", b"\t")),
        ("a.csv", b"\xef\xbb\xbf" + CSV.replace(b"subject,predicate,object", b"head,relation,tail")),
        ("a.json", json.dumps([line.split(",") for line in CSV.decode().splitlines()[1:]]).encode()),
        (
            "a.json",
            b'{"basalt": {"is_a": "rock", "colour": "black", "synonym": ["trap rock"]}}',
        ),
        (
            "a.jsonl",
            b"\n".join(
                json.dumps(
                    dict(zip(("subject", "predicate", "object"), line.split(","), strict=True))
                ).encode()
                for line in CSV.decode().splitlines()[1:]
            ),
        ),
    ],
)
def test_triples_say_the_same_in_every_layout(key, data):
    knowledge = parse_knowledge([(key, data)], SOURCE)
    assert slots_of(knowledge, "hypernym") == [{"child": "basalt", "parent": "rock"}]
    assert slots_of(knowledge, "facts") == [{"object": "basalt", "key": "colour", "value": "black"}]
    assert {"object": "trap rock", "value": "basalt"} in slots_of(knowledge, "synonym")
    assert knowledge.rejects == []


def test_rows_and_files_that_cannot_be_read_are_rejects():
    data = CSV + b"granite,is_a\n"
    knowledge = parse_knowledge([("a.csv", data), ("b.json", b"{"), ("c.json", b'[["a", "b"]]')], SOURCE)
    assert [(r.paper_id, r.reason) for r in knowledge.rejects] == [
        ("k/a.csv", "malformed"),
        ("k/b.json", "malformed"),
        ("k/c.json", "malformed"),
    ]
    assert "line 5" in knowledge.rejects[0].detail


def test_a_source_of_which_nothing_can_be_read_stops(tmp_path):
    with pytest.raises(
        InputError, match=r"no file of k can be read: a.csv, read as csv: its columns are x, y"
    ):
        parse_knowledge([("a.csv", b"x,y\n1,2\n")], SOURCE)
    with pytest.raises(InputError, match=r"is no file and no folder with files ending in .ttl"):
        read_knowledge(KnowledgeSource(name="k", uri=str(tmp_path)))


def test_a_folder_is_read_file_by_file(tmp_path):
    (tmp_path / "a.csv").write_bytes(CSV)
    (tmp_path / "b.csv").write_bytes(b"child,parent\nrock,thing\n")
    (tmp_path / "notes.txt").write_text("not knowledge")
    knowledge = read_knowledge(KnowledgeSource(name="k", uri=str(tmp_path)))
    assert knowledge.ancestors("basalt") == {"rock", "thing"}


@pytest.mark.parametrize(
    ("key", "name"),
    [
        ("http://x.org/a#IgneousRock", "igneous rock"),
        ("http://x.org/a/CO2_Flux", "co2 flux"),
        ("http://x.org/ENVO_00002200", ""),
        ("basalt rock", "basalt rock"),
    ],
)
def test_keys_are_made_readable(key, name):
    assert readable_name(key) == name


def taxonomy(pairs):
    statements = Statements()
    for child, parent in pairs:
        statements.parent(child, parent)
    return statements.build("k")


_NODES = st.sampled_from([f"{letter}{letter}x" for letter in "abcdefghij"])


@given(st.lists(st.tuples(_NODES, _NODES).filter(lambda pair: pair[0] != pair[1]), max_size=14))
@settings(max_examples=80)
def test_no_negative_is_true_by_the_taxonomy_and_no_positive_is_false(pairs):
    knowledge = taxonomy(pairs)
    above = {}
    for child, parent in pairs:
        above.setdefault(child, set()).add(parent)
    for task, candidate in asked(knowledge):
        if task.endswith("_judgement") and not candidate.reason:
            child, parent = candidate.slots["child"], candidate.slots["parent"]
            reached, ahead = set(), [child]
            while ahead:
                for node in above.get(ahead.pop(), ()):
                    if node not in reached:
                        reached.add(node)
                        ahead.append(node)
            assert (parent in reached) == (candidate.slots["answer"] == "Yes")


def test_judgements_are_half_positive_and_the_two_tasks_differ():
    trees = [(f"{kind} leaf{n}", kind) for kind in ("rock", "cloud", "river") for n in range(60)]
    found = asked(taxonomy(trees))
    for task in ("hypernym_judgement", "hyponym_judgement"):
        answers = [c.slots["answer"] for name, c in found if name == task]
        assert len(answers) == 180
        assert 70 <= answers.count("Yes") <= 110
    by_child = {}
    for name, candidate in found:
        if name.endswith("_judgement"):
            by_child.setdefault(candidate.slots["child"], set()).add(candidate.slots["answer"])
    assert all(answers == {"Yes", "No"} for answers in by_child.values())


def test_a_hyponym_question_names_children_of_its_own_side_only():
    knowledge = taxonomy([(f"kind {n}", "rock") for n in range(40)])
    hold_out = HoldOut(seed=0, validation_fraction=0.4)
    (candidate,) = [c for task, c in asked(knowledge, hold_out) if task == "hyponym"]

    def side(name):
        return hold_out.split_of("knowledge", f"k/{name}")

    named = candidate.slots["child"].split(", ")
    assert len(named) == 8
    assert {side(name) for name in named} == {side("rock")}


def test_quantities_are_no_concepts_and_shared_values_tell_nothing():
    statements = Statements()
    statements.parent("5.3 Ma", "instant")
    for n in range(12):
        statements.fact(f"age {chr(97 + n)}", "unit", "Ma")
        statements.fact(f"age {chr(97 + n)}", "start", str(n))
    found = asked(statements.build("k"))
    assert [c.reason for task, c in found if task == "hypernym"] == ["value_name"]
    assert not any(task == "hyponym" for task, _ in found)
    facts = [(c.slots["key"], c.reason) for task, c in found if task == "facts"]
    assert facts.count(("unit", "uninformative")) == 12
    assert facts.count(("start", "")) == 12


@pytest.mark.parametrize(
    ("definition", "reason"),
    [
        ("A basalt is a basalt.", "circular"),
        ("The definition of it varies.", "no_answer"),
        ("A dark rock that flowed out as lava.", ""),
    ],
)
def test_definitions_that_define_nothing_are_refused(definition, reason):
    statements = Statements()
    statements.name("basalt", "basalt", preferred=True)
    statements.definition("basalt", definition)
    assert [c.reason for task, c in asked(statements.build("k")) if task == "definition"] == [reason]


@pytest.mark.parametrize(
    ("key", "task", "words"),
    [
        ("melting point", "facts", "melting point"),
        ("has colour", "facts", "colour"),
        ("part of", "relations", "part of"),
        ("causes", "relations", "causes"),
        ("radius", "facts", "radius"),
    ],
)
def test_properties_are_facts_and_verbs_are_relations(key, task, words):
    statements = Statements()
    statements.fact("basalt", key, "x1")
    assert [(name, c.slots["key"]) for name, c in asked(statements.build("k"))] == [(task, words)]


def vocabulary(*terms):
    statements = Statements()
    for term in terms:
        statements.name(term, term, preferred=True)
    return Vocabulary.of([statements.build("k")])


def found_in(text, *terms):
    return [text[start:end] for start, end in vocabulary(*terms).find(text)]


def test_the_longest_term_wins_at_word_boundaries():
    text = "Sea ice and ices of the iceberg; SEA ICE FLOES met firns."
    assert found_in(text, "sea ice", "sea ice floe", "firn", "ices") == [
        "Sea ice",
        "ices",
        "SEA ICE FLOES",
        "firns",
    ]


def test_generic_and_short_words_are_no_terms():
    assert found_in("The age of the ice as a region", "age", "ice", "as", "region") == []


def test_sentences_need_three_terms_or_a_long_one():
    terms = ("glacier", "firn", "basalt", "sea ice")
    texts = [
        "A glacier has firn.",
        "A glacier has sea ice.",
        "A glacier has firn on basalt.",
        "Sea ice melts.",
    ]
    flow = Flow([Inline("text", " ".join(texts))])
    found = [(c.slots["input"], c.slots["output"]) for c in entity_recognition([flow], vocabulary(*terms))]
    assert found == [(texts[1], "glacier, sea ice"), (texts[2], "glacier, firn, basalt")]
