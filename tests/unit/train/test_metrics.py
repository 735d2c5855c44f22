import pytest

from baltoro.checkpoint.state import TrainState
from baltoro.train.hooks import ReportHook, ValidationHook
from baltoro.train.metrics import StepRecord


def record(step, **settings):
    values = {
        "loss": 3.0,
        "gradient_norm": 0.5,
        "learning_rate": 1e-3,
        "tokens": 800,
        "valid_tokens": 700,
        "seconds": 2.0,
        "world_size": 4,
    }
    return StepRecord(state=TrainState(step=step, tokens_seen=900), **{**values, **settings})


def test_metrics_carry_their_units_and_throughput_is_over_all_ranks():
    assert record(5).metrics() == {
        "train/loss_nats_per_token": 3.0,
        "train/grad_norm": 0.5,
        "train/learning_rate": 1e-3,
        "train/tokens_seen": 900.0,
        "train/step_seconds": 2.0,
        "throughput/tokens_per_second": 400.0,
        "throughput/tokens_per_second_per_device": 100.0,
    }


def test_the_first_the_last_and_every_nth_step_are_reported():
    seen = []
    hook = ReportHook(lambda step, metrics: seen.append(step), every_steps=4, total_steps=10)
    for step in range(1, 11):
        hook.step_end(record(step))
    assert seen == [1, 4, 8, 10]


@pytest.mark.parametrize(("every", "expected"), [(3, [3, 6, 9]), (5, [5])])
def test_validation_inside_a_run_leaves_its_end_to_the_caller(every, expected):
    seen = []
    hook = ValidationHook(
        lambda: 1.5, lambda step, metrics: seen.append((step, metrics)), every_steps=every, total_steps=10
    )
    for step in range(1, 11):
        hook.step_end(record(step))
    assert seen == [(step, {"validation/loss_nats_per_token": 1.5}) for step in expected]
