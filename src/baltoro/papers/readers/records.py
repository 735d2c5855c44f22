"""Rows of general tables: JSONL or Parquet with one document per row in a named text column.

For Wikipedia extracts, books, web pages and other people's corpora. Columns with the names of paper
fields (``title, authors, year, venue, doi, license, language, keywords``) fill them; other short values
(an id, a URL) are kept in ``Paper.extra``.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from baltoro.papers.fields import doi_of, people_of, text_of, words_of, year_of
from baltoro.papers.schema import Paper, ReadReject

FIELD_COLUMNS = frozenset(
    {
        "title", "authors", "author", "year", "venue", "journal", "doi", "license", "licence", "language",
        "lang", "keywords", "article_type",
    }
)  # fmt: skip
"""Columns that fill a field of a paper; :func:`apply_columns` says how."""

_LONGEST_EXTRA = 500


def parse_record(record: Mapping[str, Any], text_column: str) -> Paper:
    """Return the document of one row.

    Args:
        record: the row, by column name.
        text_column: the column that holds the document's text.

    Raises:
        ReadReject: ``malformed_table`` if the row lacks the column or it holds no text type, ``no_text``
            if it is empty.
    """
    from baltoro.papers.readers.plain_text import parse_plain_text

    if text_column not in record:
        present = ", ".join(sorted(record)) or "nothing"
        raise ReadReject("malformed_table", f"lacks the text column {text_column!r}; it has {present}")
    text = record[text_column]
    if text is None or (isinstance(text, str) and not text.strip()):
        raise ReadReject("no_text", f"the text column {text_column!r} is empty")
    if not isinstance(text, str):
        raise ReadReject(
            "malformed_table", f"the text column {text_column!r} holds a {type(text).__name__}, not text"
        )
    paper = parse_plain_text(text)
    columns = {name: value for name, value in record.items() if name != text_column}
    apply_columns(paper, columns, override=True)
    return paper


def apply_columns(paper: Paper, columns: Mapping[str, Any], *, override: bool) -> None:
    """Fill a paper's fields and ``extra`` from the columns of a table.

    Args:
        paper: changed in place.
        columns: one row; empty values are ignored, so a gap in the table never erases anything.
        override: replace what the paper already states; else only fill what is empty or unknown.
    """
    values: dict[str, Any] = {
        "title": text_of(columns.get("title")),
        "authors": people_of(columns.get("authors") or columns.get("author")),
        "year": year_of(columns.get("year")),
        "venue": text_of(columns.get("venue")) or text_of(columns.get("journal")),
        "doi": doi_of(columns.get("doi")),
        "license": text_of(columns.get("license")) or text_of(columns.get("licence")),
        "language": text_of(columns.get("language")) or text_of(columns.get("lang")),
        "keywords": words_of(columns.get("keywords")),
        "article_type": text_of(columns.get("article_type")),
    }
    blank = Paper()
    for name, value in values.items():
        if value and (override or getattr(paper, name) == getattr(blank, name)):
            setattr(paper, name, value)
    for name, value in columns.items():
        text = text_of(value)
        if name not in FIELD_COLUMNS and text and len(text) <= _LONGEST_EXTRA:
            paper.extra[name] = text
