"""Rows of the benchmark's table, and how they are printed.

A row compares a value with a baseline. Speeds and speed-ups must reach their bound; times and memory must
not exceed it. A row without a bound is for information.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, slots=True)
class Row:
    """One comparison; ``at_most`` says on which side of ``bound`` the ratio must lie."""

    name: str
    unit: str
    value: float
    baseline: float
    bound: float | None = None
    at_most: bool = False

    @property
    def ratio(self) -> float | None:
        """Value over baseline; none where the baseline is nothing, or less by noise: that holds no bound."""
        return self.value / self.baseline if self.baseline > 0 else None

    @property
    def passed(self) -> bool:
        """Whether the bound holds, if there is one."""
        if self.bound is None:
            return True
        if self.ratio is None:
            return False
        return self.ratio <= self.bound if self.at_most else self.ratio >= self.bound

    def to_json(self) -> dict[str, Any]:
        """Return the row as ``--json`` prints it."""
        return {
            "value": round(self.value, 4),
            "baseline": round(self.baseline, 4),
            "ratio": None if self.ratio is None else round(self.ratio, 4),
            "bound": self.bound,
            "passed": self.passed,
        }


def as_json(rows: Sequence[Row]) -> str:
    """Return all rows as one JSON object."""
    return json.dumps({row.name: row.to_json() for row in rows}, indent=2)


def as_table(rows: Sequence[Row]) -> str:
    """Return all rows as a table for people."""
    width = max(len(row.name) for row in rows)
    lines = [f"{'':{width}}  {'unit':<6}{'value':>10}{'baseline':>10}{'ratio':>9}  bound"]
    for row in rows:
        sign = "≤" if row.at_most else "≥"
        bound = "" if row.bound is None else f"{sign} {row.bound:.2f}"
        verdict = "" if row.passed else "  MISSED"
        ratio = "-" if row.ratio is None else f"{row.ratio:.2f}"
        lines.append(
            f"{row.name:{width}}  {row.unit:<6}{row.value:>10.2f}{row.baseline:>10.2f}{ratio:>9}"
            f"  {bound}{verdict}"
        )
    return "\n".join(lines)


def exit_code(rows: Sequence[Row]) -> int:
    """Return 0 when every bound holds, 3 when one does not."""
    return 0 if all(row.passed for row in rows) else 3
