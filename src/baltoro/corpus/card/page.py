"""The card's files: one page with everything inline, its figures for programs, its pictures."""

from __future__ import annotations

import functools
import json
import re
from collections.abc import Mapping
from dataclasses import asdict
from importlib import resources
from typing import TYPE_CHECKING, Any

from baltoro.corpus.card.card import DataCard, NameCounts
from baltoro.corpus.card.charts import lengths_picture, years_picture
from baltoro.corpus.card.flow import flow_picture
from baltoro.corpus.card.svg import percent
from baltoro.corpus.decontamination.cut import CONTAMINATED
from baltoro.corpus.documents import DOCUMENT_REASONS
from baltoro.papers.schema import READ_REASONS

if TYPE_CHECKING:
    from jinja2 import Template

_NAMES_SHOWN = 15
_EXCERPT_CHARACTERS = 400
_CONTROL = re.compile("[\x00-\x08\x0b-\x1f\x7f\ufffe\uffff]")


def card_files(card: DataCard) -> dict[str, bytes]:
    """Return the card's files by name: ``index.html``, ``card.json``, and a picture per ``.svg``."""
    pictures = {
        "flow.svg": flow_picture(card),
        "lengths.svg": lengths_picture(card),
        "years.svg": years_picture(card),
    }
    return {
        "index.html": render_html(card, pictures).encode(),
        "card.json": json.dumps(asdict(card), indent=2, ensure_ascii=False).encode(),
        **{name: picture.encode() for name, picture in pictures.items()},
    }


def render_html(card: DataCard, pictures: Mapping[str, str]) -> str:
    """Return the card as one self-contained HTML page.

    Args:
        card: the figures.
        pictures: SVG by file name, as :func:`card_files` writes them.
    """
    from markupsafe import Markup

    return _template().render(
        card=card,
        # The pictures escape the texts in them themselves.
        picture={name.removesuffix(".svg"): Markup(svg) for name, svg in pictures.items()},
        meanings=READ_REASONS | DOCUMENT_REASONS,
        contaminated=CONTAMINATED,
        names=[
            ("Languages", "language", card.languages.head(_NAMES_SHOWN)),
            ("Venues", "venue", card.venues.head(_NAMES_SHOWN)),
            ("Licences", "license", card.licenses.head(_NAMES_SHOWN)),
            ("Formats read", "format", card.formats.head(_NAMES_SHOWN)),
        ],
        sizes=size_classes(card.cluster_sizes),
        bars=bars,
        name_bars=name_bars,
    )


@functools.cache
def _template() -> Template:
    from jinja2 import Environment

    environment = Environment(
        autoescape=True, trim_blocks=True, lstrip_blocks=True, finalize=_without_control_characters
    )
    environment.filters |= {"count": _count, "excerpt": _excerpt, "percent": percent, "words": _words}
    text = resources.files("baltoro.corpus.card").joinpath("page.html.jinja").read_text("utf-8")
    return environment.from_string(text)


def bars(counts: Mapping[str, int], total: int | None = None) -> list[dict[str, Any]]:
    """Return one bar per name: label, count, length in per cent of the longest, share of ``total``."""
    longest = max(counts.values(), default=0)
    whole = sum(counts.values()) if total is None else total
    return [
        {
            "label": label,
            "count": count,
            # The thinnest bar is still seen; without any papers there is none.
            "width": round(max(100 * count / longest, 0.5), 1) if count else 0,
            "share": count / whole if whole else 0.0,
        }
        for label, count in counts.items()
    ]


def name_bars(names: NameCounts) -> list[dict[str, Any]]:
    """Return the bars of names, with those of others and of papers without a name last."""
    rows = dict(names.counts)
    # A name of a paper may read like one of ours; these are told apart by their place and style.
    own = []
    if names.others:
        own.append(("others" if names.other_names is None else f"{names.other_names:,} others", names.others))
    if names.not_stated:
        own.append(("not stated", names.not_stated))
    total = sum(rows.values()) + sum(count for _, count in own)
    drawn = bars({**{f"n{name}": count for name, count in rows.items()}, **dict(own)}, total)
    for place, row in enumerate(drawn):
        row["own"] = place >= len(rows)
        row["label"] = row["label"] if row["own"] else row["label"][1:]
    return drawn


def size_classes(sizes: Mapping[int, int]) -> dict[str, int]:
    """Return the number of groups of copies by size class: 2, 3, 4, 5–8, 9–16 documents, and so on.

    Args:
        sizes: number of groups by number of copies; the document that stays is one more.
    """
    classes: dict[tuple[int, int], int] = {}
    for copies, groups in sizes.items():
        documents = copies + 1
        power = (documents - 1).bit_length()
        bounds = (documents, documents) if documents <= 4 else (2 ** (power - 1) + 1, 2**power)
        classes[bounds] = classes.get(bounds, 0) + groups
    return {
        f"{low}" if low == high else f"{low:,}–{high:,}": groups
        for (low, high), groups in sorted(classes.items())
    }


def _without_control_characters(value: Any) -> Any:
    # HTML allows none of these; a browser would show nothing or stop.
    return _CONTROL.sub("�", value) if type(value) is str else value


def _count(value: float) -> str:
    return f"{value:,.0f}"


def _words(name: str) -> str:
    return name.replace("_", " ")


def _excerpt(text: str | None) -> str:
    text = (text or "").strip()
    return text if len(text) <= _EXCERPT_CHARACTERS else text[:_EXCERPT_CHARACTERS].rstrip() + " …"
