"""Where the devices' time went: every device-second of a run under one cause.

The run's ledger says when each step ended, how long it took and what its parts took; the run's head says when
each attempt began. Laid on one time line they leave nothing over: the causes add up to wall time × devices.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Literal, Protocol, get_args

Cause = Literal[
    "useful",
    "compile",
    "data_wait",
    "checkpoint",
    "validation",
    "restart",
    "replay",
    "skipped",
    "stopped",
    "idle",
]
"""What a device-second was spent on.

``useful``      steps that the result rests on.
``compile``     compiling and warming up: what the first step of an attempt took beyond the attempt's median.
``data_wait``   waiting for rows.
``checkpoint``  waiting for checkpoints; after the last step also for its validation and export.
``validation``  measuring the validation loss.
``restart``     from the start, or from the last step before a failure, to the beginning of the next step:
                noticing it, starting workers, loading.
``replay``      steps that were lost to a failure or a roll-back and had to be taken anew.
``skipped``     steps whose update was left out.
``stopped``     from the last step of one command to the moment the next one was given.
``idle``        devices of the largest attempt that a smaller one did without.
"""

CAUSES: tuple[Cause, ...] = get_args(Cause)


class TimedStep(Protocol):
    """What is asked of a record of the ledger."""

    @property
    def attempt(self) -> int:
        """Number of the attempt that took the step."""

    @property
    def world_size(self) -> int:
        """Devices that took part."""

    @property
    def status(self) -> str:
        """``done``, if the weights were updated."""

    @property
    def abandoned(self) -> bool:
        """Whether a later record takes its place."""

    @property
    def seconds(self) -> float:
        """Since the step before, or since the attempt's loop began."""

    @property
    def phase_seconds(self) -> Mapping[str, float]:
        """Of its parts, and of what training waited for before it."""

    @property
    def ended_at(self) -> float:
        """Seconds since 1970."""


class TimedAttempt(Protocol):
    """What is asked of an attempt in the run's head."""

    @property
    def number(self) -> int:
        """1, 2, …"""

    @property
    def started_at(self) -> str:
        """ISO 8601 with time zone."""

    @property
    def world_size(self) -> int:
        """Devices."""

    @property
    def command_started_at(self) -> str | None:
        """When the command was given that it belongs to, ISO 8601 with time zone; ``None`` if unknown."""


@dataclass(frozen=True, slots=True)
class Span:
    """A stretch of time that some devices spent on one thing; times are seconds since 1970."""

    began_at: float
    ended_at: float
    cause: Cause
    devices: int


@dataclass(frozen=True, slots=True)
class Goodput:
    """The time line of a run.

    Attributes:
        began_at: where it begins, seconds since 1970.
        ended_at: where it ends.
        devices: how many there are.
        spans: in order, without overlap; what they leave of wall time × devices is idle.
        attempts: ``(number, started_at)`` in order.
    """

    began_at: float
    ended_at: float
    devices: int
    spans: tuple[Span, ...]
    attempts: tuple[tuple[int, float], ...]

    @property
    def wall_seconds(self) -> float:
        """Length of the time line."""
        return self.ended_at - self.began_at

    def device_seconds(self) -> dict[Cause, float]:
        """Return the device-seconds of every cause; they sum up to ``wall_seconds × devices``."""
        totals = dict.fromkeys(CAUSES, 0.0)
        for span in self.spans:
            totals[span.cause] += (span.ended_at - span.began_at) * span.devices
        # Rounding may leave a hair less than nothing.
        totals["idle"] = max(self.wall_seconds * self.devices - sum(totals.values()), 0.0)
        return totals

    def fractions(self) -> dict[Cause, float]:
        """Return each cause's share of wall time × devices; they sum up to 1, or are 0 on an empty line."""
        seconds = self.device_seconds()
        whole = sum(seconds.values())
        return {cause: value / whole if whole else 0.0 for cause, value in seconds.items()}

    def metrics(self) -> dict[str, float]:
        """Return the shares under their metric names."""
        return {f"goodput/{cause}_fraction": share for cause, share in self.fractions().items()}


