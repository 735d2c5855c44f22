"""Knowledge as triples: a table with three columns, or JSON.

A CSV or TSV file has columns ``subject, predicate, object`` (or ``head, relation, tail``, or ``object, key,
value``), or ``child, parent`` for a taxonomy. JSON is a list of such objects, a list of lists of three, an
object ``{subject: {predicate: value or values}}``, or one record a line. Predicates that say what everything
else says in RDF are known by their usual names (:data:`PREDICATES`); any other is a fact.
"""

from __future__ import annotations

import csv
import io
import json
import re
from collections.abc import Iterator
from typing import Any

from baltoro.instructions.signals.knowledge.concepts import Statements

PREDICATES: dict[str, str] = {
    **dict.fromkeys(("label", "name", "preflabel", "preferred name"), "name"),
    **dict.fromkeys(("altlabel", "alternative name", "synonym", "synonym of", "alias", "aka"), "other_name"),
    **dict.fromkeys(("definition", "defined as", "description", "means"), "definition"),
    **dict.fromkeys(
        ("is a", "isa", "subclass of", "subclassof", "kind of", "type", "instance of", "hypernym", "broader")
        + ("parent",),
        "parent",
    ),
    **dict.fromkeys(("hyponym", "narrower", "child", "has kind"), "child"),
}
"""Predicate in lower-case words → what it says."""

_COLUMNS = (("subject", "predicate", "object"), ("head", "relation", "tail"), ("object", "key", "value"))
_WORD_BREAK = re.compile(r"(?<=[a-z])(?=[A-Z])|[_-]+")


class RowError(ValueError):
    """One row that is no triple: its place and what is wrong."""


def read_csv(data: bytes, statements: Statements) -> Iterator[RowError]:
    """Collect the triples of a table, and yield the rows that are none.

    Raises:
        ValueError: no UTF-8 text, or its columns are not known.
    """
    text = data.decode("utf-8-sig")
    first = text.partition("\n")[0]
    delimiter = max("\t;,", key=first.count)
    rows = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter)
    header = [cell.strip().lower() for cell in next(rows, [])]
    if {"child", "parent"} <= set(header):
        places: tuple[int, ...] = (header.index("child"), header.index("parent"))
    else:
        columns = next((names for names in _COLUMNS if set(names) <= set(header)), None)
        if columns is None:
            raise ValueError(
                f"its columns are {', '.join(header) or 'none'}; name them subject, predicate, object or "
                "child, parent"
            )
        places = tuple(header.index(name) for name in columns)
    for row in rows:
        if not any(map(str.strip, row)):
            continue
        values = [row[place].strip() if place < len(row) else "" for place in places]
        if not all(values):
            yield RowError(f"line {rows.line_num}: {row} has no value in a column")
        elif len(values) == 2:
            statements.parent(values[0], values[1])
        else:
            add_triple(statements, *values)


def read_json(data: bytes, statements: Statements) -> Iterator[RowError]:
    """Collect the triples of a JSON or JSONL file, and yield the records that are none.

    Raises:
        ValueError: not JSON, or neither a list nor an object.
    """
    text = data.decode("utf-8-sig")
    try:
        value: Any = json.loads(text)
    except json.JSONDecodeError:
        lines = [line for line in text.splitlines() if line.strip()]
        if len(lines) < 2:
            raise
        value = [_json_line(line) for line in lines]
    if isinstance(value, dict) and not any(set(names) <= set(value) for names in _COLUMNS):
        for subject, said in value.items():
            if not isinstance(said, dict):
                yield RowError(f"{subject!r}: holds {said!r}; write an object of predicates and values")
                continue
            for predicate, objects in said.items():
                for item in objects if isinstance(objects, list) else [objects]:
                    if isinstance(item, dict | list) or item is None:
                        yield RowError(f"{subject!r}: {predicate!r} is {item!r}, which is no plain value")
                    else:
                        add_triple(statements, subject, predicate, str(item))
        return
    if isinstance(value, dict):
        value = [value]
    if not isinstance(value, list):
        raise ValueError("it holds one plain value; write a list of triples")
    for number, record in enumerate(value, 1):
        triple = _triple_of(record)
        if triple is None:
            yield RowError(f"record {number}: {json.dumps(record)[:120]} is no triple")
        else:
            add_triple(statements, *triple)


def add_triple(statements: Statements, subject: str, predicate: str, value: str) -> None:
    """Collect one triple by what its predicate says."""
    words = " ".join(_WORD_BREAK.sub(" ", predicate.rpartition(":")[2]).lower().split())
    match PREDICATES.get(words) or PREDICATES.get(words.replace(" ", "")):
        case "name":
            statements.name(subject, value, preferred=True)
        case "other_name":
            statements.name(subject, subject, preferred=True)
            statements.name(subject, value, preferred=False)
        case "definition":
            statements.definition(subject, value)
        case "parent":
            statements.parent(subject, value)
        case "child":
            statements.parent(value, subject)
        case _:
            statements.fact(subject, words, value)


def _json_line(line: str) -> Any:
    try:
        return json.loads(line)
    except json.JSONDecodeError:
        return line


def _triple_of(record: Any) -> tuple[str, str, str] | None:
    if isinstance(record, dict):
        values = next(
            ([record[name] for name in names] for names in _COLUMNS if set(names) <= set(record)), []
        )
    else:
        values = record if isinstance(record, list) else []
    if len(values) != 3 or any(isinstance(item, dict | list) or item in (None, "") for item in values):
        return None
    return str(values[0]), str(values[1]), str(values[2])
