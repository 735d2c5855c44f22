"""Where a run stands, and the random generators of a rank."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import torch


@dataclass(frozen=True, slots=True)
class TrainState:
    """The position of a run; its data position, schedule and counts follow from it.

    Attributes:
        step: optimizer steps done; the next one consumes rows ``[step · B, (step + 1) · B)``.
        tokens_seen: non-padding positions consumed over all ranks.
        first_loss: mean training loss of the very first step, nats per token.
        last_loss: the same of the last step done.
        initial_validation_loss: validation loss before the first step, nats per token.
        skipped_steps: steps whose rows were consumed without an update.
    """

    step: int = 0
    tokens_seen: int = 0
    first_loss: float | None = None
    last_loss: float | None = None
    initial_validation_loss: float | None = None
    skipped_steps: int = 0

    def advanced(self, *, tokens: int, loss: float, learned: bool) -> TrainState:
        """Return the position after one more step.

        Args:
            tokens: non-padding positions of the step.
            loss: its loss, nats per token.
            learned: whether weights were updated; if not, its loss is not remembered.
        """
        return replace(
            self,
            step=self.step + 1,
            tokens_seen=self.tokens_seen + tokens,
            first_loss=loss if learned and self.first_loss is None else self.first_loss,
            last_loss=loss if learned else self.last_loss,
            skipped_steps=self.skipped_steps + (not learned),
        )


def seed_rank(seed: int, *, step: int, rank: int) -> None:
    """Seed torch's generators; ranks differ, and a position on a new world size gets a stream of its own."""
    import torch

    digest = hashlib.sha256(f"{seed}:{step}:{rank}".encode()).digest()
    torch.manual_seed(int.from_bytes(digest[:8], "little") >> 1)


def random_state(device: torch.device) -> dict[str, torch.Tensor]:
    """Return the states of torch's generators on this rank."""
    import torch

    states: dict[str, Any] = {"cpu": torch.get_rng_state()}
    if device.type == "cuda":
        states["cuda"] = torch.cuda.get_rng_state(device)
    return states


def set_random_state(states: dict[str, torch.Tensor], device: torch.device) -> None:
    """Set torch's generators to what :func:`random_state` returned."""
    import torch

    torch.set_rng_state(states["cpu"])
    if device.type == "cuda" and "cuda" in states:
        torch.cuda.set_rng_state(states["cuda"], device)
