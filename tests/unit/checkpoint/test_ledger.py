import json
import math
import threading
import time
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from baltoro.checkpoint.checkpointer import collect_abandoned
from baltoro.checkpoint.head import RunIdentity, claim_attempt
from baltoro.checkpoint.ledger import Ledger, LedgerRecord, accepted, read_ledger
from baltoro.core.errors import ArtifactError, StorageError, TrainingError
from baltoro.core.storage import MissingError, Storage

ANY_FLOAT = st.floats(allow_nan=True, allow_infinity=True)
RECORDS = st.builds(
    LedgerRecord,
    step=st.integers(0, 10**9),
    rows=st.tuples(st.integers(0, 10**12), st.integers(0, 10**12)),
    digest=st.text(),
    tokens=st.integers(0, 10**12),
    valid_tokens=st.integers(0, 10**12),
    loss=ANY_FLOAT | st.integers(0, 5),
    gradient_norm=ANY_FLOAT,
    learning_rate=ANY_FLOAT,
    world_size=st.integers(1, 4096),
    attempt=st.integers(1, 99),
    status=st.sampled_from(["done", "skipped", "overflowed"]),
    seconds=ANY_FLOAT,
    phase_seconds=st.dictionaries(st.text(), ANY_FLOAT | st.integers(0, 5)),
    ended_at=ANY_FLOAT,
)


def steps(records):
    return [record.step for record in records]


def until(condition):
    """Wait for what a thread does soon."""
    deadline = time.monotonic() + 20
    while not condition():
        assert time.monotonic() < deadline, "it did not happen"
        time.sleep(0.01)


def journal(run, attempt=1):
    try:
        return Storage().read_bytes(f"{run.uri}/ledger/open-attempt-{attempt:04d}.jsonl").splitlines()
    except MissingError:
        return []


@given(RECORDS)
def test_a_record_survives_being_stored_to_the_bit(record):
    chained = record.chained("before")
    line = chained.encode()
    assert line.count(b"\n") == 1
    json.loads(line, parse_constant=lambda name: pytest.fail(f"{name} is not JSON"))
    back = LedgerRecord.decode(line)
    assert back.encode() == line
    assert back.chained("before").hash == chained.hash


@given(RECORDS, st.text(max_size=4))
def test_the_hash_depends_on_the_hash_before_and_on_every_field(record, more):
    chained = record.chained("before")
    assert record.chained("other").hash != chained.hash
    for change in (
        {"step": record.step + 1},
        {"rows": (record.rows[0], record.rows[1] + 1)},
        {"digest": record.digest + "x" + more},
        {"status": {"done": "skipped"}.get(record.status, "done")},
        {"phase_seconds": {**record.phase_seconds, "x" + more: 12345.0}},
    ):
        assert replace(record, **change).chained("before").hash != chained.hash


def test_numbers_that_are_not_finite_are_told_apart(make_record):
    losses = (math.nan, math.inf, -math.inf, 1.0)
    decoded = [LedgerRecord.decode(make_record(0, loss=loss).encode()).loss for loss in losses]
    assert [str(loss) for loss in decoded] == ["nan", "inf", "-inf", "1.0"]


@pytest.mark.parametrize("line", [b"", b"[]", b"{}", b'{"step": 1}', b"\xff", b'{"rows": 3}', b"null"])
def test_a_line_that_is_no_record_is_refused(line):
    with pytest.raises(ValueError, match=r"\S"):
        LedgerRecord.decode(line)


def test_what_was_published_is_read_back_in_order(ledger_run):
    ledger_run.start()
    ledger_run.train(0, 4)
    ledger_run.publish(4)
    ledger_run.train(4, 8)
    ledger_run.publish(8)
    ledger_run.ledger.close()
    records = read_ledger(Storage(), ledger_run.uri)
    assert steps(records) == list(range(8))
    assert accepted(records) == records
    assert [segment.name for segment in ledger_run.head().ledger] == [
        "ledger/step-00000004-attempt-0001.jsonl",
        "ledger/step-00000008-attempt-0001.jsonl",
    ]
    assert not journal(ledger_run)


