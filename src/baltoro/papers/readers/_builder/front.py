"""What stands before the body: the title, the authors, and the lines between them and the abstract."""

from __future__ import annotations

import re

from baltoro.papers.readers._builder.draft import Draft
from baltoro.papers.readers._builder.names import (
    AUTHOR_LEAD,
    INSTITUTION,
    SUPERSCRIPT,
    has_mail_of,
    is_address,
    names_in,
)
from baltoro.papers.readers._builder.wording import (
    ABSTRACT,
    ABSTRACT_LEAD,
    CAPTION,
    FOOTNOTE,
    FOOTNOTE_NOISE,
    KNOWN_HEADING,
    NUMBERED,
)
from baltoro.papers.readers._markup.blocks import RawBlock
from baltoro.papers.readers._text import collapse

_TITLE_OPEN_END = re.compile(
    r"(?:[:,\-–—]|\b(?:of|for|with|and|in|on|to|by|from|via|the|a|an|using|through|under|at|as|between|towards?))$",
    re.I,
)
_TITLE_GOES_ON = re.compile(
    r"(?:of|for|with|and|in|on|to|by|from|via|using|based|through|under|is|are|as|at|between|or|without|towards?)\s",
    re.I,
)
_TITLE_WORD_INSIDE = re.compile(
    r"\w\s(?:for|with|via|using|through|from|in|on|to|of|by|without|towards?)\s\w"
)
_AMPERSAND = re.compile(r"(?:^|\s)&(?=\s?\S)")
_EMAIL = re.compile(r"\S+@\S+|\{[^{}]*\}")
_FRONT_BLOCKS = 240
_LONGEST_TITLE_CHARACTERS = 300
_LONGEST_FRONT_LINE_CHARACTERS = 400
_LONGEST_AUTHOR_LIST_CHARACTERS = 20_000
_FEWEST_SENTENCE_WORDS = 8
_FEWEST_PROSE_WORDS = 60


def read_front(draft: Draft) -> int:
    """Take the title and, where they are loose lines, the authors; return the first body block."""
    blocks = draft.blocks
    position = 0
    title_at = _title_index(draft)
    paper = draft.paper
    if title_at is not None:
        position = title_at + 1
        heading = collapse(draft.printed(blocks[title_at]))
        lines = _continued_title(draft, position) if draft.is_nougat else []
        position += len(lines)
        title = " ".join([heading, *lines])
        if not paper.title:
            paper.title = title
        elif collapse(paper.title).casefold() != title.casefold():
            position = title_at
        for index in range(title_at):
            draft.add(blocks[index])
    end, before_abstract = _front_end(draft, position)
    if draft.loose_lines_are_authors or before_abstract:
        _authors(draft, blocks[position:end], before_abstract)
        return end
    return position + _take_byline(draft, position)


def _front_end(draft: Draft, position: int) -> tuple[int, bool]:
    """Return the block at which the lines under a title end, and whether the abstract starts there."""
    for index, block in enumerate(draft.blocks[position : position + _FRONT_BLOCKS], position):
        text = block.text.strip("*_ ")
        if block.kind == "heading":
            abstract = ABSTRACT.match(text) is not None
            # Outside parsed papers a summary is any section: what stands before it is text.
            return index, abstract and (draft.loose_lines_are_authors or text[0] in "aA")
        if block.kind == "paragraph" and ABSTRACT_LEAD.match(block.text):
            return index, True
    return position, False


def _take_byline(draft: Draft, position: int) -> int:
    """Take an author line under the title of a text that has no abstract; return its blocks, 0 or 1."""
    if position == 0 or position >= len(draft.blocks) or draft.blocks[position].kind != "paragraph":
        return 0
    text = draft.blocks[position].text.strip()
    lead = AUTHOR_LEAD.match(text)
    names = names_in(draft, text) if len(text) <= _LONGEST_FRONT_LINE_CHARACTERS else []
    # A line of two names may be any text ("Great Britain, New Zealand"): type or a mark tells.
    marked = len(names) > 1 and (text[0] in "*_" or bool(SUPERSCRIPT.search(text)))
    if not names or not (lead or marked):
        return 0
    _take_authors(draft, names)
    return 1


def _title_index(draft: Draft) -> int | None:
    blocks = draft.blocks
    first_heading = next((i for i, block in enumerate(blocks) if block.kind == "heading"), None)
    if first_heading is not None and _is_title(draft, blocks[first_heading], first_heading):
        return first_heading
    if (
        draft.is_nougat
        and blocks
        and blocks[0].kind == "paragraph"
        and first_heading is not None
        and len(blocks[0].text) <= _LONGEST_TITLE_CHARACTERS
        and not blocks[0].text.rstrip().endswith((".", ","))
        and not _EMAIL.search(blocks[0].text)
        and CAPTION.match(blocks[0].text) is None
        and blocks[0].text.lstrip()[:1].isupper()
    ):
        return 0
    return None


