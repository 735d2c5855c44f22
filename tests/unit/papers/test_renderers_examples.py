"""The example papers: what the README says of them is what happens, and all of them render."""

import re
from collections import Counter
from pathlib import Path

import pytest

from baltoro.papers import Paper, read
from baltoro.papers.config import MetadataTableConfig
from baltoro.papers.renderers import STYLES, render, special_tokens
from baltoro.papers.schema import UNKNOWN_LICENSE, Reject

EXAMPLES = Path(__file__).parents[3] / "examples"
BROKEN = {
    "broken-truncated.tei.xml": "malformed_xml",
    "broken-empty.mmd": "empty_file",
    "broken-unparsed.pdf": "not_parsed",
    "broken-encoding.md": "bad_encoding",
}
FORMATS = {
    "grobid_tei": 6,
    "jats": 5,
    "nougat": 5,
    "s2orc": 5,
    "science_parse": 1,
    "sciencebeam": 1,
    "docling_json": 1,
    "docling_markdown": 1,
    "markdown": 2,
    "plain_text": 1,
}


@pytest.fixture(scope="module")
def records() -> list[Paper | Reject]:
    folder = EXAMPLES / "papers"
    table = MetadataTableConfig(uri=str(folder / "metadata.csv"), key="stem")
    return list(read(str(folder), metadata=table))


@pytest.fixture(scope="module")
def papers(records: list[Paper | Reject]) -> list[Paper]:
    return [record for record in records if isinstance(record, Paper)]


def test_the_broken_files_and_only_they_are_rejected_for_the_reason_the_readme_gives(
    records: list[Paper | Reject],
) -> None:
    rejects = {
        record.paper_id.partition("/")[2]: record.reason for record in records if isinstance(record, Reject)
    }
    assert rejects == BROKEN
    readme = (EXAMPLES / "README.md").read_text(encoding="utf-8")
    for name, reason in BROKEN.items():
        assert re.search(rf"`{re.escape(name)}` .*`{reason}`", readme), name


def test_the_readme_names_every_file() -> None:
    readme = (EXAMPLES / "README.md").read_text(encoding="utf-8")
    unnamed = [path.name for path in (EXAMPLES / "papers").iterdir() if f"`{path.name}`" not in readme]
    assert unnamed == []


def test_every_format_is_there_and_told_from_its_content(papers: list[Paper]) -> None:
    assert Counter(paper.format for paper in papers) == FORMATS


def test_they_hold_enough_text_for_a_tiny_model_and_fit_into_the_wheel(papers: list[Paper]) -> None:
    texts = {render(paper, "plain") for paper in papers}
    assert sum(len(text.encode()) for text in texts) >= 110_000
    assert sum(path.stat().st_size for path in (EXAMPLES / "papers").iterdir()) < 400_000


def test_the_metadata_table_reaches_the_nougat_papers(papers: list[Paper]) -> None:
    nougat = {paper.paper_id.partition("/")[2]: paper for paper in papers if paper.format == "nougat"}
    assert all(paper.year and paper.venue and paper.doi for paper in nougat.values())
    unknown = [name for name, paper in nougat.items() if paper.license == UNKNOWN_LICENSE]
    assert unknown == ["tsunami-sands.mmd"]


def test_reviews_are_read_but_rendered_in_no_style(papers: list[Paper]) -> None:
    (paper,) = [paper for paper in papers if paper.reviews]
    assert [review.kind for review in paper.reviews] == ["reviewer-report", "reviewer-report", "reply"]
    for style in STYLES:
        assert "I recommend publication" not in render(paper, style)


@pytest.mark.parametrize("style", STYLES)
def test_every_example_renders_with_its_title_first_and_tokens_in_pairs(
    papers: list[Paper], style: str
) -> None:
    for paper in papers:
        rendered = render(paper, style)
        assert paper.title in rendered[: len(paper.title) + len("Title: \n")], paper.paper_id
        for token in special_tokens(style):
            if token.startswith("[START_"):
                assert rendered.count(token) == rendered.count(token.replace("START", "END")), paper.paper_id


def test_cited_titles_replace_the_marks_in_every_format_that_links_them(papers: list[Paper]) -> None:
    for paper in papers:
        if paper.references:
            rendered = render(paper, "k2")
            assert rendered.count("[START_REF]") >= len(paper.references), paper.paper_id
            assert "([START_REF]" not in rendered, paper.paper_id


def test_the_doubled_file_renders_the_same_text_twice(papers: list[Paper]) -> None:
    first, second = [paper for paper in papers if "granite-cooling" in paper.paper_id]
    assert render(first, "k2") == render(second, "k2")
