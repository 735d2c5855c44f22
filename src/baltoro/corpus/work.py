"""Where a build keeps what its passes hand to each other: files that are written whole, and never twice.

A pass is a row of numbered tasks. Each writes one file under the pass's name, last of all it writes; so a
task whose file is there is finished, and a build that was killed goes on where it stopped. Contents depend
on recipe and listing alone, so two builds at once write the same bytes to the same places.
"""

from __future__ import annotations

import hashlib
import io
import tempfile
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from pyarrow import ipc

from baltoro.core.errors import ArtifactError
from baltoro.core.storage import Storage, join
from baltoro.corpus.dedup.keys import partition_of

STAGING = "staging"
"""Sub-folder of a writer's folder for what passes hand over; removed once the artifact is published."""

_SUFFIX = ".parquet"
_ROWS_PER_GROUP = 1024
_READERS = 8


class Task(ABC):
    """One pass: what it does for a number. Ray hands it the numbers as a column ``index``."""

    @abstractmethod
    def run(self, index: int) -> None:
        """Do one task and write its file."""

    def __call__(self, batch: pa.Table) -> pa.Table:
        """Do the tasks of a batch."""
        for index in batch.column("index").to_pylist():
            self.run(index)
        return batch.select(["index"])


@dataclass(frozen=True, slots=True)
class WorkArea:
    """The folder of one build, reachable from every node. Cheap to pickle."""

    storage: Storage
    uri: str

    def place(self, name: str, index: int) -> str:
        """Return where task ``index`` of the pass ``name`` writes its file."""
        return join(self.uri, name, f"{index:06d}{_SUFFIX}")

    def finished(self, name: str) -> frozenset[int]:
        """Return the numbers of the tasks whose file is there."""
        return frozenset(
            int(info.key.removesuffix(_SUFFIX))
            for info in self.storage.list(join(self.uri, name), with_etag=False)
        )

    def write(self, name: str, index: int, table: pa.Table, rows_per_group: int = _ROWS_PER_GROUP) -> None:
        """Write a task's table."""
        self.storage.write_bytes(self.place(name, index), parquet_bytes(table, rows_per_group))

    def write_pieces(
        self, name: str, index: int, tables: Iterable[pa.Table], schema: pa.Schema, rows_per_group: int
    ) -> None:
        """Write a task's table that comes in pieces."""
        with pieces_file(tables, schema, rows_per_group) as (path, _):
            self.storage.upload_file(path, self.place(name, index))

    def read(self, name: str, index: int, columns: Sequence[str] | None = None) -> pa.Table:
        """Return a task's table, or some of its columns."""
        return self.read_uri(self.place(name, index), columns)

    def read_uri(self, uri: str, columns: Sequence[str] | None = None) -> pa.Table:
        """Return the table of a Parquet file that :func:`parquet_bytes` made, or some of its columns."""
        return read_parquet(self.storage, uri, columns)

    def read_between(self, name: str, index: int, column: str, first: int, end: int) -> pa.Table:
        """Return the rows of a task's table whose ``column`` lies from ``first`` to below ``end``.

        Only the row groups that hold them are read, which are few where the table is sorted by it.
        """
        return self.read_if(name, index, None, [(column, ">=", first), (column, "<", end)])

    def read_if(
        self, name: str, index: int, columns: Sequence[str] | None, filters: list[tuple[str, str, Any]]
    ) -> pa.Table:
        """Return the rows of a task's table that pass all filters, or some of their columns."""
        with self.storage.open(self.place(name, index)) as file:
            return pq.read_table(
                file,
                columns=list(columns) if columns is not None else None,
                filters=filters,
                page_checksum_verification=True,
            )

    def batches(self, name: str, index: int, rows: int) -> Iterator[pa.Table]:
        """Yield a task's table, some rows at a time."""
        with self.storage.open(self.place(name, index)) as file:
            for batch in pq.ParquetFile(file, page_checksum_verification=True).iter_batches(rows):
                yield pa.Table.from_batches([batch])

    def rows(self, name: str, index: int) -> int:
        """Return how many rows a task's table has."""
        with self.storage.open(self.place(name, index)) as file:
            return int(pq.read_metadata(file).num_rows)

    def write_partitions(self, name: str, index: int, rows: pa.Table, partitions: int) -> None:
        """Write rows sorted by the partition of their ``key``, so that each can be read alone."""
        place = partition_of(rows.column("key").to_numpy(), partitions)
        order = np.argsort(place, kind="stable")
        bounds = np.searchsorted(place[order], np.arange(partitions + 1))
        ordered = rows.take(pa.array(order)).combine_chunks()
        sink = pa.BufferOutputStream()
        with ipc.new_file(sink, rows.schema, options=ipc.IpcWriteOptions(compression="lz4")) as writer:
            for start, end in zip(bounds[:-1].tolist(), bounds[1:].tolist(), strict=True):
                part = ordered.slice(start, end - start)
                # One batch a partition, an empty one too: a batch is found by its number.
                batch = part.to_batches()[0] if len(part) else pa.RecordBatch.from_pylist([], rows.schema)
                writer.write_batch(batch)
        self.storage.write_bytes(self.place(name, index), sink.getvalue().to_pybytes())

    def read_partition(self, name: str, tasks: Sequence[int], partition: int) -> pa.Table:
        """Return one partition of what some tasks wrote with :meth:`write_partitions`."""

        def read(index: int) -> pa.RecordBatch:
            with self.storage.open(self.place(name, index)) as file:
                return ipc.open_file(file).get_batch(partition)

        with ThreadPoolExecutor(_READERS) as pool:
            batches = list(pool.map(read, tasks))
        return pa.Table.from_batches(batches)

    def read_all(self, name: str, tasks: Sequence[int], columns: Sequence[str]) -> Iterator[pa.Table]:
        """Yield columns of what some tasks wrote, one task at a time, in the order given."""
        for index in tasks:
            yield self.read(name, index, columns)


