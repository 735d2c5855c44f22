import io
import json
import logging
import socket
import threading
import time
from dataclasses import asdict, replace
from pathlib import Path

import pytest
import torch
from torch.distributed.checkpoint import FileSystemReader
from torch.distributed.checkpoint.metadata import (
    ChunkStorageMetadata,
    MetadataIndex,
    TensorProperties,
)
from torch.distributed.checkpoint.planner import TensorWriteData, WriteItem, WriteItemType
from torch.distributed.checkpoint.state_dict_loader import load

from baltoro.checkpoint import shards
from baltoro.checkpoint.checkpointer import Checkpointer
from baltoro.checkpoint.config import CheckpointConfig
from baltoro.checkpoint.head import RunIdentity, claim_attempt, read_head
from baltoro.checkpoint.state import TrainState
from baltoro.core.errors import ArtifactError, BaltoroError, StorageError, TrainingError
from baltoro.core.storage import Storage, StorageProfile
from baltoro.parallel.ranks import Ranks
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
        """A newer attempt claims the run while the older one writes its checkpoint of step 8."""

        def write_bytes(self, uri, data):
            if "step-00000008" in uri and uri.endswith(".metadata"):
                claim_attempt(Storage(), run.run_uri, RunIdentity("settings", ("rows",)), world_size=1)
            return super().write_bytes(uri, data)

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


def checkpointer(folder, storage=None, **config):
    """A checkpointer of the next attempt, and the head as it found it; on any number of ranks."""
    ranks = Ranks()
    storage = storage or Storage()
    uri = folder if isinstance(folder, str) else str(folder / "run")
    claim, found = ranks.first(
        lambda: claim_attempt(storage, uri, RunIdentity("c", ("d",)), world_size=ranks.world_size)
    )
    # Rank 0's claim has its storage; a test may give each rank another one.
    claim = replace(claim, storage=storage)
    config = CheckpointConfig(**{"keep_last": 1, **config})
    return Checkpointer(config, claim=claim, device=torch.device("cpu")), found


class Refusing(Storage):
    """Cannot write what belongs to a checkpoint."""

    def write_bytes(self, uri, data):
        if "/checkpoints/" in uri:
            raise StorageError(f"{uri}: the store is full")
        return super().write_bytes(uri, data)


class Slow(Storage):
    """Takes a while for each shard."""

    def write_bytes(self, uri, data):
        if uri.endswith(".distcp"):
            time.sleep(0.3)
        return super().write_bytes(uri, data)


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
    saver, _ = checkpointer(tmp_path, Refusing())
    saver.save(OneParameter(), TrainState(step=1))
    with pytest.raises(StorageError, match=r"step-00000001-attempt-0001/__0_0.distcp: the store is full"):
        saver.wait()
    saver.wait()
    assert read_head(Storage(), str(tmp_path / "run")).checkpoints == ()


def save_where_rank_1_cannot_write(folder_name):
    rank = torch.distributed.get_rank()
    saver, _ = checkpointer(Path(folder_name), Refusing() if rank == 1 else Storage())
    saver.save(OneParameter(), TrainState(step=1))
    try:
        saver.wait()
    except BaltoroError as error:
        return error.message
    return None


def test_a_rank_that_cannot_write_makes_the_save_fail_on_all(tmp_path):
    messages = run_distributed(save_where_rank_1_cannot_write, 2, str(tmp_path))
    assert all("the store is full" in message for message in messages)
    assert read_head(Storage(), str(tmp_path / "run")).checkpoints == ()


class ManyParameters(OneParameter):
    """Tensors of several sizes and types, a tensor without elements or dimensions, and plain values."""

    def __init__(self, scale=1.0):
        self.value = {
            "large": torch.arange(3000.0).reshape(60, 50) * scale,
            "small": torch.arange(7, dtype=torch.int64),
            "half": torch.ones(4, 4, dtype=torch.bfloat16) * scale,
            "empty": torch.zeros(0, 3),
            "step": torch.tensor(3.0 * scale),
        }
        self.groups = [{"lr": 0.1 * scale, "betas": (0.9, 0.95)}]

    def state_dict(self):
        return {"model": dict(self.value), "optimizer": {"param_groups": self.groups}}

    def load_state_dict(self, state):
        self.value, self.groups = state["model"], state["optimizer"]["param_groups"]


