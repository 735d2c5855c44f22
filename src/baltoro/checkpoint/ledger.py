"""The ledger of a run: what every step was fed and what came of it, in a chain that shows any change.

One record per step and attempt. A record's hash is the SHA-256 of the hash before it and of the record as
canonical JSON, so nothing can be altered, removed or inserted behind the newest one without a trace. Records
stand as JSON lines in immutable objects, the *segments*; ``head.json`` names each with its SHA-256, by the
same compare-and-swap that publishes the checkpoint of its last step::

    ledger/step-00000100-attempt-0001.jsonl          published with the checkpoint of step 100
    ledger/open-attempt-0001.jsonl                   steps since then, rewritten every few seconds
    ledger/abandoned-attempt-0001-by-0002.jsonl      what attempt 2 found there: steps that it replays

Nothing is ever taken out. Where a later record starts a step anew, the older ones of that step and of those
behind it are *abandoned*: trained once, then left behind by a crash, a roll-back or a damaged checkpoint.
What is left, the accepted records, has every step exactly once.
"""

from __future__ import annotations

import hashlib
import json
import logging
import math
import re
import threading
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from typing import Any, Literal

from baltoro.checkpoint.head import Claim, Head, LedgerSegment, read_head
from baltoro.core.errors import ArtifactError, BaltoroError
from baltoro.core.storage import MissingError, Storage, join

FOLDER = "ledger"

Status = Literal["done", "skipped", "overflowed"]

_OPEN_NAME = re.compile(r"open-attempt-(\d+)\.jsonl")
_JOURNAL_SECONDS = 5.0
_JOURNAL_PAUSES = 20.0
"""After a write the journal rests for so many times as long: a long one is written less often."""
_CLOSE_SECONDS = 30.0
_NUMBERS = ("loss", "gradient_norm", "learning_rate", "seconds", "ended_at")
_NOT_FINITE = {"nan": math.nan, "inf": math.inf, "-inf": -math.inf}

_logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class LedgerRecord:
    """One step of one attempt.

    Attributes:
        step: counted from 0.
        rows: of the dataset that it consumed over all ranks, ``(first, stop)``.
        digest: of what was really fed, over all ranks, whatever the split (:mod:`baltoro.data.digest`).
        tokens: non-padding positions.
        valid_tokens: positions with a target.
        loss: mean over the valid tokens, nats per token.
        gradient_norm: before clipping; not a number where there was no update.
        learning_rate: that was, or would have been, used.
        world_size: ranks that took part.
        attempt: that took the step.
        status: ``done``; ``skipped`` if its rows count as seen but did not change the weights;
            ``overflowed`` if the float16 gradient did.
        seconds: since the step before (or the start), hooks included.
        phase_seconds: of its parts.
        ended_at: seconds since 1970.
        hash: of this record in the chain; the ledger fills it in.
        abandoned: a later record, or the run's newest checkpoint, leaves it out; known when it is read.
    """

    step: int
    rows: tuple[int, int]
    digest: str
    tokens: int
    valid_tokens: int
    loss: float
    gradient_norm: float
    learning_rate: float
    world_size: int
    attempt: int
    status: Status
    seconds: float
    phase_seconds: Mapping[str, float]
    ended_at: float
    hash: str = ""
    abandoned: bool = False

    def content(self) -> dict[str, Any]:
        """Return what is hashed, as JSON can say it: numbers that are not finite become strings."""
        values = {field.name: getattr(self, field.name) for field in fields(self)}
        del values["hash"], values["abandoned"]
        values["rows"] = list(self.rows)
        values["phase_seconds"] = {name: _plain(value) for name, value in self.phase_seconds.items()}
        return values | {name: _plain(values[name]) for name in _NUMBERS}

    def chained(self, previous_hash: str) -> LedgerRecord:
        """Return the record with its hash behind ``previous_hash``."""
        text = previous_hash + _canonical(self.content())
        return replace(self, hash=hashlib.sha256(text.encode()).hexdigest())

    def encode(self) -> bytes:
        """Return the line as it is stored."""
        return (_canonical({**self.content(), "hash": self.hash}) + "\n").encode()

    @staticmethod
    def decode(line: bytes) -> LedgerRecord:
        """Return the record of a stored line.

        Raises:
            ValueError: it is none.
        """
        try:
            values: dict[str, Any] = json.loads(line)
            values["rows"] = (values["rows"][0], values["rows"][1])
            values["phase_seconds"] = {
                name: _number(value) for name, value in values["phase_seconds"].items()
            }
            for name in _NUMBERS:
                values[name] = _number(values[name])
            return LedgerRecord(**values)
        except (KeyError, IndexError, TypeError, AttributeError) as error:
            raise ValueError(f"not a record: {type(error).__name__}: {error}") from error


