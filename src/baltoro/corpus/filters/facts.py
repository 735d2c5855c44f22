"""What rules know of a paper besides its scores: what it says of itself, and the language it was found in."""

from __future__ import annotations

from dataclasses import dataclass

import pyarrow as pa

from baltoro.corpus.filters.language import UNDETERMINED, Language
from baltoro.papers.schema import UNKNOWN_LICENSE, Paper

FACT_SCHEMA = pa.schema(
    [
        ("language", pa.string()),
        ("language_confidence", pa.float32()),
        ("declared_language", pa.string()),
        ("license", pa.string()),
        ("year", pa.int32()),
        ("venue", pa.string()),
    ]
)
"""The columns that rules read beside those of ``SCORE_SCHEMA``."""


@dataclass(frozen=True, slots=True)
class Facts:
    """A row of :data:`FACT_SCHEMA`.

    Attributes:
        language: what the prose was found to be written in; ``und`` if that cannot be told.
        language_confidence: 0 to 1.
        declared_language: what the paper's file says; kept, never believed against the text.
        license: SPDX id, another statement, or ``unknown``.
        year: of publication, ``None`` if not known.
        venue: journal or conference, ``None`` if not known.
    """

    language: str = UNDETERMINED
    language_confidence: float = 0.0
    declared_language: str | None = None
    license: str = UNKNOWN_LICENSE
    year: int | None = None
    venue: str | None = None


def facts_of(paper: Paper, language: Language) -> Facts:
    """Return the facts of a paper whose document was found to be in ``language``."""
    return Facts(
        language=language.code,
        language_confidence=language.confidence,
        declared_language=paper.language,
        license=paper.license,
        year=paper.year,
        venue=paper.venue,
    )
