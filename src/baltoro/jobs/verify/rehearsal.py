"""The rehearsal: a small stand-in of a recipe is trained, struck, resumed, and compared with its twin.

Everything runs as users run it: the command in a process of its own, a local Ray, Ray Train's workers, the
recipe's own strategy, optimizer, schedule, checkpoint settings and kind of storage. Small are only the model,
the dataset (the papers that come with Baltoro) and the number of steps.
"""

from __future__ import annotations

import contextlib
import os
import secrets
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from baltoro.checkpoint.head import Head, read_head
from baltoro.checkpoint.ledger import LedgerRecord, accepted, read_ledger
from baltoro.core.artifacts import Artifact, ArtifactStore
from baltoro.core.config import ENVIRONMENT_PREFIX, dump_yaml
from baltoro.core.errors import TrainingError
from baltoro.core.storage import Storage, is_local, join
from baltoro.jobs.recipe import PinsConfig, Recipe, resolve_uri
from baltoro.jobs.training.strikes import (
    PLAN_VARIABLE,
    Strike,
    StrikeKind,
    StrikePlan,
    awaited_outage,
    fallen,
)
from baltoro.jobs.verify.audit import audit_run
from baltoro.jobs.verify.certificate import Certificate, RunVerdict
from baltoro.jobs.verify.outage import OutageDoor, door_to

STEPS = 50
SEQUENCE_TOKENS = 64
ROWS_PER_STEP = 8
CHECKPOINT_STEPS = 10
WORLD_SIZE = 2
LATER_WORLD_SIZES = (4, 1)
OUTAGE_SECONDS = 20.0

BOUNDS = {"float32": 1e-4, "bfloat16": 2e-2, "float16": 2e-2}
"""Largest deviation of the loss from the twin's at another world size, nats per token, by precision."""

_MOST_STARTS = 6
_POLL_SECONDS = 0.05
_COMMAND_SECONDS = 900.0

_WORDS: Mapping[StrikeKind, str] = {
    "worker": "step {step}: one worker killed",
    "all_workers": "step {step}: all workers killed at once",
    "driver": "step {step}: the command itself killed, and given again",
    "mid_checkpoint": "from step {step}: a worker killed while a checkpoint was being written",
    "storage_outage": "step {step}: the object store gone for {seconds:g} seconds, with a checkpoint due",
}


@dataclass(frozen=True, slots=True)
class Scenario:
    """One rehearsed run.

    Attributes:
        name: of the run.
        worlds: workers of the first command, and of each further one.
        strikes: what is done to it.
    """

    name: str
    worlds: tuple[int, ...]
    strikes: tuple[Strike, ...] = ()


def scenarios(*, with_outage: bool) -> tuple[Scenario, ...]:
    """Return the runs of a rehearsal, the uninterrupted twin first."""
    outage = (Strike("storage_outage", 39),) if with_outage else ()
    return (
        Scenario("twin", (WORLD_SIZE,)),
        Scenario(
            "same-world",
            (WORLD_SIZE,),
            (
                Strike("worker", 7),
                Strike("mid_checkpoint", 10),
                Strike("all_workers", 26),
                Strike("driver", 34),
                *outage,
            ),
        ),
        Scenario(
            "other-worlds",
            (WORLD_SIZE, *LATER_WORLD_SIZES),
            (Strike("driver", 17), Strike("driver", 33)),
        ),
    )