def same(strategy, other):
    return strategy.groups == other.groups and all(
        torch.equal(value, other.value[name]) for name, value in strategy.value.items()
    )


def test_a_share_is_cut_into_objects_and_comes_back_whole(alone, tmp_path, monkeypatch):
    monkeypatch.setattr(shards, "OBJECT_BYTES", 4000)
    saver, _ = checkpointer(tmp_path)
    saver.save(ManyParameters(), TrainState(step=1))
    saver.wait()
    names = {path.name for path in (tmp_path / "run/checkpoints/step-00000001-attempt-0001").iterdir()}
    assert {"__0_0.distcp", "__0_1.distcp"} <= names
    reader, found = checkpointer(tmp_path)
    restored = ManyParameters(scale=0.0)
    reader.restore(restored, found, seed=0)
    assert same(restored, ManyParameters())


def test_torchs_own_tools_read_a_checkpoint(alone, tmp_path):
    saver, _ = checkpointer(tmp_path)
    saver.save(ManyParameters(), TrainState(step=1))
    saver.wait()
    content = ManyParameters(scale=0.0).state_dict()
    load(content, storage_reader=FileSystemReader(tmp_path / "run/checkpoints/step-00000001-attempt-0001"))
    restored = ManyParameters(scale=0.0)
    restored.load_state_dict(content)
    assert same(restored, ManyParameters())


class Boxed:
    """Rows [start, stop) of a matrix, as one box that is no tensor of torch's."""

    def __init__(self, start, stop, values):
        self.start, self.stop, self.values = start, stop, values

    def chunk(self):
        return ChunkStorageMetadata(torch.Size([self.start, 0]), self.values.shape)

    def __create_write_items__(self, fqn, _):
        data = TensorWriteData(
            self.chunk(), TensorProperties.create_from_tensor(self.values), torch.Size([12, 5])
        )
        return [WriteItem(MetadataIndex(fqn, [self.start, 0]), WriteItemType.SHARD, tensor_data=data)]

    def __create_chunk_list__(self):
        return [self.chunk()]

    def __get_tensor_shard__(self, index):
        assert index.offset == torch.Size([self.start, 0])
        return self.values

    def size(self):
        return torch.Size([12, 5])


class BoxedParameter:
    """A strategy whose parameter is spread over the ranks in boxes, whole only in their sum."""

    def __init__(self, scale):
        rank, ranks = torch.distributed.get_rank(), torch.distributed.get_world_size()
        start, stop = 12 * rank // ranks, 12 * (rank + 1) // ranks
        self.box = Boxed(start, stop, (torch.arange(60.0).reshape(12, 5) * scale)[start:stop].clone())
        self.shared = torch.arange(100.0) * scale

    def state_dict(self):
        return {"model": {"weight": self.box, "shared": self.shared}}

    def load_state_dict(self, state):
        assert state["model"]["weight"] is self.box
        self.shared = state["model"]["shared"]


def save_boxes(folder_name, steps):
    saver, _ = checkpointer(Path(folder_name), keep_last=9)
    for step in range(1, steps + 1):
        saver.save(BoxedParameter(scale=float(step)), TrainState(step=step))
    saver.wait()
    return list(saver._copies._buffers)


def load_boxes(folder_name):
    reader, found = checkpointer(Path(folder_name))
    strategy = BoxedParameter(scale=0.0)
    state = reader.restore(strategy, found, seed=0)
    return state.step, strategy.box.values.tolist(), strategy.shared.tolist()


def test_boxes_of_a_tensor_are_loaded_on_another_number_of_ranks(tmp_path):
    copied = run_distributed(save_boxes, 2, str(tmp_path), 3)
    # From the second save on, what both ranks have is copied by the one that writes it.
    assert sum(index.fqn == "model.shared" for share in copied for index in share) == 1
    for ranks in (1, 3):
        found = run_distributed(load_boxes, ranks, str(tmp_path))
        rows = [row for _, box, _ in found for row in box]
        assert rows == (torch.arange(60.0).reshape(12, 5) * 3).tolist()
        assert all((step, shared) == (3, (torch.arange(100.0) * 3).tolist()) for step, _, shared in found)


