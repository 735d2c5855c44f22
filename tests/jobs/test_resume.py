"""Training that is killed goes on from its last checkpoint and ends as if nothing had happened."""

import json
import os
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from baltoro.core.artifacts import ArtifactStore
from baltoro.core.storage import Storage
from baltoro.jobs.runner import plan
from baltoro.jobs.stages import Context

pytestmark = [pytest.mark.jobs, pytest.mark.slow, pytest.mark.timeout(1200)]

STEPS = 60
WAIT_SECONDS = 400


def head_of(root: Path) -> dict[str, Any]:
    """The run's head, as far as it is written."""
    for path in root.glob("run/*/*/head.json"):
        return json.loads(path.read_text())
    return {"attempts": [], "checkpoints": [], "finished": None}


def wait_for_checkpoint(process: Any, root: Path, attempt: int) -> None:
    """Wait until an attempt has published a checkpoint."""
    deadline = time.monotonic() + WAIT_SECONDS
    while not any(checkpoint["attempt"] == attempt for checkpoint in head_of(root)["checkpoints"]):
        if process.poll() is not None:
            pytest.fail(f"the command ended with {process.returncode}: {process.communicate()[1]}")
        if time.monotonic() > deadline:
            pytest.fail(f"no checkpoint of attempt {attempt} within {WAIT_SECONDS} s")
        time.sleep(0.02)


def training_workers(process: Any) -> list[int]:
    """The processes in which Ray runs the ranks, among the descendants of a command with a Ray of its own."""
    listed = subprocess.run(
        ["ps", "-axo", "pid=,ppid=,command="], capture_output=True, text=True, check=True
    ).stdout
    rows = [line.split(None, 2) for line in listed.splitlines()]
    family = {process.pid}
    while grown := {int(pid) for pid, parent, _ in rows if int(parent) in family} - family:
        family |= grown
    return [int(pid) for pid, _, name in rows if int(pid) in family and "RayTrainWorker" in name]


@pytest.fixture
def beside_another_ray() -> Iterator[dict[str, str]]:
    """The environment of a machine on which somebody has used `ray start`: a command must not join that."""
    # A Unix socket's path has at most 107 bytes, which pytest's folders are too long for.
    with tempfile.TemporaryDirectory(prefix="ray-", dir="/tmp", ignore_cleanup_errors=True) as folder:
        address = Path(folder, "ray", "ray_current_cluster")
        address.parent.mkdir()
        address.write_text("127.0.0.1:9")
        yield {"RAY_TMPDIR": folder, "RAY_ADDRESS": ""}


def test_killed_training_ends_with_the_same_loss(
    built, build, command, recipe_file, tracking_uri, tmp_path, beside_another_ray
):
    root = tmp_path / "copied root"
    built.copy_untrained(root)
    settings = (f"storage.root={root}", built.overrides[1], "tracking.model_name=resumed")
    line = ["pretrain", str(recipe_file), f"tracking.uri={tracking_uri}", *settings, "--no-parents"]

    process = command(*line, environment=beside_another_ray)
    wait_for_checkpoint(process, root, attempt=1)
    workers = training_workers(process)
    assert len(workers) == 2
    os.kill(workers[1], signal.SIGKILL)
    _, errors = process.communicate(timeout=WAIT_SECONDS)
    assert process.returncode == 1, errors
    assert "Traceback" not in errors
    assert "the same command resumes from the last checkpoint" in errors
    assert head_of(root)["finished"] is None

    process = command(*line, environment=beside_another_ray)
    wait_for_checkpoint(process, root, attempt=2)
    os.killpg(process.pid, signal.SIGKILL)
    process.communicate()
    assert head_of(root)["finished"] is None

    whole, resumed = built.summaries["pretrain"], build("pretrain", *settings)["pretrain"]
    head = head_of(root)
    assert [attempt["number"] for attempt in head["attempts"]] == [1, 2, 3]
    assert head["finished"]["step"] == STEPS
    for key in ("steps", "tokens_seen", "loss_first"):
        assert resumed[key] == whole[key]
    for key in ("loss_last", "validation_loss_before", "validation_loss_after"):
        assert resumed[key] == pytest.approx(whole[key], abs=1e-6)
    assert resumed["registered"] == {"name": "resumed", "version": "1"}


def test_a_copied_root_is_complete(built, load_tiny, tmp_path):
    """Everything in a copy is found, and none of it by the first root's path."""
    root = tmp_path / "copied root"
    shutil.copytree(built.root, root)
    planned = plan(Context(load_tiny(f"storage.root={root}", built.overrides[1])), "pretrain")
    store = ArtifactStore(Storage(), str(root))
    for entry in planned:
        assert entry.status == "done"
        assert entry.artifact.uri.startswith(str(root))
        assert {parent.root_uri for parent in store.parents_of(entry.artifact).values()} <= {str(root)}
        store.verify(entry.artifact)
