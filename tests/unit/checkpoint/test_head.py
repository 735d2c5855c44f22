import json
import subprocess
import threading
from dataclasses import replace

import pytest

from baltoro.checkpoint.config import CheckpointConfig
from baltoro.checkpoint.head import (
    Finished,
    LedgerSegment,
    PassedOver,
    PublishedCheckpoint,
    RunIdentity,
    claim_attempt,
    read_head,
)
from baltoro.core.errors import ArtifactError, TrainingError
from baltoro.core.storage import Storage

IDENTITY = RunIdentity("settings-1", ("part-a",))


@pytest.fixture
def run(tmp_path):
    return str(tmp_path / "run")


def claim(run, identity=IDENTITY):
    return claim_attempt(Storage(), run, identity, world_size=2)


def keeping(last, **rules):
    return CheckpointConfig(keep_last=last, **rules)


def checkpoint(step, attempt=1, validation_loss=None):
    folder = f"checkpoints/step-{step}-{attempt}"
    return PublishedCheckpoint(step, step * 100, attempt, folder, "0" * 64, validation_loss)


def segment(stop, previous_hash, attempt=1):
    return LedgerSegment(
        f"ledger/step-{stop}.jsonl", "1" * 64, 10, stop - 10, stop - 1, attempt, previous_hash, f"hash-{stop}"
    )


def test_a_run_that_was_never_started_has_no_head(run):
    assert read_head(Storage(), run) is None


def test_the_first_claim_makes_the_head_and_the_next_counts_on(run):
    first, head = claim(run)
    assert (first.attempt, head.checkpoints, head.finished) == (1, (), None)
    second, head = claim(run)
    assert second.attempt == 2
    assert [attempt.number for attempt in head.attempts] == [1, 2]
    assert head.attempt.world_size == 2
    assert read_head(Storage(), run) == head


def test_checkpoints_are_named_in_order_and_only_the_last_are_kept(run):
    attempt, _ = claim(run)
    assert attempt.publish_checkpoint(checkpoint(10), retention=keeping(2)) == []
    attempt.publish_checkpoint(checkpoint(20), retention=keeping(2))
    assert attempt.publish_checkpoint(checkpoint(30), retention=keeping(2)) == [checkpoint(10)]
    assert read_head(Storage(), run).checkpoints == (checkpoint(20), checkpoint(30))


def test_an_older_attempt_publishes_nothing_and_is_told_by_whom(run):
    old, _ = claim(run)
    old.publish_checkpoint(checkpoint(10), retention=keeping(2))
    new, head = claim(run)
    assert head.checkpoints == (checkpoint(10),)
    before = read_head(Storage(), run)
    with pytest.raises(
        TrainingError, match=r"attempt 1 was superseded by attempt 2, .*step 20 is not published"
    ):
        old.publish_checkpoint(checkpoint(20), retention=keeping(2))
    with pytest.raises(TrainingError, match="its export is not published"):
        old.publish_finished(Finished(20, "export", "0"))
    assert read_head(Storage(), run) == before
    new.publish_checkpoint(checkpoint(20, attempt=2), retention=keeping(2))
    assert read_head(Storage(), run).checkpoints[-1].attempt == 2


def test_a_replayed_step_replaces_what_lay_beyond_the_point_of_resume(run):
    old, _ = claim(run)
    for step in (10, 20):
        old.publish_checkpoint(checkpoint(step), retention=keeping(5))
    new, _ = claim(run)
    dropped = new.publish_checkpoint(checkpoint(15, attempt=2), retention=keeping(5))
    assert dropped == [checkpoint(20)]
    assert [entry.step for entry in read_head(Storage(), run).checkpoints] == [10, 15]


def test_another_dataset_is_refused_and_further_parts_are_not(run):
    claim(run)
    with pytest.raises(ArtifactError, match=r"token dataset \[part-a\], this recipe has \[part-b\]"):
        claim(run, RunIdentity("settings-1", ("part-b",)))
    assert len(read_head(Storage(), run).attempts) == 1
    _, head = claim(run, RunIdentity("settings-1", ("part-a", "part-b")))
    assert head.identity.dataset_parts == ("part-a", "part-b")
    with pytest.raises(ArtifactError, match="rows would be seen twice or never"):
        claim(run)


def test_other_settings_are_refused(run):
    claim(run)
    with pytest.raises(ArtifactError, match="settings of fingerprint settings-1, this recipe has settings-2"):
        claim(run, RunIdentity("settings-2", ("part-a",)))


def test_a_damaged_head_is_refused_and_not_overwritten(run):
    claim(run)
    path = f"{run}/head.json"
    Storage().write_bytes(path, b'{"schema_version": 2}')
    with pytest.raises(ArtifactError, match=r"head\.json: is not the head of a run"):
        claim(run)
    assert Storage().read_bytes(path) == b'{"schema_version": 2}'


def test_a_head_of_a_newer_version_is_refused(run):
    claim(run)
    record = json.loads(Storage().read_bytes(f"{run}/head.json"))
    Storage().write_bytes(f"{run}/head.json", json.dumps({**record, "schema_version": 3}).encode())
    with pytest.raises(ArtifactError, match="schema version 3, this Baltoro reads 2"):
        read_head(Storage(), run)


