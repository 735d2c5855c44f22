"""Reading sharded checkpoints straight from storage, each rank the byte ranges it needs."""

from __future__ import annotations

import io
import pickle
from typing import Any

from torch.distributed.checkpoint.metadata import Metadata
from torch.distributed.checkpoint.planner import LoadItemType, LoadPlan, LoadPlanner
from torch.distributed.checkpoint.storage import StorageReader

from baltoro.core.storage import Storage, join

METADATA_FILE = ".metadata"


class StoredShards(StorageReader):
    """A ``torch.distributed.checkpoint`` reader over a URI.

    One range request per tensor piece: a rank of another world size reads the pieces that overlap its shard,
    and no rank needs disk space for the whole. The files must have been verified before: ``.metadata`` is a
    pickle, and is trusted because its checksum comes from the run's head.

    Args:
        storage: gives access to the URI.
        folder_uri: the checkpoint's folder.
    """

    def __init__(self, storage: Storage, folder_uri: str) -> None:
        self._storage = storage
        self._folder_uri = folder_uri
        self._places: dict[Any, Any] = {}

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
        import torch
        from torch.futures import Future

        for item in plan.items:
            place = self._places[item.storage_index]
            uri = join(self._folder_uri, place.relative_path)
            piece = io.BytesIO(self._storage.read_range(uri, place.offset, place.length))
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

    @classmethod
    def validate_checkpoint_id(cls, checkpoint_id: Any) -> bool:  # noqa: ARG003
        """Return false: this reader is given explicitly, never guessed from a path."""
        return False
