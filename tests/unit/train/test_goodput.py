"""Every device-second of a run stands under one cause."""

from dataclasses import dataclass, field
from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from baltoro.train.goodput import CAUSES, measure_goodput


@dataclass(frozen=True)
class Step:
    attempt: int
    ended_at: float
    seconds: float
    world_size: int = 2
    status: str = "done"
    abandoned: bool = False
    phase_seconds: dict = field(default_factory=dict)


@dataclass(frozen=True)
class Attempt:
    number: int
    started_at: str
    world_size: int = 2
    command_started_at: str | None = None


def moment(seconds):
    return datetime.fromtimestamp(seconds, UTC).isoformat()


def attempt(number, seconds, world_size=2, given=None):
    return Attempt(number, moment(seconds), world_size, None if given is None else moment(given))


def spent(*arguments, **named):
    found = measure_goodput(*arguments, **named)
    return {cause: pytest.approx(value) for cause, value in found.device_seconds().items() if value > 1e-9}


def test_a_quiet_run_is_start_and_useful_steps():
    steps = [Step(1, 110.0 + 2 * n, 2.0) for n in range(1, 6)]
    assert spent(steps, [attempt(1, 100)]) == {"restart": 20.0, "useful": 20.0}


def test_what_training_waited_for_is_taken_off_its_step():
    waits = {"checkpoint": 1.0, "validation": 3.0, "data": 0.5, "forward": 1.0}
    steps = [Step(1, 102.0, 2.0), Step(1, 104.0, 2.0), Step(1, 110.5, 6.5, phase_seconds=waits)]
    assert spent(steps, [attempt(1, 100)]) == {
        "useful": 2 * 6.0,
        "checkpoint": 2.0,
        "validation": 6.0,
        "data_wait": 1.0,
    }


def test_a_first_step_beyond_the_usual_is_compiling():
    steps = [Step(1, 110.0, 10.0), Step(1, 112.0, 2.0), Step(1, 114.0, 2.0)]
    assert spent(steps, [attempt(1, 100)]) == {"compile": 16.0, "useful": 12.0}


def test_compiling_that_was_measured_is_believed():
    steps = [Step(1, 110.0, 10.0, phase_seconds={"compile": 3.0}), Step(1, 112.0, 2.0)]
    assert spent(steps, [attempt(1, 100)]) == {"compile": 6.0, "useful": 18.0}


def test_lost_steps_are_replay_and_the_way_back_is_restart():
    steps = [
        *(Step(1, 100.0 + n, 1.0, abandoned=n > 3) for n in range(1, 6)),
        *(Step(2, 120.0 + n, 1.0) for n in range(1, 4)),
    ]
    # 5 s until the end of the last step, 15 s until attempt 2 takes its first.
    assert spent(steps, [attempt(1, 100), attempt(2, 112)]) == {
        "useful": 2 * 6.0,
        "replay": 2 * 2.0,
        "restart": 2 * 15.0,
    }


def test_steps_without_an_update_are_not_useful():
    steps = [
        Step(1, 101.0, 1.0),
        Step(1, 102.0, 1.0, status="skipped"),
        Step(1, 103.0, 1.0, status="overflowed"),
    ]
    assert spent(steps, [attempt(1, 100)]) == {"useful": 2.0, "skipped": 4.0}


def test_devices_that_a_smaller_attempt_leaves_are_idle():
    steps = [Step(1, 110.0, 10.0, world_size=4), Step(2, 120.0, 10.0, world_size=1)]
    assert spent(steps, [attempt(1, 100, 4), attempt(2, 110, 1)]) == {"useful": 50.0, "idle": 30.0}


def test_time_after_the_last_step_is_its_checkpoint_and_export():
    assert spent([Step(1, 110.0, 10.0)], [attempt(1, 100)], ended_at=115.0) == {
        "useful": 20.0,
        "checkpoint": 10.0,
    }


def test_an_attempt_that_never_took_a_step_is_restart():
    attempts = [attempt(1, 100), attempt(2, 130)]
    assert spent([Step(1, 110.0, 10.0)], attempts, ended_at=140.0) == {"useful": 20.0, "restart": 60.0}
    assert spent([], [attempt(1, 100)], ended_at=110.0) == {"restart": 20.0}


