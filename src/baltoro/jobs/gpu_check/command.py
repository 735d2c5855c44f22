"""`baltoro gpu-check`: refuse, run, tell, write."""

from __future__ import annotations

import json
import math
import os
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from baltoro.core.errors import InputError, PlatformError
from baltoro.jobs.gpu_check.checks import CHECKS, Check, chosen_checks
from baltoro.jobs.gpu_check.findings import Finding
from baltoro.jobs.gpu_check.report import passed, render_report, short, verdict_sentence
from baltoro.jobs.gpu_check.runner import CPU_PATIENCE, Outcome, run_check, run_in_process
from baltoro.jobs.gpu_check.scrub import make_scrub, shown_variables, without_addresses

BUDGET_SECONDS = 600.0
"""For all checks together on a GPU; what has not run by then is said to be so."""

_LEAST_SECONDS = 5.0
_ENVIRONMENT = f"{__package__}.environment:collect_environment"
_ENVIRONMENT_SECONDS = 60.0


@dataclass(frozen=True, slots=True)
class GpuCheck:
    """What a run of the checks came to.

    Attributes:
        passed: something was tried, and all that was tried passed.
        sentence: the verdict.
        report: where the file is.
        outcomes: of each check.
    """

    passed: bool
    sentence: str
    report: Path
    outcomes: tuple[Outcome, ...]

    def to_json(self) -> dict[str, Any]:
        """Return it as plain values, names and places taken out of all but the report's path."""
        checks = {
            one.check.name: {
                "state": one.state,
                "seconds": round(one.seconds, 1),
                "trouble": one.trouble,
                "findings": [_plain(finding) for finding in one.findings],
            }
            for one in self.outcomes
        }
        scrubbed = json.loads(make_scrub()(json.dumps(checks)))
        return {"passed": self.passed, "report": str(self.report), "checks": scrubbed}


def _plain(finding: Finding) -> dict[str, Any]:
    def number(value: float | None) -> float | str | None:
        # JSON has no infinity.
        return value if value is None or math.isfinite(value) else str(value)

    return {
        "name": finding.name,
        "verdict": finding.verdict,
        "value": number(finding.value),
        "unit": finding.unit,
        "bound": number(finding.bound),
        "at_least": finding.at_least,
        "details": finding.details,
    }


def gpu_check(
    device: str,
    only: str | None,
    output: Path | None,
    *,
    say: Callable[[str], None],
    checks: Sequence[Check] = CHECKS,
    budget_seconds: float = BUDGET_SECONDS,
) -> GpuCheck:
    """Run the checks one after the other, and write the report anew after each.

    Args:
        device: ``cuda`` or ``cpu``.
        only: names of checks, with commas; ``None`` for all.
        output: file or folder of the report; the current folder by default.
        say: tells a person.
        checks: that are run if ``only`` names none.
        budget_seconds: for all of them on a GPU; a CPU has more patience.

    Raises:
        ConfigError: there is no such check.
        PlatformError: there is no GPU.
        InputError: the report cannot be written there.
    """
    wanted = tuple(checks) if only is None else chosen_checks(only)
    began_at = datetime.now(UTC)
    report = _report_file(output, began_at)
    refuse_missing_gpu(device)
    patience = CPU_PATIENCE if device == "cpu" else 1.0
    began = time.monotonic()
    ends = began + budget_seconds * patience
    scrub = make_scrub()
    environment: list[tuple[str, str]] = []
    outcomes = {check.name: Outcome(check, "not run", trouble="it was not its turn yet") for check in wanted}

    def write() -> None:
        text = render_report(
            list(outcomes.values()),
            environment,
            device=device,
            at=began_at,
            seconds=time.monotonic() - began,
        )
        report.write_text(scrub(text), encoding="utf-8")

    write()
    environment += _environment(device, patience)
    width = max(len(check.name) for check in wanted)
    for number, check in enumerate(wanted, start=1):
        left = ends - time.monotonic()
        say(f"{number}/{len(wanted)} {check.name:<{width}}  {check.title} …")
        if left < _LEAST_SECONDS:
            why = f"the {budget_seconds * patience / 60:.0f} minutes for all checks were over"
            outcome = Outcome(check, "not run", trouble=why)
        else:
            outcome = _without_addresses(
                run_check(check, device, seconds=min(check.seconds * patience, left))
            )
        outcomes[check.name] = outcome
        write()
        told = scrub(short(outcome))
        say(f"{'':{width + 4}}  {outcome.state} after {outcome.seconds:.0f} s: {told}")
    results = tuple(outcomes.values())
    return GpuCheck(passed(results), verdict_sentence(results), report, results)


def refuse_missing_gpu(device: str) -> None:
    """Refuse to check a GPU that is not there.

    Args:
        device: ``cuda`` or ``cpu``.

    Raises:
        PlatformError: torch sees no GPU.
    """
    if device != "cuda":
        return
    import torch

    if not torch.cuda.is_available():
        why = "this torch was built without CUDA" if torch.version.cuda is None else "torch sees none"
        raise PlatformError(
            f"gpu-check needs a GPU, and there is none ({why}); run it on a machine with one, look at "
            "nvidia-smi and CUDA_VISIBLE_DEVICES if this is one, or try the same checks with `--device cpu`"
        )


def _report_file(output: Path | None, at: datetime) -> Path:
    name = f"gpu-check-REPORT-{at:%Y%m%d-%H%M%S}.md"
    file = Path(name) if output is None else output / name if output.is_dir() else output
    folder = file.parent
    if not folder.is_dir():
        raise InputError(f"--output {output}: the folder {folder} does not exist; make it, or name another")
    # Asked before ten minutes are spent.
    if not os.access(file if file.exists() else folder, os.W_OK):
        raise InputError(f"--output {file}: no right to write there; name another file with --output")
    return file.absolute()


def _environment(device: str, patience: float) -> list[tuple[str, str]]:
    answer = run_in_process(_ENVIRONMENT, device, seconds=_ENVIRONMENT_SECONDS * patience)
    # Of this process: the checks' own have some more, which say nothing of the machine.
    variables = [(f"variable {name}", value) for name, value in shown_variables(dict(os.environ))]
    if answer.result is None:
        return [("machine", f"could not be read: {without_addresses(answer.trouble)}"), *variables]
    return [*((str(name), str(value)) for name, value in answer.result), *variables]


def _without_addresses(outcome: Outcome) -> Outcome:
    findings = (replace(one, details=without_addresses(one.details)) for one in outcome.findings)
    return replace(outcome, findings=tuple(findings), trouble=without_addresses(outcome.trouble))
