"""Whether a worker is about to be taken away, agreed among all ranks.

Notice comes from Ray (a node is drained), as SIGTERM to a worker's process (a pod is evicted), or from the
desk (elastic workers are about to be replaced by more). It may reach one rank only, and a rank that leaves a
step before the others leaves them waiting for ever; so ranks ask each other, every few seconds, counted in
steps.
"""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Callable
from types import FrameType

from baltoro.parallel.ranks import Ranks

ASK_SECONDS = 5.0
"""Time between two questions, about; less where the grace period is short."""

EXIT_CODE = 128 + signal.SIGTERM

_MOST_STEPS_BETWEEN = 1000

_terminated_at: float | None = None


class Notices:
    """``notices()`` after each step: seconds until a worker is taken away, alike on every rank, or ``None``.

    Making one is collective.

    Args:
        grace_seconds: between a notice that names no time and the end.
        asked_to_leave: whether the desk wants this group to leave.
        ray_deadline: Unix time at which Ray takes a node away, given the grace period; ``None`` without
            notice.
        timeout_seconds: that ranks wait for each other's answers; PyTorch's default if not given.
    """

    def __init__(
        self,
        grace_seconds: float,
        *,
        asked_to_leave: Callable[[], bool],
        ray_deadline: Callable[[float], float | None],
        timeout_seconds: float | None = None,
    ) -> None:
        self._ranks = Ranks(timeout_seconds)
        self._grace_seconds = grace_seconds
        self._asked_to_leave = asked_to_leave
        self._ray_deadline = ray_deadline
        self._every_seconds = min(ASK_SECONDS, grace_seconds / 4)
        self._steps = 0
        self._steps_between = 1
        self._asked_at = time.monotonic()

    def __call__(self) -> float | None:
        """Ask, if it is time to; all ranks count steps alike, so all of them ask at the same one."""
        self._steps += 1
        if self._steps < self._steps_between:
            return None
        seconds_per_step = (time.monotonic() - self._asked_at) / self._steps
        answers = self._ranks.each(lambda: (self._seconds_left(), seconds_per_step))
        slowest = max(seconds for _, seconds in answers)
        self._steps_between = max(1, min(int(self._every_seconds / max(slowest, 1e-6)), _MOST_STEPS_BETWEEN))
        self._steps = 0
        self._asked_at = time.monotonic()
        notices = [left for left, _ in answers if left is not None]
        return max(min(notices), 0.0) if notices else None

    def _seconds_left(self) -> float | None:
        """Return this rank's own answer."""
        left = []
        deadline = self._ray_deadline(self._grace_seconds)
        if deadline is not None:
            left.append(deadline - time.time())
        if _terminated_at is not None:
            left.append(_terminated_at + self._grace_seconds - time.monotonic())
        if self._asked_to_leave():
            left.append(self._grace_seconds)
        return min(left, default=None)


def ray_deadline(grace_seconds: float) -> float | None:
    """Return the Unix time at which Ray takes a worker's node away; every rank must call this equally often.

    Args:
        grace_seconds: from now on, where Ray names no time.
    """
    import ray.train

    info = ray.train.get_preemption_info()
    if info is None:
        return None
    return time.time() + grace_seconds if info.deadline_ms is None else info.deadline_ms / 1000


def listen_for_sigterm(grace_seconds: float) -> None:
    """Take SIGTERM as a notice from now on, in a thread of a Ray actor that is not its main one.

    Args:
        grace_seconds: after the signal the process ends, if it has not ended before.
    """
    import ray

    # Only a process's main thread may set a handler, and in an actor it is the one that takes calls.
    actor = ray.get_runtime_context().current_actor
    ray.get(actor.execute.remote(set_sigterm_handler, grace_seconds))


def set_sigterm_handler(grace_seconds: float) -> None:
    """Set the handler; called in the main thread."""
    global _terminated_at  # noqa: PLW0603  (a signal belongs to the whole process)
    _terminated_at = None

    def handle(number: int, frame: FrameType | None) -> None:
        global _terminated_at  # noqa: PLW0603
        del number, frame
        if _terminated_at is None:
            _terminated_at = time.monotonic()
            timer = threading.Timer(grace_seconds, os._exit, [EXIT_CODE])
            timer.daemon = True
            timer.start()

    signal.signal(signal.SIGTERM, handle)
