"""What names a paper is recognised in every spelling, and what names many papers is not taken for a name."""

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from baltoro.corpus.dedup.config import DedupConfig, KeepConfig, NearDuplicateConfig, VersionConfig
from baltoro.corpus.dedup.versions import (
    KeyKind,
    article_class,
    first_surname,
    identifiers,
    is_published,
    keep_rank,
    missing_structure,
    paper_stem,
    specific_title,
    version_keys,
)
from baltoro.papers.schema import Block, Inline, Paper, Reference, Section

VERSIONS = DedupConfig(exact=False, near=NearDuplicateConfig(enabled=False))
TITLE = "Melt rates of debris-covered glaciers in the Karakoram"


@pytest.mark.parametrize(
    ("doi", "expected"),
    [
        ("https://doi.org/10.1371/Journal.PONE.0005723", "10.1371/journal.pone.0005723"),
        ("doi:10.1126/science.aax1234.", "10.1126/science.aax1234"),
        ("10.48550/arXiv.2401.00434v2", "10.48550/arxiv.2401.00434"),
        ("10.1101/2020.03.01.971234v3", "10.1101/2020.03.01.971234"),
        ("10.21203/rs.3.rs-123456/v1", "10.21203/rs.3.rs-123456"),
        ("10.20944/preprints202001.0001.v1", "10.20944/preprints202001.0001"),
        ("10.26434/chemrxiv-2021-abc12-v2", "10.26434/chemrxiv-2021-abc12"),
        ("10.12688/f1000research.12345.2", "10.12688/f1000research.12345"),
        ("10.7554/eLife.85678.3", "10.7554/elife.85678"),
        ("10.7554/eLife.00007", "10.7554/elife.00007"),
        ("10.1007/s00484-025-03008-0", "10.1007/s00484-025-03008-0"),
        ("10.1093/nar/gkv12", "10.1093/nar/gkv12"),
    ],
)
def test_a_doi_is_the_same_in_every_spelling_and_version(doi, expected):
    assert identifiers(Paper(doi=doi)) == [expected]


@pytest.mark.parametrize(
    "doi", ["10.1145/nnnnnnn.nnnnnnn", "10.1145/1122445.1122456", "10.1000/182", "n/a", ""]
)
def test_a_templates_doi_is_none(doi):
    assert identifiers(Paper(doi=doi)) == []


@pytest.mark.parametrize(
    ("paper_id", "extra", "expected"),
    [
        ("s/papers/2401.00434v2.tei.xml", {}, ["10.48550/arxiv.2401.00434"]),
        ("s/a.mmd", {"arxiv_id": "arXiv:2401.00434v1"}, ["10.48550/arxiv.2401.00434"]),
        ("s/a.mmd", {"arxiv_id": "hep-th/9901001v2"}, ["10.48550/arxiv.hep-th/9901001"]),
        ("s/1999.12345.mmd", {}, []),
        ("s/10.1186_s12984.mmd", {}, []),
    ],
)
def test_an_arxiv_identifier_counts_as_a_doi(paper_id, extra, expected):
    assert identifiers(Paper(paper_id=paper_id, extra=extra)) == expected


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("RESYN: Autonomously Scaling", "ReSyn – autonomously  scaling"),
        ("PROMPT-ING large models well", "Prompting Large Models, well"),
        ("Über die Größe der Gletscher", "Uber die Grosse der Gletscher"),
        ("Eﬃcient ﬂow of ice sheets", "Efficient flow of ice sheets"),
        ("青藏高原冰川退缩及其影响", "青藏高原 冰川退缩及其影响"),
    ],
)
def test_titles_agree_whatever_the_parser_made_of_them(one, other):
    assert specific_title(one, 20) == specific_title(other, 20) != ""


@pytest.mark.parametrize(
    "title",
    [
        "",
        "Introduction",
        "Editorial",
        "Letter to the Editor",
        "Author Response",
        "Supplementary Material 2",
        "Supporting Information",
        "Introduction to the special issue",
        "Book Reviews",
        "冰川",
        "研究背景与意义",
        "Microsoft Word - draft of the paper v7",
        "melt_rates_of_glaciers_final.docx",
        "https://doi.org/10.1000/a-long-enough-address",
        "Under review as a conference paper at ICLR 2024",
        "Supercalifragilisticexpialidocious",
        "1234 5678 9012 3456 7890 1234",
    ],
)
def test_a_title_of_many_papers_identifies_none(title):
    assert specific_title(title, 20) == ""


