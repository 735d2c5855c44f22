import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from baltoro.checkpoint.checkpointer import Checkpointer
from baltoro.checkpoint.config import CheckpointConfig
from baltoro.checkpoint.head import RunIdentity, claim_attempt, read_head
from baltoro.checkpoint.state import TrainState
from baltoro.core.errors import ArtifactError, BaltoroError, StorageError, TrainingError
from baltoro.core.storage import Storage
from baltoro.testing.distributed import run_distributed, single_process_group
from baltoro.testing.runs import execute, interrupted, tiny_run

pytestmark = pytest.mark.distributed


@pytest.fixture
def alone():
    with single_process_group():
        yield


def head(run):
    return read_head(Storage(), run.run_uri)


def test_a_run_leaves_its_last_checkpoints_a_finished_head_and_no_scratch(alone, tmp_path):
    run = tiny_run(tmp_path / "run", checkpoint=CheckpointConfig(every_steps=2, keep_last=3))
    _, result = execute(run)
    found = head(run)
    assert [entry.step for entry in found.checkpoints] == [6, 8, 10]
    assert sorted(path.name for path in (tmp_path / "run/checkpoints").iterdir()) == [
        f"step-{step:08d}-attempt-0001" for step in (6, 8, 10)
    ]
    assert found.checkpoints[-1].tokens_seen == result.tokens_seen
    assert (found.finished.step, found.finished.digest) == (10, result.export_digest)
    assert not list((tmp_path / "run-scratch").iterdir())
    marker = json.loads((tmp_path / "run" / found.checkpoints[-1].folder / "checkpoint.json").read_text())
    assert set(marker["files"]) == {".metadata", "__0_0.distcp", "random-00000.pt"}


def test_a_finished_run_is_not_trained_again(alone, tmp_path):
    run = tiny_run(tmp_path / "run")
    first = execute(run)[1]
    losses, second = execute(run)
    assert losses == {}
    assert second.resumed_from_step == 10
    assert second.export_digest == first.export_digest
    assert (second.loss_first, second.loss_last) == (first.loss_first, first.loss_last)
    assert second.validation_before == first.validation_before
    assert second.validation_after == first.validation_after


def test_another_dataset_is_refused_before_anything_is_written(alone, tmp_path):
    run = tiny_run(tmp_path / "run")
    execute(interrupted(run, 6))
    before = head(run)
    with pytest.raises(ArtifactError, match=r"token dataset \[rows\], this recipe has \[others\]"):
        execute(replace(run, dataset_parts=("others",)))
    assert head(run) == before


@pytest.mark.parametrize("name", ["__0_0.distcp", ".metadata", "random-00000.pt", "checkpoint.json"])
def test_a_damaged_checkpoint_is_refused_by_name(alone, tmp_path, name):
    run = tiny_run(tmp_path / "run")
    execute(interrupted(run, 6))
    path = tmp_path / "run" / head(run).checkpoints[-1].folder / name
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(bytes(data))
    with pytest.raises(ArtifactError, match=name.replace(".", r"\.")):
        execute(run)


def test_a_missing_shard_is_refused_by_name(alone, tmp_path):
    run = tiny_run(tmp_path / "run")
    execute(interrupted(run, 6))
    (tmp_path / "run" / head(run).checkpoints[-1].folder / "__0_0.distcp").unlink()
    with pytest.raises(ArtifactError, match=r"__0_0\.distcp: is missing"):
        execute(run)


def test_what_an_abandoned_attempt_left_unpublished_is_removed_at_the_next_claim(alone, tmp_path):
    run = tiny_run(tmp_path / "run")
    execute(interrupted(run, 6))
    left = tmp_path / "run/checkpoints/step-00000008-attempt-0001"
    left.mkdir()
    (left / "__0_0.distcp").write_bytes(b"half")
    execute(run)
    assert not left.exists()


def test_an_older_attempt_that_wakes_up_cannot_publish_and_stops(alone, tmp_path):
    run = tiny_run(tmp_path / "run")

    class Overtaken(Storage):
        """A newer attempt claims the run while the older one uploads its checkpoint of step 8."""

        def upload_folder(self, local_path, uri):
            super().upload_folder(local_path, uri)
            if "step-00000008" in uri:
                claim_attempt(Storage(), run.run_uri, RunIdentity("settings", ("rows",)), world_size=1)

    from baltoro.testing import runs

    original, runs.Storage = runs.Storage, Overtaken
    try:
        with pytest.raises(
            TrainingError, match=r"attempt 1 was superseded by attempt 2.*step 8 is not published"
        ):
            execute(run)
    finally:
        runs.Storage = original
    assert [entry.step for entry in head(run).checkpoints] == [4]
    losses, result = execute(run)
    assert list(losses) == [5, 6, 7, 8, 9, 10]
    assert result.attempt == 3


