"""The report: one Markdown file that reads as an issue."""

from __future__ import annotations

import math
from collections.abc import Sequence
from datetime import datetime

from baltoro.jobs.gpu_check.findings import Finding
from baltoro.jobs.gpu_check.runner import Outcome

MOST_CHARACTERS = 60_000
"""An issue on GitHub takes 65,536."""

_KEPT_DETAILS = 4_000


def render_report(
    outcomes: Sequence[Outcome],
    environment: Sequence[tuple[str, str]],
    *,
    device: str,
    at: datetime,
    seconds: float,
) -> str:
    """Return the report, with names and places still in it.

    Args:
        outcomes: of all checks that were asked for.
        environment: names and values.
        device: ``cuda`` or ``cpu``.
        at: when it began.
        seconds: that all took.
    """
    head = [
        f"# Baltoro gpu-check: {verdict_word(outcomes)}",
        f"{verdict_sentence(outcomes)} On {_device_name(environment, device)}, {at:%Y-%m-%d %H:%M} UTC, "
        f"{seconds:.0f} seconds.",
        "## Checks",
        _table(
            ("check", "result", "seconds", "what it tries", "what it found"),
            [
                (one.check.name, one.state, f"{one.seconds:.0f}", one.check.title, short(one))
                for one in outcomes
            ],
        ),
        *_troubles(outcomes),
        *_not_tried(outcomes),
    ]
    middle = ["## Everything that was looked at", *(_all_of(one) for one in outcomes if one.findings)]
    tail = ["## Environment", _table(("what", "value"), environment), *_next_steps(outcomes)]
    whole = "\n\n".join([*head, *middle, *tail]) + "\n"
    if len(whole) <= MOST_CHARACTERS:
        return whole
    left_out = "(The list of everything that was looked at is left out: it would not fit into an issue.)"
    return "\n\n".join([*head, left_out, *tail])[:MOST_CHARACTERS] + "\n"


def passed(outcomes: Sequence[Outcome]) -> bool:
    """Return whether something ran, and all that ran passed."""
    ran = any(one.state in ("passed", "warning") for one in outcomes)
    return ran and all(one.passed for one in outcomes)


def verdict_word(outcomes: Sequence[Outcome]) -> str:
    """Return the verdict in a word or two."""
    if passed(outcomes):
        return "passed"
    return "failed" if any(not one.passed for one in outcomes) else "nothing could be tried"


def verdict_sentence(outcomes: Sequence[Outcome]) -> str:
    """Return the verdict with the names that it is about."""
    fine = [one for one in outcomes if one.state in ("passed", "warning")]
    parts = [f"{len(fine)} of {len(outcomes)} checks passed"]
    for state in ("failed", "crashed", "timed out", "not run", "not available"):
        names = [one.check.name for one in outcomes if one.state == state]
        if names:
            parts.append(f"{state}: {', '.join(names)}")
    warned = [one.check.name for one in outcomes if one.state == "warning"]
    if warned:
        parts.append(f"with a warning: {', '.join(warned)}")
    missing = sum(finding.verdict == "not available" for one in outcomes for finding in one.findings)
    if missing:
        parts.append(f"{missing} part{'s' * (missing != 1)} of them cannot be tried here")
    return "; ".join(parts) + "."


def short(outcome: Outcome) -> str:
    """Return what a check found, on one line."""
    if outcome.trouble:
        return outcome.trouble.strip().splitlines()[0 if outcome.state == "timed out" else -1]
    of = {
        verdict: [finding for finding in outcome.findings if finding.verdict == verdict]
        for verdict in ("failed", "warning", "measured", "passed", "not available")
    }
    if of["failed"]:
        return f"failed: {', '.join(finding.name for finding in of['failed'])}"
    told = [f"{finding.name} {shown_value(finding)}" for finding in (*of["warning"], *of["measured"])]
    worst = _nearest_to_bound(of["passed"])
    if worst is not None:
        told.insert(0, f"nearest to its bound: {worst.name}, {shown_value(worst)} of {_bound(worst)}")
    counts = [f"{len(of[verdict])} {verdict}" for verdict in ("passed", "not available") if of[verdict]]
    return "; ".join([*counts, *told])


def _nearest_to_bound(findings: Sequence[Finding]) -> Finding | None:
    judged = [one for one in findings if one.value is not None and one.bound and not one.at_least]
    return max(judged, key=lambda one: (one.value or 0.0) / (one.bound or 1.0)) if judged else None


