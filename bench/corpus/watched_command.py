"""Run a Baltoro command as a user does, and watch the time of its stages and the memory of its processes.

Times come from the command's own messages (``corpus: building …``, ``corpus: done …``), stamped as they
arrive; Ray has started before the first of them. Memory is looked at four times a second in every process of
the command's tree: Ray's daemons and workers are its descendants.

Two figures a process, because memory is shared: RSS is all that it has in memory, pages of libraries and of
Ray's object store that others have, too, included; USS is what it alone has, and what ending it would free.
The peak RSS is the kernel's own (``VmHWM``), so nothing between two looks is missed; where the kernel tells
none (macOS), and for USS, peaks are those of the looks.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
import threading
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

import psutil

from baltoro.core.errors import PlatformError

LOOKS_SECONDS = 0.25
LOOKS_PER_USS = 3
"""USS makes the kernel walk the process' pages, which takes some of the time that is measured."""

_NOT_INHERITED = ("RAY_", "MLFLOW_", "BALTORO_", "TOKENIZERS_", "RAYON_")
"""Variables by which a shell, or the other parts of the benchmark, would change what is measured."""

_PATIENCE_SECONDS = 20.0
_SELDOM_SECONDS = 30.0
"""Looking at all processes takes a third of a core, too much where time alone is measured on few cores."""
_STAGE = re.compile(r"(?:^|[\r\n])(\w+): (building|done in) [^\r\n]*(?=[\r\n])")
_RAY_DAEMONS = ("raylet", "gcs_server")
_RAY_SCRIPTS = {
    # Before the workers: an agent takes a title like theirs once it runs.
    "ray::DashboardAgent": "dashboard agent",
    "ray::RuntimeEnvAgent": "runtime environment agent",
    "ray::": "worker",
    "dashboard/agent.py": "dashboard agent",
    "dashboard/dashboard.py": "dashboard",
    "runtime_env/agent/main.py": "runtime environment agent",
    "_private/log_monitor.py": "log monitor",
    "autoscaler/_private/monitor.py": "autoscaler monitor",
    "default_worker.py": "worker",
}


@dataclass(slots=True)
class Peak:
    """The largest of some processes' memory, in bytes, and how often one of them was looked at."""

    rss_bytes: int = 0
    uss_bytes: int = 0
    looks: int = 0

    def raise_to(self, rss_bytes: int, uss_bytes: int) -> None:
        """Take in another look."""
        self.looks += 1
        self.rss_bytes = max(self.rss_bytes, rss_bytes)
        self.uss_bytes = max(self.uss_bytes, uss_bytes)


@dataclass(slots=True)
class WatchedRun:
    """What was seen of one command.

    Attributes:
        seconds: wall time from start to end.
        stage_seconds: wall time of each stage, Ray's start left out.
        peaks: largest peaks by role of the process: no process of the role had more.
        output: what the command printed on standard output.
        cpu_seconds_by_process: CPU seconds of each process, by pid and time of birth.
    """

    seconds: float = 0.0
    stage_seconds: dict[str, float] = field(default_factory=dict)
    peaks: dict[str, Peak] = field(default_factory=dict)
    output: str = ""
    cpu_seconds_by_process: dict[tuple[int, float], float] = field(default_factory=dict)

    @property
    def cpu_seconds(self) -> float:
        """CPU seconds of all processes, each as last looked at."""
        return sum(self.cpu_seconds_by_process.values())


