"""Faults at exact points of a rehearsed run, dealt by the training processes to themselves.

A real SIGKILL at a known step is worth more than a timer in another process: a rehearsal is to be the same
each time. Each strike falls once; a file on this machine remembers it, since the struck process cannot.
"""

from __future__ import annotations

import json
import os
import signal
import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal

from baltoro.core.storage import Storage, join
from baltoro.train.hooks import Hook
from baltoro.train.metrics import StepRecord

PLAN_VARIABLE = "BALTORO_REHEARSAL_PLAN"
"""Names the plan's file to the rehearsed command; nothing else sets it."""

StrikeKind = Literal["worker", "all_workers", "driver", "mid_checkpoint", "storage_outage"]

_POLL_SECONDS = 0.001
_PATIENCE_SECONDS = 60.0


@dataclass(frozen=True, slots=True)
class Strike:
    """One fault.

    Attributes:
        kind: what is killed (or cut off).
        step: it falls once so many steps are done; ``mid_checkpoint`` waits for the next save from there on.
    """

    kind: StrikeKind
    step: int


@dataclass(frozen=True, slots=True)
class StrikePlan:
    """The faults of one rehearsed run.

    Attributes:
        folder: on this machine, remembers which have fallen.
        run_uri: of the run's checkpoints; empty until the driver knows it.
        driver_pid: the process to kill for ``driver``; 0 until the driver knows it.
        strikes: in the order of their steps.
    """

    folder: str
    strikes: tuple[Strike, ...]
    run_uri: str = ""
    driver_pid: int = 0

    def write(self, path: Path) -> None:
        """Write the plan where :func:`planned_strikes` reads it."""
        path.write_text(json.dumps(asdict(self)), encoding="utf-8")


def planned_strikes(run_uri: str, environment: Mapping[str, str] | None = None) -> StrikePlan | None:
    """Return the plan that the environment names, completed by the driver; ``None`` outside a rehearsal.

    Args:
        run_uri: of the run.
        environment: the process' own when ``None``.
    """
    path = (os.environ if environment is None else environment).get(PLAN_VARIABLE)
    if not path:
        return None
    record = json.loads(Path(path).read_text(encoding="utf-8"))
    strikes = tuple(Strike(**item) for item in record["strikes"])
    return StrikePlan(record["folder"], strikes, run_uri, os.getpid())


class StrikeHook(Hook):
    """Deals the strikes of a plan on one rank; must come before the checkpoint's hook.

    Args:
        plan: as the driver completed it.
        storage: reaches the run.
        rank: this process.
        world_size: all of them.
    """

    def __init__(self, plan: StrikePlan, storage: Storage, *, rank: int, world_size: int) -> None:
        self._plan = plan
        self._storage = storage
        self._rank = rank
        self._last = rank == world_size - 1

    def step_end(self, record: StepRecord) -> None:
        """Deal what is due at this step."""
        for index, strike in enumerate(self._plan.strikes):
            if strike.kind == "mid_checkpoint":
                if record.step >= strike.step and self._rank == 0 and not self._fallen(index):
                    self._watch_save(index, record.step)
            elif strike.step == record.step:
                self._deal(index, strike)

    def _deal(self, index: int, strike: Strike) -> None:
        if strike.kind == "worker":
            # The last rank: that rank 0 survives it, and only hears of it, is the harder case.
            if self._last and self._mark(index):
                os.kill(os.getpid(), signal.SIGKILL)
        elif strike.kind == "all_workers":
            if self._mark(index, f"-rank-{self._rank}"):
                os.kill(os.getpid(), signal.SIGKILL)
        elif strike.kind == "driver":
            if self._rank == 0 and self._mark(index):
                os.kill(self._plan.driver_pid, signal.SIGKILL)
        elif self._rank == 0 and self._mark(index):
            self._wait_for(self._path(index, "-begun"))

    def _watch_save(self, index: int, step: int) -> None:
        """Kill this process while the save of a step is under way, if one begins now."""

        def watch() -> None:
            prefix = join(self._plan.run_uri, "checkpoints")
            name = f"step-{step:08d}"
            deadline = time.monotonic() + _PATIENCE_SECONDS
            while time.monotonic() < deadline:
                for folder in self._storage.list_folders(prefix):
                    if not folder.startswith(name):
                        continue
                    files = {info.key for info in self._storage.list(join(prefix, folder), with_etag=False)}
                    if "checkpoint.json" in files:
                        # Published before it could be struck: the next save gets another try.
                        return
                    if files and self._mark(index):
                        os.kill(os.getpid(), signal.SIGKILL)
                time.sleep(_POLL_SECONDS)

        threading.Thread(target=watch, name="baltoro-strike", daemon=True).start()

    def _path(self, index: int, suffix: str = "") -> Path:
        return Path(self._plan.folder) / f"strike-{index}{suffix}"

    def _fallen(self, index: int) -> bool:
        return self._path(index).exists()

    def _mark(self, index: int, suffix: str = "") -> bool:
        """Remember that a strike falls; false if it has fallen before."""
        try:
            self._path(index, suffix).touch(exist_ok=False)
        except FileExistsError:
            return False
        return True

    def _wait_for(self, path: Path) -> None:
        deadline = time.monotonic() + _PATIENCE_SECONDS
        while not path.exists() and time.monotonic() < deadline:
            time.sleep(_POLL_SECONDS)


def fallen(plan: StrikePlan) -> tuple[Strike, ...]:
    """Return the strikes that have fallen."""
    folder = Path(plan.folder)
    return tuple(
        strike
        for index, strike in enumerate(plan.strikes)
        if any(folder.glob(f"strike-{index}")) or any(folder.glob(f"strike-{index}-rank-*"))
    )


def awaited_outage(plan: StrikePlan) -> Sequence[Path]:
    """Return, for each outage that a rank waits for, the file that says it has begun."""
    folder = Path(plan.folder)
    begun = [folder / f"strike-{index}-begun" for index, strike in enumerate(plan.strikes)]
    return [
        path
        for index, (strike, path) in enumerate(zip(plan.strikes, begun, strict=True))
        if strike.kind == "storage_outage" and (folder / f"strike-{index}").exists() and not path.exists()
    ]
