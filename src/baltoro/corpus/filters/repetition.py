"""How much of a text repeats itself: the rules of Gopher's table A1, on prose, without a loop over words.

Rae et al. 2021 ("Scaling Language Models: Methods, Analysis & Insights from Training Gopher"), A.1.1 and
table A1. Three readings of the table need a choice:

* *Duplicate* is every occurrence but the first: what would go if each were kept once.
* Characters in overlapping duplicate n-grams count once.
* In Chinese, Japanese and Korean a word is a character here, and about two make what the table calls a
  word; so where most words are such characters, an n-gram of the table has 2n of them.

An n-gram may run through a formula or a citation, so "where [x] is the mass" and "where [y] is the mass" stay
different; but only characters of prose are counted. Tables, code, reference entries and bracket tokens are
left out beforehand.

A longer n-gram can only be repeated where both shorter ones inside it are, so each length looks at what is
left of the one before: the cost is that of sorting the words once or twice.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from baltoro.corpus.filters.parts import CITATION, FORMULA, PROSE, Flags, Offsets, Parts
from baltoro.corpus.words import Hashes, Words

TOP_NGRAMS = (2, 3, 4)
DUPLICATE_NGRAMS = (5, 6, 7, 8, 9, 10)

_FEWEST_WORDS_IN_A_LINE = 3
"""Shorter ones ("where", "Proof.", "end if") come again between formulas and in algorithms."""

_FACTOR = np.uint64(0xA0761D6478BD642F)
_PLACE = np.uint64(0xD6E8FEB86659FD93)


@dataclass(frozen=True, slots=True)
class Repetition:
    """The scores, and where the text repeats itself.

    Attributes:
        scores: by name of the score.
        top_words: first and last word (inclusive) of the n-gram that fills most of the prose, or ``None``.
        duplicate_words: per word of the text, whether it lies in a duplicate of the shortest length.
    """

    scores: dict[str, float]
    top_words: tuple[int, int] | None
    duplicate_words: Flags


def repetition_of(words: Words, parts: Parts, *, code_lines: Flags | None = None) -> Repetition:
    """Return how much lines, paragraphs and n-grams repeat themselves.

    Args:
        words: of the text.
        parts: which of them are prose.
        code_lines: lines in the form of program code, which do not count as lines.
    """
    places = ((parts.kinds == PROSE) | (parts.kinds == FORMULA) | (parts.kinds == CITATION)).nonzero()[0]
    weights = parts.prose_lengths[places]
    scores = _line_scores(words, parts, code_lines)
    duplicate_words = np.zeros(len(words), np.bool_)
    single = words.single[places]
    characters_per_word = 2 if len(single) and np.count_nonzero(single) * 2 > len(single) else 1
    ngrams = _Ngrams(words.hashes[places], weights)
    heaviest, top_words = 0, None
    for n in range(2, DUPLICATE_NGRAMS[-1] + 1):
        while ngrams.length < n * characters_per_word:
            ngrams.lengthen()
        if n in TOP_NGRAMS:
            weight, first = ngrams.heaviest()
            scores[f"top_{n}gram_fraction"] = min(ngrams.share(weight), 1.0)
            if weight > heaviest:
                heaviest = weight
                top_words = (int(places[first]), int(places[first + ngrams.length - 1]))
        elif n in DUPLICATE_NGRAMS:
            starts, ends = ngrams.duplicates()
            scores[f"dup_{n}gram_fraction"] = ngrams.share(ngrams.characters(starts, ends))
            if n == DUPLICATE_NGRAMS[0] and len(starts):
                lengths = ends - starts
                within = np.arange(int(lengths.sum())) - np.repeat(np.cumsum(lengths) - lengths, lengths)
                duplicate_words[places[np.repeat(starts, lengths) + within]] = True
    return Repetition(scores, top_words, duplicate_words & parts.prose)


class _Ngrams:
    """The n-grams that occur more than once, at a length that grows from one word, all of them."""

    def __init__(self, hashes: Hashes, weights: Offsets) -> None:
        self.length = 1
        self._hashes = hashes
        self._sums = np.zeros(len(weights) + 1, np.int64)
        np.cumsum(weights, out=self._sums[1:])
        self._total = int(self._sums[-1])
        # Where each stands, ascending; then the same places with equal n-grams side by side.
        self._keys = hashes
        self._places = np.arange(len(hashes))
        self._order = np.empty(0, np.int64)
        self._run_starts = np.empty(0, np.int64)

    def lengthen(self) -> None:
        """Go on to n-grams of one word more."""
        places, keys = self._places, self._keys
        if self.length == 1:
            places, keys = places[:-1], keys[:-1] * _FACTOR
            keys += self._hashes[1:]
        else:
            # One can only be repeated where both shorter ones inside it are.
            followed = (places[1:] - places[:-1] == 1).nonzero()[0]
            places = places[followed]
            keys = keys[followed] * _FACTOR + self._hashes[places + self.length]
        self.length += 1
        if not len(places):
            self._places, self._keys = places, keys
            self._order = self._run_starts = places
            return
        order, self._run_starts = _repeated_runs(keys)
        repeated = np.zeros(len(keys), np.bool_)
        repeated[order] = True
        self._order = places[order]
        self._places, self._keys = places[repeated], keys[repeated]

    def share(self, characters: int) -> float:
        """Return characters as a part of the prose's."""
        return characters / self._total if self._total else 0.0

    def heaviest(self) -> tuple[int, int]:
        """Return the characters of the n-gram that fills most, all its occurrences, and where one stands."""
        if not len(self._order):
            return 0, 0
        characters = self._sums[self._order + self.length] - self._sums[self._order]
        weights = np.add.reduceat(characters, self._run_starts)
        firsts = self._order[self._run_starts]
        most = int(weights.max())
        return most, int(firsts[weights == most].min())

    def duplicates(self) -> tuple[Offsets, Offsets]:
        """Return first and end word of the stretches that lie in n-grams which occurred before."""
        later = np.ones(len(self._order), np.bool_)
        later[self._run_starts] = False
        starts = np.sort(self._order[later])
        ends = starts + self.length
        # Where the next one starts earlier, a stretch ends there: no word is in two.
        ends[:-1] = np.minimum(ends[:-1], starts[1:])
        return starts, ends

    def characters(self, starts: Offsets, ends: Offsets) -> int:
        """Return the prose characters in stretches of words."""
        return int((self._sums[ends] - self._sums[starts]).sum())


