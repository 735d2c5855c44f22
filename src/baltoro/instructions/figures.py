"""Pictures of an instruction set."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from baltoro.instructions.reviews.long_tail import Histogram

_COLORS = ("#3b6ea5", "#c44e52", "#55a868", "#8172b2")
_HEIGHT_INCHES = 2.6


def lengths_picture(
    histograms: Mapping[str, Histogram], *, title: str, cutoffs_tokens: Sequence[int] = ()
) -> bytes:
    """Return a PNG of length histograms, one below the other, each on its own axis.

    Args:
        histograms: by what they count (``whole example``, ``response``).
        title: stands above the picture.
        cutoffs_tokens: lengths drawn as lines where they lie within an axis.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(8, _HEIGHT_INCHES * max(len(histograms), 1)), layout="constrained")
    canvas = FigureCanvasAgg(figure)
    rows = figure.subplots(max(len(histograms), 1), squeeze=False)[:, 0]
    for index, (axes, (name, histogram)) in enumerate(zip(rows, histograms.items(), strict=False)):
        width = histogram.bin_tokens
        axes.bar(
            [number * width for number in histogram.counts],
            list(histogram.counts.values()),
            width=width * 0.94,
            align="edge",
            color=_COLORS[index % len(_COLORS)],
        )
        last = (max(histogram.counts, default=0) + 1) * width
        for cutoff in cutoffs_tokens:
            if cutoff <= last * 1.25:
                axes.axvline(cutoff, color="#444444", linewidth=0.9, linestyle="--")
                axes.annotate(
                    f"{cutoff:,}", (cutoff, 1.0), xycoords=("data", "axes fraction"), xytext=(0, 2),
                    textcoords="offset points", va="bottom", ha="center", fontsize=8, color="#444444",
                )  # fmt: skip
        median = histogram.quantiles.get("0.5")
        middle = f", median {median:,} tokens" if median is not None else ""
        axes.set_title(f"{name}: {histogram.examples:,} examples{middle}", loc="left", fontsize=10)
        axes.set_ylabel("examples")
        axes.yaxis.get_major_locator().set_params(integer=True)
        axes.xaxis.set_major_formatter("{x:,.0f}")
        axes.spines[["top", "right"]].set_visible(False)
    rows[-1].set_xlabel("tokens")
    figure.suptitle(title, x=0.01, ha="left", fontsize=12)
    buffer = io.BytesIO()
    canvas.print_png(buffer, metadata={"Software": None})
    return buffer.getvalue()
