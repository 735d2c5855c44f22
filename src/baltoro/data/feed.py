"""What one rank is fed: its micro-batches step by step, read ahead by a thread."""

from __future__ import annotations

import queue
import threading
from types import TracebackType
from typing import Self

from baltoro.data.order import StepOrder
from baltoro.data.shards import RowBatch, TokenDataset

_POLL_SECONDS = 0.1


class Feed:
    """Iterates over ``(step, micro-batches)`` from ``start_step`` on; starting late costs nothing.

    A thread keeps up to ``prefetch_steps`` steps ready; what it raises is raised where the feed is
    consumed. Use as a context manager, or call :meth:`close`. The dataset belongs to the feed while it
    runs.
    """

    def __init__(
        self,
        dataset: TokenDataset,
        order: StepOrder,
        *,
        rank: int,
        world_size: int,
        micro_batch: int,
        start_step: int = 0,
        stop_step: int | None = None,
        prefetch_steps: int = 2,
    ) -> None:
        """Check the arithmetic and start reading.

        Args:
            dataset: the rows.
            order: for this dataset.
            rank: among the ranks that are fed different data.
            world_size: number of those ranks.
            micro_batch: rows of a micro-batch; the accumulation follows from it.
            start_step: first step, from 0.
            stop_step: one past the last step; ``None`` for all the dataset has.
            prefetch_steps: steps kept ready, at least 1.

        Raises:
            ConfigError: the rows of a step cannot be divided so, or the dataset has fewer steps.
            ValueError: ``start_step`` or ``prefetch_steps`` is below its minimum.
        """
        if start_step < 0 or prefetch_steps < 1:
            raise ValueError(
                f"start_step={start_step} and prefetch_steps={prefetch_steps} must be at least 0 and 1"
            )
        self.accumulation = order.accumulation(world_size, micro_batch)
        last = order.steps if stop_step is None else stop_step
        order.check_steps(last)
        self._dataset, self._order = dataset, order
        self._split = (rank, world_size, micro_batch, self.accumulation)
        self._steps = range(start_step, last)
        self._ready: queue.Queue[tuple[int, list[RowBatch]] | BaseException | None] = queue.Queue(
            prefetch_steps
        )
        self._closed = threading.Event()
        self._thread = threading.Thread(target=self._read_ahead, name="baltoro-feed", daemon=True)
        self._thread.start()

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> tuple[int, list[RowBatch]]:
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
                if not self._put((step, self._read_step(step))):
                    return
            self._put(None)
        except BaseException as error:  # noqa: BLE001  (handed to the consumer, which raises it)
            self._put(error)

    def _read_step(self, step: int) -> list[RowBatch]:
        ranges = self._order.rows_of_rank(step, *self._split)
        rows = self._dataset.read_rows(ranges[0].start, ranges[-1].stop)
        first = ranges[0].start
        return [rows.slice(part.start - first, part.stop - first) for part in ranges]

    def _put(self, item: tuple[int, list[RowBatch]] | BaseException | None) -> bool:
        while not self._closed.is_set():
            try:
                self._ready.put(item, timeout=_POLL_SECONDS)
            except queue.Full:
                continue
            return True
        return False
