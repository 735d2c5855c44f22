"""The dict that review pipelines make of ScienceBeam's JATS.

``{title, abstract, introduction, figure_and_table_captions, section_titles, main_content}``, all text.
``main_content`` is, for every ``<sec>`` of the document in order, a line ``Section Title: …`` and the
whole text of the section, which starts with its title and *contains the text of its sub-sections*; each
of those then follows again as a section of its own. Here a sub-section's text stands once, in its own
section, one level deeper. The introduction is one of these sections; it is read from ``introduction``
only where ``main_content`` lacks it.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any

from baltoro.papers.fields import (
    label_key,
    level_of_number,
    people_of,
    split_heading,
    split_label,
    text_of,
    year_of,
)
from baltoro.papers.readers._text import collapse, find_long
from baltoro.papers.readers._xml import collapse_space
from baltoro.papers.schema import Block, BlockKind, Inline, Paper, ReadReject, Section

_SECTION_MARK = "Section Title:"
_BLANK_LINES = re.compile(r"\n[ \t]*\n\s*")
_NO_TITLE = {"artitle title", "article title", "none"}
_NO_ABSTRACT = {"abstract", "none"}
_SHORTEST_CAPTION_TO_REMOVE = 40
_MENTION = re.compile(rb"fig(?:ure|s?\.)|tab(?:le|\.)")
_LONGEST_NUMBER = 12
_LONGEST_UTF8_BYTES = 4
_MOST_CAPTIONS_TO_REMOVE = 500


def parse_sciencebeam(document: Mapping[str, Any]) -> Paper:
    """Return the paper of one ScienceBeam dict.

    A paragraph's line ends are lost in this format: a section's own text is one paragraph, unless blank
    lines divide it. Captions become figure and table blocks after the first section that names them,
    else at the end, and are taken out of the running text they were dumped into.

    Raises:
        ReadReject: ``no_text`` where neither title, abstract nor content has text.
    """
    title = text_of(document.get("title"))
    abstract = _flat(text_of(document.get("abstract")))
    paper = Paper(
        title="" if title.lower() in _NO_TITLE else " ".join(title.split()),
        authors=people_of(document.get("authors")),
        year=year_of(document.get("year")),
    )
    if abstract and abstract.lower() not in _NO_ABSTRACT:
        paper.abstract = _paragraphs(abstract)
    captions = _captions(text_of(document.get("figure_and_table_captions")))
    nodes = _nodes(text_of(document.get("main_content")))
    introduction = _flat(text_of(document.get("introduction")))
    if introduction and all(find_long(node.text, introduction, 0) < 0 for node in nodes):
        nodes.insert(0, _Node("Introduction", introduction, own=[introduction]))
    for node in nodes:
        own = _without_prefix(" ".join(node.own).strip(), node.title)
        is_in_pieces = len(node.own) > 1
        for caption in captions[:_MOST_CAPTIONS_TO_REMOVE]:
            size = len(caption.printed)
            if len(own) >= size >= _SHORTEST_CAPTION_TO_REMOVE:
                found = find_long(own, caption.printed, 0)
                if found >= 0:
                    own = own[:found] + own[found + size :]
                    is_in_pieces = True
        number, heading = split_heading(node.title)
        blocks = _paragraphs(own, is_in_pieces=is_in_pieces)
        section = Section(max(node.level, level_of_number(number)), heading, number, blocks)
        if captions:
            mentions = _mentions(own, [caption.key for caption in captions if caption.key])
            if mentions:
                blocks += [caption.block for caption in captions if caption.key in mentions]
                captions = [caption for caption in captions if caption.key not in mentions]
        if section.blocks or section.heading:
            paper.sections.append(section)
    if captions:
        if not paper.sections:
            paper.sections.append(Section(1, ""))
        paper.sections[-1].blocks.extend(caption.block for caption in captions)
    if not (paper.title or paper.abstract or any(section.blocks for section in paper.sections)):
        raise ReadReject("no_text", "neither title, abstract nor content")
    return paper


@dataclass
class _Node:
    """One section as dumped: its whole text, and what of it belongs to no sub-section."""

    title: str
    text: str
    level: int = 1
    cursor: int = 0
    own: list[str] = field(default_factory=list)


def _nodes(content: str) -> list[_Node]:
    marks = _section_marks(content)
    nodes: list[_Node] = []
    before = _flat(content[: marks[0]] if marks else content)
    if before:
        nodes.append(_Node("", before, own=[before]))
    open_nodes: list[_Node] = []
    for mark, end in pairwise([*marks, len(content)]):
        line_end = content.find("\n", mark, end)
        line_end = end if line_end < 0 else line_end
        title = collapse(content[mark + len(_SECTION_MARK) : line_end])
        text = _flat(content[line_end:end])
        node = _Node("" if title.lower() == "none" else title, text)
        while open_nodes and (found := _find_child(open_nodes[-1], node)) < 0:
            _close(open_nodes.pop())
        if open_nodes:
            parent = open_nodes[-1]
            parent.own.append(parent.text[parent.cursor : found])
            parent.cursor = found + len(node.text)
            node.level = min(parent.level + 1, 6)
        nodes.append(node)
        open_nodes.append(node)
    for node in open_nodes:
        _close(node)
    return nodes


def _section_marks(content: str) -> list[int]:
    """Return where the lines start that name a section."""
    marks: list[int] = []
    mark = content.find(_SECTION_MARK)
    while mark >= 0:
        if mark == 0 or content[mark - 1] == "\n":
            marks.append(mark)
        mark = content.find(_SECTION_MARK, mark + 1)
    return marks


def _close(node: _Node) -> None:
    node.own.append(node.text[node.cursor :])


def _find_child(parent: _Node, child: _Node) -> int:
    """Return where the rest of the parent's text holds the child's, or -1.

    A child that is a heading without text could be any word of the parent, so it counts only where a
    sentence ends before it and a capital, or nothing, follows.
    """
    if not child.text:
        return -1
    bare = child.text == child.title
    found = find_long(parent.text, child.text, parent.cursor or len(parent.title))
    while found >= 0 and bare:
        before = parent.text[max(found - 2, 0) : found].rstrip()
        end = found + len(child.text)
        after = parent.text[end : end + 2].lstrip()
        first = found in (0, parent.cursor, parent.cursor + 1, len(parent.title) + 1)
        if (first or before[-1:] in ".!?:") and (not after or after[0].isupper()):
            break
        found = parent.text.find(child.text, found + 1)
    return found


@dataclass
class _Caption:
    """A figure or table, its words, and what mentions of it print after the word: ``("fig", "2")``."""

    block: Block
    key: tuple[str, str] | None
    printed: str


def _mentions(text: str, wanted: Collection[tuple[str, str]]) -> set[tuple[str, str]]:
    """Return which of the wanted things a text mentions: ``("fig", "s1")`` for "Figures S1", for example.

    Every beginning of what follows the word counts, unless it would cut a number.
    """
    mentions: set[tuple[str, str]] = set()
    # Only ASCII letters make the words, and bytes have a lower case of those alone, which is fast.
    data = text.encode("utf-8", "surrogatepass").lower() if wanted else b""
    for kind in {kind for kind, _ in wanted}:
        numbers = {number for wanted_kind, number in wanted if wanted_kind == kind}
        word = kind.encode()
        found = data.find(word)
        while found >= 0:
            match = _MENTION.match(data, found)
            if match is not None and not _ends_in_word(data, found):
                for reading in _readings(data, match):
                    for number in numbers:
                        end = len(number)
                        if reading.startswith(number) and not reading[end : end + 1].isdecimal():
                            mentions.add((kind, number))
            found = data.find(word, found + 1)
    return mentions


def _ends_in_word(data: bytes, end: int) -> bool:
    """Tell whether the character before a place belongs to a word."""
    before = data[max(end - _LONGEST_UTF8_BYTES, 0) : end].decode("utf-8", "ignore")[-1:]
    return before.isalnum() or before == "_"


def _readings(data: bytes, match: re.Match[bytes]) -> list[str]:
    """Return what may begin with the number of a mention: what follows the word."""
    end = match.end()
    after = data[end : end + _LONGEST_NUMBER * _LONGEST_UTF8_BYTES].decode("utf-8", "ignore")
    after = after[:_LONGEST_NUMBER].lower()
    # The "s" after a whole word ends a plural or begins the number of a supplement.
    if after[:1] == "s" and data[end - 1] != ord("."):
        return [after.lstrip(), after[1:].lstrip()]
    return [after.lstrip()]


def _captions(text: str) -> list[_Caption]:
    captions: list[_Caption] = []
    for line in text.split("\n"):
        caption = collapse(line)
        if not caption:
            continue
        label, rest = split_label(caption)
        if label is None and captions and caption[0].islower():
            captions[-1].printed += f" {caption}"
            captions[-1].block.inlines[0].text = captions[-1].printed
            continue
        kind: BlockKind = "table" if (label or "").lower().startswith("tab") else "figure"
        key = label_key(label)
        if key is not None:
            key = ("tab" if kind == "table" else "fig", key[1])
        printed = rest or caption
        captions.append(_Caption(Block(kind, [Inline("text", printed)], label=label), key, printed))
    return captions


def _paragraphs(text: str, *, is_in_pieces: bool = False) -> list[Block]:
    """Return the paragraphs of a text that :func:`_flat` made, or that was put together of pieces of such."""
    paragraphs = text.split("\n\n")
    if is_in_pieces:
        paragraphs = [collapse_space(paragraph).strip(" ") for paragraph in paragraphs]
    return [
        Block("paragraph", [Inline("text", paragraph, None)], [], None, None)
        for paragraph in paragraphs
        if paragraph
    ]


def _without_prefix(text: str, title: str) -> str:
    return text[len(title) :].lstrip() if title and text.startswith(title) else text


def _flat(text: str) -> str:
    """Return text with single spaces and, between paragraphs, one blank line."""
    return "\n\n".join([line for part in _BLANK_LINES.split(text) if (line := collapse(part))])