def _is_title(draft: Draft, block: RawBlock, index: int) -> bool:
    text = block.text.strip()
    name = text.strip("*_ .:").lower()
    if (
        not text
        or KNOWN_HEADING.fullmatch(name)
        or ABSTRACT.match(text)
        or len(text) > _LONGEST_TITLE_CHARACTERS
    ):
        return False
    if block.level == 1:
        return True
    # Docling gives the title the depth of a section: it comes first, or right before the abstract.
    others = [other for other in draft.blocks[index + 1 :] if other.kind == "heading"]
    if block.level != 2 or NUMBERED.match(text) or any(other.level == 1 for other in others):
        return False
    following = others[0].text.strip("*_ .:") if others else ""
    number = NUMBERED.match(following)
    name = following[number.end() :] if number else following
    return index == 0 or ABSTRACT.match(name) is not None or KNOWN_HEADING.fullmatch(name) is not None


def _continued_title(draft: Draft, position: int) -> list[str]:
    """Return the lines after a title heading that are the rest of it."""
    title = draft.blocks[position - 1].text.strip()
    lines: list[str] = []
    while position < len(draft.blocks) and draft.blocks[position].kind == "paragraph" and len(lines) < 2:
        raw = draft.blocks[position].text
        line = raw.strip()
        if len(line) > 150 or "\\(" in line or "@" in line or line.startswith("&"):
            break
        goes_on = _TITLE_GOES_ON.match(line) or _TITLE_OPEN_END.search(title)
        if not goes_on and (
            raw.startswith(" ") or INSTITUTION.search(line) or not _TITLE_WORD_INSIDE.search(line)
        ):
            break
        lines.append(collapse(draft.printed(draft.blocks[position])))
        title = line
        position += 1
    return lines


def _authors(draft: Draft, front: list[RawBlock], before_abstract: bool) -> None:
    """Take the names out of the loose lines under a title, and addresses and notes out of the body."""
    lines = _front_parts(draft, front, before_abstract)
    previous = "title"
    for index, (block, part) in enumerate(lines):
        following = [text for _, text in lines[index + 1 :]]
        if block.kind != "paragraph" or CAPTION.match(part):
            draft.add(block)
            previous = "text"
        elif FOOTNOTE.match(part) and not _is_front_line(part, before_abstract):
            draft.add(block)
        elif names := _accepted_names(draft, part, previous, following):
            _take_authors(draft, names)
            previous = "names"
        elif _is_front_line(part, before_abstract):
            printed = collapse("".join(span.text for span in draft.inlines(part)))
            if FOOTNOTE_NOISE.search(part):
                draft.counts["footnote_marks_removed"] += 1
            elif printed:
                draft.front_lines.append(printed)
            previous = "mail" if "@" in part else "address" if is_address(part) else "text"
        else:
            draft.add(RawBlock("paragraph", part))
            previous = "text"


def _front_parts(draft: Draft, front: list[RawBlock], before_abstract: bool) -> list[tuple[RawBlock, str]]:
    """Return the lines under a title, parted at ``&`` and, where a break sets off a name, at breaks."""
    parts: list[tuple[RawBlock, str]] = []
    for block in front:
        if block.kind != "paragraph" or len(block.text) > _LONGEST_AUTHOR_LIST_CHARACTERS:
            parts.append((block, block.text))
            continue
        lines = block.text.split("\n")
        stacked = before_abstract and len(lines) > 1 and not names_in(draft, block.text)
        if not (stacked and any(names_in(draft, line) for line in lines)):
            lines = [block.text]
        for line in lines:
            for nth, part in enumerate(_AMPERSAND.split(line)):
                if part.strip():
                    parts.append((block, f"&{part.strip()}" if nth else part.strip()))
    return parts


def _accepted_names(draft: Draft, part: str, previous: str, following: list[str]) -> list[str]:
    """Return the names of a line that its place tells to be authors'; a lone one may be a company."""
    names = names_in(draft, part)
    if (
        len(names) > 1
        or part.startswith("&")
        or previous in ("title", "mail")
        or SUPERSCRIPT.search(part)
        or (names and has_mail_of(part, next((text for text in following[:3] if "@" in text), "")))
    ):
        return names
    if previous == "names":
        after = next((text for text in following if len(names_in(draft, text)) != 1), "")
        return names if not after or (is_address(after) and "@" not in after) else []
    return names if previous == "address" and following and is_address(following[0]) else []


def _is_front_line(text: str, before_abstract: bool) -> bool:
    """Tell whether a line under a title that is no name belongs to the title page, not to the body."""
    words = len(text.split())
    ends = text.rstrip("*_ \n").endswith((".", "!", "?"))
    if SUPERSCRIPT.match(text.strip()):
        return True
    if (ends and words >= _FEWEST_PROSE_WORDS) or len(text) > _LONGEST_FRONT_LINE_CHARACTERS:
        return False
    sentence = ends and words >= _FEWEST_SENTENCE_WORDS
    if is_address(text):
        return before_abstract or not sentence
    return before_abstract and not sentence


def _take_authors(draft: Draft, names: list[str]) -> None:
    known = {collapse(name).casefold() for name in draft.paper.authors}
    draft.paper.authors += [name for name in names if name.casefold() not in known]