def test_host_memory_is_reused_from_save_to_save(alone, tmp_path):
    saver, _ = checkpointer(tmp_path)
    strategy = OneParameter()
    places = []
    for step in (1, 2, 3):
        strategy.value += 1
        saver.save(strategy, TrainState(step=step))
        saver.wait()
        places.append([buffer.data_ptr() for buffer in saver._copies._buffers.values()])
    assert len(places[0]) == 1
    assert places[0] == places[1] == places[2]
    restored = OneParameter()
    reader, found = checkpointer(tmp_path)
    reader.restore(restored, found, seed=0)
    assert torch.equal(restored.value, torch.arange(6.0) + 3)


def test_a_save_waits_for_the_one_before_and_says_how_long(alone, tmp_path):
    saver, _ = checkpointer(tmp_path, Slow(), keep_last=9)
    assert saver.save_takes_seconds is None
    for step in (1, 2):
        saver.save(OneParameter(), TrainState(step=step))
    saver.wait()
    assert saver.last_save.step == 2
    assert saver.last_save.waited_seconds >= 0.2
    assert saver.last_save.written_seconds >= 0.3
    assert saver.last_save.staged_seconds < saver.last_save.written_seconds
    assert saver.save_takes_seconds >= 0.3
    steps = [known.step for known in read_head(Storage(), str(tmp_path / "run")).checkpoints]
    assert steps == [1, 2]


def test_a_step_that_is_saved_is_not_saved_again(alone, tmp_path):
    saver, _ = checkpointer(tmp_path)
    saver.save(OneParameter(), TrainState(step=1))
    saver.save(OneParameter(), TrainState(step=1))
    assert saver.save_if_it_fits(OneParameter(), TrainState(step=1), 0.0 if saver._saving is None else 9.0)
    saver.save(OneParameter(), TrainState(step=1))
    saver.wait()
    assert len(read_head(Storage(), str(tmp_path / "run")).checkpoints) == 1


def save_under_notice(folder_name, grace_seconds):
    """Save twice at leisure, then with little time on one of the ranks."""
    rank = torch.distributed.get_rank()
    saver, _ = checkpointer(Path(folder_name), Slow() if rank == 0 else Storage(), keep_last=9)
    strategy = OneParameter()
    unknown = saver.save_if_it_fits(strategy, TrainState(step=1), 0.01)
    saver.save(strategy, TrainState(step=2))
    # One save is under way, and another one has to follow it.
    grace_seconds = grace_seconds if rank == 1 else 60.0
    return unknown, saver.save_if_it_fits(strategy, TrainState(step=3), grace_seconds), saver.wait()


@pytest.mark.parametrize(("grace_seconds", "fits"), [(60.0, True), (0.35, False)])
def test_a_save_that_does_not_fit_is_not_begun_on_any_rank(tmp_path, grace_seconds, fits):
    answers = run_distributed(save_under_notice, 2, str(tmp_path), grace_seconds)
    assert answers == [(True, fits, None)] * 2
    steps = [known.step for known in read_head(Storage(), str(tmp_path / "run")).checkpoints]
    assert steps == [1, 2, 3][: 3 if fits else 2]
    folders = {path.name for path in (tmp_path / "run/checkpoints").iterdir()}
    assert len(folders) == len(steps)


def test_what_a_save_takes_is_known_after_a_restart(alone, tmp_path):
    saver, _ = checkpointer(tmp_path, Slow())
    saver.save(OneParameter(), TrainState(step=1))
    saver.wait()
    again, found = checkpointer(tmp_path)
    again.restore(OneParameter(), found, seed=0)
    assert again.save_takes_seconds >= 0.3
    assert not again.save_if_it_fits(OneParameter(), TrainState(step=2), 0.1)


def test_the_best_checkpoint_is_kept_with_its_files(alone, tmp_path):
    saver, _ = checkpointer(tmp_path, keep_last=1, keep_best=1)
    for step, loss in ((1, 3.0), (2, 1.0), (3, float("nan")), (4, 2.0)):
        saver.save(OneParameter(), TrainState(step=step), validation_loss=loss)
    saver.wait()
    found = read_head(Storage(), str(tmp_path / "run")).checkpoints
    assert [(known.step, known.validation_loss) for known in found] == [(2, 1.0), (4, 2.0)]
    assert {path.name for path in (tmp_path / "run/checkpoints").iterdir()} == {
        Path(known.folder).name for known in found
    }