class OneParameter:
    """A strategy whose state is one tensor that training changes while a save is in flight."""

    def __init__(self):
        self.value = torch.arange(6.0)

    def state_dict(self):
        return {"model": {"weight": self.value}}

    def load_state_dict(self, state):
        self.value = state["model"]["weight"]


def checkpointer(folder, keep_last=1):
    claim, found = claim_attempt(Storage(), str(folder / "run"), RunIdentity("c", ("d",)), world_size=1)
    config = CheckpointConfig(keep_last=keep_last)
    made = Checkpointer(config, claim=claim, device=torch.device("cpu"), scratch=folder / "scratch")
    return made, found


def test_training_may_change_the_weights_while_a_save_is_in_flight(alone, tmp_path):
    strategy = OneParameter()
    saver, _ = checkpointer(tmp_path)
    saver.save(strategy, TrainState(step=1))
    strategy.value.fill_(-1)
    saver.wait()
    restored = OneParameter()
    restored.value.zero_()
    reader, found = checkpointer(tmp_path)
    assert reader.restore(restored, found, seed=0) == TrainState(step=1)
    assert restored.value.tolist() == [0, 1, 2, 3, 4, 5]


def test_random_generators_go_on_where_they_were(alone, tmp_path):
    saver, _ = checkpointer(tmp_path)
    torch.manual_seed(5)
    saver.save(OneParameter(), TrainState(step=1))
    saver.wait()
    expected = torch.rand(3)
    torch.manual_seed(6)
    reader, found = checkpointer(tmp_path)
    reader.restore(OneParameter(), found, seed=0)
    assert torch.equal(torch.rand(3), expected)


def test_a_checkpoint_of_another_model_is_refused(alone, tmp_path):
    saver, _ = checkpointer(tmp_path)
    saver.save(OneParameter(), TrainState(step=1))
    saver.wait()
    other = OneParameter()
    other.value = torch.zeros(7)
    reader, found = checkpointer(tmp_path)
    with pytest.raises(ArtifactError, match="cannot be loaded into this model"):
        reader.restore(other, found, seed=0)


def test_a_save_that_failed_is_reported_by_the_next_wait(alone, tmp_path):
    saver, _ = checkpointer(tmp_path)
    (tmp_path / "scratch").write_text("a file where a folder is needed")
    saver.save(OneParameter(), TrainState(step=1))
    with pytest.raises(StorageError, match="the checkpoint of step 1 cannot be written"):
        saver.wait()
    saver.wait()
    assert read_head(Storage(), str(tmp_path / "run")).checkpoints == ()


def save_where_rank_1_cannot_write(folder_name):
    folder = Path(folder_name)
    rank = torch.distributed.get_rank()
    claim = None
    from baltoro.parallel.ranks import Ranks

    ranks = Ranks()
    claim, _ = ranks.first(
        lambda: claim_attempt(Storage(), str(folder / "run"), RunIdentity("c", ("d",)), world_size=2)
    )
    scratch = folder / f"scratch-{rank}"
    if rank == 1:
        scratch.write_text("a file where a folder is needed")
    saver = Checkpointer(CheckpointConfig(), claim=claim, device=torch.device("cpu"), scratch=scratch)
    saver.save(OneParameter(), TrainState(step=1))
    try:
        saver.wait()
    except BaltoroError as error:
        return error.message
    return None


def test_a_rank_that_cannot_write_makes_the_save_fail_on_all(tmp_path):
    messages = run_distributed(save_where_rank_1_cannot_write, 2, str(tmp_path))
    assert all("scratch-1" in message and "cannot be written" in message for message in messages)
    assert read_head(Storage(), str(tmp_path / "run")).checkpoints == ()


def test_a_run_in_an_object_store_resumes_and_publishes_there(alone, tmp_path, s3):
    local = tiny_run(tmp_path / "run")
    whole = execute(local)[0]
    uri = f"{s3.uri}/runs/geo"
    run = replace(local, run_uri=uri, scratch=str(tmp_path / "scratch"))
    before = execute(interrupted(run, 6))[0]
    after, result = execute(run)
    assert before | after == whole
    assert result.export_uri.startswith(uri)
    keys = {info.key for info in Storage().list(uri)}
    assert {"head.json", "export-attempt-0002/model.safetensors", "export-attempt-0002/MLmodel"} <= keys
    assert not list((tmp_path / "scratch").iterdir())
