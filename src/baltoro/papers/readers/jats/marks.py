"""The characters that markup stands for: superscripts, subscripts, and the markers of list items."""

from __future__ import annotations

import re
from functools import lru_cache

_SUPERSCRIPTS = dict(
    zip(
        map(ord, "0123456789+=()abcdefghijklmnoprstuvwxyzABDEGHIJKLMNOPRTUVW"),
        "⁰¹²³⁴⁵⁶⁷⁸⁹⁺⁼⁽⁾ᵃᵇᶜᵈᵉᶠᵍʰⁱʲᵏˡᵐⁿᵒᵖʳˢᵗᵘᵛʷˣʸᶻᴬᴮᴰᴱᴳᴴᴵᴶᴷᴸᴹᴺᴼᴾᴿᵀᵁⱽᵂ",
        strict=True,
    )
)
_SUBSCRIPTS = dict(zip(map(ord, "0123456789+-−=()"), "₀₁₂₃₄₅₆₇₈₉₊₋₋₌₍₎", strict=True))
_WORD_OF_LETTERS = re.compile(r"[^\W\d_]{2}")
_OUTER_DASH = re.compile(r"^[-−–]|[-−–]$")
_LONGEST_REMEMBERED = 16


def raised(text: str, *, with_dashes: bool = False) -> str:
    """Return a superscript as Unicode superscripts, or as it is when it holds words.

    A dash is a minus sign at either end of a whole superscript (``with_dashes``); between numbers it is a
    range.
    """
    if not text:
        return text
    return (_raised_short if len(text) <= _LONGEST_REMEMBERED else _raised)(text, with_dashes)


def _raised(text: str, with_dashes: bool) -> str:
    if _WORD_OF_LETTERS.search(text):
        return text
    if with_dashes:
        text = _OUTER_DASH.sub("⁻", text.strip()) if text.strip() != "–" else text
    return text.translate(_SUPERSCRIPTS)


# A paper has few different superscripts, each many times.
_raised_short = lru_cache(maxsize=4096)(_raised)


def lowered(text: str) -> str:
    """Return a subscript with its digits and signs as Unicode subscripts."""
    return text.translate(_SUBSCRIPTS)


def marker(list_type: str, position: int) -> str:
    """Return what is printed before the item at a position (from 1) of a list; ``""`` for nothing."""
    match list_type:
        case "order":
            return f"{position}."
        case "bullet":
            return "•"
        case "alpha-lower" | "alpha-upper":
            letters = ""
            while position:
                position, remainder = divmod(position - 1, 26)
                letters = chr(ord("a") + remainder) + letters
            return f"{letters if list_type == 'alpha-lower' else letters.upper()}."
        case "roman-lower" | "roman-upper":
            numeral = _roman(position)
            return f"{numeral if list_type == 'roman-lower' else numeral.upper()}."
        case _:
            return ""


def _roman(number: int) -> str:
    values = (1000, "m"), (900, "cm"), (500, "d"), (400, "cd"), (100, "c"), (90, "xc"), (50, "l"), (40, "xl")
    numeral = ""
    for value, letters in (*values, (10, "x"), (9, "ix"), (5, "v"), (4, "iv"), (1, "i")):
        count, number = divmod(number, value)
        numeral += letters * count
    return numeral
