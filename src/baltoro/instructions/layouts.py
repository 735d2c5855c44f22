"""Records of the usual instruction files to examples.

``alpaca``
    ``instruction``, ``input`` (may be left out) and ``output``; also ``system``, and ``history`` as a list of
    earlier questions with their answers.
``messages``
    OpenAI's ``messages`` with ``role`` and ``content`` (text, or a list of text parts), ``tool_calls`` and
    messages of the role ``tool``.
``sharegpt``
    ``conversations`` with ``from`` and ``value``, ``function_call`` and ``observation`` among them.
``react``
    ``question``, ``steps`` of ``thought``, ``action``, ``action_input`` and ``observation``, and
    ``final_answer``; or ``question`` and ``trace``, the same as labelled lines. Conversations whose assistant
    writes such lines (ToolBench) are read so too.
``baltoro``
    The fields of :class:`~baltoro.instructions.example.Example`.

A key ``baltoro`` beside the layout's own, as :mod:`baltoro.instructions.export` writes it, restores the
names.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from typing import Any, get_args

from baltoro.instructions.example import ROLES, Example, Role, Turn
from baltoro.instructions.formats.dialogue import FORMAT_REASONS, LABELS, ExampleReject, dialogue_of
from baltoro.instructions.formats_config import FileFormat

SOURCE = "files"
NAMES_KEY = "baltoro"
"""The key of a record that holds what its layout has no place for."""
ENDS_KEY = "second_turn_begins_at"
"""Below it: where in a message of two turns (question and material, thought and answer) the second one
begins, as characters by the message's number, both from 0."""

RECORD_REASONS: dict[str, str] = {
    "unknown_layout": "the keys of none of the known layouts",
    "malformed_record": "a key that the layout needs is missing, or is not of its kind",
    "parallel_calls": "an assistant calls several tools at once, which no trace can hold",
    "duplicate_id": "a second example of the same example_id",
    **{reason: FORMAT_REASONS[reason] for reason in ("no_response", "empty_instruction", "turn_order")},
    "empty_response": "the response says nothing",
}
"""Every reason a record is no example for, with its meaning."""

_ROLES: dict[str, Role] = {
    "system": "system",
    "developer": "system",
    "user": "user",
    "human": "user",
    "assistant": "assistant",
    "gpt": "assistant",
    "chatgpt": "assistant",
    "model": "assistant",
    "tool": "observation",
    "function": "observation",
    "observation": "observation",
    "function_call": "action",
}
_STEP_OF_LABEL = {label.casefold(): role for role, label in LABELS.items()}
_LABELLED = re.compile(
    rf"^[ \t]*({'|'.join(sorted(LABELS.values(), key=len, reverse=True))})[ \t]*:[ \t]?", re.I | re.M
)
_NAMES = ("example_id", "task", "source", "origin", "template", "split", ENDS_KEY)
_TASK_KEYS = ("task", "type", "category")
_WORD_BREAK = re.compile(r"[^a-z0-9]+")


def example_of(record: Mapping[str, Any], layout: FileFormat, *, name: str, key: str) -> Example:
    """Return the example of a record.

    Args:
        record: as read.
        layout: how it is laid out; ``auto`` looks at its keys.
        name: of the source; the task of records that name none.
        key: what tells the record from others of the source.

    Raises:
        ExampleReject: it is no example; the reason is one of :data:`RECORD_REASONS`.
    """
    found = layout_of(record) if layout == "auto" else layout
    match found:
        case "baltoro":
            return _checked(_own(record))
        case "alpaca":
            turns = _alpaca(record)
        case "react" if "conversations" not in record and "messages" not in record:
            turns = _react(record)
        case _:
            turns = list(_conversation(record))
    example = Example("", _task(record, name), SOURCE, f"{name}/{key}", turns)
    example.example_id = f"{example.origin}#{example.task}"
    names = record.get(NAMES_KEY)
    if isinstance(names, Mapping):
        if unknown := sorted(str(field) for field in names if field not in _NAMES):
            raise ExampleReject(
                "malformed_record", f"{NAMES_KEY} has the key {unknown[0]!r}; known are {', '.join(_NAMES)}"
            )
        for field in ("example_id", "task", "source", "origin"):
            setattr(example, field, _text(names, field))
        example.template = _template(names)
    return _checked(example)


def layout_of(record: Mapping[str, Any]) -> FileFormat:
    """Return the layout of a record, by its keys.

    Raises:
        ExampleReject: it has none of the known ones.
    """
    if "turns" in record and "example_id" in record:
        return "baltoro"
    if "messages" in record:
        return "messages"
    if "conversations" in record:
        return "sharegpt"
    if "steps" in record or "trace" in record:
        return "react"
    if "instruction" in record and "output" in record:
        return "alpaca"
    layouts = ", ".join(name for name in get_args(FileFormat) if name != "auto")
    raise ExampleReject(
        "unknown_layout", f"keys {', '.join(sorted(map(str, record))[:12])}; known layouts are {layouts}"
    )


# --- the layouts -------------------------------------------------------------------------------------


