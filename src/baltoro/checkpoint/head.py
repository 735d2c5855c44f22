"""The head of a run: one small JSON object, changed only by compare-and-swap.

It names the current attempt, the published checkpoints, the segments of the ledger and the finished export.
What it does not name does not exist. Every change is read, checked and written with the ETag that was read;
if another writer came in between, it is read and checked again, so two attempts can never both believe they
publish.
"""

from __future__ import annotations

import hashlib
import json
import os
import platform
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field, replace
from datetime import UTC, datetime
from typing import Any

import psutil

from baltoro.checkpoint.config import CheckpointConfig
from baltoro.checkpoint.policy import split_kept
from baltoro.core.errors import ArtifactError, StorageError, TrainingError
from baltoro.core.storage import AlreadyExistsError, ChangedError, Storage, join

HEAD_FILE = "head.json"
SCHEMA_VERSION = 2
_MAX_SWAPS = 20


@dataclass(frozen=True, slots=True)
class RunIdentity:
    """What must be the same for one run to continue another.

    Attributes:
        config_fingerprint: of every setting that changes the result.
        dataset_parts: fingerprints of the token dataset's immutable parts, in order; a resumed run may have
            further ones behind them.
    """

    config_fingerprint: str
    dataset_parts: tuple[str, ...]

    def check_continues(self, older: RunIdentity, run_uri: str) -> None:
        """Check that this may continue ``older``.

        Raises:
            ArtifactError: the settings or the dataset are others.
        """
        if self.config_fingerprint != older.config_fingerprint:
            raise ArtifactError(
                f"{run_uri}: was trained with settings of fingerprint {older.config_fingerprint[:12]}, this "
                f"recipe has {self.config_fingerprint[:12]}; use the recipe it was started with, or "
                "another name for a new run"
            )
        if self.dataset_parts[: len(older.dataset_parts)] != older.dataset_parts:
            raise ArtifactError(
                f"{run_uri}: was trained on the token dataset {_short(older.dataset_parts)}, this recipe has "
                f"{_short(self.dataset_parts)}: rows would be seen twice or never; give the dataset it was "
                "started with (new papers only as further parts), or another name for a new run"
            )


def _short(parts: tuple[str, ...]) -> str:
    return "[" + ", ".join(part[:12] for part in parts) + "]"


@dataclass(frozen=True, slots=True)
class Attempt:
    """One start of the run.

    Attributes:
        number: 1, 2, …
        started_at: when its workers claimed it, ISO 8601.
        host: of rank 0.
        world_size: ranks.
        command_started_at: when the command was given that the attempt belongs to, ISO 8601; ``None`` if
            nobody said.
        process_id: of rank 0 on its host; ``None`` if an earlier version wrote it.
    """

    number: int
    started_at: str
    host: str
    world_size: int
    command_started_at: str | None = None
    process_id: int | None = None

    def runs_here(self) -> bool | None:
        """Return whether its rank 0 is a living process of this machine; ``None`` if that cannot be told."""
        if self.host != platform.node() or self.process_id is None:
            return None
        try:
            began: float = psutil.Process(self.process_id).create_time()
        except psutil.NoSuchProcess:
            return False
        # A process of that number that began after the claim is another one.
        return began <= datetime.fromisoformat(self.started_at).timestamp() + 1.0


@dataclass(frozen=True, slots=True)
class PublishedCheckpoint:
    """A checkpoint that exists.

    Attributes:
        step: steps done.
        tokens_seen: non-padding tokens consumed.
        attempt: which attempt wrote it.
        folder: relative to the run.
        sha256: of its ``checkpoint.json``, which names everything else.
        validation_loss: the newest one when it was taken, nats per token; ``None`` if there was none, or one
            that is not finite.
    """

    step: int
    tokens_seen: int
    attempt: int
    folder: str
    sha256: str
    validation_loss: float | None = None


@dataclass(frozen=True, slots=True)
class PassedOver:
    """A damaged checkpoint in whose place an older one was resumed from; its files are left as they are.

    Attributes:
        checkpoint: as it had been published.
        attempt: which attempt passed it over.
        damage: sentences on each damaged or missing file.
    """

    checkpoint: PublishedCheckpoint
    attempt: int
    damage: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class LedgerSegment:
    """A part of the ledger: an immutable object of JSON lines (:mod:`baltoro.checkpoint.ledger`).

    Attributes:
        name: relative to the run.
        sha256: of the object.
        records: how many it holds.
        first_step: of its first record, counted from 0.
        last_step: of its last record.
        attempt: whose steps these are.
        previous_hash: that its first record continues.
        last_hash: of its last record, which the next segment continues.
        abandoned: left behind by an attempt that ended before it could publish a checkpoint of them.
    """

    name: str
    sha256: str
    records: int
    first_step: int
    last_step: int
    attempt: int
    previous_hash: str
    last_hash: str
    abandoned: bool = False


