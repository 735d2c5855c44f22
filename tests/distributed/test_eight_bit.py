"""Moments of eight bits on sharded parameters: the same training, and checkpoints of any layout."""

import pytest
import torch
import torch.distributed as dist
import torch.distributed.checkpoint as dcp

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

pytestmark = [pytest.mark.distributed, pytest.mark.slow]
pytest.importorskip("bitsandbytes", reason="install the extra nf4")

ROWS_PER_STEP = 4


def strategy_of(name):
    # Wide enough that each of two ranks still holds quantised matrices.
    plan = tiny_plan(hidden_size=128)
    device = torch.device("cpu")
    strategy = Fsdp2(
        ParallelConfig(),
        device=device,
        precision="float32",
        max_gradient_norm=1.0,
        timer=PhaseTimer(device),
    )
    model = build_model(plan)
    strategy.setup(
        model,
        blocks=decoder_blocks(model),
        load=lambda sharded, assign: load_weights(sharded, plan, assign),
        build_optimizer=lambda sharded: build_optimizer(sharded, OptimizerConfig(name=name)),
        loss_sum=next_token_loss_sum,
    )
    return strategy


def train(strategy, first_step, steps):
    rows = ROWS_PER_STEP // dist.get_world_size()
    losses = []
    for step in range(first_step, first_step + steps):
        batch = tiny_rows(ROWS_PER_STEP, 32, seed=step)
        own = dist.get_rank() * rows
        valid = collate(batch).valid_tokens
        loss = strategy.forward_backward(collate(batch.slice(own, own + rows)), denominator=valid, last=True)
        strategy.clip_and_step(3e-3)
        dist.all_reduce(loss)
        losses.append(loss.item() / valid)
    return losses


def compare_with_adamw():
    strategy = strategy_of("adamw_8bit")
    losses = train(strategy, 0, 8)
    values = strategy._optimizer.state.values()
    quantised = sum(entry["exp_avg"].values.dtype == torch.uint8 for entry in values)
    return losses, train(strategy_of("adamw"), 0, 8), quantised


def test_sharded_training_follows_adamw_within_eight_bits():
    for losses, exact, quantised in run_distributed(compare_with_adamw, 2):
        assert quantised == 14
        assert losses[-1] < 0.9 * losses[0]
        assert max(abs(one - other) for one, other in zip(losses, exact, strict=True)) < 0.02


def save(folder):
    strategy = strategy_of("adamw_8bit")
    train(strategy, 0, 3)
    dcp.save(strategy.state_dict(), checkpoint_id=folder)
    return train(strategy, 3, 3)


def resume(folder):
    strategy = strategy_of("adamw_8bit")
    state = strategy.state_dict()
    dtypes = {value.dtype for entry in state["optimizer"]["state"].values() for value in entry.values()}
    dcp.load(state, checkpoint_id=folder)
    strategy.load_state_dict(state)
    return dtypes, train(strategy, 3, 3)


def test_a_checkpoint_resumes_bitwise_on_its_layout_and_closely_on_any_other(tmp_path):
    folder = str(tmp_path / "checkpoint")
    uninterrupted = run_distributed(save, 2, folder)[0]
    for dtypes, losses in run_distributed(resume, 2, folder):
        assert dtypes == {torch.float32}
        assert losses == uninterrupted
    losses = run_distributed(resume, 1, folder)[0][1]
    assert losses == pytest.approx(uninterrupted, abs=5e-3)
