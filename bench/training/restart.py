"""From the start of new processes to the end of the first step, resuming early and late in the same run.

One process per rank (:mod:`restart_rank`): a new Python that imports everything, joins the others, loads the
model and its newest checkpoint, and trains. Ray's start is not in it.
"""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import time
from pathlib import Path

from results import Row

from baltoro.core.errors import TrainingError

MOST_SECONDS = 30.0


def measure_restart(folder: Path, *, world_size: int, steps: tuple[int, int]) -> list[Row]:
    """Measure the restart after so many steps; the later one is also held against the earlier.

    Args:
        folder: an empty folder to work in.
        world_size: ranks.
        steps: multiples of ``restart_rank.EVERY_STEPS``, the earlier first.

    Raises:
        TrainingError: a rank failed.
    """
    early, late = steps
    run(folder, world_size, stop_after=early + 1)
    first = folder.with_name(f"{folder.name}-early")
    shutil.copytree(folder, first)
    run(folder, world_size, stop_after=late + 1)
    seconds = {}
    for step, place in ((early, first), (late, folder)):
        seconds[step], reached = run(place, world_size, stop_after=step + 1)
        if reached != step + 1:
            raise TrainingError(f"{place}: the run resumed for step {reached}, not for step {step + 1}")
    return [
        *(
            Row(f"restart/after_{step}", "s", seconds[step], MOST_SECONDS, 1.0, at_most=True)
            for step in steps
        ),
        Row("restart/late_against_early", "s", seconds[late], seconds[early]),
    ]


def run(folder: Path, world_size: int, *, stop_after: int) -> tuple[float, int]:
    """Start all ranks anew; return the seconds until the first step had ended, and that step.

    Raises:
        TrainingError: a rank failed.
    """
    folder.mkdir(parents=True, exist_ok=True)
    for stale in (folder / "store", folder / "first-step.json"):
        stale.unlink(missing_ok=True)
    began = time.time()
    command = [sys.executable, str(Path(__file__).with_name("restart_rank.py"))]
    ranks = [
        subprocess.Popen([*command, str(rank), str(world_size), str(folder), str(stop_after)])
        for rank in range(world_size)
    ]
    try:
        codes = [rank.wait() for rank in ranks]
    finally:
        for rank in ranks:
            rank.kill()
    if any(codes):
        raise TrainingError(f"{folder}: the ranks ended with exit codes {codes}")
    told = json.loads((folder / "first-step.json").read_text(encoding="utf-8"))
    return told["at"] - began, told["step"]
