"""Baltoro's step against a bare PyTorch loop: same model, batches, kernels, clipping, optimizer and FSDP2.

The bare loop is the shortest that trains alike: tensors that lie ready on the device, forward, backward,
clip, update. What Baltoro's adds is what is measured: collating rows, their digest, counting tokens over all
ranks, the loss over all ranks, the judgement of the step, its record, timers and hooks.
"""

from __future__ import annotations

import statistics
import tempfile
from collections.abc import Callable
from typing import TYPE_CHECKING

from results import Row
from setting import LEARNING_RATE, BaltoroLoop, Size, Times, in_turns, packed_rows, settled, this_device

from baltoro.testing.distributed import run_distributed

if TYPE_CHECKING:
    import torch

MOST = 1.03
STEPS_PER_TURN = 2
WARM_UP_TURNS = 2
PROCESSES = 5
"""Where a process's memory happens to lie makes either side up to a tenth faster, for as long as it lives."""


def measure_overhead(world_sizes: tuple[int, ...], *, turns: int, size: Size) -> list[Row]:
    """Measure at each world size: milliseconds of a step, medians over turns, their mean over processes.

    Args:
        world_sizes: ranks of each measurement.
        turns: of each side, over all processes.
        size: of the model and its batches.
    """
    rows = []
    for world_size in world_sizes:
        runs = []
        for _ in range(PROCESSES):
            with tempfile.TemporaryDirectory(prefix="bench-overhead-") as folder:
                each = max(3, turns // PROCESSES)
                runs.append(
                    run_distributed(times_of_steps, world_size, size, each, folder, timeout_seconds=900.0)[0]
                )
        for clock, bound in (("wall", MOST), ("cpu", None)):
            baltoro, bare = (
                statistics.fmean(statistics.median(getattr(times[name], clock)) for times in runs)
                / STEPS_PER_TURN
                * 1000
                for name in ("baltoro", "bare")
            )
            name = f"overhead/world_{world_size}/{clock}"
            rows.append(Row(name, "ms", baltoro, bare, bound, at_most=True))
    return rows


def times_of_steps(size: Size, turns: int, folder: str) -> dict[str, Times]:
    """Return the times of every turn of both sides on this rank."""
    import torch.distributed as dist

    device = this_device(folder)
    per_turn = STEPS_PER_TURN * size.rows * size.accumulation * dist.get_world_size()
    loop = BaltoroLoop(size, packed_rows(per_turn, size), device, "fsdp2")
    bare = bare_loop(size, device)

    def baltoro_side() -> None:
        loop.train(STEPS_PER_TURN)
        settled(device)

    def bare_side() -> None:
        bare()
        settled(device)

    sides = {"baltoro": baltoro_side, "bare": bare_side}
    in_turns(sides, WARM_UP_TURNS)
    return in_turns(sides, turns)


def bare_loop(size: Size, device: torch.device) -> Callable[[], None]:
    """Return a function that trains ``STEPS_PER_TURN`` steps as a person would write them."""
    import torch
    import torch.distributed as dist
    from torch.distributed.fsdp import fully_shard

    from baltoro.data.collate import collate
    from baltoro.models.attention import choose_attention
    from baltoro.models.load import build_model, copy_whole, decoder_blocks, load_weights
    from baltoro.train.config import LossConfig
    from baltoro.train.loss import make_loss_sum

    plan = size.plan()
    attention = choose_attention("auto", device=device, precision="float32", config=plan.config)
    loss_sum = make_loss_sum(LossConfig(), attention, device)
    model = build_model(plan, attention)
    model.to_empty(device=device)
    load_weights(model, plan, copy_whole)
    for block in decoder_blocks(model):
        fully_shard(block)
    fully_shard(model)
    model.train()
    optimizer = torch.optim.AdamW(model.parameters(), lr=LEARNING_RATE, fused=True)
    per_rank = size.rows * size.accumulation
    rows = packed_rows(STEPS_PER_TURN * per_rank * dist.get_world_size(), size)
    steps = []
    for step in range(STEPS_PER_TURN):
        first = (step * dist.get_world_size() + dist.get_rank()) * per_rank
        parts = range(first, first + per_rank, size.rows)
        steps.append([collate(rows.slice(start, start + size.rows)).to(device) for start in parts])

    def run() -> None:
        for batches in steps:
            total = torch.zeros((), device=device)
            for batch in batches:
                loss = loss_sum(model, batch) / batch.valid_tokens / size.accumulation
                loss.backward()
                total += loss.detach()
            torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
            total.item()

    return run
