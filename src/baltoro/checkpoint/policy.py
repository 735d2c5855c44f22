"""When a checkpoint is due and which ones are kept: pure decisions, the same on every rank."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Protocol, TypeVar


class Kept(Protocol):
    """What retention asks of a checkpoint."""

    @property
    def step(self) -> int:
        """Steps done."""

    @property
    def validation_loss(self) -> float | None:
        """Nats per token; ``None`` if not known."""


K = TypeVar("K", bound=Kept)


def is_due(step: int, *, every_steps: int | None, total_steps: int) -> bool:
    """Return whether to save after ``step`` steps are done (1-based); always after the last."""
    return step == total_steps or (every_steps is not None and step % every_steps == 0)


def split_kept(
    checkpoints: Sequence[K], *, keep_last: int, keep_every_steps: int | None = None, keep_best: int = 0
) -> tuple[list[K], list[K]]:
    """Return ``(kept, dropped)`` of checkpoints, both in the order given.

    A checkpoint is kept if any rule keeps it. Each rule chooses among those given, so a decision taken after
    every checkpoint leaves the same ones as a single decision over all that ever were.

    Args:
        checkpoints: in publishing order, newest last; the newest is always kept.
        keep_last: so many of the newest.
        keep_every_steps: those whose step is a multiple of it; the untrained model of step 0 is none.
        keep_best: so many with the lowest validation loss that is finite; of equal ones the older.
    """
    count = len(checkpoints)
    kept = set(range(max(count - max(keep_last, 1), 0), count))
    if keep_every_steps is not None:
        kept |= {
            index
            for index, known in enumerate(checkpoints)
            if known.step and known.step % keep_every_steps == 0
        }
    losses = [(known.validation_loss, index) for index, known in enumerate(checkpoints)]
    ranked = sorted((loss, index) for loss, index in losses if loss is not None and math.isfinite(loss))
    kept |= {index for _, index in ranked[:keep_best]}
    return (
        [known for index, known in enumerate(checkpoints) if index in kept],
        [known for index, known in enumerate(checkpoints) if index not in kept],
    )
