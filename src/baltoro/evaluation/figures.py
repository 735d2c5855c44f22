"""Pictures of the long-context checks."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from baltoro.evaluation.passkey import PasskeyGrid
from baltoro.evaluation.perplexity import Perplexity
from baltoro.evaluation.positions import PositionLosses

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_COLORS = ("#3b6ea5", "#c44e52", "#5aa88f", "#8172b3", "#e0a33e", "#7f5539")


def perplexity_picture(curves: Mapping[str, Mapping[int, Perplexity]], *, title: str) -> bytes:
    """Return a PNG of perplexity over length, a curve each with its interval.

    Args:
        curves: by name (a protocol, a model): perplexities by length.
        title: stands above the picture.
    """
    figure, canvas = _figure(4.0)
    axes = figure.subplots()
    ticks = sorted({length for curve in curves.values() for length in curve})
    for number, (name, curve) in enumerate(curves.items()):
        lengths = sorted(curve)
        points = [curve[length] for length in lengths]
        tokens = sum(point.tokens for point in points)
        _line_with_band(
            axes,
            number,
            lengths,
            [point.perplexity for point in points],
            [(point.low, point.high) for point in points],
            f"{name} ({tokens:,} losses)",
        )
        axes.annotate(
            f"{points[-1].perplexity:.2f}",
            (lengths[-1], points[-1].perplexity),
            xytext=(6, 0),
            textcoords="offset points",
            va="center",
        )
    _length_axis(axes, ticks, "length (tokens)")
    axes.set_ylabel("perplexity")
    _finish(axes, title)
    return _png(canvas)


def positions_picture(curves: Mapping[str, PositionLosses], *, title: str) -> bytes:
    """Return a PNG of the loss over the tokens of context, a curve each with its interval.

    Args:
        curves: by name (a model, a length).
        title: stands above the picture.
    """
    figure, canvas = _figure(4.0)
    axes = figure.subplots()
    ticks: set[int] = set()
    for number, (name, losses) in enumerate(curves.items()):
        # A bucket is one value for all its positions: a step from its first to the next one's first.
        edges = [bucket.first for bucket in losses.buckets] + [losses.length]
        values = [bucket.nats_per_token for bucket in losses.buckets]
        bounds = [(bucket.low, bucket.high) for bucket in losses.buckets]
        _line_with_band(
            axes,
            number,
            edges,
            [*values, values[-1]],
            [*bounds, bounds[-1]],
            f"{name} ({losses.texts:,} texts)",
            step=True,
        )
        ticks |= {edge for edge in edges if edge & (edge - 1) == 0}
    _length_axis(axes, sorted(ticks), "tokens before the predicted one")
    axes.set_ylabel("loss (nats per token)")
    _finish(axes, title)
    return _png(canvas)


def passkey_picture(grid: PasskeyGrid, *, title: str) -> bytes:
    """Return a PNG of the share of keys found, lengths from left to right, depths downwards.

    Args:
        grid: the cells.
        title: stands above the picture.
    """
    lengths = sorted({cell.length for cell in grid.cells})
    depths = sorted({cell.depth for cell in grid.cells})
    found = {(cell.depth, cell.length): cell for cell in grid.cells}
    shares = [[found[depth, length].accuracy for length in lengths] for depth in depths]
    figure, canvas = _figure(1.6 + 0.42 * len(depths))
    axes = figure.subplots()
    image = axes.imshow(shares, vmin=0.0, vmax=1.0, cmap="RdYlGn", aspect="auto")
    for row, depth in enumerate(depths):
        for column, length in enumerate(lengths):
            cell = found[depth, length]
            # The colours of both ends are dark.
            color = "white" if abs(cell.accuracy - 0.5) > 0.4 else "black"
            share = f"{cell.found}/{cell.trials}"
            axes.text(column, row, share, ha="center", va="center", fontsize=8, color=color)
    axes.set_xticks(range(len(lengths)), [f"{length:,}" for length in lengths])
    axes.set_yticks(range(len(depths)), [f"{depth:.0%}" for depth in depths])
    axes.set_xlabel("length (tokens)")
    axes.set_ylabel("depth of the key")
    low, high = grid.interval
    axes.set_title(f"{title}: {grid.accuracy:.0%} found ({low:.0%} to {high:.0%})", loc="left")
    figure.colorbar(image, ax=axes, label="share of keys found")
    return _png(canvas)


def _line_with_band(  # noqa: PLR0917  (a private drawing helper; by position it reads as x, y, band, label)
    axes: Any,
    number: int,
    places: Sequence[float],
    values: Sequence[float],
    bounds: Sequence[tuple[float | None, float | None]],
    label: str,
    *,
    step: bool = False,
) -> None:
    color = _COLORS[number % len(_COLORS)]
    if step:
        axes.plot(places, values, label=label, color=color, drawstyle="steps-post")
    else:
        axes.plot(places, values, label=label, color=color, marker="o")
    if all(low is not None and high is not None for low, high in bounds):
        lows, highs = zip(*bounds, strict=True)
        axes.fill_between(
            places, lows, highs, color=color, alpha=0.15, linewidth=0, step="post" if step else None
        )


def _length_axis(axes: Any, ticks: Sequence[int], label: str) -> None:
    axes.set_xscale("log", base=2)
    axes.set_xticks(ticks, [f"{tick:,}" for tick in ticks], rotation=45 if len(ticks) > 8 else 0)
    axes.minorticks_off()
    axes.set_xlabel(label)


def _finish(axes: Any, title: str) -> None:
    axes.set_title(title, loc="left")
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(frameon=False)


def _figure(height: float) -> tuple[Figure, Any]:
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(8, height), layout="constrained")
    return figure, FigureCanvasAgg(figure)


def _png(canvas: Any) -> bytes:
    buffer = io.BytesIO()
    canvas.print_png(buffer, metadata={"Software": None})
    return buffer.getvalue()
