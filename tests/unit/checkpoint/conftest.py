"""A run whose ledger tests write, change and audit."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import pytest

from baltoro.checkpoint.config import CheckpointConfig
from baltoro.checkpoint.head import Claim, Head, PublishedCheckpoint, RunIdentity, claim_attempt, read_head
from baltoro.checkpoint.ledger import Ledger, LedgerRecord
from baltoro.core.storage import Storage

ROWS_PER_STEP = 8
TOKENS = 100


def digest_of_step(step: int) -> str:
    return f"digest-{step:026d}"


def record_of_step(step: int, **changes: Any) -> LedgerRecord:
    record = LedgerRecord(
        step=step,
        rows=(step * ROWS_PER_STEP, (step + 1) * ROWS_PER_STEP),
        digest=digest_of_step(step),
        tokens=TOKENS,
        valid_tokens=TOKENS - 8,
        loss=5.0 - step / 100,
        gradient_norm=1.5,
        learning_rate=1e-3,
        world_size=2,
        attempt=1,
        status="done",
        seconds=0.25,
        phase_seconds={"data": 0.01, "forward": 0.1},
        ended_at=1_800_000_000.0 + step,
    )
    return replace(record, **changes)


@dataclass
class LedgerRun:
    """A run folder, and one attempt at a time that writes its ledger."""

    uri: str
    storage: Storage
    claim: Claim | None = None
    ledger: Ledger | None = None

    def start(self, journal_seconds: float = 0.0) -> Ledger:
        """Claim the next attempt."""
        self.claim, head = claim_attempt(self.storage, self.uri, RunIdentity("c", ("d",)), world_size=2)
        self.ledger = Ledger(self.claim, head, journal_seconds=journal_seconds)
        return self.ledger

    def train(self, first: int, stop: int, **changes: Any) -> None:
        """Record steps."""
        for step in range(first, stop):
            self.ledger.append(record_of_step(step, attempt=self.claim.attempt, **changes))

    def publish(self, step: int) -> None:
        """Publish a checkpoint after so many steps, with the ledger up to it."""
        pending = self.ledger.segment_for_checkpoint()
        segment = None
        if pending is not None:
            segment = pending.segment
            self.storage.write_bytes(f"{self.uri}/{segment.name}", pending.data)
        folder = f"checkpoints/step-{step:08d}-attempt-{self.claim.attempt:04d}"
        checkpoint = PublishedCheckpoint(step, step * TOKENS, self.claim.attempt, folder, "0" * 64)
        self.claim.publish_checkpoint(checkpoint, retention=CheckpointConfig(keep_last=9), segment=segment)
        if segment is not None:
            self.ledger.published(segment)

    def head(self) -> Head:
        """Return the head as it is stored."""
        return read_head(self.storage, self.uri)


@pytest.fixture
def ledger_run(tmp_path) -> LedgerRun:
    """A run that was never started."""
    return LedgerRun(str(tmp_path / "run"), Storage())


@pytest.fixture
def make_record() -> Callable[..., LedgerRecord]:
    """Make the record of a step; keywords replace its fields."""
    return record_of_step


@pytest.fixture
def expected_digest() -> Callable[[int], str]:
    """What the dataset gives for a step."""
    return digest_of_step
