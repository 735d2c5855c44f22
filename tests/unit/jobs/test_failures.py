"""What the desk gathers and writes of a failed attempt; no Ray is needed for that."""

import asyncio
import json
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import TypeVar

import pytest

from baltoro.checkpoint.head import RunIdentity, claim_attempt
from baltoro.core.errors import ConfigError, StorageError, TrainingError
from baltoro.core.storage import Storage
from baltoro.jobs.training import failures
from baltoro.jobs.training.failures import Desk, Failure, reports_of_errors, unwrap
from baltoro.jobs.training.workers import closing_error, resume_command
from baltoro.train.failure_report import Place, RankReport, describe_error

T = TypeVar("T")


@pytest.fixture
def run_folder(tmp_path: Path) -> Path:
    (tmp_path / "run").mkdir()
    return tmp_path / "run"


@pytest.fixture
def desk(run_folder: Path) -> Desk:
    return Desk(Storage(), str(run_folder))


@pytest.fixture(autouse=True)
def _impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(failures, "_GATHER_SECONDS", 0.5)


def run(work: Callable[[], Awaitable[T]]) -> T:
    return asyncio.run(work())  # type: ignore[arg-type]


async def both_join(desk: Desk, folder: Path) -> int:
    numbers = [
        await desk.join(rank, 2, f"host-{rank}", 40 + rank, str(folder / f"{rank}")) for rank in (0, 1)
    ]
    assert numbers[0] == numbers[1]
    return numbers[0]


def claim(folder: Path) -> None:
    claim_attempt(Storage(), str(folder), RunIdentity("settings", ("rows",)), world_size=2)


def raised(rank: int, error: BaseException, **more: object) -> RankReport:
    return RankReport(rank, "raised", time.time(), error=describe_error(error, rank=rank), **more)


LOST_PEER = RuntimeError("[gloo/transport/tcp/pair.cc:547] Connection closed by peer [127.0.0.1]:3")


def test_all_that_is_known_is_written_under_the_attempt(desk, run_folder, tmp_path):
    async def work() -> Failure:
        number = await both_join(desk, tmp_path)
        claim(run_folder)
        await desk.add_lines(number, 1, ["first line", "last line"])
        waiting = asyncio.create_task(desk.wait_for_call(number, 0))
        await desk.report(number, raised(1, ValueError("bad row"), stacks="stack of 1", step=7))
        assert await waiting == "stacks"
        place = Place("all_reduce", True)
        await desk.report(number, RankReport(0, "asked", time.time(), stacks="stack of 0", place=place))
        return await desk.close({0: raised(0, LOST_PEER), 1: raised(1, ValueError("bad row"))})

    failure = run(work)
    folder = run_folder / "failures" / "attempt-0001"
    assert failure.uri == str(folder)
    assert failure.sentence == "rank 1: ValueError: bad row"
    assert not failure.final
    cause = json.loads((folder / "cause.json").read_text())
    assert (cause["attempt"], cause["claimed"], cause["rank"]) == (1, True, 1)
    assert cause["ranks"]["1"]["step"] == 7
    assert cause["last_checkpoint"] is None
    assert (folder / "rank-00000.stacks.txt").read_text() == "stack of 0"
    assert (folder / "rank-00001.stacks.txt").read_text() == "stack of 1"
    log = (folder / "rank-00001.log").read_text()
    assert log.startswith("first line\nlast line\n")
    assert "ValueError: bad row" in log
    assert set(failure.files) == {path.name for path in folder.iterdir()}


def test_of_a_rank_that_died_what_it_sent_and_left_behind_is_kept(desk, run_folder, tmp_path):
    async def work() -> Failure:
        number = await both_join(desk, tmp_path)
        await desk.add_lines(number, 1, ["its last words"])
        (tmp_path / "1.held.txt").write_text("stacks written by faulthandler")
        await desk.report(number, raised(0, LOST_PEER))
        return await desk.close({1: RankReport(1, "ended", time.time())})

    failure = run(work)
    assert failure.sentence == "rank 1 on host-1: its process ended without a word"
    folder = run_folder / "failures" / "attempt-0001"
    assert (folder / "rank-00001.log").read_text() == "its last words\n"
    assert (folder / "rank-00001.stacks.txt").read_text() == "stacks written by faulthandler"


def test_a_failure_before_the_claim_counts_for_the_next_attempt_and_overwrites_nothing(
    desk, run_folder, tmp_path
):
    async def one(claims: bool) -> Failure:
        await both_join(desk, tmp_path)
        if claims:
            claim(run_folder)
        return await desk.close({0: raised(0, ValueError("early"))})

    async def work() -> list[Failure]:
        return [await one(claims) for claims in (True, False, True)]

    results = run(work)
    assert [failure.attempt for failure in results] == [1, 2, 2]
    names = [Path(failure.uri).name for failure in results]
    assert names == ["attempt-0001", "attempt-0002", "attempt-0002-2"]


def test_late_reports_of_an_earlier_group_do_not_disturb_the_next(desk, tmp_path):
    async def work() -> Failure:
        old = await both_join(desk, tmp_path)
        await desk.close({1: RankReport(1, "ended", time.time())})
        new = await both_join(desk, tmp_path)
        assert new != old
        await desk.report(old, raised(0, ValueError("too late")))
        await desk.add_lines(old, 0, ["too late"])
        assert await desk.wait_for_call(old, 0) == "group over"
        return await desk.close({1: raised(1, KeyError("new"))})

    assert run(work).sentence == "rank 1 on host-1: KeyError: 'new'"


