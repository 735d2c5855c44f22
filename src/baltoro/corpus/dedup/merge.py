"""One paper from two parses of its PDF: the frame of GROBID, the formulas and tables of Nougat.

GROBID knows metadata, sections, references and which citation leads where, but prints formulas as broken
glyphs and tables as heaps of numbers; Nougat reads formulas and tables as LaTeX, but guesses the rest and
loses pages. :func:`merge_parses` keeps the GROBID parse and takes from the Nougat parse only what has a
proven place in it:

* Sections are aligned in order by their headings' letters; what stands between two aligned headings on both
  sides is one region.
* Within a region, paragraphs are aligned in order by their words (Dice coefficient of the word sets of at
  least 0.5, the best such chain).
* *Displayed formulas* are replaced where, between two neighbouring aligned paragraphs, both parses have the
  same number of formulas, or formulas with the same printed numbers, and no other text.
* A *paragraph* is replaced, for its inline formulas, where nearly all its words outside formulas are in the
  GROBID paragraph and both cite the same marks, figures and tables in the same order; the targets stay
  GROBID's.
* The *cells of a table* are replaced where label and caption agree; the place stays GROBID's, and so does the
  caption, unless formulas can be taken as in a paragraph.

Everything else stays as GROBID has it. Metadata that GROBID lacks is filled in from the other parse.
"""

from __future__ import annotations

import difflib
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Protocol, TypeVar

from baltoro.corpus.dedup.versions import folded_letters
from baltoro.corpus.words import words_of
from baltoro.papers.schema import UNKNOWN_LICENSE, Block, Inline, Paper, Section

BASE_FORMATS = ("grobid_tei", "s2orc")
"""Parses that give the frame, the preferred first (S2ORC is made from GROBID)."""

DONOR_FORMATS = ("nougat",)
"""Parses that give formulas and tables."""

_ALIGNED = 0.5
_SAME_PROSE = 0.9
_PROSE = ("paragraph", "list")
_FLOATS = ("figure", "table", "note")
_FILLED_FIELDS = (
    "title",
    "abstract",
    "authors",
    "year",
    "venue",
    "doi",
    "language",
    "keywords",
    "references",
)
_EXAMPLES = 5


@dataclass(slots=True)
class MergeReport:
    """What a merged paper is made of.

    Attributes:
        base: paper_id of the parse that gave the frame.
        donor: paper_id of the parse that gave formulas and tables.
        counts: how many sections and paragraphs aligned, and how many formulas, paragraphs and tables were
            taken or kept.
        fields: metadata fields that the base lacked.
        examples: some (before, after) pairs of blocks.
    """

    base: str
    donor: str
    counts: Counter[str] = field(default_factory=Counter)
    fields: tuple[str, ...] = ()
    examples: list[tuple[str, str]] = field(default_factory=list)


class Parse(Protocol):
    """What the choice of parses looks at."""

    @property
    def paper_id(self) -> str:
        """Name of the parse."""

    @property
    def format(self) -> str:
        """Format it was read from."""


AnyParse = TypeVar("AnyParse", bound=Parse)


def choose_parses(papers: Sequence[AnyParse], kept_id: str) -> tuple[AnyParse, AnyParse] | None:
    """Return the frame and the donor among the versions of a paper; ``None`` if there is nothing to merge.

    A paper kept in another format than these parses (JATS) is better than any merge. The kept parse is
    preferred for its role, then the smallest paper_id.
    """
    kept = next(paper for paper in papers if paper.paper_id == kept_id)
    if kept.format not in BASE_FORMATS + DONOR_FORMATS:
        return None

    def best(formats: Sequence[str]) -> AnyParse | None:
        fitting = [paper for paper in papers if paper.format in formats]
        return min(
            fitting,
            key=lambda p: (p.paper_id != kept_id, formats.index(p.format), p.paper_id),
            default=None,
        )

    base, donor = best(BASE_FORMATS), best(DONOR_FORMATS)
    return None if base is None or donor is None else (base, donor)


def merge_parses(base: Paper, donor: Paper) -> tuple[Paper, MergeReport]:
    """Return a new paper with the frame of ``base`` and what of ``donor`` aligns; both stay as they are.

    The new paper has the identity of ``base``. Merging a paper with itself changes nothing.
    """
    report = MergeReport(base.paper_id, donor.paper_id)
    changed: dict[tuple[int, int], list[Block]] = {}
    for region, donor_region in _regions(base.sections, donor.sections, report):
        _merge_region(base.sections, region, donor.sections, donor_region, changed=changed, report=report)
    _merge_tables(base.sections, donor.sections, changed, report)
    sections = [
        replace(
            section,
            blocks=[new for j, block in enumerate(section.blocks) for new in changed.get((i, j), [block])],
        )
        for i, section in enumerate(base.sections)
    ]
    filled = {
        name: getattr(donor, name)
        for name in _FILLED_FIELDS
        if not getattr(base, name) and getattr(donor, name)
    }
    if base.license == UNKNOWN_LICENSE != donor.license:
        filled["license"] = donor.license
    report.fields = tuple(filled)
    return replace(base, sections=sections, **filled), report


