"""Citations and mentions in running text, and the marks of notes, with what they point to.

Nothing here guesses: a citation that fits no entry or more than one stays text.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass, field

from baltoro.papers.readers._builder.entries import Entry
from baltoro.papers.schema import Block, Inline, InlineKind

_NUMBER_GROUP = re.compile(r"\[\s*(\d{1,4}[a-z]?(?:\s*[,;–\-]\s*\d{1,4}[a-z]?)*)\s*\]")
_NUMBER = re.compile(r"\d{1,4}[a-z]?")
_WHOLE_NUMBER = re.compile(r"\d{1,4}")
_FEWEST_CITATIONS = 3
_WORD = r"[^\W\d_](?:[^\W\d_]|['’\-](?=[^\W\d_]))*"
_CENTURIES = ("18", "19", "20")
_CITED_YEAR = re.compile(r"(?:1[89]|20)\d\d[a-z]?(?![\w])")
_NAME_BEFORE_YEAR = re.compile(
    rf"""(?P<first>\b{_WORD})
        (?:\s+(?P<others>et\s+al\.?,?)|\s+(?:and|&)\s+(?P<second>{_WORD}))?,?\s*(?P<bracket>[\[(])?$""",
    re.VERBOSE,
)
_LONGEST_NAME_CHARACTERS = 80
_MORE_YEARS = re.compile(r",\s*((?:1[89]|20)\d\d[a-z]?)(?![\w])")
# A search for an expression that begins with one letter, not with a word border or without regard to case, is
# many times as fast. The two other letters are what Python takes for an "i" where case does not count.
_MENTION_STARTS = tuple(map(re.compile, ("F[Iiİı][Gg]", "f[Iiİı][Gg]", "T[Aa][Bb]", "t[Aa][Bb]")))
_MENTION = re.compile(
    r"\b(?P<kind>Fig(?:ure|s\.?|ures|\.)?|Tab(?:le|les|\.))\s?(?P<number>[A-Z]?\.?\d+(?:\.\d+)*|[A-Z](?![\w]))",
    re.I,
)


def highest_citation(texts: Iterable[str]) -> int:
    """Return the highest number in square brackets, as in ``[3, 12]``; 0 if there are fewer than three."""
    numbers = [
        int(number[0])
        for text in texts
        if "[" in text
        for group in _NUMBER_GROUP.finditer(text)
        for number in _WHOLE_NUMBER.finditer(group[1])
    ]
    return max(numbers) if len(numbers) >= _FEWEST_CITATIONS else 0


@dataclass(slots=True)
class _Mark:
    start: int
    end: int
    target: str
    kind: InlineKind


@dataclass(slots=True)
class CitationIndex:
    """What the citations and mentions of one paper may point to."""

    by_number: dict[str, str] = field(default_factory=dict)
    by_name: dict[tuple[str, str], list[Entry]] = field(default_factory=dict)
    names_by_year: dict[str, tuple[str, ...]] = field(default_factory=dict)
    years: set[str] = field(default_factory=set)
    blocks: dict[tuple[str, str], str] = field(default_factory=dict)

    @classmethod
    def of(cls, entries: Iterable[Entry], blocks: Iterable[Block]) -> CitationIndex:
        """Index reference entries, and the labelled figures and tables."""
        index = cls()
        ambiguous: set[str] = set()
        for entry in entries:
            if entry.number is not None:
                if entry.number in index.by_number:
                    ambiguous.add(entry.number)
                index.by_number.setdefault(entry.number, entry.reference.key)
            if entry.surnames and entry.year:
                index.by_name.setdefault((entry.surnames[0], entry.year), []).append(entry)
                names = index.names_by_year.get(entry.year, (" al",))
                index.names_by_year[entry.year] = (*names, *entry.surnames[:2])
        index.years = {year[:4] for year in index.names_by_year}
        for number in ambiguous:
            del index.by_number[number]
        for block in blocks:
            if block.kind in ("figure", "table") and block.ref_id:
                kind, _, number = block.ref_id.partition("-")
                index.blocks.setdefault((kind, number), block.ref_id)
        return index

    def link(self, inlines: list[Inline]) -> list[Inline]:
        """Return the spans with citations and mentions of figures and tables as spans of their own."""
        if not (self.by_number or self.by_name or self.blocks):
            return inlines
        linked: list[Inline] = []
        for inline in inlines:
            if inline.kind == "text":
                linked.extend(self._link_text(inline.text))
            else:
                linked.append(inline)
        return linked

    def _link_text(self, text: str) -> Iterable[Inline]:
        marks = self._number_marks(text) if self.by_number and "[" in text else []
        if self.by_name and ("1" in text or "2" in text):
            marks += self._name_marks(text)
        if self.blocks:
            marks += self._mention_marks(text)
        if not marks:
            return [Inline("text", text)]
        marks.sort(key=lambda mark: mark.start)
        spans: list[Inline] = []
        position = 0
        for mark in marks:
            if mark.start < position:
                continue
            if mark.start > position:
                spans.append(Inline("text", text[position : mark.start]))
            spans.append(Inline(mark.kind, text[mark.start : mark.end], mark.target))
            position = mark.end
        if position < len(text):
            spans.append(Inline("text", text[position:]))
        return spans

    def _number_marks(self, text: str) -> list[_Mark]:
        marks: list[_Mark] = []
        for group in _NUMBER_GROUP.finditer(text):
            numbers = list(_NUMBER.finditer(text, group.start(1), group.end(1)))
            if not all(number[0] in self.by_number for number in numbers):
                continue
            found = [_Mark(n.start(), n.end(), self.by_number[n[0]], "citation") for n in numbers]
            found[0].start, found[-1].end = group.span()
            marks += found
        return marks

    def _name_marks(self, text: str) -> list[_Mark]:
        marks: list[_Mark] = []
        position = 0
        for start in _places(text, _CENTURIES):
            if start < position or text[start : start + 4] not in self.years:
                continue
            year_found = _CITED_YEAR.match(text, start)
            if year_found is None or year_found[0] not in self.names_by_year:
                continue
            end = year_found.end()
            earliest = max(0, start - _LONGEST_NAME_CHARACTERS)
            # Most years follow no name; the expression looks for one from each of the characters before.
            before = text[earliest:start].rstrip().rstrip("[(").rstrip().rstrip(",.").lower()
            if not before.endswith(self.names_by_year[year_found[0]]):
                continue
            match = _NAME_BEFORE_YEAR.search(text, earliest, start)
            target = self._named(match, year_found[0]) if match else None
            if match is None or target is None:
                continue
            more: list[_Mark] = []
            while year := _MORE_YEARS.match(text, more[-1].end if more else end):
                further = self._named(match, year[1])
                if further is None:
                    break
                more.append(_Mark(year.start(1), year.end(1), further, "citation"))
            mark = _Mark(match.start(), end, target, "citation")
            last = more[-1] if more else mark
            closing = {"(": ")", "[": "]"}.get(match["bracket"] or "")
            if closing and text[last.end : last.end + 1] == closing:
                last.end += 1
            elif closing is None and text[mark.start - 1 : mark.start] + text[last.end : last.end + 1] in (
                "()",
                "[]",
            ):
                mark.start -= 1
                last.end += 1
            marks += [mark, *more]
            position = last.end
        return marks

    def _named(self, match: re.Match[str], year: str) -> str | None:
        """Return the one entry that ``Name (et al. | and Name) year`` can mean."""
        candidates = self.by_name.get((match["first"].lower(), year), [])
        second = match["second"]
        if second:
            candidates = [e for e in candidates if len(e.surnames) > 1 and e.surnames[1] == second.lower()]
        elif match["others"]:
            candidates = [e for e in candidates if e.has_others or len(e.surnames) != 1]
        elif len(candidates) > 1:
            candidates = [e for e in candidates if len(e.surnames) == 1 and not e.has_others]
        return candidates[0].reference.key if len(candidates) == 1 else None

    def _mention_marks(self, text: str) -> list[_Mark]:
        marks: list[_Mark] = []
        end = 0
        for start in sorted([found.start() for word in _MENTION_STARTS for found in word.finditer(text)]):
            match = _MENTION.match(text, start) if start >= end else None
            if match is None:
                continue
            end = match.end()
            is_figure = match["kind"][0] in "fF"
            kind = "figure" if is_figure else "table"
            target = self.blocks.get((kind, match["number"].lower()))
            if target:
                marks.append(
                    _Mark(match.start(), match.end(), target, "figure_ref" if is_figure else "table_ref")
                )
        return marks


def _places(text: str, parts: tuple[str, ...]) -> list[int]:
    """Return in order where any of some short texts begins."""
    places: list[int] = []
    for part in parts:
        found = text.find(part)
        while found >= 0:
            places.append(found)
            found = text.find(part, found + 1)
    places.sort()
    return places


_NOTE_DIGITS = re.compile(r"\d{1,2}")
_SUPERSCRIPT_NUMBER = re.compile(r"(?:\{\}|~)?\s*\^\{?\s*(\d{1,2})\s*\}?")
_BLOCKS_BEFORE_NOTE = 4


def link_notes(blocks: Iterable[Block]) -> None:
    """Make ``note_ref`` spans of the marks that a parser leaves glued to the word before them.

    A note with a number follows the page's text: its mark (``layer.3``, ``layer3`` or a superscript) is
    looked for in the few blocks before it, nearest first, and taken only where it is the only one.
    """
    before: list[Block] = []
    for block in blocks:
        if block.kind in ("paragraph", "list"):
            before.append(block)
        elif block.kind == "note" and block.ref_id and _NOTE_DIGITS.fullmatch(block.label or ""):
            for candidate in reversed(before[-_BLOCKS_BEFORE_NOTE:]):
                if _link_note(candidate, block.label or "", block.ref_id):
                    break


def _link_note(block: Block, number: str, target: str) -> bool:
    """Link the one mark with a note's number in a block; false if there is none or more than one."""
    mark = re.compile(
        rf"(?:(?<=[a-z][a-z])|(?<=[a-z][.,;:)\]!?”\"'])|(?<=[)\]”][.,;:]))(?<![a-z]\.[a-z]\.){number}(?=[\s,.;:)]|$)"
    )
    found: list[tuple[int, int, int]] = []
    for index, span in enumerate(block.inlines):
        if span.kind == "text":
            found += [(index, *match.span()) for match in mark.finditer(span.text)]
        elif span.kind == "formula":
            superscript = _SUPERSCRIPT_NUMBER.fullmatch(span.text)
            if superscript and superscript[1] == number:
                found.append((index, 0, len(span.text)))
    if len(found) != 1:
        return False
    index, start, end = found[0]
    words = block.inlines[index].text
    around = [Inline("text", words[:start]), Inline("note_ref", number, target), Inline("text", words[end:])]
    block.inlines[index : index + 1] = [span for span in around if span.text]
    return True
