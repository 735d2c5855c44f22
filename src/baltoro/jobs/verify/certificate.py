"""The certificate that a run resumes without loss: figures for programs, a page and a picture for people."""

from __future__ import annotations

import io
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from importlib import resources
from typing import Any

from baltoro.core.artifacts import Artifact, fingerprint_of
from baltoro.core.provenance import collect_provenance
from baltoro.jobs.recipe import Recipe
from baltoro.jobs.stages import Context
from baltoro.tracking.mlflow import Tracker

VERSION = 1
PAGE, FIGURES, PICTURE = "certificate.html", "certificate.json", "losses.png"


@dataclass(frozen=True, slots=True)
class RunVerdict:
    """What was found of one run.

    Attributes:
        name: of the run, or of what was done to it.
        steps: accepted, skipped ones included.
        rows_once: every row was consumed exactly once.
        order_equal: every step consumed the rows that the order gives it, and was fed their content.
        attempts: starts of the run.
        world_sizes: of the attempts, in order.
        strikes: what was done to it, in words.
        max_loss_deviation: largest difference to the twin, nats per token; ``None`` without a twin.
        bound: that the deviation must keep to; 0 means the same bits.
        findings: sentences on what is wrong.
        notes: sentences on what a reader should know and that is not wrong.
    """

    name: str
    steps: int
    rows_once: bool
    order_equal: bool
    attempts: int
    world_sizes: tuple[int, ...]
    strikes: tuple[str, ...] = ()
    max_loss_deviation: float | None = None
    bound: float | None = None
    findings: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()

    @property
    def passed(self) -> bool:
        """Whether nothing is wrong."""
        close = self.max_loss_deviation is None or (
            self.bound is not None and self.max_loss_deviation <= self.bound
        )
        return self.rows_once and self.order_equal and close and not self.findings


@dataclass(frozen=True, slots=True)
class Certificate:
    """The outcome of a verification.

    Attributes:
        about: the recipe's or run's name.
        kind: ``rehearsal`` or ``audit``.
        settings: what was verified, by name.
        verdicts: one per run.
        not_done: what could not be rehearsed here, and why.
        losses: loss by step of each run, for the picture.
    """

    about: str
    kind: str
    settings: Mapping[str, Any]
    verdicts: tuple[RunVerdict, ...]
    not_done: tuple[str, ...]
    losses: Mapping[str, Sequence[tuple[int, float]]]

    @property
    def certified(self) -> bool:
        """Whether every run passed."""
        return bool(self.verdicts) and all(verdict.passed for verdict in self.verdicts)

    def summary(self) -> dict[str, Any]:
        """Return what ``--json`` prints."""
        deviations = [v.max_loss_deviation for v in self.verdicts if v.max_loss_deviation is not None]
        return {
            "certified": self.certified,
            "rows_once": all(verdict.rows_once for verdict in self.verdicts),
            "order_equal": all(verdict.order_equal for verdict in self.verdicts),
            "max_loss_deviation": max(deviations, default=None),
            "attempts": sum(verdict.attempts for verdict in self.verdicts),
            "runs": [asdict(verdict) | {"passed": verdict.passed} for verdict in self.verdicts],
            "not_done": list(self.not_done),
        }


def publish(certificate: Certificate, context: Context, parents: Mapping[str, Artifact]) -> Artifact:
    """Write a certificate under the storage root.

    Args:
        certificate: what was found.
        context: of the command.
        parents: the artifacts it is about, by role.
    """
    files = certificate_files(certificate)
    inputs = {"certificate": certificate.about, "made_at": _now(), "version": VERSION}
    with context.store.begin("certificate", context.recipe.name, fingerprint_of(inputs)) as writer:
        for name, data in files.items():
            writer.write_file(name, data)
        summary = certificate.summary()
        return writer.publish(
            inputs=inputs,
            stage_version=VERSION,
            parents=parents,
            counts={"runs": len(certificate.verdicts), "attempts": summary["attempts"]},
            extra={"certified": certificate.certified, "kind": certificate.kind},
        )


def track(certificate: Certificate, recipe: Recipe, tracker: Tracker, artifact: Artifact) -> str:
    """Show a certificate in MLflow; returns the run's id."""
    tracker.prepare()
    summary = certificate.summary()
    tags = {"baltoro.stage": "verify-resume", "baltoro.artifact": artifact.uri}
    tags |= {"baltoro.certified": str(certificate.certified).lower()}
    tags |= {
        f"baltoro.{key}": str(value) for key, value in collect_provenance().model_dump().items() if value
    }
    with tracker.run(f"{recipe.name}-verify-resume", tags=tags) as run:
        run.log_params(dict(certificate.settings))
        metrics = {
            name: float(summary[name]) for name in ("certified", "rows_once", "order_equal", "attempts")
        }
        if summary["max_loss_deviation"] is not None:
            metrics["max_loss_deviation"] = summary["max_loss_deviation"]
        run.log_metrics({f"verify/{name}": value for name, value in metrics.items()})
        for name, data in certificate_files(certificate).items():
            run.log_bytes(data, f"certificate/{name}")
        return run.run_id


