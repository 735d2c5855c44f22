import pytest
import torch

from baltoro.checkpoint.state import TrainState
from baltoro.parallel.strategy import Update
from baltoro.parallel.timing import PhaseTimer
from baltoro.train.bad_steps import GOOD, Verdict
from baltoro.train.metrics import StepRecord
from baltoro.train.preemption import Preempted, PreemptionHook


class Saver:
    """Saves as long as a save of ``takes`` seconds fits."""

    def __init__(self, takes):
        self.takes, self.saved = takes, []

    def save_if_it_fits(self, strategy, state, grace_seconds, *, validation_loss):
        if self.takes > grace_seconds:
            return False
        self.saved.append((strategy, state.step, validation_loss))
        return True


def record(verdict=GOOD):
    return StepRecord(
        state=TrainState(step=7),
        rows=range(2),
        digest="",
        loss=1.0,
        update=Update(1.0, stepped=True),
        verdict=verdict,
        learning_rate=0.1,
        tokens=1,
        valid_tokens=1,
        phase_seconds={},
        seconds=1.0,
        world_size=1,
    )


def leave(seconds_left, saver, verdict=GOOD):
    timer = PhaseTimer(torch.device("cpu"))
    hook = PreemptionHook(
        lambda: seconds_left, saver, "weights", timer, validation_loss=lambda step: step / 2
    )
    hook.step_end(record(verdict))
    return timer


def test_without_notice_training_stays():
    saver = Saver(takes=1.0)
    leave(None, saver)
    assert saver.saved == []


def test_on_notice_the_step_is_saved_with_its_validation_loss_and_training_leaves():
    saver = Saver(takes=1.0)
    with pytest.raises(Preempted, match="left after step 7, saved") as left:
        leave(30.0, saver)
    assert saver.saved == [("weights", 7, 3.5)]
    assert (left.value.step, left.value.saved) == (7, True)


@pytest.mark.parametrize("seconds_left", [0.5, 0.0, -3.0])
def test_a_save_that_does_not_fit_is_not_begun(seconds_left):
    saver = Saver(takes=1.0 if seconds_left > 0 else 0.0)
    with pytest.raises(Preempted, match="left after step 7, not saved"):
        leave(seconds_left, saver)
    assert saver.saved == []


def test_a_step_that_is_to_be_undone_is_not_saved():
    saver = Saver(takes=1.0)
    with pytest.raises(Preempted, match="not saved"):
        leave(30.0, saver, Verdict("a spike", rolls_back=True))
    assert saver.saved == []
