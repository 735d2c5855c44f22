"""What a text-like format is first split into: raw blocks, not yet told apart by their meaning."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from baltoro.papers.schema import Inline

Dialect = Literal["nougat", "markdown", "plain"]
RawKind = Literal["heading", "paragraph", "item", "code", "formula", "table", "figure", "note"]


@dataclass(slots=True)
class RawBlock:
    """A block as the text has it, before captions, references and sections are told apart.

    ``level`` is the heading's depth (1 to 6) or the item's nesting (from 0); ``marker`` the printed list
    marker, equation number or note mark; ``inlines`` are set where the source already separates spans.
    """

    kind: RawKind
    text: str = ""
    level: int = 0
    marker: str | None = None
    cells: list[list[str]] = field(default_factory=list)
    inlines: list[Inline] | None = None
