"""Fixtures of the unit tests: a place to work in, and a tracking store that is quick to have."""

import os
import shutil
from pathlib import Path

import pytest


@pytest.fixture
def workplace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty current folder, and no variable that could change a recipe."""
    settings = ("BALTORO__", "MLFLOW_", "RAY_ADDRESS")
    for name in [name for name in os.environ if name.startswith(settings)]:
        monkeypatch.delenv(name)
    folder = tmp_path / "workplace"
    folder.mkdir()
    monkeypatch.chdir(folder)
    return folder


@pytest.fixture(scope="session")
def _empty_mlflow_database(tmp_path_factory: pytest.TempPathFactory) -> Path:
    from baltoro.tracking.mlflow import Tracker

    file = tmp_path_factory.mktemp("mlflow") / "mlflow.db"
    Tracker(f"sqlite:///{file}", "unused").prepare()
    return file


@pytest.fixture
def mlflow_uri(_empty_mlflow_database: Path, tmp_path: Path) -> str:
    """The URI of a real SQLite store of its own; a copy, since creating one takes seconds."""
    file = tmp_path / "tracking" / "mlflow.db"
    file.parent.mkdir()
    shutil.copyfile(_empty_mlflow_database, file)
    return f"sqlite:///{file}"
