"""The copy of a rank's share in host memory that a save is written from while training goes on."""

from __future__ import annotations

import io
from typing import Any

import torch
from torch.distributed.checkpoint._nested_dict import flatten_state_dict
from torch.distributed.checkpoint.default_planner import DefaultLoadPlanner, DefaultSavePlanner
from torch.distributed.checkpoint.metadata import Metadata, MetadataIndex, StorageMeta
from torch.distributed.checkpoint.planner import SavePlan, WriteItem, WriteItemType

from baltoro.parallel.ranks import Ranks


class StagedPlanner(DefaultSavePlanner):
    """Plans the save of a copy: everything was planned and copied when it was made.

    Args:
        state_dict: only its layout is used after :meth:`copy_from` is done.
        is_coordinator: whether this is rank 0.
    """

    def __init__(self, state_dict: dict[str, Any], *, is_coordinator: bool) -> None:
        super().__init__()
        super().set_up_planner(state_dict, None, is_coordinator)
        self.local_plan = super().create_local_plan()
        self.mine: frozenset[MetadataIndex] | None = None
        self._copies: dict[MetadataIndex, torch.Tensor | bytes] = {}

    def lookup_object(self, index: MetadataIndex) -> Any:
        """Return the value behind an index; pieces of tensors that are none of torch's know their own."""
        value = self.state_dict[index.fqn]
        if hasattr(value, "__get_tensor_shard__"):
            return value.__get_tensor_shard__(index)
        return super().lookup_object(index)

    def copy(self, copies: dict[MetadataIndex, torch.Tensor | bytes]) -> None:
        """Resolve data from these copies from now on, and let go of what they were made of."""
        self._copies = copies
        self.state_dict = {}

    def original(self, item: WriteItem) -> Any:
        """Return what an item is to be copied from: a tensor on its device, or a stream of bytes."""
        return super().resolve_data(item)

    def set_up_planner(
        self,
        state_dict: dict[str, Any],
        storage_meta: StorageMeta | None = None,
        is_coordinator: bool = False,
    ) -> None:
        """Do nothing: it is set up."""

    def create_local_plan(self) -> SavePlan:
        """Return the plan of what was copied."""
        return self.local_plan

    def finish_plan(self, new_plan: SavePlan) -> SavePlan:
        """Remember what this rank is to write of what several ranks have."""
        self.mine = frozenset(item.index for item in new_plan.items)
        return super().finish_plan(new_plan)

    def resolve_data(self, write_item: WriteItem) -> torch.Tensor | io.BytesIO:
        """Return the copy of an item."""
        value = self._copies[write_item.index]
        return io.BytesIO(value) if isinstance(value, bytes) else value


class HostCopies:
    """Copies a rank's share to host memory, into the same buffers each time (pinned beside a GPU).

    What several ranks have is written by one of them. Which, is known after the first save of a layout; from
    then on each rank copies only what it is going to write.

    Args:
        device: where the model is.
    """

    def __init__(self, device: torch.device) -> None:
        self._pinned = device.type == "cuda"
        self._buffers: dict[MetadataIndex, torch.Tensor] = {}
        self._last: StagedPlanner | None = None

    def take(self, state_dict: dict[str, Any], ranks: Ranks) -> StagedPlanner:
        """Copy; training may change the originals afterwards. The copies before are overwritten.

        Args:
            state_dict: this rank's share.
            ranks: all of them call this together.
        """
        planner = StagedPlanner(state_dict, is_coordinator=ranks.rank == 0)
        mine = None
        if self._last is not None and self._last.local_plan.items == planner.local_plan.items:
            mine = self._last.mine
        if any(ranks.each(lambda: mine is None)):
            mine = None
        copies: dict[MetadataIndex, torch.Tensor | bytes] = {}
        for item in planner.local_plan.items:
            if mine is not None and item.index not in mine:
                continue
            original = planner.original(item)
            if item.type == WriteItemType.BYTE_IO:
                copies[item.index] = original.getvalue()
            else:
                buffer = self._buffer(item.index, original)
                buffer.copy_(original.detach(), non_blocking=self._pinned)
                copies[item.index] = buffer
        if self._pinned:
            torch.cuda.current_stream().synchronize()
        planner.copy(copies)
        self._buffers = {index: self._buffers[index] for index in copies if index in self._buffers}
        self._last = planner
        return planner

    def _buffer(self, index: MetadataIndex, original: torch.Tensor) -> torch.Tensor:
        buffer = self._buffers.get(index)
        if buffer is None or buffer.shape != original.shape or buffer.dtype != original.dtype:
            buffer = torch.empty(original.shape, dtype=original.dtype, pin_memory=self._pinned)
            self._buffers[index] = buffer
        return buffer


class ShardLoadPlanner(DefaultLoadPlanner):
    """Plans a load in place, also into pieces of tensors that are none of torch's."""

    def set_up_planner(
        self,
        state_dict: dict[str, Any],
        metadata: Metadata | None = None,
        is_coordinator: bool = False,
    ) -> None:
        """Take note of what is to be filled.

        torch's own way to get storage for tensors on the meta device, of which there are none here, would
        replace every value of a type that it does not know.
        """
        self.original_state_dict = state_dict
        self.state_dict, self.mappings = flatten_state_dict(state_dict)
        self.metadata = metadata
        self.is_coordinator = is_coordinator

    def lookup_tensor(self, index: MetadataIndex) -> torch.Tensor:
        """Return the tensor behind an index."""
        value = self.state_dict[index.fqn]
        if hasattr(value, "__get_tensor_shard__"):
            shard: torch.Tensor = value.__get_tensor_shard__(index)
            return shard
        return super().lookup_tensor(index)