def rehearse(recipe: Recipe, *, say: Callable[[str], None]) -> Certificate:
    """Rehearse a recipe's training on this machine.

    Args:
        recipe: whose training is rehearsed.
        say: tells a person how it goes.

    Raises:
        TrainingError: the stand-in could not be trained at all; quotes what the command said.
    """
    storage = Storage(recipe.storage.profiles)
    root = join(recipe.storage.root, "rehearsals", secrets.token_hex(4))
    endpoint = _endpoint(recipe)
    not_done = []
    if endpoint is None:
        not_done.append(
            "an outage of the object store: storage.root is a folder"
            if is_local(recipe.storage.root)
            else "an outage of the object store: its endpoint is not plain http, so nothing can stand between"
        )
    with tempfile.TemporaryDirectory(prefix="baltoro-rehearsal-") as scratch:
        stage = _Stage(recipe, Path(scratch), root, say)
        try:
            pins = stage.prepare()
            runs = {}
            for scenario in scenarios(with_outage=endpoint is not None):
                runs[scenario.name] = stage.perform(scenario, pins, endpoint)
            verdicts = _verdicts(recipe, storage, root, runs)
        finally:
            # What it took to find out is not kept; the certificate is.
            storage.delete_folder(root)
    return Certificate(
        about=recipe.name,
        kind="rehearsal",
        settings=_settings(recipe),
        verdicts=verdicts,
        not_done=tuple(not_done),
        losses={name: [(r.step, r.loss) for r in run.records] for name, run in runs.items()},
    )


def stand_in(recipe: Recipe, root: str, scratch: Path) -> Recipe:
    """Return a small recipe that trains like the given one.

    Args:
        recipe: whose way of training is kept.
        root: storage root of the rehearsal.
        scratch: a folder on this machine for the MLflow database.
    """
    given = recipe.model_dump(mode="json", by_alias=True)
    pretrain = given["pretrain"]
    pretrain |= {
        "data": {"sequence_length": SEQUENCE_TOKENS},
        "global_batch_tokens": ROWS_PER_STEP * SEQUENCE_TOKENS,
        "steps": STEPS,
        "tokens": None,
        "max_steps": None,
        "epochs": 1,
        "micro_batch": 1,
        "evaluation": {"every_steps": None, "max_rows": 8},
        "log_every_steps": 1,
    }
    pretrain["optimizer"]["learning_rate"] = 2e-3
    pretrain["schedule"] |= {"warmup_tokens": None, "warmup_fraction": 0.1}
    pretrain["parallel"] |= {"dp_replicate": 1, "dp_shard": None}
    pretrain["checkpoint"]["every_steps"] = CHECKPOINT_STEPS
    pretrain["faults"]["max_failures"] = 8
    return Recipe.model_validate(
        {
            "name": "prepared",
            "storage": given["storage"] | {"root": root},
            "tracking": {"uri": f"sqlite:///{scratch}/mlflow.db", "system_metrics": False},
            "cluster": {"workers": WORLD_SIZE, "use_gpu": given["cluster"]["use_gpu"]},
            "corpus": {
                "sources": [{"name": "examples", "uri": resolve_uri("package:examples/papers", Path.cwd())}],
                "splits": {"validation_fraction": 0.1},
            },
            "tokenizer": {"vocab_size": 1024, "sample_fraction": 1.0},
            "model": {"base": "llama-tiny"},
            "pretrain": pretrain,
        }
    )


def _settings(recipe: Recipe) -> dict[str, Any]:
    config = recipe.pretrain
    return {
        "strategy": config.strategy,
        "precision": config.precision,
        "optimizer": config.optimizer.name,
        "activation_checkpointing": config.parallel.activation_checkpointing,
        "compile": config.parallel.compile,
        "storage": recipe.storage.root.split("://")[0] if "://" in recipe.storage.root else "folder",
        "device": "GPU" if recipe.cluster.use_gpu else "CPU",
        "steps": STEPS,
        "rows_per_step": ROWS_PER_STEP,
        "checkpoint_every_steps": CHECKPOINT_STEPS,
    }


def _endpoint(recipe: Recipe) -> str | None:
    """Return the plain-HTTP endpoint of the recipe's object store, which a door can stand before."""
    root = recipe.storage.root
    if is_local(root):
        return None
    endpoint = (
        Storage(recipe.storage.profiles).profile_of(root).endpoint_url
        or os.environ.get("AWS_ENDPOINT_URL_S3")
        or os.environ.get("AWS_ENDPOINT_URL")
    )
    return endpoint if endpoint is not None and endpoint.startswith("http://") else None


