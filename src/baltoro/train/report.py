"""The pictures of a training run: its loss curve, and where the devices' time went."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from baltoro.train.goodput import CAUSES, Cause, Goodput
from baltoro.train.metrics import LOSS, VALIDATION_LOSS

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_COLORS: dict[Cause, str] = {
    "useful": "#3b6ea5",
    "compile": "#8172b3",
    "data_wait": "#e0a33e",
    "checkpoint": "#5aa88f",
    "validation": "#a7c7e7",
    "restart": "#c44e52",
    "replay": "#e58a8d",
    "skipped": "#7f5539",
    "stopped": "#f2f2f2",
    "idle": "#dddddd",
}
_COLUMNS = 160
_MINUTE, _HOUR = 60.0, 3600.0


def loss_curve(
    history: Sequence[tuple[int, Mapping[str, float]]],
    *,
    title: str,
    attempts: Sequence[tuple[int, int]] = (),
) -> bytes:
    """Return a PNG of training and validation loss over steps.

    Steps that were lost and taken anew are drawn faintly, as they were the first time.

    Args:
        history: ``(step, {metric name: value})`` in the order reported; other metrics are left out.
        title: stands above the picture.
        attempts: ``(number, steps done when it began)`` of each; those after the first are marked.
    """
    figure, canvas = _figure(height=4.0)
    axes = figure.subplots()
    for name, label, color, marker in (
        (LOSS, "training", "#3b6ea5", ""),
        (VALIDATION_LOSS, "validation", "#c44e52", "o"),
    ):
        kept, lost = _kept_and_lost([(step, metrics[name]) for step, metrics in history if name in metrics])
        for piece in lost:
            axes.plot(*zip(*piece, strict=True), color=color, marker=marker, alpha=0.3)
        if kept:
            axes.plot(*zip(*kept, strict=True), label=label, color=color, marker=marker)
            axes.annotate(
                f"{kept[-1][1]:.3f}", kept[-1], xytext=(6, 0), textcoords="offset points", va="center"
            )
    for number, step in attempts:
        if number > 1:
            axes.axvline(step, color="#888888", linewidth=0.8, linestyle=":")
            axes.annotate(
                f"attempt {number}",
                (step, 1.0),
                xycoords=("data", "axes fraction"),
                xytext=(3, -3),
                textcoords="offset points",
                va="top",
                rotation=90,
                fontsize=7,
                color="#666666",
            )
    axes.set_xlabel("step")
    axes.set_ylabel("loss (nats per token)")
    axes.set_title(title, loc="left")
    axes.spines[["top", "right"]].set_visible(False)
    if axes.get_legend_handles_labels()[0]:
        axes.legend(frameon=False)
    return _png(canvas)


def goodput_picture(goodput: Goodput, *, title: str) -> bytes:
    """Return a PNG of the devices' time by cause: over the run, and as shares of the whole.

    Args:
        goodput: the time line.
        title: stands above the picture.
    """
    figure, canvas = _figure(height=4.2)
    over_time, shares = figure.subplots(2, 1, height_ratios=[5, 1])
    unit, name = _unit(goodput.wall_seconds)
    fractions = goodput.fractions()
    shown = [cause for cause in CAUSES if fractions[cause] > 0]

    edges, columns = _columns(goodput)
    floor = [0.0] * _COLUMNS
    for cause in shown:
        width = (edges[1] - edges[0]) / unit
        left = [(edge - goodput.began_at) / unit for edge in edges[:-1]]
        over_time.bar(
            left, columns[cause], width, bottom=floor, align="edge", color=_COLORS[cause], linewidth=0
        )
        floor = [below + value for below, value in zip(floor, columns[cause], strict=True)]
    for number, started_at in goodput.attempts:
        if number > 1:
            place = (started_at - goodput.began_at) / unit
            over_time.axvline(place, color="black", linewidth=0.8, linestyle=":")
            over_time.annotate(
                f"attempt {number}",
                (place, goodput.devices),
                xytext=(0, 2),
                textcoords="offset points",
                ha="center",
                fontsize=7,
            )
    over_time.set_xlim(0, max(goodput.wall_seconds / unit, 1e-9))
    over_time.set_ylim(0, goodput.devices)
    over_time.yaxis.get_major_locator().set_params(integer=True)
    over_time.set_xlabel(name)
    over_time.set_ylabel("devices")
    over_time.set_title(
        f"{title}: {fractions['useful']:.1%} useful of {goodput.wall_seconds / unit:,.1f} {name} × "
        f"{goodput.devices} device{'s' if goodput.devices > 1 else ''}",
        loc="left",
        pad=14,
    )

    left_edge = 0.0
    for cause in shown:
        label = f"{cause.replace('_', ' ')} {fractions[cause]:.1%}"
        shares.barh(0, fractions[cause], left=left_edge, color=_COLORS[cause], label=label)
        left_edge += fractions[cause]
    shares.set_xlim(0, 1)
    shares.axis("off")
    if shown:
        shares.legend(frameon=False, loc="upper center", bbox_to_anchor=(0.5, 0.0), ncols=5, fontsize=8)
    for side in ("top", "right"):
        over_time.spines[side].set_visible(False)
    return _png(canvas)


def _kept_and_lost(
    points: Sequence[tuple[int, float]],
) -> tuple[list[tuple[int, float]], list[list[tuple[int, float]]]]:
    """Return the curve that the run ended with, and the pieces that were left when it went back."""
    kept: list[tuple[int, float]] = []
    lost: list[list[tuple[int, float]]] = []
    for step, value in points:
        again = [point for point in kept if point[0] >= step]
        if again:
            kept = kept[: len(kept) - len(again)]
            # The point where the curves part belongs to both.
            lost.append([*kept[-1:], *again])
        kept.append((step, value))
    return kept, lost


def _columns(goodput: Goodput) -> tuple[list[float], dict[Cause, list[float]]]:
    """Return the edges of equal stretches of time, and the mean devices of each cause in each of them."""
    import numpy as np

    edges = np.linspace(goodput.began_at, goodput.ended_at, _COLUMNS + 1)
    seconds = max(goodput.wall_seconds / _COLUMNS, 1e-9)
    columns = {}
    for cause in CAUSES:
        spans = [span for span in goodput.spans if span.cause == cause]
        # Device-seconds spent on the cause up to each moment: a broken line, read at the edges.
        moments = np.array([moment for span in spans for moment in (span.began_at, span.ended_at)])
        spent = np.array([(span.ended_at - span.began_at) * span.devices for span in spans])
        values = np.repeat(np.cumsum(np.concatenate([[0.0], spent])), 2)[1:-1]
        columns[cause] = (
            (np.diff(np.interp(edges, moments, values)) / seconds).tolist() if spans else [0.0] * _COLUMNS
        )
    used = np.sum([columns[cause] for cause in CAUSES if cause != "idle"], axis=0)
    columns["idle"] = np.maximum(goodput.devices - used, 0.0).tolist()
    return edges.tolist(), columns


def _unit(seconds: float) -> tuple[float, str]:
    if seconds < 3 * _MINUTE:
        return 1.0, "seconds"
    return (_MINUTE, "minutes") if seconds < 3 * _HOUR else (_HOUR, "hours")


def _figure(*, height: float) -> tuple[Figure, Any]:
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(8, height), layout="constrained")
    return figure, FigureCanvasAgg(figure)


def _png(canvas: Any) -> bytes:
    buffer = io.BytesIO()
    canvas.print_png(buffer, metadata={"Software": None})
    return buffer.getvalue()
