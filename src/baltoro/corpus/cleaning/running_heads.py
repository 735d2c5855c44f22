"""Running heads and page numbers that a parser took for paragraphs.

A short paragraph or note that comes back at page distance is only a running head if something else says so:
formulas are introduced by the same words all over a paper ("we have"), and datasheets repeat their
questions. One of these must hold:

- it is the paper's title, or its beginning, or the venue;
- it consists of authors' names ("EK AND HOLM", "Ek et al.");
- a number at its start or end grows from one occurrence to the next;
- at least half of its occurrences stand in the middle of a sentence.

Lone numbers go if they grow by one to three at page distance; "Page 3 of 12" goes anywhere. Where what is
removed stood in the middle of a sentence, the halves are joined.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from itertools import pairwise
from typing import Final

from baltoro.corpus.cleaning.effects import Effects
from baltoro.papers.schema import Block, Inline, Paper

_LONGEST_HEAD_CHARACTERS: Final = 150
_KINDS: Final = ("paragraph", "note")
_LONGEST_NUMBER_CHARACTERS: Final = 16
_FEWEST_LETTERS: Final = 5
_FEWEST_OCCURRENCES: Final = 3
_SHORTEST_PAGE_CHARACTERS: Final = 600
_LARGEST_STEP: Final = 3
_TITLE_LETTERS: Final = 12
_FEWEST_HALF_CHARACTERS: Final = 25

_NOT_LETTERS = re.compile(r"[\W\d_]+")
_LONE_NUMBER = re.compile(r"[\s\-–—|·•]*(\d{1,4})[\s\-–—|·•]*")
_PAGE_OF = re.compile(
    r"\W*(?:(?:page|seite|página|pagina|страница|стр\.?)\s*\d{1,4}(?:\s*(?:of|von|sur|de|di|из|/)\s*\d{1,4})?"
    r"|第\s*\d{1,4}\s*[页頁](?:\W*共\s*\d{1,4}\s*[页頁])?)\W*",
    re.I,
)
_OUTER_NUMBER = re.compile(r"^\W*(\d{1,4})(?=[\s|])|(?<=[\s|])(\d{1,4})\W*$")
_NAME_FILLERS = re.compile(r"etal|and|und|et|y|等")


@dataclass(slots=True)
class _Short:
    """A short paragraph: where it stands, and how many characters come before it."""

    blocks: list[Block]
    block: Block
    text: str
    offset_characters: int
    position: int


def remove_running_heads(paper: Paper, effects: Effects) -> None:
    """Remove running heads (``running_heads``) and page numbers (``page_numbers``)."""
    shorts = _short_blocks(paper)
    if not shorts:
        return
    groups: dict[str, list[_Short]] = {}
    numbers: list[tuple[int, _Short]] = []
    gone: list[tuple[str, _Short]] = []
    for short in shorts:
        if len(short.text) <= _LONGEST_NUMBER_CHARACTERS and (number := _LONE_NUMBER.fullmatch(short.text)):
            numbers.append((int(number[1]), short))
        elif short.text[0] in "PpSs第Сс([-—–" and _PAGE_OF.fullmatch(short.text):
            gone.append(("page_numbers", short))
        else:
            groups.setdefault(_key(short.text), []).append(short)
    gone += [("page_numbers", short) for short in _growing(numbers)]
    for key, group in groups.items():
        if len(group) >= _FEWEST_OCCURRENCES and _letters(key) and _is_head(key, group, paper):
            gone += [("running_heads", short) for short in group]
    for rule, short in gone:
        effects.add(rule, short.text, "")
    for blocks in {id(short.blocks): short.blocks for _, short in gone}.values():
        _remove(blocks, {id(short.block) for _, short in gone}, effects)


def _short_blocks(paper: Paper) -> list[_Short]:
    shorts: list[_Short] = []
    offset = 0
    for section in paper.sections:
        blocks = section.blocks
        for position, block in enumerate(blocks):
            length = 0
            for inline in block.inlines:
                length += len(inline.text)
            if 0 < length <= _LONGEST_HEAD_CHARACTERS and block.kind in _KINDS and not block.label:
                text = block.printed().strip()
                if text:
                    shorts.append(_Short(blocks, block, text, offset, position))
            offset += length
            for row in block.cells:
                offset += sum(map(len, row))
    return shorts


def _interrupts(short: _Short) -> bool:
    blocks, position = short.blocks, short.position
    return 0 < position < len(blocks) - 1 and _goes_on(blocks[position - 1], blocks[position + 1])


def _goes_on(block: Block, following: Block) -> bool:
    """Tell whether a paragraph breaks off in a sentence that the other one continues."""
    if block.kind != "paragraph" or following.kind != "paragraph" or following.label:
        return False
    words = block.printed().rstrip()
    return (
        len(words) >= _FEWEST_HALF_CHARACTERS
        and (words[-1].isalnum() or words[-1] in ",-‐\u00ad")
        and following.printed().lstrip()[:1].islower()
    )


def _key(text: str) -> str:
    return _NOT_LETTERS.sub("", text).casefold()


def _letters(key: str) -> bool:
    return len(key) >= _FEWEST_LETTERS or (len(key) >= 2 and not key.isascii())


def _growing(numbers: list[tuple[int, _Short]]) -> list[_Short]:
    """Return the lone numbers of runs that grow like page numbers."""
    found: list[_Short] = []
    run: list[tuple[int, _Short]] = []
    for number, short in [*numbers, (-1, None)]:
        if short is not None and run:
            step = number - run[-1][0]
            distance = short.offset_characters - run[-1][1].offset_characters
            if 1 <= step <= _LARGEST_STEP and distance >= _SHORTEST_PAGE_CHARACTERS:
                run.append((number, short))
                continue
        if len(run) >= _FEWEST_OCCURRENCES:
            found += [short for _, short in run]
        run = [(number, short)] if short is not None else []
    return found


def _is_head(key: str, group: list[_Short], paper: Paper) -> bool:
    distances = [after.offset_characters - before.offset_characters for before, after in pairwise(group)]
    if sorted(distances)[len(distances) // 2] < _SHORTEST_PAGE_CHARACTERS or min(distances) <= 0:
        return False
    title, venue = _key(paper.title), _key(paper.venue or "")
    if len(key) >= _TITLE_LETTERS and title.startswith(key):
        return True
    if venue and key.startswith(venue) and len(key) <= 2 * len(venue):
        return True
    return (
        _is_names(key, paper) or _has_growing_number(group) or 2 * sum(map(_interrupts, group)) >= len(group)
    )


def _is_names(key: str, paper: Paper) -> bool:
    rest = key
    for author in paper.authors:
        names = author.split()
        if names:
            rest = rest.replace(_key(names[-1]) or " ", "")
    if rest == key:
        return False
    return len(_NAME_FILLERS.sub("", rest)) <= 2


def _has_growing_number(group: list[_Short]) -> bool:
    numbers: list[int] = []
    for short in group:
        match = _OUTER_NUMBER.search(short.text)
        if match is None:
            return False
        numbers.append(int(match[1] or match[2]))
    return all(0 < after - before <= 20 for before, after in pairwise(numbers))


def _remove(blocks: list[Block], gone: set[int], effects: Effects) -> None:
    kept: list[Block] = []
    was_removed = False
    for block in blocks:
        if id(block) in gone:
            was_removed = True
            continue
        if was_removed and kept and _goes_on(kept[-1], block) and kept[-1].printed().rstrip()[-1].isalnum():
            before = f"{kept[-1].printed()}\n{block.printed()}"
            kept[-1].inlines += [Inline("text", " "), *block.inlines]
            effects.add("sentences_joined", before, kept[-1].printed())
        else:
            kept.append(block)
        was_removed = False
    blocks[:] = kept
