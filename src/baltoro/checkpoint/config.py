"""Settings of checkpoints; they never change what comes out."""

from __future__ import annotations

from baltoro.core.config import StrictModel, execution


class CheckpointConfig(StrictModel):
    """When a checkpoint is taken and how many are kept; one is always taken after the last step."""

    every_steps: int | None = execution(500, "steps between checkpoints; null takes only the last one", ge=1)
    keep_last: int = execution(2, "newest checkpoints that are kept", ge=1)
    asynchronous: bool = execution(
        True, "write and upload beside the training; only the copy to host memory is waited for"
    )
