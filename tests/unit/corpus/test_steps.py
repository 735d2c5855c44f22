"""The corpus steps as plain functions."""

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from baltoro.core.errors import ArtifactError, ConfigError, InputError
from baltoro.core.storage import ChangedError, ObjectInfo, Storage
from baltoro.corpus.clean import clean_paper, remove_invisible
from baltoro.corpus.config import CleanConfig, CorpusConfig, FilterConfig, SourceConfig, SplitConfig
from baltoro.corpus.documents import make_document, process_chunk
from baltoro.corpus.exact_dedup import content_hash, find_exact_duplicates
from baltoro.corpus.listing import Chunk, SourceListing, chunk_listings, list_source
from baltoro.corpus.splits import split_of
from baltoro.papers.schema import Block, Inline, Paper, Reject, Section

BODY = "Basalt cools slowly under the ice sheet. " * 20


def paper(text=BODY, **fields):
    return Paper(
        paper_id="s/a",
        uri="/x/a",
        title="Ice",
        sections=[Section(1, "Results", blocks=[Block("paragraph", [Inline("text", text)])])],
        **fields,
    )


def test_invisible_characters_vanish_and_line_separators_stay_breaks():
    assert remove_invisible("a\u200bb\u00adc\x00d\u2028e\tf\ng") == "abcd\ne\tf\ng"


@given(st.text())
def test_cleaning_is_idempotent_and_keeps_every_visible_character(text):
    once = remove_invisible(text)
    assert remove_invisible(once) == once
    visible = [c for c in text if c.isalnum()]
    assert [c for c in once if c.isalnum()] == visible


def test_blocks_without_text_are_removed_but_headings_that_name_subsections_stay():
    given_paper = paper()
    given_paper.sections = [
        Section(1, "Methods"),
        Section(
            2,
            "Drilling",
            blocks=[
                Block("paragraph", [Inline("text", " \u200b")]),
                Block("paragraph", [Inline("text", "x")]),
            ],
        ),
        Section(1, "", blocks=[Block("paragraph", [])]),
    ]
    cleaned = clean_paper(given_paper, CleanConfig())
    assert [(s.heading, len(s.blocks)) for s in cleaned.sections] == [("Methods", 0), ("Drilling", 1)]


def test_a_table_that_has_only_cells_is_kept():
    given_paper = paper()
    given_paper.sections[0].blocks.append(Block("table", cells=[["a"], ["1"]]))
    assert [b.kind for b in clean_paper(given_paper, CleanConfig()).blocks()] == ["paragraph", "table"]


def test_document_carries_text_hash_and_metadata():
    row = make_document(paper(year=2001, doi="10.1/x"), "plain", FilterConfig())
    assert row["characters"] == len(row["text"])
    assert row["content_hash"] == content_hash(row["text"])
    assert (row["year"], row["doi"], row["style"]) == (2001, "10.1/x", "plain")


@pytest.mark.parametrize(
    ("filters", "reason", "detail"),
    [
        (FilterConfig(min_characters=5000), "too_short", "at least 5000 wanted"),
        (FilterConfig(max_characters=300), "too_long", "at most 300 wanted"),
    ],
)
def test_length_filter_says_what_was_found_and_wanted(filters, reason, detail):
    reject = make_document(paper(), "plain", filters)
    assert isinstance(reject, Reject)
    assert (reject.stage, reject.reason) == ("filter", reason)
    assert detail in reject.detail


def test_filter_range_that_lets_nothing_pass_is_refused():
    with pytest.raises(ValueError, match="no document could pass"):
        FilterConfig(min_characters=500, max_characters=400)


def test_sources_of_one_name_are_refused():
    with pytest.raises(ValueError, match="the name 'a' stands twice"):
        CorpusConfig(sources=(SourceConfig(name="a", uri="x"), SourceConfig(name="a", uri="y")))


