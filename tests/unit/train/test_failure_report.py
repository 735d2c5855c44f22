"""What a rank tells of its failure, and which rank is to blame."""

import logging
import random
import threading

import pytest
import torch

from baltoro.core.errors import ConfigError, StorageError, TrainingError
from baltoro.parallel.config import DeepSpeedConfig, Fsdp2Config, ParallelConfig
from baltoro.train.config import LossConfig, TrainConfig
from baltoro.train.failure_report import (
    Place,
    RankReport,
    RecentLines,
    describe_error,
    dump_stacks,
    explain_out_of_memory,
    find_cause,
    is_collateral,
    is_out_of_memory,
    report_of_rank,
)

GLOO = RuntimeError(
    "[../third_party/gloo/gloo/transport/tcp/pair.cc:547] Connection closed by peer [127.0.0.1]:37193"
)


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (GLOO, True),
        (RuntimeError("NCCL error: remote process exited or there was a network error"), True),
        (RuntimeError("[Rank 1] Watchdog caught collective operation timeout: WorkNCCL(SeqNum=5)"), True),
        (ConnectionResetError("[Errno 104] Connection reset by peer"), True),
        (TrainingError("rank 3 failed: OSError: no such file"), True),
        (StorageError(f"the checkpoint of step 4 cannot be written ({GLOO})"), True),
        (TrainingError("rank 0 failed: OSError: no such file"), False),
        (StorageError("s3://b/k: Connection reset by peer after 5 attempts"), False),
        (TrainingError("step 3: loss nan is not finite"), False),
        (RuntimeError("shape '[3]' is invalid for input of size 4"), False),
        (KeyError("x"), False),
    ],
)
def test_the_loss_of_a_peer_is_told_from_an_error_of_one_s_own(error, expected):
    assert is_collateral(error, rank=0) is expected


def raised(rank: int, error: BaseException, at: float = 5.0) -> RankReport:
    return RankReport(rank, "raised", at, error=describe_error(error, rank=rank))


def ended(rank: int, at: float = 9.0) -> RankReport:
    return RankReport(rank, "ended", at)


def hung(rank: int, *, waiting: bool, kind: str = "hung", at: float = 5.0) -> RankReport:
    return RankReport(rank, kind, at, place=Place("recv" if waiting else "sleep", waiting))


@pytest.mark.parametrize(
    ("reports", "blamed"),
    [
        # The peer's complaint comes first, the death is noticed later.
        ([raised(0, GLOO, at=1.0), ended(1)], 1),
        ([raised(0, GLOO), raised(1, GLOO), raised(2, ValueError("bad"), at=8.0)], 2),
        ([raised(0, TrainingError("rank 1 failed: ValueError: bad")), raised(1, ValueError("bad"))], 1),
        ([hung(0, waiting=True, at=1.0), hung(1, waiting=False), hung(2, waiting=True)], 1),
        # The rank that stands still was only asked: its own watchdog had not noticed yet.
        ([hung(0, waiting=True), hung(1, waiting=False, kind="asked")], 1),
        ([raised(0, GLOO), hung(1, waiting=True)], 1),
        ([raised(1, ValueError("a"), at=2.0), raised(0, ValueError("b"), at=3.0)], 1),
        ([raised(1, ValueError("a")), raised(0, ValueError("b"))], 0),
        # Who was only asked is not to blame, whatever it was doing.
        ([hung(0, waiting=False, kind="asked"), ended(1)], 1),
        ([raised(0, GLOO), hung(1, waiting=False, kind="asked")], 0),
    ],
)
def test_the_first_failing_rank_is_blamed_never_one_that_lost_a_peer(reports, blamed):
    for _ in range(4):
        random.Random(blamed).shuffle(reports)
        assert find_cause(reports).report.rank == blamed


def test_nobody_is_blamed_when_nobody_failed():
    assert find_cause([]) is None
    assert find_cause([hung(0, waiting=False, kind="asked")]) is None


def test_the_sentence_names_rank_and_error():
    assert find_cause([raised(3, ValueError("bad"))]).sentence() == "rank 3: ValueError: bad"
    config = raised(0, ConfigError("micro_batch=0 is wrong"))
    assert find_cause([config]).sentence() == "rank 0: micro_batch=0 is wrong"
    assert find_cause([ended(2)]).sentence() == "rank 2: its process ended without a word"


