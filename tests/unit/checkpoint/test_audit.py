import math
from dataclasses import replace

import pytest

from baltoro.checkpoint.audit import audit_ledger
from baltoro.checkpoint.ledger import encode_records, read_ledger
from baltoro.core.storage import Storage

ROWS_PER_STEP = 8


@pytest.fixture
def finished(ledger_run):
    """A run of 12 steps, one of them skipped, with a crash after step 7 of which 5 to 7 are replayed."""
    ledger_run.start()
    ledger_run.train(0, 4)
    ledger_run.publish(4)
    ledger_run.train(4, 7)
    ledger_run.ledger.close()
    ledger_run.start()
    ledger_run.train(4, 7, world_size=1)
    ledger_run.train(7, 8, world_size=1, status="skipped", loss=math.nan)
    ledger_run.publish(8)
    ledger_run.train(8, 12, world_size=1)
    ledger_run.publish(12)
    ledger_run.ledger.close()
    return ledger_run


@pytest.fixture
def audit(expected_digest):
    def run(records, head):
        return audit_ledger(records, head, expected_digest=expected_digest, rows_per_step=ROWS_PER_STEP)

    return run


def records_of(run):
    return read_ledger(Storage(), run.uri)


def rewritten(run, change):
    """Change the records as one would who can recompute hashes, and the segments' checksums even."""
    head = run.head()
    records = change(records_of(run))
    chained, previous_hash = [], head.ledger[0].previous_hash
    for record in records:
        chained.append(record.chained(previous_hash))
        previous_hash = chained[-1].hash
    return chained


def test_a_run_with_a_crash_and_a_skipped_step_passes(finished, audit):
    found = audit(records_of(finished), finished.head())
    assert found.findings == ()
    assert found.passed
    assert found.chain_intact
    assert found.rows_once
    assert found.order_equal
    assert (found.steps, found.rows, found.tokens) == (12, 96, 1200)
    assert (found.skipped, found.overflowed, found.abandoned) == (1, 0, 3)
    assert found.attempts == (1, 2)
    assert found.world_sizes == (2, 1)


def test_a_run_without_a_checkpoint_has_nothing_to_audit(ledger_run, audit):
    ledger_run.start()
    ledger_run.train(0, 3)
    ledger_run.ledger.close()
    found = audit(records_of(ledger_run), ledger_run.head())
    assert (found.passed, found.steps) == (True, 0)


def test_a_swapped_row_is_refused_by_step_and_rows(finished, audit, make_record):
    # The ledger is as it was written: what was fed differs from the dataset.
    finished.start()
    finished.train(12, 13, digest="another row")
    finished.publish(13)
    finished.ledger.close()
    found = audit(records_of(finished), finished.head())
    assert not found.order_equal
    assert found.chain_intact
    assert found.rows_once
    assert len(found.findings) == 1
    assert found.findings[0].startswith("step 13 (rows 96 to 103): the digest of what was fed is another row")


def test_a_repeated_slice_is_refused(finished, audit, expected_digest):
    finished.start()
    finished.train(12, 13, rows=(88, 96), digest=expected_digest(11))
    finished.publish(13)
    finished.ledger.close()
    found = audit(records_of(finished), finished.head())
    assert not found.rows_once
    assert not found.order_equal
    assert found.findings[0] == "step 13 (rows 88 to 95): it should have consumed rows 96 to 103"
    assert "the dataset gives" in found.findings[1]


def test_a_step_left_out_in_training_is_refused(finished, audit):
    finished.start()
    finished.train(13, 15)
    finished.publish(15)
    finished.ledger.close()
    found = audit(records_of(finished), finished.head())
    assert not found.rows_once
    assert found.findings[0] == "step 13 to step 13 (rows 96 to 103): missing"


def test_a_removed_record_is_refused(finished, audit):
    records = records_of(finished)
    del records[2]
    found = audit(records, finished.head())
    assert not found.chain_intact
    assert not found.rows_once
    assert any(
        f.startswith("step 4 (rows 24 to 31), attempt 1: the chain breaks here") for f in found.findings
    )
    assert "step 3 to step 3 (rows 16 to 23): missing" in found.findings
    assert any(
        "step-00000004-attempt-0001.jsonl" in f and "not what was published" in f for f in found.findings
    )