def parquet_bytes(table: pa.Table, rows_per_group: int = _ROWS_PER_GROUP) -> bytes:
    """Return a table as Parquet (zstd, with page checksums), the same bytes for the same rows."""
    sink = io.BytesIO()
    pq.write_table(table, sink, compression="zstd", row_group_size=rows_per_group, write_page_checksum=True)
    return sink.getvalue()


class PartFile(NamedTuple):
    """A file of an artifact, as its manifest names it: ``sha256`` is over its bytes."""

    uri: str
    sha256: str


def open_part(storage: Storage, part: PartFile) -> pq.ParquetFile:
    """Return a Parquet file, read whole and compared with its checksum: a footer has none of its own.

    Raises:
        ArtifactError: it was altered since it was written; names it.
    """
    data = storage.read_bytes(part.uri)
    found = hashlib.sha256(data).hexdigest()
    if found != part.sha256:
        raise ArtifactError(
            f"{part.uri}: damaged: {len(data)} bytes with SHA-256 {found[:12]}, the manifest names "
            f"{part.sha256[:12]}; restore the file or build its artifact again"
        )
    return pq.ParquetFile(pa.BufferReader(data))


@contextmanager
def pieces_file(
    tables: Iterable[pa.Table], schema: pa.Schema, rows_per_group: int
) -> Iterator[tuple[Path, int]]:
    """Write a table that comes in pieces to a temporary file; how it is cut does not show in the bytes.

    Yields:
        The file and its rows; it is gone afterwards.
    """
    with tempfile.TemporaryDirectory() as temporary:
        path = Path(temporary) / f"table{_SUFFIX}"
        rows = 0
        with pq.ParquetWriter(path, schema, compression="zstd", write_page_checksum=True) as writer:
            for table in regrouped(tables, rows_per_group, schema):
                writer.write_table(table)
                rows += table.num_rows
        yield path, rows


def write_table_file(
    storage: Storage, uri: str, tables: Iterable[pa.Table], schema: pa.Schema, rows_per_group: int
) -> dict[str, Any]:
    """Write a final file from a table in pieces; returns its ``rows``, ``size_bytes`` and ``sha256``."""
    with pieces_file(tables, schema, rows_per_group) as (path, rows):
        with path.open("rb") as file:
            sha256 = hashlib.file_digest(file, "sha256").hexdigest()
        storage.upload_file(path, uri)
        return {"rows": rows, "size_bytes": path.stat().st_size, "sha256": sha256}


def regrouped(tables: Iterable[pa.Table], rows: int, schema: pa.Schema) -> Iterator[pa.Table]:
    """Yield the same rows in tables of ``rows`` rows, the last one shorter."""
    held = schema.empty_table()
    for table in tables:
        held = pa.concat_tables([held, table.replace_schema_metadata().cast(schema)])
        whole = held.num_rows - held.num_rows % rows
        for start in range(0, whole, rows):
            yield held.slice(start, rows).combine_chunks()
        held = held.slice(whole)
    if held.num_rows:
        yield held.combine_chunks()


def read_parquet(storage: Storage, uri: str, columns: Sequence[str] | None = None) -> pa.Table:
    """Return the table of a file that :func:`parquet_bytes` made, or some of its columns.

    Raises:
        ArtifactError: it was altered since it was written; names it.
    """
    with storage.open(uri) as file:
        try:
            return pq.read_table(
                file, columns=list(columns) if columns is not None else None, page_checksum_verification=True
            )
        except (pa.ArrowException, OSError) as error:
            reason = str(error).splitlines()[0]
            raise ArtifactError(
                f"{uri}: damaged ({reason}); restore the file or build its artifact again"
            ) from error
