"""A build that merges the GROBID and the Nougat parse of one paper into one document."""

import pytest

from baltoro.corpus.dedup.config import DedupConfig
from baltoro.testing.collections import Plan, make_text
from baltoro.testing.papers import grobid_tei, nougat

FORMULA = r"Q=\rho L\dot{M}"


@pytest.fixture
def folder(tmp_path):
    """The same paper by two parsers, with a formula that only Nougat can print, and another paper."""
    found = tmp_path / "papers"
    found.mkdir()
    paper = make_text(Plan(papers=9, words=700, seed=7), 1)
    first = paper.sections[0][1][0]
    tei, mmd = grobid_tei(paper), nougat(paper)
    assert first in tei
    assert first in mmd
    tei = tei.replace(f"<p>{first}</p>", f"<p>{first}</p><formula>Q =ρ L Ṁ</formula>", 1)
    mmd = mmd.replace(first, f"{first}\n\n\\[{FORMULA}\\]", 1)
    (found / "0001.tei.xml").write_text(tei)
    (found / "0001.mmd").write_text(mmd)
    (found / "0002.mmd").write_text(nougat(make_text(Plan(papers=9, words=700, seed=8), 1)))
    return found


@pytest.mark.parametrize("objects_per_task", [1, 64])
def test_the_document_has_the_frame_of_one_and_the_formulas_of_the_other(
    build, folder, tmp_path, objects_per_task
):
    settings = {"objects_per_task": objects_per_task, "style": "k2"}
    plain = build(folder, tmp_path / "plain", **settings)
    merged = build(folder, tmp_path / "merged", dedup=DedupConfig(versions={"merge": True}), **settings)
    assert [plain.totals.merged, merged.totals.merged] == [0, 1]
    rows = {row["paper_id"]: row for row in merged.documents().to_pylist()}
    assert rows.keys() == {"s/0001.tei.xml", "s/0002.mmd"}
    kept = rows["s/0001.tei.xml"]
    assert FORMULA in kept["text"]
    assert "Ṁ" not in kept["text"]
    assert (kept["format"], kept["merged_from"]) == ("grobid_tei", "s/0001.tei.xml, s/0001.mmd")
    assert rows["s/0002.mmd"]["merged_from"] is None
    assert merged.table("duplicates.parquet").num_rows == 1
    merged.totals.figures.balance()


def test_without_the_option_nothing_is_merged(build, folder, tmp_path):
    made = build(folder, tmp_path / "plain", style="k2")
    assert made.totals.merged == 0
    assert made.table("duplicates.parquet").column("kind").to_pylist() == ["version"]
