"""Starts each check in a process of its own, and gathers what it says, or how it ended."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from baltoro.jobs.gpu_check.checks import Check
from baltoro.jobs.gpu_check.findings import Finding

State = Literal["passed", "warning", "failed", "crashed", "timed out", "not available", "not run"]

BAD_STATES: tuple[State, ...] = ("failed", "crashed", "timed out", "not run")

CPU_PATIENCE = 4.0
"""A CPU gets so many times as long as a GPU."""

_KEPT_CHARACTERS = 6_000
_SECONDS_FOR_STACKS = 5.0


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of a check.

    Attributes:
        check: which.
        state: the worst of its findings, or how its process ended; ``not available`` if nothing of it could
            be tried here.
        seconds: that its process took.
        findings: what it found; empty if it did not come to its end.
        trouble: traceback, stacks or last lines of a process that did not come to its end.
    """

    check: Check
    state: State
    seconds: float = 0.0
    findings: tuple[Finding, ...] = ()
    trouble: str = ""

    @property
    def passed(self) -> bool:
        """Whether nothing is wrong, as far as could be tried."""
        return self.state not in BAD_STATES


@dataclass(frozen=True, slots=True)
class Answer:
    """What a process left.

    Attributes:
        result: what its function returned; ``None`` if it did not return.
        trouble: why not.
        timed_out: it was ended.
        seconds: it took.
    """

    result: list[Any] | None
    trouble: str
    timed_out: bool
    seconds: float


def run_check(check: Check, device: str, *, seconds: float) -> Outcome:
    """Run a check.

    Args:
        check: which.
        device: ``cuda`` or ``cpu``.
        seconds: after which its process and all it started are ended.
    """
    environment = dict(check.environment)
    if device == "cpu" and not check.every_thread and "OMP_NUM_THREADS" not in os.environ:
        environment["OMP_NUM_THREADS"] = "1"
    answer = run_in_process(check.function, device, seconds=seconds, environment=environment)
    if answer.result is None:
        state: State = "timed out" if answer.timed_out else "crashed"
        return Outcome(check, state, answer.seconds, trouble=answer.trouble)
    findings = tuple(Finding(**finding) for finding in answer.result)
    return Outcome(check, state_of(findings), answer.seconds, findings)


def state_of(findings: tuple[Finding, ...]) -> State:
    """Return what a check's findings come to."""
    verdicts = {finding.verdict for finding in findings}
    if not verdicts:
        # A check that looked at nothing has shown nothing.
        return "failed"
    if "failed" in verdicts:
        return "failed"
    if "warning" in verdicts:
        return "warning"
    return "not available" if verdicts == {"not available"} else "passed"


def run_in_process(
    function: str, device: str, *, seconds: float, environment: Mapping[str, str] | None = None
) -> Answer:
    """Call a function in a new process, and end that with all it started when it is over.

    Args:
        function: ``module:function``.
        device: its argument.
        seconds: that it may take.
        environment: variables beside this process' own.
    """
    began = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="baltoro-gpu-check-", ignore_cleanup_errors=True) as name:
        folder = Path(name)
        answer_file, log_file = folder / "answer.json", folder / "log.txt"
        (folder / "tmp").mkdir()
        variables = {
            # Nothing compiled before is found, and what an ended process leaves goes with the folder.
            "TMPDIR": str(folder / "tmp"),
            "TORCHINDUCTOR_CACHE_DIR": str(folder / "inductor"),
            "TRITON_CACHE_DIR": str(folder / "triton"),
            "TOKENIZERS_PARALLELISM": "false",
            **(environment or {}),
        }
        with log_file.open("wb") as log:
            process = subprocess.Popen(
                # -P: a file of the current folder that is named like a module must not be imported.
                [
                    *(sys.executable, "-P", "-m", f"{__package__}.child"),
                    # torch wants the number of a GPU; CUDA_VISIBLE_DEVICES says which one is the first.
                    *(function, "cuda:0" if device == "cuda" else device, str(answer_file)),
                ],
                stdin=subprocess.PIPE,
                stdout=log,
                stderr=subprocess.STDOUT,
                env={**os.environ, **variables},
                start_new_session=True,
            )
        timed_out = False
        try:
            process.wait(timeout=seconds)
        except subprocess.TimeoutExpired:
            timed_out = True
            process.send_signal(signal.SIGABRT)
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(timeout=_SECONDS_FOR_STACKS)
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()
            assert process.stdin is not None
            process.stdin.close()
        took = time.monotonic() - began
        log_text = log_file.read_text(encoding="utf-8", errors="replace")[-_KEPT_CHARACTERS:]
        answer = json.loads(answer_file.read_text(encoding="utf-8")) if answer_file.exists() else {}
    if "result" in answer:
        return Answer(answer["result"], "", False, took)
    if "error" in answer:
        return Answer(None, answer["error"][-_KEPT_CHARACTERS:], False, took)
    if timed_out:
        what = f"It was ended after {seconds:.0f} seconds."
    elif process.returncode < 0:
        what = f"Its process was ended by {signal.Signals(-process.returncode).name}."
    else:
        what = f"Its process ended with exit code {process.returncode} and no answer."
    return Answer(None, f"{what}\n{log_text}".rstrip(), timed_out, took)
