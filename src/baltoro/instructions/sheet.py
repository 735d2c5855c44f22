"""A sample of an instruction set for people to look at: as a spreadsheet, and as a page for the browser.

Both give the same columns, which :mod:`baltoro.instructions.decisions` reads back. Texts come from papers and
files, so a spreadsheet must not take one for a formula (``=HYPERLINK(…)``): such a cell begins with an
apostrophe, which is taken off again when decisions are read. The page needs no network and runs nothing that
stands in a text.
"""

from __future__ import annotations

import csv
import functools
import hashlib
import io
import json
import re
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, fields
from importlib import resources
from typing import TYPE_CHECKING

from baltoro.instructions.example import Example
from baltoro.instructions.formats.dialogue import LABELS

if TYPE_CHECKING:
    from jinja2 import Template

MAX_CELL_CHARACTERS = 32_000
"""Spreadsheets cut or refuse a cell of more than 32,767 characters."""

_DANGEROUS = re.compile(r"'*[ \t\r\n]*[=+\-@\t\r\n|%＝＋－＠]")
_SPEAKERS = {**LABELS, "system": "System", "user": "User", "input": "Input", "assistant": "Assistant"}


@dataclass(frozen=True, slots=True)
class SheetRow:
    """One example to decide on; the fields are the columns.

    Attributes:
        example_id: names the example.
        task: its task.
        instruction: what is asked; of a dialogue or trace everything before the last turn.
        input: the material it is about.
        response: the last turn, which a decision keeps, drops or edits.
        decision: ``keep``, ``drop`` or ``edit``; empty until somebody decides.
        edited_response: what the response should be; with ``edit`` only.
        comment: anything.
        digest: of the example as it is shown; a decision on another state of it is not applied.
    """

    example_id: str
    task: str
    instruction: str
    input: str
    response: str
    decision: str
    edited_response: str
    comment: str
    digest: str


COLUMNS = tuple(field.name for field in fields(SheetRow))
"""The columns of a sheet, in order."""


def review_sheet(examples: Iterable[Example], *, per_task: int, seed: int) -> list[SheetRow]:
    """Return a sample with the same number of examples of each task, by task.

    Who is drawn depends on the example's id and the seed alone; a larger ``per_task`` keeps all of a smaller.

    Args:
        examples: the set.
        per_task: examples of each task, or all where it has fewer.
        seed: another seed draws others.
    """
    drawn: dict[str, list[tuple[bytes, Example]]] = defaultdict(list)
    for example in examples:
        key = hashlib.blake2b(f"{seed}\0{example.example_id}".encode(), digest_size=8).digest()
        drawn[example.task].append((key, example))
    return [
        row_of(example)
        for task in sorted(drawn)
        for _, example in sorted(drawn[task], key=lambda item: (item[0], item[1].example_id))[:per_task]
    ]


def row_of(example: Example) -> SheetRow:
    """Return the row of an example, not yet decided on."""
    *before, last = example.turns
    roles = [turn.role for turn in before]
    if roles in (["user"], ["user", "input"]):
        instruction, material = before[0].text, before[1].text if len(before) > 1 else ""
    else:
        instruction, material = "\n\n".join(f"{_SPEAKERS[turn.role]}: {turn.text}" for turn in before), ""
    digest = example_digest(example)
    return SheetRow(example.example_id, example.task, instruction, material, last.text, "", "", "", digest)


def example_digest(example: Example) -> str:
    """Return a digest of what an example says; it begins with a letter that no number has.

    Spreadsheets read ``12e45…`` as a number and write it back as another.
    """
    turns = json.dumps([[turn.role, turn.text] for turn in example.turns], ensure_ascii=False)
    return "x" + hashlib.blake2b(turns.encode(), digest_size=8).hexdigest()


def sheet_csv(rows: Sequence[SheetRow]) -> bytes:
    """Return rows as CSV in UTF-8 with a byte order mark, as spreadsheet programs want it.

    Long texts are cut for display; the digest is of the whole.
    """
    buffer = io.StringIO()
    writer = csv.writer(buffer, quoting=csv.QUOTE_ALL, lineterminator="\r\n")
    writer.writerow(COLUMNS)
    for row in rows:
        writer.writerow([guarded(_shortened(text)) for text in asdict(row).values()])
    return buffer.getvalue().encode("utf-8-sig")


def sheet_html(rows: Sequence[SheetRow], *, title: str) -> str:
    """Return rows as one page on which they are decided by keyboard; it downloads the decisions as CSV.

    Args:
        rows: as :func:`review_sheet` gives them.
        title: stands above, and names the downloaded file.
    """
    data = json.dumps(
        {"title": title, "columns": COLUMNS, "rows": [asdict(row) for row in rows]}, ensure_ascii=True
    )
    # Within a script element only "<" could end it or begin a comment.
    return _template().render(
        title=title, rows=len(rows), most=MAX_CELL_CHARACTERS, data=data.replace("<", "\\u003c")
    )


@functools.cache
def _template() -> Template:
    from jinja2 import Environment

    text = resources.files("baltoro.instructions").joinpath("sheet.html.jinja").read_text("utf-8")
    return Environment(autoescape=True, trim_blocks=True, lstrip_blocks=True).from_string(text)


def guarded(text: str) -> str:
    """Return a cell that no spreadsheet takes for a formula; :func:`unguarded` takes it back."""
    return f"'{text}" if _DANGEROUS.match(text) else text


def unguarded(cell: str) -> str:
    """Return the text of a cell made by :func:`guarded`; any other cell stays as it is."""
    return cell[1:] if cell.startswith("'") and _DANGEROUS.match(cell) else cell


def _shortened(text: str) -> str:
    # A NUL would make the sheet a binary file to every program.
    text = text.replace("\0", "\ufffd")
    if len(text) <= MAX_CELL_CHARACTERS:
        return text
    return f"{text[:MAX_CELL_CHARACTERS]} … [{len(text) - MAX_CELL_CHARACTERS:,} more characters]"