def _own(record: Mapping[str, Any]) -> Example:
    fields = {field: _text(record, field) for field in ("example_id", "task", "source", "origin")}
    turns = []
    for number, turn in enumerate(_list(record, "turns"), 1):
        role = turn.get("role")
        if role not in ROLES:
            raise ExampleReject(
                "malformed_record", f"turn {number} has the role {role!r}, not one of {ROLES}"
            )
        turns.append(Turn(role, _text(turn, "text")))
    return Example(**fields, turns=turns, template=_template(record))


def _alpaca(record: Mapping[str, Any]) -> list[Turn]:
    turns = [Turn("system", text)] if (text := _text(record, "system", "")) else []
    history = record.get("history") or []
    if not isinstance(history, list) or not all(
        isinstance(pair, list | tuple) and len(pair) == 2 and all(isinstance(text, str) for text in pair)
        for pair in history
    ):
        raise ExampleReject("malformed_record", "history is no list of pairs of question and answer")
    for question, answer in history:
        turns += [Turn("user", question), Turn("assistant", answer)]
    turns.append(Turn("user", _text(record, "instruction")))
    if material := _text(record, "input", ""):
        turns.append(Turn("input", material))
    return [*turns, Turn("assistant", _text(record, "output"))]


def _react(record: Mapping[str, Any]) -> list[Turn]:
    turns = [Turn("system", text)] if (text := _text(record, "system", "")) else []
    turns.append(Turn("user", _text(record, "question" if "question" in record else "instruction")))
    if material := _text(record, "input", ""):
        turns.append(Turn("input", material))
    if "trace" in record:
        return [*turns, *_labelled(_text(record, "trace"))]
    for step in _list(record, "steps"):
        if unknown := sorted(str(name) for name in step if name not in LABELS):
            raise ExampleReject(
                "malformed_record", f"a step has the key {unknown[0]!r}; known are {', '.join(LABELS)}"
            )
        for role in LABELS:
            value = step.get(role)
            if value is not None and value != "":
                turns.append(Turn(role, value if isinstance(value, str) else _json(value)))
    if (answer := _text(record, "final_answer", "")) and turns[-1].role != "final_answer":
        turns.append(Turn("final_answer", answer))
    return turns


def _conversation(record: Mapping[str, Any]) -> Iterator[Turn]:
    """Yield the turns of messages in either spelling."""
    openai = "messages" in record
    messages = _list(record, "messages" if openai else "conversations")
    role_key, text_key = ("role", "content") if openai or not _is_sharegpt(messages) else ("from", "value")
    ends = _first_turn_ends(record, len(messages))
    if not openai and "system" in record and (text := _text(record, "system", "")):
        yield Turn("system", text)
    roles = [_role(message, role_key, number) for number, message in enumerate(messages, 1)]
    has_tools = "observation" in roles
    in_trace = False
    for number, (message, role) in enumerate(zip(messages, roles, strict=True)):
        text = _content(message, text_key, number + 1)
        split = ends.get(number)
        if split is not None and not (2 <= split <= len(text) and text[split - 2 : split] == "\n\n"):
            raise ExampleReject(
                "malformed_record",
                f"{NAMES_KEY}.{ENDS_KEY} says that a second turn begins at character {split} of message "
                f"{number + 1}, where there is no blank line; remove the key if the message was changed",
            )
        if role == "user":
            in_trace = False
            if split is not None:
                yield Turn("user", text[: split - 2])
                yield Turn("input", text[split:])
                continue
        if role == "action":
            in_trace = True
            yield from _function_call(text, number + 1)
        elif role != "assistant":
            in_trace = in_trace or role == "observation"
            yield Turn(role, text)
        elif calls := message.get("tool_calls"):
            in_trace = True
            if text:
                yield Turn("thought", text)
            yield from _tool_call(calls, number + 1)
        elif has_tools and _LABELLED.search(text):
            in_trace = True
            yield from _labelled(text)
        elif split is not None:
            yield Turn("thought", text[: split - 2])
            yield Turn("final_answer", text[split:])
        else:
            yield Turn("final_answer" if in_trace else "assistant", text)


def _first_turn_ends(record: Mapping[str, Any], messages: int) -> dict[int, int]:
    """Return by number of a message that holds two turns where its second one begins, in characters."""
    names = record.get(NAMES_KEY)
    ends = names.get(ENDS_KEY) if isinstance(names, Mapping) else None
    if ends is None:
        return {}
    found = {}
    for name, place in ends.items() if isinstance(ends, Mapping) else [("", ends)]:
        # A table has a column for every number that any of its records names.
        if place is None:
            continue
        known = name.isdecimal() and int(name) < messages
        if not known or isinstance(place, bool) or not isinstance(place, int):
            raise ExampleReject(
                "malformed_record",
                f"{NAMES_KEY}.{ENDS_KEY} is {ends!r}; it maps a message's number, from 0, to the character "
                "where its second turn begins",
            )
        found[int(name)] = place
    return found


def _template(names: Mapping[str, Any]) -> int | None:
    template = names.get("template")
    if template is not None and (isinstance(template, bool) or not isinstance(template, int)):
        raise ExampleReject("malformed_record", f"template is {template!r}, not a number")
    return template


