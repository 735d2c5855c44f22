"""A model's review of one paper for people: as text for a terminal, and as a page for the browser.

Paper and review come from elsewhere, so everything on the page is escaped; the page needs no network and runs
nothing.
"""

from __future__ import annotations

import functools
import textwrap
from importlib import resources
from typing import TYPE_CHECKING

from baltoro.instructions.reviews.aspects import ASPECTS
from baltoro.instructions.reviews.service import PaperReview, printable

if TYPE_CHECKING:
    from jinja2 import Template

_WIDTH = 100


def review_text(found: PaperReview) -> str:
    """Return a review as text: each aspect with its points, then what was not read of the response.

    A response without any review is given as it came.
    """
    if not found.found:
        return printable(found.response)
    lines = [printable(found.title) or found.paper_id, ""]
    for aspect in ASPECTS:
        lines.append(aspect)
        points = found.review.of(aspect)
        for gist, detail in points.items():
            lines += _point(printable(gist), printable(detail))
        lines += [] if points else ["  (nothing)"]
        lines.append("")
    if found.unparsed:
        lines += ["Unparsed", *printable(found.unparsed).split("\n"), ""]
    return "\n".join(lines[:-1])


def _point(gist: str, detail: str) -> list[str]:
    said = f"{gist}: {detail}" if gist and detail else gist or detail
    first, *more = said.split("\n")
    # Words longer than a line, such as formulas, stay whole, so that they can be copied.
    wrap = functools.partial(textwrap.wrap, width=_WIDTH, break_long_words=False, break_on_hyphens=False)
    lines = wrap(first, initial_indent="  - ", subsequent_indent="    ") or ["  -"]
    return lines + [f"    {line}" for line in more]


def review_page(found: PaperReview, *, reviewed_on: str) -> str:
    """Return a review as one page.

    Args:
        found: the review.
        reviewed_on: date, as it is to be shown.
    """
    return _template().render(
        title=printable(found.title) or found.paper_id,
        uri=printable(found.uri),
        model=printable(found.model),
        reviewed_on=reviewed_on,
        shown_tokens=f"{found.prompt.shown.input_tokens:,}",
        cut=found.prompt.cut_sentence,
        finished=found.finished,
        taught=found.taught,
        found=found.found,
        aspects=[
            (aspect, [(printable(gist), printable(detail)) for gist, detail in points.items()])
            for aspect, points in zip(ASPECTS, found.review.points, strict=True)
        ],
        unparsed=printable(found.unparsed),
    )


@functools.cache
def _template() -> Template:
    from jinja2 import Environment, StrictUndefined

    text = resources.files("baltoro.instructions.reviews").joinpath("review.html.jinja").read_text("utf-8")
    environment = Environment(
        autoescape=True, trim_blocks=True, lstrip_blocks=True, undefined=StrictUndefined
    )
    return environment.from_string(text)