@dataclass(frozen=True, slots=True)
class PendingSegment:
    """A segment that can be written and then named in the head, and its content."""

    segment: LedgerSegment
    data: bytes


class Ledger:
    """Writes the ledger of one attempt; one process of the run has it. Safe to use from several threads.

    Making it adopts what earlier attempts left in their journals. From then on a thread keeps this
    attempt's journal in storage up to date, at most every few seconds; a store that refuses it costs a
    warning, never a step.

    Args:
        claim: the right to publish.
        head: as the claim returned it.
        journal_seconds: least time between two writes of the journal.

    Raises:
        TrainingError: a newer attempt has claimed the run.
        StorageError: what earlier attempts left could not be written.
    """

    def __init__(self, claim: Claim, head: Head, *, journal_seconds: float = _JOURNAL_SECONDS) -> None:
        self._claim = claim
        self._journal_seconds = journal_seconds
        self._journal_uri = join(claim.run_uri, FOLDER, f"open-attempt-{claim.attempt:04d}.jsonl")
        self._published_hash = _adopt_journals(claim, head).ledger_hash
        self._unpublished: list[LedgerRecord] = []
        # Each record is encoded once, in its step: a journal may be written many times.
        self._lines: list[bytes] = []
        self._changed = threading.Condition()
        self._dirty = False
        self._closed = False
        self._thread = threading.Thread(target=self._keep_journal, name="baltoro-ledger", daemon=True)
        self._thread.start()

    def append(self, record: LedgerRecord) -> None:
        """Add the record of a step; its place in the chain is filled in."""
        with self._changed:
            chained = record.chained(self._last_hash())
            self._unpublished.append(chained)
            self._lines.append(chained.encode())
            self._dirty = True
            self._changed.notify()

    def roll_back(self, step: int, bad: LedgerRecord) -> None:
        """Record that the checkpoint after ``step`` steps was restored and training goes on behind ``bad``.

        The records since then stay, abandoned by the new ones: the same steps again, as skipped.

        Args:
            step: steps done in the checkpoint that was restored.
            bad: the step that was not to be learned from, which was not recorded yet.

        Raises:
            ArtifactError: a step between the two was never recorded.
        """
        with self._changed:
            known = {record.step: record for record in self._unpublished if record.step >= step}
        if any(number not in known for number in range(step, bad.step)):
            stored = accepted(read_ledger(self._claim.storage, self._claim.run_uri))
            known = {record.step: record for record in stored} | known
        for number in range(step, bad.step):
            if number not in known:
                raise ArtifactError(
                    f"{self._claim.run_uri}: step {number + 1} is not in the ledger, so it cannot be left "
                    "out; start the run again to go on from its last checkpoint"
                )
            # Their time stands in the abandoned records.
            self.append(
                replace(
                    known[number],
                    status="skipped",
                    attempt=self._claim.attempt,
                    seconds=0.0,
                    phase_seconds={},
                    ended_at=bad.ended_at,
                    abandoned=False,
                )
            )
        self.append(replace(bad, status="skipped"))

    def segment_for_checkpoint(self) -> PendingSegment | None:
        """Return all that is recorded since the last published segment; ``None`` if nothing is."""
        with self._changed:
            records, data = list(self._unpublished), b"".join(self._lines)
            previous_hash = self._published_hash
        if not records:
            return None
        stop = records[-1].step + 1
        name = f"{FOLDER}/step-{stop:08d}-attempt-{self._claim.attempt:04d}.jsonl"
        return _segment(name, records, data, previous_hash, attempt=self._claim.attempt)

    def published(self, segment: LedgerSegment) -> None:
        """Take note that the head names a segment that :meth:`segment_for_checkpoint` gave."""
        with self._changed:
            del self._unpublished[: segment.records], self._lines[: segment.records]
            self._published_hash = segment.last_hash
            self._dirty = True
            self._changed.notify()

    def close(self) -> None:
        """Bring the journal up to date for the last time and stop; nothing may be appended afterwards."""
        with self._changed:
            self._closed = True
            self._changed.notify()
        self._thread.join(_CLOSE_SECONDS)

    def _last_hash(self) -> str:
        return self._unpublished[-1].hash if self._unpublished else self._published_hash

    def _keep_journal(self) -> None:
        pause_seconds = 0.0
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._closed, pause_seconds)
                self._changed.wait_for(lambda: self._dirty or self._closed)
                closed, dirty, self._dirty = self._closed, self._dirty, False
                data = b"".join(self._lines)
            began = time.monotonic()
            if dirty:
                self._write_journal(data)
            if closed:
                return
            pause_seconds = max(self._journal_seconds, _JOURNAL_PAUSES * (time.monotonic() - began))

    def _write_journal(self, data: bytes) -> None:
        storage = self._claim.storage
        try:
            if data:
                storage.write_bytes(self._journal_uri, data)
            else:
                storage.delete(self._journal_uri)
        except BaltoroError as error:
            _logger.warning(
                "%s: the steps since the last checkpoint could not be noted there: %s; should this attempt "
                "crash, the ledger will not show that they are replayed",
                self._journal_uri,
                error.message,
            )


