"""Many object descriptions in little memory: Arrow columns that look like a sequence of ``ObjectInfo``.

>>> from baltoro.core.storage import ObjectInfo
>>> table = ObjectTable.collect(ObjectInfo(f"/papers/{n}.md", f"{n}.md", n, "etag") for n in (1, 0))
>>> [entry.uri for entry in table.sorted_by_key()]
['/papers/0.md', '/papers/1.md']
"""

from __future__ import annotations

import hashlib
import itertools
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, overload

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from baltoro.core.storage.base import ObjectInfo

_BATCH_ROWS = 16_384

# 10^7 keys are more than the 2 GB that 32-bit offsets reach.
_TEXT = pa.large_string()

OBJECT_SCHEMA = pa.schema([("key", _TEXT), ("uri", _TEXT), ("size_bytes", pa.int64()), ("etag", _TEXT)])
"""The rows of :meth:`ObjectTable.to_table`."""


class ObjectTable(Sequence[ObjectInfo]):
    """Stored objects in columns; about 24 bytes and the letters of key and etag for each.

    Immutable. A slice shares the memory of the whole, but is pickled alone. The URI is kept only where it is
    not one prefix for all, followed by the key.
    """

    __slots__ = ("_columns", "_prefix")

    def __init__(self, columns: pa.Table, prefix: str | None) -> None:
        """Take over checked columns; use :meth:`collect` or :meth:`from_table`.

        Args:
            columns: key, size_bytes, etag, and uri if there is no prefix.
            prefix: what stands before the key in every URI.
        """
        self._columns = columns
        self._prefix = prefix

    @classmethod
    def collect(cls, entries: Iterable[ObjectInfo] = ()) -> ObjectTable:
        """Return a table of what an iterator yields, holding a few thousand Python objects at a time."""
        iterator = iter(entries)
        batches: list[pa.RecordBatch] = []
        prefix: str | None = ""
        while rows := list(itertools.islice(iterator, _BATCH_ROWS)):
            if not batches:
                prefix = _prefix_of(rows[0].uri, rows[0].key)
            if prefix is not None and any(row.uri != prefix + row.key for row in rows):
                batches = [_with_uri(batch, prefix) for batch in batches]
                prefix = None
            columns: list[list[Any]] = [
                [row.key for row in rows],
                [row.uri for row in rows],
                [row.size_bytes for row in rows],
                [row.etag for row in rows],
            ]
            batch = pa.RecordBatch.from_arrays(
                [pa.array(column, field.type) for column, field in zip(columns, OBJECT_SCHEMA, strict=True)],
                schema=OBJECT_SCHEMA,
            )
            batches.append(batch if prefix is None else batch.drop_columns(["uri"]))
        return cls(pa.Table.from_batches(batches, _schema(prefix)), prefix)

    @classmethod
    def from_table(cls, table: pa.Table) -> ObjectTable:
        """Return the objects that :meth:`to_table` gave; other columns are left out."""
        columns = table.select(OBJECT_SCHEMA.names).cast(OBJECT_SCHEMA)
        prefix: str | None = ""
        if columns.num_rows:
            uri, key = columns.column("uri"), columns.column("key")
            prefix = _prefix_of(uri[0].as_py(), key[0].as_py())
            if prefix is not None and not pc.all(pc.equal(_joined(prefix, key), uri)).as_py():
                prefix = None
        return cls(columns.select(_schema(prefix).names), prefix)

    def to_table(self) -> pa.Table:
        """Return the objects as rows of :data:`OBJECT_SCHEMA`."""
        if self._prefix is None:
            return self._columns.select(OBJECT_SCHEMA.names)
        uri = _joined(self._prefix, self._columns.column("key"))
        return self._columns.add_column(1, OBJECT_SCHEMA.field("uri"), uri)

    def __len__(self) -> int:
        return int(self._columns.num_rows)

    @overload
    def __getitem__(self, index: int) -> ObjectInfo: ...

    @overload
    def __getitem__(self, index: slice) -> ObjectTable: ...

    def __getitem__(self, index: int | slice) -> ObjectInfo | ObjectTable:
        if isinstance(index, slice):
            start, stop, step = index.indices(len(self))
            if step == 1:
                return ObjectTable(self._columns.slice(start, max(stop - start, 0)), self._prefix)
            return self.take(np.arange(start, stop, step))
        place = index + len(self) if index < 0 else index
        if not 0 <= place < len(self):
            raise IndexError(f"there is no object {index} among {len(self)}")
        return next(iter(ObjectTable(self._columns.slice(place, 1), self._prefix)))

    def __iter__(self) -> Iterator[ObjectInfo]:
        for batch in self._columns.to_batches(max_chunksize=_BATCH_ROWS):
            keys = batch.column("key").to_pylist()
            uris = (
                batch.column("uri").to_pylist()
                if self._prefix is None
                else [self._prefix + key for key in keys]
            )
            sizes, etags = batch.column("size_bytes").to_pylist(), batch.column("etag").to_pylist()
            yield from map(ObjectInfo, uris, keys, sizes, etags)

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, ObjectTable):
            return NotImplemented
        if len(self) != len(other):
            return False
        if self._prefix is not None and self._prefix == other._prefix:
            return bool(self._columns.equals(other._columns))
        return not len(self) or bool(self.to_table().equals(other.to_table()))

    def __hash__(self) -> int:
        return hash((len(self), self[0], self[-1])) if len(self) else hash(ObjectTable)

    def __repr__(self) -> str:
        return f"ObjectTable({len(self)} objects, {self.size_bytes} bytes)"

    def __reduce__(self) -> tuple[Any, ...]:
        # Arrow would pickle the whole buffers under a slice; its stream format writes the slice.
        sink = pa.BufferOutputStream()
        with pa.ipc.new_stream(sink, self._columns.schema) as writer:
            writer.write_table(self._columns.combine_chunks())
        return _from_stream, (sink.getvalue().to_pybytes(), self._prefix)

    @property
    def size_bytes(self) -> int:
        """The total length of the objects."""
        return int(pc.sum(self._columns.column("size_bytes"), min_count=0).as_py())

    def sizes(self) -> npt.NDArray[np.int64]:
        """Return the objects' lengths in bytes, int64 of shape (objects,)."""
        sizes: npt.NDArray[np.int64] = self._columns.column("size_bytes").to_numpy()
        return sizes

    def iterate_keys(self) -> Iterator[str]:
        """Yield the keys in their order."""
        for batch in self._columns.select(["key"]).to_batches(max_chunksize=_BATCH_ROWS):
            yield from batch.column("key").to_pylist()

    def memory_bytes(self) -> int:
        """Return the memory that the columns take."""
        return int(self._columns.nbytes)

    def take(self, places: npt.NDArray[np.int64]) -> ObjectTable:
        """Return the objects at some places, in the order given."""
        return ObjectTable(self._columns.take(pa.array(places, pa.int64())), self._prefix)

    def filter(self, chosen: npt.NDArray[np.bool_]) -> ObjectTable:
        """Return the objects for which a mask of shape (objects,) is true, in their order."""
        return ObjectTable(self._columns.filter(pa.array(chosen, pa.bool_())), self._prefix)

    def sorted_by_key(self) -> ObjectTable:
        """Return the objects in the order of their keys' code points, which is that of their UTF-8 bytes."""
        keys = self._columns.column("key")
        if len(keys) < 2 or pc.all(pc.less_equal(keys[:-1], keys[1:])).as_py():
            return self
        return ObjectTable(self._columns.take(pc.sort_indices(keys)), self._prefix)

    def repeated_key(self) -> str | None:
        """Return the first key that stands more than once, if any; the objects must be in key order."""
        keys = self._columns.column("key")
        if len(keys) < 2:
            return None
        place = pc.index(pc.equal(keys[:-1], keys[1:]), True).as_py()
        return None if place < 0 else str(keys[place].as_py())

    def digest(self) -> str:
        """Return what :func:`baltoro.core.storage.digest_of` gives for these objects."""
        hasher = hashlib.sha256()
        for batch in self._columns.to_batches(max_chunksize=_BATCH_ROWS):
            size = batch.column("size_bytes").cast(_TEXT)
            named = [batch.column("key"), size, batch.column("etag")]
            lines = pc.binary_join_element_wise(*named, pa.scalar("\0", _TEXT))
            ended = pc.binary_join_element_wise(lines, pa.scalar("", _TEXT), pa.scalar("\n", _TEXT))
            # The strings of an array lie one behind the other in its last buffer.
            offsets = np.frombuffer(ended.buffers()[1], np.int64)[ended.offset :][: len(ended) + 1]
            hasher.update(memoryview(ended.buffers()[2])[offsets[0] : offsets[-1]])
        return hasher.hexdigest()[:16]


