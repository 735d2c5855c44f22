"""Which words of a rendered paper are prose, and which are formula, table, citation, reference entry or code.

The rules of Gopher and C4 were made for web pages; a formula trips the symbol rule, a table the repetition
rule, a title cited twenty times the duplicate rule. So the words are told apart once, rules look at prose,
and the share of the rest is a score of its own. What is recognised, in every render style:

* the bracket tokens of the styles (``[START_FORMULA]`` …), which are no words of the text at all;
* TeX in ``\\(…\\)``, ``\\[…\\]``, ``$…$`` (by Pandoc's rule, so that prices are no formulas), ``$$…$$`` and
  ``\\begin{equation}`` and its kin; tables in ``\\begin{tabular}``, pipe tables, lines with tab columns;
* formulas without delimiters (the style ``plain``, glyphs left by GROBID): TeX commands, and single letters
  and numbers that an operator joins;
* entries of a reference list, by the form of the line (author initials or a number, and a year);
* fenced code.
"""

from __future__ import annotations

import re
from bisect import bisect_left
from dataclasses import dataclass
from functools import cached_property, lru_cache

import numpy as np
import numpy.typing as npt

from baltoro.corpus.filters.characters import DIGIT, LATIN, counts_per_word, field, is_math
from baltoro.corpus.words import Characters, Codes, Words

PROSE, FORMULA, TABLE, CITATION, REFERENCE, CODE, MARKER = range(7)

Kinds = npt.NDArray[np.uint8]
Flags = npt.NDArray[np.bool_]
Offsets = npt.NDArray[np.int64]

_MARKER = re.compile(r"\[(?:(?:START|END)_[A-Z_]{3,8}|TITLE|ABSTRACT|CAPTIONS|CONTENT)\]")
_LONGEST_MARKER = 16
_OPENING = re.compile(
    r"\\(?P<tex>[\\(\[$])|(?P<dollar>\$\$?)|```+"
    r"|\\begin\{(?P<environment>(?:equation|align|gather|multline|eqnarray|displaymath|math|array|tabular)\*?)\}"
)
_WIDEST_OPERATOR = 8
_WIDEST_INDENT = 16
_LONGEST_INLINE, _LONGEST_DISPLAY, _LONGEST_CODE = 2_000, 20_000, 200_000
_PAIRED = {
    "[START_REF]": ("[END_REF]", CITATION, _LONGEST_INLINE),
    **{
        f"[START_{name}]": (f"[END_{name}]", FORMULA, _LONGEST_DISPLAY)
        for name in ("FORMULA", "SMILES", "I_SMILES", "AMINO", "DNA")
    },
}
# What stands after the first character of anything that opens a span.
_SECOND_CHARACTERS = {"[": "SETAC", "\\": "\\([$b", "`": "`", "$": "".join(map(chr, range(128)))}

_REFERENCE_HEADINGS = frozenset(
    ("references", "bibliography", "literature cited", "works cited", "literature", "literaturverzeichnis")
    + ("literatur", "références", "bibliographie", "referencias", "bibliografía", "referências")
    + ("bibliografia", "riferimenti bibliografici", "литература", "список литературы", "参考文献", "參考文獻")
    + ("引用文献", "참고문헌", "참고 문헌", "references and notes", "reference list", "literatuur")
)
_YEAR = r"\b(?:1[89]|20)\d\d[a-z]?\b"
_INITIALS = r"(?:[A-Z]\.?[ \-]?){1,3}(?=[,;.&:(\s])"
_ENTRY = re.compile(
    r"(?:[*•\-]\s*)?(?:\[?\d{1,4}(?:\]|\.|\))\s*)?"
    rf"(?:[^\W\d_][\w'’\-]+,?\s(?:[^\W\d_][\w'’\-]+,?\s)?{_INITIALS}|{_INITIALS}\s?[^\W\d_][\w'’\-]+,"
    r"|[^\n]{2,80}?\bet al\b)"
)
_NUMBERED_ENTRY = re.compile(r"(?:[*•\-]\s*)?(?:\[[\w+\-]{1,12}\]\s*[^\W\d_]|\(\d{1,4}\)\s*[A-Z])")
_LONGEST_ENTRY_CHARACTERS = 600
_HAS_YEAR = re.compile(_YEAR)
_FEWEST_ENTRIES_IN_A_ROW = 3


