"""Settings of checkpoints; they never change what comes out."""

from __future__ import annotations

from typing import Literal

from baltoro.core.config import StrictModel, execution


class CheckpointConfig(StrictModel):
    """When a checkpoint is taken and how many are kept; one is always taken after the last step."""

    every_steps: int | None = execution(500, "steps between checkpoints; null takes only the last one", ge=1)
    keep_last: int = execution(2, "newest checkpoints that are kept", ge=1)
    keep_every_steps: int | None = execution(
        None, "checkpoints at multiples of so many steps are kept as well; null keeps none for that", ge=1
    )
    keep_best: int = execution(0, "checkpoints with the lowest validation loss that are kept as well", ge=0)
    asynchronous: bool = execution(
        True, "write and upload beside the training; only the copy to host memory is waited for"
    )
    on_damage: Literal["stop", "previous"] = execution(
        "stop", "when the newest checkpoint is damaged: stop and name the file, or resume from the one before"
    )