def read_ledger(storage: Storage, run_uri: str, *, with_open: bool = False) -> list[LedgerRecord]:
    """Return every record of a run in the order of the chain, the abandoned ones marked.

    Nothing is checked but that the records can be read; :func:`baltoro.checkpoint.audit.audit_ledger` does.

    Args:
        storage: gives access to the run.
        run_uri: the run folder.
        with_open: add what the journal of the current attempt holds beyond the newest checkpoint, not marked.

    Raises:
        ArtifactError: the run has no head, or a segment is missing or no ledger.
    """
    head = read_head(storage, run_uri)
    if head is None:
        raise ArtifactError(f"{run_uri}: has no head.json, so nothing was ever trained there; check the URI")
    records: list[LedgerRecord] = []
    for segment in head.ledger:
        uri = join(run_uri, segment.name)
        try:
            records += [
                replace(record, abandoned=segment.abandoned)
                for record in _decode_lines(storage.read_bytes(uri))
            ]
        except MissingError as error:
            raise ArtifactError(
                f"{uri}: is missing, with the record of {segment.records} steps; restore it from a backup"
            ) from error
        except ValueError as error:
            raise ArtifactError(f"{uri}: is damaged ({error}); restore it from a backup") from error
    records = mark_abandoned(records, head)
    if with_open:
        uri = join(run_uri, FOLDER, f"open-attempt-{head.attempt.number:04d}.jsonl")
        records += _unpublished_of(storage, uri, head, head.attempt.number)
    return records


def accepted(records: Iterable[LedgerRecord]) -> list[LedgerRecord]:
    """Return the records that are not abandoned: what the weights of the newest checkpoint came from."""
    return [record for record in records if not record.abandoned]


def mark_abandoned(records: Sequence[LedgerRecord], head: Head) -> list[LedgerRecord]:
    """Return the records of a head's segments with every abandoned one marked.

    Abandoned are records that are so already, as those of an abandoned segment are when they are read;
    records before one that starts the same or an earlier step anew; and records beyond the newest checkpoint.
    """
    abandoned = {index for index, record in enumerate(records) if record.abandoned}
    standing: list[int] = []
    for index, record in enumerate(records):
        if index in abandoned:
            continue
        while standing and records[standing[-1]].step >= record.step:
            abandoned.add(standing.pop())
        standing.append(index)
    steps = head.checkpoints[-1].step if head.checkpoints else 0
    abandoned |= {index for index in standing if records[index].step >= steps}
    return [replace(record, abandoned=index in abandoned) for index, record in enumerate(records)]


