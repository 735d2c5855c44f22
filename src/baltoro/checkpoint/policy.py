"""When a checkpoint is due and which ones are kept: pure decisions, the same on every rank."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeVar

T = TypeVar("T")


def is_due(step: int, *, every_steps: int | None, total_steps: int) -> bool:
    """Return whether to save after ``step`` steps are done (1-based); always after the last."""
    return step == total_steps or (every_steps is not None and step % every_steps == 0)


def split_kept(checkpoints: Sequence[T], keep_last: int) -> tuple[list[T], list[T]]:
    """Return ``(kept, dropped)`` of checkpoints in publishing order."""
    return list(checkpoints[-keep_last:]), list(checkpoints[:-keep_last])
