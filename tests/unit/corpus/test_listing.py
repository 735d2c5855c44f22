"""Sources are listed, sampled and cut before any paper is read."""

import hashlib
import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from baltoro.core.errors import InputError
from baltoro.core.storage import ObjectInfo, ObjectTable, Storage
from baltoro.corpus.config import SourceConfig, TrialConfig
from baltoro.corpus.listing import Chunk, SourceListing, chunk_listings, list_source, sample_listings


def objects(*sizes):
    return ObjectTable.collect(
        ObjectInfo(f"/p/{i:03}", f"{i:03}", size, f"e{i}") for i, size in enumerate(sizes)
    )


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
        ObjectTable.collect(ObjectInfo(f"s3://b/{o.key}", o.key, o.size_bytes, o.etag) for o in one.objects),
    )
    changed = SourceListing(
        one.source, ObjectTable.collect([one.objects[0], ObjectInfo("/p/001", "001", 2, "other")])
    )
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


def test_a_list_of_two_kinds_of_places_and_windows_lines_is_read_in_key_order(tmp_path, s3):
    (tmp_path / "b.md").write_text("b")
    Storage().write_bytes(f"{s3.uri}/a.md", b"a")
    (tmp_path / "list.txt").write_bytes(f"\ufeff{tmp_path}/b.md\r\n{s3.uri}/a.md\r\n".encode())
    source = SourceConfig(name="s", uri=str(tmp_path / "list.txt"), uri_list=True)
    listing = list_source(0, source, Storage())
    assert {entry.uri for entry in listing.objects} == {str(tmp_path / "b.md"), f"{s3.uri}/a.md"}
    keys = [entry.key for entry in listing.objects]
    assert keys == sorted(keys) == sorted([str(tmp_path / "b.md")[1:], f"{s3.bucket}/a.md"])


def test_a_list_that_is_not_text_is_refused_with_the_byte(tmp_path):
    (tmp_path / "a.md").write_text("a")
    (tmp_path / "list.txt").write_bytes(b"a.md\nb\xe9.md\n")
    source = SourceConfig(name="s", uri=str(tmp_path / "list.txt"), uri_list=True)
    with pytest.raises(InputError, match=r"list\.txt: byte 6 is not UTF-8; save the list as UTF-8"):
        list_source(0, source, Storage())


@given(st.lists(st.integers(0, 100), min_size=1, max_size=60), st.integers(1, 7), st.integers(1, 200))
def test_chunks_are_cut_as_if_objects_were_added_one_by_one(sizes, most, most_bytes):
    listing = SourceListing(SourceConfig(name="s", uri="/p"), objects(*sizes))
    expected, pending = [], []
    for size in sizes:
        if pending and (len(pending) == most or sum(pending) + size > most_bytes):
            expected.append(len(pending))
            pending = []
        pending.append(size)
    expected.append(len(pending))
    chunks = list(chunk_listings([listing, listing], objects_per_task=most, bytes_per_task=most_bytes))
    assert [len(chunk.objects) for chunk in chunks] == expected * 2
    firsts = [0, *itertools.accumulate(len(chunk.objects) for chunk in chunks)][:-1]
    assert [chunk.first_object for chunk in chunks] == firsts
    assert [chunk.source_index for chunk in chunks] == [0] * len(expected) + [1] * len(expected)


def test_a_trial_chooses_the_files_of_the_smallest_hashes(listings):
    """The files of a trial name artifacts that exist, so the choice must stay as it was."""
    places = {
        entry.key: hashlib.blake2b(f"3\0s/{entry.key}".encode(), digest_size=8).digest()
        for entry in listings[0].objects
    }
    chosen = keys_of(sample_listings(listings, TrialConfig(limit=9, seed=3)))
    assert chosen == set(sorted(places, key=places.__getitem__)[:9])
    below = {key for key, place in places.items() if int.from_bytes(place, "big") < int(0.3 * 2**64)}
    assert keys_of(sample_listings(listings, TrialConfig(fraction=0.3, seed=3))) == below


def test_a_task_carries_its_own_objects_only():
    import pickle

    table = ObjectTable.collect(
        ObjectInfo(f"/papers/{i:05}.md", f"{i:05}.md", 1, "e" * 32) for i in range(20_000)
    )
    listing = SourceListing(SourceConfig(name="s", uri="/papers"), table)
    chunks = list(chunk_listings([listing], objects_per_task=64, bytes_per_task=10**9))
    pickled = pickle.dumps(chunks[-1])
    assert len(pickled) < 8000
    assert pickle.loads(pickled) == Chunk(len(chunks) - 1, 0, table[-32:], 20_000 - 32)
    assert np.array_equal(pickle.loads(pickled).objects.sizes(), [1] * 32)
