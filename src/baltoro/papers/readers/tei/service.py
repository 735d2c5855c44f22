"""Error messages that the parsing service sent in place of a document."""

from __future__ import annotations

import json
import re
from typing import Final

_GROBID_STATUS = re.compile(rb"\[[A-Z][A-Z_]+\]")
_ERROR_KEYS: Final = frozenset({"error", "errors", "message", "code", "status", "description", "detail"})


def service_error(data: bytes) -> str | None:
    """Return the message of an error that the parsing service sent in place of a document, or ``None``.

    Such answers are saved under the name of the paper by batch clients: an HTML page, a JSON object with
    ``message`` or ``error``, an XML ``<Error>``, or GROBID's own line ``[STATUS] explanation``.
    """
    start = data[:2048].lstrip(b"\xef\xbb\xbf \t\r\n")
    lowered = start[:64].lower()
    if lowered.startswith((b"<!doctype html", b"<html")):
        title = re.search(rb"<title[^>]*>(.*?)</title>", data[:65536], re.IGNORECASE | re.DOTALL)
        return "an HTML page" + (f" titled {_excerpt(title.group(1))!r}" if title else "")
    if start.startswith(b"{") and len(data) < 65536:
        try:
            answer = json.loads(data)
        except (ValueError, RecursionError):
            return None
        if isinstance(answer, dict) and len(answer) <= 10 and not _ERROR_KEYS.isdisjoint(answer):
            return f"a JSON answer: {_excerpt(data)}"
    if _GROBID_STATUS.match(start):
        return f"a status line: {_excerpt(start)}"
    return None


def _excerpt(data: bytes) -> str:
    return " ".join(data[:400].decode("utf-8", "replace").split())[:200]