def test_ranks_are_waited_for_only_until_they_have_answered(desk, tmp_path, monkeypatch):
    monkeypatch.setattr(failures, "_GATHER_SECONDS", 60.0)

    async def work() -> float:
        number = await both_join(desk, tmp_path)
        began = time.monotonic()
        closing = asyncio.create_task(desk.close({1: RankReport(1, "ended", time.time())}))
        assert await desk.wait_for_call(number, 0) == "stacks"
        await desk.report(number, RankReport(0, "asked", time.time(), stacks="here"))
        await closing
        return time.monotonic() - began

    assert run(work) < 20


def test_a_group_that_is_asked_to_leave_is_waited_for(desk, tmp_path):
    async def work() -> tuple[float, float]:
        began = time.monotonic()
        await desk.ask_to_leave(30)
        nobody = time.monotonic() - began
        number = await both_join(desk, tmp_path)
        leaving = asyncio.create_task(desk.ask_to_leave(30))
        assert await desk.wait_for_call(number, 1) == "leave"
        for rank in (0, 1):
            await desk.leave_group(number, rank)
        await leaving
        assert await both_join(desk, tmp_path) == number + 1
        return nobody, time.monotonic() - began

    nobody, all_of_them = run(work)
    assert nobody < 1
    assert all_of_them < 20


def test_what_cannot_be_written_does_not_hide_the_cause(run_folder, tmp_path, monkeypatch):
    class Broken(Storage):
        def write_bytes(self, uri: str, data: bytes) -> str:
            raise StorageError(f"{uri}: the disk is full")

    desk = Desk(Broken(), str(run_folder))

    async def work() -> Failure:
        await both_join(desk, tmp_path)
        return await desk.close({0: raised(0, ConfigError("precision=float16 is wrong"))})

    failure = run(work)
    assert failure.uri == ""
    assert failure.final
    error = failure.closing_error("baltoro run geo")
    assert isinstance(error, ConfigError)
    assert error.message == (
        "rank 0 on host-0: precision=float16 is wrong; no checkpoint was taken yet; to start again: "
        "baltoro run geo"
    )


@pytest.mark.parametrize(
    ("report", "final"),
    [
        (raised(0, ConfigError("a")), True),
        (raised(0, TrainingError("loss nan is not finite"), step=9), True),
        (raised(0, StorageError("timeout"), step=9), False),
        (raised(0, ValueError("b")), False),
        (raised(0, MemoryError("c")), True),
        (raised(0, MemoryError("c"), step=100), False),
        (raised(0, LOST_PEER), False),
        (RankReport(0, "ended", 1.0), False),
    ],
)
def test_only_what_a_restart_would_not_mend_is_final(desk, tmp_path, report, final):
    async def work() -> Failure:
        number = await desk.join(0, 1, "host", 1, str(tmp_path / "x"))
        await desk.report(number, report)
        return await desk.close({0: report})

    assert run(work).final is final


def test_ray_s_wrappers_are_taken_off_and_a_lost_worker_says_why():
    from ray.exceptions import ActorDiedError
    from ray.train.v2._internal.exceptions import WorkerHealthCheckFailedError

    died = ActorDiedError()
    wrapped = WorkerHealthCheckFailedError("A worker health check failed.", died)
    assert unwrap(wrapped) is died
    reports = reports_of_errors({0: RuntimeError(str(LOST_PEER)), 1: wrapped})
    assert reports[0].error.collateral
    assert reports[1].kind == "ended"
    assert reports[1].error.type_name == "worker lost"
    assert reports[1].error.message == "The actor died unexpectedly before finishing this task."


def test_the_last_failure_closes_the_command_unless_ray_train_failed_by_itself(monkeypatch):
    failure = Failure(
        2, "s3://b/failures/attempt-0002", "rank 1: ValueError: x", None, False, 40, ("cause.json",)
    )
    monkeypatch.setattr("sys.argv", ["/usr/bin/baltoro", "run", "my recipe.yaml", "pretrain.steps=5"])
    assert resume_command() == "baltoro run 'my recipe.yaml' pretrain.steps=5"
    text = closing_error(RuntimeError("wrapper"), [failure]).message
    assert text == (
        "rank 1: ValueError: x; log lines and stacks of every rank: s3://b/failures/attempt-0002; newest "
        "checkpoint: step 40; to resume: baltoro run 'my recipe.yaml' pretrain.steps=5"
    )
    own = RuntimeError("wrapper")
    own.controller_failure = OSError("no room")
    assert closing_error(own, [failure]).message.startswith("training stopped: OSError: no room; to resume")
    own.controller_failure = TrainingError(failure.sentence)
    assert closing_error(own, [failure]).message == text


@pytest.mark.parametrize(
    ("arguments", "command"),
    [
        (["/x/baltoro/cli.py", "run", "a"], "python -m baltoro.cli run a"),
        (["/repo/ray_jobs/pretrain.py", "a"], "python ray_jobs/pretrain.py a"),
        (["/usr/bin/pytest", "-q"], "the same command"),
    ],
)
def test_the_command_that_resumes_is_the_one_that_was_given(monkeypatch, arguments, command):
    monkeypatch.setattr("sys.argv", arguments)
    assert resume_command() == command