def test_a_head_of_an_older_version_is_refused_with_the_same_words(run):
    claim(run)
    record = json.loads(Storage().read_bytes(f"{run}/head.json"))
    del record["ledger"], record["passed_over"]
    Storage().write_bytes(f"{run}/head.json", json.dumps({**record, "schema_version": 1}).encode())
    with pytest.raises(
        ArtifactError, match="schema version 1, this Baltoro reads 2; use the version that wrote"
    ):
        claim(run)


def test_a_checkpoint_and_the_ledger_up_to_it_appear_together(run):
    attempt, head = claim(run)
    first = segment(10, head.ledger_hash)
    attempt.publish_checkpoint(checkpoint(10), retention=keeping(2), segment=first)
    second = segment(20, "hash-10")
    attempt.publish_checkpoint(checkpoint(20), retention=keeping(2), segment=second)
    found = read_head(Storage(), run)
    assert found.ledger == (first, second)
    assert found.ledger_hash == "hash-20"


def test_a_segment_that_does_not_continue_the_ledger_publishes_nothing(run):
    attempt, head = claim(run)
    attempt.publish_checkpoint(checkpoint(10), retention=keeping(2), segment=segment(10, head.ledger_hash))
    before = read_head(Storage(), run)
    with pytest.raises(ArtifactError, match=r"ledger/step-30\.jsonl: does not continue the ledger"):
        attempt.publish_checkpoint(checkpoint(30), retention=keeping(2), segment=segment(30, "hash-20"))
    assert read_head(Storage(), run) == before


def test_an_older_attempt_publishes_no_ledger(run):
    old, head = claim(run)
    claim(run)
    with pytest.raises(
        TrainingError, match=r"superseded by attempt 2.*ledger/step-10\.jsonl is not published"
    ):
        old.publish_segment(segment(10, head.ledger_hash))
    assert read_head(Storage(), run).ledger == ()


def test_ledgers_of_runs_with_other_settings_or_data_do_not_begin_alike(tmp_path):
    starts = {
        claim(str(tmp_path / str(number)), RunIdentity(settings, parts))[1].ledger_hash
        for number, (settings, parts) in enumerate([("a", ("x",)), ("b", ("x",)), ("a", ("y",))])
    }
    assert len(starts) == 3


def test_further_parts_of_the_dataset_do_not_change_where_the_ledger_begins(run):
    _, head = claim(run)
    _, later = claim(run, RunIdentity("settings-1", ("part-a", "part-b")))
    assert later.ledger_hash == head.ledger_hash


def test_the_best_checkpoint_outlives_newer_ones(run):
    attempt, _ = claim(run)
    for step, loss in ((10, 3.0), (20, 1.0), (30, 2.0), (40, None)):
        attempt.publish_checkpoint(checkpoint(step, 1, loss), retention=keeping(1, keep_best=1))
    assert [known.step for known in read_head(Storage(), run).checkpoints] == [20, 40]


def test_a_checkpoint_that_is_passed_over_stays_on_record(run):
    attempt, _ = claim(run)
    for step in (10, 20):
        attempt.publish_checkpoint(checkpoint(step), retention=keeping(2))
    assert attempt.publish_passed_over(checkpoint(20), ["shard: is missing"]) == checkpoint(10)
    found = read_head(Storage(), run)
    assert found.checkpoints == (checkpoint(10),)
    assert found.passed_over == (PassedOver(checkpoint(20), 1, ("shard: is missing",)),)


def test_claims_made_at_the_same_time_all_get_numbers_of_their_own(run):
    numbers = []
    threads = [threading.Thread(target=lambda: numbers.append(claim(run)[0].attempt)) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(numbers) == [1, 2, 3, 4, 5, 6]


def test_a_claim_that_comes_between_reading_and_writing_wins(run):
    old, _ = claim(run)

    class Interrupted(Storage):
        def replace(self, uri, data, *, etag):
            if not interrupted:
                interrupted.append(True)
                claim(run)
            return super().replace(uri, data, etag=etag)

    interrupted = []
    late = type(old)(Interrupted(), old.run_uri, old.attempt)
    with pytest.raises(TrainingError, match="superseded by attempt 2"):
        late.publish_checkpoint(checkpoint(10), retention=keeping(1))
    assert read_head(Storage(), run).checkpoints == ()


def test_an_attempt_knows_whether_its_process_lives_on_this_machine(tmp_path):
    _, head = claim_attempt(Storage(), str(tmp_path / "run"), RunIdentity("c", ("d",)), world_size=1)
    mine = head.attempt
    assert mine.runs_here() is True
    assert replace(mine, host="elsewhere").runs_here() is None
    assert replace(mine, process_id=None).runs_here() is None
    # A number that is used again, by a process younger than the attempt.
    assert replace(mine, started_at="2001-01-01T00:00:00+00:00").runs_here() is False
    with subprocess.Popen(["true"]) as process:
        process.wait()
    assert replace(mine, process_id=process.pid).runs_here() is False