@dataclass(frozen=True, slots=True)
class Lines:
    """The lines of a text that hold a character other than white space.

    Attributes:
        starts: offset of each line's first visible character.
        ends: offset after its last visible character.
        first_words: index of its first word (of the next line's, where it has none).
        end_words: index after its last word.
        paragraphs: number of the paragraph (lines without a blank line between) it belongs to.
        heading: whether it is a Markdown heading.
    """

    starts: Offsets
    ends: Offsets
    first_words: Offsets
    end_words: Offsets
    paragraphs: Offsets
    heading: Flags

    def __len__(self) -> int:
        return len(self.starts)

    def count(self, flags: Flags) -> Offsets:
        """Return in each line the number of words with a flag."""
        return self.count_at(flags.nonzero()[0])

    def count_at(self, places: Offsets) -> Offsets:
        """Return in each line the number of some words, given in order."""
        return np.searchsorted(places, self.end_words) - np.searchsorted(places, self.first_words)

    def total(self, values: Offsets) -> Offsets:
        """Return per line the sum of a value given per word."""
        sums = np.zeros(len(values) + 1, np.int64)
        np.cumsum(values, out=sums[1:])
        totals: Offsets = sums[self.end_words] - sums[self.first_words]
        return totals


@dataclass(frozen=True)
class Parts:
    """A text taken apart; made by :func:`parts_of`.

    Attributes:
        codes: code point per character.
        kinds: ``PROSE``, ``FORMULA`` … per word.
        lengths: characters per word.
        counts: packed character counts per word (see :mod:`baltoro.corpus.filters.characters`).
        lines: the lines that are not blank.
    """

    codes: Codes
    kinds: Kinds
    lengths: Offsets
    counts: npt.NDArray[np.int64]
    lines: Lines

    @cached_property
    def prose(self) -> Flags:
        """Whether each word is prose."""
        flags: Flags = self.kinds == PROSE
        return flags

    @cached_property
    def prose_words(self) -> int:
        """Number of prose words."""
        return int(np.count_nonzero(self.prose))

    def prose_rank(self, places: Offsets) -> Offsets:
        """Return how many prose words stand before each of some words."""
        return np.searchsorted(self._prose_places, places)

    @cached_property
    def _prose_places(self) -> Offsets:
        return self.prose.nonzero()[0]

    @cached_property
    def prose_lengths(self) -> Offsets:
        """Characters per word, 0 for those that are not prose."""
        lengths: Offsets = self.lengths * self.prose
        return lengths

    @cached_property
    def prose_words_per_line(self) -> Offsets:
        """Number of prose words in each line."""
        return self.lines.count_at(self._prose_places)

    @cached_property
    def prose_characters_per_line(self) -> Offsets:
        """Characters of the prose words in each line."""
        return self.lines.total(self.prose_lengths)

    @cached_property
    def prose_lines(self) -> Flags:
        """Whether each line counts for the line rules: it holds prose and is no heading."""
        flags: Flags = (self.prose_words_per_line > 0) & ~self.lines.heading
        return flags


def parts_of(text: str, words: Words) -> Parts:
    """Tell prose from formulas, tables, citations, reference entries and code.

    Args:
        text: a rendered document.
        words: its words.
    """
    characters = words.characters
    codes = characters.codes
    lines = _lines(codes, words)
    kinds = np.zeros(len(words), np.uint8)
    if not len(words):
        return Parts(codes, kinds, np.empty(0, np.int64), np.empty(0, np.int64), lines)
    counts = counts_per_word(words)
    lengths = words.lengths
    _mark_bare_formulas(kinds, words, lengths, counts, lines)
    _mark_tables(kinds, codes, lines)
    _mark_spans(kinds, words, _spans(text, characters))
    _mark_references(kinds, text, words, counts, lines)
    return Parts(codes, kinds, lengths, counts, lines)


