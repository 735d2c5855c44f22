"""How long the parts of a step take, on CPU by the clock and on GPU by events on its stream."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import torch

STEP_PHASES = ("data", "forward", "backward", "optimizer")
"""What a step's own time is split into; the rest of it is ``other``."""

HOOK_PHASES = ("checkpoint", "validation")
"""What training waits for between two steps."""


class PhaseTimer:
    """Adds up the time of named phases until it is asked.

    On a GPU the host runs ahead of the device, so a phase of device work is the time between two events on
    the current stream; nothing waits until :meth:`take`. Phases must not be nested in each other.

    Args:
        device: where the work is done.
    """

    def __init__(self, device: torch.device) -> None:
        self._on_gpu = device.type == "cuda"
        self._seconds: dict[str, float] = {}
        self._events: list[tuple[str, Any, Any]] = []

    @contextlib.contextmanager
    def host(self, name: str) -> Iterator[None]:
        """Count a block whose work is the host's: waiting for data, taking a checkpoint."""
        began = time.perf_counter()
        try:
            yield
        finally:
            self._add(name, time.perf_counter() - began)

    @contextlib.contextmanager
    def device(self, name: str) -> Iterator[None]:
        """Count a block whose work is the device's: passes, the update."""
        if not self._on_gpu:
            with self.host(name):
                yield
            return
        import torch

        begin, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))  # type: ignore[no-untyped-call]
        begin.record()
        try:
            yield
        finally:
            end.record()
            self._events.append((name, begin, end))

    def take(self) -> dict[str, float]:
        """Return the seconds of each phase since the last call; waits for device work still running."""
        for name, begin, end in self._events:
            end.synchronize()
            self._add(name, begin.elapsed_time(end) / 1000.0)
        self._events = []
        seconds, self._seconds = self._seconds, {}
        return seconds

    def _add(self, name: str, seconds: float) -> None:
        self._seconds[name] = self._seconds.get(name, 0.0) + seconds
