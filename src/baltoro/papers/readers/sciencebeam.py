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
from collections.abc import Mapping
from dataclasses import dataclass, field
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
from baltoro.papers.readers._xml import collapse_space
from baltoro.papers.schema import Block, BlockKind, Inline, Paper, ReadReject, Section

_SECTION_TITLE = re.compile(r"^Section Title:[ \t]*(.*)$", re.MULTILINE)
_NO_TITLE = {"artitle title", "article title", "none"}
_NO_ABSTRACT = {"abstract", "none"}
_SHORTEST_CAPTION_TO_REMOVE = 40
# Begins with a set of letters, not with a word border or a flag: that is what the search skips by.
_MENTION = re.compile(r"[FfTt](?:[Ii][Gg](?:[Uu][Rr][Ee]|[Ss]?\.)|[Aa][Bb](?:[Ll][Ee]|\.))")
_LONGEST_NUMBER = 12
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
    if introduction and not any(introduction in node.text for node in nodes):
        nodes.insert(0, _Node("Introduction", introduction, own=[introduction]))
    for node in nodes:
        own = _without_prefix(" ".join(node.own).strip(), node.title)
        for caption in captions[:_MOST_CAPTIONS_TO_REMOVE]:
            printed = caption.block.printed()
            if len(own) >= len(printed) >= _SHORTEST_CAPTION_TO_REMOVE:
                own = own.replace(printed, "", 1)
        number, heading = split_heading(node.title)
        section = Section(max(node.level, level_of_number(number)), heading, number, _paragraphs(own))
        if captions:
            mentions = _mentions(own)
            section.blocks += [caption.block for caption in captions if caption.key in mentions]
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
    marks = list(_SECTION_TITLE.finditer(content))
    nodes: list[_Node] = []
    before = _flat(content[: marks[0].start()] if marks else content)
    if before:
        nodes.append(_Node("", before, own=[before]))
    open_nodes: list[_Node] = []
    ends = [*(mark.start() for mark in marks[1:]), len(content)]
    for mark, end in zip(marks, ends[: len(marks)], strict=True):
        title = " ".join(mark.group(1).split())
        text = _flat(content[mark.end() : end])
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
    found = parent.text.find(child.text, parent.cursor or len(parent.title))
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
    """A figure or table and what mentions of it print after the word: ``("fig", "2")``."""

    block: Block
    key: tuple[str, str] | None


def _mentions(text: str) -> set[tuple[str, str]]:
    """Return what a text may mention: ``("fig", "s1")`` for "Figures S1", among others.

    Every beginning of what follows the word counts, unless it would cut a number.
    """
    mentions: set[tuple[str, str]] = set()
    for match in _MENTION.finditer(text):
        before = text[match.start() - 1 : match.start()]
        if before.isalnum() or before == "_":
            continue
        kind = match.group()[:3].lower()
        after = text[match.end() : match.end() + _LONGEST_NUMBER].lower()
        readings = [after.lstrip()]
        # The "s" after a whole word ends a plural or begins the number of a supplement.
        if after[:1] == "s" and match.group()[-1] != ".":
            readings.append(after[1:].lstrip())
        for reading in readings:
            for end in range(1, len(reading) + 1):
                if not reading[end : end + 1].isdecimal():
                    mentions.add((kind, reading[:end]))
    return mentions


def _captions(text: str) -> list[_Caption]:
    captions: list[_Caption] = []
    for line in text.split("\n"):
        caption = " ".join(line.split())
        if not caption:
            continue
        label, rest = split_label(caption)
        if label is None and captions and caption[0].islower():
            captions[-1].block.inlines[0].text += f" {caption}"
            continue
        kind: BlockKind = "table" if (label or "").lower().startswith("tab") else "figure"
        key = label_key(label)
        if key is not None:
            key = ("tab" if kind == "table" else "fig", key[1])
        captions.append(_Caption(Block(kind, [Inline("text", rest or caption)], label=label), key))
    return captions


def _paragraphs(text: str) -> list[Block]:
    """Return the paragraphs of a text that :func:`_flat` made, or of pieces of such."""
    blocks: list[Block] = []
    for part in text.split("\n\n"):
        paragraph = collapse_space(part).strip(" ")
        if paragraph:
            blocks.append(Block("paragraph", [Inline("text", paragraph, None)], [], None, None))
    return blocks


def _without_prefix(text: str, title: str) -> str:
    return text[len(title) :].lstrip() if title and text.startswith(title) else text


def _flat(text: str) -> str:
    """Return text with single spaces and, between paragraphs, one blank line."""
    paragraphs = (" ".join(part.split()) for part in re.split(r"\n[ \t]*\n\s*", text))
    return "\n\n".join(part for part in paragraphs if part)
