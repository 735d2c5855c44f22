import logging
import math

import pytest

from baltoro.core.errors import TrainingError
from baltoro.parallel.strategy import Update
from baltoro.train.bad_steps import LEAST_STEPS, BadSteps, Verdict
from baltoro.train.config import FaultConfig

GOOD, BAD = Update(1.0, stepped=True), Update(math.inf, stepped=False)
OVERFLOW = Update(math.inf, stepped=False, overflowed=True)


def judged(bad_steps, step, loss, update=GOOD):
    """Judge a step as the loop does; returns the complaint about its loss."""
    complaint = bad_steps.complaint(loss)
    verdict = bad_steps.judge(step, loss, update if complaint is None else BAD, 0.1, complaint)
    assert complaint is None or verdict.reason == complaint
    return complaint


def test_a_spike_is_measured_against_the_median_of_good_steps():
    bad_steps = BadSteps(FaultConfig(spike_factor=2.0, on_bad_step="skip"))
    for step in range(LEAST_STEPS):
        assert judged(bad_steps, step, 1.0 + step) is None
    assert judged(bad_steps, 10, 11.5) == (
        "loss 11.5 is above spike_factor=2 times 5.5, the median of the last 10 steps"
    )
    # The spike itself moves no median.
    assert judged(bad_steps, 11, 10.9) is None


def test_early_losses_are_no_spikes():
    bad_steps = BadSteps(FaultConfig(spike_factor=1.5))
    for step, loss in enumerate([1.0] * (LEAST_STEPS - 1)):
        judged(bad_steps, step, loss)
    assert judged(bad_steps, 20, 100.0) is None


def test_skipping_says_so_and_ends_after_too_many(caplog):
    bad_steps = BadSteps(FaultConfig(on_bad_step="skip", max_bad_steps=2))
    with caplog.at_level(logging.WARNING):
        judged(bad_steps, 0, math.nan)
        judged(bad_steps, 1, 2.0, BAD)
    assert [record.getMessage() for record in caplog.records] == [
        "step 1: loss nan is not finite; its rows count as seen, weights stay as they were",
        "step 2: gradient norm inf is not finite (loss 2); its rows count as seen, weights stay as they were",
    ]
    with pytest.raises(TrainingError, match=r"step 3: .*, bad step number 3 of this attempt .*resume"):
        judged(bad_steps, 2, math.nan)


def test_rolling_back_is_a_verdict_with_its_reason(caplog):
    bad_steps = BadSteps(FaultConfig(on_bad_step="roll_back"))
    assert bad_steps.judge(5, 1.0, GOOD, 0.1, None) == Verdict()
    assert bad_steps.judge(6, 1.0, BAD, 0.1, None) == Verdict(
        "gradient norm inf is not finite (loss 1)", rolls_back=True
    )
    assert (
        "step 7: gradient norm inf is not finite (loss 1); its rows count as seen, going back" in caplog.text
    )


def test_overflows_of_the_loss_scale_are_no_bad_steps_until_they_never_end():
    bad_steps = BadSteps(FaultConfig())
    for step in range(30):
        judged(bad_steps, step, 1.0, OVERFLOW)
    judged(bad_steps, 30, 1.0)
    for step in range(31, 61):
        judged(bad_steps, step, 1.0, OVERFLOW)
    with pytest.raises(TrainingError, match=r"step 62: the float16 gradient overflowed 31 times in a row"):
        judged(bad_steps, 61, 1.0, OVERFLOW)
