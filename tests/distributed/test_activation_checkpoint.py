import hashlib

import pytest
import torch

from baltoro.data.collate import collate
from baltoro.models.load import build_model, decoder_blocks, load_weights
from baltoro.optim.config import OptimizerConfig
from baltoro.optim.optimizer import build_optimizer
from baltoro.parallel.build import build_strategy
from baltoro.parallel.config import ParallelConfig
from baltoro.parallel.timing import PhaseTimer
from baltoro.testing.distributed import run_distributed
from baltoro.testing.tiny import tiny_plan, tiny_rows
from baltoro.train.loss import next_token_loss_sum

pytestmark = [pytest.mark.distributed, pytest.mark.slow]


def trained(name, mode):
    plan = tiny_plan()
    plan.config["attention_dropout"] = 0.2
    strategy = build_strategy(
        name,
        ParallelConfig(activation_checkpointing=mode),
        device=torch.device("cpu"),
        precision="bfloat16",
        max_gradient_norm=1.0,
        timer=PhaseTimer(torch.device("cpu")),
    )
    model = build_model(plan)
    strategy.setup(
        model,
        blocks=decoder_blocks(model),
        load=lambda spread, assign: load_weights(spread, plan, assign),
        build_optimizer=lambda spread: build_optimizer(spread, OptimizerConfig()),
        loss_sum=next_token_loss_sum,
    )
    torch.manual_seed(5)
    inputs = collate(tiny_rows(4, 32))
    figures = []
    for _ in range(3):
        for last in (False, True):
            figures.append(float(strategy.forward_backward(inputs, denominator=500, last=last)))
        figures.append(strategy.clip_and_step(1e-2).gradient_norm)
    figures.append(float(strategy.evaluate(inputs)))
    weights = {
        name: hashlib.sha256(value.numpy().tobytes()).hexdigest()
        for name, value in strategy.full_parameters()
    }
    return figures, weights, list(strategy.state_dict()["model"])


def every_mode():
    return {
        name: {mode: trained(name, mode) for mode in ("none", "selective", "full")}
        for name in ("fsdp2", "ddp")
    }


def test_training_is_bitwise_the_same_with_and_without_under_the_same_names():
    for found in run_distributed(every_mode, 2):
        for modes in found.values():
            figures, weights, names = modes["none"]
            assert figures[-1] < figures[0]
            assert modes["selective"] == modes["full"] == (figures, weights, names)
            assert "model.layers.0.mlp.up_proj.weight" in names
