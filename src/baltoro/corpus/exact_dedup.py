"""Exact duplicates: documents whose rendered text is identical, byte for byte."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable

import pyarrow as pa

DUPLICATE_SCHEMA = pa.schema([(name, pa.string()) for name in ("paper_id", "uri", "kept_paper_id", "kind")])
"""One row per document that gave way to another; ``kind`` is ``exact`` here."""


def content_hash(text: str) -> str:
    """Return a 128-bit hash of a document's text, as hex."""
    return hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=16).hexdigest()


def find_exact_duplicates(documents: Iterable[tuple[str, str]]) -> dict[str, str]:
    """Return ``{duplicate paper_id: kept paper_id}``.

    Args:
        documents: pairs of paper_id and content hash, in any order.

    The one kept is the smallest paper_id of its group, whatever the order the documents came in.
    """
    kept: dict[str, str] = {}
    groups: dict[str, list[str]] = {}
    for paper_id, hashed in documents:
        groups.setdefault(hashed, []).append(paper_id)
    for members in groups.values():
        if len(members) > 1:
            first = min(members)
            kept |= {member: first for member in members if member != first}
    return kept
