"""What the passes of a tokens build hand to each other: files of which a task reads only what it needs."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import numpy.typing as npt
import pyarrow as pa
from pyarrow import ipc

from baltoro.core.storage import Storage, join
from baltoro.corpus.work import WorkArea
from baltoro.data.plan import IntArray
from baltoro.data.shards import RowBatch, rows_from_table, rows_to_table

READERS = 8
"""Threads that wait for the store while one task computes."""

_RUN_BYTES = 4 << 20
_GAP_BYTES = 1 << 16


@contextmanager
def uploaded(storage: Storage, uri: str) -> Iterator[Path]:
    """Give a path of this machine to write to, and put what is there in its place."""
    with tempfile.TemporaryDirectory() as temporary:
        path = Path(temporary) / "file"
        yield path
        storage.upload_file(path, uri)


@contextmanager
def batch_file(
    area: WorkArea, name: str, index: int, schema: pa.Schema
) -> Iterator[Callable[[Sequence[Any]], None]]:
    """Give a function that writes columns as one batch, empty or not; a batch is found by its number."""
    options = ipc.IpcWriteOptions(compression="lz4")
    with (
        uploaded(area.storage, area.place(name, index)) as path,
        ipc.new_file(str(path), schema, options=options) as writer,
    ):

        def write(columns: Sequence[Any]) -> None:
            arrays = [pa.array(column, field.type) for column, field in zip(columns, schema, strict=True)]
            writer.write_batch(pa.RecordBatch.from_arrays(arrays, schema=schema))

        yield write


def read_batch(area: WorkArea, name: str, index: int, batch: int) -> pa.Table:
    """Return one of the batches of a :func:`batch_file`, and read nothing else."""
    with area.storage.open(area.place(name, index)) as file:
        return pa.Table.from_batches([ipc.open_file(file).get_batch(batch)])


@dataclass(frozen=True, slots=True)
class TokenFiles:
    """The tokens of each part's documents: a file of plain little-endian integers for each split.

    Attributes:
        area: the build's folder.
        vocabulary: one more than the highest id, which decides on the integers' width.
    """

    area: WorkArea
    vocabulary: int

    @property
    def dtype(self) -> np.dtype[Any]:
        """What the files hold."""
        return np.dtype("<u2" if self.vocabulary <= 1 << 16 else "<i4")

    def uri(self, split: str, part: int) -> str:
        """Return where the tokens of a part are."""
        return join(self.area.uri, "tokens", split, f"{part:06d}.bin")

    def append(self, file: BinaryIO, tokens: npt.NDArray[np.integer]) -> None:
        """Write tokens to an open file."""
        file.write(tokens.astype(self.dtype, copy=False).tobytes())

    def read(self, split: str, part: IntArray, offset: IntArray, tokens: IntArray) -> npt.NDArray[np.integer]:
        """Return documents one after the other, in the order of parts and of offsets in a part.

        Neighbours are read together, in stretches of a few megabytes, which is all that is held beside the
        result.

        Args:
            split: which files.
            part: int [documents], the part of each, never descending.
            offset: int [documents], of its first token in the file, never descending within a part.
            tokens: int [documents], its length.
        """
        ends = np.cumsum(tokens)
        found = np.empty(int(ends[-1]) if len(ends) else 0, self.dtype)
        targets = ends - tokens
        runs = list(self._runs(part, offset, tokens))

        def read(run: tuple[int, int]) -> None:
            first, last = run
            start = int(offset[first])
            stop = int((offset[first:last] + tokens[first:last]).max())
            size = self.dtype.itemsize
            data = self.area.storage.read_range(
                self.uri(split, int(part[first])), start * size, (stop - start) * size
            )
            stretch = np.frombuffer(data, self.dtype)
            for source, target, count in zip(
                (offset[first:last] - start).tolist(),
                targets[first:last].tolist(),
                tokens[first:last].tolist(),
                strict=True,
            ):
                found[target : target + count] = stretch[source : source + count]

        with ThreadPoolExecutor(READERS) as pool:
            list(pool.map(read, runs))
        return found

    def _runs(self, part: IntArray, offset: IntArray, tokens: IntArray) -> Iterator[tuple[int, int]]:
        """Yield runs of documents that are read together: of one part, close to each other, not too long."""
        if not len(part):
            return
        gap, longest = (limit // self.dtype.itemsize for limit in (_GAP_BYTES, _RUN_BYTES))
        first, start, stop = 0, int(offset[0]), int(offset[0])
        breaks = np.flatnonzero(np.diff(part) != 0) + 1
        new_part = np.zeros(len(part), np.bool_)
        new_part[breaks] = True
        entries = zip(offset.tolist(), tokens.tolist(), new_part.tolist(), strict=True)
        for index, (begin, count, is_new) in enumerate(entries):
            if index > first and (is_new or begin - stop > gap or begin + count - start > longest):
                yield first, index
                first, start, stop = index, begin, begin
            stop = max(stop, begin + count)
        yield first, len(part)


def packed_schema(sequence_length: int) -> pa.Schema:
    """Return the columns of rows on their way: where they go, and what a shard holds."""
    none = RowBatch(np.empty((0, sequence_length), np.int32), [], [])
    return pa.schema([("place", pa.int32()), *rows_to_table(none).schema])


def row_columns(batch: RowBatch) -> list[pa.Array]:
    """Return rows as the columns of :func:`packed_schema` that follow the places."""
    return [column.combine_chunks() for column in rows_to_table(batch).columns]


@dataclass(frozen=True, slots=True)
class PlacedRows:
    """Some rows, and where each goes, from the first place of a bucket or shard on."""

    rows: RowBatch
    place: IntArray


def read_placed(area: WorkArea, name: str, tasks: Sequence[int], partition: int) -> Iterator[PlacedRows]:
    """Yield one partition of what some tasks wrote, those ahead being read meanwhile."""

    def read(index: int) -> pa.Table:
        return read_batch(area, name, index, partition)

    with ThreadPoolExecutor(READERS) as pool:
        for start in range(0, len(tasks), READERS):
            for table in pool.map(read, tasks[start : start + READERS]):
                if table.num_rows:
                    yield PlacedRows(
                        rows_from_table(table), table.column("place").to_numpy().astype(np.int64)
                    )
