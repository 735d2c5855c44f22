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

from baltoro.corpus.words import Characters
from baltoro.papers.schema import Block, Paper

Places = npt.NDArray[np.intp]

_LINE_FEED, _SPACE = 10, 32
_CLOSING_OR_SPACE = np.frombuffer(b")]}> ", np.uint8)
_FEWEST_DIGITS = 7
_NUMBER_SPAN_BYTES = 18
_LONGEST_SEPARATOR_BYTES = 3
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
        characters = Characters.of(text)
        codes, low, beyond = characters.codes, characters.ascii, characters.beyond
        controls = ((codes < 32) | (codes == 127)).nonzero()[0]
        found = np.unique(np.concatenate((codes[controls], codes[beyond]))).tolist()
        return cls(
            text,
            frozenset(map(chr, found)) - {"\t", "\n"},
            _holds_mojibake(text, characters),
            _bracketed_at(low).tolist(),
            _long_numbers(characters, controls[codes[controls] == _LINE_FEED]).tolist(),
        )


def _holds_mojibake(text: str, characters: Characters) -> bool:
    """Tell whether a sequence looks like UTF-8 read in another encoding; leave it open for too many."""
    beyond = characters.beyond
    codes = characters.codes[beyond]
    # All lead bytes seen in other encodings are characters that UTF-8 writes in two bytes.
    is_lead = ((codes >= 0xC0) & (codes <= 0x17F)) | ((codes >= 0x390) & (codes <= 0x45F))
    suspects = beyond[:-1][is_lead[:-1] & (beyond[1:] == beyond[:-1] + 1)].tolist()
    if len(suspects) > _MOST_SUSPECTS:
        return True
    # One character before it decides, and a sequence has at most four.
    return any(UTF8_DETECTOR_RE.search(text[max(place - 1, 0) : place + 4]) for place in suspects)


def _bracketed_at(low: npt.NDArray[np.uint8]) -> Places:
    opening: Places = (
        (low == ord("(")) | (low == ord("[")) | (low == ord("{")) | (low == ord("<"))
    ).nonzero()[0]
    opening = opening[opening + 5 < len(low)]
    after = opening + 1 + (low[opening + 1] == _SPACE)
    first, second = low[after] | 32, low[after + 1] | 32
    # "@" is 64, which becomes 96 where letters lose their case.
    is_at = ((first == ord("a")) & (second == ord("t"))) | (first == 96)
    if not is_at.any():
        return opening[:0]
    closing = low[after[is_at] + np.where(first[is_at] == 96, 1, 2)]
    found: Places = opening[is_at][np.isin(closing, _CLOSING_OR_SPACE)]
    return found


def _long_numbers(characters: Characters, breaks: Places) -> Places:
    digits = (characters.ascii - np.uint8(48) < 10).nonzero()[0]
    if len(digits) < _FEWEST_DIGITS:
        return digits[:0]
    starts = digits[: -(_FEWEST_DIGITS - 1)]
    # In bytes, of which a dash or an ideograph has several.
    places = digits + _bytes_added_before(characters, digits)
    first, last = places[: -(_FEWEST_DIGITS - 1)], places[_FEWEST_DIGITS - 1 :]
    candidates = last - first <= _NUMBER_SPAN_BYTES
    # Only the first digit of a number: the one before is further away than any separator is long.
    candidates[1:] &= first[1:] - first[:-1] > _LONGEST_SEPARATOR_BYTES
    chosen = candidates.nonzero()[0]
    starts, ends = starts[chosen], digits[chosen + _FEWEST_DIGITS - 1]
    is_one_line = np.searchsorted(breaks, starts) == np.searchsorted(breaks, ends)
    found: Places = starts[is_one_line]
    return found


def _bytes_added_before(characters: Characters, places: Places) -> Places | int:
    """Return how many bytes more than characters the UTF-8 of what stands before some places has."""
    if not len(characters.beyond):
        return 0
    codes = characters.codes[characters.beyond]
    added = np.zeros(len(codes) + 1, np.intp)
    np.cumsum(1 + (codes >= 0x800) + (codes >= 0x10000).astype(np.intp), out=added[1:])
    sums: Places = added[np.searchsorted(characters.beyond, places)]
    return sums


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
