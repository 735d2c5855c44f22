"""Token shards: Parquet files of packed rows, and a reader that addresses rows by index across them.

A shard that is not the one that was built is noticed when it is read. Opening compares the file's length and
the checksum of its Parquet footer with the manifest; the footer holds a checksum of every row group's
contents, which is compared whenever one is decoded. So what is read is what was written, be the file cut
off, damaged, or replaced in whole or in part by another shard.
"""

from __future__ import annotations

import hashlib
import io
from collections import OrderedDict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, BinaryIO, Self

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq

from baltoro.core.errors import ArtifactError
from baltoro.core.storage import MissingError, Storage

_SEQUENCE_LENGTH_KEY = b"baltoro.sequence_length"
_TOKENIZER_KEY = b"baltoro.tokenizer_fingerprint"
_ORIGIN_KEY = b"baltoro.origin"
_DIGESTS_KEY = b"baltoro.row_group_digests"
_DIGEST_BYTES = 16
_MAGIC = b"PAR1"
_TAIL_BYTES = 1 << 16
_CACHED_ROW_GROUPS = 4
_OPEN_SHARDS = 4
_HASH_CHUNK_BYTES = 1 << 22


@dataclass(frozen=True, slots=True, eq=False)
class RowBatch:
    """Consecutive packed rows.

    Attributes:
        input_ids: int32 [rows, sequence_length].
        segment_ends: per row, int32 [segments], one past each segment's last token, increasing; what follows
            the last one is padding.
        paper_index: per row, int32 [segments], the segment's number among the papers of the dataset.
        loss_mask: bool [rows, sequence_length], whether a token is a target; ``None`` where all are.
    """

    input_ids: npt.NDArray[np.int32]
    segment_ends: list[npt.NDArray[np.int32]]
    paper_index: list[npt.NDArray[np.int32]]
    loss_mask: npt.NDArray[np.bool_] | None = None

    def __len__(self) -> int:
        return len(self.input_ids)

    @property
    def sequence_length(self) -> int:
        """Tokens of a row."""
        return int(self.input_ids.shape[1])

    def slice(self, start: int, stop: int) -> RowBatch:
        """Return rows ``[start, stop)`` without copying."""
        return RowBatch(
            self.input_ids[start:stop],
            self.segment_ends[start:stop],
            self.paper_index[start:stop],
            None if self.loss_mask is None else self.loss_mask[start:stop],
        )

    def take(self, rows: npt.NDArray[np.int64]) -> RowBatch:
        """Return the rows at the given indices, in that order."""
        return RowBatch(
            self.input_ids[rows],
            [self.segment_ends[row] for row in rows.tolist()],
            [self.paper_index[row] for row in rows.tolist()],
            None if self.loss_mask is None else self.loss_mask[rows],
        )

    @staticmethod
    def concatenate(batches: Sequence[RowBatch]) -> RowBatch:
        """Return the rows of all batches (at least one); one batch comes back as it is."""
        if len(batches) == 1:
            return batches[0]
        mask = None
        if any(batch.loss_mask is not None for batch in batches):
            mask = np.concatenate(
                [
                    np.ones(batch.input_ids.shape, dtype=np.bool_)
                    if batch.loss_mask is None
                    else batch.loss_mask
                    for batch in batches
                ]
            )
        return RowBatch(
            np.concatenate([batch.input_ids for batch in batches]),
            [ends for batch in batches for ends in batch.segment_ends],
            [index for batch in batches for index in batch.paper_index],
            mask,
        )


@dataclass(frozen=True, slots=True)
class ShardFile:
    """A shard as a manifest names it.

    Attributes:
        uri: where it stands.
        rows: how many it holds.
        size_bytes: length of the file.
        sha256: of the file's bytes.
        footer_sha256: of its Parquet footer, length and magic number included; what opening compares.
    """

    uri: str
    rows: int
    size_bytes: int
    sha256: str
    footer_sha256: str


def shard_ranges(total_rows: int, rows_per_shard: int) -> Iterator[range]:
    """Yield the rows of each shard; the last is shorter where they do not divide."""
    for start in range(0, total_rows, rows_per_shard):
        yield range(start, min(start + rows_per_shard, total_rows))


