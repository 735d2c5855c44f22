"""What one rank is fed: its micro-batches step by step, read ahead by a thread.

A feed is anything that gives :class:`FedStep` in order and can be closed; :class:`Feed` reads the dataset
itself.
"""

from __future__ import annotations

import queue
import threading
from dataclasses import dataclass
from types import TracebackType
from typing import Protocol, Self

from baltoro.data.order import Split, StepOrder
from baltoro.data.shards import RowBatch

_POLL_SECONDS = 0.1


@dataclass(frozen=True, slots=True)
class FedRows:
    """One micro-batch of one rank.

    Attributes:
        rows: their numbers in the dataset; empty where an uneven split leaves this rank nothing to do.
        batch: the rows; where ``rows`` is empty, some row that keeps the rank in step and must not count.
    """

    rows: range
    batch: RowBatch


@dataclass(frozen=True, slots=True)
class FedStep:
    """What one rank is fed in one step.

    Attributes:
        step: counted from 0.
        rows: of the step, over all ranks.
        micro_batches: this rank's.
    """

    step: int
    rows: range
    micro_batches: list[FedRows]


class RowSource(Protocol):
    """What a feed asks of a dataset."""

    def __len__(self) -> int: ...

    def read_rows(self, start: int, stop: int) -> RowBatch:
        """Return rows ``[start, stop)``."""


class RowsInMemory:
    """Rows behind the two things that training asks of a token dataset."""

    def __init__(self, batch: RowBatch) -> None:
        self._batch = batch
        self.sequence_length = batch.sequence_length

    def __len__(self) -> int:
        return len(self._batch)

    def read_rows(self, start: int, stop: int) -> RowBatch:
        """Return rows ``[start, stop)``."""
        return self._batch.slice(start, stop)


class Feed:
    """Iterates over the steps of one rank from ``start_step`` on; starting late costs nothing.

    A thread keeps up to ``prefetch_steps`` steps ready; what it raises is raised where the feed is
    consumed. Use as a context manager, or call :meth:`close`. The dataset belongs to the feed while it
    runs.
    """

    def __init__(
        self,
        dataset: RowSource,
        order: StepOrder,
        split: Split,
        *,
        rank: int,
        start_step: int = 0,
        stop_step: int | None = None,
        prefetch_steps: int = 2,
    ) -> None:
        """Check the arithmetic and start reading.

        Args:
            dataset: the rows.
            order: for this dataset.
            split: of the order's steps among the ranks.
            rank: among the ranks that are fed different data.
            start_step: first step, from 0.
            stop_step: one past the last step; ``None`` for all the dataset has.
            prefetch_steps: steps kept ready, at least 1.

        Raises:
            ConfigError: the dataset has fewer steps.
            ValueError: ``start_step`` or ``prefetch_steps`` is below its minimum.
        """
        if start_step < 0 or prefetch_steps < 1:
            raise ValueError(
                f"start_step={start_step} and prefetch_steps={prefetch_steps} must be at least 0 and 1"
            )
        last = order.steps if stop_step is None else stop_step
        order.check_steps(last)
        self._dataset, self._order, self._split, self._rank = dataset, order, split, rank
        self._steps = range(start_step, last)
        self._ready: queue.Queue[FedStep | BaseException | None] = queue.Queue(prefetch_steps)
        self._closed = threading.Event()
        self._thread = threading.Thread(target=self._read_ahead, name="baltoro-feed", daemon=True)
        self._thread.start()

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> FedStep:
        while not self._closed.is_set():
            try:
                item = self._ready.get(timeout=_POLL_SECONDS)
            except queue.Empty:
                continue
            if item is None:
                self.close()
            elif isinstance(item, BaseException):
                self.close()
                raise item
            else:
                return item
        raise StopIteration

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Stop the thread and wait for it; the feed then ends. May be called again."""
        self._closed.set()
        self._thread.join()

    def _read_ahead(self) -> None:
        try:
            for step in self._steps:
                if not self._put(read_step(self._dataset, self._order, self._split, step, self._rank)):
                    return
            self._put(None)
        except BaseException as error:  # noqa: BLE001  (handed to the consumer, which raises it)
            self._put(error)

    def _put(self, item: FedStep | BaseException | None) -> bool:
        while not self._closed.is_set():
            try:
                self._ready.put(item, timeout=_POLL_SECONDS)
            except queue.Full:
                continue
            return True
        return False


def read_step(dataset: RowSource, order: StepOrder, split: Split, step: int, rank: int) -> FedStep:
    """Return what a rank is fed in a step, with one read of its rows.

    Raises:
        ConfigError: the step lies beyond the dataset.
        ArtifactError: rows are missing or altered.
    """
    ranges = order.rows_of_rank(step, rank, split)
    first, stop = ranges[0].start, max(part.stop for part in ranges)
    if first == stop:
        first = order.rows_of_step(step).start
        stop = first + 1
    rows = dataset.read_rows(first, stop)
    return FedStep(
        step,
        order.rows_of_step(step),
        [
            FedRows(part, rows.slice(part.start - first, part.stop - first) if part else rows.slice(0, 1))
            for part in ranges
        ],
    )
