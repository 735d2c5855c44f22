"""The corpus steps as plain functions."""

import itertools

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from baltoro.core.errors import ArtifactError, ConfigError, InputError
from baltoro.core.storage import ChangedError, ObjectInfo, Storage
from baltoro.corpus.config import CorpusConfig, SourceConfig, SplitConfig, TrialConfig
from baltoro.corpus.decontamination.config import DecontaminateConfig
from baltoro.corpus.decontamination.items import EvaluationItem
from baltoro.corpus.decontamination.matcher import ItemIndex
from baltoro.corpus.dedup.exact import content_hash
from baltoro.corpus.documents import judge_paper, process_chunk
from baltoro.corpus.filters import FilterConfig
from baltoro.corpus.listing import Chunk, SourceListing, chunk_listings, list_source, sample_listings
from baltoro.corpus.splits import split_of
from baltoro.papers.schema import Block, Inline, Paper, Section

BODY = (
    "The ice moves over its bed at a rate that the water pressure beneath it decides. In summer, when melt "
    "reaches the bed through moulins, the sliding speed doubles within hours and then falls as channels "
    "grow. We measured both quantities for three years at four boreholes, and compared them with a model of "
    "the drainage system. Speeds agree within the error of the receivers, except during two floods in late "
    "autumn, for which the model has no cause. Sediment under the tongue may have failed at that time."
)


def paper(text=BODY, **fields):
    return Paper(
        paper_id="s/a",
        uri="/x/a",
        title="Ice",
        sections=[Section(1, "Results", blocks=[Block("paragraph", [Inline("text", text)])])],
        **fields,
    )


def corpus(**settings):
    return CorpusConfig(sources=(SourceConfig(name="s", uri="/x", style="plain"),), **settings)


def test_document_carries_text_hash_and_metadata():
    row = judge_paper(paper(year=2001, doi="10.1/x"), 7, "plain", corpus()).document
    assert row["characters"] == len(row["text"])
    assert row["content_hash"] == content_hash(row["text"])
    assert (row["number"], row["year"], row["doi"], row["style"]) == (7, 2001, "10.1/x", "plain")
    assert (row["language"], row["declared_language"]) == ("en", None)


@pytest.mark.parametrize(
    ("filters", "reason", "detail"),
    [
        (FilterConfig(min_characters=5000), "too_short", "5000"),
        (FilterConfig(max_characters=300), "too_long", "300"),
    ],
)
def test_length_filter_says_what_was_found_and_wanted(filters, reason, detail):
    judged = judge_paper(paper(), 0, "plain", corpus(filters=filters))
    assert judged.document is None
    assert (judged.reject.stage, judged.reject.reason) == ("filter", reason)
    assert detail in judged.reject.detail


ITEM = "Which of these rocks forms where basalt magma cools slowly far below the surface of the crust?"


@pytest.mark.parametrize(
    ("action", "dropped", "note"),
    [("drop", True, None), ("cut", False, "cut: "), ("report", False, "reported: ")],
)
def test_an_evaluation_item_is_dropped_cut_or_reported_as_the_recipe_says(action, dropped, note):
    leaky = paper()
    leaky.sections[0].blocks.append(Block("paragraph", [Inline("text", ITEM)]))
    index = ItemIndex.build([EvaluationItem("geo", "1", ITEM, "question", ("gabbro", "tuff", "shale"))])
    config = corpus(decontaminate=DecontaminateConfig(action=action))
    judged = judge_paper(leaky, 0, "plain", config, index)
    if dropped:
        assert (judged.reject.stage, judged.reject.reason) == ("decontaminate", "contaminated")
        assert "geo" in judged.reject.detail
    else:
        assert judged.document["contaminated"].startswith(note)
        assert (ITEM in judged.document["text"]) is (action == "report")
        assert judged.document["content_hash"] == content_hash(judged.document["text"])
    assert judge_paper(paper(), 0, "plain", config, index).document["contaminated"] is None


def test_filter_range_that_lets_nothing_pass_is_refused():
    with pytest.raises(ValueError, match="no document could pass"):
        FilterConfig(min_characters=500, max_characters=400)


