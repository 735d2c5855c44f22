"""The doctor looks at this very machine; what is missing or wrong gets a remedy, never a traceback."""

import sys

import pytest

from baltoro.jobs import doctor
from baltoro.jobs.doctor import Check, check_machine, check_recipe, describe_checks


def by_name(checks):
    checks = list(checks)
    found = {check.name: check for check in checks}
    assert len(found) == len(checks), "each line of the report has its own name"
    return found


@pytest.fixture
def recipe(load, mlflow_uri):
    return lambda *overrides: load(f"tracking.uri={mlflow_uri}", *overrides)


def test_this_machine_can_run_the_tests(workplace):
    checks = by_name(check_machine(None))
    assert list(checks) == [
        *("python", "torch", "devices", "bf16", "nf4", "compiler", "shared memory", "ray"),
        *("disk", "temporary disk"),
    ]
    assert {name for name, check in checks.items() if check.status == "problem"} == set()
    assert checks["python"].found.startswith(".".join(map(str, sys.version_info[:3])))
    assert str(workplace) in checks["disk"].found
    assert all(check.remedy for check in checks.values() if check.status != "ok")


def test_a_working_recipe_has_no_problem(recipe, workplace):
    checks = by_name(check_recipe(recipe()))
    assert list(checks) == ["storage.root", "source papers", "mlflow", "cluster", "plan"]
    assert checks["storage.root"].found.endswith("workspace keeps what publishing relies on")
    assert {check.status for check in checks.values()} == {"ok"}
    assert checks["source papers"].found == f"3 files, 0.0 MB at {workplace}/papers"
    assert checks["cluster"].found == "1 workers, needs 3 logical CPUs"


@pytest.mark.parametrize(
    ("override", "name", "expected"),
    [
        ("corpus.sources.0.uri=./nowhere", "source papers", "does not exist"),
        ("storage.root=papers/till.md", "storage.root", "till.md"),
        ("tracking.uri=sqlite:///papers/till.md/m.db", "mlflow", "tracking.uri: the MLflow store at"),
        ("cluster.local_cpus=2", "cluster", "cluster.local_cpus: 2 is too few for cluster.workers=1"),
        ("model.base=owner/base", "plan", "run `baltoro model import owner/base` first"),
        ("cluster.use_gpu=true", "cluster.use_gpu", "set cluster.use_gpu=false, or cluster.address"),
    ],
)
def test_a_problem_of_the_recipe_is_told_with_its_remedy(recipe, override, name, expected):
    import torch

    if name == "cluster.use_gpu" and torch.cuda.is_available():
        pytest.skip("this machine has a GPU")
    checks = by_name(check_recipe(recipe(override)))
    assert checks[name].status == "problem"
    assert expected in checks[name].remedy
    assert [other for other, check in checks.items() if check.status == "problem"] == [name]


@pytest.mark.parametrize(("module", "skipped"), [("torch", {"devices", "bf16", "nf4"}), ("ray", set())])
def test_a_library_that_does_not_import_is_a_problem_and_the_rest_is_still_checked(
    workplace, monkeypatch, module, skipped
):
    everything = {"python", "torch", "devices", "bf16", "nf4", "compiler", "shared memory", "ray"}
    monkeypatch.setitem(sys.modules, module, None)
    checks = by_name(check_machine(None))
    assert checks[module].status == "problem"
    assert checks[module].remedy == "run make setup again"
    assert checks.keys() == (everything | {"disk", "temporary disk"}) - skipped


def test_little_disk_is_noted_with_the_setting_that_moves_it(workplace, monkeypatch):
    monkeypatch.setattr(doctor, "_MIN_DISK_BYTES", 1 << 60)
    check = doctor.check_disk("disk", workplace / "not" / "made" / "yet")
    assert (check.status, check.remedy) == (
        "note",
        "free some space, or point storage.root at a larger disk",
    )
    assert str(workplace) in check.found
    assert "TMPDIR" in doctor.check_disk("temporary disk", workplace).remedy


def test_the_report_stands_in_lines_with_remedies_under_them():
    report = describe_checks([Check("torch", "ok", "2.13"), Check("ray", "problem", "broken", "mend it")])
    assert report.splitlines() == [
        "ok       torch            2.13",
        "PROBLEM  ray              broken",
        "                           → mend it",
        "1 problem to mend.",
    ]
    assert describe_checks([Check("torch", "ok", "2.13")]).endswith("\nReady.")