def test_a_report_holds_stacks_lines_and_the_error_s_traceback():
    def inner() -> None:
        raise KeyError("who")

    try:
        inner()
    except KeyError as error:
        report = report_of_rank(
            4, "raised", step=9, thread=threading.get_ident(), error=error, lines=("one",)
        )
    assert (report.rank, report.step, report.lines) == (4, 9, ("one",))
    assert report.error.type_name == "KeyError"
    assert "in inner" in report.error.traceback
    assert report.place is None


def test_stacks_of_other_threads_are_shown_with_their_names():
    release = threading.Event()

    def waits_here() -> None:
        release.wait(20)

    thread = threading.Thread(target=waits_here, name="a-thread-of-its-own")
    thread.start()
    try:
        text = dump_stacks()
        place = report_of_rank(0, "hung", step=None, thread=thread.ident).place
    finally:
        release.set()
        thread.join()
    assert "Thread a-thread-of-its-own" in text
    assert "in waits_here" in text
    assert place.text.startswith("wait (")
    assert not place.in_collective


def test_the_last_lines_are_kept_and_fresh_ones_given_once():
    lines = RecentLines(3)
    logger = logging.getLogger("baltoro.test_recent")
    logger.addHandler(lines)
    try:
        for number in range(5):
            logger.warning("line %d", number)
        assert [line.rsplit(": ", 1)[1] for line in lines.lines] == ["line 2", "line 3", "line 4"]
        assert len(lines.take_fresh()) == 3
        logger.warning("line 5")
        assert [line.rsplit(" ", 1)[1] for line in lines.take_fresh()] == ["5"]
        assert lines.take_fresh() == []
    finally:
        logger.removeHandler(lines)


def cpu_error() -> BaseException:
    try:
        torch.empty(1 << 60, dtype=torch.uint8)
    except RuntimeError as error:
        return error
    raise AssertionError


CUDA = torch.OutOfMemoryError(
    "CUDA out of memory. Tried to allocate 2.50 GiB. GPU 0 has a total capacity of 79.10 GiB of which 1.02 "
    "GiB is free."
)


def test_every_kind_of_out_of_memory_is_known():
    assert is_out_of_memory(CUDA)
    assert is_out_of_memory(cpu_error())
    assert is_out_of_memory(MemoryError("Unable to allocate 8.00 TiB for an array"))
    assert not is_out_of_memory(RuntimeError("out of luck"))
    explained = explain_out_of_memory(CUDA, TrainConfig(), device=torch.device("cpu"), sequence_length=512)
    explained.__cause__ = CUDA
    assert describe_error(explained, rank=0).out_of_memory


@pytest.mark.parametrize(
    ("error", "size"),
    [
        (CUDA, "2.50 GiB"),
        (cpu_error(), "1073741824.00 GiB"),
        (MemoryError("Unable to allocate 8.00 TiB for an array with shape (1,)"), "8.00 TiB"),
    ],
)
def test_what_was_asked_for_is_named(error, size):
    text = str(explain_out_of_memory(error, TrainConfig(), device=torch.device("cpu"), sequence_length=512))
    assert f"out of memory on cpu while it asked for {size}" in text
    assert "GiB of the host's memory" in text


def settings_named(**settings) -> str:
    device = torch.device("cpu")
    config = TrainConfig(**settings)
    text = str(explain_out_of_memory(MemoryError(), config, device=device, sequence_length=4096))
    return text.partition("what needs less: ")[2]


def test_only_settings_that_can_still_give_something_are_named():
    wide = settings_named(micro_batch=4, loss=LossConfig(implementation="full"), strategy="ddp")
    for part in (
        "micro_batch=4",
        "loss.implementation=full (chunked",
        "parallel.activation_checkpointing=none (full",
        "strategy=ddp (fsdp2",
        "data.sequence_length=4096",
    ):
        assert part in wide
    narrow = settings_named(
        loss=LossConfig(chunk_tokens=128),
        parallel=ParallelConfig(
            activation_checkpointing="full", dp_replicate=2, fsdp2=Fsdp2Config(reshard_after_forward=False)
        ),
    )
    for part in ("micro_batch", "chunk_tokens", "activation_checkpointing", "cpu_offload"):
        assert part not in narrow
    assert "parallel.dp_replicate=2" in narrow
    assert "reshard_after_forward=false" in narrow
    zero = settings_named(
        strategy="deepspeed", parallel=ParallelConfig(deepspeed=DeepSpeedConfig(zero_stage=1))
    )
    assert "parallel.deepspeed.zero_stage=1 (3" in zero
    assert "dp_shard" not in zero