def is_open_journal(name: str) -> bool:
    """Return whether a name in the ledger's folder is that of an attempt's journal."""
    return _OPEN_NAME.fullmatch(name) is not None


def _adopt_journals(claim: Claim, head: Head) -> Head:
    """Publish what earlier attempts recorded beyond their last checkpoint as abandoned, once per attempt.

    An earlier attempt that is still alive writes its journal again; by then it is known, and only removed.
    """
    storage = claim.storage
    for info in list(storage.list(join(claim.run_uri, FOLDER), with_etag=False)):
        match = _OPEN_NAME.fullmatch(info.key)
        if match is None or int(match[1]) >= claim.attempt:
            continue
        attempt = int(match[1])
        known = any(segment.abandoned and segment.attempt == attempt for segment in head.ledger)
        records = [] if known else _unpublished_of(storage, info.uri, head, attempt)
        if records:
            name = f"{FOLDER}/abandoned-attempt-{attempt:04d}-by-{claim.attempt:04d}.jsonl"
            previous_hash = head.ledger_hash
            chained: list[LedgerRecord] = []
            for record in records:
                chained.append(record.chained(chained[-1].hash if chained else previous_hash))
            data = encode_records(chained)
            pending = _segment(name, chained, data, previous_hash, attempt=attempt, abandoned=True)
            storage.write_bytes(join(claim.run_uri, name), pending.data)
            head = claim.publish_segment(pending.segment)
            _logger.info(
                "%s: steps %d to %d of attempt %d were not saved before it ended and will be replayed",
                claim.run_uri,
                records[0].step + 1,
                records[-1].step + 1,
                attempt,
            )
        storage.delete(info.uri)
    return head


def _unpublished_of(storage: Storage, uri: str, head: Head, attempt: int) -> list[LedgerRecord]:
    """Return the records of an attempt's journal behind its last published segment, as far as they hold."""
    try:
        records = _decode_lines(storage.read_bytes(uri))
    except MissingError:
        return []
    except ValueError as error:
        _logger.warning("%s: is damaged (%s); what it recorded is left out of the ledger", uri, error)
        return []
    # A journal may be older than the segment that was published last.
    ends = {segment.last_hash for segment in head.ledger if segment.attempt == attempt}
    for index in range(len(records) - 1, -1, -1):
        if records[index].hash in ends:
            return records[index + 1 :]
    return records


def _segment(
    name: str,
    records: Sequence[LedgerRecord],
    data: bytes,
    previous_hash: str,
    *,
    attempt: int,
    abandoned: bool = False,
) -> PendingSegment:
    return PendingSegment(
        LedgerSegment(
            name=name,
            sha256=hashlib.sha256(data).hexdigest(),
            records=len(records),
            first_step=records[0].step,
            last_step=records[-1].step,
            attempt=attempt,
            previous_hash=previous_hash,
            last_hash=records[-1].hash,
            abandoned=abandoned,
        ),
        data,
    )


def encode_records(records: Iterable[LedgerRecord]) -> bytes:
    """Return the content of a segment."""
    return b"".join(record.encode() for record in records)


def _decode_lines(data: bytes) -> list[LedgerRecord]:
    return [LedgerRecord.decode(line) for line in data.splitlines()]


def _canonical(values: Mapping[str, Any]) -> str:
    return json.dumps(values, sort_keys=True, separators=(",", ":"), allow_nan=False)


def _plain(value: float) -> float | str:
    return float(value) if math.isfinite(value) else str(float(value))


def _number(value: Any) -> float:
    if isinstance(value, str):
        return _NOT_FINITE[value]
    return float(value)
