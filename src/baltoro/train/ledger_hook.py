"""Writes each step into the run's ledger; only the first rank has one."""

from __future__ import annotations

import time

from baltoro.checkpoint.ledger import Ledger, LedgerRecord, Status
from baltoro.train.hooks import Hook
from baltoro.train.metrics import StepRecord


class LedgerHook(Hook):
    """Records every step; must come before the hook that takes checkpoints, which publish the ledger.

    Args:
        ledger: of this attempt.
        attempt: its number.
    """

    def __init__(self, ledger: Ledger, attempt: int) -> None:
        self._ledger = ledger
        self._attempt = attempt
        self._bad: LedgerRecord | None = None

    def step_end(self, record: StepRecord) -> None:
        """Append the step; one that is to be undone waits until it is known how far back that goes."""
        written = LedgerRecord(
            step=record.step - 1,
            rows=(record.rows.start, record.rows.stop),
            digest=record.digest,
            tokens=record.tokens,
            valid_tokens=record.valid_tokens,
            loss=record.loss,
            gradient_norm=record.update.gradient_norm,
            learning_rate=record.learning_rate,
            world_size=record.world_size,
            attempt=self._attempt,
            status=_status(record),
            seconds=record.seconds,
            phase_seconds=record.phase_seconds,
            ended_at=time.time(),
        )
        if record.verdict.rolls_back:
            self._bad = written
        else:
            self._ledger.append(written)

    def rolled_back(self, step: int) -> None:
        """Record that the checkpoint after ``step`` steps was restored behind the bad step.

        Raises:
            ArtifactError: a step between the two was never recorded.
        """
        bad, self._bad = self._bad, None
        if bad is None:
            raise ValueError("no step asked to be rolled back")
        self._ledger.roll_back(step, bad)


def _status(record: StepRecord) -> Status:
    if record.update.stepped:
        return "done"
    return "overflowed" if record.update.overflowed else "skipped"