def _lines(codes: Codes, words: Words) -> Lines:
    breaks = (codes == 10).nonzero()[0]
    starts = np.concatenate(([0], breaks + 1))
    ends = np.append(breaks, len(codes))
    blank = starts == ends
    full = ~blank
    # Everything up to the space is white space or a control; wide spaces at a line's end are rare enough.
    if ((codes[starts[full]] <= 32) | (codes[ends[full] - 1] <= 32)).any():
        visible = (codes > 32).nonzero()[0]
        first, end = np.searchsorted(visible, starts), np.searchsorted(visible, ends)
        blank = first == end
        full = ~blank
        starts[full], ends[full] = visible[first[full]], visible[end[full] - 1] + 1
    starts, ends = starts[full], ends[full]
    return Lines(
        starts=starts,
        ends=ends,
        first_words=np.searchsorted(words.starts, starts),
        end_words=np.searchsorted(words.starts, ends),
        paragraphs=np.cumsum(blank, dtype=np.int64)[full],
        heading=_headings(codes, starts),
    )


def _headings(codes: Codes, starts: Offsets) -> Flags:
    """Return which lines start with one to six hash signs and a space."""
    places = starts[codes[starts] == ord("#")]
    for _ in range(6):
        # The text's last character is never passed: there a hash sign is no heading.
        places = places + (codes[places] == ord("#")) * (places < len(codes) - 1)
    headings: Flags = codes[starts] == ord("#")
    headings[headings] = codes[places] == ord(" ")
    return headings


def _mark_bare_formulas(
    kinds: Kinds, words: Words, lengths: Offsets, counts: npt.NDArray[np.int64], lines: Lines
) -> None:
    """Mark TeX commands, and letters and numbers that an operator joins to a neighbour."""
    count = len(words)
    formula = np.zeros(count, np.bool_)
    after_slash = (words.characters.ascii == ord("\\")).nonzero()[0] + 1
    if len(after_slash):
        command = np.minimum(np.searchsorted(words.starts, after_slash), count - 1)
        formula[command[words.starts[command] == after_slash]] = True
    gaps = words.starts[1:] - words.ends[:-1]
    # ``joined[i]`` is the gap before word i.
    joined = np.zeros(count + 1, np.bool_)
    joined[_gaps_with_operators(words, gaps) + 1] = True
    joined[lines.first_words] = False
    after = joined.nonzero()[0]
    near = np.zeros(count, np.bool_)
    near[after] = near[after - 1] = True
    candidates = near.nonzero()[0]
    widths, rows = lengths[candidates], counts[candidates]
    short = (widths == 1) | (field(rows, DIGIT) == widths) | ((widths <= 2) & (field(rows, LATIN) == 0))
    formula[candidates[short & ~words.single[candidates]]] = True
    # The digits after the point of a number that belongs to a formula.
    numbers = formula[:-1].nonzero()[0]
    numbers = numbers[gaps[numbers] == 1]
    for place in (0, 1):
        numbers = numbers[field(counts[numbers + place], DIGIT) == lengths[numbers + place]]
    formula[numbers + 1] = True
    kinds[formula] = FORMULA


def _gaps_with_operators(words: Words, gaps: Offsets) -> Offsets:
    """Return after which words an operator stands that joins them to the next.

    It joins what stands close; a rule between two words does not.
    """
    characters = words.characters
    first = characters.ascii.take(words.ends[:-1])
    candidates = ((gaps <= _WIDEST_OPERATOR) & ((first != ord(" ")) | (gaps > 1))).nonzero()[0]
    starts, widths = words.ends[candidates], gaps[candidates]
    found = is_math(characters.codes.take(starts))
    for place in range(1, _WIDEST_OPERATOR):
        wide = (widths > place).nonzero()[0]
        if not len(wide):
            break
        found[wide] |= is_math(characters.codes.take(starts[wide] + place))
    joining: Offsets = candidates[found]
    return joining


