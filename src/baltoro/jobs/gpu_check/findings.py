"""What a check found: a measured value beside its bound, and what that means."""

from __future__ import annotations

import math
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    import torch

Verdict = Literal["passed", "failed", "warning", "measured", "not available"]
"""``measured`` is told and not judged; ``not available`` could not be tried here, and says why."""


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that was looked at.

    Attributes:
        name: what, within its check.
        verdict: what became of it.
        value: as measured; ``None`` where there is nothing to measure, or nothing was reached.
        unit: of value and bound; empty for a ratio.
        bound: that the value is held against; ``None`` where it is not judged.
        at_least: the bound is the least allowed value, not the greatest.
        details: what was compared with what, why the bound is what it is, or why it could not be tried.
    """

    name: str
    verdict: Verdict
    value: float | None = None
    unit: str = ""
    bound: float | None = None
    at_least: bool = False
    details: str = ""

    @property
    def passed(self) -> bool:
        """Whether nothing is wrong, as far as could be seen."""
        return self.verdict != "failed"


def at_most(name: str, value: float, bound: float, *, unit: str = "", details: str = "") -> Finding:
    """Return a finding that passes up to a bound; a value that is not a number never does."""
    return Finding(name, "passed" if value <= bound else "failed", value, unit, bound, details=details)


def at_least(name: str, value: float, bound: float, *, unit: str = "", details: str = "") -> Finding:
    """Return a finding that passes from a bound on; a value that is not a number never does."""
    return Finding(name, "passed" if value >= bound else "failed", value, unit, bound, True, details)


def holds(name: str, condition: bool, details: str) -> Finding:
    """Return a finding without a value that passes if a condition holds."""
    return Finding(name, "passed" if condition else "failed", details=details)


def measured(name: str, value: float, *, unit: str = "", details: str = "") -> Finding:
    """Return a value that nobody judges."""
    return Finding(name, "measured", value, unit, details=details)


def not_available(name: str, reason: str) -> Finding:
    """Return a finding for what cannot be tried here."""
    return Finding(name, "not available", details=reason)


def attempted(name: str, call: Callable[[], list[Finding]]) -> list[Finding]:
    """Return what a part of a check finds; if it raises, that is a failed finding, and other parts go on.

    Args:
        name: of the part.
        call: the part.
    """
    try:
        return call()
    except Exception:  # noqa: BLE001  (told in full as a finding; a kernel that fails must not hide others)
        return [Finding(name, "failed", details=traceback.format_exc())]


def deviation(found: torch.Tensor | None, expected: torch.Tensor) -> float:
    """Return the largest absolute difference as a share of the largest expected value.

    Args:
        found: what is checked; ``None`` (no gradient arrived) is infinitely wrong.
        expected: the reference, of the same shape, on the same device; must not be all zero.

    Returns:
        Infinity where anything is not finite.

    Raises:
        ValueError: the shapes differ, or the reference is zero and would prove nothing.
    """
    import torch

    if found is None:
        return math.inf
    if found.shape != expected.shape:
        raise ValueError(f"shape {tuple(found.shape)} is compared with {tuple(expected.shape)}")
    exact, reference = found.detach().to(torch.float64), expected.detach().to(torch.float64)
    largest = float(reference.abs().max())
    if largest == 0.0:
        raise ValueError("the reference is zero everywhere, so comparing with it would prove nothing")
    share = float((exact - reference).abs().max()) / largest
    return share if math.isfinite(share) else math.inf
