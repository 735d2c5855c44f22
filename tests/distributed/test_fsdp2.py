import hashlib

import pytest
import torch

from baltoro.data.collate import collate
from baltoro.models.load import build_model, decoder_blocks, load_weights
from baltoro.optim.config import OptimizerConfig
from baltoro.optim.optimizer import build_optimizer
from baltoro.parallel.config import ParallelConfig
from baltoro.parallel.fsdp2 import Fsdp2
from baltoro.testing.distributed import run_distributed
from baltoro.testing.tiny import tiny_plan, tiny_rows
from baltoro.train.loss import next_token_loss_sum

pytestmark = pytest.mark.distributed


def strategy_of(plan, *, replicate=1, precision="float32"):
    strategy = Fsdp2(
        ParallelConfig(dp_replicate=replicate),
        device=torch.device("cpu"),
        precision=precision,
        max_gradient_norm=1.0,
    )
    model = build_model(plan)
    strategy.setup(
        model,
        blocks=decoder_blocks(model),
        load=lambda sharded, assign: load_weights(sharded, plan, assign),
        build_optimizer=lambda sharded: build_optimizer(sharded, OptimizerConfig(learning_rate=1e-2)),
        loss_sum=next_token_loss_sum,
    )
    return strategy, model


def digests(replicate):
    found = {}
    for tied in (True, False):
        strategy, model = strategy_of(tiny_plan(tied=tied, layers=3), replicate=replicate)
        local = sum(parameter.to_local().numel() for parameter in model.parameters())
        total = sum(parameter.numel() for parameter in model.parameters())
        for name, value in strategy.full_parameters():
            found[f"{tied} {name}"] = hashlib.sha256(value.numpy().tobytes()).hexdigest()
        found[f"{tied} share"] = round(local / total, 1)
    return found


def test_initialisation_is_the_same_on_every_world_size_and_layout():
    alone = run_distributed(digests, 1, 1)[0]
    sharded = run_distributed(digests, 2, 1)
    replicated = run_distributed(digests, 2, 2)
    weights = {name: value for name, value in alone.items() if not name.endswith("share")}
    assert len(weights) == 2 * 29 + 1
    for other in (*sharded, *replicated):
        assert {name: other[name] for name in weights} == weights
    assert {other["True share"] for other in sharded} == {0.5}
    assert {other["True share"] for other in replicated} == {1.0}


def mixed_precision():
    strategy, model = strategy_of(tiny_plan(), precision="bfloat16")
    seen = set()
    model.model.layers[0].mlp.up_proj.register_forward_hook(
        lambda module, inputs, output: seen.add(output.dtype)
    )
    inputs = collate(tiny_rows(4, 32))
    losses = []
    for _ in range(8):
        losses.append(float(strategy.forward_backward(inputs, denominator=inputs.valid_tokens, last=True)))
        strategy.clip_and_step(1e-2)
    return seen, {parameter.dtype for parameter in model.parameters()}, losses


def test_bfloat16_computes_in_bfloat16_and_keeps_float32_masters():
    for computed, kept, losses in run_distributed(mixed_precision, 2):
        assert computed == {torch.bfloat16}
        assert kept == {torch.float32}
        assert losses[-1] < 0.8 * losses[0]


def poisoned_step():
    strategy, model = strategy_of(tiny_plan())
    before = {name: value.clone() for name, value in strategy.full_parameters()}
    inputs = collate(tiny_rows(2, 32))
    # Only rank 1 sees the poison; every rank must refuse the step.
    poison = float("nan") if torch.distributed.get_rank() == 1 else 1.0
    (next_token_loss_sum(model, inputs) * poison).backward()
    norm, stepped = strategy.clip_and_step(1e-2)
    after = dict(strategy.full_parameters())
    clean = strategy.forward_backward(inputs, denominator=inputs.valid_tokens, last=True)
    _, stepped_again = strategy.clip_and_step(1e-2)
    unchanged = all(torch.equal(before[name], after[name]) for name in before)
    return norm, stepped, unchanged, bool(torch.isfinite(clean)), stepped_again


def test_a_gradient_that_is_not_finite_on_one_rank_is_dropped_on_all():
    for norm, stepped, unchanged, finite, stepped_again in run_distributed(poisoned_step, 2):
        assert norm != norm
        assert not stepped
        assert unchanged
        assert finite
        assert stepped_again
