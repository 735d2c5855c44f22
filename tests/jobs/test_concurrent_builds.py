"""Two commands that build the same thing at the same time, the very first into a new workspace."""

import json

import pytest

from baltoro.core.artifacts import ArtifactStore
from baltoro.core.storage import Storage
from baltoro.testing.papers import write_papers

pytestmark = [pytest.mark.jobs, pytest.mark.timeout(600)]

BUILD = """
import mlflow, ray.data
import baltoro.jobs.runner
from baltoro.cli import main

arguments = sys.argv[2:]
ready()
main(["corpus", "build", *arguments, "--json"])
"""


def test_two_builds_at_once_give_one_artifact(race, ray_session, recipe_file, tmp_path):
    truth = write_papers(tmp_path / "papers", 12, formats=("markdown", "jats"))
    outputs = race(
        BUILD,
        str(recipe_file),
        "name=twice",
        f"tracking.uri=sqlite:///{tmp_path}/mlflow.db",
        f"storage.root={tmp_path / 'root'}",
        f"corpus.sources.0.uri={tmp_path / 'papers'}",
        f"cluster.address={ray_session}",
        processes=2,
    )
    first, second = (json.loads(output) for output in outputs)
    assert first == second
    assert first["kept"] == len(truth.marks)
    store = ArtifactStore(Storage(), str(tmp_path / "root"))
    (artifact,) = store.list("corpus", "twice")
    store.verify(artifact)
    writers = {path.name for path in (tmp_path / "root" / artifact.relative_path).iterdir() if path.is_dir()}
    assert writers == {artifact.manifest.writer}, "what the slower one wrote is removed"
