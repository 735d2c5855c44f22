"""The picture of a training run: its loss curve."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence

from baltoro.train.metrics import LOSS, VALIDATION_LOSS


def loss_curve(history: Sequence[tuple[int, Mapping[str, float]]], *, title: str) -> bytes:
    """Return a PNG of training and validation loss over steps.

    Args:
        history: ``(step, {metric name: value})`` in the order reported; other metrics are left out.
        title: stands above the picture.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(8, 4), layout="constrained")
    canvas = FigureCanvasAgg(figure)
    axes = figure.subplots()
    for name, label, color, marker in (
        (LOSS, "training", "#3b6ea5", ""),
        (VALIDATION_LOSS, "validation", "#c44e52", "o"),
    ):
        points = [(step, metrics[name]) for step, metrics in history if name in metrics]
        if points:
            axes.plot(*zip(*points, strict=True), label=label, color=color, marker=marker)
            axes.annotate(
                f"{points[-1][1]:.3f}", points[-1], xytext=(6, 0), textcoords="offset points", va="center"
            )
    axes.set_xlabel("step")
    axes.set_ylabel("loss (nats per token)")
    axes.set_title(title, loc="left")
    axes.spines[["top", "right"]].set_visible(False)
    if axes.lines:
        axes.legend(frameon=False)
    buffer = io.BytesIO()
    canvas.print_png(buffer, metadata={"Software": None})
    return buffer.getvalue()