# --- sections ----------------------------------------------------------------------------------------

_Place = tuple[int, int]


def _regions(
    base: Sequence[Section], donor: Sequence[Section], report: MergeReport
) -> list[tuple[list[_Place], list[_Place]]]:
    """Return pairs of block places, (section, block), between headings that both parses have in order."""
    matcher = difflib.SequenceMatcher(
        None,
        [_heading(section) for section in base],
        [_heading(section) for section in donor],
        autojunk=False,
    )
    pairs = [
        (match.a + k, match.b + k)
        for match in matcher.get_matching_blocks()
        for k in range(match.size)
        if _heading(base[match.a + k])
    ]
    report.counts["sections_aligned"] = len(pairs)
    report.counts["sections_not_aligned"] = len(base) - len(pairs)
    cuts = [(0, 0), *pairs, (len(base), len(donor))]
    return [
        (_places(base, cuts[k][0], cuts[k + 1][0]), _places(donor, cuts[k][1], cuts[k + 1][1]))
        for k in range(len(cuts) - 1)
    ]


def _heading(section: Section) -> str:
    return "".join(c for c in folded_letters(section.heading) if not c.isdigit())


def _places(sections: Sequence[Section], first: int, end: int) -> list[_Place]:
    return [(i, j) for i in range(first, end) for j in range(len(sections[i].blocks))]


# --- paragraphs and formulas -------------------------------------------------------------------------


def _merge_region(
    base: Sequence[Section],
    region: Sequence[_Place],
    donor: Sequence[Section],
    donor_region: Sequence[_Place],
    *,
    changed: dict[_Place, list[Block]],
    report: MergeReport,
) -> None:
    blocks = [base[i].blocks[j] for i, j in region]
    others = [donor[i].blocks[j] for i, j in donor_region]
    aligned = _align(blocks, others)
    report.counts["paragraphs_aligned"] += len(aligned)
    report.counts["paragraphs_not_aligned"] += sum(b.kind in _PROSE for b in blocks) - len(aligned)
    for at, other in aligned:
        new = _with_inline_formulas(blocks[at], others[other])
        if new is not None:
            changed[region[at]] = [new]
            report.counts["paragraphs_taken"] += 1
            report.counts["inline_formulas_taken"] += sum(i.kind == "formula" for i in new.inlines)
            _show(report, blocks[at], new)
    cuts = [(-1, -1), *aligned, (len(blocks), len(others))]
    for k in range(len(cuts) - 1):
        (at, other), (end, other_end) = cuts[k], cuts[k + 1]
        gap = range(at + 1, end)
        formulas = [index for index in gap if blocks[index].kind == "formula"]
        new_formulas = _formulas_for([blocks[index] for index in gap], others[other + 1 : other_end])
        if not new_formulas:
            report.counts["display_formulas_kept"] += len(formulas)
            continue
        report.counts["display_formulas_taken"] += len(formulas)
        _show(report, blocks[formulas[0]], new_formulas[0])
        if len(new_formulas) == len(formulas):
            for index, new in zip(formulas, new_formulas, strict=True):
                changed[region[index]] = [new]
        else:
            for index in formulas:
                changed[region[index]] = []
            changed[region[formulas[0]]] = new_formulas


def _align(blocks: Sequence[Block], others: Sequence[Block]) -> list[tuple[int, int]]:
    """Return the best chain of pairs of paragraphs, in order on both sides, by the words they share."""
    ours = [(index, _words(block)) for index, block in enumerate(blocks) if block.kind in _PROSE]
    theirs = [(index, _words(block)) for index, block in enumerate(others) if block.kind in _PROSE]
    score = [[0.0] * (len(theirs) + 1) for _ in range(len(ours) + 1)]
    gain = [[_dice(words, other) for _, other in theirs] for _, words in ours]
    for i in range(len(ours) - 1, -1, -1):
        for j in range(len(theirs) - 1, -1, -1):
            paired = gain[i][j] + score[i + 1][j + 1] if gain[i][j] >= _ALIGNED else 0.0
            score[i][j] = max(paired, score[i + 1][j], score[i][j + 1])
    chain, i, j = [], 0, 0
    while i < len(ours) and j < len(theirs):
        if gain[i][j] >= _ALIGNED and score[i][j] == gain[i][j] + score[i + 1][j + 1]:
            chain.append((ours[i][0], theirs[j][0]))
            i, j = i + 1, j + 1
        elif score[i][j] == score[i + 1][j]:
            i += 1
        else:
            j += 1
    return chain


