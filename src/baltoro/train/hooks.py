"""What happens around the steps without being part of them.

A hook has four moments. Each runs on every rank; a hook that leads to a collective (a checkpoint, a
validation) decides from values that are the same on every rank. Hooks run in the order given.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

from baltoro.checkpoint.checkpointer import Checkpointer
from baltoro.checkpoint.policy import is_due
from baltoro.checkpoint.state import TrainState
from baltoro.parallel.strategy import Strategy
from baltoro.parallel.timing import PhaseTimer
from baltoro.train.metrics import VALIDATION_LOSS, StepRecord

Report = Callable[[int, Mapping[str, float]], None]
"""``(step, {metric name: value})``: hands metrics to whoever shows or keeps them."""


class Hook:
    """Base of hooks: every moment does nothing."""

    def start(self, state: TrainState) -> None:
        """Before the first step of this attempt, with the position it starts from."""

    def step_end(self, record: StepRecord) -> None:
        """After each step, with its record."""

    def finish(self) -> None:
        """After the last step, when all went well."""

    def error(self) -> None:
        """When the loop ends by an error, which is raised again afterwards; must not talk to other ranks."""


class ReportHook(Hook):
    """Reports the metrics of every n-th step, and of the first and last one."""

    def __init__(
        self,
        report: Report,
        metrics: Callable[[StepRecord], Mapping[str, float]],
        *,
        every_steps: int,
        total_steps: int,
    ) -> None:
        self._report = report
        self._metrics = metrics
        self._every_steps = every_steps
        self._total_steps = total_steps

    def step_end(self, record: StepRecord) -> None:
        """Report if due."""
        if record.step == 1 or is_due(
            record.step, every_steps=self._every_steps, total_steps=self._total_steps
        ):
            self._report(record.step, self._metrics(record))


class ValidationHook(Hook):
    """Reports the validation loss every n-th step; the ends of the run are not its business."""

    def __init__(
        self,
        measure: Callable[[], float],
        report: Report,
        timer: PhaseTimer,
        *,
        every_steps: int,
        total_steps: int,
    ) -> None:
        self._timer = timer
        self._measure = measure
        self._report = report
        self._every_steps = every_steps
        self._total_steps = total_steps
        self._newest: tuple[int, float] | None = None

    def step_end(self, record: StepRecord) -> None:
        """Validate if due, on every rank."""
        if record.step < self._total_steps and record.step % self._every_steps == 0:
            with self._timer.host("validation"):
                loss = self._measure()
            self._newest = (record.step, loss)
            self._report(record.step, {VALIDATION_LOSS: loss})

    def loss_at(self, step: int) -> float | None:
        """Return the loss after so many steps, nats per token; ``None`` if nobody measured them."""
        return self._newest[1] if self._newest is not None and self._newest[0] == step else None


class CheckpointHook(Hook):
    """Saves when due; the run is finished only when the last checkpoint is published."""

    def __init__(
        self,
        checkpointer: Checkpointer,
        strategy: Strategy,
        timer: PhaseTimer,
        *,
        every_steps: int | None,
        total_steps: int,
        validation_loss: Callable[[int], float | None] = lambda _: None,
    ) -> None:
        self._timer = timer
        self._validation_loss = validation_loss
        self._checkpointer = checkpointer
        self._strategy = strategy
        self._every_steps = every_steps
        self._total_steps = total_steps

    def step_end(self, record: StepRecord) -> None:
        """Save if due; never a step that is to be undone."""
        if record.verdict.rolls_back:
            return
        if is_due(record.step, every_steps=self._every_steps, total_steps=self._total_steps):
            with self._timer.host("checkpoint"):
                loss = self._validation_loss(record.step)
                self._checkpointer.save(self._strategy, record.state, validation_loss=loss)

    def finish(self) -> None:
        """Wait until the last checkpoint is published."""
        self._checkpointer.wait()

    def error(self) -> None:
        """Let a checkpoint in flight be published."""
        self._checkpointer.close()