def resume_from_damage(folder_name, on_damage):
    """Restore on every rank; the step, or what was said."""
    messages = io.StringIO()
    logging.getLogger("baltoro.checkpoint").addHandler(logging.StreamHandler(messages))
    reader, found = checkpointer(Path(folder_name), keep_last=9, on_damage=on_damage)
    strategy = BoxedParameter(scale=0.0)
    try:
        step = reader.restore(strategy, found, seed=0).step
    except ArtifactError as error:
        return error.message
    reader.save(strategy, TrainState(step=9))
    reader.wait()
    return step, strategy.shared[1].item(), messages.getvalue()


def damage(folder_name, step, name):
    path = Path(folder_name) / f"run/checkpoints/step-{step:08d}-attempt-0001" / name
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(bytes(data))


def test_a_damaged_checkpoint_is_passed_over_only_where_the_recipe_says_so(tmp_path):
    run_distributed(save_boxes, 2, str(tmp_path), 3)
    damage(tmp_path, 3, "__1_0.distcp")
    before = read_head(Storage(), str(tmp_path / "run"))
    messages = run_distributed(resume_from_damage, 2, str(tmp_path), "stop")
    assert messages[0] == messages[1]
    assert "step-00000003-attempt-0001/__1_0.distcp: is damaged" in messages[0]
    assert "set pretrain.checkpoint.on_damage=previous to resume from step 2" in messages[0]
    assert read_head(Storage(), str(tmp_path / "run")).checkpoints == before.checkpoints

    (tmp_path / "run/checkpoints/step-00000002-attempt-0001/checkpoint.json").unlink()
    (step, value, said), (other_step, other_value, _) = run_distributed(
        resume_from_damage, 2, str(tmp_path), "previous"
    )
    assert (step, value) == (other_step, other_value) == (1, 1.0)
    assert "THE CHECKPOINT OF STEP 3 IS DAMAGED" in said
    assert "THE CHECKPOINT OF STEP 2 IS DAMAGED" in said
    head = read_head(Storage(), str(tmp_path / "run"))
    assert [known.step for known in head.checkpoints] == [1, 9]
    assert [(passed.checkpoint.step, passed.attempt) for passed in head.passed_over] == [(3, 3), (2, 3)]
    assert "checkpoint.json: is missing" in head.passed_over[1].damage[0]


def test_damage_in_the_only_checkpoint_is_never_passed_over(tmp_path):
    run_distributed(save_boxes, 2, str(tmp_path), 1)
    damage(tmp_path, 1, ".metadata")
    messages = run_distributed(resume_from_damage, 2, str(tmp_path), "previous")
    assert all("there is no older checkpoint" in message for message in messages)


def test_a_store_that_is_away_is_no_damage(alone, tmp_path):
    saver, _ = checkpointer(tmp_path, keep_last=9)
    for step in (1, 2):
        saver.save(OneParameter(), TrainState(step=step))
    saver.wait()

    class Away(Storage):
        def read_range(self, uri, start, length):
            raise StorageError("the store is away")

    reader, found = checkpointer(tmp_path, Away(), on_damage="previous")
    with pytest.raises(StorageError, match="the store is away"):
        reader.restore(OneParameter(), found, seed=0)
    assert read_head(Storage(), str(tmp_path / "run")).passed_over == ()


def execute_one(run):
    """Train on every rank; losses of this attempt."""
    return execute(run)[0]


def test_a_run_goes_from_two_to_four_to_one_ranks(tmp_path):
    whole = run_distributed(execute_one, 2, tiny_run(tmp_path / "whole"))[0]
    run = tiny_run(tmp_path / "run", checkpoint=CheckpointConfig(every_steps=2))
    losses = run_distributed(execute_one, 2, interrupted(run, 4))[0]
    losses |= run_distributed(execute_one, 4, interrupted(run, 8))[0]
    losses |= run_distributed(execute_one, 1, run)[0]
    assert list(losses) == list(whole)
    for step, loss in whole.items():
        assert losses[step] == pytest.approx(loss, abs=1e-5), f"step {step}"
    assert [attempt.world_size for attempt in head(run).attempts] == [2, 4, 1]


