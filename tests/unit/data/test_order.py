import pytest
from hypothesis import given
from hypothesis import strategies as st

from baltoro.core.errors import ConfigError
from baltoro.data.order import StepOrder

splits = st.tuples(st.integers(1, 5), st.integers(1, 4), st.integers(1, 4))


@given(splits, st.integers(0, 9), st.integers(0, 50))
def test_ranks_in_order_are_the_rows_of_the_step(split, step, rest):
    world_size, micro_batch, accumulation = split
    rows = world_size * micro_batch * accumulation
    order = StepOrder(10 * rows + rest, 16, rows * 16)
    joined = [
        row
        for rank in range(world_size)
        for part in order.rows_of_rank(step, rank, order.split(world_size, micro_batch))
        for row in part
    ]
    assert joined == list(order.rows_of_step(step)) == list(range(step * rows, (step + 1) * rows))
    assert order.split(world_size, micro_batch).accumulation == accumulation


@given(st.integers(1, 12), st.integers(1, 9), st.integers(1, 4), st.integers(0, 3))
def test_an_uneven_split_feeds_every_row_once_and_every_rank_as_many_micro_batches(
    rows, world_size, micro_batch, step
):
    order = StepOrder(5 * rows, 16, rows * 16)
    split = order.split(world_size, micro_batch, uneven=True)
    fed = [order.rows_of_rank(step, rank, split) for rank in range(world_size)]
    assert [row for parts in fed for part in parts for row in part] == list(order.rows_of_step(step))
    assert {len(parts) for parts in fed} == {split.accumulation}
    assert all(len(part) <= micro_batch for parts in fed for part in parts)
    shares = [sum(map(len, parts)) for parts in fed]
    assert max(shares) - min(shares) <= 1
    if rows % (world_size * micro_batch) == 0:
        assert split == order.split(world_size, micro_batch)


@given(st.integers(0, 200), st.integers(1, 20))
def test_steps_and_dropped_rows_account_for_every_row(total_rows, rows_per_step):
    order = StepOrder(total_rows, 16, rows_per_step * 16)
    assert order.steps * rows_per_step + order.dropped_rows == total_rows
    assert order.dropped_rows < rows_per_step
    assert [row for step in range(order.steps) for row in order.rows_of_step(step)] == list(
        range(total_rows - order.dropped_rows)
    )


def test_a_batch_that_is_no_whole_number_of_rows_names_its_neighbours():
    with pytest.raises(
        ConfigError, match=r"global_batch_tokens=5000 .* sequence_length=2048.* 4096 and 6144"
    ):
        StepOrder(10, 2048, 5000)
    with pytest.raises(ConfigError, match=r"nearest valid value is 2048"):
        StepOrder(10, 2048, 1000)


def test_more_steps_than_rows_are_refused_with_the_remedy():
    order = StepOrder(10, 8, 32)
    order.check_steps(2)
    with pytest.raises(
        ConfigError, match=r"3 steps of 4 rows need 12 rows, the dataset has 10.*raise epochs"
    ):
        order.check_steps(3)
    with pytest.raises(ConfigError, match="raise epochs"):
        order.rows_of_step(2)
    with pytest.raises(ConfigError, match="enough for 0 steps"):
        StepOrder(3, 8, 32).rows_of_step(0)


def test_a_split_that_does_not_divide_names_values_that_do():
    order = StepOrder(100, 8, 10 * 8)
    with pytest.raises(ConfigError, match=r"10 rows .*2 data ranks × micro_batch 4 = 8 rows") as caught:
        order.split(2, 4)
    assert "set global_batch_tokens to 64 or 128, or micro_batch to 1" in str(caught.value)
    assert StepOrder(100, 8, 64).split(2, 4).accumulation == 1
    assert StepOrder(100, 8, 128).split(2, 4).accumulation == 2
    assert order.split(2, 1).accumulation == 5


def test_a_micro_batch_larger_than_the_step_is_refused():
    with pytest.raises(
        ConfigError, match=r"set global_batch_tokens to 48, or the number of data ranks to 2$"
    ):
        StepOrder(100, 8, 32).split(3, 2)


def test_a_rank_that_is_not_there_is_refused():
    order = StepOrder(100, 8, 32)
    with pytest.raises(ValueError, match="rank 2 is not among the 2 data ranks"):
        order.rows_of_rank(0, 2, order.split(2, 2))
