"""Exact duplicates: documents whose rendered text is identical, byte for byte."""

from __future__ import annotations

import hashlib


def content_hash(text: str) -> str:
    """Return a 128-bit hash of a document's text, as hex."""
    return hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=16).hexdigest()
