"""The training loop: what a step is, and nothing else."""

from __future__ import annotations

import math
import time
from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from baltoro.checkpoint.state import TrainState
from baltoro.core.errors import TrainingError
from baltoro.data.collate import collate
from baltoro.parallel.ranks import Ranks
from baltoro.parallel.strategy import Strategy
from baltoro.train.hooks import Hook
from baltoro.train.metrics import StepRecord

if TYPE_CHECKING:
    import torch

    from baltoro.data.shards import RowBatch
    from baltoro.optim.schedule import Schedule


def train_steps(
    strategy: Strategy,
    feed: Iterable[tuple[int, list[RowBatch]]],
    *,
    schedule: Schedule,
    state: TrainState,
    ranks: Ranks,
    device: torch.device,
    hooks: Sequence[Hook] = (),
) -> TrainState:
    """Train on everything the feed gives; return the position reached.

    Args:
        strategy: set up, its weights and moments those of ``state``.
        feed: ``(step, this rank's micro-batches)`` from ``state.step`` on.
        schedule: learning rate of each step.
        state: where to start.
        ranks: all ranks; each is fed its own rows.
        device: where the model is.
        hooks: called in order.

    Raises:
        TrainingError: loss or gradient is not finite; that step is neither counted nor saved.
    """
    import torch

    try:
        for hook in hooks:
            hook.start(state)
        began = time.perf_counter()
        for step, micro_batches in feed:
            batches = [collate(rows).to(device) for rows in micro_batches]
            counts = torch.tensor([[b.valid_tokens, b.tokens] for b in batches], device=device).sum(dim=0)
            valid_tokens, tokens = ranks.sum(counts).tolist()

            learning_rate = schedule.learning_rate(step)
            loss_sum = torch.zeros((), device=device)
            for index, inputs in enumerate(batches):
                last = index == len(batches) - 1
                loss_sum += strategy.forward_backward(inputs, denominator=max(valid_tokens, 1), last=last)
            gradient_norm, stepped = strategy.clip_and_step(learning_rate)

            loss = float(ranks.sum(loss_sum)) / max(valid_tokens, 1)
            if not stepped or not math.isfinite(loss):
                raise _not_finite(step, loss, gradient_norm, learning_rate)
            state = replace(
                state,
                step=step + 1,
                tokens_seen=state.tokens_seen + tokens,
                first_loss=loss if state.first_loss is None else state.first_loss,
                last_loss=loss,
            )
            record = StepRecord(
                state=state,
                loss=loss,
                gradient_norm=gradient_norm,
                learning_rate=learning_rate,
                tokens=tokens,
                valid_tokens=valid_tokens,
                seconds=time.perf_counter() - began,
                world_size=ranks.world_size,
            )
            for hook in hooks:
                hook.step_end(record)
            began = time.perf_counter()
        for hook in hooks:
            hook.finish()
    except BaseException:
        for hook in hooks:
            hook.error()
        raise
    return state


def _not_finite(step: int, loss: float, gradient_norm: float, learning_rate: float) -> TrainingError:
    return TrainingError(
        f"step {step + 1}: loss {loss} and gradient norm {gradient_norm} must be finite (learning rate "
        f"{learning_rate:.3g}); this step does not count and training stops; lower "
        "optimizer.learning_rate, lengthen the warm-up, or look at the rows of this step, "
        "then resume from the last checkpoint"
    )