def certificate_files(certificate: Certificate) -> dict[str, bytes]:
    """Return the certificate's files by name."""
    figures = certificate.summary() | {
        "about": certificate.about,
        "kind": certificate.kind,
        "settings": dict(certificate.settings),
        "losses": {name: list(points) for name, points in certificate.losses.items()},
    }
    return {
        PAGE: _page(certificate).encode(),
        FIGURES: (json.dumps(figures, indent=1, ensure_ascii=False) + "\n").encode(),
        PICTURE: losses_picture(certificate.losses, title=f"{certificate.about}: loss of each run"),
    }


def losses_picture(losses: Mapping[str, Sequence[tuple[int, float]]], *, title: str) -> bytes:
    """Return a PNG of the runs' losses, and below of their distance to the first one.

    Args:
        losses: ``(step, nats per token)`` by run; the first is the twin.
        title: stands above.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    names = list(losses)
    compared = len(names) > 1
    figure = Figure(figsize=(8, 5.5 if compared else 3.8), layout="constrained")
    canvas = FigureCanvasAgg(figure)
    panels = figure.subplots(
        2 if compared else 1, 1, sharex=True, squeeze=False, height_ratios=(2, 1) if compared else (1,)
    )[:, 0]
    twin = dict(losses[names[0]]) if names else {}
    for index, name in enumerate(names):
        # People count steps from 1. Equal curves lie on each other: each is thinner than the one under it.
        width = 1.2 + 2.0 * (len(names) - 1 - index)
        done = [(step + 1, loss) for step, loss in losses[name]]
        panels[0].plot(*zip(*done, strict=True), label=name, linewidth=width, color=f"C{index}")
        gaps = [(step + 1, abs(loss - twin[step])) for step, loss in losses[name] if step in twin]
        if index and gaps:
            panels[1].plot(*zip(*gaps, strict=True), color=f"C{index}")
    panels[0].set_title(title, loc="left")
    panels[0].set_ylabel("loss (nats per token)")
    panels[0].legend(frameon=False)
    if compared:
        panels[1].set_ylabel(f"distance to the {names[0]}")
    panels[-1].set_xlabel("steps done")
    for axes in panels:
        axes.spines[["top", "right"]].set_visible(False)
    buffer = io.BytesIO()
    canvas.print_png(buffer, metadata={"Software": None})
    return buffer.getvalue()


def _page(certificate: Certificate) -> str:
    import base64

    from jinja2 import Environment

    template = (resources.files(__package__) / "certificate.html.jinja").read_text(encoding="utf-8")
    picture = losses_picture(certificate.losses, title="") if certificate.losses else b""
    return (
        Environment(autoescape=True)
        .from_string(template)
        .render(
            certificate=certificate,
            summary=certificate.summary(),
            picture=base64.b64encode(picture).decode(),
            made_at=_now(),
        )
    )


def describe(certificate: Certificate) -> str:
    """Return the closing lines for a terminal."""
    lines = []
    for verdict in certificate.verdicts:
        mark = "passed" if verdict.passed else "FAILED"
        worlds = " → ".join(map(str, verdict.world_sizes))
        lines.append(f"{verdict.name}: {mark}")
        lines.append(
            f"  {verdict.steps} steps in {_counted(verdict.attempts, 'attempt')} on {worlds} "
            f"worker{'' if worlds == '1' else 's'}; every row once: "
            f"{_yes(verdict.rows_once)}; order and content as planned: {_yes(verdict.order_equal)}"
        )
        lines += [f"  {strike}" for strike in verdict.strikes]
        if verdict.max_loss_deviation is not None:
            bound = "the same bits" if verdict.bound == 0 else f"at most {verdict.bound:g}"
            lines.append(
                f"  loss differs from the twin's by {verdict.max_loss_deviation:.3g} nats per token at most "
                f"(asked: {bound})"
            )
        lines += [f"  wrong: {finding}" for finding in verdict.findings]
        lines += [f"  note: {note}" for note in verdict.notes]
    lines += [f"not rehearsed: {reason}" for reason in certificate.not_done]
    lines.append("CERTIFIED" if certificate.certified else "NOT CERTIFIED")
    return "\n".join(lines)


def _counted(number: int, noun: str) -> str:
    return f"{number} {noun}{'' if number == 1 else 's'}"


def _yes(value: bool) -> str:
    return "yes" if value else "NO"


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")
