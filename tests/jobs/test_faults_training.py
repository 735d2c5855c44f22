"""Workers that are killed, hang, raise or are told to leave: training goes on, and why it stopped is kept."""

import json
import os
import re
import signal
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from mlflow import MlflowClient

from baltoro.checkpoint.head import read_head
from baltoro.core.errors import ArtifactError, TrainingError
from baltoro.core.storage import Storage
from baltoro.jobs.training.workers import run_workers
from baltoro.testing.training_jobs import Fault, tiny_recipe, tiny_settings
from baltoro.tracking.mlflow import Tracker

pytestmark = [pytest.mark.jobs, pytest.mark.slow, pytest.mark.timeout(1200)]

STEPS = 16
HANG_SECONDS = 90
"""More than starting a worker takes on a busy machine."""


@pytest.fixture(scope="module")
def root(tmp_path_factory) -> Path:
    return tmp_path_factory.mktemp("root")


@pytest.fixture(scope="module")
def tracker(tracking_uri) -> Tracker:
    tracker = Tracker(tracking_uri, "faults")
    tracker.prepare()
    return tracker


class Run:
    """One tiny run and what it left."""

    def __init__(self, root: Path, tracker: Tracker, name: str, **pretrain: Any) -> None:
        settings = {
            "data": {"sequence_length": 32},
            "steps": STEPS,
            "precision": "float32",
            "global_batch_tokens": 256,
            "micro_batch": 2,
            "checkpoint": {"every_steps": 4, "keep_last": 9},
        }
        self.recipe = tiny_recipe(str(root), steps=STEPS, pretrain={**settings, **pretrain})
        self.tracker, self.name = tracker, name
        self.marker = root / f"{name}.marker"

    def __call__(self, fault: dict[str, Any] | None = None, pause_seconds: float = 0.0) -> dict[str, Any]:
        """Train; the fault happens once, whatever often the run is started again."""
        waiting = None if fault is None else Fault(marker=str(self.marker), **fault)
        with self.tracker.run(self.name) as run:
            self.run = run
            self.settings = tiny_settings(self.recipe, self.name, run, fault=waiting)
            self.settings.progress.pause_seconds = pause_seconds
            return run_workers(self.recipe, self.settings)

    @property
    def folder(self) -> Path:
        return Path(self.settings.run_uri)

    @property
    def head(self):
        return read_head(Storage(), str(self.folder))

    @property
    def failures(self) -> list[Path]:
        return sorted((self.folder / "failures").glob("*"))

    def cause(self, number: int = 0) -> dict:
        return json.loads((self.failures[number] / "cause.json").read_text())

    def mlflow_files(self, path: str) -> set[str]:
        client = MlflowClient(self.tracker.uri)
        return {file.path.rpartition("/")[2] for file in client.list_artifacts(self.run.run_id, path)}


@pytest.fixture(scope="module")
def calm(ray_session, root, tracker) -> dict[int, float]:
    """The losses of a run that nothing happens to."""
    run = Run(root, tracker, "calm")
    result = run()
    assert result["steps"] == STEPS
    assert [attempt.number for attempt in run.head.attempts] == [1]
    assert not run.failures
    losses = run.settings.progress.losses()
    assert sorted(losses) == list(range(1, STEPS + 1))
    return losses


def assert_same_curve(run: Run, calm: dict[int, float]) -> None:
    losses = run.settings.progress.losses()
    assert losses.keys() == calm.keys()
    assert max(abs(losses[step] - calm[step]) for step in calm) <= 1e-6


def test_a_killed_worker_is_replaced_and_its_death_is_the_cause(calm, root, tracker):
    run = Run(root, tracker, "killed")
    result = run({"shard": 3, "rank": 1, "what": "kill"})
    assert result["steps"] == STEPS
    assert_same_curve(run, calm)
    assert [attempt.number for attempt in run.head.attempts] == [1, 2]
    # Rows are read some steps ahead; by then step 8 may or may not have been published.
    assert result["resumed_from_step"] in (4, 8)

    cause = run.cause()
    assert run.failures[0].name == "attempt-0001"
    assert (cause["attempt"], cause["rank"], cause["world_size"]) == (1, 1, 2)
    assert cause["last_checkpoint"]["step"] == result["resumed_from_step"]
    assert "worker lost: its process was ended from outside" in cause["cause"]
    assert "peer" not in cause["cause"]
    names = {"cause.json", *(f"rank-{rank:05d}.{end}" for rank in (0, 1) for end in ("log", "stacks.txt"))}
    assert {path.name for path in run.failures[0].iterdir()} == names
    assert "Thread" in (run.failures[0] / "rank-00000.stacks.txt").read_text()
    assert "attempt 1 on 2 ranks" in (run.failures[0] / "rank-00000.log").read_text()
    assert run.mlflow_files("failures/attempt-0001") == names


