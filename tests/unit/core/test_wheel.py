"""The wheel carries what an installed Baltoro needs outside the repository."""

import importlib.util
import subprocess
import sys
import zipfile
from collections.abc import Iterator
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).resolve().parents[3]


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Iterator[zipfile.ZipFile]:
    """A wheel built from this checkout, without asking a network for the build backend."""
    if importlib.util.find_spec("hatchling") is None:
        pytest.skip("the build backend hatchling is not installed here; the wheel cannot be built offline")
    folder = tmp_path_factory.mktemp("wheel")
    code = f"import hatchling.build; print(hatchling.build.build_wheel({str(folder)!r}))"
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=REPOSITORY, capture_output=True, text=True, timeout=120, check=False
    )
    assert done.returncode == 0, done.stderr
    with zipfile.ZipFile(folder / done.stdout.split()[-1]) as wheel:
        yield wheel


@pytest.fixture(scope="module")
def names(wheel: zipfile.ZipFile) -> set[str]:
    return set(wheel.namelist())


@pytest.mark.slow
def test_recipes_and_example_papers_are_inside(names):
    for folder in ("recipes", "examples/papers"):
        files = {
            f"baltoro/{folder}/{path.name}" for path in (REPOSITORY / folder).iterdir() if path.is_file()
        }
        assert files
        assert files <= names
    assert "baltoro/recipes/demo.yaml" in names
    assert "baltoro/examples/papers/metadata.csv" in names


@pytest.mark.slow
def test_every_module_is_inside_and_no_test(names):
    modules = {
        f"baltoro/{path.relative_to(REPOSITORY / 'src' / 'baltoro')}"
        for path in (REPOSITORY / "src").rglob("*.py")
    }
    assert modules <= names
    assert not any(name.startswith("tests/") for name in names)


@pytest.mark.slow
def test_the_command_is_declared(wheel, names):
    (entry_points,) = [name for name in names if name.endswith("entry_points.txt")]
    assert "baltoro = baltoro.cli:main" in wheel.read(entry_points).decode()