@dataclass(frozen=True, slots=True)
class _Performed:
    """A rehearsed run as it stands in storage."""

    scenario: Scenario
    artifact: Artifact
    head: Head
    records: Sequence[LedgerRecord]
    struck: tuple[Strike, ...]


class _Stage:
    """Where a rehearsal is performed: this machine, one root, one stand-in."""

    def __init__(self, recipe: Recipe, scratch: Path, root: str, say: Callable[[str], None]) -> None:
        self._scratch = scratch
        self._root = root
        self._say = say
        self._stand_in = stand_in(recipe, root, scratch)
        self._storage = Storage(recipe.storage.profiles)

    def prepare(self) -> PinsConfig:
        """Build the stand-in's token dataset; returns the pins that every run shares."""
        self._say("rehearsal: preparing a small dataset")
        recipe_file = self._write(self._stand_in)
        outcome = self._command("tokens", "build", recipe_file, environment={})
        if outcome.returncode:
            raise TrainingError(f"the rehearsal's dataset could not be built:\n{_tail(outcome.log)}")
        store = ArtifactStore(self._storage, self._root)
        return PinsConfig(
            **{kind: store.list(kind, "prepared")[0].uri for kind in ("corpus", "tokenizer", "tokens")}
        )

    def perform(self, scenario: Scenario, pins: PinsConfig, endpoint: str | None) -> _Performed:
        """Train the stand-in as a scenario says, giving the command again as often as it dies."""
        self._say(
            f"rehearsal: {scenario.name}" + (f", {len(scenario.strikes)} faults" if scenario.strikes else "")
        )
        folder = self._scratch / scenario.name
        folder.mkdir()
        plan = StrikePlan(str(folder), scenario.strikes)
        plan_file = folder / "plan.json"
        plan.write(plan_file)
        recipe = self._stand_in.model_copy(update={"name": scenario.name, "pins": pins})
        with contextlib.ExitStack() as stack:
            door = None
            if endpoint is not None:
                door = stack.enter_context(door_to(endpoint))
                recipe = _through(recipe, door)
            log = self._run_to_end(recipe, scenario, plan, plan_file, door)
        store = ArtifactStore(self._storage, self._root)
        artifact = store.latest("run", scenario.name)
        head = read_head(self._storage, artifact.uri) if artifact is not None else None
        if artifact is None or head is None:
            raise TrainingError(f"the rehearsed run {scenario.name} left no artifact:\n{_tail(log)}")
        return _Performed(
            scenario, artifact, head, accepted(read_ledger(self._storage, artifact.uri)), fallen(plan)
        )

    def _run_to_end(
        self, recipe: Recipe, scenario: Scenario, plan: StrikePlan, plan_file: Path, door: OutageDoor | None
    ) -> Path:
        for start in range(_MOST_STARTS):
            workers = scenario.worlds[min(start, len(scenario.worlds) - 1)]
            cluster = recipe.cluster.model_copy(update={"workers": workers})
            file = self._write(recipe.model_copy(update={"cluster": cluster}))
            outcome = self._command(
                "pretrain", file, environment={PLAN_VARIABLE: str(plan_file)}, plan=plan, door=door
            )
            if outcome.returncode == 0:
                return outcome.log
            if outcome.returncode != -signal.SIGKILL:
                raise TrainingError(
                    f"the rehearsed run {scenario.name} ended with exit code {outcome.returncode}:\n"
                    f"{_tail(outcome.log)}"
                )
            self._say(f"rehearsal: {scenario.name}: the command was killed as planned; giving it again")
        raise TrainingError(f"the rehearsed run {scenario.name} did not end in {_MOST_STARTS} starts")

    def _write(self, recipe: Recipe) -> Path:
        path = self._scratch / f"{recipe.name}.yaml"
        path.write_text(dump_yaml(recipe), encoding="utf-8")
        return path

    def _command(
        self,
        *arguments: str | Path,
        environment: Mapping[str, str],
        plan: StrikePlan | None = None,
        door: OutageDoor | None = None,
    ) -> _Outcome:
        log = self._scratch / f"{secrets.token_hex(4)}.log"
        # The recipe file says it all: variables meant for the recipe itself would change the stand-in.
        inherited = {
            key: value
            for key, value in os.environ.items()
            if not key.startswith(ENVIRONMENT_PREFIX) and key not in ("RAY_ADDRESS", "MLFLOW_TRACKING_URI")
        }
        with log.open("wb") as stream:
            process = subprocess.Popen(
                [sys.executable, "-m", "baltoro.cli", *map(str, arguments)],
                env=inherited | dict(environment),
                stdout=stream,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
            try:
                self._watch(process, plan, door)
            finally:
                if process.poll() is None:
                    os.killpg(process.pid, signal.SIGKILL)
                    process.wait()
        return _Outcome(process.returncode, log)

    def _watch(
        self, process: subprocess.Popen[bytes], plan: StrikePlan | None, door: OutageDoor | None
    ) -> None:
        deadline = time.monotonic() + _COMMAND_SECONDS
        while process.poll() is None:
            if time.monotonic() > deadline:
                raise TrainingError(
                    f"a rehearsed command did not end within {_COMMAND_SECONDS:.0f} seconds; this machine is "
                    "too busy, or training hangs: look at pretrain.faults.hang_seconds"
                )
            for begun in awaited_outage(plan) if plan is not None and door is not None else ():
                assert door is not None
                self._say(f"rehearsal: the object store is gone for {OUTAGE_SECONDS:g} seconds")
                door.shut()
                begun.touch()
                time.sleep(OUTAGE_SECONDS)
                door.open()
            time.sleep(_POLL_SECONDS)


@dataclass(frozen=True, slots=True)
class _Outcome:
    returncode: int
    log: Path


def _through(recipe: Recipe, door: OutageDoor) -> Recipe:
    """Return the recipe with its storage root behind a door."""
    root = recipe.storage.root
    profile = Storage(recipe.storage.profiles).profile_of(root)
    profiles = {
        **recipe.storage.profiles,
        root: profile.model_copy(update={"endpoint_url": door.endpoint}),
    }
    return recipe.model_copy(update={"storage": recipe.storage.model_copy(update={"profiles": profiles})})


def _verdicts(
    recipe: Recipe, storage: Storage, root: str, runs: Mapping[str, _Performed]
) -> tuple[RunVerdict, ...]:
    store = ArtifactStore(storage, root)
    twin = {record.step: record.loss for record in runs["twin"].records}
    verdicts = []
    for name, run in runs.items():
        verdict = audit_run(store, run.artifact.uri, name=name)
        deviation: float | None = None
        bound: float | None = None
        findings = list(verdict.findings)
        missing = [strike for strike in run.scenario.strikes if strike not in run.struck]
        findings += [f"a planned fault did not happen: {_words(strike)}" for strike in missing]
        if name != "twin":
            losses = {record.step: record.loss for record in run.records}
            if losses.keys() != twin.keys():
                findings.append(f"{len(losses)} steps were accepted, the twin has {len(twin)}")
            deviation = max(
                (abs(losses[step] - twin[step]) for step in losses.keys() & twin.keys()), default=0.0
            )
            bound = 0.0 if len(set(run.scenario.worlds)) == 1 else BOUNDS[recipe.pretrain.precision]
        verdicts.append(
            replace(
                verdict,
                max_loss_deviation=deviation,
                bound=bound,
                strikes=tuple(_words(strike) for strike in run.struck),
                findings=tuple(findings),
            )
        )
    return tuple(verdicts)


def _words(strike: Strike) -> str:
    return _WORDS[strike.kind].format(step=strike.step, seconds=OUTAGE_SECONDS)


def _tail(log: Path, lines: int = 30) -> str:
    return "\n".join(log.read_text(encoding="utf-8", errors="replace").splitlines()[-lines:])
