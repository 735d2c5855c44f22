"""The import rule of docs/architecture.md, proved on the source: imports point down."""

import ast
import functools
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).resolve().parents[2]
PACKAGE = REPOSITORY / "src" / "baltoro"

# Lower rooms first; packages on one line do not import each other.
LAYERS = (
    ("core",),
    ("models", "parallel", "optim"),
    ("checkpoint", "data", "tracking", "papers"),
    ("train", "corpus", "instructions", "evaluation"),
    ("jobs",),
    ("commands",),
    ("cli",),
)
LEVEL = {room: level for level, rooms in enumerate(LAYERS) for room in rooms}

# Who may import what only some may; a path ending in "/" allows a whole room.
RESTRICTED = {
    "ray": ("jobs/", "corpus/pipeline.py", "instructions/pipeline.py"),
    "mlflow": ("tracking/",),
    "deepspeed": ("parallel/deepspeed.py",),
    "peft": ("models/adapters.py",),
    "bitsandbytes": ("models/nf4.py", "optim/eight_bit.py", "jobs/doctor.py"),
}


@functools.cache
def imported_modules(path: Path) -> frozenset[str]:
    """Every module a file imports, at the top or inside functions, as dotted names."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"), str(path))):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}:{node.lineno}: relative import; write the full name"
            found.add(node.module)
            found |= {f"{node.module}.{alias.name}" for alias in node.names}
    return frozenset(found)


def room_of(path: Path) -> str:
    """The room a file stands in: its package, or its own name for a module beside the packages."""
    parts = path.relative_to(PACKAGE).parts
    return parts[0].removesuffix(".py")


SOURCES = sorted(PACKAGE.rglob("*.py"))


def test_every_room_has_its_place_in_the_order():
    rooms = {room_of(path) for path in SOURCES} - {"__init__", "testing"}
    assert rooms == set(LEVEL), "a new room needs its place in LAYERS and in docs/architecture.md"


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_imports_point_down(path):
    room = room_of(path)
    for module in sorted(imported_modules(path)):
        if not module.startswith("baltoro."):
            continue
        other = module.split(".")[1]
        if other in (room, "__version__"):
            continue
        assert room != "__init__", f"baltoro/__init__.py imports {module}; it stays empty of rooms"
        if room == "testing":
            continue
        assert other != "testing", f"{path} imports {module}; nothing shipped imports testing"
        assert LEVEL[other] < LEVEL[room], f"{path} imports {module}; imports point down only"


@pytest.mark.parametrize("library", RESTRICTED)
def test_library_is_imported_only_where_the_rule_says(library):
    for path in SOURCES:
        relative = str(path.relative_to(PACKAGE))
        if relative.startswith("testing/"):
            continue
        uses = any(module.split(".")[0] == library for module in imported_modules(path))
        allowed = any(
            relative.startswith(place) if place.endswith("/") else relative == place
            for place in RESTRICTED[library]
        )
        assert allowed or not uses, f"{relative} imports {library}; only {RESTRICTED[library]} may"


def test_ray_jobs_import_only_the_command_line():
    for path in sorted((REPOSITORY / "ray_jobs").glob("*.py")):
        rooms = {module for module in imported_modules(path) if module.startswith("baltoro")}
        assert rooms <= {"baltoro.cli", "baltoro.cli.main"}, f"{path} imports {rooms}; entry points stay thin"


def test_the_rule_would_notice_a_wrong_import(tmp_path):
    wrong = tmp_path / "wrong.py"
    wrong.write_text("def f():\n    from baltoro.jobs import runner\n    import ray.data\n")
    assert imported_modules(wrong) >= {"baltoro.jobs", "baltoro.jobs.runner", "ray.data"}
