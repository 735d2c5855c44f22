"""The body: sections with their numbers, the abstract and the reference list among them."""

from __future__ import annotations

import re

from baltoro.papers.readers._builder.draft import Draft
from baltoro.papers.readers._builder.entries import looks_like_entry, parse_entry
from baltoro.papers.readers._builder.names import SUPERSCRIPT, is_address
from baltoro.papers.readers._builder.wording import ABSTRACT, CAPTION, FOOTNOTE, NUMBERED
from baltoro.papers.readers._markup.blocks import RawBlock
from baltoro.papers.readers._text import collapse
from baltoro.papers.schema import Section

_REFERENCES = re.compile(
    r"(?:references?|bibliography|literature cited|works cited|references and notes|reference list)\W*$", re.I
)
_KEYWORDS = re.compile(
    r"[*_\s]*(?:key\s?-?words?(?:\s+and\s+phrases)?|index terms)[*_\s]*(?:[:—–]|-\s)[*_\s]*", re.I
)
_ACM_CONCEPTS = re.compile(r"[*_]*CCS Concepts\b")
_ACM_RIGHTS = re.compile(r"\s*(?:\b20\d\d\s+)?\b(?:acmcopyright|acmlicensed|rightsretained)\s*$")


def read_body(draft: Draft, position: int) -> None:
    """Read everything from a block on: sections, the abstract and the reference list.

    Args:
        draft: gets them.
        position: the first block behind the title page.
    """
    blocks = draft.blocks
    depths = [block.level for block in blocks[position:] if block.kind == "heading" and block.level < 6]
    # Nougat's depths are wrong too often to let one heading shift all others.
    base = 2 if draft.is_nougat else min(depths, default=1)
    in_abstract = in_references = list_open = False
    last_level = 0
    while position < len(blocks):
        block = blocks[position]
        position += 1
        if block.kind == "heading":
            text = collapse(block.text).strip("*_ ")
            in_abstract = bool(ABSTRACT.match(text)) and not draft.paper.abstract and len(draft.sections) <= 2
            numbered = NUMBERED.match(text)
            in_references = bool(_REFERENCES.match(text[numbered.end() :] if numbered else text))
            list_open = in_references
            if in_references:
                draft.sections.append(Section(1, ""))
            elif not in_abstract:
                last_level = _open_section(draft, block, base, last_level)
            continue
        if in_abstract and _take_abstract(draft, block):
            continue
        if in_references:
            taken, list_open = _take_reference(draft, block, list_open)
            if taken:
                continue
        position += draft.add(block, blocks[position] if position < len(blocks) else None)


def _open_section(draft: Draft, block: RawBlock, base: int, last_level: int) -> int:
    """Open the section of a heading; return its level, or that of the heading before where it opens none."""
    spans = draft.spans(block)
    heading = collapse("".join(span.text for span in spans))
    if not heading:
        return last_level
    numbered = NUMBERED.match(heading)
    number = None
    level = max(1, block.level - base + 1)
    if numbered:
        number = collapse(numbered["number"])
        rest = heading[numbered.end() :].strip()
        if rest and rest[0].islower() and number.isdigit() and int(number) > 40:
            number, numbered = None, None  # "80 percent of …" is a sentence
        else:
            heading = rest
            if number[0].isdigit() or "." in number:
                level = number.count(".") + 1
            elif number.lower().startswith(("appendix", "annex")):
                level = 1
    if number is None:
        level = min(level, last_level + 1)
    draft.sections.append(Section(min(level, 9), heading, number))
    return level


def _take_abstract(draft: Draft, block: RawBlock) -> bool:
    if block.kind not in ("paragraph", "item", "formula"):
        return False
    keywords = _KEYWORDS.match(block.text) if block.kind == "paragraph" else None
    if keywords:
        return _take_keywords(draft, block, keywords.end())
    if SUPERSCRIPT.match(block.text.strip()) and is_address(block.text):
        draft.front_lines.append(collapse(draft.printed(block)))  # affiliations set under the abstract
        return True
    if _ACM_CONCEPTS.match(block.text):
        draft.front_lines.append(collapse(draft.printed(block)))
        return True
    rights = _ACM_RIGHTS.search(block.text) if draft.paper.abstract else None
    if rights:  # what the template sets after its keywords
        block.text = block.text[: rights.start()]
        return _take_keywords(draft, block, 0)
    if CAPTION.match(block.text) or FOOTNOTE.match(block.text):
        return False
    built = draft.block(block)
    if built is not None:
        draft.paper.abstract.append(built)
    return True


def _take_keywords(draft: Draft, block: RawBlock, start: int) -> bool:
    words = collapse("".join(span.text for span in draft.inlines(block.text[start:])))
    draft.paper.keywords.extend(w.strip(" .") for w in re.split(r"[;,·•]", words) if w.strip(" ."))
    return True


def _take_reference(draft: Draft, block: RawBlock, list_open: bool) -> tuple[bool, bool]:
    """Return whether the block became an entry, and whether the list may go on after it."""
    text = (
        block.text.lstrip("* ") if block.kind == "paragraph" and block.text.startswith("**") else block.text
    )
    if block.kind == "item":
        number = (block.marker or "").strip("()[].")
        if not list_open and (number.isdigit() or not looks_like_entry(text)):
            return False, list_open
        if number.isdigit():
            text = f"[{number}] {text}"
    elif block.kind == "paragraph":
        if not looks_like_entry(text):
            return False, list_open and CAPTION.match(text) is not None
    elif block.kind == "note":
        return False, list_open
    else:
        return False, list_open and block.kind in ("table", "figure")
    draft.entries.append(parse_entry(text))
    return True, list_open