def write_shard(
    batch: RowBatch,
    path: Path,
    *,
    uri: str,
    rows_per_row_group: int,
    tokenizer_fingerprint: str,
    origin: str,
) -> ShardFile:
    """Write rows as one Parquet file; the same rows give the same bytes with the same pyarrow.

    Args:
        batch: the shard's rows.
        path: where to write it on this machine.
        uri: where the shard will stand, for the returned record.
        rows_per_row_group: rows of each row group, the last shorter.
        tokenizer_fingerprint: kept in the file, so that a stray shard can be told.
        origin: dataset and name of the shard, kept in the file for the same purpose.

    Raises:
        ValueError: segments that do not increase, leave the row, or do not match ``paper_index``.
    """
    _check_segments(batch)
    digests = [
        _digest(batch.slice(start, start + rows_per_row_group))
        for start in range(0, len(batch), rows_per_row_group)
    ]
    kept = {
        _SEQUENCE_LENGTH_KEY: str(batch.sequence_length).encode(),
        _TOKENIZER_KEY: tokenizer_fingerprint.encode(),
        _ORIGIN_KEY: origin.encode(),
        _DIGESTS_KEY: " ".join(digests).encode(),
    }
    pq.write_table(
        rows_to_table(batch).replace_schema_metadata(kept),
        path,
        row_group_size=rows_per_row_group,
        compression="zstd",
        use_dictionary=False,
        write_statistics=False,
        write_page_checksum=True,
        # Small ids leave the upper bytes zero: split by byte they compress better and decode faster.
        column_encoding={"input_ids.list.element": "BYTE_STREAM_SPLIT"},
    )
    with path.open("rb") as file:
        sha256 = hashlib.file_digest(file, "sha256").hexdigest()
        footer = _read_footer(file)
        return ShardFile(uri, len(batch), file.seek(0, io.SEEK_END), sha256, _sha256(footer))


class TokenDataset:
    """The rows of a list of shards, addressed by their index in the concatenation.

    Row groups are decoded as they are needed and the last few kept, so reading in order costs one decoding
    per row group, and starting anywhere costs nothing more. Picklable; one thread at a time; a context
    manager that closes its files.
    """

    def __init__(self, files: Sequence[ShardFile], storage: Storage) -> None:
        """Use :meth:`open`."""
        self.files = tuple(files)
        self._storage = storage
        self._first_rows = np.concatenate([[0], np.cumsum([file.rows for file in self.files])])
        self._reset()
        first = self._shard(0)
        self.sequence_length, self.tokenizer_fingerprint = first.sequence_length, first.tokenizer_fingerprint

    @classmethod
    def open(cls, files: Sequence[ShardFile], storage: Storage, *, verify: bool = False) -> Self:
        """Open a dataset.

        Args:
            files: the shards in order, as the manifest names them.
            storage: gives access to their URIs.
            verify: read every byte first and compare checksums; without, each shard is checked as it is
                opened and each row group as it is read.

        Raises:
            ArtifactError: no shard, one that is not a token shard, or (with ``verify``) a damaged one.
        """
        if not files:
            raise ArtifactError("the token dataset names no shard; build it again")
        if verify:
            for file in files:
                verify_shard(file, storage)
        return cls(files, storage)

    def __len__(self) -> int:
        return int(self._first_rows[-1])

    def __getstate__(self) -> dict[str, Any]:
        kept = ("files", "_storage", "_first_rows", "sequence_length", "tokenizer_fingerprint")
        return {name: getattr(self, name) for name in kept}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._reset()

    def read_rows(self, start: int, stop: int) -> RowBatch:
        """Return rows ``[start, stop)``.

        Raises:
            IndexError: the range is empty or leaves the dataset.
            ArtifactError: a shard is damaged or not the one that the list of files describes; names it.
        """
        if not 0 <= start < stop <= len(self):
            raise IndexError(f"rows {start} to {stop} of a dataset of {len(self)} rows")
        batches: list[RowBatch] = []
        row = start
        while row < stop:
            shard = int(np.searchsorted(self._first_rows, row, side="right")) - 1
            first_row = int(self._first_rows[shard])
            ends = self._shard(shard).row_group_ends
            group = int(np.searchsorted(ends, row - first_row, side="right"))
            group_start = first_row + (int(ends[group - 1]) if group else 0)
            group_stop = first_row + int(ends[group])
            batches.append(
                self._row_group(shard, group).slice(row - group_start, min(stop, group_stop) - group_start)
            )
            row = min(stop, group_stop)
        return RowBatch.concatenate(batches)

    def close(self) -> None:
        """Close the open files and drop the cached rows; a later read opens them again."""
        for opened in self._shards.values():
            opened.stream.close()
        self._reset()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def _reset(self) -> None:
        self._shards: OrderedDict[int, _OpenShard] = OrderedDict()
        self._row_groups: OrderedDict[tuple[int, int], RowBatch] = OrderedDict()

    def _shard(self, shard: int) -> _OpenShard:
        if shard not in self._shards:
            opened = _open_shard(self.files[shard], self._storage)
            if hasattr(self, "sequence_length"):
                self._check_same_kind(opened)
            self._shards[shard] = opened
            if len(self._shards) > _OPEN_SHARDS:
                self._shards.popitem(last=False)[1].stream.close()
        self._shards.move_to_end(shard)
        return self._shards[shard]

    def _check_same_kind(self, opened: _OpenShard) -> None:
        here = opened.sequence_length, opened.tokenizer_fingerprint
        expected = self.sequence_length, self.tokenizer_fingerprint
        if here != expected:
            opened.stream.close()
            raise ArtifactError(
                f"{opened.uri}: rows of {here[0]} tokens by tokenizer {here[1][:12]}, where "
                f"{self.files[0].uri} has {expected[0]} tokens by {expected[1][:12]}; shards of one dataset "
                "share both"
            )

    def _row_group(self, shard: int, group: int) -> RowBatch:
        key = shard, group
        if key not in self._row_groups:
            opened = self._shard(shard)
            try:
                table = opened.parquet.read_row_group(group, use_threads=False)
            except (pa.ArrowException, OSError) as error:
                raise _damaged(self.files[shard], error) from error
            rows = rows_from_table(table)
            if _digest(rows) != opened.row_group_digests[group]:
                raise ArtifactError(
                    f"{opened.uri}: damaged (row group {group} has another checksum than the footer names: "
                    "part of the file was replaced); restore the file or build the token dataset again"
                )
            self._row_groups[key] = rows
            if len(self._row_groups) > _CACHED_ROW_GROUPS:
                self._row_groups.popitem(last=False)
        self._row_groups.move_to_end(key)
        return self._row_groups[key]


