"""What the end-to-end tests share: one local Ray, one MLflow database, one tiny recipe."""

import contextlib
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from baltoro.core.artifacts import Artifact, ArtifactStore
from baltoro.core.storage import Storage
from baltoro.jobs.recipe import Recipe, load_recipe
from baltoro.jobs.runner import execute
from baltoro.testing.papers import BROKEN, WrittenPapers, write_papers

TINY_RECIPE = """\
name: tiny
cluster: {workers: 2}
corpus:
  sources: [{name: papers, uri: papers}]
  splits: {validation_fraction: 0.1}
  objects_per_task: 16
  # The papers are made of one set of templates: to these rules they are copies of each other.
  filters: {quality: {enabled: false}, repetition: {enabled: false}}
  dedup: {versions: {enabled: false}, near: {enabled: false}}
tokenizer: {vocab_size: 600, sample_fraction: 1.0}
model: {base: llama-tiny}
pretrain:
  data: {sequence_length: 64}
  epochs: 3
  steps: 60
  precision: float32
  global_batch_tokens: 512
  micro_batch: 2
  optimizer: {learning_rate: 5.0e-3}
  checkpoint: {every_steps: 10}
"""

BROKEN_KINDS = tuple(kind for kind in BROKEN if kind != "long_line")
"""All but the 5 MB that would be a day's reading for the tiny model."""


@pytest.fixture(scope="session")
def recipe_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The recipe of all tests here; what differs is given as overrides."""
    path = tmp_path_factory.mktemp("recipe") / "tiny.yaml"
    path.write_text(TINY_RECIPE)
    return path


@pytest.fixture(scope="session")
def tracking_uri(tmp_path_factory: pytest.TempPathFactory) -> str:
    """One MLflow database: making its tables takes seconds."""
    return f"sqlite:///{tmp_path_factory.mktemp('mlflow') / 'mlflow.db'}"


@pytest.fixture(scope="session")
def credentials_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The AWS credentials file that Ray's workers look into; a test may write it."""
    return tmp_path_factory.mktemp("aws") / "credentials"


@pytest.fixture(scope="session")
def ray_session(recipe_file: Path, s3_server: str, credentials_file: Path) -> Iterator[str]:
    """A local Ray of six logical CPUs, started as a command starts it; its workers find the S3 server.

    The value is its address, for commands that are to join it.

    Workers of a local Ray inherit the environment that it is started in.
    """
    import ray

    from baltoro.jobs.cluster import connected

    recipe = load_recipe(str(recipe_file), ["cluster.local_cpus=6"], environment={})
    with pytest.MonkeyPatch.context() as environment:
        environment.setenv("AWS_ACCESS_KEY_ID", "testing")
        environment.setenv("AWS_SECRET_ACCESS_KEY", "testing")
        environment.setenv("AWS_DEFAULT_REGION", "us-east-1")
        environment.setenv("AWS_ENDPOINT_URL", s3_server)
        environment.setenv("AWS_EC2_METADATA_DISABLED", "true")
        environment.setenv("AWS_SHARED_CREDENTIALS_FILE", str(credentials_file))
        environment.setenv("NO_PROXY", "127.0.0.1,localhost")
        environment.delenv("RAY_ADDRESS", raising=False)
        with connected(recipe):
            environment.undo()
            yield ray.get_runtime_context().gcs_address


@pytest.fixture(scope="session")
def papers(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, WrittenPapers]:
    """Thirty papers in four formats, two copies and every broken file, and the truth about them."""
    folder = tmp_path_factory.mktemp("papers")
    return folder, write_papers(folder, 30, duplicates=2, broken=BROKEN_KINDS)


@pytest.fixture(scope="session")
def load_tiny(recipe_file: Path, tracking_uri: str) -> Callable[..., Recipe]:
    """Load the tiny recipe with overrides: ``load_tiny("storage.root=…", "corpus.sources.0.uri=…")``."""

    def load(*overrides: str) -> Recipe:
        return load_recipe(str(recipe_file), [f"tracking.uri={tracking_uri}", *overrides])

    return load


@pytest.fixture(scope="session")
def build(ray_session: str, load_tiny: Callable[..., Recipe]) -> Callable[..., dict[str, dict[str, Any]]]:
    """Build a stage of the tiny recipe and return the summaries: ``build("tokens", "storage.root=…")``."""

    def run(target: str, *overrides: str) -> dict[str, dict[str, Any]]:
        return execute(load_tiny(*overrides), target)

    return run


@dataclass(frozen=True)
class Built:
    """The finished recipe that tests look at and nobody changes."""

    root: Path
    papers: Path
    truth: WrittenPapers
    summaries: dict[str, dict[str, Any]]

    @property
    def overrides(self) -> tuple[str, str]:
        return f"storage.root={self.root}", f"corpus.sources.0.uri={self.papers}"

    def artifact(self, stage: str) -> Artifact:
        return ArtifactStore(Storage(), str(self.root)).open(self.summaries[stage]["artifact"])

    def copy_untrained(self, root: Path) -> None:
        """Copy the root, as far as training starts from."""
        shutil.copytree(self.root, root, ignore=shutil.ignore_patterns("run"), dirs_exist_ok=True)


@pytest.fixture(scope="session")
def built(
    build: Callable[..., dict[str, dict[str, Any]]],
    papers: tuple[Path, WrittenPapers],
    tmp_path_factory: pytest.TempPathFactory,
) -> Built:
    """The tiny recipe from papers to a registered model."""
    root = tmp_path_factory.mktemp("root")
    overrides = (f"storage.root={root}", f"corpus.sources.0.uri={papers[0]}")
    return Built(root, *papers, build("pretrain", *overrides))


@pytest.fixture
def command() -> Iterator[Callable[..., subprocess.Popen[str]]]:
    """Start the command line in a process group of its own; what is left of it after the test is killed."""
    started: list[subprocess.Popen[str]] = []

    def start(
        *arguments: str, environment: dict[str, str] | None = None, prefix: Sequence[str] = ()
    ) -> subprocess.Popen[str]:
        process = subprocess.Popen(
            [*prefix, sys.executable, "-m", "baltoro.cli", *arguments],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
            env={**os.environ, **(environment or {})},
        )
        started.append(process)
        return process

    yield start
    for process in started:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.communicate()
