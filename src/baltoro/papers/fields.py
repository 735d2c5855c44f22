"""Small conversions that JSON readers and metadata tables share: names, years, DOIs, labels.

Sources write the same fact in many shapes (a year as ``"2011-11"``, an author as a dict of parts);
each function takes any value and returns the one shape of the schema, or its empty value.
"""

from __future__ import annotations

import re
from typing import Any

_YEAR = re.compile(r"(?<!\d)(1[5-9]\d\d|20\d\d)(?!\d)")
_DOI = re.compile(r"10\.\d{4,9}/\S+")
_HEADING_NUMBER = re.compile(
    r"^(\d{1,3}(?:\.\d{1,3})*|[A-Z](?:\.\d{1,3})+|[IVX]{1,5}(?=\.)|[A-Z](?=\.))\.?[\s:]+(?=\S)"
)
_LABEL = re.compile(
    r"^\s*(?P<label>(?P<kind>fig(?:ure|\.)?|tab(?:le|\.)?|scheme|plate|algorithm|box)\s*"
    r"(?P<number>[A-Z]?\d+(?:\.\d+)?[a-z]?|[IVX]+))\s*(?:[.:|]|[–—-]\s)?\s*(?=\S|$)",
    re.IGNORECASE,
)


def text_of(value: Any) -> str:
    """Return a string value without outer white space, numbers as text, anything else as ``""``."""
    if isinstance(value, str):
        return value.strip()
    if isinstance(value, (int, float)) and not isinstance(value, bool):
        return str(value)
    return ""


def year_of(value: Any) -> int | None:
    """Return the first year between 1500 and 2099 in a number, a date or a text."""
    if type(value) is int and 1500 <= value <= 2099:
        return value
    if not value:
        return None
    match = _YEAR.search(text_of(value))
    return int(match.group(1)) if match else None


def doi_of(value: Any) -> str | None:
    """Return a bare DOI (``10.…/…``) from a DOI, a DOI address, or a list whose first item is one."""
    if isinstance(value, (list, tuple)):
        value = value[0] if value else None
    if not value:
        return None
    match = _DOI.search(text_of(value))
    return match.group().rstrip(".,;") if match else None


def person_of(value: Any) -> str:
    """Return ``"Given Surname"`` from a name or a dict of its parts (``first, middle, last`` …)."""
    if not isinstance(value, dict):
        return _one_line(text_of(value))
    get = value.get
    name = get("name")
    if name:
        parts = [name]
    else:
        parts = [get("first") or get("given"), get("last") or get("family")]
        middle = get("middle")
        if middle:
            parts[1:1] = middle if isinstance(middle, list) else [middle]
    suffix = get("suffix")
    if suffix:
        parts.append(suffix)
    return _one_line(" ".join([part for part in parts if part and isinstance(part, str)]))


def _one_line(text: str) -> str:
    # No space but the plain one is printable, so there is nothing to replace within such a text.
    if text.isprintable() and "  " not in text:
        return text.strip()
    return " ".join(text.split())


def people_of(value: Any) -> list[str]:
    """Return a list of names from a list, or from one text that separates them by ``;`` or ``,``.

    A comma separates names only where every part has a space: "Ada Moss, Li Wei" are two people,
    "Moss, A." is one.
    """
    if isinstance(value, str):
        separator = ";" if ";" in value else ","
        parts = [part.strip() for part in value.split(separator)]
        if separator == "," and not all(" " in part for part in parts):
            parts = [value]
        value = parts
    names = [person_of(item) for item in value] if isinstance(value, (list, tuple)) else []
    return [name for name in names if name]


def words_of(value: Any) -> list[str]:
    """Return keywords from a list, or from one text that separates them by ``;`` or ``,``."""
    if isinstance(value, str):
        value = value.split(";" if ";" in value else ",")
    words = [text_of(item) for item in value] if isinstance(value, (list, tuple)) else []
    return [word for word in words if word]


def split_heading(text: str) -> tuple[str | None, str]:
    """Return ``(number, heading)`` of a printed heading: ``"2.1 Data"`` gives ``("2.1", "Data")``."""
    text = " ".join(text.split())
    match = _HEADING_NUMBER.match(text)
    return (match.group(1), text[match.end() :]) if match else (None, text)


def level_of_number(number: str | None) -> int:
    """Return the depth that a section number states: ``"2.1"`` is 2; 1 without a number."""
    return min(number.count(".") + 1, 6) if number else 1


def split_label(caption: str) -> tuple[str | None, str]:
    """Return ``(label, rest)`` of a caption: ``"FIGURE 1 | Map."`` gives ``("FIGURE 1", "Map.")``."""
    match = _LABEL.match(caption)
    return (" ".join(match.group("label").split()), caption[match.end() :]) if match else (None, caption)


def label_key(label: str | None) -> tuple[str, str] | None:
    """Return what makes two spellings of a label the same thing: ``"Fig. 2"`` gives ``("fig", "2")``."""
    match = _LABEL.match(label or "")
    return (match.group("kind")[:3].lower(), match.group("number").lower()) if match else None