def verify_shard(file: ShardFile, storage: Storage) -> None:
    """Read a shard's bytes and compare them with what the manifest says.

    Raises:
        ArtifactError: it is gone, or has another size or checksum; names the shard.
    """
    digest, size_bytes = hashlib.sha256(), 0
    with _open_stream(file, storage) as stream:
        while chunk := stream.read(_HASH_CHUNK_BYTES):
            digest.update(chunk)
            size_bytes += len(chunk)
    if (size_bytes, digest.hexdigest()) != (file.size_bytes, file.sha256):
        raise ArtifactError(
            f"{file.uri}: damaged: {size_bytes} bytes with SHA-256 {digest.hexdigest()[:12]}, the manifest "
            f"names {file.size_bytes} bytes with {file.sha256[:12]}; restore the file or build the token "
            "dataset again"
        )


@dataclass(frozen=True, slots=True, eq=False)
class _OpenShard:
    uri: str
    stream: BinaryIO
    parquet: pq.ParquetFile
    row_group_ends: npt.NDArray[np.int64]
    row_group_digests: tuple[str, ...]
    sequence_length: int
    tokenizer_fingerprint: str


def _open_shard(file: ShardFile, storage: Storage) -> _OpenShard:
    stream = _open_stream(file, storage)
    try:
        return _check_shard(file, stream)
    except (pa.ArrowException, OSError) as error:
        stream.close()
        raise _damaged(file, error) from error
    except BaseException:
        stream.close()
        raise


def _open_stream(file: ShardFile, storage: Storage) -> BinaryIO:
    try:
        return storage.open(file.uri)
    except MissingError as error:
        raise ArtifactError(
            f"{file.uri}: is gone; restore the file or build the token dataset again"
        ) from error


def _check_shard(file: ShardFile, stream: BinaryIO) -> _OpenShard:
    size_bytes = stream.seek(0, io.SEEK_END)
    if size_bytes != file.size_bytes:
        raise ArtifactError(
            f"{file.uri}: damaged: {size_bytes} bytes where the manifest names {file.size_bytes}; "
            "restore the file or build the token dataset again"
        )
    footer = _read_footer(stream)
    metadata = pq.read_metadata(pa.BufferReader(footer))
    parquet = pq.ParquetFile(stream, metadata=metadata, pre_buffer=True, page_checksum_verification=True)
    kept = parquet.schema_arrow.metadata or {}
    if not kept.keys() >= {_SEQUENCE_LENGTH_KEY, _TOKENIZER_KEY, _ORIGIN_KEY, _DIGESTS_KEY}:
        raise ArtifactError(f"{file.uri}: is not a token shard; build the token dataset again")
    if _sha256(footer) != file.footer_sha256:
        raise ArtifactError(
            f"{file.uri}: is not the shard that the manifest names: it calls itself "
            f"{kept[_ORIGIN_KEY].decode(errors='replace')} and holds {metadata.num_rows} rows, of "
            f"{file.rows}; it was replaced or its footer altered: restore the file or build the token "
            "dataset again"
        )
    sizes = [metadata.row_group(group).num_rows for group in range(metadata.num_row_groups)]
    return _OpenShard(
        file.uri,
        stream,
        parquet,
        np.cumsum(sizes, dtype=np.int64),
        tuple(kept[_DIGESTS_KEY].decode().split()),
        int(kept[_SEQUENCE_LENGTH_KEY]),
        kept[_TOKENIZER_KEY].decode(),
    )


