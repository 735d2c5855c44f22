import os
import time

import pytest
import torch
import torch.distributed as dist

from baltoro.testing.distributed import RankFailedError, run_distributed

pytestmark = pytest.mark.distributed


def add_ranks(offset):
    value = torch.tensor([dist.get_rank() + offset])
    dist.all_reduce(value)
    return os.getpid(), int(value)


def fail_on(rank):
    if dist.get_rank() == rank:
        raise ValueError(f"rank {rank} did not like it")
    dist.barrier()


def die_on(rank):
    if dist.get_rank() == rank:
        os._exit(7)
    dist.barrier()


def hang():
    time.sleep(60)


def test_every_rank_is_a_process_of_its_own_and_results_come_in_rank_order():
    results = run_distributed(add_ranks, 2, 10)
    assert len({pid for pid, _ in results} | {os.getpid()}) == 3
    assert [value for _, value in results] == [21, 21]


def test_the_traceback_of_the_rank_that_failed_first_is_shown():
    with pytest.raises(
        RankFailedError, match=r"rank 1 of 2 failed:(?s:.*)ValueError: rank 1 did not like it"
    ):
        run_distributed(fail_on, 2, 1)


def test_a_rank_that_dies_is_reported_and_nobody_is_waited_for():
    began = time.monotonic()
    with pytest.raises(RankFailedError):
        run_distributed(die_on, 2, 0)
    assert time.monotonic() - began < 40


def test_a_run_that_takes_too_long_is_ended():
    with pytest.raises(RankFailedError, match=r"ranks \[0\] did not finish within 3 seconds"):
        run_distributed(hang, 1, timeout_seconds=3)