def measure_goodput(
    steps: Sequence[TimedStep],
    attempts: Sequence[TimedAttempt],
    *,
    began_at: float | None = None,
    ended_at: float | None = None,
    devices: int | None = None,
) -> Goodput:
    """Lay a run's steps on one time line.

    Clocks of several machines may disagree by a little: spans are cut so that none overlaps another, and an
    attempt ends where the next one begins, whatever it still wrote.

    Args:
        steps: records of the ledger, abandoned ones included, in any order.
        attempts: of the run's head.
        began_at: when the devices were first held (seconds since 1970); ``None``: when the first command was
            given, or if that is unknown, when the first attempt began.
        ended_at: when the workers were done; ``None``: with the last step.
        devices: how many were held; ``None``: those of the largest attempt.
    """
    started = {attempt.number: _seconds(attempt.started_at) for attempt in attempts}
    commanded = {
        attempt.number: _seconds(attempt.command_started_at)
        for attempt in attempts
        if attempt.command_started_at is not None
    }
    widths = {attempt.number: attempt.world_size for attempt in attempts}
    taken: dict[int, list[TimedStep]] = {number: [] for number in started}
    for step in sorted(steps, key=lambda step: step.ended_at):
        taken.setdefault(step.attempt, []).append(step)
        started.setdefault(step.attempt, step.ended_at - _positive(step.seconds))
        widths.setdefault(step.attempt, step.world_size)
    order = sorted(started)
    most = max([1, devices or 0, *widths.values(), *(step.world_size for step in steps)])
    if not order:
        return Goodput(began_at or 0.0, began_at or 0.0, most, (), ())
    begin = commanded.get(order[0], started[order[0]]) if began_at is None else began_at
    end = max(*(step.ended_at for step in steps), *started.values(), begin) if ended_at is None else ended_at
    end = max(begin, end)

    spans: list[Span] = []
    cursor = begin
    for number, following in zip(order, [*order[1:], None], strict=True):
        stop = end if following is None else min(end, started[following])
        usual = _median_step(taken[number])
        given = min(commanded.get(number, cursor), stop)
        if given > cursor:
            spans.append(Span(cursor, given, "stopped", widths[number]))
            cursor = given
        for step in taken[number]:
            step_end = min(step.ended_at, stop)
            step_begin = max(cursor, step_end - _positive(step.seconds))
            if step_end <= step_begin:
                continue
            if step_begin > cursor:
                spans.append(Span(cursor, step_begin, "restart", step.world_size))
            cursor = step_begin
            first = step is taken[number][0]
            for cause, seconds in _parts(step, step_end - step_begin, usual if first else None):
                part_end = min(cursor + seconds, step_end)
                if part_end > cursor:
                    spans.append(Span(cursor, part_end, cause, step.world_size))
                    cursor = part_end
    if end > cursor:
        last = order[-1]
        spans.append(Span(cursor, end, "checkpoint" if taken[last] else "restart", widths[last]))
    return Goodput(begin, end, most, tuple(spans), tuple((number, started[number]) for number in order))


def _parts(step: TimedStep, available: float, usual: float | None) -> Iterator[tuple[Cause, float]]:
    """Yield the parts of a step in their order; the last one takes whatever is left.

    Args:
        step: its record.
        available: seconds that it took.
        usual: for the first step of an attempt, the median of the others; ``None`` for those.
    """
    if step.abandoned:
        yield "replay", math.inf
    elif step.status != "done":
        yield "skipped", math.inf
    else:
        waits = _waits(step)
        yield from waits.items()
        compiling = _positive(step.phase_seconds.get("compile", 0.0))
        if not compiling and usual is not None:
            compiling = max(available - sum(waits.values()) - usual, 0.0)
        yield "compile", compiling
        yield "useful", math.inf


def _waits(step: TimedStep) -> dict[Cause, float]:
    phases = {name: _positive(seconds) for name, seconds in step.phase_seconds.items()}
    return {
        "checkpoint": phases.get("checkpoint", 0.0),
        "validation": phases.get("validation", 0.0),
        "data_wait": phases.get("data", 0.0),
    }


def _median_step(steps: Sequence[TimedStep]) -> float | None:
    """Return the median of an attempt's steps but the first, without what they waited for."""
    others = [_positive(step.seconds) - sum(_waits(step).values()) for step in steps[1:]]
    return max(statistics.median(others), 0.0) if others else None


def _positive(seconds: float) -> float:
    return seconds if math.isfinite(seconds) and seconds > 0 else 0.0


def _seconds(moment: str) -> float:
    return datetime.fromisoformat(moment).timestamp()
