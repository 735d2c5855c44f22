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
    any_of_fields,
    counts_of,
    field,
    one_of_field,
)
from baltoro.corpus.filters.parts import Flags, Offsets, Parts, fill_ranges
from baltoro.corpus.filters.word_sets import WordSet
from baltoro.corpus.words import Characters, Codes, Words, words_of

_FEWEST_LETTERS_WITHOUT_VOWEL = 4
_FEWEST_CAPITALS_WITHOUT_VOWEL = 6
_LONGEST_LATIN_WORD = 30
_SHORTEST_SPACED_RUN = 6
_MOST_CASE_CHANGES = 2

_SPACE = re.compile(r"\s")
_NO_VOWEL_EITHER = "http https html xhtml xlsx sqrt mmhg"
"""Words that papers print and no vowel is missing from."""

_WINDOWS_1252 = "€‚ƒ„…†‡ˆ‰Š‹ŒŽ‘’“”•–—˜™š›œžŸ"

# Words without any of these, neither long nor without a vowel, are sound; so are nearly all words of a paper.
_NO_VOWEL = any_of_fields(VOWEL)
_ODD = any_of_fields(ACCENTED, DIGIT, CYRILLIC) | any_of_fields(UPPER) & ~one_of_field(UPPER)


@dataclass(frozen=True, slots=True)
class Garble:
    """The scores, and which words are damaged."""

    scores: dict[str, float]
    damaged_words: Flags


def garble_of(text: str, words: Words, parts: Parts) -> Garble:
    """Return which part of the prose is damaged, in all and by kind of damage."""
    lengths, rows = parts.lengths, parts.counts
    suspect = ((rows & _NO_VOWEL) == 0) & (lengths >= _FEWEST_LETTERS_WITHOUT_VOWEL)
    suspect |= (rows & _ODD) != 0
    suspect |= lengths > _LONGEST_LATIN_WORD
    suspect &= parts.prose
    suspects = suspect.nonzero()[0]
    counts, lengths = rows[suspects], lengths[suspects]
    latin, upper = field(counts, LATIN), field(counts, UPPER)
    long = lengths > MOST_CHARACTERS
    letters_only = (latin == lengths) & ~long
    fewest = np.where(upper > 1, _FEWEST_CAPITALS_WITHOUT_VOWEL, _FEWEST_LETTERS_WITHOUT_VOWEL)
    vowelless = letters_only & (field(counts, VOWEL) == 0) & (lengths >= fewest)
    candidates = vowelless.nonzero()[0]
    vowelless[candidates] = ~_exempt().contains(words.hashes[suspects[candidates]])
    # In capitals it is a sequence of bases or residues.
    glued = long | (letters_only & (lengths > _LONGEST_LATIN_WORD) & (upper * 2 < latin))
    mixed = ((latin > 0) & (field(counts, CYRILLIC) > 0) & ~long) | _mixed_up(words, parts, suspects)
    accented = letters_only & (lengths >= 3) & (field(counts, ACCENTED) * 4 >= latin * 3)
    in_address = _in_addresses(text, words)
    if in_address is not None:
        spelled = ~in_address[suspects]
        vowelless &= spelled
        glued &= spelled
        mixed &= spelled
    spaced = _spaced_letters(words, parts)
    glyphs = np.zeros(len(words), np.bool_)
    glyphs[suspects[accented]] = True
    glyphs[_beside_glyphs(text, words, parts)] = True
    damaged = glyphs.copy()
    damaged[suspects[vowelless | glued | mixed]] = True
    damaged[spaced] = True
    numbers = {
        "garble_fraction": np.count_nonzero(damaged),
        "garble_vowelless_fraction": np.count_nonzero(vowelless),
        "garble_spaced_fraction": np.intp(len(spaced)),
        "garble_glued_fraction": np.count_nonzero(glued),
        "garble_mixed_fraction": np.count_nonzero(mixed),
        "garble_glyph_fraction": np.count_nonzero(glyphs),
    }
    total = max(parts.prose_words, 1)
    return Garble({name: int(number) / total for name, number in numbers.items()}, damaged)


@lru_cache(maxsize=1)
def _exempt() -> WordSet:
    return WordSet.of(words_of(_NO_VOWEL_EITHER).hashes)


def _in_addresses(text: str, words: Words) -> Flags | None:
    """Return which words belong to a web address, whose parts are spelled as anyone likes, if any does."""
    raw = words.characters.ascii.tobytes()
    result: Flags | None = None
    for mark in (b"://", b"www."):
        position = raw.find(mark)
        while position >= 0:
            space = _SPACE.search(text, position)
            end = space.start() if space else len(text)
            first = int(np.searchsorted(words.starts, position, side="right")) - 1
            if result is None:
                result = np.zeros(len(words), np.bool_)
            result[max(first, 0) : int(np.searchsorted(words.starts, end))] = True
            position = raw.find(mark, end)
    return result


