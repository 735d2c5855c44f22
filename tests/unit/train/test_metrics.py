"""What a step is reported as."""

import math

import pytest

from baltoro.checkpoint.state import TrainState
from baltoro.parallel.strategy import Update
from baltoro.train.bad_steps import GOOD
from baltoro.train.hooks import ReportHook, ValidationHook
from baltoro.train.metrics import StepRecord


class Timer:
    def host(self, name):
        import contextlib

        return contextlib.nullcontext()


def record(step, **settings):
    values = {
        "rows": range(8),
        "digest": "00",
        "loss": 3.0,
        "update": Update(0.5, stepped=True),
        "verdict": GOOD,
        "learning_rate": 1e-3,
        "tokens": 800,
        "valid_tokens": 700,
        "phase_seconds": {"data": 0.02, "forward": 0.5, "backward": 1.0, "optimizer": 0.2},
        "seconds": 2.0,
        "world_size": 4,
    }
    return StepRecord(state=TrainState(step=step, tokens_seen=900), **{**values, **settings})


def test_metrics_carry_their_units_and_throughput_is_over_all_ranks():
    assert record(5).metrics() == pytest.approx(
        {
            "train/loss_nats_per_token": 3.0,
            "train/grad_norm": 0.5,
            "train/learning_rate": 1e-3,
            "train/tokens_seen": 900.0,
            "train/skipped_steps": 0.0,
            "train/step_seconds": 2.0,
            "time/data_seconds": 0.02,
            "time/forward_seconds": 0.5,
            "time/backward_seconds": 1.0,
            "time/optimizer_seconds": 0.2,
            "time/other_seconds": 0.28,
            "time/checkpoint_seconds": 0.0,
            "time/validation_seconds": 0.0,
            "time/data_wait_fraction": 0.01,
            "throughput/tokens_per_second": 400.0,
            "throughput/tokens_per_second_per_device": 100.0,
        }
    )


def test_checkpoints_and_validation_between_steps_are_no_part_of_the_step():
    phases = {"data": 0.5, "forward": 0.5, "backward": 0.5, "checkpoint": 3.0, "validation": 5.0}
    metrics = record(5, seconds=10.0, phase_seconds=phases).metrics()
    assert metrics["train/step_seconds"] == pytest.approx(2.0)
    assert metrics["throughput/tokens_per_second"] == pytest.approx(400.0)
    assert metrics["time/other_seconds"] == pytest.approx(0.5)
    assert (metrics["time/checkpoint_seconds"], metrics["time/validation_seconds"]) == (3.0, 5.0)


def test_a_gradient_that_was_not_measured_is_not_reported():
    assert "train/grad_norm" not in record(5, update=Update(math.nan, stepped=False)).metrics()
    assert record(5, update=Update(math.inf, stepped=False)).metrics()["train/grad_norm"] == math.inf


def test_a_step_of_no_time_has_no_rate():
    metrics = record(5, seconds=0.0, phase_seconds={}).metrics()
    assert metrics["train/step_seconds"] == 0.0
    assert not any(name.startswith("throughput/") for name in metrics)


def test_the_first_the_last_and_every_nth_step_are_reported():
    seen = []
    hook = ReportHook(
        lambda step, metrics: seen.append((step, metrics)),
        lambda record: {"n": record.step},
        every_steps=4,
        total_steps=10,
    )
    for step in range(1, 11):
        hook.step_end(record(step))
    assert seen == [(step, {"n": step}) for step in (1, 4, 8, 10)]


@pytest.mark.parametrize(("every", "expected"), [(3, [3, 6, 9]), (5, [5])])
def test_validation_inside_a_run_leaves_its_end_to_the_caller(every, expected):
    seen = []
    hook = ValidationHook(
        lambda: 1.5,
        lambda step, metrics: seen.append((step, metrics)),
        Timer(),
        every_steps=every,
        total_steps=10,
    )
    for step in range(1, 11):
        hook.step_end(record(step))
    assert seen == [(step, {"validation/loss_nats_per_token": 1.5}) for step in expected]
