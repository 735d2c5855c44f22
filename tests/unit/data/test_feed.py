import threading

import numpy as np
import pytest

from baltoro.core.errors import ArtifactError, ConfigError
from baltoro.core.storage import Storage
from baltoro.data.feed import Feed
from baltoro.data.order import StepOrder
from baltoro.data.shards import RowBatch, TokenDataset, shard_ranges, write_shard

ROWS, WIDTH, PER_STEP = 50, 4, 12


@pytest.fixture
def files(tmp_path):
    """50 rows, each filled with its own number."""
    whole = RowBatch(
        np.repeat(np.arange(ROWS, dtype=np.int32), WIDTH).reshape(ROWS, WIDTH),
        [np.array([WIDTH], dtype=np.int32)] * ROWS,
        [np.array([0], dtype=np.int32)] * ROWS,
    )
    return [
        write_shard(
            whole.slice(rows.start, rows.stop),
            tmp_path / f"{rows.start}",
            uri=str(tmp_path / f"{rows.start}"),
            rows_per_row_group=5,
            tokenizer_fingerprint="f",
            origin=f"d/{rows.start}",
        )
        for rows in shard_ranges(ROWS, 20)
    ]


@pytest.fixture
def order():
    return StepOrder(ROWS, WIDTH, PER_STEP * WIDTH)


class CountingDataset(TokenDataset):
    """Counts reads, and can be told to fail."""

    reads: list[int]
    fail_at = 10**9

    def read_rows(self, start, stop):
        self.reads.append(start)
        if start >= self.fail_at:
            raise ArtifactError("shard 7: damaged")
        return super().read_rows(start, stop)


@pytest.fixture
def dataset(files):
    with CountingDataset.open(files, Storage()) as dataset:
        dataset.reads = []
        yield dataset


def feed(dataset, order, rank=0, world_size=1, micro_batch=2, *, uneven=False, **settings):
    return Feed(dataset, order, order.split(world_size, micro_batch, uneven=uneven), rank=rank, **settings)


def row_numbers(fed):
    """The rows that were really fed, after checking that they are the ones the feed claims."""
    found = [[int(row) for row in part.batch.input_ids[:, 0]] for part in fed.micro_batches if part.rows]
    assert found == [list(part.rows) for part in fed.micro_batches if part.rows]
    return [row for rows in found for row in rows]


@pytest.mark.parametrize(
    ("world_size", "micro_batch"), [(1, 12), (1, 1), (2, 3), (3, 4), (4, 1), (12, 1), (6, 2)]
)
def test_ranks_in_order_are_fed_the_same_rows_whatever_the_split(dataset, order, world_size, micro_batch):
    steps: dict[int, list[int]] = {}
    for rank in range(world_size):
        with feed(dataset, order, rank, world_size, micro_batch) as fed:
            for given in fed:
                sizes = [len(part.batch) for part in given.micro_batches]
                assert sizes == [micro_batch] * (PER_STEP // world_size // micro_batch)
                assert given.rows == order.rows_of_step(given.step)
                steps.setdefault(given.step, []).extend(row_numbers(given))
    assert steps == {step: list(range(step * PER_STEP, (step + 1) * PER_STEP)) for step in range(4)}


@pytest.mark.parametrize(("world_size", "micro_batch"), [(5, 1), (5, 2), (7, 4), (13, 2)])
def test_ranks_of_an_uneven_split_are_fed_every_row_once_and_stay_in_step(
    dataset, order, world_size, micro_batch
):
    fed_rows, counts = [], set()
    for rank in range(world_size):
        with feed(dataset, order, rank, world_size, micro_batch, uneven=True, stop_step=1) as fed:
            (given,) = fed
        fed_rows += row_numbers(given)
        counts.add(len(given.micro_batches))
        assert all(len(part.batch) == max(len(part.rows), 1) for part in given.micro_batches)
    assert fed_rows == list(range(PER_STEP))
    assert len(counts) == 1


def test_a_feed_starts_and_stops_at_any_step(dataset, order):
    with feed(dataset, order, start_step=2, stop_step=3) as fed:
        assert [(given.step, row_numbers(given)) for given in fed] == [(2, list(range(24, 36)))]
    with feed(dataset, order, start_step=4) as fed:
        assert list(fed) == []


def test_a_late_start_reads_nothing_before_it(dataset, order):
    with feed(dataset, order, start_step=3) as fed:
        assert [given.step for given in fed] == [3]
    assert dataset.reads == [36]


def test_an_error_while_reading_ahead_reaches_the_consumer(dataset, order):
    dataset.fail_at = 24
    with feed(dataset, order) as fed:
        assert next(fed).step == 0
        assert next(fed).step == 1
        with pytest.raises(ArtifactError, match="shard 7: damaged"):
            next(fed)
        with pytest.raises(StopIteration):
            next(fed)


def test_reading_ahead_is_bounded_and_closing_ends_the_thread(dataset, order):
    fed = feed(dataset, order, micro_batch=12, prefetch_steps=1)
    assert next(fed).step == 0
    for _ in range(100):
        if len(dataset.reads) == 3:
            break
        threading.Event().wait(0.02)
    assert dataset.reads == [0, 12, 24]  # one consumed, one ready, one held by the thread that waits
    before = threading.active_count()
    fed.close()
    fed.close()
    assert threading.active_count() == before - 1
    assert list(fed) == []


def test_a_split_or_length_that_cannot_be_is_refused_before_reading(dataset, order):
    with pytest.raises(ConfigError, match=r"5 data ranks × micro_batch 1"):
        feed(dataset, order, world_size=5, micro_batch=1)
    with pytest.raises(ConfigError, match="5 steps of 12 rows need 60 rows"):
        feed(dataset, order, stop_step=5)
    with pytest.raises(ValueError, match="start_step=-1"):
        feed(dataset, order, start_step=-1)