def _mixed_up(words: Words, parts: Parts, suspects: Offsets) -> Flags:
    """Return which words change case too often, or hold digits between small letters."""
    result = np.zeros(len(suspects), np.bool_)
    lengths, counts = parts.lengths[suspects], parts.counts[suspects]
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
    places = np.arange(int(ends[-1])) + np.repeat(words.starts[suspects[candidates]] - starts, widths)
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


def _spaced_letters(words: Words, parts: Parts) -> Offsets:
    """Return the words that are single letters in a long run that only spaces part."""
    letters: Offsets = ((parts.lengths == 1) & words.has_letter & ~words.single & parts.prose).nonzero()[0]
    if len(letters) < _SHORTEST_SPACED_RUN:
        return letters[:0]
    starts, ends = words.starts[letters], words.ends[letters]
    # ``joined[i]`` is the gap before letter i; no other word of the prose stands in it.
    joined = np.zeros(len(letters) + 1, np.bool_)
    joined[1:-1] = (starts[1:] - ends[:-1] <= 3) & (parts.codes[ends[:-1]] == 32)
    close: Offsets = joined.nonzero()[0]
    joined[close] = parts.prose_rank(letters[close]) - parts.prose_rank(letters[close - 1]) == 1
    edges = np.diff(joined.astype(np.int8)).nonzero()[0]
    # A run of gaps a to b - 1 holds the letters a - 1 to b - 1.
    firsts, ends_of_runs = edges[0::2], edges[1::2] + 1
    long = ends_of_runs - firsts >= _SHORTEST_SPACED_RUN
    spaced = np.zeros(len(letters), np.bool_)
    fill_ranges(spaced, firsts[long], ends_of_runs[long], True)
    found: Offsets = letters[spaced]
    return found


def _beside_glyphs(text: str, words: Words, parts: Parts) -> Offsets:
    """Return the words of prose that stand just before a glyph that no text has."""
    if not parts.prose_words:
        return np.empty(0, np.int64)
    found = np.concatenate([_control_characters(parts.codes), _odd_glyphs(words.characters)])
    beside = np.zeros(len(words), np.bool_)
    if len(found):
        beside[np.maximum(np.searchsorted(words.starts, found, side="right") - 1, 0)] = True
        # Text that is hardly more than such glyphs: each stands for a word of its own.
        if len(found) > 2 * parts.prose_words:
            beside[:] = True
    if "(cid:" in text:
        prose = parts.prose.nonzero()[0]
        cid = words.hashes[prose] == words_of("cid").hashes[0]
        beside[prose[cid]] = True
        beside[prose[1:][cid[:-1]]] = True
    places: Offsets = (beside & parts.prose).nonzero()[0]
    return places


def _control_characters(codes: Codes) -> Offsets:
    control = (codes < 32).nonzero()[0]
    values = codes[control]
    found: Offsets = control[(values != 10) & (values != 9) & (values != 13)]
    return found


def _odd_glyphs(characters: Characters) -> Offsets:
    """Return where U+FFFD, private-use code points, C1 controls and mojibake pairs stand."""
    places = characters.beyond
    values = characters.codes[places]
    if not len(places):
        return places
    odd = (
        (values == 0xFFFD) | (values < 0xA0) | ((values >= 0xE000) & (values < 0xF900)) | (values >= 0xF0000)
    )
    lead = (values >= 0xC2) & (values <= 0xEF)
    if lead.any():
        follower = _followers().take(values, mode="clip")
        next_follows = np.zeros(len(places) + 2, np.bool_)
        next_follows[: len(places) - 1] = follower[1:] & (places[1:] == places[:-1] + 1)
        # From U+00E0 on the lead of three bytes; before, of two: one or two followers.
        two = lead & (values < 0xE0) & next_follows[: len(places)]
        three = lead & (values >= 0xE0) & next_follows[: len(places)] & next_follows[1 : len(places) + 1]
        odd |= two | three
    result: Offsets = places[odd]
    return result


@lru_cache(maxsize=1)
def _followers() -> Flags:
    """Return which characters beyond ASCII stand for a byte that goes on a sequence of UTF-8."""
    table = np.zeros(0x10000, np.bool_)
    table[:0xC0] = True
    table[[ord(character) for character in _WINDOWS_1252]] = True
    return table