@given(st.lists(st.tuples(st.integers(0, 50), st.integers(0, 5)), unique_by=lambda t: t[0]), st.randoms())
def test_exact_dedup_keeps_one_per_text_whatever_the_order(pairs, random):
    documents = [(f"id{n:02}", f"hash{h}") for n, h in pairs]
    shuffled = documents[:]
    random.shuffle(shuffled)
    replaced = find_exact_duplicates(shuffled)
    assert replaced == find_exact_duplicates(documents)
    kept = [d for d in documents if d[0] not in replaced]
    assert sorted({h for _, h in kept}) == sorted({h for _, h in documents})
    assert len(kept) == len({h for _, h in documents})
    assert all(keeper not in replaced for keeper in replaced.values())


def test_split_is_stable_and_close_to_its_fractions():
    config = SplitConfig(validation_fraction=0.1, test_fraction=0.05)
    drawn = [split_of(f"c{i}", config) for i in range(20_000)]
    assert drawn == [split_of(f"c{i}", config) for i in range(20_000)]
    assert abs(drawn.count("validation") / 20_000 - 0.1) < 0.01
    assert abs(drawn.count("test") / 20_000 - 0.05) < 0.01


def test_a_larger_fraction_keeps_what_was_already_held_out():
    small = SplitConfig(validation_fraction=0.1)
    large = SplitConfig(validation_fraction=0.2)
    for i in range(2000):
        if split_of(f"c{i}", small) == "validation":
            assert split_of(f"c{i}", large) == "validation"


def objects(*sizes):
    return tuple(ObjectInfo(f"/p/{i:03}", f"{i:03}", size, f"e{i}") for i, size in enumerate(sizes))


@given(st.lists(st.integers(0, 100), max_size=40), st.integers(1, 7), st.integers(1, 200))
def test_chunks_hold_every_object_once_in_order_within_both_limits(sizes, most, most_bytes):
    listing = SourceListing(SourceConfig(name="s", uri="/p"), objects(*sizes))
    chunks = list(chunk_listings([listing], objects_per_task=most, bytes_per_task=most_bytes))
    assert [o for c in chunks for o in c.objects] == list(listing.objects)
    assert [c.index for c in chunks] == list(range(len(chunks)))
    for chunk in chunks:
        assert 1 <= len(chunk.objects) <= most
        assert len(chunk.objects) == 1 or sum(o.size_bytes for o in chunk.objects) <= most_bytes


def test_listing_digest_notices_content_but_not_place():
    one = SourceListing(SourceConfig(name="s", uri="/p"), objects(1, 2))
    moved = SourceListing(
        SourceConfig(name="s", uri="s3://b"),
        tuple(ObjectInfo(f"s3://b/{o.key}", o.key, o.size_bytes, o.etag) for o in one.objects),
    )
    changed = SourceListing(one.source, (one.objects[0], ObjectInfo("/p/001", "001", 2, "other")))
    assert one.digest() == moved.digest() != changed.digest()


def test_empty_folder_is_refused_with_what_to_give(tmp_path):
    with pytest.raises(InputError, match=r"corpus.sources.0.uri: .* holds no files; give a folder"):
        list_source(0, SourceConfig(name="s", uri=str(tmp_path)), Storage())


def test_a_missing_folder_is_told_from_an_empty_one(tmp_path):
    with pytest.raises(InputError, match=r"corpus.sources.0.uri: .*nowhere does not exist; give a folder"):
        list_source(0, SourceConfig(name="s", uri=str(tmp_path / "nowhere")), Storage())


