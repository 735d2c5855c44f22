"""Talking between ranks: sums of tensors, and calls whose outcome every rank learns.

A call that only one rank makes, or that may fail on one rank alone, must not leave the others waiting in a
collective for ever: :meth:`Ranks.first` and :meth:`Ranks.each` hand the error to every rank instead.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import timedelta
from typing import TYPE_CHECKING, Any, TypeVar

from baltoro.core.errors import BaltoroError, TrainingError

if TYPE_CHECKING:
    import torch

T = TypeVar("T")


class Ranks:
    """The ranks of the initialised process group, with a CPU channel of their own for objects.

    Making one is collective. Two instances have separate channels, so a background thread with its own
    instance cannot get out of step with the training thread.

    Args:
        timeout_seconds: that a rank waits for the others here; PyTorch's half an hour if not given.

    Attributes:
        rank: this process, 0-based.
        world_size: number of processes.
        group: the gloo process group that carries objects.
    """

    def __init__(self, timeout_seconds: float | None = None) -> None:
        import torch.distributed as dist

        if not dist.is_initialized():
            raise RuntimeError("the process group must be initialised before Ranks is made")
        self.rank: int = dist.get_rank()
        self.world_size: int = dist.get_world_size()
        timeout = None if timeout_seconds is None else timedelta(seconds=timeout_seconds)
        self.group: Any = dist.new_group(backend="gloo", timeout=timeout)

    def sum(self, values: torch.Tensor) -> torch.Tensor:
        """Return the sum of a tensor over all ranks, on its own device (the default process group)."""
        import torch.distributed as dist

        total = values.clone()
        if self.world_size > 1:
            dist.all_reduce(total)
        return total

    def sum_counts(self, counts: Sequence[int]) -> list[int]:
        """Return the sums of some numbers over all ranks; they neither come from a GPU nor go there."""
        import torch
        import torch.distributed as dist

        total = torch.tensor(counts, dtype=torch.int64)
        if self.world_size > 1:
            dist.all_reduce(total, group=self.group)
        sums: list[int] = total.tolist()
        return sums

    def barrier(self) -> None:
        """Wait until every rank is here."""
        import torch.distributed as dist

        dist.barrier(group=self.group)

    def first(self, call: Callable[[], T]) -> T:
        """Run ``call`` on rank 0 only and return its result on every rank.

        Raises:
            BaltoroError: the one that ``call`` raised, on every rank; another kind of error keeps its
                type on rank 0 and is a TrainingError on the others.
        """
        import torch.distributed as dist

        outcome: list[Any] = [None, None]
        failure: Exception | None = None
        if self.rank == 0:
            try:
                outcome[0] = call()
            except Exception as error:  # noqa: BLE001  (re-raised below, once the others know)
                failure, outcome[1] = error, _portable(error, rank=0)
        dist.broadcast_object_list(outcome, src=0, group=self.group)
        if failure is not None:
            raise failure
        if outcome[1] is not None:
            raise outcome[1]
        return outcome[0]  # type: ignore[no-any-return]

    def each(self, call: Callable[[], T]) -> list[T]:
        """Run ``call`` on every rank and return all results in rank order.

        Raises:
            BaltoroError: this rank's own error, or that of the first failing rank, on every rank.
        """
        import torch.distributed as dist

        mine: tuple[Any, BaltoroError | None]
        failure: Exception | None = None
        try:
            mine = (call(), None)
        except Exception as error:  # noqa: BLE001  (re-raised below, once the others know)
            failure, mine = error, (None, _portable(error, rank=self.rank))
        gathered: list[tuple[Any, BaltoroError | None]] = [(None, None)] * self.world_size
        dist.all_gather_object(gathered, mine, group=self.group)
        if failure is not None:
            raise failure
        for _, reported in gathered:
            if reported is not None:
                raise reported
        return [value for value, _ in gathered]


def _portable(error: Exception, *, rank: int) -> BaltoroError:
    """Return an error that survives pickling, whatever was raised."""
    if isinstance(error, BaltoroError):
        return error
    return TrainingError(f"rank {rank} failed: {type(error).__name__}: {error}")