def test_parts_of_a_series_are_different_titles():
    assert specific_title("Geology of the Baltoro region, part 1", 20) != specific_title(
        "Geology of the Baltoro region, part 2", 20
    )


@pytest.mark.parametrize(
    ("authors", "surname"),
    [
        (["Michael N. Tennison", "A. Other"], "tennison"),
        (["Seok-Geun Oh"], "oh"),
        (["Sergi González-Herrero"], "gonzalezherrero"),
        (["Müller, Hans"], "muller"),
        (["Harrison, Jr."], "harrison"),
        (["Melissa Harrison Jnr"], "harrison"),
        (["John Smith, PhD"], "smith"),
        (["Smith AB"], "smith"),
        (["YUZHE WU"], "wu"),
        (["张三丰"], "张三丰"),
        (["Plato"], "plato"),
        ([], ""),
        (["", "—"], ""),
    ],
)
def test_the_first_surname_is_found_in_the_usual_orders(authors, surname):
    assert first_surname(authors) == surname


@pytest.mark.parametrize(
    ("paper_id", "stem"),
    [
        ("s/0001.tei.xml", "0001"),
        ("s/a/0001.grobid.tei.xml.gz", "0001"),
        ("s/0001.mmd", "0001"),
        ("s/0001/main.mmd", "0001"),
        ("s/0001/Full-Text/paper.json", "0001"),
        ("s/main.mmd", ""),
        ("s/all.jsonl#17", ""),
    ],
)
def test_the_stem_is_what_names_the_paper_in_its_path(paper_id, stem):
    assert paper_stem(paper_id) == stem


@pytest.mark.parametrize(
    ("article_type", "title", "expected"),
    [
        ("research-article", TITLE, "paper"),
        ("review-article", TITLE, "paper"),
        (None, TITLE, "paper"),
        ("correction", TITLE, "notice"),
        (None, "Retraction: " + TITLE, "notice"),
        (None, "Retracted article: " + TITLE, "notice"),
        ("book-review", TITLE, "review-of"),
        ("reply", TITLE, "comment"),
        (None, "Comment on " + TITLE, "comment"),
        (None, "Supplementary material for: " + TITLE, "supplement"),
        (None, "Corrections of gravity data near glaciers", "paper"),
        (None, "Response of glaciers to warming", "paper"),
    ],
)
def test_what_is_about_a_paper_is_not_the_paper(article_type, title, expected):
    assert article_class(Paper(article_type=article_type, title=title)) == expected


# --- documents that meet -----------------------------------------------------------------------------


def together(dedup, one, other, config=VERSIONS):
    return dedup([one, other], config).together(one[0].paper_id, other[0].paper_id)


def test_a_preprint_and_its_journal_article_are_one_paper_and_the_article_stays(dedup, paper, text):
    preprint = paper("pre.tei.xml", title=TITLE, authors=["Ann Lee"], doi="10.48550/arXiv.2401.00434v1")
    journal = paper(
        "z.xml", title=TITLE.upper(), authors=["A. Lee"], doi="10.1017/jog.2024.1",
        venue="Journal of Glaciology", format="jats",
    )  # fmt: skip
    outcome = dedup([(preprint, text(1, 2000)), (journal, text(2, 2000))], VERSIONS)
    assert outcome.dropped == {"s/pre.tei.xml": ("s/z.xml", "version")}


def test_another_first_author_is_another_paper(dedup, paper, text):
    one = paper("a.xml", title=TITLE, authors=["Ann Lee"])
    other = paper("b.xml", title=TITLE, authors=["Bo Chen"])
    assert not together(dedup, (one, text(1, 2000)), (other, text(2, 2000)))


def test_without_authors_the_title_counts_if_the_texts_are_similar(dedup, paper, text):
    one = (paper("a.tei.xml", title=TITLE, authors=["Ann Lee"]), text(1, 2000))
    same = (paper("b.mmd", title=TITLE), text(1, 2000)[:8000])
    other = (paper("b.mmd", title=TITLE), text(2, 2000))
    assert together(dedup, one, same)
    assert not together(dedup, one, other)


def test_a_correction_with_the_title_and_authors_of_its_paper_stays(dedup, paper, text):
    one = (paper("a.xml", title=TITLE, authors=["Ann Lee"], doi="10.1017/a"), text(1, 2000))
    notice = paper("b.xml", title=TITLE, authors=["Ann Lee"], doi="10.1017/b", article_type="correction")
    assert not together(dedup, one, (notice, text(2, 80)))


