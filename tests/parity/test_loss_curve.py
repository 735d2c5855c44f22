"""One loss curve, however the work is spread (float32)."""

import importlib.util

import pytest

from baltoro.parallel.config import DeepSpeedConfig, ParallelConfig
from baltoro.testing.distributed import run_distributed
from baltoro.testing.runs import execute_all, tiny_run

pytestmark = pytest.mark.distributed

TOLERANCE = 1e-5


@pytest.fixture(scope="module")
def reference(tmp_path_factory):
    """One rank, one micro-batch per step."""
    run = tiny_run(tmp_path_factory.mktemp("reference") / "run", micro_batch=8)
    return run_distributed(execute_all, 1, [run])[0][0]


def assert_equal_curves(found, reference):
    losses, result = found
    expected_losses, expected = reference
    assert losses.keys() == expected_losses.keys()
    for step, loss in losses.items():
        assert loss == pytest.approx(expected_losses[step], abs=TOLERANCE), f"step {step}"
    assert result.tokens_seen == expected.tokens_seen
    assert result.validation_before == pytest.approx(expected.validation_before, abs=TOLERANCE)
    assert result.validation_after == pytest.approx(expected.validation_after, abs=TOLERANCE)


def test_ten_steps_on_tiny_data_lower_the_loss(reference):
    losses, result = reference
    assert list(losses) == list(range(1, 11))
    assert losses[10] < 0.75 * losses[1]
    assert result.validation_after < 0.75 * result.validation_before


def test_micro_batches_do_not_change_the_curve(reference, tmp_path):
    runs = [tiny_run(tmp_path / f"m{size}", micro_batch=size) for size in (1, 2, 4)]
    for found in run_distributed(execute_all, 1, runs)[0]:
        assert_equal_curves(found, reference)


def test_two_ranks_sharded_or_replicated_give_the_same_curve(reference, tmp_path):
    runs = [
        tiny_run(tmp_path / "sharded", micro_batch=4),
        tiny_run(tmp_path / "sharded-accumulated", micro_batch=1),
        tiny_run(tmp_path / "replicated", micro_batch=2, parallel=ParallelConfig(dp_replicate=2)),
    ]
    ranks = run_distributed(execute_all, 2, runs)
    for number, found in enumerate(ranks[0]):
        assert_equal_curves(found, reference)
        assert ranks[1][number][0] == found[0], "ranks disagree about the loss"


def test_replicas_of_shards_on_four_ranks_give_the_same_curve(reference, tmp_path):
    run = tiny_run(tmp_path / "hybrid", micro_batch=1, parallel=ParallelConfig(dp_replicate=2, dp_shard=2))
    assert_equal_curves(run_distributed(execute_all, 4, [run])[0][0], reference)


@pytest.mark.slow
def test_other_strategies_give_the_same_curve_and_count_the_same(reference, tmp_path):
    if importlib.util.find_spec("deepspeed") is None:
        pytest.skip("deepspeed is not installed")
    runs = [
        tiny_run(tmp_path / "ddp", micro_batch=2, strategy="ddp"),
        *(
            tiny_run(
                tmp_path / f"zero-{stage}",
                micro_batch=2,
                strategy="deepspeed",
                parallel=ParallelConfig(deepspeed=DeepSpeedConfig(zero_stage=stage)),
            )
            for stage in (1, 2, 3)
        ),
    ]
    ranks = run_distributed(execute_all, 2, runs)
    for number, found in enumerate(ranks[0]):
        assert_equal_curves(found, reference)
        assert ranks[1][number][0] == found[0], "ranks disagree about the loss"
