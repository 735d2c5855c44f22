"""How much of the prose is broken: text that an extractor or an OCR engine got wrong.

A word counts as damaged when it shows one of these; each is the trace of a known fault:

* *no vowel* in four or more Latin letters (six or more where two are capitals, since acronyms have
  none): a font whose code table was lost, letters read wrongly;
* *spaced letters*: a run of six or more single letters with nothing but a space between;
* *glued*: more than 30 Latin letters in one word, not in capitals as a sequence of bases is; the names of
  chemistry are shorter once hyphens, commas and brackets have cut them;
* *case changes* from small to capital three times or more within one word;
* *a digit between small letters* in a word of letters that has at most one capital: ``re5u1t``;
* *two scripts* in one word: Latin with Cyrillic. Greek beside Latin is how proteins are called;
* *accents on nearly every letter* of a word: another encoding read as Latin-1;
* *glyphs beside it* that no text has: U+FFFD, private-use code points, controls, ``(cid:12)``, and the pairs
  that UTF-8 read as Latin-1 or Windows-1252 leaves (``Ã©``, ``â€™``).

Chinese, Japanese and Korean characters are damaged only by the glyphs. Formulas, tables, citations,
reference entries, code and web addresses are not looked at. Compounds, species and nearly all genes pass:
Greek, capitals, a digit at an end and length alone are no fault.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from baltoro.corpus.filters.characters import (
    ACCENTED,
    CYRILLIC,
    DIGIT,
    LATIN,
    MOST_CHARACTERS,
    UPPER,
    VOWEL,
    Codes,
    counts_of,
    field,
)
from baltoro.corpus.filters.parts import Flags, Offsets, Parts, fill_ranges
from baltoro.corpus.filters.word_sets import WordSet
from baltoro.corpus.words import Words, words_of

_FEWEST_LETTERS_WITHOUT_VOWEL = 4
_FEWEST_CAPITALS_WITHOUT_VOWEL = 6
_LONGEST_LATIN_WORD = 30
_SHORTEST_SPACED_RUN = 6
_MOST_CASE_CHANGES = 2

_SPACE = re.compile(r"\s")
_NO_VOWEL_EITHER = "http https html xhtml xlsx sqrt mmhg"
"""Words that papers print and no vowel is missing from."""

_WINDOWS_1252 = np.array([ord(character) for character in "€‚ƒ„…†‡ˆ‰Š‹ŒŽ‘’“”•–—˜™š›œžŸ"], np.uint32)


@dataclass(frozen=True, slots=True)
class Garble:
    """The scores, and which words are damaged."""

    scores: dict[str, float]
    damaged_words: Flags


def garble_of(text: str, words: Words, parts: Parts) -> Garble:
    """Return which part of the prose is damaged, in all and by kind of damage."""
    prose = parts.prose.nonzero()[0]
    counts = parts.counts[prose]
    lengths = words.lengths[prose]
    latin, upper = field(counts, LATIN), field(counts, UPPER)
    long = lengths > MOST_CHARACTERS
    letters_only = (latin == lengths) & ~long
    fewest = np.where(upper > 1, _FEWEST_CAPITALS_WITHOUT_VOWEL, _FEWEST_LETTERS_WITHOUT_VOWEL)
    vowelless = letters_only & (field(counts, VOWEL) == 0) & (lengths >= fewest)
    candidates = vowelless.nonzero()[0]
    vowelless[candidates] = ~_exempt().contains(words.hashes[prose[candidates]])
    # In capitals it is a sequence of bases or residues.
    glued = long | (letters_only & (lengths > _LONGEST_LATIN_WORD) & (upper * 2 < latin))
    mixed = ((latin > 0) & (field(counts, CYRILLIC) > 0) & ~long) | _mixed_up(words, parts, prose, counts)
    accented = letters_only & (lengths >= 3) & (field(counts, ACCENTED) * 4 >= latin * 3)
    spaced = _spaced_letters(parts.codes, words, prose)
    beside_glyphs = _beside_glyphs(text, words, parts, prose)
    spelled = ~_in_addresses(text, words)[prose]
    vowelless &= spelled
    glued &= spelled
    mixed &= spelled
    damaged = vowelless | glued | mixed | accented | spaced | beside_glyphs
    scores = {
        "garble_fraction": _share(damaged),
        "garble_vowelless_fraction": _share(vowelless),
        "garble_spaced_fraction": _share(spaced),
        "garble_glued_fraction": _share(glued),
        "garble_mixed_fraction": _share(mixed),
        "garble_glyph_fraction": _share(beside_glyphs | accented),
    }
    damaged_words = np.zeros(len(words), np.bool_)
    damaged_words[prose[damaged]] = True
    return Garble(scores, damaged_words)


def _share(flags: Flags) -> float:
    return float(np.count_nonzero(flags)) / max(len(flags), 1)


@lru_cache(maxsize=1)
def _exempt() -> WordSet:
    return WordSet.of(words_of(_NO_VOWEL_EITHER).hashes)


def _in_addresses(text: str, words: Words) -> Flags:
    """Return which words belong to a web address, whose parts are spelled as anyone likes."""
    result = np.zeros(len(words), np.bool_)
    for mark in ("://", "www."):
        position = text.find(mark)
        while position >= 0:
            space = _SPACE.search(text, position)
            end = space.start() if space else len(text)
            first = int(np.searchsorted(words.starts, position, side="right")) - 1
            result[max(first, 0) : int(np.searchsorted(words.starts, end))] = True
            position = text.find(mark, end)
    return result


def _mixed_up(words: Words, parts: Parts, prose: Offsets, counts: Offsets) -> Flags:
    """Return which words change case too often, or hold digits between small letters."""
    result = np.zeros(len(prose), np.bool_)
    lengths = words.lengths[prose]
    latin, upper, digits = field(counts, LATIN), field(counts, UPPER), field(counts, DIGIT)
    # Only a word with capitals beside small letters, or with digits beside letters, can be either.
    changing = (upper > _MOST_CASE_CHANGES) & (latin - upper > _MOST_CASE_CHANGES)
    numbered = (digits > 0) & (latin - upper >= 4) & (latin + digits == lengths)
    candidates = ((changing | numbered) & (lengths <= MOST_CHARACTERS)).nonzero()[0]
    if not len(candidates):
        return result
    widths = lengths[candidates]
    ends = np.cumsum(widths)
    starts = ends - widths
    places = np.arange(int(ends[-1])) + np.repeat(words.starts[prose[candidates]] - starts, widths)
    rows = counts_of(parts.codes[places])
    capital, digit = field(rows, UPPER) > 0, field(rows, DIGIT) > 0
    small = (field(rows, LATIN) > 0) & ~capital
    rises = np.zeros(len(places), np.int64)
    rises[1:] = small[:-1] & capital[1:]
    enclosed = np.zeros(len(places), np.int64)
    enclosed[1:-1] = small[:-2] & digit[1:-1] & small[2:]
    rises[starts] = enclosed[starts] = enclosed[ends - 1] = 0
    result[candidates] = (np.add.reduceat(rises, starts) > _MOST_CASE_CHANGES) | (
        (np.add.reduceat(enclosed, starts) >= 1)
        & (digits[candidates] * 3 <= widths)
        & (upper[candidates] <= 1)
    )
    return result


def _spaced_letters(codes: Codes, words: Words, prose: Offsets) -> Flags:
    """Return which words are single letters in a long run that only spaces part."""
    starts, ends = words.starts[prose], words.ends[prose]
    letter = (ends - starts == 1) & words.has_letter[prose] & ~words.single[prose]
    joined = np.zeros(len(prose) + 1, np.bool_)
    joined[1:-1] = (
        letter[1:]
        & letter[:-1]
        & (starts[1:] - ends[:-1] <= 3)
        & (codes[np.minimum(ends[:-1], len(codes) - 1)] == 32)
    )
    edges = np.diff(joined.astype(np.int8)).nonzero()[0]
    # ``joined[i]`` is the gap before letter i: a run of gaps a to b - 1 holds the letters a - 1 to b - 1.
    firsts, ends_of_runs = edges[0::2], edges[1::2] + 1
    long = ends_of_runs - firsts >= _SHORTEST_SPACED_RUN
    result = np.zeros(len(prose), np.bool_)
    fill_ranges(result, firsts[long], ends_of_runs[long], True)
    return result


def _beside_glyphs(text: str, words: Words, parts: Parts, prose: Offsets) -> Flags:
    """Return which words stand just before a glyph that no text has."""
    places = [_control_characters(parts.codes)]
    if not text.isascii():
        places.append(_odd_glyphs(parts.codes))
    result = np.zeros(len(prose), np.bool_)
    if not len(prose):
        return result
    found = np.sort(np.concatenate(places))
    if len(found):
        word = np.maximum(np.searchsorted(words.starts, found, side="right") - 1, 0)
        beside = np.zeros(len(words), np.bool_)
        beside[word] = True
        result |= beside[prose]
        # Text that is hardly more than such glyphs: each stands for a word of its own.
        if len(found) > 2 * len(prose):
            result[:] = True
    if "(cid:" in text:
        cid = words.hashes[prose] == words_of("cid").hashes[0]
        result |= cid
        result[1:] |= cid[:-1]
    return result


def _control_characters(codes: Codes) -> Offsets:
    control = (codes < 32).nonzero()[0]
    values = codes[control]
    found: Offsets = control[(values != 10) & (values != 9) & (values != 13)]
    return found


def _odd_glyphs(codes: Codes) -> Offsets:
    """Return where U+FFFD, private-use code points, C1 controls and mojibake pairs stand."""
    places = (codes >= 0x80).nonzero()[0]
    values = codes[places]
    if not len(places):
        return places
    odd = (
        (values == 0xFFFD) | (values < 0xA0) | ((values >= 0xE000) & (values < 0xF900)) | (values >= 0xF0000)
    )
    lead = (values >= 0xC2) & (values <= 0xEF)
    if lead.any():
        follower = (values <= 0xBF) | np.isin(values, _WINDOWS_1252)
        next_follows = np.zeros(len(places) + 2, np.bool_)
        next_follows[: len(places) - 1] = follower[1:] & (places[1:] == places[:-1] + 1)
        # From U+00E0 on the lead of three bytes; before, of two: one or two followers.
        two = lead & (values < 0xE0) & next_follows[: len(places)]
        three = lead & (values >= 0xE0) & next_follows[: len(places)] & next_follows[1 : len(places) + 1]
        odd |= two | three
    result: Offsets = places[odd]
    return result
