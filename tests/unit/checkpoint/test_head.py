import json
import threading

import pytest

from baltoro.checkpoint.head import (
    Finished,
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


def checkpoint(step, attempt=1):
    return PublishedCheckpoint(step, step * 100, attempt, f"checkpoints/step-{step}-{attempt}", "0" * 64)


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
    assert attempt.publish_checkpoint(checkpoint(10), keep_last=2) == []
    attempt.publish_checkpoint(checkpoint(20), keep_last=2)
    assert attempt.publish_checkpoint(checkpoint(30), keep_last=2) == [checkpoint(10)]
    assert read_head(Storage(), run).checkpoints == (checkpoint(20), checkpoint(30))


def test_an_older_attempt_publishes_nothing_and_is_told_by_whom(run):
    old, _ = claim(run)
    old.publish_checkpoint(checkpoint(10), keep_last=2)
    new, head = claim(run)
    assert head.checkpoints == (checkpoint(10),)
    before = read_head(Storage(), run)
    with pytest.raises(
        TrainingError, match=r"attempt 1 was superseded by attempt 2, .*step 20 is not published"
    ):
        old.publish_checkpoint(checkpoint(20), keep_last=2)
    with pytest.raises(TrainingError, match="its export is not published"):
        old.publish_finished(Finished(20, "export", "0"))
    assert read_head(Storage(), run) == before
    new.publish_checkpoint(checkpoint(20, attempt=2), keep_last=2)
    assert read_head(Storage(), run).checkpoints[-1].attempt == 2


def test_a_replayed_step_replaces_what_lay_beyond_the_point_of_resume(run):
    old, _ = claim(run)
    for step in (10, 20):
        old.publish_checkpoint(checkpoint(step), keep_last=5)
    new, _ = claim(run)
    dropped = new.publish_checkpoint(checkpoint(15, attempt=2), keep_last=5)
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
    Storage().write_bytes(path, b'{"schema_version": 1}')
    with pytest.raises(ArtifactError, match=r"head\.json: is not the head of a run"):
        claim(run)
    assert Storage().read_bytes(path) == b'{"schema_version": 1}'


def test_a_head_of_a_newer_version_is_refused(run):
    claim(run)
    record = json.loads(Storage().read_bytes(f"{run}/head.json"))
    Storage().write_bytes(f"{run}/head.json", json.dumps({**record, "schema_version": 2}).encode())
    with pytest.raises(ArtifactError, match="schema version 2, this Baltoro reads 1"):
        read_head(Storage(), run)


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
        late.publish_checkpoint(checkpoint(10), keep_last=1)
    assert read_head(Storage(), run).checkpoints == ()
