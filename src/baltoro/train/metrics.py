"""The record of a step and the names under which it is reported."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

from baltoro.checkpoint.state import TrainState
from baltoro.parallel.strategy import Update
from baltoro.parallel.timing import HOOK_PHASES, STEP_PHASES
from baltoro.train.bad_steps import Verdict

LOSS = "train/loss_nats_per_token"
GRADIENT_NORM = "train/grad_norm"
LEARNING_RATE = "train/learning_rate"
TOKENS_SEEN = "train/tokens_seen"
STEP_SECONDS = "train/step_seconds"
SKIPPED_STEPS = "train/skipped_steps"
DATA_WAIT = "time/data_wait_fraction"
TOKENS_PER_SECOND = "throughput/tokens_per_second"
TOKENS_PER_SECOND_PER_DEVICE = "throughput/tokens_per_second_per_device"
VALIDATION_LOSS = "validation/loss_nats_per_token"


@dataclass(frozen=True, slots=True)
class StepRecord:
    """What one step did, the same on every rank (its seconds are this rank's).

    Attributes:
        state: the position reached.
        rows: of the dataset, that this step consumed over all ranks.
        digest: of what was fed, over all ranks (:mod:`baltoro.data.digest`).
        loss: mean over the step's valid tokens on all ranks, before the update, nats per token.
        update: what became of the gradient.
        verdict: what is to become of the step, if it is a bad one.
        learning_rate: used for the update.
        tokens: non-padding positions of this step.
        valid_tokens: positions with a target.
        phase_seconds: of the step's parts, and of the hooks since the step before.
        seconds: since the record of the step before (or the start): the step and the hooks before it.
        world_size: ranks that took part.
    """

    state: TrainState
    rows: range
    digest: str
    loss: float
    update: Update
    verdict: Verdict
    learning_rate: float
    tokens: int
    valid_tokens: int
    phase_seconds: Mapping[str, float]
    seconds: float
    world_size: int

    @property
    def step(self) -> int:
        """Steps done, this one included."""
        return self.state.step

    @property
    def step_seconds(self) -> float:
        """Time of the step itself: from asking for its rows to the end of the update."""
        return self.seconds - sum(self.phase_seconds.get(name, 0.0) for name in HOOK_PHASES)

    def metrics(self) -> dict[str, float]:
        """Return the record under its metric names.

        The ``time/…_seconds`` of a step add up to its :attr:`step_seconds`, those of checkpoint and
        validation, which fell between the step before and this one, excepted. A gradient norm that is not a
        number (nothing was there to be measured) is left out.
        """
        seconds = self.step_seconds
        phases = {name: self.phase_seconds.get(name, 0.0) for name in STEP_PHASES}
        phases["other"] = max(seconds - sum(phases.values()), 0.0)
        phases |= {name: self.phase_seconds.get(name, 0.0) for name in HOOK_PHASES}
        values = {
            LOSS: self.loss,
            GRADIENT_NORM: self.update.gradient_norm,
            LEARNING_RATE: self.learning_rate,
            TOKENS_SEEN: float(self.state.tokens_seen),
            SKIPPED_STEPS: float(self.state.skipped_steps),
            STEP_SECONDS: seconds,
            **{f"time/{name}_seconds": value for name, value in phases.items()},
        }
        if math.isnan(self.update.gradient_norm):
            del values[GRADIENT_NORM]
        if seconds > 0:
            rate = self.tokens / seconds
            values |= {
                DATA_WAIT: phases["data"] / seconds,
                TOKENS_PER_SECOND: rate,
                TOKENS_PER_SECOND_PER_DEVICE: rate / self.world_size,
            }
        return values