def test_a_removed_last_record_is_refused(finished, audit):
    found = audit(records_of(finished)[:-1], finished.head())
    assert any("the records of steps 12 to 12 are missing" in finding for finding in found.findings)
    assert any("the ledger counts 1100 tokens up to step 11" in finding for finding in found.findings)


def test_an_edited_loss_is_refused(finished, audit):
    records = records_of(finished)
    records[3] = replace(records[3], loss=records[3].loss - 1e-9)
    found = audit(records, finished.head())
    assert not found.chain_intact
    assert found.findings[0].startswith("step 4 (rows 24 to 31), attempt 1: the chain breaks here")


def test_an_edited_loss_with_all_hashes_made_anew_is_refused_by_the_head(finished, audit):
    def lower(records):
        return [replace(record, loss=1.0) if record.step == 3 else record for record in records]

    found = audit(rewritten(finished, lower), finished.head())
    assert not found.chain_intact
    assert all("is not what was published" in finding for finding in found.findings)


@pytest.mark.parametrize("dropped", [0, 1, 2, 3])
def test_a_dropped_segment_is_refused(finished, audit, dropped):
    head = finished.head()
    start = sum(segment.records for segment in head.ledger[:dropped])
    records = records_of(finished)
    del records[start : start + head.ledger[dropped].records]
    left = tuple(segment for index, segment in enumerate(head.ledger) if index != dropped)
    found = audit(records, replace(head, ledger=left))
    assert not found.passed
    if dropped == 3:
        assert not found.rows_once
        assert any("the ledger ends after step 8, the newest checkpoint has 12" in f for f in found.findings)
    else:
        assert any("does not continue the segment before it" in finding for finding in found.findings)


def test_an_inserted_record_is_refused(finished, audit, make_record):
    records = records_of(finished)
    records.insert(2, make_record(2).chained(records[1].hash))
    found = audit(records, finished.head())
    assert not found.chain_intact


def test_swapped_segments_are_refused(finished, audit):
    head = finished.head()
    swapped = (head.ledger[1], head.ledger[0], *head.ledger[2:])
    found = audit(records_of(finished), replace(head, ledger=swapped))
    assert not found.chain_intact


def test_another_runs_ledger_is_refused(finished, audit):
    head = finished.head()
    other = replace(head, identity=replace(head.identity, config_fingerprint="another run"))
    found = audit(records_of(finished), other)
    assert not found.chain_intact
    assert found.findings[0].startswith("step 1 (rows 0 to 7), attempt 1: the chain breaks here")


def test_tokens_that_do_not_add_up_to_the_checkpoints_are_refused(finished, audit):
    finished.start()
    finished.train(12, 13, tokens=99)
    finished.publish(13)
    finished.ledger.close()
    found = audit(records_of(finished), finished.head())
    assert found.findings == ("the ledger counts 1299 tokens up to step 13, the checkpoint of step 13 1300",)


def test_a_roll_back_passes_with_the_steps_counted_as_skipped(finished, audit, make_record):
    finished.start()
    finished.train(12, 15)
    finished.ledger.roll_back(12, make_record(15, loss=math.inf))
    finished.train(16, 18)
    finished.publish(18)
    finished.ledger.close()
    found = audit(records_of(finished), finished.head())
    assert found.findings == ()
    assert (found.steps, found.skipped, found.abandoned) == (18, 5, 6)


def test_files_changed_in_storage_are_refused(finished, audit):
    uri = f"{finished.uri}/{finished.head().ledger[0].name}"
    records = records_of(finished)[:4]
    edited = [*records[:2], replace(records[2], tokens=1), records[3]]
    Storage().write_bytes(uri, encode_records(edited))
    found = audit(records_of(finished), finished.head())
    assert found.findings[0].startswith("step 3 (rows 16 to 23), attempt 1: the chain breaks here")
