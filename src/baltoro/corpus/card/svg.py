"""Shapes and texts of a picture as SVG.

Texts stay texts, so that names in any script are drawn with the reader's fonts and can be selected. A
picture is a whole SVG file that also stands inline in a page: no identifiers, no style sheet, no links.
"""

from __future__ import annotations

import html
import re
import unicodedata
from collections.abc import Iterable, Sequence

KEPT = "#3b6ea5"
REJECTED = "#b8544e"
DUPLICATE = "#c8912f"
NEUTRAL = "#7d8b99"
INK = "#222222"
MUTED = "#5c6670"
GRID = "#d9dee3"

# XML 1.0 has no way to write these, not even as references.
_NOT_XML = re.compile("[^\t\n\r\u0020-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")


def escape(text: str) -> str:
    """Return a text as XML and HTML both write it; characters that XML forbids become ``�``."""
    return html.escape(_NOT_XML.sub("�", text))


def width_of(text: str) -> int:
    """Return how many columns a text takes: wide East Asian characters take two."""
    return sum(2 if unicodedata.east_asian_width(character) in "WF" else 1 for character in text)


def clip(text: str, columns: int) -> str:
    """Return a text of at most so many columns; a longer one is cut and ends in ``…``."""
    if width_of(text) <= columns:
        return text
    kept = ""
    for character in text:
        if width_of(kept + character) > columns - 1:
            break
        kept += character
    return kept.rstrip() + "…"


def percent(fraction: float) -> str:
    """Return a share in per cent."""
    return "<0.1 %" if 0 < fraction < 0.0005 else f"{100 * fraction:.1f} %"


def number(value: float) -> str:
    """Return a coordinate, rounded so that the same picture has the same bytes."""
    return f"{value:.1f}".removesuffix(".0")


def rect(
    x: float, y: float, width: float, height: float, fill: str, *, title: str = "", rounded: float = 0
) -> str:
    """Return a rectangle; ``title`` is shown when it is pointed at."""
    shape = (
        f'<rect x="{number(x)}" y="{number(y)}" width="{number(max(width, 0.1))}" '
        f'height="{number(max(height, 0.1))}" fill="{fill}"'
    )
    if rounded:
        shape += f' rx="{number(rounded)}"'
    return f"{shape}><title>{escape(title)}</title></rect>" if title else f"{shape}/>"


def line(points: Sequence[float], *, stroke: str = GRID, width: float = 1) -> str:
    """Return a line from ``points[0:2]`` to ``points[2:4]``."""
    x1, y1, x2, y2 = (number(value) for value in points)
    return f'<line x1="{x1}" y1="{y1}" x2="{x2}" y2="{y2}" stroke="{stroke}" stroke-width="{number(width)}"/>'


def text(
    x: float, y: float, content: str, *, anchor: str = "start", fill: str = INK, bold: bool = False
) -> str:
    """Return a text with its base line at ``y``; ``anchor`` is ``start``, ``middle`` or ``end``."""
    weight = ' font-weight="600"' if bold else ""
    return (
        f'<text x="{number(x)}" y="{number(y)}" text-anchor="{anchor}" fill="{fill}"{weight}>'
        f"{escape(content)}</text>"
    )


def ribbon(start: Sequence[float], end: Sequence[float], fill: str, *, title: str) -> str:
    """Return a band between two vertical edges, its sides curved.

    Args:
        start: x, top and bottom of the left edge.
        end: the same of the right edge.
        fill: colour.
        title: shown when it is pointed at.
    """
    x0, top0, bottom0 = start
    x1, top1, bottom1 = end
    middle = (x0 + x1) / 2
    upper = " ".join(number(v) for v in (middle, top0, middle, top1, x1, top1))
    lower = " ".join(number(v) for v in (middle, bottom1, middle, bottom0, x0, bottom0))
    path = f"M{number(x0)} {number(top0)}C{upper}L{number(x1)} {number(bottom1)}C{lower}Z"
    # The outline keeps a band visible where it is thinner than a pixel.
    return (
        f'<path d="{path}" fill="{fill}" fill-opacity="0.38" stroke="{fill}" stroke-opacity="0.45" '
        f'stroke-width="0.7"><title>{escape(title)}</title></path>'
    )


def picture(width: float, height: float, title: str, shapes: Iterable[str]) -> str:
    """Return a whole SVG file.

    Args:
        width: of the drawing, in the units of its shapes; a viewer scales it.
        height: likewise.
        title: what is to be seen, for those who cannot see it.
        shapes: in the order in which they cover each other.
    """
    label = escape(title)
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {number(width)} {number(height)}" '
        f'width="{number(width)}" height="{number(height)}" role="img" aria-label="{label}" '
        f"font-family=\"system-ui, -apple-system, 'Segoe UI', 'Noto Sans', sans-serif\" font-size=\"13\">"
        f"<title>{label}</title>{rect(0, 0, width, height, '#ffffff')}\n" + "\n".join(shapes) + "\n</svg>\n"
    )
