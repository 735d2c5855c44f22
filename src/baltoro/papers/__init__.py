"""Parsed scientific papers: one record type for every parser's output, and how to read it.

:func:`read` takes a file or a folder, local or on S3, and yields a :class:`Paper` or a :class:`Reject`
for every record it finds; formats are told from the content, compressed files, tar archives, JSONL and
Parquet tables are opened on the way:

    from baltoro.papers import Paper, read

    for record in read("examples/papers"):
        if isinstance(record, Paper):
            print(record.paper_id, record.format, record.title)
            for section in record.sections:
                print("  " * section.level + section.heading, len(section.blocks))
        else:
            print(record.paper_id, "rejected:", record.reason, record.detail)

A metadata table beside the files (licence, year, venue) is joined with
``read(folder, metadata=MetadataTableConfig(uri="papers.csv", key="stem"))``; general text comes from a
table's column with ``read("wiki.jsonl.zst", text_column="text")``. A record that cannot be read is never
an exception: ``Reject.reason`` is one of ``schema.READ_REASONS``.

Modules: ``schema`` (what a paper is) · ``detect`` (which format) · ``containers`` (archives and tables) ·
``readers`` (one per format) · ``metadata`` (tables) · ``reader`` (all together) · ``renderers`` (paper to
text).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from baltoro.papers.reader import read
    from baltoro.papers.schema import Paper, Reject

__all__ = ["Paper", "Reject", "read"]

_HOMES = {"Paper": "schema", "Reject": "schema", "read": "reader"}


def __getattr__(name: str) -> Any:
    """Import a public name at its first use: whoever wants one reader or the schema pays for no more."""
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module

    value = getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)
    globals()[name] = value
    return value
