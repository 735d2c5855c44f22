"""Ends a rank that makes no progress, and says first what it was in.

A collective in which one rank is missing waits for ever, or until a timeout that tells nothing of the
reason. Every rank has a watchdog; since ranks go in step, all of them notice within moments of each other,
each leaves its stacks behind, and whoever started the ranks starts them again.
"""

from __future__ import annotations

import faulthandler
import logging
import os
import threading
import time
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Self, TextIO

from baltoro.train.failure_report import dump_stacks
from baltoro.train.hooks import Hook

if TYPE_CHECKING:
    from baltoro.checkpoint.state import TrainState
    from baltoro.train.metrics import StepRecord

EXIT_CODE = 70
"""Of a process that its watchdog ended (``EX_SOFTWARE`` of sysexits.h)."""

_TICKS = 4
_LONGEST_TICK_SECONDS = 5.0
_TELLING_SECONDS = 15.0

_logger = logging.getLogger(__name__)


class Watchdog(Hook):
    """Watches the thread it is made in; from its ``with`` on, set-up and export included.

    Its own thread needs Python's lock. Where a library holds that for ever, a thread in C ends the process
    instead, after the same time once more; it writes the stacks too, but cannot tell anybody.

    Args:
        seconds: without progress, after which the process ends.
        stacks_file: where the stacks are written, on this machine.
        tell: called with what the process was doing, before it ends; given some seconds.
        end: ends the process.
    """

    def __init__(
        self,
        seconds: float,
        *,
        stacks_file: Path,
        tell: Callable[[str], None],
        end: Callable[[int], object] = os._exit,
    ) -> None:
        self.seconds = seconds
        self.step: int | None = None
        self._stacks_file = stacks_file
        self._tell = tell
        self._end = end
        self._doing = "set-up"
        self._last = time.monotonic()
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="baltoro-watchdog", daemon=True)

    def __enter__(self) -> Self:
        self._stacks_file.parent.mkdir(parents=True, exist_ok=True)
        self._last_resort: TextIO = self._stacks_file.with_suffix(".held.txt").open("w", encoding="utf-8")
        self.progress("set-up")
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._stopped.set()
        self._thread.join()
        faulthandler.cancel_dump_traceback_later()
        self._last_resort.close()

    def progress(self, doing: str) -> None:
        """Take note that something went on, and of what comes next."""
        self._doing = doing
        self._last = time.monotonic()

    def start(self, state: TrainState) -> None:
        """The first step begins."""
        self.step = state.step
        self.progress(f"step {state.step + 1}")

    def step_end(self, record: StepRecord) -> None:
        """A step is done."""
        self.step = record.step
        self.progress(f"step {record.step + 1}, or validation or checkpoint before it")

    def finish(self) -> None:
        """All steps are done."""
        self.progress("validation and export after the last step")

    def _watch(self) -> None:
        tick = min(self.seconds / _TICKS, _LONGEST_TICK_SECONDS)
        while True:
            faulthandler.dump_traceback_later(self.seconds + 2 * tick, exit=True, file=self._last_resort)
            if self._stopped.wait(tick):
                return
            if time.monotonic() - self._last > self.seconds:
                break
        self._give_up()

    def _give_up(self) -> None:
        faulthandler.dump_traceback_later(4 * _TELLING_SECONDS, exit=True, file=self._last_resort)
        self._stacks_file.write_text(dump_stacks(), encoding="utf-8")
        _logger.error(
            "no progress for %.0f s (faults.hang_seconds) in %s; the stacks of all threads are in %s and "
            "this process ends",
            self.seconds,
            self._doing,
            self._stacks_file,
        )
        # Whoever is told may be what hangs.
        teller = threading.Thread(target=self._tell, args=(self._doing,), daemon=True)
        teller.start()
        teller.join(_TELLING_SECONDS)
        self._end(EXIT_CODE)


def process_group_timeout_seconds(hang_seconds: float | None) -> int:
    """Return the timeout of collectives, which must come after the watchdog: it knows more.

    Args:
        hang_seconds: as the recipe says; ``None`` waits for ever.
    """
    forever = 365 * 86_400
    return forever if hang_seconds is None else int(hang_seconds) + 120
