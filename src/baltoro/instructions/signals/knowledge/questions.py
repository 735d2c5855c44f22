"""Questions about concepts: what they mean, what else they are called, what they are kinds of, facts.

Every example stands with its concept's origin. A judgement belongs to the narrower concept, and the examples
of a hyponym question name only children that stand on the same side of the split, so that no statement is
learned on one side and asked on the other.
"""

from __future__ import annotations

import hashlib
import re
from collections import defaultdict
from collections.abc import Iterator

from baltoro.instructions.signals.config import SignalsConfig
from baltoro.instructions.signals.knowledge.concepts import Concept, Knowledge, frequent_values
from baltoro.instructions.signals.tasks import Candidate
from baltoro.instructions.splits import HoldOut

_MOST_CHILDREN = 8
_NEGATIVE_TRIES = 50
_RELATION_ENDS = frozenset(("of", "by", "in", "on", "to", "from", "with", "at", "for", "as", "than", "into"))
_NOT_VERBS = re.compile(r"(?:ss|us|is|sis|ics|ies)$")
_VALUE_NAME = re.compile(r"^[-+]?\d|\d[^\W\d_]{3,}")
_ARTICLE_CHARACTERS = 12
_ABOUT_DEFINITION = re.compile(r"(?:the|this|these) definitions?\b|see\b", re.IGNORECASE)
_WORDS = re.compile(r"\w+")

KNOWLEDGE_TASKS = (
    "definition",
    "synonym",
    "hypernym",
    "hyponym",
    "hypernym_judgement",
    "hyponym_judgement",
    "facts",
    "relations",
)


_NOTHING = HoldOut()


def origin_of(knowledge: Knowledge, key: str) -> str:
    """Return the origin of a concept's examples."""
    return f"{knowledge.name}/{key}"


