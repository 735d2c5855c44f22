"""What is known of a failed attempt is gathered and written before its workers are torn down.

A rank that fails cannot be asked later, and the first error that Ray shows is often that of a rank whose peer
died. So an actor of our own, the desk, outlives the workers. Ranks send it their log lines as they come and a
report when they fail. When one fails, however it fails, the desk asks all others for their stacks, waits a
moment for them, decides which rank is to blame, and writes everything into the run's folder:

``failures/attempt-0002/cause.json``, ``rank-00000.log``, ``rank-00000.stacks.txt``
"""

from __future__ import annotations

import asyncio
import json
import logging
import os
import platform
import re
import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal

from baltoro.checkpoint.head import Head, read_head
from baltoro.core.errors import (
    ArtifactError,
    BaltoroError,
    ConfigError,
    InputError,
    PlatformError,
    StorageError,
    TrainingError,
)
from baltoro.core.storage import Storage, join
from baltoro.train.failure_report import (
    KEPT_LINES,
    Cause,
    ErrorReport,
    RankReport,
    RecentLines,
    find_cause,
    report_of_rank,
)

FAILURES_FOLDER = "failures"
CAUSE_FILE = "cause.json"
ATTEMPT_FOLDER = "attempt-{:04d}"

NODE_TAKEN_AWAY = "node taken away"
"""Type of the error of a rank whose node was preempted: no failure of the run's."""

Call = Literal["stacks", "leave", "group over"]
"""What the desk asks of ranks: their stacks, to leave with a checkpoint, or nothing more."""

_GATHER_SECONDS = 10.0
_LEAVE_POLL_SECONDS = 0.2
_SEND_SECONDS = 1.0
_TELL_SECONDS = 20.0
_ACTOR_DIED = re.compile(r"The actor is dead because (.*?)(?:\n|$)")

_logger = logging.getLogger(__name__)

_ERRORS: dict[str, type[BaltoroError]] = {
    kind.__name__: kind
    for kind in (ConfigError, InputError, ArtifactError, PlatformError, StorageError, TrainingError)
}


@dataclass(frozen=True, slots=True)
class Failure:
    """One failed attempt, as it was written down.

    Attributes:
        attempt: its number; that of the next attempt if it failed before it claimed one.
        uri: folder of what was written; empty if nothing could be.
        sentence: the cause, with its rank.
        error: the error to blame, if one was raised.
        final: starting the workers again would meet the same.
        last_checkpoint_step: steps of the newest published checkpoint; ``None`` if there is none.
        files: names in the folder.
    """

    attempt: int
    uri: str
    sentence: str
    error: ErrorReport | None
    final: bool
    last_checkpoint_step: int | None
    files: tuple[str, ...]

    def closing_error(self, resume: str) -> BaltoroError:
        """Return what the command ends with: the cause, where more is told, and how to go on.

        Args:
            resume: the command that resumes.
        """
        parts = [self.sentence]
        if self.uri:
            parts.append(f"log lines and stacks of every rank: {self.uri}")
        kind: type[BaltoroError] = TrainingError
        if self.error is not None and self.error.expected:
            kind = _ERRORS.get(self.error.type_name, TrainingError)
        parts.append(
            "no checkpoint was taken yet"
            if self.last_checkpoint_step is None
            else f"newest checkpoint: step {self.last_checkpoint_step}"
        )
        parts.append(f"to {'resume' if self.last_checkpoint_step is not None else 'start again'}: {resume}")
        return kind("; ".join(parts))


@dataclass
class _Group:
    """Workers that were started together."""

    number: int
    world_size: int
    attempts_before: int
    reports: dict[int, RankReport] = field(default_factory=dict)
    lines: dict[int, list[str]] = field(default_factory=dict)
    stacks_files: dict[int, str] = field(default_factory=dict)
    places: dict[int, tuple[str, int]] = field(default_factory=dict)
    over: set[int] = field(default_factory=set)
    call: Call | None = None
    called: asyncio.Event = field(default_factory=asyncio.Event)


