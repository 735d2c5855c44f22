"""The loss at the output projection, where strategies gather weights only within a module's forward pass."""

import pytest
import torch
import torch.distributed as dist
from torch.nn.parallel import DistributedDataParallel

from baltoro.data.collate import collate
from baltoro.models.attention import SDPA
from baltoro.models.load import build_model, decoder_blocks, load_weights
from baltoro.optim.config import OptimizerConfig
from baltoro.optim.optimizer import build_optimizer
from baltoro.parallel.config import ParallelConfig
from baltoro.parallel.fsdp2 import Fsdp2
from baltoro.parallel.timing import PhaseTimer
from baltoro.testing.distributed import run_distributed
from baltoro.testing.tiny import tiny_plan, tiny_rows
from baltoro.train.config import LossConfig
from baltoro.train.loss import make_loss_sum

pytestmark = [pytest.mark.distributed, pytest.mark.slow]

CPU = torch.device("cpu")
STEPS = 4


def fsdp2_losses(implementation, tied, precision):
    strategy = Fsdp2(
        ParallelConfig(), device=CPU, precision=precision, max_gradient_norm=1.0, timer=PhaseTimer(CPU)
    )
    plan = tiny_plan(tied=tied)
    model = build_model(plan)
    strategy.setup(
        model,
        blocks=decoder_blocks(model),
        load=lambda sharded, assign: load_weights(sharded, plan, assign),
        build_optimizer=lambda sharded: build_optimizer(sharded, OptimizerConfig()),
        loss_sum=make_loss_sum(LossConfig(implementation=implementation, chunk_tokens=20), SDPA, CPU),
    )
    found = []
    for step in range(STEPS):
        inputs = collate(tiny_rows(2, 32, seed=10 * step + dist.get_rank()))
        found.append(float(strategy.evaluate(inputs)))
        # Two micro-batches: the projection's gradient is added to.
        for last in (False, True):
            found.append(float(strategy.forward_backward(inputs, denominator=100, last=last)))
        found.append(strategy.clip_and_step(1e-2).gradient_norm)
    return found


def sharded():
    differences = {}
    for tied in (True, False):
        for precision in ("float32", "bfloat16"):
            full, chunked = (fsdp2_losses(name, tied, precision) for name in ("full", "chunked"))
            differences[tied, precision] = max(
                abs(one - other) / abs(other) for one, other in zip(chunked, full, strict=True)
            )
    return differences


def test_chunked_loss_of_a_sharded_model_is_that_of_full_logits():
    for differences in run_distributed(sharded, 2):
        for (_, precision), difference in differences.items():
            assert difference < (1e-5 if precision == "float32" else 3e-2)


def replicated():
    found = []
    for implementation in ("full", "chunked"):
        plan = tiny_plan()
        model = build_model(plan)
        model.to_empty(device="cpu")
        load_weights(model, plan)
        wrapped = DistributedDataParallel(model)
        loss_sum = make_loss_sum(LossConfig(implementation=implementation, chunk_tokens=20), SDPA, CPU)
        loss = loss_sum(wrapped, collate(tiny_rows(2, 32, seed=dist.get_rank())))
        loss.backward()
        found.append([loss.detach(), *(value.grad for value in model.parameters())])
    return found


def test_chunked_loss_of_a_replicated_model_reduces_its_gradients():
    first, second = run_distributed(replicated, 2)
    for full, chunked in (first, second):
        for one, other in zip(chunked, full, strict=True):
            torch.testing.assert_close(one, other, atol=1e-5, rtol=1e-5)
    # Reduced: the same on both ranks, whose losses differ.
    assert first[1][0] != second[1][0]
    assert torch.equal(first[1][1], second[1][1])
