"""What people decided on examples: read from sheets, applied to a set, and summed up as noise."""

from __future__ import annotations

import csv
import io
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import PurePosixPath
from typing import Literal, cast, get_args

from baltoro.core.errors import InputError
from baltoro.core.statistics import wilson_interval
from baltoro.core.storage import Storage
from baltoro.instructions.example import Example, Turn
from baltoro.instructions.sheet import example_digest, unguarded
from baltoro.papers.detect import decode
from baltoro.papers.reader import is_hidden
from baltoro.papers.schema import ReadReject, Reject

Verdict = Literal["keep", "drop", "edit"]
VERDICTS: tuple[str, ...] = get_args(Verdict)

STAGE = "decisions"
"""The stage of every reject of this module."""

_NEEDED = ("example_id", "task", "decision", "edited_response", "comment", "digest")
_SUFFIXES = (".csv", ".tsv")


@dataclass(frozen=True, slots=True)
class Decision:
    """What somebody decided on one example.

    Attributes:
        example_id: the example.
        digest: of the example as it was looked at.
        verdict: keep it, drop it, or put ``edited_response`` in place of its last turn.
        edited_response: with ``edit`` only, else empty.
        comment: anything.
        task: the example's task when it was looked at.
        place: file and row, for messages.
    """

    example_id: str
    digest: str
    verdict: Verdict
    edited_response: str
    comment: str
    task: str
    place: str


@dataclass(frozen=True, slots=True)
class DecisionCounts:
    """What became of decisions and of the examples they are on.

    Attributes:
        kept: examples that somebody looked at and kept.
        dropped: examples left out.
        edited: examples with another response.
        stale: decisions on another state of an example, which are not applied.
        absent: decisions on examples that the set does not have.
    """

    kept: int = 0
    dropped: int = 0
    edited: int = 0
    stale: int = 0
    absent: int = 0


@dataclass(frozen=True, slots=True)
class Applied:
    """A set with the decisions of people.

    Attributes:
        examples: what stays, in the order of the set.
        counts: of decisions.
        rejects: the dropped examples.
        used: decisions that were applied, in the order of the sheet.
        stale: decisions on another state of an example that the set has.
        absent: decisions on examples that the set does not have.
    """

    examples: list[Example]
    counts: DecisionCounts
    rejects: list[Reject]
    used: list[Decision] = field(default_factory=list)
    stale: list[Decision] = field(default_factory=list)
    absent: list[Decision] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class NoiseRate:
    """How much of a task is noise, as people see it: dropped and edited examples.

    Attributes:
        looked_at: examples decided on.
        noise: those dropped or edited.
        fraction: ``noise / looked_at``.
        low: lower bound of the 95 % interval (Wilson).
        high: its upper bound.
    """

    looked_at: int
    noise: int
    fraction: float
    low: float
    high: float


def read_decisions(uri: str, storage: Storage | None = None) -> list[Decision]:
    """Return the decisions of a sheet, or of all sheets of a folder; rows not yet decided are left aside.

    Sheets may have been saved by a spreadsheet program: separated by commas, semicolons or tabs, in UTF-8 or
    UTF-16, with columns in any order and further ones between.

    Raises:
        InputError: nothing is there; a column is missing; a cell is wrong, with its row and column; two rows
            disagree on one example.
    """
    storage = storage or Storage()
    single = storage.stat(uri)
    objects = [single] if single else [info for info in storage.list(uri) if _is_sheet(info.key)]
    if not objects:
        raise InputError(
            f"{uri}: no such sheet of decisions, and no folder with .csv files; give the CSV that the review "
            "sheet's page downloads, or the review sheet itself with its column decision filled in"
        )
    decisions: dict[tuple[str, str], Decision] = {}
    for info in objects:
        for decision in _sheet(storage.read_bytes(info.uri), info.uri):
            first = decisions.setdefault((decision.example_id, decision.digest), decision)
            if (first.verdict, first.edited_response) != (decision.verdict, decision.edited_response):
                raise InputError(
                    f"{decision.place} and {first.place} disagree on {decision.example_id}: "
                    f"{decision.verdict} and {first.verdict}; agree on one and remove the other row"
                )
    return list(decisions.values())


def apply_decisions(examples: Iterable[Example], decisions: Sequence[Decision]) -> Applied:
    """Apply decisions to a set.

    A decision holds for the state of the example that was looked at. One on the outcome of an edit follows
    that edit, so sheets of several rounds can be given together.

    Args:
        examples: the set as built, before any decision.
        decisions: as :func:`read_decisions` gives them.
    """
    by_state = {(decision.example_id, decision.digest): decision for decision in decisions}
    known: set[str] = set()
    used: set[tuple[str, str]] = set()
    counts: Counter[str] = Counter()
    kept: list[Example] = []
    rejects: list[Reject] = []
    decided = {decision.example_id for decision in decisions}
    for example in examples:
        if example.example_id not in decided:
            kept.append(example)
            continue
        known.add(example.example_id)
        outcome, last = _followed(example, by_state, used)
        if last is None:
            kept.append(example)
        elif last.verdict == "drop":
            counts["dropped"] += 1
            detail = f"{example.example_id}: {last.comment or 'no comment'}"
            rejects.append(Reject(example.origin, "", STAGE, "dropped_by_reviewer", detail))
        else:
            counts["edited" if outcome != example else "kept"] += 1
            kept.append(outcome)
    unused = [decision for state, decision in by_state.items() if state not in used]
    stale = [decision for decision in unused if decision.example_id in known]
    absent = [decision for decision in unused if decision.example_id not in known]
    summed = DecisionCounts(
        counts["kept"], counts["dropped"], counts["edited"], stale=len(stale), absent=len(absent)
    )
    applied = [decision for state, decision in by_state.items() if state in used]
    return Applied(kept, summed, rejects, applied, stale, absent)