def test_an_old_attempt_that_is_still_alive_does_not_count_beside_the_new_one():
    steps = [*(Step(1, 100.0 + n, 1.0) for n in range(1, 21)), Step(2, 120.0, 10.0)]
    assert spent(steps, [attempt(1, 100), attempt(2, 110)]) == {"useful": 40.0}


def test_devices_are_held_from_before_the_first_attempt():
    assert spent([Step(1, 110.0, 10.0)], [attempt(1, 100)], began_at=80.0, devices=3) == {
        "restart": 40.0,
        "useful": 20.0,
        "idle": 30.0,
    }


def test_waiting_for_a_person_is_no_restart():
    steps = [
        *(Step(1, 110.0 + n, 1.0, abandoned=n > 3) for n in range(1, 6)),
        *(Step(2, 320.0 + n, 1.0) for n in range(1, 4)),
        *(Step(3, 330.0 + n, 1.0) for n in range(1, 3)),
    ]
    # The second command is given 185 seconds after the last step of the first, and starts two attempts.
    attempts = [attempt(1, 105, given=100), attempt(2, 315, given=300), attempt(3, 325, given=300)]
    assert spent(steps, attempts) == {
        "restart": 2 * (10.0 + 20.0 + 7.0),
        "useful": 2 * (3.0 + 3.0 + 2.0),
        "replay": 2 * 2.0,
        "stopped": 2 * 185.0,
    }


def test_a_run_that_never_began_has_no_shares():
    found = measure_goodput([], [])
    assert found.wall_seconds == 0.0
    assert set(found.fractions().values()) == {0.0}


def test_shares_are_reported_under_metric_names():
    metrics = measure_goodput([Step(1, 110.0, 5.0)], [attempt(1, 100)]).metrics()
    assert metrics["goodput/useful_fraction"] == metrics["goodput/restart_fraction"] == pytest.approx(0.5)
    assert metrics.keys() == {f"goodput/{cause}_fraction" for cause in CAUSES}


moments = st.floats(0.0, 1000.0)
durations = st.one_of(st.floats(0.0, 200.0), st.just(float("nan")), st.floats(-5.0, 0.0))
some_steps = st.lists(
    st.builds(
        Step,
        attempt=st.integers(1, 4),
        ended_at=moments,
        seconds=durations,
        world_size=st.integers(1, 5),
        status=st.sampled_from(["done", "skipped", "overflowed"]),
        abandoned=st.booleans(),
        phase_seconds=st.dictionaries(
            st.sampled_from(["data", "forward", "checkpoint", "validation", "compile"]), durations
        ),
    ),
    max_size=25,
)
some_attempts = st.lists(st.builds(attempt, st.integers(1, 4), moments, st.integers(1, 5)), max_size=4)


@given(some_steps, some_attempts, st.none() | moments, st.none() | moments)
def test_causes_sum_up_to_wall_time_times_devices_whatever_was_recorded(steps, attempts, began_at, ended_at):
    found = measure_goodput(steps, attempts, began_at=began_at, ended_at=ended_at)
    seconds = found.device_seconds()
    assert all(value >= 0.0 for value in seconds.values())
    assert sum(seconds.values()) == pytest.approx(found.wall_seconds * found.devices, abs=1e-6)
    cursor = found.began_at
    for span in found.spans:
        assert cursor <= span.began_at < span.ended_at <= found.ended_at
        assert 1 <= span.devices <= found.devices
        cursor = span.ended_at
    if found.wall_seconds:
        assert sum(found.fractions().values()) == pytest.approx(1.0)


@given(some_steps, some_attempts)
def test_the_order_of_the_records_does_not_matter(steps, attempts):
    distinct = list({step.ended_at: step for step in steps}.values())
    by_number = list({attempt.number: attempt for attempt in attempts}.values())
    found = measure_goodput(distinct, by_number).device_seconds()
    assert found == measure_goodput(distinct[::-1], by_number[::-1]).device_seconds()
