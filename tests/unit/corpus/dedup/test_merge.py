"""A merged paper has the frame of GROBID and the formulas and tables of Nougat, and nothing is misplaced."""

import copy
import random
from collections import Counter
from dataclasses import replace

import pytest

from baltoro.corpus.dedup.merge import choose_parses, merge_parses
from baltoro.papers.schema import Block, Inline, Paper, Reference, Section

FIRST = (
    "Meltwater leaves the glacier through channels whose discharge follows the energy balance of the surface"
)
SECOND = "where the density of ice and the latent heat of fusion are taken as constant over the whole season"
THIRD = "The model was run for every summer between the first survey and the last flight over the valley"


def text(words, *inlines):
    return Block("paragraph", [Inline("text", words), *inlines])


def formula(content, *, label=None, ref_id=None, tex=False):
    return Block("formula", [Inline("formula", content, "tex" if tex else None)], label=label, ref_id=ref_id)


def tei(*blocks, heading="METHODS", **fields):
    return Paper(
        **{
            "paper_id": "s/a.tei.xml", "format": "grobid_tei", "title": "Melt", "authors": ["Ann Lee"],
            "sections": [Section(1, heading, "2", blocks=list(blocks))],
            "references": [Reference("b0", "Ice")],
            **fields,
        }
    )  # fmt: skip


def nougat(*blocks, heading="2 Methods", **fields):
    return Paper(
        **{
            "paper_id": "s/a.mmd", "format": "nougat", "title": "Melt", "year": 2020,
            "sections": [Section(2, heading, blocks=list(blocks))],
            **fields,
        }
    )  # fmt: skip


def printed(paper):
    return [block.printed() for block in paper.blocks()]


def test_a_displayed_formula_is_taken_between_aligned_paragraphs():
    base = tei(text(FIRST), formula("Q =ρ L Ṁ", label="(1)", ref_id="formula_0"), text(SECOND))
    donor = nougat(text(FIRST), formula(r"Q=\rho L\dot{M}", tex=True), text(SECOND + " and more"))
    merged, report = merge_parses(base, donor)
    assert printed(merged) == [FIRST, r"Q=\rho L\dot{M}", SECOND]
    taken = merged.sections[0].blocks[1]
    assert (taken.label, taken.ref_id, taken.inlines[0].target) == ("(1)", "formula_0", "tex")
    assert report.counts["display_formulas_taken"] == 1
    assert report.counts["sections_aligned"] == 1
    assert report.examples == [("(1) Q =ρ L Ṁ", r"(1) Q=\rho L\dot{M}")]


def test_both_parses_stay_as_they_are():
    base = tei(text(FIRST), formula("Q =ρ"), text(SECOND))
    donor = nougat(text(FIRST), formula("Q", tex=True), text(SECOND))
    before = copy.deepcopy((base, donor))
    merged, _ = merge_parses(base, donor)
    merged.sections[0].blocks.clear()
    assert (base, donor) == before


@pytest.mark.parametrize(
    "others",
    [
        [text(FIRST), formula("Q", tex=True), formula("R", tex=True), text(SECOND)],
        [text(FIRST), formula("Q", tex=True), text("Something that only this parser saw here"), text(SECOND)],
        [text(FIRST), text(SECOND), formula("Q", tex=True)],
        [text(FIRST), formula("Q", tex=True, label="(2)"), text(SECOND)],
        [text(FIRST), formula(" ", tex=True), text(SECOND)],
    ],
    ids=["another number", "text between", "another place", "another label", "empty"],
)
def test_what_does_not_align_stays(others):
    base = tei(text(FIRST), formula("Q =ρ", label="(1)"), text(SECOND))
    merged, report = merge_parses(base, nougat(*others))
    assert merged.sections == base.sections
    assert report.counts["display_formulas_kept"] == 1


def test_formulas_with_the_same_numbers_may_be_cut_differently():
    base = tei(
        text(FIRST),
        formula("a =", label=None),
        formula("b + c", label="(1)", ref_id="f1"),
        formula("d", label="(2)", ref_id="f2"),
        text(SECOND),
    )
    donor = nougat(
        text(FIRST),
        formula("a=b+c", tex=True, label="(1)"),
        formula("d", tex=True, label="(2)"),
        text(SECOND),
    )
    merged, _ = merge_parses(base, donor)
    assert printed(merged) == [FIRST, "a=b+c", "d", SECOND]
    assert [block.ref_id for block in merged.blocks()] == [None, "f1", "f2", None]


def test_a_paragraph_with_inline_formulas_is_taken_with_our_citations():
    base = tei(
        text(f"{FIRST} Q i ", Inline("citation", "[3]", "b0"), Inline("text", f". {SECOND}")),
    )
    donor = nougat(
        text(f"{FIRST} ", Inline("formula", "Q_i", "tex"), Inline("text", " "), Inline("citation", "[3]"),
             Inline("text", f". {SECOND}")),
    )  # fmt: skip
    merged, report = merge_parses(base, donor)
    kinds = [(i.kind, i.text, i.target) for i in merged.sections[0].blocks[0].inlines if i.kind != "text"]
    assert kinds == [("formula", "Q_i", "tex"), ("citation", "[3]", "b0")]
    assert report.counts["inline_formulas_taken"] == 1


@pytest.mark.parametrize(
    "tail",
    [
        [Inline("text", f". {SECOND}")],
        [Inline("citation", "[4]"), Inline("text", f". {SECOND}")],
        [
            Inline("citation", "[3]"),
            Inline("text", " of quite another wording that was never printed there at all"),
        ],
    ],
    ids=["citation lost", "another citation", "other text"],
)
def test_a_paragraph_that_would_lose_a_citation_or_its_wording_stays(tail):
    base = tei(text(f"{FIRST} Q ", Inline("citation", "[3]", "b0"), Inline("text", f". {SECOND}")))
    merged, _ = merge_parses(base, nougat(text(f"{FIRST} ", Inline("formula", "Q", "tex"), *tail)))
    assert merged.sections == base.sections


