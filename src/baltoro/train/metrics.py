"""The record of a step and the names under which it is reported."""

from __future__ import annotations

from dataclasses import dataclass

from baltoro.checkpoint.state import TrainState

LOSS = "train/loss_nats_per_token"
GRADIENT_NORM = "train/grad_norm"
LEARNING_RATE = "train/learning_rate"
TOKENS_SEEN = "train/tokens_seen"
STEP_SECONDS = "train/step_seconds"
TOKENS_PER_SECOND = "throughput/tokens_per_second"
TOKENS_PER_SECOND_PER_DEVICE = "throughput/tokens_per_second_per_device"
VALIDATION_LOSS = "validation/loss_nats_per_token"


@dataclass(frozen=True, slots=True)
class StepRecord:
    """What one step did, the same on every rank (``seconds`` is this rank's).

    Attributes:
        state: the position reached.
        loss: mean over the step's valid tokens on all ranks, before the update, nats per token.
        gradient_norm: global norm before clipping.
        learning_rate: used for the update.
        tokens: non-padding positions of this step.
        valid_tokens: positions with a target.
        seconds: from fetching the rows to the end of the update; hooks are not counted.
        world_size: ranks that took part.
    """

    state: TrainState
    loss: float
    gradient_norm: float
    learning_rate: float
    tokens: int
    valid_tokens: int
    seconds: float
    world_size: int

    @property
    def step(self) -> int:
        """Steps done, this one included."""
        return self.state.step

    def metrics(self) -> dict[str, float]:
        """Return the record under its metric names."""
        rate = self.tokens / self.seconds
        return {
            LOSS: self.loss,
            GRADIENT_NORM: self.gradient_norm,
            LEARNING_RATE: self.learning_rate,
            TOKENS_SEEN: float(self.state.tokens_seen),
            STEP_SECONDS: self.seconds,
            TOKENS_PER_SECOND: rate,
            TOKENS_PER_SECOND_PER_DEVICE: rate / self.world_size,
        }
