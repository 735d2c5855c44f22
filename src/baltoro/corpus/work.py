"""Where a build keeps what its passes hand to each other: files that are written whole, and never twice.

A pass is a row of numbered tasks. Each writes one file under the pass's name, last of all it writes; so a
task whose file is there is finished, and a build that was killed goes on where it stopped. Contents depend
on recipe and listing alone, so two builds at once write the same bytes to the same places.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from pyarrow import ipc

from baltoro.core.storage import Storage, join
from baltoro.corpus.dedup.keys import partition_of

STAGING = "staging"
"""Sub-folder of a corpus writer's folder for what passes hand over; removed once the corpus is published."""

_SUFFIX = ".parquet"
_READERS = 8


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

    def write(self, name: str, index: int, table: pa.Table) -> None:
        """Write a task's table."""
        self.storage.write_bytes(self.place(name, index), parquet_bytes(table))

    def read(self, name: str, index: int, columns: Sequence[str] | None = None) -> pa.Table:
        """Return a task's table, or some of its columns."""
        with self.storage.open(self.place(name, index)) as file:
            return pq.read_table(file, columns=list(columns) if columns is not None else None)

    def delete(self, name: str) -> None:
        """Remove the files of a pass."""
        self.storage.delete_folder(join(self.uri, name))

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


def parquet_bytes(table: pa.Table) -> bytes:
    """Return a table as Parquet (zstd), the same bytes for the same rows."""
    sink = pa.BufferOutputStream()
    pq.write_table(table, sink, compression="zstd", row_group_size=1024)
    return bytes(sink.getvalue())