def _read_footer(stream: BinaryIO) -> bytes:
    """Return the end of a Parquet file: its metadata, their length (4 bytes) and the magic number.

    Raises:
        OSError: the file does not end so.
    """
    size_bytes = stream.seek(0, io.SEEK_END)
    stream.seek(max(0, size_bytes - _TAIL_BYTES))
    tail = stream.read()
    if tail[-4:] != _MAGIC:
        raise OSError("it does not end as a Parquet file does")
    length = int.from_bytes(tail[-8:-4], "little") + 8
    if length > size_bytes:
        raise OSError("its footer is longer than the file")
    if length > len(tail):
        stream.seek(size_bytes - length)
        tail = stream.read()
    return tail[-length:]


def _digest(batch: RowBatch) -> str:
    """Return the checksum of rows, of what they mean and not of how they are stored."""
    digest = hashlib.blake2b(digest_size=_DIGEST_BYTES)
    digest.update(np.ascontiguousarray(batch.input_ids, dtype="<i4").data)
    for lists in (batch.segment_ends, batch.paper_index):
        digest.update(np.array([len(entry) for entry in lists], dtype="<i4").data)
        digest.update(np.concatenate([np.empty(0, "<i4"), *lists], dtype="<i4").data)
    if batch.loss_mask is not None:
        digest.update(np.packbits(batch.loss_mask).data)
    return digest.hexdigest()


def _sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def _damaged(file: ShardFile, error: Exception) -> ArtifactError:
    reason = str(error).splitlines()[0]
    return ArtifactError(f"{file.uri}: damaged ({reason}); restore the file or build the token dataset again")


def _check_segments(batch: RowBatch) -> None:
    width = batch.sequence_length
    for row, (ends, papers) in enumerate(zip(batch.segment_ends, batch.paper_index, strict=True)):
        if len(ends) != len(papers):
            raise ValueError(f"row {row} has {len(ends)} segments and {len(papers)} entries of paper_index")
        if len(ends) == 0 or ends[0] < 1 or ends[-1] > width or (ends[1:] <= ends[:-1]).any():
            raise ValueError(
                f"row {row}: segment_ends must increase within 1 to {width}, not {ends.tolist()}"
            )
    if len(batch.segment_ends) != len(batch):
        raise ValueError(f"{len(batch)} rows and {len(batch.segment_ends)} entries of segment_ends")


def rows_to_table(batch: RowBatch) -> pa.Table:
    """Return rows as the columns of a shard, one row a record."""
    columns = {
        "input_ids": _fixed_lists(batch.input_ids, pa.int32()),
        "segment_ends": _lists(batch.segment_ends),
        "paper_index": _lists(batch.paper_index),
    }
    if batch.loss_mask is not None:
        columns["loss_mask"] = _fixed_lists(batch.loss_mask, pa.bool_())
    fields = [pa.field(name, column.type, nullable=False) for name, column in columns.items()]
    return pa.table(list(columns.values()), schema=pa.schema(fields))


def _fixed_lists(values: npt.NDArray[Any], item_type: pa.DataType) -> pa.FixedSizeListArray:
    kind = pa.list_(pa.field("element", item_type, nullable=False), values.shape[1])
    return pa.FixedSizeListArray.from_arrays(pa.array(values.reshape(-1), type=item_type), type=kind)


def _lists(arrays: Sequence[npt.NDArray[np.int32]]) -> pa.ListArray:
    offsets = np.zeros(len(arrays) + 1, dtype=np.int32)
    np.cumsum([len(array) for array in arrays], out=offsets[1:])
    values = np.concatenate(arrays) if len(arrays) else np.empty(0, dtype=np.int32)
    kind = pa.list_(pa.field("element", pa.int32(), nullable=False))
    return pa.ListArray.from_arrays(pa.array(offsets), pa.array(values, type=pa.int32()), type=kind)


def rows_from_table(table: pa.Table) -> RowBatch:
    """Return the rows that :func:`rows_to_table` made a table of; columns beside them are left alone."""

    def column(name: str) -> pa.Array:
        return table.column(name).combine_chunks()

    def lists(name: str) -> list[npt.NDArray[np.int32]]:
        array = column(name)
        offsets = array.offsets.to_numpy()
        return np.split(array.flatten().to_numpy(), offsets[1:-1] - offsets[0])[: table.num_rows]

    shape = (table.num_rows, table.schema.field("input_ids").type.list_size)
    mask = None
    if "loss_mask" in table.column_names:
        mask = column("loss_mask").flatten().to_numpy(zero_copy_only=False).reshape(shape)
    return RowBatch(
        column("input_ids").flatten().to_numpy().reshape(shape),
        lists("segment_ends"),
        lists("paper_index"),
        mask,
    )
