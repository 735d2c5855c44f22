"""Leaving in time: a checkpoint when the machine is about to be taken away."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import TYPE_CHECKING, Protocol

from baltoro.train.hooks import Hook

if TYPE_CHECKING:
    from baltoro.checkpoint.state import TrainState
    from baltoro.parallel.strategy import Strategy
    from baltoro.parallel.timing import PhaseTimer
    from baltoro.train.metrics import StepRecord

SecondsLeft = Callable[[], "float | None"]
"""Seconds until this rank, or another one, is taken away; the same on every rank, ``None`` without notice."""

_logger = logging.getLogger(__name__)


class Preempted(Exception):  # noqa: N818  (a decision, not an error)
    """Training left because a worker is about to be taken away; it goes on when started again.

    Attributes:
        step: steps done.
        saved: a checkpoint of that step was taken and published.
    """

    def __init__(self, step: int, saved: bool) -> None:
        super().__init__(f"left after step {step}, {'saved' if saved else 'not saved'}")
        self.step = step
        self.saved = saved


class Saves(Protocol):
    """What is asked of a checkpointer here."""

    def save_if_it_fits(
        self,
        strategy: Strategy,
        state: TrainState,
        grace_seconds: float,
        *,
        validation_loss: float | None,
    ) -> bool:
        """Save and publish within so many seconds; a save that cannot is not begun. Decided alike by all."""


class PreemptionHook(Hook):
    """Asks after each step whether to leave; on notice takes a checkpoint if it fits, and leaves.

    Stands before the hook that takes due checkpoints: the step's checkpoint is then this one.

    Args:
        seconds_left: asked once per step on every rank.
        checkpointer: of the run.
        strategy: of the run.
        timer: of the run.
        validation_loss: of the steps done, which the checkpoint is kept by; ``None`` if it was not measured.
    """

    def __init__(
        self,
        seconds_left: SecondsLeft,
        checkpointer: Saves,
        strategy: Strategy,
        timer: PhaseTimer,
        *,
        validation_loss: Callable[[int], float | None],
    ) -> None:
        self._seconds_left = seconds_left
        self._checkpointer = checkpointer
        self._strategy = strategy
        self._timer = timer
        self._validation_loss = validation_loss

    def step_end(self, record: StepRecord) -> None:
        """Leave if there is notice.

        Raises:
            Preempted: on every rank.
        """
        seconds = self._seconds_left()
        if seconds is None:
            return
        if record.verdict.rolls_back:
            # It is neither in the ledger yet nor to be kept: whoever resumes meets it again.
            raise Preempted(record.step, saved=False)
        with self._timer.host("checkpoint"):
            saved = seconds > 0 and self._checkpointer.save_if_it_fits(
                self._strategy, record.state, seconds, validation_loss=self._validation_loss(record.step)
            )
        _logger.warning(
            "a worker is about to be taken away in %.0f s: training leaves after step %d, %s",
            seconds,
            record.step,
            "with a checkpoint" if saved else "without a checkpoint, which would not be done in time",
        )
        raise Preempted(record.step, saved)
