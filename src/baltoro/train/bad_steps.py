"""What becomes of a step whose loss or gradient is not to be learned from: stop, skip, or roll back.

Every rank sees the same loss and norm, so every rank decides alike.
"""

from __future__ import annotations

import logging
import math
import statistics
from collections import deque
from dataclasses import dataclass
from typing import TYPE_CHECKING

from baltoro.checkpoint.state import TrainState
from baltoro.core.errors import TrainingError
from baltoro.parallel.strategy import Update

if TYPE_CHECKING:
    from baltoro.train.config import FaultConfig

MEDIAN_STEPS = 100
"""Good steps whose median loss a spike is measured against."""

LEAST_STEPS = 10
"""Before so many good steps nothing is called a spike: losses still fall steeply."""

_MOST_OVERFLOWS = 30

_logger = logging.getLogger(__name__)


class RollBack(Exception):  # noqa: N818  (a decision, not an error)
    """The last checkpoint is wanted back, and the steps since then left out.

    Attributes:
        state: the position reached: rows up to here count as seen.
        reason: what was wrong with the last step.
    """

    def __init__(self, state: TrainState, reason: str) -> None:
        super().__init__(f"step {state.step}: {reason}")
        self.state = state
        self.reason = reason


@dataclass(frozen=True, slots=True)
class Verdict:
    """What is to become of a step.

    Attributes:
        reason: what is wrong with it; ``None`` if it is a good step, or one that the loss scale explains.
        rolls_back: the last checkpoint is wanted back.
    """

    reason: str | None = None
    rolls_back: bool = False


GOOD = Verdict()


class BadSteps:
    """Judges each step and counts the bad ones of this attempt.

    Args:
        config: what to do, and how often.
    """

    def __init__(self, config: FaultConfig) -> None:
        self._config = config
        self._losses: deque[float] = deque(maxlen=MEDIAN_STEPS)
        self._count = 0
        self._overflows = 0

    def complaint(self, loss: float) -> str | None:
        """Return what is wrong with a step's loss, before its update; ``None`` if nothing is."""
        if not math.isfinite(loss):
            return f"loss {loss} is not finite"
        factor = self._config.spike_factor
        if factor is not None and len(self._losses) >= LEAST_STEPS:
            median = statistics.median(self._losses)
            if loss > factor * median:
                return (
                    f"loss {loss:.4g} is above spike_factor={factor:g} times {median:.4g}, the median of the "
                    f"last {len(self._losses)} steps"
                )
        return None

    def judge(
        self, step: int, loss: float, update: Update, learning_rate: float, complaint: str | None
    ) -> Verdict:
        """Take note of a step, and say what is to become of it.

        Args:
            step: counted from 0.
            loss: of the step, nats per token.
            update: what became of its gradient.
            learning_rate: that would have been, or was, used.
            complaint: what :meth:`complaint` said of the loss.

        Raises:
            TrainingError: the recipe says stop, or there were too many bad steps.
        """
        if update.overflowed:
            self._count_overflow(step)
            return GOOD
        self._overflows = 0
        if complaint is None and update.stepped:
            self._losses.append(loss)
            return GOOD
        reason = complaint or f"gradient norm {update.gradient_norm} is not finite (loss {loss:.4g})"
        self._count += 1
        action = self._config.on_bad_step
        if action == "stop" or self._count > self._config.max_bad_steps:
            spent = "" if action == "stop" else f", bad step number {self._count} of this attempt"
            raise TrainingError(
                f"step {step + 1}: {reason}{spent} (learning rate {learning_rate:.3g}); this step does not "
                "count and training stops; lower optimizer.learning_rate, lengthen the warm-up, or look at "
                "the rows of this step, then resume from the last checkpoint; faults.on_bad_step=skip or "
                "roll_back goes on without it"
            )
        outcome = (
            "going back to the last checkpoint" if action == "roll_back" else "weights stay as they were"
        )
        _logger.warning("step %d: %s; its rows count as seen, %s", step + 1, reason, outcome)
        return Verdict(reason, rolls_back=action == "roll_back")

    def _count_overflow(self, step: int) -> None:
        self._overflows += 1
        if self._overflows > _MOST_OVERFLOWS:
            raise TrainingError(
                f"step {step + 1}: the float16 gradient overflowed {self._overflows} times in a row, however "
                "low the loss scale; set precision to bfloat16 or float32, or lower optimizer.learning_rate, "
                "then resume from the last checkpoint"
            )
