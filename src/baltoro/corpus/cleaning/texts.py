"""Where a paper holds text, and a quick look at all of it.

Most papers need most rules not at all. Each rule therefore first asks one string that holds all text
(:attr:`Survey.text`) whether what it looks for occurs anywhere, which costs nanoseconds per kilobyte, and
goes through the spans only then.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from ftfy.chardata import UTF8_DETECTOR_RE

from baltoro.papers.schema import Block, Paper

Places = npt.NDArray[np.intp]

_LINE_FEED, _SPACE = 10, 32
_PLAIN, _ODD, _DIGIT, _OPENING, _BREAK = range(5)
_CLASSES = bytearray([_ODD] * 256)
_CLASSES[32:127] = bytes([_PLAIN]) * 95
_CLASSES[ord("0") : ord("9") + 1] = bytes([_DIGIT]) * 10
for _bracket in b"([{<":
    _CLASSES[_bracket] = _OPENING
_CLASSES[_LINE_FEED] = _BREAK
_CLOSING_OR_SPACE = np.frombuffer(b")]}> ", np.uint8)
_FEWEST_DIGITS = 7
_NUMBER_SPAN_CHARACTERS = 18
_LONGEST_SEPARATOR_CHARACTERS = 3
_MOST_SUSPECTS = 2000


@dataclass(frozen=True, slots=True)
class Survey:
    """All text of a paper at one moment.

    Attributes:
        text: every text joined by line feeds, in reading order.
        unusual: the characters in it that are not printable ASCII, tab or line feed.
        mojibake: whether a sequence occurs that looks like UTF-8 read in another encoding.
        bracketed_at: where an "at" or "@" stands in brackets.
        long_numbers: where a number begins that has seven digits, separators among them.
    """

    text: str
    unusual: frozenset[str]
    mojibake: bool
    bracketed_at: list[int]
    long_numbers: list[int]

    @classmethod
    def of(cls, paper: Paper) -> Survey:
        """Take a survey."""
        parts = [paper.title, *paper.authors]
        for block in paper.abstract:
            _collect(block, parts)
        for section in paper.sections:
            parts.append(section.heading)
            for block in section.blocks:
                _collect(block, parts)
        for reference in paper.references:
            parts.append(reference.title)
            parts += reference.authors
        parts += [review.text for review in paper.reviews]
        text = "\n".join(parts)
        raw = text.encode("utf-8", "surrogatepass")
        encoded = np.frombuffer(raw, np.uint8)
        # Several times faster than looking the classes up in an array.
        classes = np.frombuffer(raw.translate(_CLASSES), np.uint8)
        odd = np.flatnonzero(classes == _ODD)
        controls = encoded[odd][encoded[odd] < 128].tobytes().decode()
        beyond = _Beyond.of(encoded)
        numbers = _long_numbers(np.flatnonzero(classes == _DIGIT), np.flatnonzero(classes == _BREAK))
        return cls(
            text,
            (frozenset(controls) | frozenset(beyond.text)) - {"\t"},
            beyond.holds_mojibake(text),
            beyond.in_characters(_bracketed_at(encoded, np.flatnonzero(classes == _OPENING))).tolist(),
            beyond.in_characters(numbers).tolist(),
        )


@dataclass(frozen=True, slots=True)
class _Beyond:
    """The characters of a text that are not ASCII, and where they stand in its UTF-8."""

    text: str
    starts: Places
    continuations: Places

    @classmethod
    def of(cls, encoded: npt.NDArray[np.uint8]) -> _Beyond:
        high = np.flatnonzero(encoded > 127)
        values = encoded[high]
        text = values.tobytes().decode("utf-8", "surrogatepass")
        return cls(text, high[values >= 192], high[values < 192])

    def in_characters(self, places: Places) -> Places:
        """Return places in UTF-8 as places in the text."""
        shifted: Places = places - np.searchsorted(self.continuations, places)
        return shifted

    def holds_mojibake(self, text: str) -> bool:
        """Tell whether a sequence looks like UTF-8 read in another encoding; leave it open for too many."""
        if len(self.starts) < 2:
            return False
        codes = np.frombuffer(self.text.encode("utf-32-le", "surrogatepass"), np.uint32)
        # All lead bytes seen in other encodings are characters that UTF-8 writes in two bytes.
        is_lead = ((codes >= 0xC0) & (codes <= 0x17F)) | ((codes >= 0x390) & (codes <= 0x45F))
        followed = is_lead[:-1] & (self.starts[1:] == self.starts[:-1] + 2)
        suspects = self.in_characters(self.starts[:-1][followed]).tolist()
        if len(suspects) > _MOST_SUSPECTS:
            return True
        # One character before it decides, and a sequence has at most four.
        return any(UTF8_DETECTOR_RE.search(text[max(place - 1, 0) : place + 4]) for place in suspects)


def _bracketed_at(codes: npt.NDArray[np.uint8], opening: Places) -> Places:
    opening = opening[opening + 5 < len(codes)]
    after = opening + 1 + (codes[opening + 1] == _SPACE)
    first, second = codes[after] | 32, codes[after + 1] | 32
    # "@" is 64, which becomes 96 where letters lose their case.
    is_at = ((first == ord("a")) & (second == ord("t"))) | (first == 96)
    closing = codes[after[is_at] + np.where(first[is_at] == 96, 1, 2)]
    found: Places = opening[is_at][np.isin(closing, _CLOSING_OR_SPACE)]
    return found


def _long_numbers(digits: Places, breaks: Places) -> Places:
    if len(digits) < _FEWEST_DIGITS:
        return digits[:0]
    starts = digits[: -(_FEWEST_DIGITS - 1)]
    ends = digits[_FEWEST_DIGITS - 1 :]
    is_long = ends - starts <= _NUMBER_SPAN_CHARACTERS
    # Only the first digit of a number: the one before is further away than any separator is long.
    is_first = np.empty(len(starts), np.bool_)
    is_first[0] = True
    is_first[1:] = starts[1:] - starts[:-1] > _LONGEST_SEPARATOR_CHARACTERS
    candidates = is_long & is_first
    starts, ends = starts[candidates], ends[candidates]
    is_one_line = np.searchsorted(breaks, starts) == np.searchsorted(breaks, ends)
    found: Places = starts[is_one_line]
    return found


def _collect(block: Block, parts: list[str]) -> None:
    parts += [inline.text for inline in block.inlines]
    for row in block.cells:
        parts += row
    if block.label:
        parts.append(block.label)


def words_in(text: str) -> frozenset[str]:
    """Return the words of a list written as one text."""
    return frozenset(text.split())


def all_blocks(paper: Paper) -> Iterator[Block]:
    """Yield the blocks of the abstract, then those of the sections."""
    yield from paper.abstract
    for section in paper.sections:
        yield from section.blocks


def block_lists(paper: Paper) -> Iterator[list[Block]]:
    """Yield the abstract's list of blocks, then that of each section, to be changed in place."""
    yield paper.abstract
    for section in paper.sections:
        yield section.blocks


def change_block_texts(paper: Paper, change: Callable[[str], str], *, formulas: bool = False) -> None:
    """Replace the texts of spans and cells by what ``change`` returns for them.

    Args:
        paper: changed in place.
        change: gives the new text.
        formulas: whether spans that are formulas are changed, too.
    """
    for block in all_blocks(paper):
        for inline in block.inlines:
            if formulas or inline.kind != "formula":
                inline.text = change(inline.text)
        if block.cells:
            block.cells = [[change(cell) for cell in row] for row in block.cells]


def change_other_texts(paper: Paper, change: Callable[[str], str]) -> None:
    """Replace title, authors, headings, labels, reference entries and reviews by what ``change`` returns."""
    paper.title = change(paper.title)
    paper.authors = [change(author) for author in paper.authors]
    for section in paper.sections:
        section.heading = change(section.heading)
    for block in all_blocks(paper):
        if block.label:
            block.label = change(block.label)
    for reference in paper.references:
        reference.title = change(reference.title)
        reference.authors = [change(author) for author in reference.authors]
    for review in paper.reviews:
        review.text = change(review.text)
