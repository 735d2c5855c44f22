"""Object descriptions in columns say the same as a tuple of them would."""

import pickle

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from baltoro.core.storage import ObjectInfo, digest_of
from baltoro.core.storage.objects import OBJECT_SCHEMA, ObjectTable, difference

KEYS = st.text(st.characters(exclude_categories=("Cs",), exclude_characters="\0"), min_size=1, max_size=12)
PLACES = st.sampled_from(["/papers/{}", "s3://bucket/{}", "/elsewhere/{}", "{}/as/another"])


@st.composite
def listings(draw, places=PLACES):
    keys = draw(st.lists(KEYS, unique=True, max_size=12))
    return tuple(
        ObjectInfo(
            draw(places).format(key), key, draw(st.integers(0, 2**40)), draw(st.text("0123456789abcdef-"))
        )
        for key in keys
    )


@pytest.fixture(autouse=True, params=[3, 16_384])
def batch_rows(request, monkeypatch):
    """Seams between batches are met also by small tables."""
    monkeypatch.setattr("baltoro.core.storage.objects._BATCH_ROWS", request.param)


@pytest.mark.parametrize("places", [PLACES, st.just("/one/place/{}")])
@given(data=st.data())
def test_a_table_is_the_tuple_it_was_made_of(places, data):
    entries = data.draw(listings(places))
    table = ObjectTable.collect(iter(entries))
    assert tuple(table) == entries
    assert len(table) == len(entries)
    assert [table[place] for place in range(-len(entries), len(entries))] == [*entries, *entries]
    assert table.digest() == digest_of(entries)
    assert table.size_bytes == sum(entry.size_bytes for entry in entries)
    assert list(table.iterate_keys()) == [entry.key for entry in entries]
    in_order = sorted(entries, key=lambda entry: entry.key)
    assert list(table.sorted_by_key()) == in_order
    assert in_order == sorted(entries, key=lambda entry: entry.key.encode())
    start, stop = sorted(data.draw(st.tuples(st.integers(-15, 15), st.integers(-15, 15))))
    step = data.draw(st.sampled_from([1, 2, -1]))
    part = table[start:stop:step]
    assert tuple(part) == entries[start:stop:step]
    for same in (
        pickle.loads(pickle.dumps(part)),
        ObjectTable.from_table(part.to_table()),
        ObjectTable.collect(part),
    ):
        assert same == part
        assert hash(same) == hash(part)
        assert same.digest() == digest_of(entries[start:stop:step])
    assert part.to_table().schema == OBJECT_SCHEMA


def test_tables_differ_by_each_field():
    entry = ObjectInfo("/p/a", "a", 1, "e")
    table = ObjectTable.collect([entry])
    for other in (
        ObjectInfo("/q/a", "a", 1, "e"),
        ObjectInfo("/p/b", "b", 1, "e"),
        ObjectInfo("/p/a", "a", 2, "e"),
        ObjectInfo("/p/a", "a", 1, "f"),
    ):
        assert table != ObjectTable.collect([other])
    assert table != ObjectTable.collect([entry, entry])
    assert table != (entry,)
    assert ObjectTable.collect() == ObjectTable.collect([entry])[:0]


def test_an_object_outside_is_an_index_error():
    table = ObjectTable.collect([ObjectInfo("/p/a", "a", 1, "e")])
    for place in (1, -2):
        with pytest.raises(IndexError, match="no object"):
            table[place]


def test_a_repeated_key_is_found():
    table = ObjectTable.collect(ObjectInfo(f"/{n}/k", key, n, "") for n, key in enumerate("cabcd"))
    assert table.sorted_by_key().repeated_key() == "c"
    assert table[1:].sorted_by_key().repeated_key() is None
    assert ObjectTable.collect().repeated_key() is None


def test_a_slice_is_pickled_alone_and_objects_take_little_memory():
    many = 20_000
    table = ObjectTable.collect(
        ObjectInfo(f"s3://bucket/a/long/prefix/{i:08}.xml", f"{i:08}.xml", i, f"{i:032x}")
        for i in range(many)
    )
    assert table.memory_bytes() < 75 * many
    assert len(pickle.dumps(table[500:564])) < 6000
    assert tuple(pickle.loads(pickle.dumps(table[500:501]))) == (table[500],)


@given(listings(), listings(), st.data())
def test_a_difference_is_that_of_dictionaries(first, second, data):
    # Some objects stay, some get another content.
    kept = [
        data.draw(
            st.sampled_from([entry, ObjectInfo(f"/new/{entry.key}", entry.key, entry.size_bytes, "other")])
        )
        for entry in first
        if data.draw(st.booleans())
    ]
    known = {entry.key: (entry.size_bytes, entry.etag) for entry in first}
    new = [*kept, *(entry for entry in second if entry.key not in known)]
    found = difference(ObjectTable.collect(first).to_table(), ObjectTable.collect(new))
    fate = [
        "new"
        if entry.key not in known
        else ("same" if known[entry.key] == (entry.size_bytes, entry.etag) else "changed")
        for entry in new
    ]
    assert list(found.to_read) == [entry for entry, what in zip(new, fate, strict=True) if what != "same"]
    assert (found.new, found.changed, found.unchanged) == tuple(
        fate.count(what) for what in ("new", "changed", "same")
    )
    assert found.gone == len(known.keys() - {entry.key for entry in new})


def test_a_difference_reads_a_listing_as_parquet_gives_it_back(tmp_path):
    import pyarrow.parquet as pq

    old = ObjectTable.collect(ObjectInfo(f"/p/{n}", f"{n}", n, "e") for n in range(5))
    pq.write_table(
        old.to_table().cast(
            pa.schema([(f.name, pa.string() if f.name != "size_bytes" else f.type) for f in OBJECT_SCHEMA])
        ),
        tmp_path / "listing.parquet",
    )
    read = pq.read_table(tmp_path / "listing.parquet")
    assert ObjectTable.from_table(read) == old
    new = ObjectTable.collect(ObjectInfo(f"/q/{n}", f"{n}", n if n != 3 else 30, "e") for n in range(1, 7))
    found = difference(read, new)
    assert [entry.key for entry in found.to_read] == ["3", "5", "6"]
    assert (found.new, found.changed, found.unchanged, found.gone) == (2, 1, 3, 1)
    everything = difference(read.slice(0, 0), new)
    assert everything.to_read == new
    assert np.array_equal(everything.to_read.sizes(), new.sizes())