class Desk:
    """Gathers what ranks tell; an asyncio actor, so that ranks can wait at it.

    Args:
        storage: gives access to the run.
        run_uri: folder of the run.
    """

    def __init__(self, storage: Storage, run_uri: str) -> None:
        self._storage = storage
        self._run_uri = run_uri
        self._group: _Group | None = None
        self._groups = 0
        self._failures: list[Failure] = []

    async def join(self, rank: int, world_size: int, host: str, process: int, stacks_file: str) -> int:
        """Take in a rank of a group that starts; returns the group's number."""
        group = self._group
        if group is None or group.call is not None or rank in group.stacks_files:
            head = await asyncio.to_thread(self._head)
            # Another rank of the same group may have come in meanwhile.
            if self._group is group:
                self._groups += 1
                self._group = _Group(self._groups, world_size, 0 if head is None else len(head.attempts))
            group = self._group
        assert group is not None
        group.stacks_files[rank] = stacks_file
        group.places[rank] = host, process
        return group.number

    async def add_lines(self, number: int, rank: int, lines: Sequence[str]) -> None:
        """Keep a rank's new log lines."""
        group = self._current(number)
        if group is not None:
            kept = group.lines.setdefault(rank, [])
            kept.extend(lines)
            del kept[:-KEPT_LINES]

    async def wait_for_call(self, number: int, rank: int) -> Call:
        """Return when something is asked of the group's ranks."""
        del rank
        group = self._current(number)
        if group is None:
            return "group over"
        await group.called.wait()
        return group.call or "group over"

    async def report(self, number: int, report: RankReport) -> None:
        """Take a rank's report; the first that is no answer makes the desk ask the others."""
        group = self._current(number)
        if group is None:
            return
        known = group.reports.get(report.rank)
        if known is None or known.kind == "asked":
            group.reports[report.rank] = report
        if report.kind != "asked":
            self._ask(group, "stacks")

    async def leave_group(self, number: int, rank: int) -> None:
        """Note that a rank has ended well."""
        group = self._current(number)
        if group is not None:
            group.over.add(rank)

    async def ask_to_leave(self, seconds: float) -> None:
        """Ask a running group to take a checkpoint and leave; returns when it has, or time is up."""
        group = self._group
        if group is None or group.call is not None:
            return
        self._ask(group, "leave")
        until = time.monotonic() + seconds
        while len(group.over) < group.world_size and time.monotonic() < until:
            await asyncio.sleep(_LEAVE_POLL_SECONDS)

    async def close(self, errors: Mapping[int, RankReport]) -> Failure:
        """Write down why the current group failed.

        Args:
            errors: what Ray Train knows, by rank: of ranks that died, all that is known.
        """
        group = self._group
        if group is None:
            self._groups += 1
            head = await asyncio.to_thread(self._head)
            group = _Group(self._groups, len(errors), 0 if head is None else len(head.attempts))
        self._ask(group, "stacks")
        dead = {rank for rank, report in errors.items() if report.kind == "ended"}
        until = time.monotonic() + _GATHER_SECONDS
        while time.monotonic() < until:
            if set(group.stacks_files) <= group.reports.keys() | dead | group.over:
                break
            await asyncio.sleep(0.1)
        for rank, report in errors.items():
            told = group.reports.get(rank)
            if told is None:
                host, process = group.places.get(rank, ("", 0))
                group.reports[rank] = replace(report, host=host, process=process)
            elif told.kind == "asked":
                # It answered, and then died or raised: its stacks are worth keeping.
                group.reports[rank] = replace(told, kind=report.kind, error=report.error, place=None)
        self._group = None
        failure = await asyncio.to_thread(self._write, group)
        self._failures.append(failure)
        return failure

    async def failures(self, after: int = 0) -> list[Failure]:
        """Return the failures so far, without the first ``after``."""
        return self._failures[after:]

    async def running(self) -> bool:
        """Return whether workers have started and not failed."""
        return self._group is not None

    def _current(self, number: int) -> _Group | None:
        return self._group if self._group is not None and self._group.number == number else None

    @staticmethod
    def _ask(group: _Group, call: Call) -> None:
        if group.call is None:
            group.call = call
            group.called.set()

    def _head(self) -> Head | None:
        try:
            return read_head(self._storage, self._run_uri)
        except BaltoroError as error:
            _logger.warning("the head of the run cannot be read now: %s", error.message)
            return None

    def _write(self, group: _Group) -> Failure:
        """Decide and write; what cannot be written must not hide the cause."""
        head = self._head()
        attempts = group.attempts_before if head is None else len(head.attempts)
        claimed = attempts > group.attempts_before
        attempt = attempts if claimed else attempts + 1
        last = head.checkpoints[-1] if head is not None and head.checkpoints else None
        cause = find_cause(list(group.reports.values()))
        error = None if cause is None else cause.report.error
        sentence = "the workers ended without a word" if cause is None else cause.sentence()
        record = {
            "attempt": attempt,
            "claimed": claimed,
            "failed_at": datetime.now(UTC).isoformat(timespec="seconds"),
            "cause": sentence,
            "rank": None if cause is None else cause.report.rank,
            "error": None if error is None else asdict(error),
            "last_checkpoint": None if last is None else {"step": last.step, "folder": last.folder},
            "world_size": group.world_size,
            "ranks": {str(rank): _brief(group.reports[rank]) for rank in sorted(group.reports)},
        }
        files = {CAUSE_FILE: json.dumps(record, indent=1) + "\n"}
        for rank in sorted(group.stacks_files.keys() | group.reports.keys()):
            report = group.reports.get(rank)
            lines = group.lines.get(rank, [])
            told = list(report.lines) if report is not None and report.lines else lines
            if report is not None and report.error is not None:
                told = [*told, report.error.traceback]
            files[f"rank-{rank:05d}.log"] = "\n".join(told) + "\n"
            stacks = report.stacks if report is not None else ""
            files[f"rank-{rank:05d}.stacks.txt"] = stacks or _left_behind(group.stacks_files.get(rank))
        uri = self._write_files(ATTEMPT_FOLDER.format(attempt), files)
        return Failure(
            attempt=attempt,
            uri=uri,
            sentence=sentence,
            error=error,
            final=cause is not None and is_final(cause),
            last_checkpoint_step=None if last is None else last.step,
            files=tuple(files) if uri else (),
        )

    def _write_files(self, name: str, files: Mapping[str, str]) -> str:
        """Write a folder that is not there yet and return its URI; empty, after a warning, if it cannot."""
        parent = join(self._run_uri, FAILURES_FOLDER)
        try:
            taken = self._storage.list_folders(parent)
            folder, number = name, 1
            while folder in taken:
                number += 1
                folder = f"{name}-{number}"
            uri = join(parent, folder)
            for file, text in files.items():
                self._storage.write_bytes(join(uri, file), text.encode())
        except BaltoroError as error:
            _logger.warning("what is known of the failure cannot be written: %s", error.message)
            return ""
        return uri