def _words(block: Block) -> frozenset[int]:
    """Return the words of a block outside its formulas, as hashes."""
    text = "".join(" " if inline.kind == "formula" else inline.text for inline in block.inlines)
    return frozenset(words_of(text).hashes.tolist())


def _dice(one: frozenset[int], other: frozenset[int]) -> float:
    return 2 * len(one & other) / max(len(one) + len(other), 1)


def _formulas_for(gap: Sequence[Block], other_gap: Sequence[Block]) -> list[Block]:
    """Return the donor's formulas for a gap between aligned paragraphs, or none if they do not fit."""
    if any(block.kind not in ("formula", *_FLOATS) for block in (*gap, *other_gap)):
        return []
    ours = [block for block in gap if block.kind == "formula"]
    theirs = [block for block in other_gap if block.kind == "formula" and block.printed().strip()]
    labels = [folded_letters(block.label or "") for block in ours]
    their_labels = [folded_letters(block.label or "") for block in theirs]
    if not ours or not theirs:
        return []
    if len(ours) == len(theirs):
        both = [(a, b) for a, b in zip(labels, their_labels, strict=True) if a and b]
        if any(a != b for a, b in both):
            return []
        return [
            replace(new, label=new.label or old.label, ref_id=old.ref_id)
            for old, new in zip(ours, theirs, strict=True)
        ]
    numbered = [label for label in labels if label]
    if not numbered or numbered != [label for label in their_labels if label]:
        return []
    names = {label: block.ref_id for label, block in zip(labels, ours, strict=True) if label}
    return [replace(new, ref_id=names.get(label)) for new, label in zip(theirs, their_labels, strict=True)]


_LINKED = ("citation", "figure_ref", "table_ref", "note_ref")


def _with_inline_formulas(block: Block, other: Block) -> Block | None:
    """Return the donor's paragraph with our targets, or ``None`` if ours has to stay."""
    if block.kind != other.kind or not any(i.kind == "formula" and i.target == "tex" for i in other.inlines):
        return None
    if any(i.kind == "formula" and i.target == "tex" for i in block.inlines):
        return None
    words, other_words = _words(block), _words(other)
    if len(words & other_words) < _SAME_PROSE * len(other_words):
        return None
    targets = [(i.kind, folded_letters(i.text), i.target) for i in block.inlines if i.kind in _LINKED]
    marks = [(i.kind, folded_letters(i.text)) for i in other.inlines if i.kind in _LINKED]
    if [(kind, text) for kind, text, _ in targets] != marks:
        return None
    remaining = iter(targets)
    inlines = [
        Inline(i.kind, i.text, next(remaining)[2]) if i.kind in _LINKED else replace(i) for i in other.inlines
    ]
    return replace(block, inlines=inlines)


# --- tables ------------------------------------------------------------------------------------------


def _merge_tables(
    base: Sequence[Section],
    donor: Sequence[Section],
    changed: dict[_Place, list[Block]],
    report: MergeReport,
) -> None:
    ours = {
        place: base[place[0]].blocks[place[1]]
        for place in _places(base, 0, len(base))
        if base[place[0]].blocks[place[1]].kind == "table"
    }
    theirs: dict[str, list[Block]] = {}
    for section in donor:
        for block in section.blocks:
            if block.kind == "table" and _label(block):
                theirs.setdefault(_label(block), []).append(block)
    labels = Counter(_label(block) for block in ours.values())
    for place, block in ours.items():
        found = theirs.get(_label(block), [])
        if labels[_label(block)] == 1 and len(found) == 1 and _same_table(block, found[0]):
            captioned = _with_inline_formulas(block, found[0]) or block
            changed[place] = [replace(captioned, cells=[list(row) for row in found[0].cells])]
            report.counts["tables_taken"] += 1
            _show(report, block, changed[place][0])
        else:
            report.counts["tables_kept"] += 1


def _label(block: Block) -> str:
    return folded_letters(block.label or "").removeprefix("table").removeprefix("tab")


def _same_table(block: Block, other: Block) -> bool:
    if not any(cell.strip() for row in other.cells for cell in row) or block.cells == other.cells:
        return False
    words, other_words = _words(block), _words(other)
    shorter = min(len(words), len(other_words))
    return shorter < 3 or len(words & other_words) >= _ALIGNED * shorter


def _show(report: MergeReport, before: Block, after: Block) -> None:
    if len(report.examples) < _EXAMPLES:
        report.examples.append((_excerpt(before), _excerpt(after)))


def _excerpt(block: Block) -> str:
    cells = " | ".join(" & ".join(row) for row in block.cells)
    return " ".join(part for part in (block.label or "", block.printed(), cells) if part)[:200]
