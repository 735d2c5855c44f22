"""Small work on long texts that several readers share."""

from __future__ import annotations

_SEARCHED_FIRST_CHARACTERS = 32


def collapse(text: str) -> str:
    """Return ``" ".join(text.split())``: every run of white space as one space, none at the ends.

    Most texts have single spaces already, so a list of their words is made only where there is no other way.
    """
    text = text.strip()
    if not text.isprintable():
        for space in ("\n", "\xa0", "\u200a", "\u2009"):
            if space in text:
                text = text.replace(space, " ")
        if not text.isprintable():
            return " ".join(text.split())
    # No space but the plain one is printable. Each turn halves the longest run.
    while "  " in text:
        text = text.replace("  ", " ")
    return text


def find_long(text: str, part: str, start: int) -> int:
    """Return what ``text.find(part, start)`` returns, sooner where the part is long.

    Python prepares the search for a long part, which takes longer than to look for its beginning; that
    tells at once where the part is not in the text or stands at the first place that begins like it.
    """
    found = text.find(part[:_SEARCHED_FIRST_CHARACTERS], start)
    return found if found < 0 or text.startswith(part, found) else text.find(part, found)
