"""Sharded checkpoints straight to and from storage, as ``torch.distributed.checkpoint`` lays them out.

The files are those of torch's own ``FileSystemWriter``, so its tools read a checkpoint's folder too.
"""

from __future__ import annotations

import dataclasses
import io
import pickle
from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Future as ThreadFuture
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import torch
from torch.distributed.checkpoint.filesystem import CURRENT_DCP_VERSION, DEFAULT_SUFFIX, _StorageInfo
from torch.distributed.checkpoint.metadata import Metadata, MetadataIndex
from torch.distributed.checkpoint.planner import (
    LoadItemType,
    LoadPlan,
    LoadPlanner,
    ReadItem,
    SavePlan,
    SavePlanner,
    WriteItem,
    WriteItemType,
)
from torch.distributed.checkpoint.storage import StorageReader, StorageWriter, WriteResult
from torch.futures import Future

from baltoro.checkpoint.marker import FileRecord
from baltoro.core.storage import Storage, join

METADATA_FILE = ".metadata"

OBJECT_BYTES = 256 << 20
"""A rank's share is cut into objects of about this size; a larger tensor is an object of its own."""

_WRITE_THREADS = 2
_READ_THREADS = 8


class ShardWriter(StorageWriter):
    """A ``torch.distributed.checkpoint`` writer to a URI.

    Objects are put together in memory, a few at a time, hashed and written while the next is put together:
    what is needed beside the copy that they are made from is a few times ``OBJECT_BYTES``, and no disk.

    Args:
        storage: gives access to the URI.
        folder_uri: the checkpoint's folder.

    Attributes:
        files: what this rank has written, by name.
    """

    def __init__(self, storage: Storage, folder_uri: str) -> None:
        self._storage = storage
        self._folder_uri = folder_uri
        self.files: dict[str, FileRecord] = {}

    def reset(self, checkpoint_id: Any = None) -> None:
        """Do nothing: a writer writes one checkpoint."""

    def set_up_storage_writer(self, is_coordinator: bool, *args: Any, **kwargs: Any) -> None:
        """Do nothing: there are no folders to be made."""

    def prepare_local_plan(self, plan: SavePlan) -> SavePlan:
        """Return the plan unchanged."""
        return plan

    def prepare_global_plan(self, plans: list[SavePlan]) -> list[SavePlan]:
        """Give every rank the beginning of its objects' names."""
        return [dataclasses.replace(plan, storage_data=f"__{rank}_") for rank, plan in enumerate(plans)]

    def write_data(self, plan: SavePlan, planner: SavePlanner) -> Future[list[WriteResult]]:
        """Write this rank's items."""
        pool = ThreadPoolExecutor(_WRITE_THREADS, thread_name_prefix="baltoro-write")
        try:
            writes = [
                pool.submit(
                    self._write_object, f"{plan.storage_data}{number}{DEFAULT_SUFFIX}", items, planner
                )
                for number, items in enumerate(_cut(plan.items, OBJECT_BYTES))
            ]
            results = [result for write in writes for result in write.result()]
        finally:
            # After a failure nothing further is begun.
            pool.shutdown(cancel_futures=True)
        done: Future[list[WriteResult]] = Future()
        done.set_result(results)
        return done

    def _write_object(self, name: str, items: Sequence[WriteItem], planner: SavePlanner) -> list[WriteResult]:
        content = io.BytesIO()
        results = []
        for item in items:
            value = planner.resolve_data(item)
            offset = content.tell()
            if isinstance(value, io.BytesIO):
                content.write(value.getbuffer())
            else:
                torch.save(value, content)
            length = content.tell() - offset
            results.append(WriteResult(item.index, length, _StorageInfo(name, offset, length)))
        self.write_file(name, content.getvalue())
        return results

    def write_file(self, name: str, data: bytes) -> None:
        """Write one file of the checkpoint and keep its record."""
        record = FileRecord.of(data)
        self._storage.write_bytes(join(self._folder_uri, name), data)
        self.files[name] = record

    def finish(self, metadata: Metadata, results: list[list[WriteResult]]) -> None:
        """Write what tells where every piece lies."""
        metadata.version = CURRENT_DCP_VERSION
        metadata.storage_data = {result.index: result.storage_data for rank in results for result in rank}
        self.write_file(METADATA_FILE, pickle.dumps(metadata))

    @classmethod
    def validate_checkpoint_id(cls, checkpoint_id: Any) -> bool:  # noqa: ARG003
        """Return false: this writer is given explicitly, never guessed from a path."""
        return False


