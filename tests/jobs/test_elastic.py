"""Nodes go, come and are drained while a run trains: the same losses, and only a lost node costs steps."""

import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from baltoro.checkpoint.head import read_head
from baltoro.core.storage import Storage
from baltoro.testing.training_jobs import Notes, tiny_recipe

pytestmark = [pytest.mark.jobs, pytest.mark.slow, pytest.mark.timeout(1800)]

STEPS, EVERY_STEPS = 36, 4
LONGEST_SECONDS = 900

DRIVER = """
import sys, ray
from baltoro.jobs.recipe import Recipe
from baltoro.jobs.training import workers
from baltoro.testing.training_jobs import tiny_settings
from baltoro.tracking.mlflow import Tracker
recipe, name = Recipe.model_validate_json(sys.argv[1]), sys.argv[2]
workers.RESIZE_SECONDS = 5.0
ray.init(address=sys.argv[3], log_to_driver=False)
tracker = Tracker(sys.argv[4], "elastic")
with tracker.run(name) as run:
    settings = tiny_settings(recipe, name, run)
    settings.progress.pause_seconds = float(sys.argv[5])
    print(workers.run_workers(recipe, settings)["steps"])
"""


@pytest.fixture(scope="module")
def cluster() -> Iterator[Any]:
    """A head of one CPU; nodes of one CPU are added and taken away."""
    from ray.cluster_utils import Cluster

    nodes = Cluster(initialize_head=True, head_node_args={"num_cpus": 1})
    try:
        yield nodes
    finally:
        nodes.shutdown()


@pytest.fixture
def train(cluster, tracking_uri, tmp_path) -> Iterator[Callable[..., subprocess.Popen[str]]]:
    """Start a driver: ``train("name", workers=2, …)``; it is killed after the test."""
    drivers = []

    def start(name: str, *, pause_seconds: float = 0.0, **workers: int) -> subprocess.Popen[str]:
        recipe = tiny_recipe(str(tmp_path / "root"), steps=STEPS, cluster=workers)
        faults = {"preemption_grace_seconds": 90, "max_failures": 1}
        pretrain = recipe.pretrain.model_dump(by_alias=True) | {
            "faults": faults,
            "checkpoint": {"every_steps": EVERY_STEPS},
        }
        recipe = tiny_recipe(str(tmp_path / "root"), steps=STEPS, cluster=workers, pretrain=pretrain)
        text = recipe.model_dump_json(by_alias=True)
        line = [sys.executable, "-c", DRIVER, text, name, cluster.address, tracking_uri, str(pause_seconds)]
        drivers.append(subprocess.Popen(line, stdout=subprocess.PIPE, text=True))
        return drivers[-1]

    yield start
    for driver in drivers:
        driver.kill()
        driver.communicate()


def drain(cluster: Any, node: Any, seconds: float) -> None:
    """Tell Ray that a node will be taken away."""
    from ray._raylet import GcsClient
    from ray.core.generated import autoscaler_pb2

    deadline_ms = int((time.time() + seconds) * 1000)
    reason = autoscaler_pb2.DrainNodeReason.Value("DRAIN_NODE_REASON_PREEMPTION")
    client = GcsClient(address=cluster.address)
    accepted, message = client.drain_node(node.node_id, reason, "taken away by a test", deadline_ms)
    assert accepted, message


def test_nodes_that_go_come_and_are_drained_change_no_loss(cluster, train, tracking_uri, tmp_path):
    run_folder = tmp_path / "root" / "run"
    calm = train("calm", workers=1)
    assert calm.communicate(timeout=LONGEST_SECONDS)[0].split()[-1] == str(STEPS)
    expected = Notes(str(run_folder / "calm" / "notes.txt")).losses()

    first = cluster.add_node(num_cpus=1)
    cluster.wait_for_nodes()
    driver = train("elastic", workers=2, min_workers=1, pause_seconds=1.0)
    folder = run_folder / "elastic"
    notes = Notes(str(folder / "notes.txt"))
    began = time.monotonic()

    def attempts() -> list[int]:
        head = read_head(Storage(), str(folder)) if folder.exists() else None
        return [] if head is None else [attempt.world_size for attempt in head.attempts]

    def wait_for(what: str, condition: Callable[[], bool]) -> None:
        while not condition():
            assert driver.poll() is None, f"the driver ended before {what}"
            assert time.monotonic() - began < LONGEST_SECONDS, f"no {what} after {attempts()}"
            time.sleep(0.2)

    def steps_after(count: int) -> Callable[[], bool]:
        seen = len(notes.read())
        return lambda: len(notes.read()) >= seen + count

    wait_for("step with two workers", lambda: attempts() == [2] and len(notes.read()) >= 6)
    cluster.remove_node(first, allow_graceful=False)
    wait_for("attempt with one worker", lambda: attempts() == [2, 1])
    wait_for("step with one worker", steps_after(2))
    second = cluster.add_node(num_cpus=1)
    wait_for("attempt with two workers again", lambda: attempts() == [2, 1, 2])
    wait_for("step with two workers again", steps_after(2))
    drain(cluster, second, 300)
    assert driver.communicate(timeout=LONGEST_SECONDS)[0].split()[-1] == str(STEPS)

    assert attempts() == [2, 1, 2, 1]
    losses = notes.losses()
    assert losses.keys() == expected.keys() == set(range(1, STEPS + 1))
    assert max(abs(losses[step] - expected[step]) for step in expected) <= 1e-5
    # The lost node cost what was done since the checkpoint; who came and who was drained cost nothing.
    done_twice = [step for step, count in Counter(step for step, _ in notes.read()).items() if count > 1]
    assert set(done_twice) <= set(range(5, 5 + 2 * EVERY_STEPS))
    failures = sorted(path.name for path in (folder / "failures").iterdir())
    assert failures == ["attempt-0001"]
    cause = (folder / "failures" / "attempt-0001" / "cause.json").read_text()
    assert "worker lost" in cause
    assert Path(tracking_uri.removeprefix("sqlite:///")).exists()
