"""Concepts and what is said of them, whatever notation it was written in."""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property

from baltoro.papers.schema import Reject

_CAMEL = re.compile(r"(?<=[a-z0-9])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])")
_OPAQUE = re.compile(r"[A-Za-z]*[_-]?\d{3,}[A-Za-z0-9_-]*|[0-9a-f]{8,}|.*\d{5,}.*")
_SHORT_SYMBOL = 3


@dataclass(frozen=True, slots=True)
class Concept:
    """One concept.

    Attributes:
        key: what identifies it in its source: an IRI, or its name where there are none.
        names: what it is called, the preferred name first; empty if it has no readable name.
        definitions: texts that say what it is.
        parents: keys of the broader concepts right above it.
        facts: a key in words, and the value.
        relations: a relation in words, and the name of the other concept.
    """

    key: str
    names: tuple[str, ...] = ()
    definitions: tuple[str, ...] = ()
    parents: tuple[str, ...] = ()
    facts: tuple[tuple[str, str], ...] = ()
    relations: tuple[tuple[str, str], ...] = ()


@dataclass
class Knowledge:
    """All concepts of a source, by key, in the order of their keys."""

    name: str
    concepts: Mapping[str, Concept]
    rejects: list[Reject] = field(default_factory=list)

    @cached_property
    def children(self) -> dict[str, list[str]]:
        """Keys of the concepts right below each concept."""
        found: dict[str, list[str]] = defaultdict(list)
        for key, concept in self.concepts.items():
            for parent in concept.parents:
                found[parent].append(key)
        return dict(found)

    @cached_property
    def _ancestors(self) -> dict[str, frozenset[str]]:
        return {}

    def ancestors(self, key: str) -> frozenset[str]:
        """Return everything above a concept, at any distance; a cycle puts a concept above itself."""
        known = self._ancestors.get(key)
        if known is None:
            above: set[str] = set()
            ahead = list(self.concepts[key].parents)
            while ahead:
                parent = ahead.pop()
                if parent not in above:
                    above.add(parent)
                    ahead += self.concepts[parent].parents
            known = self._ancestors[key] = frozenset(above)
        return known

    def name_of(self, key: str) -> str:
        """Return a concept's preferred name, empty if it has none."""
        names = self.concepts[key].names
        return names[0] if names else ""