def is_final(cause: Cause) -> bool:
    """Return whether workers that are started again would meet the same.

    Wrong settings, input or artifacts, and what training itself refuses to go on from, stay as they are; so
    does a lack of memory before the first step is done. Storage, nodes and networks may be well again.
    """
    error = cause.report.error
    if error is None or error.collateral:
        return False
    if error.out_of_memory:
        return cause.report.step is None
    return error.expected and error.type_name != StorageError.__name__


def _brief(report: RankReport) -> dict[str, Any]:
    return {
        "report": report.kind,
        "at": datetime.fromtimestamp(report.at, UTC).isoformat(timespec="milliseconds"),
        "host": report.host,
        "process": report.process,
        "step": report.step,
        "error": None if report.error is None else f"{report.error.type_name}: {report.error.message}",
        "collateral": report.error is not None and report.error.collateral,
        "in": None if report.place is None else report.place.text,
    }


def _left_behind(stacks_file: str | None) -> str:
    """Return the stacks that a rank left on this machine before its process was ended."""
    for path in (
        [] if stacks_file is None else [Path(stacks_file), Path(stacks_file).with_suffix(".held.txt")]
    ):
        if path.is_file() and path.stat().st_size:
            return path.read_text(encoding="utf-8", errors="replace")
    return "this rank could not be asked: its process had ended\n"


def start_desk(storage: Storage, run_uri: str, *, workers: int) -> Any:
    """Start the desk on the driver's node, where it outlives every worker."""
    import ray
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    here = NodeAffinitySchedulingStrategy(ray.get_runtime_context().get_node_id(), soft=False)
    # Every rank keeps one call waiting, and sends others beside it.
    options = {"num_cpus": 0, "max_concurrency": 4 * workers + 100, "scheduling_strategy": here}
    return ray.remote(Desk).options(**options).remote(storage, run_uri)