def test_what_begins_with_a_dot_and_the_storage_root_are_not_papers(tmp_path):
    for name in ("a.md", ".dot.md", ".git/b.md", "workspace/corpus/geo/1/part.md", "workspace-of-ours/c.md"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(f"# {name}\n")
    source = SourceConfig(name="s", uri=str(tmp_path))
    listing = list_source(0, source, Storage(), str(tmp_path / "workspace"))
    assert [entry.key for entry in listing.objects] == ["a.md", "workspace-of-ours/c.md"]
    inside = SourceConfig(name="s", uri=str(tmp_path / "workspace" / "corpus"))
    assert len(list_source(0, inside, Storage(), str(tmp_path / "workspace")).objects) == 1
    with pytest.raises(InputError, match=r"corpus.sources.0.uri: .* is storage.root itself"):
        list_source(0, source, Storage(), str(tmp_path))


def test_patterns_that_leave_nothing_are_refused(tmp_path):
    (tmp_path / "a.xml").write_text("<a/>")
    source = SourceConfig(name="s", uri=str(tmp_path), include=("*.mmd",))
    with pytest.raises(InputError, match=r"none of the 1 files .* include=\['\*.mmd'\]"):
        list_source(0, source, Storage())


def test_folder_of_pdfs_is_refused_with_the_commands_that_parse_them(tmp_path):
    for name in ("a.pdf", "b.pdf"):
        (tmp_path / name).write_bytes(b"%PDF-1.7\n")
    with pytest.raises(
        InputError, match=r"2 of 2 files are PDFs(.|\n)*grobid_client(.|\n)*nougat(.|\n)*docling"
    ):
        list_source(0, SourceConfig(name="s", uri=str(tmp_path)), Storage())


def test_every_object_of_a_chunk_becomes_a_document_or_a_reject(tmp_path):
    (tmp_path / "good.md").write_text(f"# Ice\n\n## Results\n\n{BODY}\n")
    (tmp_path / "short.md").write_text("# Ice\n\nToo little.\n")
    (tmp_path / "empty.xml").write_text("")
    (tmp_path / "truncated.xml").write_text("<article><front>")
    config = CorpusConfig(sources=(SourceConfig(name="s", uri=str(tmp_path), style="plain"),))
    listing = list_source(0, config.sources[0], Storage())
    outcome = process_chunk(Chunk(0, 0, listing.objects), config, Storage(), {})
    assert outcome.documents.column("paper_id").to_pylist() == ["s/good.md"]
    assert {r["paper_id"]: r["reason"] for r in outcome.rejects.to_pylist()} == {
        "s/empty.xml": "empty_file",
        "s/short.md": "too_short",
        "s/truncated.xml": "malformed_xml",
    }


def test_a_paper_that_was_replaced_after_the_listing_stops_the_build(tmp_path):
    (tmp_path / "good.md").write_text(f"# Ice\n\n## Results\n\n{BODY}\n")
    config = CorpusConfig(sources=(SourceConfig(name="s", uri=str(tmp_path)),))
    listing = list_source(0, config.sources[0], Storage())
    (tmp_path / "good.md").write_text(f"# Fire\n\n## Results\n\n{BODY}\n")
    with pytest.raises(ChangedError, match=r"good\.md was replaced since it was listed"):
        process_chunk(Chunk(0, 0, listing.objects), config, Storage(), {})


def test_unknown_style_never_reaches_a_build():
    from baltoro.papers.renderers import render

    with pytest.raises(ConfigError, match="k2"):
        render(paper(), "k3")


def test_accounting_that_does_not_balance_is_an_error():
    from baltoro.corpus.pipeline import RECORD_SCHEMA, select_documents, summarise

    config = CorpusConfig(sources=(SourceConfig(name="s", uri="/p"),))
    records = pa.Table.from_pylist(
        [
            {"chunk": 0, "row": 0, "paper_id": "s/a", "characters": 5, "content_hash": "h"},
            {"chunk": 0, "row": 1, "paper_id": "s/b", "characters": 5, "content_hash": "h"},
            {"chunk": 0, "paper_id": "s/c", "reason": "too_short", "stage": "filter"},
        ],
        schema=RECORD_SCHEMA,
    )
    selection = select_documents(records, config)
    summary = summarise(records, selection, 5)
    assert (summary.papers_read, summary.kept) == (3, 1)
    assert (summary.rejected, summary.duplicates["exact"]) == ({"too_short": 1}, 1)
    selection.splits.clear()
    with pytest.raises(ArtifactError, match="3 records read, 0 kept"):
        summarise(records, selection, 5)