@dataclass(frozen=True, slots=True)
class Finished:
    """The end of the run: where its exported model stands (relative to the run), and at which step."""

    step: int
    export: str
    digest: str


@dataclass(frozen=True, slots=True)
class Head:
    """The content of ``head.json``; checkpoints and segments in publishing order, newest last."""

    identity: RunIdentity
    attempts: tuple[Attempt, ...] = ()
    checkpoints: tuple[PublishedCheckpoint, ...] = ()
    ledger: tuple[LedgerSegment, ...] = ()
    passed_over: tuple[PassedOver, ...] = ()
    finished: Finished | None = None
    schema_version: int = field(default=SCHEMA_VERSION)

    @property
    def attempt(self) -> Attempt:
        """The current attempt."""
        return self.attempts[-1]

    @property
    def ledger_hash(self) -> str:
        """What the next record of the ledger continues: the last hash, or what stands for an empty ledger.

        The first one depends on settings and dataset, so that no run can show another one's records.
        """
        if self.ledger:
            return self.ledger[-1].last_hash
        start = f"{self.identity.config_fingerprint} {self.identity.dataset_parts[:1]}"
        return hashlib.sha256(start.encode()).hexdigest()

    def encode(self) -> bytes:
        """Return the JSON as it is stored."""
        return (json.dumps(asdict(self), indent=1, sort_keys=True) + "\n").encode()

    @staticmethod
    def decode(data: bytes, uri: str) -> Head:
        """Return the head of stored JSON.

        Raises:
            ArtifactError: it is no head, or one of a newer version.
        """
        try:
            record: dict[str, Any] = json.loads(data)
            if record["schema_version"] != SCHEMA_VERSION:
                raise ArtifactError(
                    f"{uri}: has schema version {record['schema_version']}, this Baltoro reads "
                    f"{SCHEMA_VERSION}; use the version that wrote it"
                )
            identity = record["identity"]
            return Head(
                identity=RunIdentity(identity["config_fingerprint"], tuple(identity["dataset_parts"])),
                attempts=tuple(Attempt(**item) for item in record["attempts"]),
                checkpoints=tuple(PublishedCheckpoint(**item) for item in record["checkpoints"]),
                ledger=tuple(LedgerSegment(**item) for item in record["ledger"]),
                passed_over=tuple(
                    PassedOver(
                        PublishedCheckpoint(**item["checkpoint"]), item["attempt"], tuple(item["damage"])
                    )
                    for item in record["passed_over"]
                ),
                finished=Finished(**record["finished"]) if record["finished"] else None,
            )
        except (KeyError, TypeError, ValueError) as error:
            raise ArtifactError(
                f"{uri}: is not the head of a run ({type(error).__name__}: {error}); restore it from a "
                "backup, or remove the run folder to train anew"
            ) from error