def _labelled(text: str) -> Iterator[Turn]:
    """Yield the steps of labelled lines; ToolBench's call of ``Finish`` is its final answer."""
    marks = list(_LABELLED.finditer(text))
    if not marks:
        raise ExampleReject("malformed_record", f"a trace without a label such as Thought: in {text[:60]!r}")
    steps: list[Turn] = [Turn("thought", head)] if (head := text[: marks[0].start()].strip()) else []
    ends = [mark.start() for mark in marks[1:]] + [len(text)]
    for mark, end in zip(marks, ends, strict=True):
        steps.append(Turn(_STEP_OF_LABEL[mark[1].casefold()], text[mark.end() : end].strip()))
    if len(steps) >= 2 and steps[-2] == Turn("action", "Finish") and steps[-1].role == "action_input":
        steps[-2:] = [Turn("final_answer", _finish(steps[-1].text))]
    return iter([step for step in steps if step.text or step.role != "thought"])


def _finish(text: str) -> str:
    try:
        value = json.loads(text)
    except ValueError:
        value = None
    answer = value.get("final_answer") if isinstance(value, dict) else None
    if not isinstance(answer, str) or not answer.strip():
        raise ExampleReject("no_response", f"the trace gives up: {text[:80]}")
    return answer


def _tool_call(calls: Any, number: int) -> Iterator[Turn]:
    if not isinstance(calls, list) or not all(isinstance(call, Mapping) for call in calls):
        raise ExampleReject("malformed_record", f"tool_calls of message {number} is no list of objects")
    if len(calls) > 1:
        raise ExampleReject("parallel_calls", f"message {number} calls {len(calls)} tools at once")
    function = calls[0].get("function")
    if not isinstance(function, Mapping):
        raise ExampleReject("malformed_record", f"the tool call of message {number} names no function")
    yield Turn("action", _text(function, "name"))
    arguments = function.get("arguments", "")
    yield Turn("action_input", arguments if isinstance(arguments, str) else _json(arguments))


def _function_call(text: str, number: int) -> Iterator[Turn]:
    try:
        value = json.loads(text)
    except ValueError:
        value = None
    if not isinstance(value, dict) or not isinstance(value.get("name"), str):
        raise ExampleReject("malformed_record", f"the function_call of message {number} names no function")
    arguments = value.get("arguments", "")
    yield Turn("action", value["name"])
    yield Turn("action_input", arguments if isinstance(arguments, str) else _json(arguments))


# --- fields ------------------------------------------------------------------------------------------


def _is_sharegpt(messages: list[Mapping[str, Any]]) -> bool:
    return "from" in messages[0]


def _role(message: Mapping[str, Any], key: str, number: int) -> Role:
    value = message.get(key)
    role = _ROLES.get(value.casefold()) if isinstance(value, str) else None
    if role is None:
        raise ExampleReject(
            "malformed_record", f"message {number} has {key} {value!r}; known are {', '.join(_ROLES)}"
        )
    return role


def _content(message: Mapping[str, Any], key: str, number: int) -> str:
    value = message.get(key)
    if isinstance(value, list):
        if not all(isinstance(part, Mapping) and isinstance(part.get("text"), str) for part in value):
            raise ExampleReject("malformed_record", f"message {number} holds more than text")
        return "".join(part["text"] for part in value)
    if value is None and message.get("tool_calls"):
        return ""
    if not isinstance(value, str):
        raise ExampleReject("malformed_record", f"{key} of message {number} is {_kind(value)}, not a text")
    return value


def _text(record: Mapping[str, Any], key: str, default: str | None = None) -> str:
    value = record.get(key)
    if value is None and default is not None:
        return default
    if not isinstance(value, str):
        raise ExampleReject("malformed_record", f"{key} is {_kind(value)}, not a text")
    return value


def _list(record: Mapping[str, Any], key: str) -> list[Mapping[str, Any]]:
    value = record.get(key)
    if not isinstance(value, list) or not value or not all(isinstance(item, Mapping) for item in value):
        raise ExampleReject("malformed_record", f"{key} is no list of objects with an item")
    return value


def _task(record: Mapping[str, Any], name: str) -> str:
    for key in _TASK_KEYS:
        value = record.get(key)
        if isinstance(value, str) and (task := _snake(value)):
            return task
    return _snake(name)


def _snake(text: str) -> str:
    return _WORD_BREAK.sub("_", text.casefold()).strip("_")


def _json(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False, default=str)


def _kind(value: Any) -> str:
    return "missing" if value is None else repr(value)[:40]


def _checked(example: Example) -> Example:
    """Return an example that any format can write.

    Raises:
        ExampleReject: its turns are in no order, or nothing is asked or answered.
    """
    dialogue = dialogue_of(example, None)
    if not dialogue.exchanges or not dialogue.exchanges[-1].is_answered:
        raise ExampleReject("no_response", "the last turn is neither the assistant's nor a final answer")
    if not example.turns[-1].text.strip():
        raise ExampleReject("empty_response", "the last turn says nothing")
    return example
