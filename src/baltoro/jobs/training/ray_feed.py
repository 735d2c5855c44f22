"""The Ray Data feed: an actor of the cluster reads the rows; a range of steps becomes row slices, in order.

It gives the very same steps as :class:`baltoro.data.feed.Feed`, which reads in the worker's own process and
is the default, being the quicker one. This one takes decoding out of the workers' processes, for the price of
moving every row through the object store.
"""

from __future__ import annotations

from collections.abc import Generator, Iterator
from types import TracebackType
from typing import TYPE_CHECKING, Self

import numpy as np
import pyarrow as pa

from baltoro.data.feed import FedStep, RowSource, read_step
from baltoro.data.order import Split, StepOrder
from baltoro.data.shards import RowBatch, rows_from_table, rows_to_table

if TYPE_CHECKING:
    import numpy.typing as npt

_STEP, _ROW = "step", "row"
_STEPS_PER_TASK = 32


class RayDataFeed:
    """Iterates over the steps of one rank from ``start_step`` on; a context manager like ``Feed``.

    Args:
        dataset: the rows, picklable.
        order: for this dataset.
        split: of the order's steps among the ranks.
        rank: among the ranks that are fed different data.
        start_step: first step, from 0.
        stop_step: one past the last step; ``None`` for all the dataset has.
        prefetch_steps: steps kept ready, at least 1.

    Raises:
        ConfigError: the dataset has fewer steps.
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
        last = order.steps if stop_step is None else stop_step
        order.check_steps(last)
        self._order, self._split, self._rank = order, split, rank
        self._tables: Iterator[pa.Table] = iter(())
        if last > start_step:
            self._tables = _read_by_tasks(
                StepReader(dataset, order, split, rank, start_step), last - start_step, prefetch_steps
            )
        self._fed = self._steps()

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> FedStep:
        return next(self._fed)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """End the tasks that read ahead. May be called again."""
        self._fed.close()
        if isinstance(self._tables, Generator):
            self._tables.close()

    def _steps(self) -> Generator[FedStep, None, None]:
        for table in self._tables:
            steps = table.column(_STEP).to_numpy()
            # A block may hold several steps, in order, each with all of its rows.
            starts = np.flatnonzero(np.diff(steps, prepend=-1))
            for start, stop in zip(starts, [*starts[1:], len(steps)], strict=True):
                part = table.slice(start, stop - start)
                given = _Given(int(part.column(_ROW)[0].as_py()), rows_from_table(part))
                yield read_step(given, self._order, self._split, int(steps[start]), self._rank)


class StepReader:
    """What an actor of Ray Data does: numbers of steps to tables of the rank's rows."""

    def __init__(
        self, dataset: RowSource, order: StepOrder, split: Split, rank: int, start_step: int
    ) -> None:
        self._dataset, self._order, self._split, self._rank = dataset, order, split, rank
        self._start_step = start_step

    def __call__(self, batch: dict[str, npt.NDArray[np.int64]]) -> Iterator[pa.Table]:
        """Yield the rows of each step of a batch (numbers count from the first step that is fed)."""
        for number in batch["id"]:
            step = self._start_step + int(number)
            read = _Noted(self._dataset)
            read_step(read, self._order, self._split, step, self._rank)
            table = rows_to_table(read.rows)
            rows = np.arange(read.start, read.start + len(read.rows), dtype=np.int64)
            yield table.append_column(_STEP, pa.array(np.full(len(rows), step))).append_column(
                _ROW, pa.array(rows)
            )


class _Noted:
    """A dataset that notes the one range of rows that is read of it."""

    rows: RowBatch
    start: int

    def __init__(self, dataset: RowSource) -> None:
        self._dataset = dataset

    def __len__(self) -> int:
        return len(self._dataset)

    def read_rows(self, start: int, stop: int) -> RowBatch:
        self.start, self.rows = start, self._dataset.read_rows(start, stop)
        return self.rows


class _Given:
    """Rows that were read elsewhere, under their numbers in the dataset."""

    def __init__(self, start: int, rows: RowBatch) -> None:
        self._start, self._rows = start, rows

    def __len__(self) -> int:
        return self._start + len(self._rows)

    def read_rows(self, start: int, stop: int) -> RowBatch:
        return self._rows.slice(start - self._start, stop - self._start)


def _read_by_tasks(reader: StepReader, steps: int, prefetch_steps: int) -> Generator[pa.Table, None, None]:
    """Return the tables in the order of steps, read by one actor of Ray Data."""
    import ray.data

    context = ray.data.DataContext.get_current().copy()
    context.execution_options.preserve_order = True
    context.enable_progress_bars = False
    with ray.data.DataContext.current(context):
        dataset = ray.data.range(steps, override_num_blocks=max(1, -(-steps // _STEPS_PER_TASK))).map_batches(
            _Actor,
            fn_constructor_args=(reader,),
            batch_size=_STEPS_PER_TASK,
            compute=ray.data.ActorPoolStrategy(size=1),
            # Training has reserved its CPUs; an actor that waits for one would wait for ever.
            num_cpus=0,
        )
        yield from dataset.iter_batches(
            batch_size=None, batch_format="pyarrow", prefetch_batches=prefetch_steps
        )


class _Actor:
    """Keeps the reader, with its open files and decoded row groups, from call to call."""

    def __init__(self, reader: StepReader) -> None:
        self._reader = reader

    def __call__(self, batch: dict[str, npt.NDArray[np.int64]]) -> Iterator[pa.Table]:
        yield from self._reader(batch)
