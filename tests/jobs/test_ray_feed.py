"""The Ray Data feed gives what the direct one gives, in the same order."""

import time

import numpy as np
import pytest

from baltoro.core.errors import ConfigError
from baltoro.core.storage import Storage
from baltoro.data.feed import FedStep, Feed, RowsInMemory
from baltoro.data.order import StepOrder
from baltoro.data.shards import RowBatch, TokenDataset, write_shard
from baltoro.jobs.training.ray_feed import RayDataFeed
from baltoro.testing.tiny import tiny_rows

pytestmark = [pytest.mark.jobs, pytest.mark.timeout(300)]

ROWS, LENGTH = 480, 16


@pytest.fixture(scope="module")
def dataset(tmp_path_factory) -> TokenDataset:
    """Three shards of rows that can be told apart."""
    folder = tmp_path_factory.mktemp("shards")
    rows = tiny_rows(ROWS, LENGTH)
    files = []
    for start in range(0, ROWS, 160):
        path = folder / f"{start}.parquet"
        files.append(
            write_shard(
                rows.slice(start, start + 160),
                path,
                uri=str(path),
                rows_per_row_group=32,
                tokenizer_fingerprint="bytes",
                origin="test",
            )
        )
    return TokenDataset.open(files, Storage())


def same_rows(one: RowBatch, other: RowBatch) -> bool:
    return (
        np.array_equal(one.input_ids, other.input_ids)
        and all(map(np.array_equal, one.segment_ends, other.segment_ends))
        and all(map(np.array_equal, one.paper_index, other.paper_index))
        and (one.loss_mask is None) == (other.loss_mask is None)
        and (one.loss_mask is None or np.array_equal(one.loss_mask, other.loss_mask))
    )


def assert_same(ours: list[FedStep], expected: list[FedStep]) -> None:
    assert [step.step for step in ours] == [step.step for step in expected]
    for step, other in zip(ours, expected, strict=True):
        assert step.rows == other.rows
        assert [part.rows for part in step.micro_batches] == [part.rows for part in other.micro_batches]
        for part, same in zip(step.micro_batches, other.micro_batches, strict=True):
            assert same_rows(part.batch, same.batch)


@pytest.mark.parametrize(
    ("world_size", "rank", "micro_batch", "uneven", "start"),
    [(1, 0, 4, False, 0), (2, 1, 2, False, 7), (3, 2, 2, True, 0), (3, 0, 5, True, 11)],
)
def test_both_feeds_give_the_same_steps(ray_session, dataset, world_size, rank, micro_batch, uneven, start):
    order = StepOrder(ROWS, LENGTH, 8 * LENGTH)
    split = order.split(world_size, micro_batch, uneven=uneven)
    with Feed(dataset, order, split, rank=rank, start_step=start) as feed:
        expected = list(feed)
    with RayDataFeed(dataset, order, split, rank=rank, start_step=start) as feed:
        assert_same(list(feed), expected)
    assert len(expected) == 60 - start


def test_loss_masks_travel_along(ray_session):
    rows = tiny_rows(16, LENGTH)
    masked = RowBatch(rows.input_ids, rows.segment_ends, rows.paper_index, rows.input_ids % 3 == 0)
    order = StepOrder(16, LENGTH, 4 * LENGTH)
    with Feed(RowsInMemory(masked), order, order.split(1, 2), rank=0, stop_step=3) as feed:
        expected = list(feed)
    with RayDataFeed(RowsInMemory(masked), order, order.split(1, 2), rank=0, stop_step=3) as feed:
        assert_same(list(feed), expected)


def test_a_feed_may_be_left_early_and_a_missing_row_is_refused(ray_session, dataset):
    order = StepOrder(ROWS, LENGTH, 8 * LENGTH)
    with RayDataFeed(dataset, order, order.split(1, 2), rank=0) as feed:
        assert next(iter(feed)).step == 0
    assert list(feed) == []
    with pytest.raises(ConfigError, match="61 steps of 8 rows"):
        RayDataFeed(dataset, order, order.split(1, 2), rank=0, stop_step=61)


def test_nothing_left_to_feed_is_the_end(ray_session, dataset):
    order = StepOrder(ROWS, LENGTH, 8 * LENGTH)
    with RayDataFeed(dataset, order, order.split(1, 2), rank=0, start_step=60) as feed:
        assert list(feed) == []


def test_figures_of_both(ray_session, tmp_path):
    """Printed, not compared: which of the two is the default was decided by such a measurement."""
    rows, length = 4096, 1024
    batch = RowBatch(
        np.random.default_rng(0).integers(0, 30_000, (rows, length), dtype=np.int32),
        [np.array([length], dtype=np.int32)] * rows,
        [np.zeros(1, dtype=np.int32)] * rows,
    )
    path = tmp_path / "rows.parquet"
    file = write_shard(
        batch, path, uri=str(path), rows_per_row_group=256, tokenizer_fingerprint="x", origin="test"
    )
    order = StepOrder(rows, length, 8 * length)
    for kind in (Feed, RayDataFeed):
        began = time.perf_counter()
        with kind(TokenDataset.open([file], Storage()), order, order.split(1, 8), rank=0) as feed:
            next(feed)
            first = time.perf_counter() - began
            steps = sum(1 for _ in feed)
        seconds = time.perf_counter() - began - first
        print(f"{kind.__name__}: first step after {first:.2f} s, then {8 * steps / seconds:,.0f} rows/s")
        assert steps == order.steps - 1