def shown_value(finding: Finding) -> str:
    """Return a finding's value with its unit."""
    return _number(finding.value, finding.unit)


def _bound(finding: Finding) -> str:
    if finding.bound is None:
        return ""
    return f"{'≥' if finding.at_least else '≤'} {_number(finding.bound, finding.unit)}"


def _number(value: float | None, unit: str) -> str:
    if value is None:
        return ""
    if math.isnan(value):
        text = "not a number"
    elif math.isinf(value):
        text = "∞"
    elif value == 0 or 0.01 <= abs(value) < 1000:
        text = f"{value:.3g}"
    elif abs(value) >= 1000:
        text = f"{value:,.0f}"
    else:
        text = f"{value:.1e}"
    return f"{text} {unit}".rstrip()


def _troubles(outcomes: Sequence[Outcome]) -> list[str]:
    parts = []
    for one in outcomes:
        if one.state in ("failed", "crashed", "timed out"):
            parts.append(f"### {one.check.name}: {one.state}")
            if one.trouble:
                parts.append(_fenced(one.trouble))
        for finding in one.findings:
            if finding.verdict in ("failed", "warning"):
                beside = (
                    f": {shown_value(finding)}, must be {_bound(finding)}"
                    if finding.bound is not None
                    else ""
                )
                parts.append(f"**{_cell(finding.name)}** ({finding.verdict}){beside}")
                if finding.details:
                    parts.append(_fenced(finding.details))
    return ["## What is wrong", *parts] if parts else []


def _not_tried(outcomes: Sequence[Outcome]) -> list[str]:
    lines = [
        f"- {one.check.name}: {_cell(finding.name)}: {_cell(finding.details)}"
        for one in outcomes
        for finding in one.findings
        if finding.verdict == "not available"
    ]
    lines += [
        f"- {one.check.name}: not run: {_cell(one.trouble)}" for one in outcomes if one.state == "not run"
    ]
    return ["## What could not be tried", "\n".join(lines)] if lines else []


def _all_of(outcome: Outcome) -> str:
    rows = [
        (
            finding.name,
            finding.verdict,
            shown_value(finding),
            _bound(finding),
            # A traceback stands above; a table is no place for it.
            finding.details if "\n" not in finding.details else "see above",
        )
        for finding in outcome.findings
    ]
    table = _table(("what", "result", "value", "bound", "how"), rows)
    return f"<details><summary>{outcome.check.name}: {len(rows)} findings</summary>\n\n{table}\n\n</details>"


def _next_steps(outcomes: Sequence[Outcome]) -> list[str]:
    bad = [one for one in outcomes if not one.passed or one.state == "warning"]
    steps = [f"- {one.check.name}: {one.check.remedy}." for one in bad if one.state != "not run"]
    again = ",".join(one.check.name for one in bad)
    if again:
        steps.append(f"- Try only these again: `baltoro gpu-check --only {again}`.")
    if any(not one.passed for one in outcomes):
        steps.append(
            "- Attach this file to an issue, and say what the machine is (own, cloud, cluster, container). "
            "Names of user and machine and places of folders are taken out of it; read it before you do."
        )
    if any(finding.verdict == "not available" for one in outcomes for finding in one.findings):
        steps.append(
            "- What is *not available* was not tried and is not known to work; its list says what it lacks."
        )
    if not bad:
        steps.insert(0, "- Nothing must be done: what could be tried here computes what it should.")
    return ["## What to do next", "\n".join(steps)]


def _device_name(environment: Sequence[tuple[str, str]], device: str) -> str:
    values = dict(environment)
    return values.get("GPU", device) if device == "cuda" else f"the CPU ({values.get('processor', device)})"


def _table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join("| " + " | ".join(_cell(cell) for cell in line) + " |" for line in lines)


def _cell(text: str) -> str:
    """Return a text that stays within a cell and is not taken for HTML."""
    one_line = " ".join(text.split())
    return one_line.replace("\\", "\\\\").replace("|", "\\|").replace("<", "&lt;")


def _fenced(text: str) -> str:
    """Return a text as it is, in a fence that nothing in it can close."""
    kept = text.strip()
    if len(kept) > _KEPT_DETAILS:
        kept = f"[…]\n{kept[-_KEPT_DETAILS:]}"
    fence = "```"
    while fence in kept:
        fence += "`"
    return f"{fence}text\n{kept}\n{fence}"