def test_sources_of_one_name_are_refused():
    with pytest.raises(ValueError, match="the name 'a' stands twice"):
        CorpusConfig(sources=(SourceConfig(name="a", uri="x"), SourceConfig(name="a", uri="y")))


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


@pytest.fixture
def listings(tmp_path):
    for name in range(40):
        (tmp_path / f"{name:02d}.md").write_text(f"# Paper {name}\n")
    return [list_source(0, SourceConfig(name="s", uri=str(tmp_path)), Storage())]


def keys_of(listings):
    return {entry.key for listing in listings for entry in listing.objects}


def test_a_trial_of_more_files_holds_those_of_a_smaller_one(listings):
    assert sample_listings(listings, TrialConfig()) == listings
    chosen = [keys_of(sample_listings(listings, TrialConfig(limit=limit))) for limit in (1, 7, 39, 40, 99)]
    assert [len(keys) for keys in chosen] == [1, 7, 39, 40, 40]
    assert all(smaller <= larger for smaller, larger in itertools.pairwise(chosen))
    part = keys_of(sample_listings(listings, TrialConfig(fraction=0.5)))
    assert 10 <= len(part) <= 30
    assert part != keys_of(sample_listings(listings, TrialConfig(fraction=0.5, seed=1)))
    assert len(keys_of(sample_listings(listings, TrialConfig(fraction=0.5, limit=3)))) == 3
    with pytest.raises(InputError, match=r"corpus.trial.fraction: 1e-09 chooses none of 40 files"):
        sample_listings(listings, TrialConfig(fraction=1e-9))


def named_by(tmp_path, text):
    (tmp_path / "list.txt").write_text(text)
    return list_source(0, SourceConfig(name="s", uri=str(tmp_path / "list.txt"), uri_list=True), Storage())


def test_a_list_names_the_files_of_a_source(tmp_path):
    for name in ("b.md", "a.md", "sub/c.md"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(name)
    listing = named_by(tmp_path, f"# mine\nb.md\n\n{tmp_path}/sub/c.md\n")
    assert [entry.uri for entry in listing.objects] == [str(tmp_path / "b.md"), str(tmp_path / "sub/c.md")]
    assert all(entry.key == entry.uri.lstrip("/") for entry in listing.objects)
    assert listing.objects[0].etag == Storage().stat(str(tmp_path / "b.md")).etag


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("# nothing\n", "names no file; write one path or URI a line"),
        ("a.md\nnowhere.md\n", r"line 2: .*nowhere\.md does not exist or is a folder; correct the line"),
        ("a.md\n./a.md\n", r"line 2 names \./a\.md again \(line 1\); remove one"),
    ],
)
def test_a_list_that_names_nothing_something_missing_or_twice_is_refused(tmp_path, text, complaint):
    (tmp_path / "a.md").write_text("a")
    with pytest.raises(InputError, match=rf"corpus.sources.0.uri: .*list\.txt: {complaint}"):
        named_by(tmp_path, text)


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
    from baltoro.corpus.dedup.records import DUPLICATE_SCHEMA
    from baltoro.corpus.pipeline import RECORD_SCHEMA, CorpusSummary, balance

    records = pa.Table.from_pylist(
        [
            {"number": 0, "paper_id": "s/a", "characters": 5, "content_hash": "h"},
            {"number": 1, "paper_id": "s/b", "characters": 5, "content_hash": "h"},
            {"number": 2, "paper_id": "s/c", "reason": "too_short", "stage": "filter"},
        ],
        schema=RECORD_SCHEMA,
    )
    duplicates = pa.Table.from_pylist([{"paper_id": "s/b", "kind": "exact"}], schema=DUPLICATE_SCHEMA)
    summary = CorpusSummary(kept=1)
    balance(summary, records, duplicates)
    assert (summary.papers_read, summary.rejected) == (3, {"too_short": 1})
    assert summary.duplicates == {"exact": 1, "version": 0, "near": 0}
    with pytest.raises(ArtifactError, match="3 records read, 0 kept"):
        balance(CorpusSummary(kept=0), records, duplicates)