def test_a_checkpoint_without_new_steps_publishes_no_segment(ledger_run):
    ledger_run.start()
    ledger_run.train(0, 4)
    ledger_run.publish(4)
    assert ledger_run.ledger.segment_for_checkpoint() is None
    ledger_run.ledger.close()


def test_steps_that_come_while_a_segment_is_being_published_belong_to_the_next(ledger_run):
    ledger_run.start()
    ledger_run.train(0, 4)
    pending = ledger_run.ledger.segment_for_checkpoint()
    ledger_run.train(4, 6)
    Storage().write_bytes(f"{ledger_run.uri}/{pending.segment.name}", pending.data)
    ledger_run.claim.publish_segment(pending.segment)
    ledger_run.ledger.published(pending.segment)
    ledger_run.publish(6)
    ledger_run.ledger.close()
    assert steps(read_ledger(Storage(), ledger_run.uri)) == list(range(6))


def test_the_journal_holds_what_is_not_published_and_follows_soon(ledger_run):
    ledger_run.start()
    ledger_run.train(0, 4)
    ledger_run.publish(4)
    ledger_run.train(4, 7)
    until(lambda: len(journal(ledger_run)) == 3)
    assert steps(read_ledger(Storage(), ledger_run.uri)) == [0, 1, 2, 3]
    assert steps(read_ledger(Storage(), ledger_run.uri, with_open=True)) == list(range(7))
    ledger_run.publish(7)
    until(lambda: journal(ledger_run) == [])
    ledger_run.ledger.close()


def test_the_journal_is_not_written_more_often_than_asked(ledger_run):
    writes = []

    class Counting(Storage):
        def write_bytes(self, uri, data):
            writes.append(uri)
            return super().write_bytes(uri, data)

    ledger_run.storage = Counting()
    ledger_run.start(journal_seconds=60.0)
    for step in range(50):
        ledger_run.train(step, step + 1)
        time.sleep(0.002)
    ledger_run.ledger.close()
    assert len(writes) <= 2
    assert len(journal(ledger_run)) == 50


def test_steps_beyond_the_last_checkpoint_of_a_crashed_attempt_stay_as_abandoned(ledger_run):
    crashed = ledger_run.start()
    ledger_run.train(0, 4)
    ledger_run.publish(4)
    ledger_run.train(4, 7)
    crashed.close()
    ledger_run.start()
    head = ledger_run.head()
    assert [(segment.name, segment.abandoned) for segment in head.ledger] == [
        ("ledger/step-00000004-attempt-0001.jsonl", False),
        ("ledger/abandoned-attempt-0001-by-0002.jsonl", True),
    ]
    assert not journal(ledger_run)
    assert steps(accepted(read_ledger(Storage(), ledger_run.uri))) == [0, 1, 2, 3]
    ledger_run.train(4, 8)
    ledger_run.publish(8)
    ledger_run.ledger.close()
    records = read_ledger(Storage(), ledger_run.uri)
    assert [(r.step, r.attempt, r.abandoned) for r in records] == [
        *((step, 1, False) for step in range(4)),
        *((step, 1, True) for step in range(4, 7)),
        *((step, 2, False) for step in range(4, 8)),
    ]


def test_a_journal_older_than_the_last_published_segment_is_cut_there(ledger_run):
    # The attempt died between naming the segment in the head and rewriting its journal.
    crashed = ledger_run.start()
    ledger_run.train(0, 6)
    until(lambda: len(journal(ledger_run)) == 6)
    stale = b"\n".join(journal(ledger_run)) + b"\n"
    ledger_run.publish(6)
    crashed.close()
    Storage().write_bytes(f"{ledger_run.uri}/ledger/open-attempt-0001.jsonl", stale)
    ledger_run.start()
    ledger_run.ledger.close()
    assert len(ledger_run.head().ledger) == 1
    assert not journal(ledger_run)