def noise_rates(decisions: Iterable[Decision]) -> dict[str, NoiseRate]:
    """Return how much of each task is noise, by task; what is dropped or edited is noise.

    Args:
        decisions: those that were applied; others say nothing of the set.
    """
    looked_at: Counter[str] = Counter()
    noise: Counter[str] = Counter()
    for decision in decisions:
        looked_at[decision.task] += 1
        noise[decision.task] += decision.verdict != "keep"
    rates = {}
    for task in sorted(looked_at):
        low, high = wilson_interval(noise[task], looked_at[task])
        rates[task] = NoiseRate(looked_at[task], noise[task], noise[task] / looked_at[task], low, high)
    return rates


def _followed(
    example: Example, by_state: dict[tuple[str, str], Decision], used: set[tuple[str, str]]
) -> tuple[Example, Decision | None]:
    """Return an example after the decisions on it, and the last of them; ``None`` if there is none."""
    last: Decision | None = None
    seen: set[tuple[str, str]] = set()
    while True:
        state = example.example_id, example_digest(example)
        decision = by_state.get(state)
        # Two edits may lead to each other's beginning; each is applied once.
        if decision is None or state in seen:
            return example, last
        seen.add(state)
        used.add(state)
        last = decision
        if decision.verdict != "edit":
            return example, last
        turns = [*example.turns[:-1], Turn(example.turns[-1].role, decision.edited_response)]
        example = replace(example, turns=turns)


def _is_sheet(key: str) -> bool:
    return not is_hidden(key) and PurePosixPath(key).suffix.lower() in _SUFFIXES


def _sheet(data: bytes, uri: str) -> list[Decision]:
    try:
        text = decode(data).removeprefix("\ufeff")
    except ReadReject as reject:
        raise InputError(f"{uri}: cannot be read: {reject.detail}; save the sheet as CSV UTF-8") from None
    header = text.partition("\n")[0]
    separator = max(",;\t", key=header.count)
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=separator, strict=True)
    decisions: list[Decision] = []
    columns: list[str] = []
    row = 0
    try:
        for row, cells in enumerate(reader, 1):
            if row == 1:
                columns = [cell.strip().casefold() for cell in cells]
                for column in _NEEDED:
                    if columns.count(column) > 1:
                        raise InputError(
                            f"{uri}: row 1 has the column {column} {columns.count(column)} times, so it is "
                            "not clear which one holds; remove all but one"
                        )
                    if column not in columns:
                        raise InputError(
                            f"{uri}: row 1 has no column {column}; it has {', '.join(columns) or 'none'}. A "
                            f"sheet of decisions has {', '.join(_NEEDED)}"
                        )
                continue
            if not any(cell.strip() for cell in cells):
                continue
            if len(cells) != len(columns):
                raise InputError(
                    f"{uri}: row {row} has {len(cells)} cells, and {len(columns)} columns are named; quote "
                    f"cells that hold a {separator!r} or a line break"
                )
            values = {column: unguarded(cell) for column, cell in zip(columns, cells, strict=True)}
            if decision := _decision(values, f"{uri} row {row}"):
                decisions.append(decision)
    except csv.Error as error:
        raise InputError(f"{uri}: row {row + 1}: not valid CSV: {error}") from None
    if not columns:
        raise InputError(f"{uri}: an empty file; a sheet of decisions has the columns {', '.join(_NEEDED)}")
    return decisions


def _decision(values: dict[str, str], place: str) -> Decision | None:
    """Return the decision of a row, ``None`` where there is none yet."""
    verdict = values["decision"].strip().casefold()
    edited = values["edited_response"]
    if not verdict and not edited.strip():
        return None
    if verdict not in VERDICTS:
        raise InputError(
            f"{place}: column decision is {values['decision']!r}; write {', '.join(VERDICTS)}"
            + (", or clear column edited_response" if not verdict else ", or leave it empty")
        )
    if verdict == "edit" and not edited.strip():
        raise InputError(
            f"{place}: column edited_response is empty, and decision is edit; write the better response, or "
            "decide drop"
        )
    if verdict != "edit" and edited.strip():
        raise InputError(
            f"{place}: column edited_response is filled in, and decision is {verdict}; write edit or clear it"
        )
    for column in ("example_id", "digest"):
        if not values[column].strip():
            raise InputError(f"{place}: column {column} is empty; copy it from the review sheet")
    return Decision(
        values["example_id"].strip(),
        values["digest"].strip(),
        cast(Verdict, verdict),
        edited if verdict == "edit" else "",
        values["comment"],
        values["task"],
        place,
    )
