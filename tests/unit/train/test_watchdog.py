"""A rank without progress leaves its stacks behind and ends; one with progress is left alone."""

import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from baltoro.testing.distributed import run_distributed
from baltoro.train.failure_report import RankReport, find_cause, report_of_rank
from baltoro.train.watchdog import EXIT_CODE, Watchdog, process_group_timeout_seconds


class Ended:
    """Takes the place of the end of the process."""

    def __init__(self) -> None:
        self.code: int | None = None
        self.event = threading.Event()

    def __call__(self, code: int) -> None:
        self.code = code
        self.event.set()


def stand_still(event: threading.Event) -> bool:
    return event.wait(30)


def test_without_progress_the_stacks_are_written_told_and_the_process_ends(tmp_path):
    ended, told = Ended(), []
    with Watchdog(0.4, stacks_file=tmp_path / "new" / "stacks.txt", tell=told.append, end=ended):
        began = time.monotonic()
        assert stand_still(ended.event)
    assert 0.4 <= time.monotonic() - began < 20
    assert ended.code == EXIT_CODE != 0
    assert told == ["set-up"]
    stacks = (tmp_path / "new" / "stacks.txt").read_text()
    assert "Thread MainThread" in stacks
    assert "in stand_still" in stacks


def test_progress_keeps_it_quiet_and_leaving_ends_it(tmp_path):
    ended = Ended()
    before = threading.active_count()
    with Watchdog(1.5, stacks_file=tmp_path / "stacks.txt", tell=print, end=ended) as watchdog:
        for step in range(10):
            time.sleep(0.3)
            watchdog.progress(f"step {step}")
    assert threading.active_count() == before
    time.sleep(2)
    assert ended.code is None
    assert not (tmp_path / "stacks.txt").exists()


def test_who_is_told_may_hang_or_fail_without_keeping_the_process(tmp_path, monkeypatch):
    monkeypatch.setattr("baltoro.train.watchdog._TELLING_SECONDS", 0.2)
    ended = Ended()
    with Watchdog(0.2, stacks_file=tmp_path / "stacks.txt", tell=lambda _: time.sleep(60), end=ended):
        assert ended.event.wait(20)


HELD = """
import ctypes, sys
from pathlib import Path
from baltoro.train.watchdog import Watchdog

def held_for_ever():
    ctypes.PyDLL(None).sleep(60)  # a call that keeps Python's lock

with Watchdog(1.0, stacks_file=Path(sys.argv[1]), tell=print):
    held_for_ever()
"""


def test_a_library_that_holds_python_s_lock_is_ended_too(tmp_path):
    began = time.monotonic()
    done = subprocess.run([sys.executable, "-c", HELD, str(tmp_path / "stacks.txt")], timeout=60, check=False)
    assert done.returncode != 0
    assert time.monotonic() - began < 50
    assert "held_for_ever" in (tmp_path / "stacks.held.txt").read_text()


def stand_still_until(files: list[Path]) -> None:
    while not all(file.exists() for file in files):
        time.sleep(0.05)


def hang_in_a_collective(folder: str) -> RankReport:
    """Rank 1 stands still while rank 0 waits for it; returns what the rank's watchdog would have told."""
    import torch
    import torch.distributed as dist

    rank = dist.get_rank()
    thread = threading.get_ident()
    reports: list[RankReport] = []
    told = [Path(folder) / f"told {one}" for one in range(2)]

    def tell(doing: str) -> None:
        assert doing == "step 8"
        reports.append(report_of_rank(rank, "hung", step=7, thread=thread))
        told[rank].touch()

    stacks = Path(folder) / f"{rank}.txt"
    with Watchdog(1.0, stacks_file=stacks, tell=tell, end=Ended()) as watchdog:
        watchdog.progress("step 8")
        if rank == 1:
            stand_still_until(told)
        dist.all_reduce(torch.ones(3))
    return reports[0]


@pytest.mark.distributed
def test_of_ranks_in_a_hung_collective_the_one_that_is_missing_is_named(tmp_path):
    reports = run_distributed(hang_in_a_collective, 2, str(tmp_path))
    waiting, missing = reports
    assert waiting.place.in_collective
    assert waiting.place.text.startswith("all_reduce (torch/distributed/distributed_c10d.py:")
    assert not missing.place.in_collective
    cause = find_cause(reports)
    assert cause.report.rank == 1
    assert cause.waited_for_it == (0,)
    assert "no progress in stand_still_until (" in cause.sentence()
    assert cause.sentence().endswith(", while rank 0 waited")
    assert "all_reduce" in (tmp_path / "0.txt").read_text()
    assert "stand_still_until" in (tmp_path / "1.txt").read_text()


def test_the_process_group_waits_longer_than_the_watchdog():
    assert process_group_timeout_seconds(1800.0) > 1800
    assert process_group_timeout_seconds(None) > 10_000_000
