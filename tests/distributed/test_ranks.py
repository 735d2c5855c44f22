import pytest
import torch
import torch.distributed as dist

from baltoro.core.errors import BaltoroError, InputError, TrainingError
from baltoro.parallel.ranks import Ranks
from baltoro.testing.distributed import run_distributed

pytestmark = pytest.mark.distributed


def outcome(call):
    try:
        return "value", call()
    except BaltoroError as error:
        return type(error).__name__, error.message
    except ZeroDivisionError as error:
        return type(error).__name__, str(error)


def raise_(error):
    raise error


def talk():
    ranks = Ranks()
    called = []
    seen = {
        "sum": ranks.sum(torch.tensor([1, ranks.rank])).tolist(),
        "counts": ranks.sum_counts([1, 10 * ranks.rank]),
        "first": outcome(lambda: ranks.first(lambda: called.append(ranks.rank) or "made")),
        "called": called,
        "first_fails": outcome(lambda: ranks.first(lambda: raise_(InputError("bad file")))),
        "first_has_a_bug": outcome(lambda: ranks.first(lambda: 1 // 0)),
        "each": outcome(lambda: ranks.each(lambda: ranks.rank * 10)),
        "each_fails": outcome(
            lambda: ranks.each(lambda: raise_(TrainingError("disk")) if ranks.rank == 1 else None)
        ),
    }
    # Whatever failed before, the ranks are still in step.
    seen["after"] = ranks.each(lambda: ranks.rank)
    dist.barrier()
    return seen


def test_every_rank_learns_the_outcome_of_every_call():
    first, second = run_distributed(talk, 2)
    for seen in (first, second):
        assert seen["sum"] == [2, 1]
        assert seen["counts"] == [2, 10]
        assert seen["first"] == ("value", "made")
        assert seen["first_fails"] == ("InputError", "bad file")
        assert seen["each"] == ("value", [0, 10])
        assert seen["each_fails"] == ("TrainingError", "disk")
        assert seen["after"] == [0, 1]
    assert (first["called"], second["called"]) == ([0], [])
    assert first["first_has_a_bug"][0] == "ZeroDivisionError"
    assert second["first_has_a_bug"][0] == "TrainingError"
    assert "rank 0 failed: ZeroDivisionError" in second["first_has_a_bug"][1]


def wait_for_one_that_is_late():
    import time

    ranks = Ranks(timeout_seconds=1.0)
    began = time.monotonic()
    if ranks.rank == 1:
        time.sleep(4.0)
        return None
    with pytest.raises(RuntimeError, match=r"(?i)timed? ?out"):
        ranks.barrier()
    return time.monotonic() - began


def test_a_rank_waits_for_the_others_as_long_as_it_was_told():
    assert 0.5 < run_distributed(wait_for_one_that_is_late, 2)[0] < 3.5
