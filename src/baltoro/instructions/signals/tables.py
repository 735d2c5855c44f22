"""Questions about one cell of a table whose rows and columns have clear names."""

from __future__ import annotations

import hashlib
import re
from collections import Counter
from collections.abc import Iterator

from baltoro.instructions.signals.tasks import Candidate
from baltoro.instructions.signals.text import PaperTexts, one_line
from baltoro.papers.schema import Block

_QUESTIONS_PER_TABLE = 2
_LETTER = re.compile(r"[^\W\d_]")
_DIGIT = re.compile(r"\d")
_END = "end of the table"
_LONGEST_NAME = 60
_LONGEST_VALUE = 80
_CONTENT = re.compile(r"[^\W_]")


def table_content(texts: PaperTexts) -> Iterator[Candidate]:
    """Yield tables, as caption and Markdown, with the value of a cell named by its row and column.

    Which cells is drawn by a hash of the table's place and text, so that not all questions are about the
    first ones.
    """
    for number, block in enumerate(block for block in texts.paper.blocks() if block.kind == "table"):
        if not block.cells:
            continue
        header = _one_line_each(block.cells[0])
        width = len(header)
        names = header[1:]
        if (
            width < 2
            or any(len(row) != width for row in block.cells)
            or len(set(names)) < len(names)
            or not all(map(_is_name, names))
        ):
            yield Candidate({}, "unclear_header", " | ".join(header)[:120])
            continue
        rows = [_one_line_each(row) for row in block.cells[1:]]
        if _is_second_header(rows):
            yield Candidate({}, "unclear_header", " | ".join(rows[0])[:120])
            continue
        objects = [row[0] for row in rows]
        times = Counter(objects)
        told_apart = [
            row
            for row, below in zip(rows, [*objects[1:], _END], strict=True)
            # With nothing under its name a row is the first of a group, and the name stands for all of it.
            if below and times[row[0]] == 1 and _is_name(row[0]) and len(set(row)) > 1
        ]
        choices = [
            (row[0], name, value)
            for row in told_apart
            for name, value in zip(names, row[1:], strict=True)
            if _CONTENT.search(value) and len(value) <= _LONGEST_VALUE and value not in (name, row[0])
        ]
        if len(told_apart) < 2 or not choices:
            yield Candidate({}, "unclear_rows", " | ".join(objects)[:120])
            continue
        slots = {"input": _printed(block, texts.caption(block), [header, *rows])}
        for row_name, column, value in _drawn(choices, f"{number}\0{slots['input']}"):
            yield Candidate({**slots, "object": row_name, "key": column, "value": value})


def _one_line_each(row: list[str]) -> list[str]:
    return [one_line(cell or "") for cell in row]


def _is_name(cell: str) -> bool:
    """Return whether a cell can name a row or column: short, in words, not in LaTeX."""
    return len(cell) <= _LONGEST_NAME and "\\" not in cell and _LETTER.search(cell) is not None


def _is_second_header(rows: list[list[str]]) -> bool:
    """Return whether the first row has words alone where the rows below have numbers."""
    numbers = [any(_DIGIT.search(cell) for cell in row[1:]) for row in rows]
    return bool(numbers) and not numbers[0] and 2 * sum(numbers) > len(numbers)


def _drawn(choices: list[tuple[str, str, str]], seed: str) -> list[tuple[str, str, str]]:
    digest = hashlib.blake2b(seed.encode("utf-8", "surrogatepass"), digest_size=8).digest()
    first = int.from_bytes(digest, "big") % len(choices)
    step = len(choices) // _QUESTIONS_PER_TABLE or 1
    places = dict.fromkeys((first + i * step) % len(choices) for i in range(_QUESTIONS_PER_TABLE))
    return [choices[place] for place in places]


def _printed(block: Block, text: str, cells: list[list[str]]) -> str:
    lines = [f"| {' | '.join(row)} |" for row in cells]
    lines.insert(1, "|" + " - |" * len(cells[0]))
    label = one_line(block.label or "").rstrip(".:")
    caption = ". ".join(filter(None, (label, text)))
    return "\n".join([caption, "", *lines] if caption else lines)
