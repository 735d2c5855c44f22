import time

import pytest
import torch

from baltoro.parallel.timing import PhaseTimer


def test_phases_add_up_until_they_are_taken():
    timer = PhaseTimer(torch.device("cpu"))
    with timer.host("data"):
        time.sleep(0.02)
    with timer.device("forward"):
        time.sleep(0.01)
    with timer.host("data"):
        time.sleep(0.02)
    seconds = timer.take()
    assert seconds["data"] == pytest.approx(0.04, rel=0.5)
    assert 0.01 <= seconds["forward"] < seconds["data"]
    assert timer.take() == {}


def test_a_phase_that_fails_is_counted_and_raises():
    timer = PhaseTimer(torch.device("cpu"))
    with pytest.raises(KeyError), timer.device("backward"):
        raise KeyError("x")
    assert timer.take().keys() == {"backward"}
