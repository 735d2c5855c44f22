"""The lines of a text, and where the next one stands that can close a construct."""

from __future__ import annotations

import re
from bisect import bisect_left

_LONG_LINE_CHARACTERS = 20_000
_CONSTRUCT_END = re.compile(r"\\\]|\\end\{[a-z]+\*?\}|-->|```|</table>|\$\$", re.I)


class Lines(list[str]):
    """The lines of a text, very long ones broken after each construct that a line may go on behind.

    Going on behind a construct means to copy the rest of the line; on a line of megabytes that would
    cost quadratic time.
    """

    def __init__(self, text: str) -> None:
        lines = text.split("\n")
        if len(text) > _LONG_LINE_CHARACTERS and max(map(len, lines)) > _LONG_LINE_CHARACTERS:
            broken: list[str] = []
            for line in lines:
                broken.extend(
                    _CONSTRUCT_END.sub("\\g<0>\n", line).split("\n")
                    if len(line) > _LONG_LINE_CHARACTERS
                    else [line]
                )
            lines = broken
        super().__init__(lines)
        self._with: dict[str, list[int]] = {}

    def next_with(self, needle: str, start: int) -> int | None:
        """Return the index of the first line from ``start`` on that contains ``needle``, else ``None``.

        Each needle is indexed once, at its first use: a line changed later is not looked at again.
        """
        found = self._with.get(needle)
        if found is None:
            found = self._with[needle] = [index for index, line in enumerate(self) if needle in line]
        place = bisect_left(found, start)
        return found[place] if place < len(found) else None
