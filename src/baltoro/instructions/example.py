"""What an instruction example is: one record type and one Arrow schema for every way of making them.

An example is a dialogue. Signals and reviews have one instruction with its material and one response; chats
have several turns; tool traces have thoughts and calls between question and answer. How it is written for a
model (Alpaca, a chat template, ReAct) and what of it is learned is decided later, by
:mod:`baltoro.instructions.formats`, so one set of examples serves any model.

>>> example = Example("geo/p1#title_from_abstract", "title_from_abstract", "signals", "geo/p1")
>>> example.turns += [Turn("user", "Give a title."), Turn("input", "Melt rises …"), Turn("assistant", "Melt")]
>>> example.text("assistant")
'Melt'
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any, Literal, get_args

import pyarrow as pa

Role = Literal[
    "system", "user", "input", "assistant", "thought", "action", "action_input", "observation", "final_answer"
]
"""Who speaks a turn.

``user`` is the instruction (or a person's turn in a chat), ``input`` the material that the instruction is
about (Alpaca's input; one per instruction, right after it), ``assistant`` the response. The last five are the
steps of a tool trace, in the words of ReAct (arXiv:2210.03629).
"""

ROLES: tuple[str, ...] = get_args(Role)


@dataclass(slots=True)
class Turn:
    """What one side says, without any markup of a template."""

    role: Role
    text: str


@dataclass(slots=True)
class Example:
    """One dialogue to learn from.

    Attributes:
        example_id: unique in an instruction set and stable when it is built again: ``{origin}#{task}`` with
            ``.{number}`` where a task makes several of one origin.
        task: what is asked, in snake case (``title_from_abstract``, ``review``).
        source: the part of the recipe that made it: ``signals``, ``knowledge``, ``reviews`` or ``files``.
        origin: ``paper_id`` of the paper it is made of, or the key of a record of knowledge; examples of one
            origin stand in one split.
        turns: in order; the last one is the assistant's or a final answer.
        template: which paraphrase of the task's template, ``None`` where there is none.
    """

    example_id: str
    task: str
    source: str
    origin: str
    turns: list[Turn] = field(default_factory=list)
    template: int | None = None

    def text(self, role: Role) -> str:
        """Return what the given role says, turns joined with a blank line; empty if it says nothing."""
        return "\n\n".join(turn.text for turn in self.turns if turn.role == role)


_TURN = pa.struct([("role", pa.string()), ("text", pa.string())])

EXAMPLE_SCHEMA = pa.schema(
    [
        ("example_id", pa.string()),
        ("task", pa.string()),
        ("source", pa.string()),
        ("origin", pa.string()),
        ("turns", pa.list_(_TURN)),
        ("template", pa.int16()),
    ]
)
"""The one Arrow schema of examples."""


def examples_to_table(examples: Iterable[Example]) -> pa.Table:
    """Return examples as an Arrow table in :data:`EXAMPLE_SCHEMA`."""
    return pa.Table.from_pylist([example_to_dict(example) for example in examples], schema=EXAMPLE_SCHEMA)


def examples_from_table(table: pa.Table) -> list[Example]:
    """Return the examples of an Arrow table in :data:`EXAMPLE_SCHEMA`, in row order."""
    return [example_from_dict(row) for row in table.select(EXAMPLE_SCHEMA.names).to_pylist()]


def example_to_dict(example: Example) -> dict[str, Any]:
    """Return an example as plain dicts and lists."""
    record = {name: getattr(example, name) for name in EXAMPLE_SCHEMA.names}
    record["turns"] = [{"role": turn.role, "text": turn.text} for turn in example.turns]
    return record


def example_from_dict(record: dict[str, Any]) -> Example:
    """Return the example of a record made by :func:`example_to_dict` or read from Arrow."""
    return Example(**{**record, "turns": [Turn(**turn) for turn in record["turns"]]})
