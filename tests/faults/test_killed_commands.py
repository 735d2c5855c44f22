"""`baltoro pretrain`, killed with SIGKILL at random and given again: it ends as if nothing had been.

Each run is one test with a seed of its own, and takes minutes: most of them Ray's start.
"""

import os
import random
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from baltoro.checkpoint.head import read_head
from baltoro.checkpoint.ledger import accepted, read_ledger
from baltoro.core.artifacts import Artifact, ArtifactStore
from baltoro.core.config import dump_yaml
from baltoro.core.storage import Storage
from baltoro.jobs.recipe import PinsConfig, Recipe, load_recipe
from baltoro.jobs.verify.audit import audit_run
from baltoro.jobs.verify.rehearsal import stand_in
from baltoro.testing.commands import Commands, kill

pytestmark = [pytest.mark.jobs, pytest.mark.slow, pytest.mark.timeout(1800)]

RUNS = int(os.environ.get("BALTORO_FAULT_COMMANDS", "2"))
STEPS, CHECKPOINT_STEPS = 80, 10
KINDS = ("rank", "ranks", "worker", "driver", "group")
MOST_KILLS, MOST_STARTS = 3, 12
COMMAND_SECONDS = 600.0
COUNTED: Counter[str] = Counter()


@dataclass(frozen=True)
class Ending:
    """How a run ended: to be the same, bit for bit, whatever befell it."""

    losses: tuple[tuple[int, float], ...]
    export_digest: str


@dataclass(frozen=True)
class Undisturbed:
    """The run that nothing befell, and what every other run shares with it."""

    recipe: Recipe
    ending: Ending
    seconds: float


class Training:
    """The command that trains the stand-in under a name of its own."""

    def __init__(self, folder: Path, recipe: Recipe, name: str) -> None:
        self.name = name
        self.store = ArtifactStore(Storage(), recipe.storage.root)
        self.runs = Path(recipe.storage.root) / "run" / name
        file = folder / f"{name}.yaml"
        file.write_text(dump_yaml(recipe.model_copy(update={"name": name})), encoding="utf-8")
        self.commands = Commands(folder / f"{name}.log", "pretrain", str(file))

    def steps_saved(self) -> int:
        """The newest step with a folder among the checkpoints, published or not."""
        names = (path.name for path in self.runs.glob("*/checkpoints/step-*"))
        return max((int(name.split("-")[1]) for name in names), default=0)

    def artifact(self) -> Artifact:
        found = self.store.latest("run", self.name)
        assert found is not None, self.commands.tail()
        return found

    def ending(self) -> Ending:
        uri = self.artifact().uri
        head = read_head(self.store.storage, uri)
        assert head is not None
        assert head.finished is not None
        records = accepted(read_ledger(self.store.storage, uri))
        return Ending(tuple((record.step, record.loss) for record in records), head.finished.digest)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("faults")


@pytest.fixture(scope="module")
def undisturbed(folder: Path) -> Undisturbed:
    """Prepare the dataset that all runs share, and train without a fault."""
    small = stand_in(load_recipe("demo", []), str(folder / "root"), folder)
    longer = small.pretrain.model_copy(
        update={
            "steps": STEPS,
            "checkpoint": small.pretrain.checkpoint.model_copy(update={"every_steps": CHECKPOINT_STEPS}),
        }
    )
    recipe = small.model_copy(update={"pretrain": longer})
    file = folder / "prepared.yaml"
    file.write_text(dump_yaml(recipe), encoding="utf-8")
    build = Commands(folder / "prepared.log", "tokens", "build", str(file))
    try:
        assert build.wait(build.start(), COMMAND_SECONDS) == 0, build.tail()
    finally:
        build.end()
    store = ArtifactStore(Storage(), recipe.storage.root)
    pins = {kind: store.list(kind, "prepared")[0].uri for kind in ("corpus", "tokenizer", "tokens")}
    recipe = recipe.model_copy(update={"pins": PinsConfig(**pins)})

    training = Training(folder, recipe, "undisturbed")
    began = time.monotonic()
    try:
        assert training.commands.wait(training.commands.start(), COMMAND_SECONDS) == 0, (
            training.commands.tail()
        )
    finally:
        training.commands.end()
    seconds = time.monotonic() - began
    ending = training.ending()
    assert [step for step, _ in ending.losses] == list(range(STEPS))
    return Undisturbed(recipe, ending, seconds)


@pytest.fixture(scope="module", autouse=True)
def summary() -> Iterator[None]:
    """Say in the end how much was killed."""
    yield
    print(f"\n{COUNTED['runs']} runs, killed {COUNTED.total() - COUNTED['runs']} times: {dict(COUNTED)}")


@pytest.mark.parametrize("seed", range(RUNS))
def test_a_command_killed_at_random_ends_with_the_same_weights(undisturbed, folder, seed):
    chance = random.Random(seed)
    training = Training(folder, undisturbed.recipe, f"killed-{seed:03d}")
    told: list[str] = []
    planned = [chance.choice(KINDS) for _ in range(chance.randint(1, MOST_KILLS))]
    try:
        process, starts = training.commands.start(), 1
        for kind in planned:
            # Half of the kills meet the time in which the command trains, half any time, such as Ray's start.
            if chance.random() < 0.5:
                wanted = training.steps_saved() + chance.randrange(1, STEPS // 2)
                seconds = chance.uniform(0, 1)
            else:
                wanted, seconds = 0, chance.uniform(0, undisturbed.seconds)
            while process.poll() is None and training.steps_saved() < wanted:
                time.sleep(0.01)
            wait_until = time.monotonic() + seconds
            while process.poll() is None and time.monotonic() < wait_until:
                time.sleep(0.01)
            if process.poll() is None:
                told.append(f"{kill(process, kind, chance)} after step {training.steps_saved()}")
            elif process.returncode == 0:
                break
            if process.poll() is not None:
                process, starts = training.commands.start(), starts + 1
        while training.commands.wait(process, COMMAND_SECONDS):
            # A worker that was killed may have been the one that directs the others: people give the command
            # again.
            assert starts < MOST_STARTS, training.commands.tail()
            process, starts = training.commands.start(), starts + 1
    finally:
        training.commands.end()
    COUNTED.update(["runs", *(text.split()[0] for text in told)])
    print(f"\nseed {seed}: {', '.join(told) or 'ended before it could be killed'}; {starts} commands")

    ending = training.ending()
    assert ending.losses[-1] == undisturbed.ending.losses[-1]
    assert ending == undisturbed.ending
    verdict = audit_run(training.store, training.artifact().uri, name=training.name)
    assert verdict.passed, verdict.findings
    assert verdict.rows_once
    assert verdict.order_equal