@dataclass(frozen=True, slots=True)
class Claim:
    """The right to publish into a run until a newer attempt claims it.

    Attributes:
        run_uri: the run folder.
        attempt: the number claimed.
    """

    storage: Storage
    run_uri: str
    attempt: int

    def publish_checkpoint(
        self,
        checkpoint: PublishedCheckpoint,
        *,
        retention: CheckpointConfig,
        segment: LedgerSegment | None = None,
    ) -> list[PublishedCheckpoint]:
        """Name a checkpoint, and the ledger up to it, in the head; returns those no longer named.

        Args:
            checkpoint: all its files are in storage.
            retention: which checkpoints are kept.
            segment: the ledger's records since the segment before; ``None`` if there are none.

        Raises:
            TrainingError: a newer attempt has claimed the run.
            ArtifactError: the segment does not continue the ledger.
        """
        dropped: list[PublishedCheckpoint] = []

        def change(head: Head) -> Head:
            # A replayed step replaces what an earlier attempt published beyond the point of resume.
            older = [known for known in head.checkpoints if known.step < checkpoint.step]
            kept, _ = split_kept(
                [*older, checkpoint],
                keep_last=retention.keep_last,
                keep_every_steps=retention.keep_every_steps,
                keep_best=retention.keep_best,
            )
            dropped[:] = [known for known in head.checkpoints if known not in kept]
            return self._with_segment(replace(head, checkpoints=tuple(kept)), segment)

        self._swap(change, f"its checkpoint at step {checkpoint.step} is not published")
        return dropped

    def publish_segment(self, segment: LedgerSegment) -> Head:
        """Name a segment of the ledger without a checkpoint; returns the new head.

        Raises:
            TrainingError: a newer attempt has claimed the run.
            ArtifactError: the segment does not continue the ledger.
        """
        return self._swap(
            lambda head: self._with_segment(head, segment), f"its ledger {segment.name} is not published"
        )

    def publish_passed_over(
        self, checkpoint: PublishedCheckpoint, damage: Sequence[str]
    ) -> PublishedCheckpoint:
        """Record that a damaged checkpoint is not resumed from; returns the one before it, now the newest.

        Raises:
            TrainingError: a newer attempt has claimed the run.
        """
        passed = PassedOver(checkpoint, self.attempt, tuple(damage))

        def change(head: Head) -> Head:
            left = tuple(known for known in head.checkpoints if known != checkpoint)
            return replace(head, checkpoints=left, passed_over=(*head.passed_over, passed))

        loss = f"the damaged checkpoint at step {checkpoint.step} stays the newest"
        return self._swap(change, loss).checkpoints[-1]

    def publish_finished(self, finished: Finished) -> None:
        """Name the export in the head.

        Raises:
            TrainingError: a newer attempt has claimed the run.
        """
        self._swap(lambda head: replace(head, finished=finished), "its export is not published")

    def _with_segment(self, head: Head, segment: LedgerSegment | None) -> Head:
        if segment is None:
            return head
        if segment.previous_hash != head.ledger_hash:
            raise ArtifactError(
                f"{join(self.run_uri, segment.name)}: does not continue the ledger that {HEAD_FILE} names: "
                "one of them was changed meanwhile; start the run again to go on from its last checkpoint"
            )
        return replace(head, ledger=(*head.ledger, segment))

    def _swap(self, change: Callable[[Head], Head], loss: str) -> Head:
        def checked(head: Head | None) -> Head:
            if head is None:
                raise ArtifactError(f"{self.run_uri}: the head of the run has vanished; {loss}")
            if head.attempt.number != self.attempt:
                newer = head.attempt
                raise TrainingError(
                    f"{self.run_uri}: attempt {self.attempt} was superseded by attempt {newer.number}, "
                    f"started {newer.started_at} on {newer.host}; {loss} and this process stops"
                )
            return change(head)

        return _compare_and_swap(self.storage, self.run_uri, checked)


def read_head(storage: Storage, run_uri: str) -> Head | None:
    """Return the head of a run; ``None`` if nothing was ever started there.

    Raises:
        ArtifactError: ``head.json`` is damaged.
    """
    uri = join(run_uri, HEAD_FILE)
    if storage.stat(uri, with_etag=False) is None:
        return None
    return Head.decode(storage.read_bytes(uri), uri)


def claim_attempt(
    storage: Storage,
    run_uri: str,
    identity: RunIdentity,
    *,
    world_size: int,
    command_started_at: str | None = None,
) -> tuple[Claim, Head]:
    """Start or resume a run: claim its next attempt. One process of a run calls this.

    Args:
        storage: reaches the run.
        run_uri: folder of the run.
        identity: which the run must share, if it exists.
        world_size: ranks.
        command_started_at: when the command was given, ISO 8601.

    Returns:
        The claim, and the head as it now stands (its last checkpoint is where to resume).

    Raises:
        ArtifactError: the run was made with other settings or another dataset.
    """

    def change(head: Head | None) -> Head:
        if head is not None:
            identity.check_continues(head.identity, run_uri)
        attempts = head.attempts if head is not None else ()
        attempt = Attempt(
            number=len(attempts) + 1,
            started_at=datetime.now(UTC).isoformat(timespec="seconds"),
            host=platform.node(),
            world_size=world_size,
            command_started_at=command_started_at,
            process_id=os.getpid(),
        )
        base = head if head is not None else Head(identity)
        return replace(base, identity=identity, attempts=(*attempts, attempt))

    head = _compare_and_swap(storage, run_uri, change)
    return Claim(storage, run_uri, head.attempt.number), head


def _compare_and_swap(storage: Storage, run_uri: str, change: Callable[[Head | None], Head]) -> Head:
    uri = join(run_uri, HEAD_FILE)
    for _ in range(_MAX_SWAPS):
        # The ETag is read first: if the content changes before it is read, the swap fails and is tried again.
        info = storage.stat(uri)
        head = change(Head.decode(storage.read_bytes(uri), uri) if info is not None else None)
        try:
            if info is None:
                storage.create(uri, head.encode())
            else:
                storage.replace(uri, head.encode(), etag=info.etag)
        except (AlreadyExistsError, ChangedError):
            continue
        return head
    raise StorageError(f"{uri}: changed {_MAX_SWAPS} times while it was to be written; try again later")