def test_a_doi_taken_from_the_reference_list_merges_nothing(dedup, paper, text):
    one = (paper("a.tei.xml", title=TITLE, doi="10.1038/nature1"), text(1, 2000))
    other = (
        paper("b.tei.xml", title="Another paper that cites it first of all", doi="10.1038/nature1"),
        text(2, 2000),
    )
    assert not together(dedup, one, other)
    trusting = DedupConfig(
        exact=False, versions=VersionConfig(min_containment=0), near=NearDuplicateConfig(enabled=False)
    )
    assert together(dedup, one, other, trusting)


def test_the_same_doi_with_the_same_title_or_text_is_one_paper(dedup, paper, text):
    one = (paper("a.tei.xml", title=TITLE, doi="10.1038/Nature1"), text(1, 2000))
    titled = (paper("b.xml", title=TITLE, doi="https://doi.org/10.1038/nature1", format="jats"), text(2, 60))
    untitled = (paper("c.mmd", doi="10.1038/nature1"), text(1, 2000)[:6000])
    assert together(dedup, one, titled)
    assert together(dedup, one, untitled)


def test_parses_of_one_pdf_meet_by_their_file_name(dedup, paper, text):
    tei = (paper("0001.tei.xml", format="grobid_tei"), text(1, 2000))
    nougat = (paper("0001.mmd", format="nougat", source="t"), text(1, 2000)[: 12 * 500])
    assert together(dedup, tei, nougat)


def test_the_same_file_name_in_unrelated_folders_merges_nothing(dedup, paper, text):
    tei = (paper("x/paper1.tei.xml", format="grobid_tei"), text(1, 2000))
    other = (paper("y/paper1.mmd", format="nougat"), text(2, 2000))
    assert not together(dedup, tei, other)


def test_the_same_file_name_in_one_format_merges_nothing(dedup, paper, text):
    one = (paper("x/paper1.mmd", format="nougat"), text(1, 2000))
    other = (paper("y/paper1.mmd", format="nougat"), text(1, 2000)[:8000])
    assert not together(dedup, one, other)


def test_a_metadata_column_names_versions(dedup, paper, text):
    config = DedupConfig(exact=False, versions=VersionConfig(metadata_key="forum"))
    one = (paper("a.mmd", extra={"forum": "f1"}), text(1, 2000))
    other = (paper("b.mmd", extra={"forum": "f1"}), text(2, 2000))
    third = (paper("c.mmd", extra={"forum": "f2"}), text(3, 2000))
    outcome = dedup([one, other, third], config)
    assert outcome.clusters == [{"s/a.mmd", "s/b.mmd"}]


def test_a_row_of_a_metadata_table_is_one_paper_within_its_source_only(dedup, paper, text):
    config = DedupConfig(exact=False, versions=VersionConfig(metadata_key="metadata_row"))
    rows = {"metadata_row": "7"}
    one, other = paper("a", extra=rows), paper("b", extra=rows)
    elsewhere = paper("a", extra=rows, source="t")
    outcome = dedup([(one, text(1, 900)), (other, text(2, 900)), (elsewhere, text(3, 900))], config)
    assert outcome.clusters == [{"s/a", "s/b"}]


def test_a_column_that_says_the_same_of_everything_names_nothing(dedup, paper, text):
    config = DedupConfig(exact=False, versions=VersionConfig(metadata_key="forum"))
    papers = [(paper(f"{n:03}", extra={"forum": "n/a"}), text(n, 300)) for n in range(40)]
    assert dedup(papers, config).clusters == []


def test_every_switch_takes_its_keys_away():
    one = Paper(
        paper_id="s/0001.mmd", title=TITLE, authors=["Ann Lee"], doi="10.1038/n1", extra={"forum": "f"}
    )

    def kinds(**settings):
        return {key.kind for key in version_keys(one, VersionConfig(**settings))}

    everything = {KeyKind.METADATA, KeyKind.TITLE_AUTHOR, KeyKind.DOI, KeyKind.STEM, KeyKind.TITLE}
    assert kinds(metadata_key="forum") == everything
    assert kinds() == everything - {KeyKind.METADATA}
    assert kinds(doi=False) == {KeyKind.TITLE_AUTHOR, KeyKind.TITLE, KeyKind.STEM}
    assert kinds(title_and_first_author=False) == {KeyKind.DOI, KeyKind.STEM}
    assert kinds(file_stem=False) == {KeyKind.TITLE_AUTHOR, KeyKind.TITLE, KeyKind.DOI}
    assert kinds(enabled=False) == set()


