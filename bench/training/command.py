"""From a command to its first step: `baltoro pretrain`, given anew after everything of it was killed.

Python, the plan of stages, Ray, Ray Train, its workers, the model and the newest checkpoint are all in it:
what a person waits for. Told without a bound, since most of it is the start of Ray's own processes, which
share the machine's cores; :mod:`restart` has what training itself takes.
"""

from __future__ import annotations

import subprocess
import time
from pathlib import Path

from restart import MOST_SECONDS
from results import Row

from baltoro.checkpoint.head import read_head
from baltoro.checkpoint.ledger import accepted, read_ledger
from baltoro.core.artifacts import ArtifactStore
from baltoro.core.config import dump_yaml
from baltoro.core.errors import TrainingError
from baltoro.core.storage import Storage
from baltoro.jobs.recipe import load_recipe
from baltoro.jobs.verify.rehearsal import CHECKPOINT_STEPS, stand_in
from baltoro.testing.commands import Commands, end_session

_PATIENCE_SECONDS = 600.0


def measure_command(folder: Path) -> list[Row]:
    """Measure the seconds from a command to its first step, of a new run and of one that resumes.

    Args:
        folder: an empty folder to work in.

    Raises:
        TrainingError: a command failed; quotes what it said.
    """
    folder.mkdir(parents=True)
    recipe = stand_in(load_recipe("demo", [], environment={}), str(folder / "root"), folder)
    file = folder / "stand-in.yaml"
    file.write_text(dump_yaml(recipe), encoding="utf-8")
    build = Commands(folder / "build.log", "tokens", "build", str(file))
    train = Commands(folder / "train.log", "pretrain", str(file))
    try:
        _end(build, build.start())
        began = {1: time.time()}
        process = train.start()
        saved = f"checkpoints/step-{CHECKPOINT_STEPS:08d}*/checkpoint.json"
        while not list((folder / "root" / "run").glob(f"*/*/{saved}")):
            if process.poll() is not None:
                raise TrainingError(f"training ended before it could be killed:\n{train.tail()}")
            time.sleep(0.01)
        end_session(process)
        began[2] = time.time()
        _end(train, train.start())
    finally:
        build.end()
        train.end()
    store = ArtifactStore(Storage(), recipe.storage.root)
    (run,) = store.list("run", recipe.name)
    head = read_head(store.storage, run.uri)
    if head is None or len(head.attempts) != 2:
        raise TrainingError(f"{run.uri}: the second command did not resume what the first began")
    first_step = {
        attempt: min(
            record.ended_at
            for record in accepted(read_ledger(store.storage, run.uri))
            if record.attempt == attempt
        )
        for attempt in began
    }
    seconds = {attempt: first_step[attempt] - began[attempt] for attempt in began}
    return [
        Row(f"command/{name}", "s", seconds[attempt], MOST_SECONDS)
        for attempt, name in ((1, "new_run"), (2, "resumed"))
    ]


def _end(commands: Commands, process: subprocess.Popen[bytes]) -> None:
    if commands.wait(process, _PATIENCE_SECONDS):
        raise TrainingError(f"a command failed:\n{commands.tail()}")
