"""Checks a run's ledger: that nothing in it was changed, and that every row was fed once and in order."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from baltoro.checkpoint.head import Head
from baltoro.checkpoint.ledger import LedgerRecord, accepted, encode_records, mark_abandoned


@dataclass(frozen=True, slots=True)
class Audit:
    """What an audit found.

    Attributes:
        findings: sentences on what is wrong, naming step and rows; none if nothing is.
        chain_intact: no record and no segment was altered, removed, added or moved.
        rows_once: the accepted steps, 0 to the newest checkpoint, consumed each of their rows exactly once.
        order_equal: in the order of the dataset, and were fed what it holds there.
        steps: accepted ones.
        rows: that they consumed.
        tokens: non-padding ones among these.
        skipped: accepted steps whose rows counted as seen without an update.
        overflowed: accepted steps without an update because the float16 gradient overflowed.
        abandoned: records of steps that were trained and then left behind.
        attempts: that the accepted steps come from, in order.
        world_sizes: of the accepted steps, in order, each change noted.
    """

    findings: tuple[str, ...]
    chain_intact: bool
    rows_once: bool
    order_equal: bool
    steps: int
    rows: int
    tokens: int
    skipped: int
    overflowed: int
    abandoned: int
    attempts: tuple[int, ...]
    world_sizes: tuple[int, ...]

    @property
    def passed(self) -> bool:
        """Whether nothing is wrong."""
        return not self.findings


def audit_ledger(
    records: Sequence[LedgerRecord],
    head: Head,
    *,
    expected_digest: Callable[[int], str],
    rows_per_step: int,
) -> Audit:
    """Audit a run up to its newest checkpoint.

    Args:
        records: all of them, as :func:`~baltoro.checkpoint.ledger.read_ledger` gives them.
        head: of the run, read before them.
        expected_digest: recomputes the digest of a step's rows from the token dataset.
        rows_per_step: rows of a step over all ranks.
    """
    chain = _chain_findings(records, head)
    records = mark_abandoned(records, head)
    kept = accepted(records)
    rows, order = _row_findings(kept, rows_per_step), []
    for record in kept:
        expected = expected_digest(record.step)
        if record.digest != expected:
            order.append(
                f"{_named(record)}: the digest of what was fed is {record.digest[:16]}…, the dataset gives "
                f"{expected[:16]}…: other rows, or rows of another content, were fed"
            )
    counts = _count_findings(kept, head)
    return Audit(
        findings=(*chain, *rows, *order, *counts),
        chain_intact=not chain,
        rows_once=not rows and not counts,
        order_equal=not rows and not order,
        steps=len(kept),
        rows=sum(record.rows[1] - record.rows[0] for record in kept),
        tokens=sum(record.tokens for record in kept),
        skipped=sum(record.status == "skipped" for record in kept),
        overflowed=sum(record.status == "overflowed" for record in kept),
        abandoned=len(records) - len(kept),
        attempts=_changes([record.attempt for record in kept]),
        world_sizes=_changes([record.world_size for record in kept]),
    )


def _chain_findings(records: Sequence[LedgerRecord], head: Head) -> list[str]:
    """Hold every record against its hash, and every segment against the head."""
    findings = []
    previous_hash = Head(head.identity).ledger_hash
    for record in records:
        if record.chained(previous_hash).hash != record.hash:
            findings.append(
                f"{_named(record)}, attempt {record.attempt}: the chain breaks here: this record was "
                "altered, or one before it was removed, added or moved"
            )
        previous_hash = record.hash
    start, previous_hash = 0, Head(head.identity).ledger_hash
    for segment in head.ledger:
        part = records[start : start + segment.records]
        start += segment.records
        steps = f"{segment.name} (steps {segment.first_step + 1} to {segment.last_step + 1})"
        if segment.previous_hash != previous_hash:
            findings.append(f"{steps}: does not continue the segment before it: one was removed or added")
        previous_hash = segment.last_hash
        if hashlib.sha256(encode_records(part)).hexdigest() != segment.sha256:
            findings.append(f"{steps}: is not what was published: its SHA-256 is another than the head's")
    if start != len(records):
        findings.append(f"the ledger has {len(records)} records, the head names {start}")
    return findings


def _row_findings(kept: Sequence[LedgerRecord], rows_per_step: int) -> list[str]:
    """Check that steps come as 0, 1, 2, …, each with its own rows."""
    findings = []
    due = 0
    for record in kept:
        if record.step != due:
            first, last = min(due, record.step), max(due, record.step) - 1
            findings.append(
                f"step {first + 1} to step {last + 1} (rows {first * rows_per_step} to "
                f"{(last + 1) * rows_per_step - 1}): {'missing' if record.step > due else 'repeated'}"
            )
        due = record.step + 1
        expected = (record.step * rows_per_step, (record.step + 1) * rows_per_step)
        if record.rows != expected:
            findings.append(
                f"{_named(record)}: it should have consumed rows {expected[0]} to {expected[1] - 1}"
            )
    return findings


def _count_findings(kept: Sequence[LedgerRecord], head: Head) -> list[str]:
    """Hold the accepted steps against what the newest checkpoint says of itself."""
    if not head.checkpoints:
        return []
    newest = head.checkpoints[-1]
    findings = []
    steps = kept[-1].step + 1 if kept else 0
    if steps != newest.step:
        findings.append(
            f"the ledger ends after step {steps}, the newest checkpoint has {newest.step} steps: the records "
            f"of steps {steps + 1} to {newest.step} are missing"
        )
    tokens = sum(record.tokens for record in kept)
    if tokens != newest.tokens_seen:
        findings.append(
            f"the ledger counts {tokens} tokens up to step {steps}, the checkpoint of step {newest.step} "
            f"{newest.tokens_seen}"
        )
    return findings


def _named(record: LedgerRecord) -> str:
    return f"step {record.step + 1} (rows {record.rows[0]} to {record.rows[1] - 1})"


def _changes(values: Sequence[int]) -> tuple[int, ...]:
    return tuple(value for index, value in enumerate(values) if index == 0 or values[index - 1] != value)
