import math

import pytest
import torch

from baltoro.checkpoint.state import TrainState
from baltoro.core.errors import TrainingError
from baltoro.data.feed import FedRows, FedStep
from baltoro.optim.config import ScheduleConfig
from baltoro.optim.schedule import build_schedule
from baltoro.parallel.strategy import Update
from baltoro.parallel.timing import PhaseTimer
from baltoro.testing.tiny import tiny_rows
from baltoro.train.bad_steps import BadSteps, RollBack
from baltoro.train.config import FaultConfig
from baltoro.train.hooks import Hook
from baltoro.train.loop import train_steps

SEQUENCE = 32


class OneRank:
    rank, world_size = 0, 1

    def sum(self, values):
        return values

    def sum_counts(self, counts):
        return counts


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
        return Update(norm, stepped=math.isfinite(norm))

    def leave_out(self):
        self.calls.append(("left out",))
        return Update(math.nan, stepped=False)


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


def as_fed(feed):
    """Steps of ``(number, micro-batches)`` as a feed gives them, all rows numbered in order."""
    for step, batches in feed:
        starts = [4 * step + sum(len(other) for other in batches[:index]) for index in range(len(batches))]
        parts = [
            FedRows(range(start, start + len(batch)), batch)
            for start, batch in zip(starts, batches, strict=True)
        ]
        yield FedStep(step, range(4 * step, 4 * step + 4), parts)


def run(strategy, feed, *hooks, state=None, faults=None):
    schedule = build_schedule(
        ScheduleConfig(shape="constant", warmup_tokens=0),
        learning_rate=0.5,
        steps=10,
        global_batch_tokens=4 * SEQUENCE,
    )
    return train_steps(
        strategy,
        as_fed(feed),
        schedule=schedule,
        state=state or TrainState(),
        ranks=OneRank(),
        device=torch.device("cpu"),
        timer=PhaseTimer(torch.device("cpu")),
        bad_steps=BadSteps(faults or FaultConfig()),
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
        (FakeStrategy(norms=[1.0, math.inf]), r"step 2: gradient norm inf is not finite \(loss 2\)"),
        (FakeStrategy(loss=math.nan), r"step 1: loss nan is not finite \(learning rate 0.5\); this step"),
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


def test_a_bad_step_that_is_skipped_consumes_its_rows_and_leaves_weights_alone():
    strategy, recorder = FakeStrategy(norms=[1.0, math.inf, 1.0]), Recorder()
    steps = [(step, micro_batches()) for step in range(3)]
    state = run(strategy, steps, recorder, faults=FaultConfig(on_bad_step="skip"))
    records = [moment[1] for moment in recorder.moments if moment[0] == "step_end"]
    assert [record.update.stepped for record in records] == [True, False, True]
    assert (state.step, state.skipped_steps, state.tokens_seen) == (3, 1, 3 * records[0].tokens)
    assert [record.rows for record in records] == [range(0, 4), range(4, 8), range(8, 12)]


def test_rolling_back_tells_the_hooks_of_the_step_and_leaves_the_loop_with_its_position():
    strategy, recorder = FakeStrategy(loss=math.nan), Recorder()
    with pytest.raises(RollBack, match="step 1: loss nan is not finite") as caught:
        run(strategy, [(0, micro_batches())], recorder, faults=FaultConfig(on_bad_step="roll_back"))
    assert [call[0] for call in strategy.calls] == ["backward", "backward", "left out"]
    assert recorder.moments[-1][1].verdict.rolls_back
    assert caught.value.state == recorder.moments[-1][1].state
    assert (caught.value.state.step, caught.value.state.skipped_steps) == (1, 1)


def test_the_digest_depends_on_rows_and_their_numbers_but_not_on_micro_batches():
    def digest(batches, step=0):
        recorder = Recorder()
        run(FakeStrategy(), [(step, batches)], recorder, state=TrainState(step=step))
        return recorder.moments[1][1].digest

    rows = tiny_rows(4, SEQUENCE)
    whole = digest([rows.slice(0, 4)])
    assert whole == digest(micro_batches()) == digest([rows.slice(index, index + 1) for index in range(4)])
    assert whole != digest([rows.slice(2, 4), rows.slice(0, 2)])
    assert whole != digest([rows.slice(0, 2), rows.slice(0, 2)])
    assert whole != digest([rows.slice(0, 4)], step=1)


def test_an_idle_micro_batch_counts_nothing():
    rows, recorder = tiny_rows(4, SEQUENCE), Recorder()
    fed = [
        FedStep(
            0, range(0, 2), [FedRows(range(0, 2), rows.slice(0, 2)), FedRows(range(2, 2), rows.slice(3, 4))]
        )
    ]
    run_state = train_steps(
        FakeStrategy(),
        fed,
        schedule=build_schedule(
            ScheduleConfig(shape="constant"), learning_rate=0.5, steps=9, global_batch_tokens=64
        ),
        state=TrainState(),
        ranks=OneRank(),
        device=torch.device("cpu"),
        timer=PhaseTimer(torch.device("cpu")),
        bad_steps=BadSteps(FaultConfig()),
        hooks=[recorder],
    )
    assert run_state.tokens_seen == sum(int(ends[-1]) for ends in rows.slice(0, 2).segment_ends)
    assert recorder.moments[1][1].loss == pytest.approx(2.0)


def test_the_time_of_a_step_is_split_into_phases_that_add_up_to_it():
    recorder = Recorder()
    run(FakeStrategy(), [(0, micro_batches()), (1, micro_batches())], recorder)
    record = recorder.moments[2][1]
    metrics = record.metrics()
    names = [name for name in metrics if name.startswith("time/") and name.endswith("_seconds")]
    parts = sum(metrics[name] for name in names)
    assert parts == pytest.approx(metrics["train/step_seconds"])
    assert record.phase_seconds["data"] > 0
