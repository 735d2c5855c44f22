"""Several Ray nodes build what one builds, also if one of them dies; one CPU is enough to build a corpus."""

import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from baltoro.core.artifacts import ArtifactStore
from baltoro.core.storage import Storage
from baltoro.testing.collections import Plan, write_collection

pytestmark = [pytest.mark.jobs, pytest.mark.slow, pytest.mark.timeout(1800)]

PAPERS = Plan(160, words=200, exact_fraction=0.04, edited_fraction=0.04)
LONGEST_RUN_SECONDS = 600


@pytest.fixture(scope="module")
def papers(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("papers")
    write_collection(folder, PAPERS, format="markdown")
    return folder


@pytest.fixture(scope="module")
def settings(tracking_uri):
    """What every build here has in common."""
    return (
        "name=nodes",
        f"tracking.uri={tracking_uri}",
        "corpus.objects_per_task=4",
        "corpus.dedup={}",
        "cluster.workers=1",
        "pretrain.data.rows_per_shard=256",
        "pretrain.epochs=1",
    )


@pytest.fixture(scope="module")
def cluster(module_s3) -> Iterator[object]:
    """A head and two more nodes of one CPU each; their workers find the S3 server."""
    from ray.cluster_utils import Cluster

    nodes = Cluster(initialize_head=True, head_node_args={"num_cpus": 1})
    try:
        for _ in range(2):
            nodes.add_node(num_cpus=1)
        nodes.wait_for_nodes()
        yield nodes
    finally:
        nodes.shutdown()


def checksums(root: str) -> dict[tuple[str, str], str]:
    """The sha256 of every data file below a root, by kind and name; each file is as its manifest says."""
    store = ArtifactStore(Storage(), root)
    sums = {}
    for kind in ("corpus", "tokenizer", "tokens"):
        (artifact,) = store.list(kind, "nodes")
        store.verify(artifact)
        sums |= {(kind, file.name): file.sha256 for file in artifact.manifest.files}
    return sums


def run(command, recipe_file, *overrides: str) -> None:
    process = command("tokens", "build", str(recipe_file), *overrides, environment={"RAY_ADDRESS": ""})
    _, error = process.communicate(timeout=LONGEST_RUN_SECONDS)
    assert process.returncode == 0, error[-3000:]


@pytest.fixture(scope="module")
def on_one_node(papers, settings, recipe_file, tmp_path_factory) -> dict[tuple[str, str], str]:
    """What a local Ray builds."""
    root = tmp_path_factory.mktemp("one node")
    line = [sys.executable, "-m", "baltoro.cli", "tokens", "build", str(recipe_file), *settings]
    subprocess.run(
        [*line, f"storage.root={root}", f"corpus.sources.0.uri={papers}"],
        check=True,
        capture_output=True,
        env={**os.environ, "RAY_ADDRESS": ""},
        timeout=LONGEST_RUN_SECONDS,
    )
    return checksums(str(root))


def test_a_folder_of_one_machine_is_refused_on_more_nodes(
    command, cluster, papers, settings, recipe_file, tmp_path
):
    process = command(
        *("corpus", "build", str(recipe_file), *settings),
        f"storage.root={tmp_path}",
        f"corpus.sources.0.uri={papers}",
        f"cluster.address={cluster.address}",
    )
    _, error = process.communicate(timeout=LONGEST_RUN_SECONDS)
    assert process.returncode != 0
    assert "storage.root" in error
    assert "is a folder of one machine and the Ray cluster has 3 nodes" in error
    assert "storage.shared=true" in error


def test_three_nodes_build_what_one_builds(
    command, cluster, on_one_node, papers, settings, recipe_file, tmp_path
):
    run(
        *(command, recipe_file, *settings),
        f"storage.root={tmp_path}",
        f"corpus.sources.0.uri={papers}",
        f"cluster.address={cluster.address}",
        "storage.shared=true",
    )
    assert checksums(str(tmp_path)) == on_one_node


def test_three_nodes_build_on_s3_what_one_builds_there(
    command, cluster, module_s3, papers, settings, recipe_file, tmp_path
):
    Storage().upload_folder(papers, f"{module_s3.uri}/papers")
    source = f"corpus.sources.0.uri={module_s3.uri}/papers"
    run(command, recipe_file, *settings, source, f"storage.root={module_s3.uri}/one")
    run(
        *(command, recipe_file, *settings, source),
        f"storage.root={module_s3.uri}/three",
        f"cluster.address={cluster.address}",
        # The tracking database is a local file.
        "storage.shared=true",
    )
    assert checksums(f"{module_s3.uri}/three") == checksums(f"{module_s3.uri}/one")


def test_a_node_that_dies_while_it_builds_changes_nothing(
    command, cluster, on_one_node, papers, settings, recipe_file, tmp_path
):
    process = command(
        *("tokens", "build", str(recipe_file), *settings),
        f"storage.root={tmp_path}",
        f"corpus.sources.0.uri={papers}",
        f"cluster.address={cluster.address}",
        "storage.shared=true",
    )
    deadline = time.monotonic() + LONGEST_RUN_SECONDS
    while sum(1 for _ in tmp_path.glob("corpus/nodes/*/*/staging/*/*")) < 12:
        assert process.poll() is None, process.communicate()[1][-3000:]
        assert time.monotonic() < deadline
        time.sleep(0.01)
    killed = max(cluster.worker_nodes, key=lambda node: node.node_id)
    cluster.remove_node(killed, allow_graceful=False)
    try:
        _, error = process.communicate(timeout=LONGEST_RUN_SECONDS)
    finally:
        cluster.add_node(num_cpus=1)
        cluster.wait_for_nodes()
    assert process.returncode == 0, error[-3000:]
    assert checksums(str(tmp_path)) == on_one_node


def test_a_build_on_one_cpu_ends(on_one_node, papers, settings, recipe_file, tmp_path):
    line = ["tokens", "build", str(recipe_file), *settings, "cluster.local_cpus=1"]
    done = subprocess.run(
        [
            sys.executable,
            "-m",
            "baltoro.cli",
            *line,
            f"storage.root={tmp_path}",
            f"corpus.sources.0.uri={papers}",
        ],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "RAY_ADDRESS": ""},
        timeout=LONGEST_RUN_SECONDS,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    assert checksums(str(tmp_path)) == on_one_node