def test_an_attempt_that_outlives_its_successor_is_adopted_once(ledger_run):
    zombie = ledger_run.start()
    old_claim = ledger_run.claim
    ledger_run.train(0, 3)
    until(lambda: len(journal(ledger_run)) == 3)
    ledger_run.start().close()
    new_claim = ledger_run.claim
    ledger_run.claim, ledger_run.ledger = old_claim, zombie
    ledger_run.train(3, 5)
    until(lambda: len(journal(ledger_run)) == 5)
    with pytest.raises(TrainingError, match="attempt 1 was superseded by attempt 2"):
        ledger_run.publish(5)
    zombie.close()
    assert new_claim.attempt == 2
    ledger_run.start().close()
    head = ledger_run.head()
    assert [(segment.attempt, segment.records) for segment in head.ledger] == [(1, 3)]
    assert not journal(ledger_run)
    assert collect_abandoned(ledger_run.claim, head) == ["ledger/step-00000005-attempt-0001.jsonl"]


def test_what_an_attempt_adopted_is_not_collected_by_its_own_older_head(ledger_run):
    ledger_run.start()
    ledger_run.train(0, 3)
    ledger_run.ledger.close()
    before = ledger_run.head()
    ledger_run.start().close()
    assert collect_abandoned(ledger_run.claim, before) == []
    assert len(read_ledger(Storage(), ledger_run.uri)) == 3


def test_several_crashes_in_a_row_are_all_adopted(ledger_run):
    for attempt in (1, 2, 3):
        ledger_run.start()
        ledger_run.train(0, attempt)
        ledger_run.ledger.close()
    ledger_run.start()
    ledger_run.train(0, 4)
    ledger_run.publish(4)
    ledger_run.ledger.close()
    records = read_ledger(Storage(), ledger_run.uri)
    assert [r.attempt for r in records] == [1, 2, 2, 3, 3, 3, 4, 4, 4, 4]
    assert steps(accepted(records)) == [0, 1, 2, 3]


def test_a_damaged_journal_costs_a_warning(ledger_run, caplog):
    ledger_run.start().close()
    Storage().write_bytes(f"{ledger_run.uri}/ledger/open-attempt-0001.jsonl", b'{"step": 1}\n')
    ledger_run.start().close()
    assert ledger_run.head().ledger == ()
    assert "open-attempt-0001.jsonl: is damaged" in caplog.text


def test_a_roll_back_leaves_the_steps_since_then_abandoned_and_skipped(ledger_run, make_record):
    ledger_run.start()
    ledger_run.train(0, 4)
    ledger_run.publish(4)
    ledger_run.train(4, 7)
    ledger_run.ledger.roll_back(4, make_record(7, loss=math.nan, digest="fed-7", tokens=77))
    ledger_run.train(8, 10)
    ledger_run.publish(10)
    ledger_run.ledger.close()
    records = read_ledger(Storage(), ledger_run.uri)
    assert steps(records) == [0, 1, 2, 3, 4, 5, 6, 4, 5, 6, 7, 8, 9]
    assert [r.step for r in records if r.abandoned] == [4, 5, 6]
    kept = accepted(records)
    assert [(r.step, r.status) for r in kept if r.step >= 4] == [
        *((step, "skipped") for step in range(4, 8)),
        (8, "done"),
        (9, "done"),
    ]
    assert kept[7].digest == "fed-7"
    assert [r.digest for r in kept[4:7]] == [make_record(step).digest for step in range(4, 7)]
    # Time is spent once, and stands with the steps that spent it.
    assert [r.seconds for r in kept[4:7]] == [0.0] * 3
    assert [r.seconds for r in records if r.abandoned] == [0.25] * 3


def test_a_roll_back_beyond_a_published_checkpoint_finds_the_steps_in_storage(ledger_run, make_record):
    ledger_run.start()
    for stop in (2, 4):
        ledger_run.train(stop - 2, stop)
        ledger_run.publish(stop)
    ledger_run.ledger.roll_back(2, make_record(4))
    ledger_run.publish(5)
    ledger_run.ledger.close()
    kept = accepted(read_ledger(Storage(), ledger_run.uri))
    assert [(r.step, r.status) for r in kept] == [
        (0, "done"),
        (1, "done"),
        (2, "skipped"),
        (3, "skipped"),
        (4, "skipped"),
    ]