@dataclass(frozen=True, slots=True)
class ObjectDifference:
    """What :func:`difference` found: the objects to read, and how many there are of each fate.

    Attributes:
        to_read: the new objects and the changed ones, in the order of the new listing.
        changed: objects under a known key with another size or etag.
        unchanged: objects with the same key, size and etag.
        gone: known keys that are no longer listed.
    """

    to_read: ObjectTable
    changed: int
    unchanged: int
    gone: int

    @property
    def new(self) -> int:
        """Objects under a key that was not known."""
        return len(self.to_read) - self.changed


def difference(old: pa.Table, new: ObjectTable) -> ObjectDifference:
    """Compare the listing of a source with an earlier one, by key, size and etag; the place does not count.

    Args:
        old: the earlier listing, with the columns ``key``, ``size_bytes`` and ``etag``; each key once, in
            any order.
        new: the present one; each key once.
    """
    known = old.select(["key", "size_bytes", "etag"]).cast(_schema(""))
    columns = new._columns
    # One lookup of each key keeps the order; a join of tables would lose it.
    place = pc.index_in(columns.column("key"), value_set=known.column("key").combine_chunks())
    same = pc.fill_null(
        pc.and_(
            pc.equal(columns.column("size_bytes"), known.column("size_bytes").take(place)),
            pc.equal(columns.column("etag"), known.column("etag").take(place)),
        ),
        False,
    )
    found = len(place) - place.null_count
    unchanged = int(pc.sum(same, min_count=0).as_py())
    return ObjectDifference(
        to_read=ObjectTable(columns.filter(pc.invert(same)), new._prefix),
        changed=found - unchanged,
        unchanged=unchanged,
        gone=known.num_rows - found,
    )


def _schema(prefix: str | None) -> pa.Schema:
    if prefix is None:
        return OBJECT_SCHEMA
    return pa.schema([field for field in OBJECT_SCHEMA if field.name != "uri"])


def _prefix_of(uri: str, key: str) -> str | None:
    return uri[: len(uri) - len(key)] if uri.endswith(key) else None


def _joined(prefix: str, keys: Any) -> Any:
    return pc.binary_join_element_wise(pa.scalar(prefix, _TEXT), keys, pa.scalar("", _TEXT))


def _with_uri(batch: pa.RecordBatch, prefix: str) -> pa.RecordBatch:
    uri = _joined(prefix, batch.column("key"))
    key, size, etag = batch.columns
    return pa.RecordBatch.from_arrays([key, uri, size, etag], schema=OBJECT_SCHEMA)


def _from_stream(data: bytes, prefix: str | None) -> ObjectTable:
    return ObjectTable(pa.ipc.open_stream(data).read_all(), prefix)