class StoredShards(StorageReader):
    """A ``torch.distributed.checkpoint`` reader over a URI.

    One range request per tensor piece, a few at a time: a rank of another world size reads the pieces that
    overlap its shard, and no rank needs disk space for the whole. The files must have been verified before:
    ``.metadata`` is a pickle, and is trusted because its checksum comes from the run's head.

    Args:
        storage: gives access to the URI.
        folder_uri: the checkpoint's folder.
    """

    def __init__(self, storage: Storage, folder_uri: str) -> None:
        self._storage = storage
        self._folder_uri = folder_uri
        self._places: dict[MetadataIndex, _StorageInfo] = {}

    def reset(self, checkpoint_id: Any = None) -> None:  # noqa: ARG002
        """Forget the places of an earlier load."""
        self._places = {}

    def read_metadata(self, *args: Any, **kwargs: Any) -> Metadata:  # noqa: ARG002  (torch's interface)
        """Return what the checkpoint holds and where."""
        metadata: Metadata = pickle.loads(self._storage.read_bytes(join(self._folder_uri, METADATA_FILE)))
        return metadata

    def set_up_storage_reader(  # the unused arguments are torch's interface
        self,
        metadata: Metadata,
        is_coordinator: bool,  # noqa: ARG002
        *args: Any,  # noqa: ARG002
        **kwargs: Any,  # noqa: ARG002
    ) -> None:
        """Remember where each piece lies."""
        self._places = metadata.storage_data

    def prepare_local_plan(self, plan: LoadPlan) -> LoadPlan:
        """Return the plan unchanged."""
        return plan

    def prepare_global_plan(self, plans: list[LoadPlan]) -> list[LoadPlan]:
        """Return the plans unchanged."""
        return plans

    def read_data(self, plan: LoadPlan, planner: LoadPlanner) -> Any:
        """Fill the tensors of the plan."""
        for item, data in self._pieces(plan.items):
            piece = io.BytesIO(data)
            if item.type == LoadItemType.BYTE_IO:
                planner.load_bytes(item, piece)
                continue
            tensor = torch.load(piece, map_location="cpu", weights_only=True)
            for dimension, (start, length) in enumerate(zip(item.storage_offsets, item.lengths, strict=True)):
                tensor = tensor.narrow(dimension, start, length)
            target = planner.resolve_tensor(item).detach()
            target.copy_(tensor)
            planner.commit_tensor(item, target)
        done: Future[None] = Future()
        done.set_result(None)
        return done

    def _pieces(self, items: Sequence[ReadItem]) -> Iterator[tuple[ReadItem, bytes]]:
        """Yield items with their bytes; only a few are read ahead, so that memory stays small."""
        with ThreadPoolExecutor(_READ_THREADS, thread_name_prefix="baltoro-read") as pool:
            ahead: deque[tuple[ReadItem, ThreadFuture[bytes]]] = deque()
            for item in items:
                place = self._places[item.storage_index]
                uri = join(self._folder_uri, place.relative_path)
                ahead.append((item, pool.submit(self._storage.read_range, uri, place.offset, place.length)))
                if len(ahead) == _READ_THREADS:
                    first, read = ahead.popleft()
                    yield first, read.result()
            for item, read in ahead:
                yield item, read.result()

    @classmethod
    def validate_checkpoint_id(cls, checkpoint_id: Any) -> bool:  # noqa: ARG003
        """Return false: this reader is given explicitly, never guessed from a path."""
        return False


def _cut(items: Sequence[WriteItem], object_bytes: int) -> list[list[WriteItem]]:
    """Cut items, in order, into groups of about so many bytes; at least one item each."""
    groups: list[list[WriteItem]] = []
    filled = 0
    for item in items:
        size = _size_bytes(item)
        if not groups or filled + size > object_bytes:
            groups.append([])
            filled = 0
        groups[-1].append(item)
        filled += size
    return groups


def _size_bytes(item: WriteItem) -> int:
    if item.type == WriteItemType.BYTE_IO or item.tensor_data is None:
        return 0
    return item.tensor_data.chunk.sizes.numel() * item.tensor_data.properties.dtype.itemsize
