"""The command line in processes that can be killed: its own, its Ray's, its workers'."""

from __future__ import annotations

import os
import random
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import psutil

AGENTS = ("ray::Dashboard", "ray::RuntimeEnv")
"""Without these a node of Ray is dead, and so is the driver."""

TRAINING_WORKER = "ray::RayTrainWo"
"""As the kernel cuts the name of a process that Ray Train trains in."""

_POLL_SECONDS = 0.01


class Commands:
    """Runs one command line as often as asked, each time in a session of its own, with one log for all.

    Args:
        log: where the output of all of them is added.
        *arguments: after ``baltoro``.
    """

    def __init__(self, log: Path, *arguments: str) -> None:
        self._line = [sys.executable, "-m", "baltoro.cli", *arguments]
        self._log = log
        self._started: list[subprocess.Popen[bytes]] = []

    def start(self) -> subprocess.Popen[bytes]:
        """Give the command once more."""
        with self._log.open("ab") as log:
            process = subprocess.Popen(
                self._line,
                stdout=log,
                stderr=log,
                start_new_session=True,
                env={**os.environ, "RAY_ADDRESS": ""},
            )
        self._started.append(process)
        return process

    def wait(
        self,
        process: subprocess.Popen[bytes],
        timeout_seconds: float,
        look: Callable[[], object] = lambda: None,
    ) -> int:
        """Return a command's exit code once it has ended by itself; ``look`` is called while it runs.

        Raises:
            AssertionError: it did not end in time.
        """
        deadline = time.monotonic() + timeout_seconds
        while process.poll() is None:
            assert time.monotonic() < deadline, f"the command does not end:\n{self.tail()}"
            look()
            time.sleep(_POLL_SECONDS)
        look()
        return process.returncode

    def tail(self) -> str:
        """Return the end of what was said."""
        return self._log.read_text(errors="replace")[-3000:]

    def end(self) -> None:
        """Kill whatever is left of all of them."""
        for process in self._started:
            end_session(process)


def members(session: int) -> list[psutil.Process]:
    """Return the processes of a command's session: its Ray, that Ray's workers, and itself."""
    found = []
    for process in psutil.process_iter():
        try:
            if os.getsid(process.pid) == session and process.status() != psutil.STATUS_ZOMBIE:
                found.append(process)
        except (ProcessLookupError, psutil.NoSuchProcess):
            continue
    return found


def workers_of(session: int, name: str = "ray::") -> list[psutil.Process]:
    """Return the Ray workers of a command's session whose names begin so."""
    found = []
    for process in members(session):
        try:
            called = process.name()
        except psutil.NoSuchProcess:
            continue
        if called.startswith(name) and not called.startswith(AGENTS):
            found.append(process)
    return found


def end_session(process: subprocess.Popen[bytes]) -> None:
    """Kill a command with everything that it has started, until nothing is left."""
    while left := members(process.pid):
        for one in left:
            try:
                one.kill()
            except psutil.NoSuchProcess:
                continue
        if process.poll() is None:
            process.wait()
        time.sleep(0.05)


def kill(process: subprocess.Popen[bytes], kind: str, chance: random.Random) -> str:
    """Kill part of a command with SIGKILL; returns what was killed.

    Args:
        process: the command.
        kind: ``group``: everything; ``driver``: the command itself, so that what Ray leaves behind may go on
            for a moment beside the next command, as in a real crash; ``worker``: one of Ray's workers;
            ``rank`` or ``ranks``: one or all of the training workers. Where there is no such process
            (yet), everything.
        chance: draws the worker.
    """
    if kind == "driver":
        process.kill()
        process.wait()
        return kind
    if kind in ("worker", "rank", "ranks"):
        found = workers_of(process.pid, "ray::" if kind == "worker" else TRAINING_WORKER)
        for one in found if kind == "ranks" else chance.sample(found, min(1, len(found))):
            try:
                one.kill()
            except psutil.NoSuchProcess:
                continue
        if found:
            return kind
    end_session(process)
    return "group"