def _repeated_runs(keys: Hashes) -> tuple[Offsets, Offsets]:
    """Return which keys occur again, equal ones side by side in order, and where each run of them starts.

    A key's low bits give way to its number, so that one plain sort, many times faster than one that returns
    an order, brings equal keys together and tells where they came from. What is left of a key, 50 bits in a
    paper of 10 000 words, still tells different n-grams apart.
    """
    low = (np.uint64(1) << np.uint64(len(keys).bit_length())) - np.uint64(1)
    numbered = keys & ~low
    numbered |= np.arange(len(keys), dtype=np.uint64)
    numbered.sort()
    same = np.zeros(len(keys) + 1, np.bool_)
    same[1:-1] = (numbered[1:] ^ numbered[:-1]) <= low
    in_run = (same[1:] | same[:-1]).nonzero()[0]
    run_starts = (~same[in_run]).nonzero()[0]
    return (numbered[in_run] & low).view(np.int64), run_starts


def _line_scores(words: Words, parts: Parts, code_lines: Flags | None) -> dict[str, float]:
    """Return the part of lines and paragraphs that stood before, by number and by characters."""
    lines = parts.lines
    characters = parts.prose_characters_per_line
    keep = parts.prose_lines & (parts.prose_words_per_line >= _FEWEST_WORDS_IN_A_LINE)
    if code_lines is not None:
        keep &= ~code_lines
    line_keys = _sequence_keys(words, lines.first_words[keep], lines.end_words[keep])
    by_line = _duplicates(line_keys, characters[keep])
    first_of_paragraph = np.diff(lines.paragraphs, prepend=-1).nonzero()[0]
    paragraph_characters = (
        np.add.reduceat(np.where(keep, characters, 0), first_of_paragraph)
        if len(first_of_paragraph)
        else np.empty(0, np.int64)
    )
    last_of_paragraph = np.append(first_of_paragraph[1:], len(lines)) - 1
    filled = paragraph_characters > 0
    paragraph_keys = _sequence_keys(
        words,
        lines.first_words[first_of_paragraph[filled]],
        lines.end_words[last_of_paragraph[filled]],
    )
    by_paragraph = _duplicates(paragraph_keys, paragraph_characters[filled])
    return {
        "dup_line_fraction": by_line[0],
        "dup_line_character_fraction": by_line[1],
        "dup_paragraph_fraction": by_paragraph[0],
        "dup_paragraph_character_fraction": by_paragraph[1],
    }


def _sequence_keys(words: Words, first: Offsets, end: Offsets) -> Hashes:
    """Return a key per run of words, each with at least one; equal for runs of equal words."""
    if not len(first):
        return np.empty(0, np.uint64)
    powers, inverse = _powers(1 << len(words).bit_length())
    values = np.zeros(len(words) + 1, np.uint64)
    np.multiply(words.hashes, powers[: len(words)], out=values[:-1])
    edges = np.empty(2 * len(first), np.int64)
    edges[0::2], edges[1::2] = first, end
    # What stands between two runs is summed, too, and thrown away; a run's sum begins at its place's power.
    keys: Hashes = np.add.reduceat(values, edges)[0::2] * inverse[first]
    return keys


@lru_cache(maxsize=4)
def _powers(count: int) -> tuple[Hashes, Hashes]:
    """Return the first powers of a constant modulo 2^64, and their inverses."""
    powers = np.full((2, count), _PLACE, np.uint64)
    powers[1] = pow(int(_PLACE), -1, 1 << 64)
    powers[:, 0] = 1
    return tuple(np.cumprod(powers, axis=1, dtype=np.uint64))


def _duplicates(keys: Hashes, characters: Offsets) -> tuple[float, float]:
    """Return the part of items whose key stood before, by number and by characters."""
    if not len(keys):
        return 0.0, 0.0
    places, run_starts = _repeated_runs(keys)
    if not len(places):
        return 0.0, 0.0
    later = np.zeros(len(keys), np.bool_)
    later[places] = True
    later[places[run_starts]] = False
    return np.count_nonzero(later) / len(keys), int(characters[later].sum()) / int(characters.sum())
