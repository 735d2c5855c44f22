import json
from dataclasses import replace

import pytest

from baltoro.jobs.verify.certificate import Certificate, RunVerdict, certificate_files, describe

TWIN = RunVerdict("twin", steps=3, rows_once=True, order_equal=True, attempts=1, world_sizes=(2,))
STRUCK = replace(
    TWIN,
    name="struck <2>",
    attempts=2,
    world_sizes=(2, 4),
    strikes=("step 2: one worker killed",),
    max_loss_deviation=5e-5,
    bound=1e-4,
)


def certificate(*verdicts):
    return Certificate(
        about="geo",
        kind="rehearsal",
        settings={"strategy": "fsdp2"},
        verdicts=verdicts,
        not_done=("an outage of the object store: storage.root is a folder",),
        losses={
            verdict.name: [(1, 3.0), (2, 2.0 + index), (3, 1.0)] for index, verdict in enumerate(verdicts)
        },
    )


def test_all_runs_passing_is_certified():
    given = certificate(TWIN, STRUCK)
    assert given.certified
    summary = given.summary()
    assert {key: summary[key] for key in ("certified", "rows_once", "order_equal", "attempts")} == {
        "certified": True,
        "rows_once": True,
        "order_equal": True,
        "attempts": 3,
    }
    assert summary["max_loss_deviation"] == 5e-5


@pytest.mark.parametrize(
    "flaw",
    [
        {"rows_once": False},
        {"order_equal": False},
        {"findings": ("step 3: digest is another",)},
        {"max_loss_deviation": 2e-4},
        {"max_loss_deviation": 1e-9, "bound": 0.0},
        {"max_loss_deviation": float("nan")},
    ],
)
def test_one_flaw_of_one_run_is_not_certified(flaw):
    given = certificate(TWIN, replace(STRUCK, **flaw))
    assert not given.certified
    assert describe(given).endswith("NOT CERTIFIED")


def test_no_run_at_all_is_not_certified():
    assert not certificate().certified


def test_the_files_are_a_page_the_figures_and_a_picture():
    files = certificate_files(certificate(TWIN, STRUCK))
    page = files["certificate.html"].decode()
    assert "struck &lt;2&gt;" in page
    assert "step 2: one worker killed" in page
    assert "storage.root is a folder" in page
    figures = json.loads(files["certificate.json"])
    assert figures["runs"][1]["world_sizes"] == [2, 4]
    assert figures["losses"]["twin"] == [[1, 3.0], [2, 2.0], [3, 1.0]]
    assert files["losses.png"].startswith(b"\x89PNG")