class RankLine:
    """A rank's line to the desk: sends its log lines, answers its calls, hands in its reports.

    Args:
        desk: the actor.
        rank: of this process.
        world_size: number of ranks.
        stacks_file: where the watchdog of this rank writes.
    """

    def __init__(self, desk: Any, *, rank: int, world_size: int, stacks_file: Path) -> None:
        import ray

        self._desk = desk
        self._rank = rank
        self._thread = threading.get_ident()
        self.asked_to_leave = threading.Event()
        self.step: int | None = None
        self.recent = RecentLines()
        root = logging.getLogger()
        root.addHandler(self.recent)
        logging.getLogger("baltoro").setLevel(logging.INFO)
        self._number: int = ray.get(
            desk.join.remote(rank, world_size, platform.node(), os.getpid(), str(stacks_file))
        )
        self._closed = threading.Event()
        for target in (self._send_lines, self._answer):
            threading.Thread(target=target, name=f"baltoro-desk-{target.__name__}", daemon=True).start()

    def report(self, kind: Literal["raised", "hung", "asked"], error: BaseException | None = None) -> None:
        """Hand in a report; a desk that does not answer is not waited for."""
        import ray
        from ray.exceptions import RayError

        report = report_of_rank(
            self._rank,
            kind,
            step=self.step,
            thread=self._thread,
            error=error,
            lines=self.recent.lines,
        )
        try:
            ray.get(self._desk.report.remote(self._number, report), timeout=_TELL_SECONDS)
        except RayError as failure:
            _logger.warning("the report of rank %d did not get through: %s", self._rank, failure)

    def close(self, *, well: bool) -> None:
        """Send nothing more; ``well`` if the rank has ended as it should."""
        self._closed.set()
        logging.getLogger().removeHandler(self.recent)
        if well:
            self._desk.leave_group.remote(self._number, self._rank)

    def _send_lines(self) -> None:
        while not self._closed.wait(_SEND_SECONDS):
            if lines := self.recent.take_fresh():
                self._desk.add_lines.remote(self._number, self._rank, lines)

    def _answer(self) -> None:
        import ray
        from ray.exceptions import RayError

        try:
            call: Call = ray.get(self._desk.wait_for_call.remote(self._number, self._rank))
        except RayError:
            # The driver is gone, and with it the desk; Ray ends this process too.
            return
        if call == "leave":
            self.asked_to_leave.set()
        elif call == "stacks" and not self._closed.is_set():
            self.report("asked")


def reports_of_errors(errors: Mapping[int, BaseException]) -> dict[int, RankReport]:
    """Return what Ray Train knows of failed ranks, by rank."""
    from ray.exceptions import RayActorError

    from baltoro.train.failure_report import describe_error

    reports = {}
    for rank, wrapper in errors.items():
        error = unwrap(wrapper)
        if isinstance(error, RayActorError):
            described = ErrorReport(
                type_name=NODE_TAKEN_AWAY if error.preempted else "worker lost",
                message=_why_dead(error),
                traceback=str(error),
                expected=False,
                collateral=False,
                out_of_memory="low on memory" in str(error),
            )
            reports[rank] = RankReport(rank, "ended", time.time(), error=described)
        else:
            reports[rank] = RankReport(rank, "raised", time.time(), error=describe_error(error, rank=rank))
    return reports


def _why_dead(error: BaseException) -> str:
    text = str(error)
    if "Worker unexpectedly exits with a connection error" in text:
        # All that Ray sees of a process that is simply gone; it then lists what may have been.
        return "its process was ended from outside: kill -9, or the kernel's out-of-memory killer (see dmesg)"
    if "is unavailable" in text:
        return "its process cannot be reached: it, or its node, is gone"
    found = _ACTOR_DIED.search(text)
    return " ".join((found[1] if found else text).split())[:300]


def unwrap(error: BaseException) -> BaseException:
    """Return the exception that was raised, inside Ray's wrappers."""
    for name in ("_base_exc", "health_check_failure", "cause"):
        inner = getattr(error, name, None)
        if isinstance(inner, BaseException) and inner is not error:
            return unwrap(inner)
    return error
