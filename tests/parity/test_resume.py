"""Resuming is the same as never having stopped (float32)."""

import importlib.util
from dataclasses import replace

import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM

from baltoro.checkpoint.config import CheckpointConfig
from baltoro.parallel.config import DeepSpeedConfig, ParallelConfig
from baltoro.testing.distributed import run_distributed
from baltoro.testing.runs import execute_all, interrupted, tiny_run

pytestmark = pytest.mark.distributed


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory):
    return run_distributed(execute_all, 2, [tiny_run(tmp_path_factory.mktemp("whole") / "run")])[0][0]


@pytest.mark.parametrize("asynchronous", [True, False])
def test_an_interrupted_run_gives_the_same_bits(uninterrupted, tmp_path, asynchronous):
    run = tiny_run(tmp_path / "run", checkpoint=CheckpointConfig(every_steps=4, asynchronous=asynchronous))
    (before, nothing), (after, result) = run_distributed(execute_all, 2, [interrupted(run, 6), run])[0]
    losses, expected = uninterrupted
    assert nothing is None
    assert list(before) == [1, 2, 3, 4, 5, 6]
    assert list(after) == [5, 6, 7, 8, 9, 10]
    assert before | after == losses
    assert (result.attempt, result.resumed_from_step) == (2, 4)
    assert result.export_digest == expected.export_digest
    assert result.tokens_seen == expected.tokens_seen
    assert result.loss_first == expected.loss_first


def test_an_interruption_before_the_first_checkpoint_starts_anew(uninterrupted, tmp_path):
    run = tiny_run(tmp_path / "run")
    _, (after, result) = run_distributed(execute_all, 2, [interrupted(run, 3), run])[0]
    assert after == uninterrupted[0]
    assert result.resumed_from_step == 0


@pytest.mark.parametrize(("first", "then"), [(2, 1), (1, 2)])
def test_a_run_goes_on_with_another_number_of_ranks(uninterrupted, tmp_path, first, then):
    run = tiny_run(tmp_path / "run")
    run_distributed(execute_all, first, [interrupted(run, 6)])
    after, result = run_distributed(execute_all, then, [run])[0][0]
    losses, expected = uninterrupted
    assert list(after) == [5, 6, 7, 8, 9, 10]
    for step, loss in after.items():
        assert loss == pytest.approx(losses[step], abs=1e-5), f"step {step}"
    assert result.tokens_seen == expected.tokens_seen
    found = load_file(f"{result.export_uri}/model.safetensors")
    whole = load_file(f"{expected.export_uri}/model.safetensors")
    for name, value in whole.items():
        torch.testing.assert_close(found[name], value, atol=1e-4, rtol=0)


@pytest.mark.slow
def test_a_run_goes_on_under_other_strategies_and_numbers_of_ranks(uninterrupted, tmp_path):
    if importlib.util.find_spec("deepspeed") is None:
        pytest.skip("deepspeed is not installed")
    run = tiny_run(tmp_path / "run", checkpoint=CheckpointConfig(every_steps=2))

    def under(strategy, **parallel):
        settings = {"strategy": strategy, "parallel": ParallelConfig(**parallel)}
        return replace(run, config=run.config.model_copy(update=settings))

    def zero(stage):
        return under("deepspeed", deepspeed=DeepSpeedConfig(zero_stage=stage))

    curve = {}
    for world_size, leg in [
        (2, interrupted(under("fsdp2"), 3)),
        (2, interrupted(zero(3), 5)),
        (1, interrupted(under("ddp"), 7)),
        (2, interrupted(zero(1), 9)),
    ]:
        curve |= run_distributed(execute_all, world_size, [leg])[0][0][0]
    after, result = run_distributed(execute_all, 2, [under("fsdp2", dp_replicate=2)])[0][0]
    curve |= after
    losses, expected = uninterrupted
    assert list(after) == [9, 10]
    assert (result.attempt, result.resumed_from_step) == (5, 8)
    assert curve.keys() == losses.keys()
    for step, loss in curve.items():
        assert loss == pytest.approx(losses[step], abs=1e-5), f"step {step}"
    assert result.tokens_seen == expected.tokens_seen
    assert result.validation_after == pytest.approx(expected.validation_after, abs=1e-5)


def test_the_export_of_two_ranks_loads_and_has_the_validation_loss_of_the_run(uninterrupted):
    from baltoro.data.collate import collate
    from baltoro.testing.runs import SEQUENCE_LENGTH
    from baltoro.testing.tiny import tiny_rows
    from baltoro.train.loss import next_token_loss_sum

    _, result = uninterrupted
    model = AutoModelForCausalLM.from_pretrained(result.export_uri, dtype=torch.float32).eval()
    inputs = collate(tiny_rows(5, SEQUENCE_LENGTH, seed=9))
    with torch.no_grad():
        loss = float(next_token_loss_sum(model, inputs)) / inputs.valid_tokens
    assert loss == pytest.approx(result.validation_after, abs=1e-5)