def test_a_run_resumes_bit_by_bit_on_as_many_ranks(tmp_path):
    whole = run_distributed(execute_one, 2, tiny_run(tmp_path / "whole"))[0]
    run = tiny_run(tmp_path / "run", checkpoint=CheckpointConfig(every_steps=2, asynchronous=True))
    before = run_distributed(execute_one, 2, interrupted(run, 5))[0]
    after = run_distributed(execute_one, 2, run)[0]
    assert min(after) == 5
    assert before | after == whole
    assert asdict(head(tiny_run(tmp_path / "whole")).finished)["digest"] == head(run).finished.digest


def test_a_large_tensor_goes_to_an_object_store_in_parts_and_comes_back(alone, s3):
    saver, _ = checkpointer(f"{s3.uri}/run")
    strategy = OneParameter()
    strategy.value = torch.arange(20_000_000, dtype=torch.float32)
    saver.save(strategy, TrainState(step=1))
    saver.wait()
    stored = {info.key: info for info in Storage().list(f"{s3.uri}/run/checkpoints")}
    assert "-" in stored["step-00000001-attempt-0001/__0_0.distcp"].etag
    reader, found = checkpointer(f"{s3.uri}/run")
    restored = OneParameter()
    restored.value = torch.zeros(20_000_000)
    reader.restore(restored, found, seed=0)
    assert torch.equal(restored.value, strategy.value)


class Door:
    """A way to a server that can be shut: connections are refused, as by a server that is gone."""

    def __init__(self, endpoint):
        self.server = ("127.0.0.1", int(endpoint.rpartition(":")[2]))
        self.listener, self.port, self.streams = None, 0, []
        self.open()

    def open(self):
        self.listener = socket.create_server(("127.0.0.1", self.port))
        self.port = self.listener.getsockname()[1]
        threading.Thread(target=self.accept, args=(self.listener,), daemon=True).start()

    def shut(self):
        self.listener.shutdown(socket.SHUT_RDWR)
        self.listener.close()
        for stream in self.streams:
            stream.close()

    def accept(self, listener):
        while True:
            try:
                pair = (listener.accept()[0], socket.create_connection(self.server))
            except OSError:
                return
            self.streams += pair
            for source, target in (pair, pair[::-1]):
                threading.Thread(target=self.pass_on, args=(source, target), daemon=True).start()

    def pass_on(self, source, target):
        try:
            while data := source.recv(1 << 16):
                target.sendall(data)
            target.shutdown(socket.SHUT_WR)
        except OSError:
            pass


def test_a_save_outlives_an_object_store_that_is_away_for_a_while(alone, s3):
    door = Door(s3.endpoint_url)
    profile = StorageProfile(endpoint_url=f"http://127.0.0.1:{door.port}", max_attempts=20)
    storage = Storage({s3.uri: profile})
    saver, _ = checkpointer(f"{s3.uri}/run", storage)
    door.shut()
    saver.save(OneParameter(), TrainState(step=1))
    time.sleep(2.0)
    assert not saver._saving.done.done()
    door.open()
    saver.wait()
    assert [known.step for known in read_head(Storage(), f"{s3.uri}/run").checkpoints] == [1]
    door.shut()


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


def test_a_finished_run_keeps_its_export_and_mends_one_that_is_damaged(alone, tmp_path):
    run = tiny_run(tmp_path / "run")
    first = execute(run)[1]
    again = execute(run)[1]
    assert again.attempt == 2
    assert (again.export_uri, again.export_files) == (first.export_uri, first.export_files)
    head = read_head(Storage(), run.run_uri)
    assert first.export_uri.endswith(f"/{head.finished.export}")
    assert [path.name for path in Path(run.run_uri).glob("export-*")] == ["export-attempt-0001"]

    weights = Path(first.export_uri) / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1])
    mended = execute(run)[1]
    assert mended.export_uri.endswith("/export-attempt-0003")
    assert mended.export_digest == first.export_digest
    assert read_head(Storage(), run.run_uri).finished.export == "export-attempt-0003"