def test_a_roll_back_over_steps_that_were_never_recorded_is_refused(ledger_run, make_record):
    ledger_run.start()
    ledger_run.train(0, 2)
    with pytest.raises(ArtifactError, match="step 3 is not in the ledger"):
        ledger_run.ledger.roll_back(0, make_record(4))
    ledger_run.ledger.close()


def test_what_lies_beyond_the_newest_checkpoint_is_abandoned(ledger_run):
    # As after a damaged checkpoint was passed over: its steps will be done again.
    ledger_run.start()
    for stop in (2, 4):
        ledger_run.train(stop - 2, stop)
        ledger_run.publish(stop)
    ledger_run.claim.publish_passed_over(ledger_run.head().checkpoints[-1], ["damaged"])
    assert steps(accepted(read_ledger(Storage(), ledger_run.uri))) == [0, 1]
    ledger_run.ledger.close()
    ledger_run.start()
    ledger_run.train(2, 6)
    ledger_run.publish(6)
    ledger_run.ledger.close()
    assert steps(accepted(read_ledger(Storage(), ledger_run.uri))) == list(range(6))


def test_a_store_that_refuses_the_journal_costs_a_warning_and_no_step(ledger_run, caplog):
    class Refusing(Storage):
        def write_bytes(self, uri, data):
            if "open-attempt" in uri:
                raise StorageError("the store is away")
            return super().write_bytes(uri, data)

    ledger_run.storage = Refusing()
    ledger_run.start()
    ledger_run.train(0, 3)
    until(lambda: "the store is away" in caplog.text)
    ledger_run.publish(3)
    ledger_run.ledger.close()
    assert steps(read_ledger(Storage(), ledger_run.uri)) == [0, 1, 2]


def test_a_store_that_does_not_answer_holds_up_no_step(ledger_run):
    answers = threading.Event()

    class Silent(Storage):
        def write_bytes(self, uri, data):
            assert answers.wait(20)
            return super().write_bytes(uri, data)

    ledger_run.storage = Silent()
    ledger_run.start()
    ledger_run.train(0, 200)
    assert not journal(ledger_run)
    answers.set()
    ledger_run.ledger.close()
    assert len(journal(ledger_run)) == 200


def test_a_missing_or_unreadable_segment_is_named(ledger_run):
    ledger_run.start()
    ledger_run.train(0, 2)
    ledger_run.publish(2)
    ledger_run.ledger.close()
    uri = f"{ledger_run.uri}/ledger/step-00000002-attempt-0001.jsonl"
    Storage().write_bytes(uri, b"half a rec")
    with pytest.raises(ArtifactError, match=r"step-00000002-attempt-0001\.jsonl: is damaged"):
        read_ledger(Storage(), ledger_run.uri)
    Storage().delete(uri)
    with pytest.raises(ArtifactError, match="is missing, with the record of 2 steps"):
        read_ledger(Storage(), ledger_run.uri)


def test_a_run_that_was_never_started_has_no_ledger(tmp_path):
    with pytest.raises(ArtifactError, match="nothing was ever trained there"):
        read_ledger(Storage(), str(tmp_path))


def test_the_ledger_lives_in_an_object_store_too(s3, make_record):
    uri = f"{s3.uri}/run"
    storage = Storage()
    for attempt in (1, 2):
        claim, head = claim_attempt(storage, uri, RunIdentity("c", ("d",)), world_size=1)
        ledger = Ledger(claim, head, journal_seconds=0.0)
        for step in range(3):
            ledger.append(make_record(step, attempt=attempt))
        ledger.close()
    records = read_ledger(storage, uri, with_open=True)
    assert [(r.step, r.attempt, r.abandoned) for r in records] == [
        *((step, 1, True) for step in range(3)),
        *((step, 2, False) for step in range(3)),
    ]