def _mark_tables(kinds: Kinds, codes: Codes, lines: Lines) -> None:
    table = (codes[lines.starts] == ord("|")) & (codes[np.maximum(lines.ends - 1, 0)] == ord("|"))
    tabs = (codes == 9).nonzero()[0]
    if len(tabs):
        table |= np.searchsorted(tabs, lines.ends) > np.searchsorted(tabs, lines.starts)
    fill_ranges(kinds, lines.first_words[table], lines.end_words[table], TABLE)


def _spans(text: str, characters: Characters) -> list[int]:
    """Return the delimited spans, start, end and kind of each in turn, in order and without overlap."""
    spans: list[int] = []
    candidates = _openings(characters)
    find = text.find
    position = index = 0
    while index < len(candidates):
        start = candidates[index]
        index += 1
        if start < position:
            continue
        if text[start] == "[":
            end = find("]", start, start + _LONGEST_MARKER) + 1
            token = text[start:end]
            paired = _PAIRED.get(token)
            if paired is None:
                if _MARKER.fullmatch(token):
                    spans += (start, end, MARKER)
                    position = end
                continue
            closing, kind, longest = paired
            spans += (start, end, MARKER)
            close, position = find(closing, end, end + longest), end
            if close < 0:
                continue
            position = close + len(closing)
            spans += (end, close, kind, close, position, MARKER)
            index = bisect_left(candidates, position, index)
            continue
        match = _OPENING.match(text, start)
        if match is None:
            continue
        position = match.end()
        kind, name = FORMULA, match.lastgroup
        if name == "tex":
            tex = match["tex"]
            if tex not in "([":
                continue
            closing, longest = ("\\]", _LONGEST_DISPLAY) if tex == "[" else ("\\)", _LONGEST_INLINE)
            close = find(closing, position, position + longest)
            if close >= 0 and find("\n\n", position, close) >= 0:
                close = -1
            after = close + 2
        elif name == "dollar":
            close = _closing_dollar(text, position, match["dollar"])
            after = close + len(match["dollar"])
        elif name == "environment":
            environment = match["environment"]
            kind = TABLE if environment.startswith("tabular") else FORMULA
            closing = f"\\end{{{environment}}}"
            close = find(closing, position, position + _LONGEST_DISPLAY)
            close = after = close + len(closing) if close >= 0 else -1
        else:
            kind, close = CODE, -1
            if not text[max(start - _WIDEST_INDENT, 0) : start].rpartition("\n")[2].strip():
                close = find(f"\n{match[0]}", position, position + _LONGEST_CODE)
            after = close + 1 + len(match[0])
        if close < 0:
            continue
        spans += (start, close, kind)
        if after > position:
            position = after
            index = bisect_left(candidates, position, index)
    return spans


def _openings(characters: Characters) -> list[int]:
    """Return where two characters stand that may open a span."""
    low = characters.ascii
    first = ((low == 91) | (low == 92) | (low == 36) | (low == 96)).nonzero()[0]
    if not len(first):
        return []
    second = low.take(first + 1, mode="clip")
    places: list[int] = first[_pairs_that_open()[low[first], second]].tolist()
    return places


@lru_cache(maxsize=1)
def _pairs_that_open() -> npt.NDArray[np.bool_]:
    table = np.zeros((256, 256), np.bool_)
    for first, second in _SECOND_CHARACTERS.items():
        table[ord(first), [ord(character) for character in second]] = True
    return table


