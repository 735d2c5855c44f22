"""The text of a block with its marks in place, and its sentences."""

from __future__ import annotations

import re
from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

from baltoro.papers.schema import Block, Inline, Paper

_SPACES = re.compile(r"\s+")
_DOI_AT_END = re.compile(r"\s*(?:DOI:?\s*)?https?://(?:dx\.)?doi\.org/\S+\Z", re.IGNORECASE)
_NOT_OF_THE_ABSTRACT = re.compile(r"supplementary|electronic supplementary|trial registration", re.IGNORECASE)
_PIECES_BACK = 100
_BRACKET_REACH = 400
_NUMERIC_MARK = re.compile(r"[\s\d,;–-]+")
_SUPERSCRIPTS = str.maketrans("⁰¹²³⁴⁵⁶⁷⁸⁹", "0123456789")

_SENTENCE_END = re.compile(
    r"[.!?][\"'”’)\]]*(?:\s?\[[\d,;\s–-]+\])*\s+(?=[\"'“‘(\[]*(?:[^\W\d_a-zß-öø-ÿ]|\d|\$|\\))"
)
_LAST_WORD = re.compile(r"[^\s(\[]+\Z")
_ABBREVIATION_LIST = """
al fig figs eq eqs ref refs tab sec sect ch chap no nos vol vs cf approx ca resp dr prof mr mrs ms
st e.g i.e viz etc spp sp ssp var subsp sup suppl supp app appx def thm lem prop cor ex max min avg
inc ltd corp u.s u.k jan feb mar apr jun jul aug sep sept oct nov dec
"""
_ABBREVIATIONS = frozenset(_ABBREVIATION_LIST.split())


def one_line(text: str) -> str:
    """Return text with single spaces, without outer ones."""
    return " ".join(text.split())


def sentence_spans(text: str) -> list[tuple[int, int]]:
    """Return start and end of each sentence, without the spaces between.

    A full stop ends a sentence before a capital, a digit, a bracket or a formula; not after an abbreviation
    or an initial. Numbered citation marks after the stop belong to the sentence before them.
    """
    spans = []
    start = 0
    for match in _SENTENCE_END.finditer(text):
        end = match.start()
        if text[end] == ".":
            word = _LAST_WORD.search(text, max(start, end - 12), end)
            if word:
                last = word.group()
                if last.lower() in _ABBREVIATIONS or (len(last) == 1 and last.isupper()):
                    continue
        spans.append((start, end + len(match.group().rstrip())))
        start = match.end()
    if text[start:].strip():
        spans.append((start, len(text.rstrip())))
    return spans


def sentences(text: str) -> list[str]:
    """Return the sentences of a text on one line."""
    return [text[start:end] for start, end in sentence_spans(text)]


@dataclass(slots=True)
class Span:
    """Where an inline stands in the text of its block."""

    start: int
    end: int
    inline: Inline


class Flow:
    """The text of some inlines on one line, where each reference stands in it, and its sentences.

    LaTeX stands between dollar signs; a citation printed as a bare number outside brackets, as superscripts
    are, gets them; marks of notes are left out.
    """

    def __init__(self, inlines: Sequence[Inline]) -> None:
        pieces: list[str] = []
        self.spans: list[Span] = []
        length = 0
        for inline in inlines:
            kind = inline.kind
            if kind == "note_ref":
                continue
            text = inline.text
            if "  " in text or not text.isprintable():
                text = _SPACES.sub(" ", text)
            if kind == "formula":
                text = f"${text.strip()}$" if inline.target == "tex" and text.strip() else text
            elif kind == "citation":
                text = _citation_mark(text, pieces)
            if text.startswith(" ") and (not pieces or pieces[-1].endswith(" ")):
                text = text[1:]
            if not text:
                continue
            if kind != "text":
                self.spans.append(Span(length, length + len(text), inline))
            pieces.append(text)
            length += len(text)
        self.text = "".join(pieces).rstrip()

    @cached_property
    def sentence_spans(self) -> list[tuple[int, int]]:
        """Start and end of each sentence; none ends inside a reference or formula."""
        spans: list[tuple[int, int]] = []
        inner = iter(self.spans)
        span = next(inner, None)
        for start, end in sentence_spans(self.text):
            begin = start
            if spans:
                before = spans[-1][1]
                while span is not None and span.end <= before:
                    span = next(inner, None)
                if span is not None and span.start < before:
                    begin = spans.pop()[0]
            spans.append((begin, end))
        return spans

    @cached_property
    def _sentence_starts(self) -> list[int]:
        return [start for start, _ in self.sentence_spans]

    def sentence_at(self, position: int) -> int:
        """Return the number of the sentence that holds a position."""
        return max(bisect_right(self._sentence_starts, position) - 1, 0)


def _citation_mark(text: str, pieces: Sequence[str]) -> str:
    plain = text if text.isascii() else text.translate(_SUPERSCRIPTS)
    if not plain.strip() or not _NUMERIC_MARK.fullmatch(plain):
        return plain
    # Marks are short: what opens a list of them may stand many pieces back.
    before = "".join(pieces[-_PIECES_BACK:])[-_BRACKET_REACH:]
    if max(before.rfind("["), before.rfind("(")) > max(before.rfind("]"), before.rfind(")")):
        return plain
    space = "" if not before or before[-1] in " (" else " "
    return f"{space}[{plain.strip()}]" if any(map(str.isdigit, plain)) else plain


class PaperTexts:
    """The texts of one paper's blocks, each made once, when it is first asked for."""

    def __init__(self, paper: Paper) -> None:
        self.paper = paper
        self._flows: dict[int, Flow] = {}

    def flow(self, block: Block) -> Flow:
        """Return the text of one of the paper's blocks, with its references and sentences."""
        flow = self._flows.get(id(block))
        if flow is None:
            flow = self._flows[id(block)] = Flow(block.inlines)
        return flow

    def text(self, block: Block) -> str:
        """Return the text of one of the paper's blocks, on one line."""
        return self.flow(block).text

    def caption(self, block: Block) -> str:
        """Return the caption of a figure or table, without the DOI that some publishers add to it."""
        return _DOI_AT_END.sub("", self.text(block))

    @cached_property
    def paragraphs(self) -> list[Block]:
        """The paragraphs of the body in reading order."""
        return [block for block in self.paper.blocks() if block.kind == "paragraph"]

    @cached_property
    def abstract(self) -> str:
        """The abstract on one line, the parts of a structured one behind their headings."""
        return " ".join(filter(None, map(self._part_of_abstract, self.paper.abstract)))

    def _part_of_abstract(self, block: Block) -> str:
        text = _DOI_AT_END.sub("", self.text(block))
        label = one_line(block.label or "").rstrip(".:")
        if _NOT_OF_THE_ABSTRACT.match(label):
            return ""
        return f"{label}: {text}" if label and text and block.kind == "paragraph" else text
