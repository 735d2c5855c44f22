import pytest

from baltoro.checkpoint.policy import is_due, split_kept


@pytest.mark.parametrize(
    ("every", "due"), [(4, [4, 8, 10]), (None, [10]), (10, [10]), (1, list(range(1, 11)))]
)
def test_checkpoints_are_due_at_their_cadence_and_after_the_last_step(every, due):
    assert [step for step in range(1, 11) if is_due(step, every_steps=every, total_steps=10)] == due


def test_the_newest_are_kept():
    assert split_kept([1, 2, 3], 2) == ([2, 3], [1])
    assert split_kept([1], 2) == ([1], [])