class Statements:
    """What a reader of a notation collects; :meth:`build` makes concepts of it."""

    def __init__(self) -> None:
        self._preferred: dict[str, set[str]] = defaultdict(set)
        self._others: dict[str, set[str]] = defaultdict(set)
        self._definitions: dict[str, set[str]] = defaultdict(set)
        self._parents: dict[str, set[str]] = defaultdict(set)
        self._facts: dict[str, set[tuple[str, str]]] = defaultdict(set)
        self._links: dict[str, set[tuple[str, str]]] = defaultdict(set)
        self._same: dict[str, str] = {}
        self._subjects: set[str] = set()
        self.rejects: list[Reject] = []

    def name(self, subject: str, text: str, *, preferred: bool) -> None:
        """Note what a concept is called."""
        self._subjects.add(subject)
        if text := _line(text):
            (self._preferred if preferred else self._others)[subject].add(text)

    def definition(self, subject: str, text: str) -> None:
        """Note what a concept is."""
        self._subjects.add(subject)
        if text := _line(text):
            self._definitions[subject].add(text)

    def parent(self, subject: str, parent: str) -> None:
        """Note that one concept is a kind or an instance of another."""
        self._subjects |= {subject, parent}
        self._parents[subject].add(parent)

    def same(self, subject: str, other: str) -> None:
        """Note that two keys are one concept."""
        self._subjects |= {subject, other}
        first, second = sorted((self._root(subject), self._root(other)))
        if first != second:
            self._same[second] = first

    def fact(self, subject: str, key: str, value: str) -> None:
        """Note a value of a concept, both in words."""
        self._subjects.add(subject)
        key, value = _line(key), _line(value)
        if key and value:
            self._facts[subject].add((key, value))

    def link(self, subject: str, key: str, other: str) -> None:
        """Note a relation, in words, to another concept."""
        self._subjects |= {subject, other}
        if key := _line(key):
            self._links[subject].add((key, other))

    def _root(self, key: str) -> str:
        while key in self._same:
            key = self._same[key]
        return key

    def build(self, name: str) -> Knowledge:
        """Return the concepts of everything that was noted; what is the same is one."""
        members: dict[str, list[str]] = defaultdict(list)
        for subject in sorted(self._subjects):
            members[self._root(subject)].append(subject)
        names = {root: self._names(keys) for root, keys in members.items()}

        def merged(store: Mapping[str, set[str]], keys: Iterable[str]) -> list[str]:
            return sorted(set().union(*(store.get(key, ()) for key in keys)))

        concepts = {}
        for root in sorted(members):
            keys = members[root]
            parents = {self._root(parent) for key in keys for parent in self._parents.get(key, ())} - {root}
            facts = {fact for key in keys for fact in self._facts.get(key, ())}
            relations: set[tuple[str, str]] = set()
            for relation, other in {link for key in keys for link in self._links.get(key, ())}:
                if (target := self._root(other)) != root and names[target]:
                    # What a concept has is a property of it; the value happens to be a concept too.
                    told = facts if relation.lower().startswith("has ") else relations
                    told.add((relation, names[target][0]))
            concepts[root] = Concept(
                root,
                names[root],
                tuple(merged(self._definitions, keys)),
                tuple(sorted(parents)),
                tuple(sorted(facts)),
                tuple(sorted(relations)),
            )
        return Knowledge(name, concepts, self.rejects)

    def _names(self, keys: list[str]) -> tuple[str, ...]:
        found: dict[str, str] = {}
        for store in (self._preferred, self._others):
            for key in keys:
                for text in sorted(store.get(key, ()), key=lambda text: (len(text) <= _SHORT_SYMBOL, text)):
                    name = _as_written(text, key)
                    found.setdefault(name.casefold(), name)
        if not found:
            for key in keys:
                if readable := readable_name(key):
                    found.setdefault(readable.casefold(), readable)
        # A symbol (Al) is a name of the concept, not the one that it is called by.
        return tuple(sorted(found.values(), key=lambda text: len(text) <= _SHORT_SYMBOL))


def readable_name(key: str) -> str:
    """Return the words of a key: the end of an IRI cut at its capitals, or the key itself.

    An end that is a number of a catalogue (``ENVO_00002200``) gives nothing.
    """
    if "://" not in key and not key.startswith("urn:"):
        return _line(key)
    end = local_name(key)
    if not end or _OPAQUE.fullmatch(end):
        return ""
    return " ".join(_CAMEL.sub(" ", end.replace("_", " ").replace("-", " ")).split()).lower()


def local_name(iri: str) -> str:
    """Return what stands after the last ``#``, ``/`` or ``:`` of an IRI."""
    return re.split(r"[#/:]", iri.rstrip("#/"))[-1]


def frequent_values(knowledge: Knowledge) -> Iterator[tuple[str, str]]:
    """Yield the facts that tell nothing: the value that at least half of ten or more objects share."""
    objects: Counter[str] = Counter()
    values: Counter[tuple[str, str]] = Counter()
    for concept in knowledge.concepts.values():
        said = (*concept.facts, *concept.relations)
        objects.update({key for key, _ in said})
        values.update(said)
    for fact, count in values.items():
        if objects[fact[0]] >= 10 and 2 * count >= objects[fact[0]]:
            yield fact


def _line(text: str) -> str:
    return " ".join(text.split())


def _as_written(text: str, key: str) -> str:
    """Return a label; a symbol that lost its capital in the label (``al``) as the key spells it (``Al``)."""
    if len(text) <= _SHORT_SYMBOL and "://" in key:
        end = local_name(key)
        spelled = len(text) < _SHORT_SYMBOL or end.isupper()
        return end if spelled and end.casefold() == text.casefold() else text
    return text
