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

pytestmark = [pytest.mark.jobs, pytest.mark.slow, pytest.mark.timeout(1200)]

STEPS = 60
WAIT_SECONDS = 400


@pytest.fixture(scope="module")
def overrides(papers) -> tuple[str, ...]:
    return (
        "name=resumed",
        f"corpus.sources.0.uri={papers[0]}",
        f"pretrain.steps={STEPS}",
        "pretrain.epochs=3",
        "pretrain.checkpoint.every_steps=10",
    )


@pytest.fixture(scope="module")
def roots(build, overrides, tmp_path_factory) -> list[Path]:
    """Two roots with the same token dataset: one is a copy of the other."""
    first = tmp_path_factory.mktemp("uninterrupted")
    build("tokens", f"storage.root={first}", *overrides)
    second = tmp_path_factory.mktemp("killed") / "copy"
    shutil.copytree(first, second)
    return [first, second]


def head_of(root: Path) -> dict[str, Any]:
    """The run's head, as far as it is written."""
    for path in root.glob("run/resumed/*/head.json"):
        return json.loads(path.read_text())
    return {"attempts": [], "checkpoints": [], "finished": None}


def wait_for_step(process: Any, root: Path, step: int) -> dict[str, Any]:
    """Wait for a checkpoint at or beyond a step; the head as it then was."""
    deadline = time.monotonic() + WAIT_SECONDS
    while time.monotonic() < deadline:
        head = head_of(root)
        if head["checkpoints"] and head["checkpoints"][-1]["step"] >= step:
            return head
        if process.poll() is not None:
            pytest.fail(f"the command ended with {process.returncode}: {process.communicate()[1]}")
        time.sleep(0.02)
    pytest.fail(f"no checkpoint at step {step} within {WAIT_SECONDS} s")


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
    build, overrides, roots, command, tracking_uri, recipe_file, beside_another_ray
):
    whole = build("pretrain", f"storage.root={roots[0]}", *overrides)["pretrain"]
    settings = [
        str(recipe_file),
        f"tracking.uri={tracking_uri}",
        f"storage.root={roots[1]}",
        *overrides,
        "--no-parents",
    ]

    process = command("pretrain", *settings, environment=beside_another_ray)
    wait_for_step(process, roots[1], 10)
    workers = training_workers(process)
    assert len(workers) == 2
    os.kill(workers[1], signal.SIGKILL)
    _, errors = process.communicate(timeout=WAIT_SECONDS)
    after_worker = head_of(roots[1])
    assert process.returncode == 1, errors
    assert "Traceback" not in errors
    assert "the same command resumes from the last checkpoint" in errors
    assert after_worker["finished"] is None
    assert after_worker["checkpoints"][-1]["step"] < STEPS

    process = command("pretrain", *settings, environment=beside_another_ray)
    wait_for_step(process, roots[1], after_worker["checkpoints"][-1]["step"] + 10)
    os.killpg(process.pid, signal.SIGKILL)
    process.communicate()
    after_command = head_of(roots[1])
    assert after_command["finished"] is None

    resumed = build("pretrain", f"storage.root={roots[1]}", *overrides)["pretrain"]
    head = head_of(roots[1])
    assert [attempt["number"] for attempt in head["attempts"]] == [1, 2, 3]
    assert head["finished"]["step"] == STEPS
    for key in ("steps", "tokens_seen", "loss_first"):
        assert resumed[key] == whole[key]
    for key in ("loss_last", "validation_loss_before", "validation_loss_after"):
        assert resumed[key] == pytest.approx(whole[key], abs=1e-6)
    assert resumed["registered"]["version"] != whole["registered"]["version"]


def test_a_copied_root_is_complete(build, overrides, roots, load_tiny):
    """Everything in the copy is found, and none of it by the first root's path."""
    from baltoro.core.artifacts import ArtifactStore
    from baltoro.core.storage import Storage

    summaries = build("tokens", f"storage.root={roots[1]}", *overrides)
    store = ArtifactStore(Storage(), str(roots[1]))
    tokens = store.open(summaries["tokens"]["artifact"])
    assert tokens.uri.startswith(str(roots[1]))
    assert {artifact.root_uri for artifact in store.parents_of(tokens).values()} == {str(roots[1])}
    store.verify(tokens)