def _closing_dollar(text: str, position: int, dollar: str) -> int:
    """Return where the formula opened by ``dollar`` ends, -1 if it is a price.

    As Pandoc reads ``tex_math_dollars``: no space inside the dollars, no digit after the closing one.
    """
    if dollar == "$$":
        close = text.find("$$", position, position + _LONGEST_DISPLAY)
        return close if close >= 0 and text.find("\n\n", position, close) < 0 else -1
    if text[position : position + 1].isspace():
        return -1
    close = text.find("$", position, position + _LONGEST_INLINE)
    if close <= position or text[close - 1].isspace() or text[close + 1 : close + 2].isdigit():
        return -1
    return close if text.find("\n", position, close) < 0 else -1


def _mark_spans(kinds: Kinds, words: Words, spans: list[int]) -> None:
    if spans:
        table = np.array(spans).reshape(-1, 3)
        places = np.searchsorted(words.starts, table[:, :2])
        fill_ranges(kinds, places[:, 0], places[:, 1], table[:, 2].astype(np.uint8))


def _mark_references(
    kinds: Kinds, text: str, words: Words, counts: npt.NDArray[np.int64], lines: Lines
) -> None:
    """Mark runs of lines that have the form of reference entries."""
    digits = field(counts, DIGIT)
    year = (digits == 4) & (words.lengths <= 5) & (kinds != TABLE) & (kinds != CITATION)
    lengths = lines.ends - lines.starts
    possible = (lines.count(year) > 0) & (lengths <= _LONGEST_ENTRY_CHARACTERS) & ~lines.heading
    short = (
        (lengths <= 40) & (lines.end_words - lines.first_words <= 4) & (lines.end_words > lines.first_words)
    )
    entry = np.zeros(len(lines), np.bool_)
    headings = []
    for index in short.nonzero()[0].tolist():
        line = text[lines.starts[index] : lines.ends[index]].lower().strip("#*_:. \t0123456789")
        if line in _REFERENCE_HEADINGS:
            headings.append(index)
    for index in possible.nonzero()[0].tolist():
        line = text[lines.starts[index] : lines.ends[index]]
        entry[index] = bool(_ENTRY.match(line) or _NUMBERED_ENTRY.match(line)) and bool(
            _HAS_YEAR.search(line)
        )
    if not entry.any():
        return
    marked = entry & _in_long_runs(entry, _FEWEST_ENTRIES_IN_A_ROW)
    for heading in headings:
        # Below the heading every line that can be an entry is one, up to the next heading.
        after = lines.heading[heading + 1 :].nonzero()[0]
        end = heading + 1 + int(after[0]) if len(after) else len(lines)
        inside = slice(heading + 1, end)
        if entry[inside].sum() * 2 >= end - heading - 1:
            marked[inside] |= possible[inside]
    fill_ranges(kinds, lines.first_words[marked], lines.end_words[marked], REFERENCE)


def _in_long_runs(flags: Flags, fewest: int) -> Flags:
    """Return which flags stand in a run of at least ``fewest``; single gaps do not break a run."""
    closed = flags.copy()
    closed[1:-1] |= flags[:-2] & flags[2:]
    edges = (np.diff(np.concatenate(([False], closed, [False])).astype(np.int8))).nonzero()[0]
    starts, ends = edges[0::2], edges[1::2]
    long = ends - starts >= fewest
    result = np.zeros(len(flags), np.bool_)
    fill_ranges(result, starts[long], ends[long], True)
    return result


def fill_ranges(
    target: npt.NDArray[np.uint8] | npt.NDArray[np.bool_],
    starts: Offsets,
    ends: Offsets,
    values: npt.NDArray[np.uint8] | int,
) -> None:
    """Set ``target[start:end]`` for every range; ranges must not overlap."""
    lengths = ends - starts
    total = int(lengths.sum())
    if not total:
        return
    offsets = np.repeat(starts - np.concatenate(([0], np.cumsum(lengths)[:-1])), lengths)
    target[offsets + np.arange(total)] = (
        np.repeat(values, lengths) if isinstance(values, np.ndarray) else values
    )
