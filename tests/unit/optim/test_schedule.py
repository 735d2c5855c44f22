import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from baltoro.core.errors import ConfigError
from baltoro.optim.config import OptimizerConfig, ScheduleConfig
from baltoro.optim.schedule import build_schedule

BATCH = 1000


def schedule(steps=100, peak=2.0, **fields):
    return build_schedule(
        ScheduleConfig(**fields), learning_rate=peak, steps=steps, global_batch_tokens=BATCH
    )


def test_warmup_rises_in_a_line_through_zero():
    rates = schedule(shape="constant", warmup_tokens=10 * BATCH).learning_rate
    assert rates(0) == pytest.approx(2.0 * 0.05)
    assert rates(4) == pytest.approx(2.0 * 0.45)
    assert rates(10) == 2.0
    assert rates(99) == 2.0


def test_cosine_is_halfway_in_the_middle_and_ends_at_the_final_share():
    rates = schedule(steps=101, shape="cosine", warmup_tokens=0, final_fraction=0.1).learning_rate
    assert rates(50) == pytest.approx(2.0 * (0.1 + 0.9 * 0.5))
    # The last step's middle lies half a step before the end.
    assert rates(100) == pytest.approx(2.0 * (0.1 + 0.9 * 0.5 * (1 + math.cos(math.pi * 100.5 / 101))))


def test_linear_decays_from_the_end_of_the_warmup():
    rates = schedule(shape="linear", warmup_fraction=0.2, final_fraction=0.0).learning_rate
    assert rates(20) == pytest.approx(2.0 * (1 - 0.5 / 80))
    assert rates(99) == pytest.approx(2.0 * 0.5 / 80)


def test_wsd_is_constant_until_its_decay():
    rates = schedule(shape="wsd", warmup_fraction=0.1, decay_fraction=0.2, final_fraction=0.5).learning_rate
    assert rates(10) == rates(79) == 2.0
    assert rates(90) == pytest.approx(2.0 * (1 - 0.5 * 10.5 / 20))


def test_without_any_warmup_setting_two_percent_are_warmup():
    rates = schedule(steps=1000, shape="constant").learning_rate
    assert rates(19) < 2.0
    assert rates(20) == 2.0


@settings(deadline=None)
@given(
    shape=st.sampled_from(["cosine", "wsd", "linear", "constant"]),
    steps=st.integers(2, 500),
    warmup=st.floats(0, 0.7),
    final=st.floats(0, 1),
)
def test_no_step_is_wasted_and_none_exceeds_the_peak(shape, steps, warmup, final):
    rates = schedule(steps=steps, shape=shape, warmup_fraction=warmup, final_fraction=final)
    values = [rates.learning_rate(step) for step in range(steps)]
    assert all(0 < value <= 2.0 * (1 + 1e-12) for value in values)


@pytest.mark.parametrize("shape", ["cosine", "wsd", "linear"])
def test_a_batch_twice_as_large_samples_the_same_curve(shape):
    config = ScheduleConfig(shape=shape, warmup_tokens=4000)
    small = build_schedule(config, learning_rate=1.0, steps=200, global_batch_tokens=1000)
    large = build_schedule(config, learning_rate=1.0, steps=100, global_batch_tokens=2000)
    for step in range(100):
        between = sorted([small.learning_rate(2 * step), small.learning_rate(2 * step + 1)])
        assert between[0] - 1e-12 <= large.learning_rate(step) <= between[1] + 1e-12


def test_a_warmup_longer_than_the_run_is_refused():
    with pytest.raises(ConfigError, match=r"warmup_tokens=100,000 do not fit into the run of 100,000 tokens"):
        schedule(warmup_tokens=100 * BATCH)


def test_warmup_and_decay_that_overlap_are_refused():
    with pytest.raises(ConfigError, match=r"warmup_fraction=0.6 and decay_fraction=0.5 do not fit"):
        schedule(shape="wsd", warmup_fraction=0.6, decay_fraction=0.5)


def test_two_lengths_of_the_warmup_are_refused():
    with pytest.raises(ValidationError, match="both set the warm-up; give one of them"):
        ScheduleConfig(warmup_tokens=5, warmup_fraction=0.1)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("learning_rate", 0.0),
        ("learning_rate", 2.0),
        ("beta2", 1.0),
        ("weight_decay", -0.1),
        ("epsilon", 0.0),
    ],
)
def test_optimizer_settings_out_of_range_are_refused(name, value):
    with pytest.raises(ValidationError, match=name):
        OptimizerConfig(**{name: value})