# --- which copy stays --------------------------------------------------------------------------------


def full(**fields):
    blocks = [
        Block(
            "paragraph",
            [Inline("text", "x "), Inline("citation", "[1]", "b1"), Inline("formula", "a", "tex")],
        ),
        Block("table", [Inline("text", "Rates")], cells=[["a"]]),
    ]
    return Paper(
        **{
            "paper_id": "s/a", "format": "grobid_tei", "title": TITLE, "authors": ["Ann Lee"],
            "abstract": [Block("paragraph", [Inline("text", "y")])],
            "sections": [Section(1, name, blocks=blocks) for name in ("A", "B", "C")],
            "references": [Reference("b1")],
            **fields,
        }
    )  # fmt: skip


def better(one, other, *, lengths=(9000, 9000), config=None):
    config = config or KeepConfig()
    ranks = [keep_rank(p, n, config).packed(config) for p, n in zip((one, other), lengths, strict=True)]
    assert all(1 <= rank < 2**63 for rank in ranks)
    return ranks[0] < ranks[1]


def test_a_parse_with_everything_lacks_nothing():
    assert missing_structure(full()) == []
    assert missing_structure(Paper()) == [
        "title", "abstract", "authors", "headings", "references", "linked citations", "formulas",
        "table cells", "captions",
    ]  # fmt: skip


def test_the_rule_decides_in_its_order():
    plain = full()
    assert better(plain, full(venue="Nature"), lengths=(4000, 3999))
    assert better(full(venue="Nature"), plain, lengths=(5000, 90_000))
    assert better(full(venue="Nature", doi="10.1038/x"), full(venue="arXiv", doi="10.48550/arXiv.1"))
    assert better(plain, full(references=[]))
    assert better(full(format="s2orc"), full(format="jats", abstract=[]))
    assert better(full(format="jats"), full(format="nougat"), lengths=(9000, 20_000))
    assert better(plain, full(format="something new"))
    assert better(plain, full(), lengths=(9001, 9000))
    assert not better(plain, full())


def test_the_order_of_the_rule_is_a_choice():
    config = KeepConfig(order=("newest", "length"))
    assert better(full(year=2021), full(year=2019, venue="Nature"), lengths=(5, 9000), config=config)
    assert better(full(year=2021), full(year=None), config=config)
    assert better(full(year=2021, format="plain_text"), full(year=2021), lengths=(6, 5), config=config)


@pytest.mark.parametrize(
    ("fields", "published"),
    [
        ({"venue": "PLOS ONE"}, True),
        ({"doi": "10.1038/nature1"}, True),
        ({}, False),
        ({"venue": "bioRxiv", "doi": "10.1101/2020.01.01.123456"}, False),
        ({"doi": "10.1101/gr.123456.111"}, True),
        ({"venue": "Research Square"}, False),
        ({"venue": "Nature", "article_type": "preprint"}, False),
    ],
)
def test_preprint_servers_do_not_publish(fields, published):
    assert is_published(Paper(**fields)) is published


@given(
    st.integers(0, 10**7),
    st.integers(0, 10**7),
    st.integers(0, 3000),
    st.sampled_from(["jats", "nougat", "x"]),
)
def test_ranks_are_a_total_order_that_the_longer_text_wins_last(one, other, year, name):
    paper = full(year=year, format=name)
    config = KeepConfig(full_text_characters=1)
    first, second = (keep_rank(paper, n + 1, config) for n in (one, other))
    assert (first.packed(config) < second.packed(config)) == (one > other)
    assert (first == second) == (one == other)


def test_no_two_of_the_real_papers_share_a_name(real_papers):
    seen = {}
    for paper, _ in real_papers:
        for key in version_keys(paper, VersionConfig()):
            seen.setdefault(key, set()).add(paper.paper_id.split("/")[-1].split(".")[0])
    assert {tuple(names) for names in seen.values() if len(names) > 1} == set()
    named = [
        paper
        for paper, _ in real_papers
        if any(k.kind == KeyKind.TITLE for k in version_keys(paper, VersionConfig()))
    ]
    assert len(named) > 0.95 * len(real_papers)


def test_keys_do_not_depend_on_where_a_paper_was_read_from():
    one = Paper(paper_id="s/0001.mmd", source="s", title=TITLE, authors=["Ann Lee"], doi="10.1038/n1")
    other = replace(one, paper_id="t/deep/folder/0001.json", source="t", uri="s3://b/0001.json", etag="e")
    assert version_keys(one, VersionConfig()) == version_keys(other, VersionConfig())
