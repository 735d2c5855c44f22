import math

import pytest
import torch

from baltoro.checkpoint.state import TrainState
from baltoro.core.errors import TrainingError
from baltoro.optim.config import ScheduleConfig
from baltoro.optim.schedule import build_schedule
from baltoro.testing.tiny import tiny_rows
from baltoro.train.hooks import Hook
from baltoro.train.loop import train_steps

SEQUENCE = 32


class OneRank:
    rank, world_size = 0, 1

    def sum(self, values):
        return values


class FakeStrategy:
    """Every token costs ``loss`` nats; the gradient norm is what the test says."""

    def __init__(self, loss=2.0, norms=()):
        self.loss, self.norms, self.calls = loss, list(norms), []

    def forward_backward(self, inputs, *, denominator, last):
        self.calls.append(("backward", denominator, last))
        return torch.tensor(self.loss * inputs.valid_tokens)

    def clip_and_step(self, learning_rate):
        norm = self.norms.pop(0) if self.norms else 1.0
        self.calls.append(("step", learning_rate))
        return norm, math.isfinite(norm)


class Recorder(Hook):
    def __init__(self):
        self.moments = []

    def start(self, state):
        self.moments.append(("start", state.step))

    def step_end(self, record):
        self.moments.append(("step_end", record))

    def finish(self):
        self.moments.append("finish")

    def error(self):
        self.moments.append("error")


def run(strategy, feed, *hooks, state=None):
    schedule = build_schedule(
        ScheduleConfig(shape="constant", warmup_tokens=0),
        learning_rate=0.5,
        steps=10,
        global_batch_tokens=4 * SEQUENCE,
    )
    return train_steps(
        strategy,
        feed,
        schedule=schedule,
        state=state or TrainState(),
        ranks=OneRank(),
        device=torch.device("cpu"),
        hooks=hooks,
    )


def micro_batches(seed=0):
    rows = tiny_rows(4, SEQUENCE, seed=seed)
    return [rows.slice(0, 2), rows.slice(2, 4)]


def test_the_loss_is_the_mean_over_valid_tokens_and_tokens_seen_leaves_padding_out():
    strategy, recorder = FakeStrategy(), Recorder()
    rows = tiny_rows(4, SEQUENCE)
    state = run(strategy, [(0, micro_batches()), (1, micro_batches())], recorder)
    filled = sum(int(ends[-1]) for ends in rows.segment_ends)
    targets = filled - sum(len(ends) for ends in rows.segment_ends)
    assert filled < 4 * SEQUENCE
    assert (state.step, state.tokens_seen) == (2, 2 * filled)
    assert state.first_loss == state.last_loss == pytest.approx(2.0)
    record = recorder.moments[1][1]
    assert (record.tokens, record.valid_tokens) == (filled, targets)
    assert strategy.calls[:3] == [("backward", targets, False), ("backward", targets, True), ("step", 0.5)]


def test_hooks_see_start_each_step_and_finish():
    recorder = Recorder()
    run(FakeStrategy(), [(3, micro_batches())], recorder, state=TrainState(step=3))
    kinds = [moment[0] if isinstance(moment, tuple) else moment for moment in recorder.moments]
    assert kinds == ["start", "step_end", "finish"]
    assert recorder.moments[0] == ("start", 3)
    assert recorder.moments[1][1].step == 4


@pytest.mark.parametrize(
    ("strategy", "text"),
    [
        (FakeStrategy(norms=[1.0, math.inf]), r"step 2: loss 2.0 and gradient norm inf must be finite"),
        (FakeStrategy(loss=math.nan), r"step 1: loss nan and gradient norm 1.0 must be finite"),
    ],
)
def test_a_value_that_is_not_finite_stops_training_and_tells_the_hooks(strategy, text):
    recorder = Recorder()
    with pytest.raises(TrainingError, match=text):
        run(strategy, [(0, micro_batches()), (1, micro_batches())], recorder)
    assert recorder.moments[-1] == "error"
    assert "finish" not in recorder.moments


def test_an_error_of_the_feed_reaches_the_caller_unchanged():
    def broken():
        yield 0, micro_batches()
        raise OSError("shard gone")

    recorder = Recorder()
    with pytest.raises(OSError, match="shard gone"):
        run(FakeStrategy(), broken(), recorder)
    assert recorder.moments[-1] == "error"


def test_a_step_without_a_single_target_counts_its_tokens_and_has_loss_zero():
    rows = tiny_rows(2, SEQUENCE)
    import numpy as np

    unmasked = type(rows)(
        rows.input_ids, rows.segment_ends, rows.paper_index, np.zeros((2, SEQUENCE), dtype=bool)
    )
    state = run(FakeStrategy(), [(0, [unmasked])])
    assert state.first_loss == 0.0
    assert state.tokens_seen > 0
