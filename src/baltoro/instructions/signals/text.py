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
_FLOAT_KINDS = frozenset(("figure_ref", "table_ref"))
_PIECES_BACK = 100
_BRACKET_REACH = 400
_NUMERIC_MARK = re.compile(r"[\s\d,;–-]+")
_SUPERSCRIPTS = str.maketrans("⁰¹²³⁴⁵⁶⁷⁸⁹", "0123456789")

_SENTENCE_END = re.compile(
    r"([.!?][\"'”’)\]]*(?:\s?\[[\d,;\s–-]+\])*)\s+(?=[\"'“‘(\[]*(?:[^\W\d_a-zß-öø-ÿ]|\d|\$|\\))"
)
_LONGEST_ABBREVIATION = 12
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
            before = text[max(start, end - _LONGEST_ABBREVIATION) : end]
            words = before.replace("(", " ").replace("[", " ").split()
            if words and before[-1] not in " ([":
                last = words[-1]
                if last.lower() in _ABBREVIATIONS or (len(last) == 1 and last.isupper()):
                    continue
        spans.append((start, match.end(1)))
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

    Attributes:
        text: all of it.
        spans: of everything but plain text, in order.
        float_spans: those of references to figures and tables.
    """

    def __init__(self, inlines: Sequence[Inline]) -> None:
        pieces: list[str] = []
        self.spans: list[Span] = []
        self.float_spans: list[Span] = []
        length = 0
        after_space = True
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
            if after_space and text.startswith(" "):
                text = text[1:]
            if not text:
                continue
            end = length + len(text)
            if kind != "text":
                span = Span(length, end, inline)
                self.spans.append(span)
                if kind in _FLOAT_KINDS:
                    self.float_spans.append(span)
            pieces.append(text)
            after_space = text[-1] == " "
            length = end
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

    def sentence_at(self, position: int) -> int:
        """Return the number of the sentence that holds a position."""
        # Whatever sentence begins at the position itself sorts before this pair.
        return max(bisect_right(self.sentence_spans, (position, len(self.text) + 1)) - 1, 0)


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


def _without_doi(text: str) -> str:
    return _DOI_AT_END.sub("", text) if "doi.org/" in text.lower() else text


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
        return _without_doi(self.text(block))

    @cached_property
    def paragraphs(self) -> list[Block]:
        """The paragraphs of the body in reading order."""
        return [block for block in self.paper.blocks() if block.kind == "paragraph"]

    @cached_property
    def abstract(self) -> str:
        """The abstract on one line, the parts of a structured one behind their headings."""
        return " ".join(filter(None, map(self._part_of_abstract, self.paper.abstract)))

    def _part_of_abstract(self, block: Block) -> str:
        text = _without_doi(self.text(block))
        label = one_line(block.label or "").rstrip(".:")
        if _NOT_OF_THE_ABSTRACT.match(label):
            return ""
        return f"{label}: {text}" if label and text and block.kind == "paragraph" else text
