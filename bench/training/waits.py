"""What a training run waits for: rows from shards on disk, and checkpoints.

``data``        time until a step's rows are there, of the step's time: at most 0.01. The shards are on this
                machine's disk and are read for the first time by the process (the kernel may remember them).
``checkpoint``  what training stands still for when a checkpoint is taken asynchronously, against a step's
                time: at most 1. Steps beside which a checkpoint is written are compared with the others for
                information.
"""

from __future__ import annotations

import statistics
from pathlib import Path

from results import Row
from setting import Size
from watched_training import Training, train, write_shards

MOST_DATA_WAIT = 0.01
MOST_STALL = 1.0
_WARM_UP_STEPS = 2
_STEPS_BESIDE = 2
_SHARDS = 4


def measure_data(folder: Path, *, world_size: int, steps: int, size: Size) -> list[Row]:
    """Measure the wait for rows: the mean over steps, milliseconds.

    Args:
        folder: an empty folder to work in.
        world_size: ranks.
        steps: of the run.
        size: of the model and its batches.
    """
    files = write_shards(folder / "shards", size, _rows(size, world_size, steps), shards=_SHARDS)
    settings = {"every_steps": None}
    found = train(Training(str(folder), size, files, steps, settings), world_size)[_WARM_UP_STEPS:]
    step_ms = 1000 * statistics.fmean(step.seconds for step in found)
    wait_ms = 1000 * statistics.fmean(step.phase_seconds.get("data", 0.0) for step in found)
    return [Row("data/wait", "ms", wait_ms, step_ms, MOST_DATA_WAIT, at_most=True)]


def measure_checkpoint(
    folder: Path, *, world_size: int, steps: int, every_steps: int, size: Size
) -> list[Row]:
    """Measure the stall of an asynchronous checkpoint: the median over checkpoints, milliseconds.

    Args:
        folder: an empty folder to work in.
        world_size: ranks.
        steps: of the run.
        every_steps: between checkpoints.
        size: of the model and its batches.
    """
    files = write_shards(folder / "shards", size, _rows(size, world_size, steps), shards=_SHARDS)
    settings = {"every_steps": every_steps, "asynchronous": True}
    found = train(Training(str(folder), size, files, steps, settings), world_size)[_WARM_UP_STEPS:]
    # The first save also makes what later ones use again.
    stalls = [step.phase_seconds["checkpoint"] for step in found if "checkpoint" in step.phase_seconds][1:]
    beside = [step for step in found if (step.step - 1) % every_steps < _STEPS_BESIDE]
    alone = [step for step in found if step not in beside]
    alone_ms, beside_ms = (
        1000 * statistics.median(step.seconds for step in steps) for steps in (alone, beside)
    )
    return [
        Row("checkpoint/stall", "ms", 1000 * statistics.median(stalls), alone_ms, MOST_STALL, at_most=True),
        Row("checkpoint/steps_beside", "ms", beside_ms, alone_ms),
    ]


def _rows(size: Size, world_size: int, steps: int) -> int:
    rows = steps * size.rows * size.accumulation * world_size
    return -(-rows // _SHARDS) * _SHARDS
