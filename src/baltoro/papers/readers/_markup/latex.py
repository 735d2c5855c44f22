r"""LaTeX among Markdown: environments, displayed formulas and their ``\tag``."""

from __future__ import annotations

import re

from baltoro.papers.readers._markup.blocks import RawBlock
from baltoro.papers.readers._markup.lines import Lines
from baltoro.papers.readers._text import collapse

_TAG = re.compile(r"\\tag\s?\*?\s?\{([^{}]{1,40})\}")
TEX_CHARACTERS = re.compile(r"[\\^_=+<>]")
"""What a formula has and words in brackets do not."""


def formula_block(source: str) -> RawBlock:
    r"""Return a formula block of TeX, the number of its ``\tag`` apart."""
    tag = _TAG.search(source)
    if tag is None:
        return RawBlock("formula", collapse(source))
    label = tag[1].strip()
    return RawBlock(
        "formula",
        collapse(source[: tag.start()] + " " + source[tag.end() :]),
        marker=label if label.startswith("(") else f"({label})",
    )


def environment_end(lines: Lines, first: int, name: str, content_start: int) -> tuple[int, int] | None:
    r"""Return line and column where an environment ends, nothing for a formula that never does.

    The decoder may stop inside a table: one that is not closed before the next one of its kind or a
    heading ends with its paragraph.

    Args:
        lines: the text.
        first: the line in which the environment begins.
        name: what stands in the braces of its ``\begin``.
        content_start: the column behind these.
    """
    closer = f"\\end{{{name}}}"
    found = lines.next_with(closer, first)
    if found is not None:
        again = lines.next_with(f"\\begin{{{name}}}", first + 1)
        if again is None or again >= found:
            between = range(first + 1, found)
            if not any(lines[index].startswith("##") for index in between):
                return found, lines[found].index(closer, content_start if found == first else 0)
    if "tab" not in name:
        return None
    last = first
    while last + 1 < len(lines) and lines[last + 1].strip():
        last += 1
    return last, len(lines[last])
