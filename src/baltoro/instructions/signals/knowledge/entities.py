"""The terms of a vocabulary in running text: at word boundaries, the longest first."""

from __future__ import annotations

import re
import string
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field

from baltoro.instructions.signals.knowledge.concepts import Knowledge
from baltoro.instructions.signals.tasks import Candidate
from baltoro.instructions.signals.text import Flow

_WORD = re.compile(r"[^\W_]+(?:['’-][^\W_]+)*")
_PUNCTUATION = string.punctuation.replace("-", "").replace("'", "").encode()
_TO_SPACES = bytes.maketrans(_PUNCTUATION, b" " * len(_PUNCTUATION))
_FEWEST_LETTERS = 4
_FEWEST_TERMS = 3
_FEWEST_TERMS_WITH_LONG_ONE = 2

_GENERIC = """
action activity age agent anthropogenic area attribute axis band bank base basin-wide behavior
behaviour belt body bottom boundary category cell center centre change channel chemical class
cluster collection component compound concept condition configuration confined constituent cool core
count cover crest crystal current cycle dark data date day decade degree depression depth direction
distance distribution domain down drop duration edge element ensemble entity environment epoch era
event extent extraction face factor feature field filament flow fluid form front function global
grade grid group habitat head heat height history horizontal human image impact inclusion index
instance interface interval irregular item kind layer lead length level life limit line link liquid
location mass material matrix measure medium member method middle mixing mixture mode model month
motion mouth nature neck network node normal number object observation order origin part pass path
pattern peak people period phase phenomena phenomenon place plane plasma plate point pole population
position pressure procedure process product property protrusion quality quantity range rate realm
reference region relation resource response result reverse role root row saline sample scale school
season section segment sense sequence series setting shape shelf side signal site size snout solid
source space stage standard star state step strain stress structure subject substance surface system
table target term terminal test theory thing time tissue tongue top town trace trait transform
transition transport trend tube type unit value variable vertical volume wall warm wave week width
window work world year zone
"""

GENERIC_WORDS = frozenset(_GENERIC.split())
"""Single words of ontologies that mean something else in most sentences that hold them; inside longer terms
they count."""


Term = tuple[str, ...]
"""The words of a term in lower case."""


@dataclass(slots=True)
class Vocabulary:
    """Terms of a subject.

    Attributes:
        by_first_word: terms by their first word, each as its words in lower case, longest first.
        single: terms of one word, and their plurals.
        long: terms of several words by their first one.
    """

    by_first_word: Mapping[str, tuple[Term, ...]] = field(default_factory=dict)
    single: frozenset[str] = frozenset()
    long: Mapping[str, tuple[Term, ...]] = field(default_factory=dict)

    @classmethod
    def of(cls, sources: Iterable[Knowledge]) -> Vocabulary:
        """Return the names of all concepts, but those of fewer than four letters and generic words."""
        found: dict[str, set[Term]] = defaultdict(set)
        for knowledge in sources:
            for concept in knowledge.concepts.values():
                for name in concept.names:
                    words = tuple(_WORD.findall(name.casefold()))
                    letters = sum(character.isalpha() for character in name)
                    if not words or letters < _FEWEST_LETTERS:
                        continue
                    if len(words) > 1 or words[0] not in GENERIC_WORDS:
                        found[words[0]].add(words)
        by_first_word = {
            first: tuple(sorted(found[first], key=lambda words: (-len(words), words)))
            for first in sorted(found)
        }
        single = {terms[-1][0] for terms in by_first_word.values() if len(terms[-1]) == 1}
        long = {
            first: tuple(term for term in terms if len(term) > 1)
            for first, terms in by_first_word.items()
            if len(terms[0]) > 1
        }
        return cls(by_first_word, frozenset(single | {f"{word}s" for word in single}), long)

    def may_tell(self, text: str) -> bool:
        """Return whether a text may hold enough terms for a sentence that counts, at a glance."""
        # As bytes: a table of 256 entries is many times faster than one of all characters.
        words = set(text.lower().encode("utf-8", "replace").translate(_TO_SPACES).decode().split())
        single = len(self.single & words)
        if single >= _FEWEST_TERMS:
            return True
        long = sum(
            words.issuperset(term[:-1]) and (term[-1] in words or f"{term[-1]}s" in words)
            for first in self.long.keys() & words
            for term in self.long[first]
        )
        return long > 0 and single + long >= _FEWEST_TERMS_WITH_LONG_ONE

    def find(self, text: str) -> Iterator[tuple[int, int]]:
        """Yield start and end of every term in a text; a plural in ``s`` is the term too."""
        known = self.by_first_word
        lowered = text.casefold()
        if len(lowered) != len(text):  # a letter that grows when folded would shift every place
            lowered = text.lower()
            if len(lowered) != len(text):
                return
        places = [match.span() for match in _WORD.finditer(lowered)]
        words = [lowered[start:end] for start, end in places]
        number = 0
        while number < len(words):
            word = words[number]
            length = 0
            for terms in (known.get(word), known.get(word[:-1]) if word.endswith("s") else None):
                if terms:
                    length = max(length, _longest(terms, words, number))
            if length:
                yield places[number][0], places[number + length - 1][1]
                number += length
            else:
                number += 1


def entity_recognition(flows: Iterable[Flow], vocabulary: Vocabulary) -> Iterator[Candidate]:
    """Yield the sentences of the vocabulary's subject, with their terms as printed, in order.

    Single words mean other things elsewhere (a rock, a bank), so a sentence counts only if it holds at least
    three different terms, or two of which one has several words.

    Args:
        flows: texts of paragraphs.
        vocabulary: the terms.
    """
    for flow in flows:
        if not vocabulary.may_tell(flow.text):
            continue
        by_sentence: dict[int, dict[str, str]] = {}
        for start, end in vocabulary.find(flow.text):
            printed = flow.text[start:end]
            terms = by_sentence.setdefault(flow.sentence_at(start), {})
            terms.setdefault(printed.casefold().removesuffix("s"), printed)
        for number, terms in by_sentence.items():
            long = any(" " in term or "-" in term for term in terms)
            if len(terms) >= (_FEWEST_TERMS_WITH_LONG_ONE if long else _FEWEST_TERMS):
                start, end = flow.sentence_spans[number]
                yield Candidate({"input": flow.text[start:end], "output": ", ".join(terms.values())})


def _longest(terms: tuple[Term, ...], words: list[str], number: int) -> int:
    for term in terms:
        length = len(term)
        if length == 1:
            if words[number] in (term[0], term[0] + "s"):
                return 1
        elif words[number] == term[0] and number + length <= len(words):
            last = words[number + length - 1]
            if (
                last in (term[-1], term[-1] + "s")
                and tuple(words[number + 1 : number + length - 1]) == term[1:-1]
            ):
                return length
    return 0
