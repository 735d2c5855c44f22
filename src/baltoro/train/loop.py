"""The training loop: what a step is, and nothing else."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator, Sequence
from typing import TYPE_CHECKING

from baltoro.checkpoint.state import TrainState
from baltoro.data.collate import collate, without_targets
from baltoro.data.digest import digest_rows, digest_text
from baltoro.data.feed import FedRows, FedStep
from baltoro.parallel.ranks import Ranks
from baltoro.parallel.strategy import Strategy
from baltoro.parallel.timing import PhaseTimer
from baltoro.train.bad_steps import BadSteps, RollBack
from baltoro.train.hooks import Hook
from baltoro.train.metrics import StepRecord

if TYPE_CHECKING:
    import torch

    from baltoro.data.collate import ModelInputs
    from baltoro.optim.schedule import Schedule


def train_steps(
    strategy: Strategy,
    feed: Iterable[FedStep],
    *,
    schedule: Schedule,
    state: TrainState,
    ranks: Ranks,
    device: torch.device,
    timer: PhaseTimer,
    bad_steps: BadSteps,
    hooks: Sequence[Hook] = (),
) -> TrainState:
    """Train on everything the feed gives; return the position reached.

    Args:
        strategy: set up, its weights and moments those of ``state``.
        feed: this rank's rows from ``state.step`` on.
        schedule: learning rate of each step.
        state: where to start.
        ranks: all ranks; each is fed its own rows.
        device: where the model is.
        timer: the one that ``strategy`` counts its phases with.
        bad_steps: decides what becomes of a step whose loss or gradient is not to be learned from.
        hooks: called in order.

    Raises:
        TrainingError: ``bad_steps`` stops training; that step is neither counted nor saved.
        RollBack: ``bad_steps`` wants the last checkpoint back.
    """
    import torch

    try:
        for hook in hooks:
            hook.start(state)
        began = time.perf_counter()
        for fed in _timed(feed, timer):
            inputs = [_collated(part) for part in fed.micro_batches]
            counts = [
                [batch.valid_tokens, batch.tokens, *digest_rows(part.rows, batch)]
                for part, batch in zip(fed.micro_batches, inputs, strict=True)
            ]
            valid_tokens, tokens, *lanes = ranks.sum_counts(
                [sum(column) for column in zip(*counts, strict=True)]
            )

            learning_rate = schedule.learning_rate(fed.step)
            loss_sum = torch.zeros((), device=device)
            for index, batch in enumerate(inputs):
                last = index == len(inputs) - 1
                loss_sum += strategy.forward_backward(
                    batch.to(device), denominator=max(valid_tokens, 1), last=last
                )
            loss = float(ranks.sum(loss_sum)) / max(valid_tokens, 1)
            complaint = bad_steps.complaint(loss)
            update = strategy.clip_and_step(learning_rate) if complaint is None else strategy.leave_out()
            verdict = bad_steps.judge(fed.step, loss, update, learning_rate, complaint)

            state = state.advanced(tokens=tokens, loss=loss, learned=update.stepped)
            record = StepRecord(
                state=state,
                rows=fed.rows,
                digest=digest_text(lanes),
                loss=loss,
                update=update,
                verdict=verdict,
                learning_rate=learning_rate,
                tokens=tokens,
                valid_tokens=valid_tokens,
                phase_seconds=timer.take(),
                seconds=time.perf_counter() - began,
                world_size=ranks.world_size,
            )
            began = time.perf_counter()
            for hook in hooks:
                hook.step_end(record)
            if verdict.rolls_back:
                raise RollBack(state, verdict.reason or "")
        for hook in hooks:
            hook.finish()
    except RollBack:
        raise
    except BaseException:
        for hook in hooks:
            hook.error()
        raise
    return state


def _timed(feed: Iterable[FedStep], timer: PhaseTimer) -> Iterator[FedStep]:
    """Give the feed's steps, with the time they let the loop wait as phase ``data``."""
    steps = iter(feed)
    while True:
        with timer.host("data"):
            fed = next(steps, None)
        if fed is None:
            return
        yield fed


def _collated(part: FedRows) -> ModelInputs:
    inputs = collate(part.batch)
    return inputs if part.rows else without_targets(inputs)