def table(label, caption, cells, ref_id=None):
    return Block("table", [Inline("text", caption)], cells=cells, label=label, ref_id=ref_id)


def test_cells_of_a_table_are_taken_by_label_and_caption():
    caption = "Discharge of the four largest streams in each summer"
    base = tei(
        text(FIRST),
        table("Table 1", caption, [["12 3 4"]], ref_id="tab_0"),
        table("Table 2", "Something else entirely", [["9"]]),
    )
    cells = [["year", "Q"], ["2001", "3.4"]]
    donor = nougat(
        text(FIRST),
        table("Table 1:", f"{caption}.", cells),
        table("Table 2", "Not of this at all, no", cells),
    )
    merged, report = merge_parses(base, donor)
    tables = [block for block in merged.blocks() if block.kind == "table"]
    assert [t.cells for t in tables] == [cells, [["9"]]]
    assert (tables[0].label, tables[0].ref_id, tables[0].printed()) == ("Table 1", "tab_0", caption)
    assert (report.counts["tables_taken"], report.counts["tables_kept"]) == (1, 1)


def test_missing_metadata_is_filled_and_present_metadata_stays():
    base = tei(text(FIRST), authors=[], year=None)
    donor = nougat(text(FIRST), title="melt (wrong)", authors=["A. Lee"], license="CC-BY-4.0")
    merged, report = merge_parses(base, donor)
    assert (merged.title, merged.authors, merged.year, merged.license) == (
        "Melt",
        ["A. Lee"],
        2020,
        "CC-BY-4.0",
    )
    assert report.fields == ("authors", "year", "license")
    assert (merged.paper_id, merged.format, report.donor) == ("s/a.tei.xml", "grobid_tei", "s/a.mmd")


def test_only_parses_with_the_right_roles_are_merged():
    def of(name, form):
        return Paper(paper_id=name, format=form)

    group = [of("a", "nougat"), of("b", "s2orc"), of("c", "grobid_tei"), of("d", "jats")]
    assert [p.paper_id for p in choose_parses(group, "c")] == ["c", "a"]
    assert [p.paper_id for p in choose_parses(group, "b")] == ["b", "a"]
    assert [p.paper_id for p in choose_parses(group, "a")] == ["c", "a"]
    assert choose_parses(group, "d") is None
    assert choose_parses(group[1:], "c") is None


# --- real papers -------------------------------------------------------------------------------------


def as_grobid(paper, rng):
    """A Nougat parse made into what GROBID would have given: broken formulas, tables as heaps at the end.

    Every block remembers its place in the source in ``ref_id``.
    """
    tables, sections, place = [], [], -1
    for section in paper.sections:
        blocks = []
        for block in section.blocks:
            place += 1
            new = replace(block, ref_id=str(place), inlines=[garbled(i, block, rng) for i in block.inlines])
            if block.kind == "table":
                tables.append(replace(new, cells=[[" ".join(cell for row in block.cells for cell in row)]]))
            elif block.kind != "paragraph" or rng.random() > 0.05:
                blocks.append(new)
        sections.append(replace(section, heading=section.heading.upper(), blocks=blocks))
    sections.append(Section(1, "", blocks=tables))
    return replace(paper, paper_id=f"{paper.paper_id}.tei", format="grobid_tei", sections=sections)


def garbled(inline, block, rng):
    if inline.kind != "formula":
        return replace(inline)
    glyphs = " ".join(rng.sample(inline.text, min(len(inline.text), 9)))
    return Inline("formula" if block.kind == "formula" else "text", glyphs)


def test_real_papers_get_their_formulas_back_and_only_where_they_were(real_papers):
    counts = Counter()
    for paper in [p for p, _ in real_papers if p.source == "nougat_openreview"][::3]:
        base = as_grobid(paper, random.Random(paper.paper_id))
        merged, report = merge_parses(base, paper)
        counts["displayed"] += sum(b.kind == "formula" for b in base.blocks())
        counts["inline"] += sum(
            i.kind == "formula" for b in paper.blocks() if b.kind != "formula" for i in b.inlines
        )
        counts["tables"] += sum(bool(b.cells) for b in base.blocks())
        counts["displayed taken"] += report.counts["display_formulas_taken"]
        counts["inline taken"] += report.counts["inline_formulas_taken"]
        counts["tables taken"] += report.counts["tables_taken"]
        original = list(paper.blocks())
        assert [s.heading for s in merged.sections] == [s.heading for s in base.sections]
        for old, new in zip(base.blocks(), merged.blocks(), strict=True):
            if new != old:
                counts["misplaced"] += new.printed() != original[int(old.ref_id)].printed()
    print(f"\n{dict(counts)}")
    assert counts["displayed taken"] > 0.85 * counts["displayed"]
    assert counts["inline taken"] > 0.8 * counts["inline"]
    assert counts["tables taken"] > 0.5 * counts["tables"]
    assert counts["misplaced"] == 0


def test_merging_a_paper_with_itself_or_an_unrelated_one_changes_nothing(real_papers):
    nougats = [paper for paper, _ in real_papers if paper.source == "nougat_openreview"]
    teis = [paper for paper, _ in real_papers if paper.format == "grobid_tei"]
    for paper in teis[:3]:
        assert merge_parses(paper, paper)[0] == paper
    for base, donor in zip(teis, nougats, strict=False):
        merged, report = merge_parses(base, donor)
        assert merged.sections == base.sections
        assert report.counts["display_formulas_taken"] == report.counts["tables_taken"] == 0
