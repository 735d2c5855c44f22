import hashlib

import pytest
import torch
from torch.distributed.tensor import DTensor

from baltoro.data.collate import collate
from baltoro.models.load import build_model, decoder_blocks, load_weights
from baltoro.optim.config import OptimizerConfig
from baltoro.optim.optimizer import build_optimizer
from baltoro.parallel.config import ParallelConfig
from baltoro.parallel.fsdp2 import Fsdp2
from baltoro.parallel.timing import PhaseTimer
from baltoro.testing.distributed import run_distributed
from baltoro.testing.tiny import tiny_plan, tiny_rows
from baltoro.train.loss import next_token_loss_sum

pytestmark = pytest.mark.distributed


def strategy_of(plan, *, precision="float32", **settings):
    strategy = Fsdp2(
        ParallelConfig.model_validate(settings),
        device=torch.device("cpu"),
        precision=precision,
        max_gradient_norm=1.0,
        timer=PhaseTimer(torch.device("cpu")),
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
        strategy, model = strategy_of(tiny_plan(tied=tied, layers=3), dp_replicate=replicate)
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


def gathered():
    """Whether the first block's weights are whole between the passes, after them, and after an evaluation."""
    found = {}
    for keeps in (False, True):
        strategy, model = strategy_of(tiny_plan(), fsdp2={"reshard_after_forward": not keeps})
        weight = model.model.layers[0].mlp.up_proj
        inputs = collate(tiny_rows(2, 32))
        seen = []
        # The output projection runs after the blocks and before any backward pass.
        handle = model.lm_head.register_forward_hook(
            lambda *_, seen=seen, weight=weight: seen.append(isinstance(weight.weight, DTensor))
        )
        strategy.forward_backward(inputs, denominator=10, last=True)
        seen.append(isinstance(weight.weight, DTensor))
        strategy.clip_and_step(1e-2)
        handle.remove()
        first = float(strategy.evaluate(inputs))
        seen.append(isinstance(weight.weight, DTensor))
        strategy.forward_backward(inputs, denominator=10, last=True)
        strategy.clip_and_step(1e-2)
        found[keeps] = seen, first, float(strategy.evaluate(inputs))
    return found


def test_reshard_after_forward_decides_what_is_kept_and_never_what_is_computed():
    for found in run_distributed(gathered, 2):
        sharded, kept = found[False], found[True]
        assert sharded[0] == [True, True, True]
        assert kept[0] == [False, True, True]
        assert kept[1:] == sharded[1:]
        assert kept[1] > kept[2]


def offloaded():
    """The code path of offloading, on CPU, where it moves nothing."""
    losses = {}
    for offload in (False, True):
        strategy, _ = strategy_of(tiny_plan(), precision="bfloat16", fsdp2={"cpu_offload": offload})
        inputs = collate(tiny_rows(2, 32))
        losses[offload] = []
        for _ in range(3):
            loss = strategy.forward_backward(inputs, denominator=inputs.valid_tokens, last=True)
            losses[offload] += [float(loss), strategy.clip_and_step(1e-2).gradient_norm]
        losses[offload].append(float(dict(strategy.full_parameters())["model.norm.weight"].sum()))
        strategy.load_state_dict(strategy.state_dict())
    return losses


def test_offloading_gives_the_same_losses():
    for losses in run_distributed(offloaded, 2):
        assert losses[True] == losses[False]
