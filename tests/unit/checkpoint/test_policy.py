import math
from dataclasses import dataclass

import pytest
from hypothesis import given
from hypothesis import strategies as st

from baltoro.checkpoint.policy import is_due, split_kept


@dataclass(frozen=True)
class Known:
    step: int
    validation_loss: float | None = None


LOSSES = st.none() | st.floats(allow_nan=True, allow_infinity=True) | st.integers(0, 3).map(float)
HISTORIES = st.lists(st.tuples(st.integers(1, 5), LOSSES), max_size=12).map(
    lambda items: [
        Known(10 * sum(gap for gap, _ in items[: index + 1]), loss) for index, (_, loss) in enumerate(items)
    ]
)
RULES = st.fixed_dictionaries(
    {
        "keep_last": st.integers(1, 4),
        "keep_every_steps": st.none() | st.sampled_from([20, 30, 100]),
        "keep_best": st.integers(0, 3),
    }
)


@pytest.mark.parametrize(
    ("every", "due"), [(4, [4, 8, 10]), (None, [10]), (10, [10]), (1, list(range(1, 11)))]
)
def test_checkpoints_are_due_at_their_cadence_and_after_the_last_step(every, due):
    assert [step for step in range(1, 11) if is_due(step, every_steps=every, total_steps=10)] == due


def test_each_rule_keeps_its_own():
    losses = [2.0, 1.0, None, math.nan, 1.0, 3.0, -math.inf, 4.0]
    history = [Known(10 * number, loss) for number, loss in enumerate(losses, start=1)]
    steps = {
        name: [known.step for known in split_kept(history, **{"keep_last": 1, **rules})[0]]
        for name, rules in {
            "last": {"keep_last": 3},
            "every": {"keep_every_steps": 30},
            "best": {"keep_best": 2},
        }.items()
    }
    assert steps == {"last": [60, 70, 80], "every": [30, 60, 80], "best": [20, 50, 80]}


def test_of_equal_losses_the_older_is_the_best():
    history = [Known(10, 1.0), Known(20, 1.0), Known(30, 1.0)]
    assert split_kept(history, keep_last=1, keep_best=1)[0] == [history[0], history[2]]


def test_the_untrained_model_is_not_kept_as_a_multiple_of_steps():
    history = [Known(0), Known(10), Known(20)]
    assert split_kept(history, keep_last=1, keep_every_steps=10)[1] == [Known(0)]


@given(HISTORIES, RULES)
def test_nothing_is_lost_or_moved_and_the_newest_are_kept(history, rules):
    kept, dropped = split_kept(history, **rules)
    assert sorted(kept + dropped, key=lambda known: known.step) == history
    assert kept == sorted(kept, key=lambda known: known.step)
    assert dropped == sorted(dropped, key=lambda known: known.step)
    assert kept[-rules["keep_last"] :] == history[-rules["keep_last"] :]


@given(HISTORIES, RULES)
def test_deciding_after_every_checkpoint_keeps_what_deciding_once_would(history, rules):
    kept = []
    for known in history:
        kept, _ = split_kept([*kept, known], **rules)
    assert kept == split_kept(history, **rules)[0]


@given(HISTORIES, RULES)
def test_no_more_is_kept_than_the_rules_ask_for(history, rules):
    every = rules["keep_every_steps"]
    allowed = (
        rules["keep_last"] + rules["keep_best"] + sum(1 for h in history if every and h.step % every == 0)
    )
    assert len(split_kept(history, **rules)[0]) <= allowed