class Questions:
    """What can be asked of one source of knowledge.

    Args:
        knowledge: the source.
        config: its seed decides what is drawn.
        hold_out: of the whole set; a question names children of its concept's own side alone.
    """

    def __init__(self, knowledge: Knowledge, config: SignalsConfig, hold_out: HoldOut = _NOTHING) -> None:
        self._knowledge = knowledge
        self._config = config
        self._hold_out = hold_out
        self._uninformative = frozenset(frequent_values(knowledge))
        self._possible_parents = [key for key in knowledge.children if knowledge.name_of(key)]
        self._possible_parents.sort()

    def of(self, concept: Concept) -> Iterator[tuple[str, Candidate]]:
        """Yield the task and candidate of everything that can be asked of a concept."""
        if concept.names and _VALUE_NAME.search(concept.names[0]):
            yield "hypernym", Candidate({}, "value_name", concept.names[0])
            return
        if not concept.names:
            if concept.parents or concept.definitions or concept.facts:
                yield "hypernym", Candidate({}, "unnamed_concept", concept.key)
            return
        name = concept.names[0]
        for definition in concept.definitions:
            slots = {"object": name, "value": definition}
            if name.casefold() in definition.casefold()[: len(name) + _ARTICLE_CHARACTERS]:
                yield "definition", Candidate(slots, "circular", definition[:80])
            elif _ABOUT_DEFINITION.match(definition):
                yield "definition", Candidate(slots, "no_answer", definition[:80])
            else:
                yield "definition", Candidate(slots)
        for other in concept.names[1:]:
            yield "synonym", Candidate({"object": name, "value": other})
            yield "synonym", Candidate({"object": other, "value": name})
        yield from self._taxonomy(concept, name)
        yield from self._facts(concept, name)

    def _taxonomy(self, concept: Concept, name: str) -> Iterator[tuple[str, Candidate]]:
        knowledge = self._knowledge
        parents = [
            key
            for key in concept.parents
            if (parent := knowledge.name_of(key))
            and not _VALUE_NAME.search(parent)
            and parent.casefold() != name.casefold()
        ]
        if parents:
            names = sorted({knowledge.name_of(key) for key in parents})
            yield "hypernym", Candidate({"child": name, "parent": " and ".join(names)})
        children = self._children_on_this_side(concept)
        if children:
            yield "hyponym", Candidate({"parent": name, "child": ", ".join(children)})
        for parent in parents:
            # One of the two questions gets the true parent and the other one a false one.
            true_first = self._draw(concept.key, parent, "side") % 2 == 0
            for task, true in (("hypernym_judgement", true_first), ("hyponym_judgement", not true_first)):
                key = parent if true else self._false_parent(concept, parent)
                if key is None:
                    yield task, Candidate({"child": name}, "no_negative", f"{name} / {parent}")
                    continue
                yield (
                    task,
                    Candidate(
                        {
                            "child": name,
                            "parent": knowledge.name_of(key),
                            "answer": "Yes" if true else "No",
                            "verb": "is" if true else "is not",
                        }
                    ),
                )

    def _children_on_this_side(self, concept: Concept) -> list[str]:
        knowledge = self._knowledge

        def side(key: str) -> str:
            return self._hold_out.split_of("knowledge", origin_of(knowledge, key))

        own = side(concept.key)
        found = [
            key
            for key in knowledge.children.get(concept.key, ())
            if (child := knowledge.name_of(key)) and not _VALUE_NAME.search(child) and side(key) == own
        ]
        found.sort(key=lambda key: self._draw(concept.key, key, "child"))
        return sorted({knowledge.name_of(key) for key in found[:_MOST_CHILDREN]})

    def _false_parent(self, concept: Concept, parent: str) -> str | None:
        """Return a concept with children that is surely no kind above this one.

        What a taxonomy does not say may still be true. So the two must have nothing above them in common,
        neither may be above the other, and their names may share no word.
        """
        knowledge, pool = self._knowledge, self._possible_parents
        if not pool:
            return None
        own = knowledge.ancestors(concept.key) | {concept.key}
        own_names = {name.casefold() for key in own for name in knowledge.concepts[key].names}
        own_words = {word for name in concept.names for word in _WORDS.findall(name.casefold())}
        first = self._draw(concept.key, parent, "negative")
        for step in range(min(_NEGATIVE_TRIES, len(pool))):
            key = pool[(first + step * 7919) % len(pool)]
            names = {name.casefold() for name in knowledge.concepts[key].names}
            words = {word for name in names for word in _WORDS.findall(name)}
            if (
                own.isdisjoint(knowledge.ancestors(key) | {key})
                and own_names.isdisjoint(names)
                and own_words.isdisjoint(words)
            ):
                return key
        return None

    def _facts(self, concept: Concept, name: str) -> Iterator[tuple[str, Candidate]]:
        values: dict[tuple[str, str], list[str]] = defaultdict(list)
        told = [(fact, "") for fact in concept.facts] + [(fact, "relations") for fact in concept.relations]
        for fact, kind in told:
            words = fact[0].removeprefix("has ").strip()
            task = kind or ("relations" if _is_relation(words) else "facts")
            if fact in self._uninformative:
                slots = {"object": name, "key": words, "value": fact[1]}
                yield task, Candidate(slots, "uninformative", ": ".join(fact))
            else:
                values[task, words].append(fact[1])
        for (task, words), found in values.items():
            yield task, Candidate({"object": name, "key": words, "value": ", ".join(sorted(found))})

    def _draw(self, *parts: str) -> int:
        text = "\0".join((str(self._config.seed), *parts))
        return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "big")


def _is_relation(words: str) -> bool:
    """Return whether a key names a relation (``part of``, ``causes``), not a property (``melting point``)."""
    parts = words.split()
    if not parts:
        return False
    if parts[-1] in _RELATION_ENDS or parts[0] in ("is", "are"):
        return True
    return len(parts) == 1 and words.endswith("s") and not _NOT_VERBS.search(words)