def test_a_rank_s_own_error_ends_the_run_with_cause_place_and_command(calm, root, tracker):
    run = Run(root, tracker, "raised", faults={"max_failures": 1})
    with pytest.raises(TrainingError) as caught:
        run({"shard": 2, "rank": 1, "what": "raise", "often": True})
    text = caught.value.message
    assert re.match(r"rank 1 on \S+: ValueError: the fault that was asked for; ", text)
    assert f"log lines and stacks of every rank: {run.folder}/failures/attempt-0002; " in text
    assert "newest checkpoint: step 8; to resume: " in text
    assert [folder.name for folder in run.failures] == ["attempt-0001", "attempt-0002"]
    assert "in _happen" in (run.failures[1] / "rank-00001.log").read_text()
    assert run.cause(1)["ranks"]["0"]["report"] == "asked"


def test_what_a_restart_would_not_mend_is_not_tried_again(calm, root, tracker):
    run = Run(root, tracker, "damaged", faults={"max_failures": 5})
    shard = root / f"rows-{STEPS}" / "shard-002.parquet"
    with pytest.raises(ArtifactError, match=r"shard-002.parquet: damaged: .*restore the file"):
        run({"shard": 2, "rank": 0, "what": "damage"})
    assert len(run.head.attempts) == 1
    assert len(run.failures) == 1
    # Once it is written anew, the same command goes on.
    assert shard.stat().st_size < 100
    assert run()["resumed_from_step"] == 8
    assert_same_curve(run, calm)


def test_a_rank_that_hangs_is_ended_with_its_stacks_and_training_goes_on(calm, root, tracker):
    run = Run(root, tracker, "hung", faults={"hang_seconds": HANG_SECONDS})
    assert run({"shard": 2, "rank": 1, "what": "hang"})["steps"] == STEPS
    assert_same_curve(run, calm)
    cause = run.cause()
    assert cause["rank"] == 1
    assert "no progress in" in cause["cause"]
    assert "while rank 0 waited" in cause["cause"]
    assert "in _happen" in (run.failures[0] / "rank-00001.stacks.txt").read_text()
    assert "all_reduce" in (run.failures[0] / "rank-00000.stacks.txt").read_text()


def test_a_terminated_worker_leaves_with_a_checkpoint_and_no_step_is_done_twice(calm, root, tracker):
    run = Run(
        root,
        tracker,
        "left",
        faults={"max_failures": 0, "preemption_grace_seconds": 60},
        checkpoint={"every_steps": None},
    )
    # Ranks ask each other every few seconds: without pauses all steps would be done before.
    result = run({"shard": 1, "rank": 1, "what": "terminate"}, pause_seconds=1.5)
    assert 0 < result["resumed_from_step"] < STEPS
    assert Counter(step for step, _ in run.settings.progress.read()) == Counter(range(1, STEPS + 1))
    assert_same_curve(run, calm)
    assert [attempt.number for attempt in run.head.attempts] == [1, 2]
    assert not run.failures


def test_out_of_memory_before_the_first_step_names_settings_and_is_not_tried_again(calm, root, tracker):
    run = Run(root, tracker, "memory")
    with pytest.raises(TrainingError) as caught:
        run({"shard": 0, "rank": 0, "what": "memory", "often": True})
    text = caught.value.message
    assert "out of memory on cpu while it asked for 8.00 TiB" in text
    assert "micro_batch=2 (1 is the least)" in text
    assert "parallel.activation_checkpointing=none" in text
    assert "no checkpoint was taken yet; to start again: " in text
    assert len(run.failures) == 1


DRIVER = """
import sys, ray
from baltoro.jobs.training.workers import run_workers
from baltoro.testing.training_jobs import Notes, tiny_settings
from baltoro.jobs.recipe import Recipe
from baltoro.tracking.mlflow import Tracker
recipe = Recipe.model_validate_json(sys.argv[1])
ray.init(address=sys.argv[2], log_to_driver=False)
tracker = Tracker(sys.argv[3], "faults")
with tracker.run("driver") as run:
    settings = tiny_settings(recipe, "driver", run)
    settings.progress.pause_seconds = float(sys.argv[4])
    run_workers(recipe, settings)
"""


def test_the_same_command_goes_on_after_its_driver_was_killed(calm, root, tracker, ray_session):
    run = Run(root, tracker, "driver")
    line = [sys.executable, "-c", DRIVER, run.recipe.model_dump_json(by_alias=True), ray_session, tracker.uri]
    driver = subprocess.Popen([*line, "1.0"], start_new_session=True)
    try:
        notes = root / "run" / "driver" / "notes.txt"
        deadline = time.monotonic() + 300
        while not notes.exists() or len(notes.read_text().splitlines()) < 7:
            assert driver.poll() is None
            assert time.monotonic() < deadline
            time.sleep(0.1)
    finally:
        os.killpg(driver.pid, signal.SIGKILL)
        driver.wait()
    result = run()
    assert result["resumed_from_step"] == 4
    assert result["steps"] == STEPS
    assert_same_curve(run, calm)