def run_watched(
    arguments: Sequence[str | Path], environment: dict[str, str], log: Path, *, closely: bool = True
) -> WatchedRun:
    """Run ``python ARGUMENTS`` to its end.

    Args:
        arguments: what the interpreter runs.
        environment: variables to set.
        log: file that takes what the command says.
        closely: look at all processes often enough to know their peaks; without it only the time is known.

    Raises:
        PlatformError: it ended with an error; quotes the end of what it said.
    """
    run = WatchedRun()
    inherited = {key: value for key, value in os.environ.items() if not key.startswith(_NOT_INHERITED)}
    started = time.monotonic()
    said = bytearray()
    with subprocess.Popen(
        [sys.executable, *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env=inherited | {"PYTHONUNBUFFERED": "1"} | environment,
    ) as process:
        readers = [
            threading.Thread(target=_read_messages, args=(process, run, said)),
            threading.Thread(target=_read_output, args=(process, run)),
        ]
        for reader in readers:
            reader.start()
        try:
            _watch(process, run, LOOKS_SECONDS if closely else _SELDOM_SECONDS)
            run.seconds = time.monotonic() - started
        finally:
            _end(process)
            for reader in readers:
                reader.join()
            log.write_bytes(said)
    if process.returncode:
        raise PlatformError(
            f"{' '.join(map(str, arguments))} ended with {process.returncode}:\n"
            f"{said[-3000:].decode(errors='replace')}"
        )
    return run


def role_of(name: str, command_line: Sequence[str]) -> str:
    """Return what a process of the tree is for.

    Args:
        name: the process' name.
        command_line: its arguments; Ray's workers put their present task there (``ray::tokenise_part``).
    """
    line = " ".join(command_line)
    # The daemons' own arguments name the scripts that they start.
    if name in _RAY_DAEMONS:
        return name
    for script, role in _RAY_SCRIPTS.items():
        if script in line:
            return role
    return name


def _end(process: subprocess.Popen[bytes]) -> None:
    """End a command that still runs because watching it was broken off, and with it Ray's processes."""
    if process.poll() is not None:
        return
    tree = psutil.Process(process.pid).children(recursive=True)
    process.terminate()
    try:
        process.wait(_PATIENCE_SECONDS)
    except subprocess.TimeoutExpired:
        process.kill()
    for survivor in psutil.wait_procs(tree, timeout=_PATIENCE_SECONDS)[1]:
        survivor.kill()


def _watch(process: subprocess.Popen[bytes], run: WatchedRun, pause_seconds: float) -> None:
    looks = 0
    # Only a direct child's end shows in poll(); what it leaves behind is none of this command.
    while process.poll() is None:
        _look(process.pid, run, with_uss=looks % LOOKS_PER_USS == 0)
        looks += 1
        with suppress(subprocess.TimeoutExpired):
            process.wait(pause_seconds)


def _look(root_pid: int, run: WatchedRun, *, with_uss: bool) -> None:
    try:
        root = psutil.Process(root_pid)
        tree = [root, *root.children(recursive=True)]
    except psutil.NoSuchProcess:
        return
    for process in tree:
        try:
            with process.oneshot():
                role = "command" if process.pid == root_pid else role_of(process.name(), process.cmdline())
                uss = process.memory_full_info().uss if with_uss else 0
                rss = _peak_rss_bytes(process)
                times = process.cpu_times()
        except (psutil.NoSuchProcess, psutil.AccessDenied):
            continue
        run.peaks.setdefault(role, Peak()).raise_to(rss, uss)
        run.cpu_seconds_by_process[process.pid, process.create_time()] = times.user + times.system


def _peak_rss_bytes(process: psutil.Process) -> int:
    try:
        status = Path(f"/proc/{process.pid}/status").read_text()
    except OSError:
        return int(process.memory_info().rss)
    found = re.search(r"^VmHWM:\s+(\d+) kB$", status, re.MULTILINE)
    # A process that has just ended has no memory left to tell of.
    return int(found[1]) * 1024 if found else 0


def _read_output(process: subprocess.Popen[bytes], run: WatchedRun) -> None:
    assert process.stdout is not None
    run.output = process.stdout.read().decode(errors="replace")


def _read_messages(process: subprocess.Popen[bytes], run: WatchedRun, said: bytearray) -> None:
    assert process.stderr is not None
    begun: dict[str, float] = {}
    rest = ""
    while data := os.read(process.stderr.fileno(), 1 << 16):
        now = time.monotonic()
        said += data
        rest += data.decode(errors="replace")
        for found in _STAGE.finditer(rest):
            stage, event = found[1], found[2]
            if event == "building":
                begun[stage] = now
            elif stage in begun:
                run.stage_seconds[stage] = now - begun[stage]
        # A message is complete once its line is; progress bars end theirs with a carriage return.
        rest = rest[max(rest.rfind("\n"), rest.rfind("\r"), 0) :]
