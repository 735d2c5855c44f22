"""Instruction sets as JSONL that other tools read: the Alpaca and the messages layout.

An example is written only where reading the record back gives the same example; another one (a tool trace
in the Alpaca layout) is a reject. What a layout has no place for stands under one key, ``baltoro``: the
names, the split, and where in a message a second turn begins. Tools leave it aside; it can be left out.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

from baltoro.core.errors import InputError
from baltoro.core.storage import Storage
from baltoro.instructions.example import Example
from baltoro.instructions.formats.dialogue import ExampleReject
from baltoro.instructions.layouts import ENDS_KEY, NAMES_KEY, example_of
from baltoro.papers.schema import Reject

ExportLayout = Literal["alpaca", "messages"]
"""How exported records are laid out."""

STAGE = "export"
"""The stage of every reject of this module."""

_BREAK = "\n\n"


@dataclass(frozen=True, slots=True)
class ExportCounts:
    """What became of the examples of an export.

    Attributes:
        written: lines of the file.
        rejects: examples that the layout cannot hold.
    """

    written: int
    rejects: tuple[Reject, ...]


def export_examples(
    examples: Iterable[Example],
    layout: ExportLayout,
    uri: str,
    storage: Storage | None = None,
    *,
    names: bool = True,
    splits: Mapping[str, str] | None = None,
) -> ExportCounts:
    """Write examples as JSON lines, in their order.

    Args:
        examples: what to write.
        layout: how.
        uri: the file.
        storage: where it is reached.
        names: whether each record keeps the key ``baltoro``.
        splits: the split of each example by its id, which is written among the names.

    Raises:
        InputError: there is nothing to write; the file is left as it is.
    """
    records, rejects = to_records(examples, layout, names=names, splits=splits)
    if not records:
        why = f"the layout {layout} can hold none of {len(rejects)} examples" if rejects else "there is none"
        raise InputError(f"{uri}: no example to write ({why}); choose other parts or another layout")
    lines = "".join(f"{json.dumps(record, ensure_ascii=False)}\n" for record in records)
    (storage or Storage()).write_bytes(uri, lines.encode())
    return ExportCounts(len(records), tuple(rejects))


def to_records(
    examples: Iterable[Example],
    layout: ExportLayout,
    *,
    names: bool = True,
    splits: Mapping[str, str] | None = None,
) -> tuple[list[dict[str, Any]], list[Reject]]:
    """Return the records of examples, and rejects of the reason ``layout_cannot_hold``; see above."""
    records: list[dict[str, Any]] = []
    rejects: list[Reject] = []
    for example in examples:
        record = _alpaca(example) if layout == "alpaca" else _messages(example)
        if not _is_same(example, record, layout):
            detail = f"{example.example_id}: its turns cannot be told apart in the layout {layout}"
            rejects.append(Reject(example.origin, "", STAGE, "layout_cannot_hold", detail))
            continue
        if not names:
            del record[NAMES_KEY]
        elif splits is not None:
            record[NAMES_KEY]["split"] = splits[example.example_id]
        records.append(record)
    return records, rejects


def _is_same(example: Example, record: dict[str, Any], layout: ExportLayout) -> bool:
    try:
        return example_of(record, layout, name=example.source, key=example.origin) == example
    except ExampleReject:
        return False


def _names(example: Example) -> dict[str, Any]:
    return {
        "example_id": example.example_id,
        "task": example.task,
        "source": example.source,
        "origin": example.origin,
        "template": example.template,
    }


def _alpaca(example: Example) -> dict[str, Any]:
    turns = list(example.turns)
    record: dict[str, Any] = {"instruction": "", "input": "", "output": ""}
    if turns and turns[0].role == "system":
        record["system"] = turns.pop(0).text
    if turns:
        record["output"] = turns.pop().text
    if turns and turns[-1].role == "input":
        record["input"] = turns.pop().text
    if turns:
        record["instruction"] = turns.pop().text
    if turns:
        record["history"] = [
            [turns[place].text, turns[place + 1].text] for place in range(0, len(turns) - 1, 2)
        ]
    return {**record, NAMES_KEY: _names(example)}


def _messages(example: Example) -> dict[str, Any]:
    messages: list[dict[str, Any]] = []
    begins: dict[str, int] = {}
    thought: str | None = None
    action: str | None = None
    for turn in example.turns:
        match turn.role:
            case "thought":
                thought = turn.text
            case "action":
                action = turn.text
            case "action_input":
                call = {
                    "id": f"call_{len(messages)}",
                    "type": "function",
                    "function": {"name": action or "", "arguments": turn.text},
                }
                messages.append({"role": "assistant", "content": thought, "tool_calls": [call]})
                thought = action = None
            case "observation":
                last = messages[-1].get("tool_calls") if messages else None
                named = {"tool_call_id": last[0]["id"]} if last else {}
                messages.append({"role": "tool", "content": turn.text, **named})
            case "input" if messages and messages[-1]["role"] == "user":
                head = f"{messages[-1]['content']}{_BREAK}"
                begins[str(len(messages) - 1)] = len(head)
                messages[-1]["content"] = head + turn.text
            case "final_answer" if thought is not None:
                begins[str(len(messages))] = len(thought) + len(_BREAK)
                messages.append({"role": "assistant", "content": f"{thought}{_BREAK}{turn.text}"})
                thought = None
            case "system" | "user" as role:
                messages.append({"role": role, "content": turn.text})
            case _:
                messages.append({"role": "assistant", "content": turn.text})
    names = _names(example) | ({ENDS_KEY: begins} if begins else {})
    return {"messages": messages, NAMES_KEY: names}
