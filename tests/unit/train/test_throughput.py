"""Utilisation and peak memory."""

import pytest
import torch

from baltoro.checkpoint.state import TrainState
from baltoro.parallel.strategy import Update
from baltoro.train.bad_steps import GOOD
from baltoro.train.metrics import StepRecord
from baltoro.train.throughput import Throughput, peak_memory

CPU = torch.device("cpu")
MIB = 1 << 20


def record(tokens=8000, seconds=2.0, world_size=4):
    return StepRecord(
        state=TrainState(step=1),
        rows=range(8),
        digest="",
        loss=1.0,
        update=Update(1.0, stepped=True),
        verdict=GOOD,
        learning_rate=0.1,
        tokens=tokens,
        valid_tokens=tokens,
        phase_seconds={},
        seconds=seconds,
        world_size=world_size,
    )


def test_utilisation_is_the_models_work_over_the_peak_of_the_devices():
    # 1000 tokens/s on each of four devices, 6e9 operations each: 6e12 of 1e13.
    metrics = Throughput(CPU, flops_per_token=6e9, device_peak_flops=1e13).metrics(record())
    assert metrics["throughput/model_flops_per_second_per_device"] == pytest.approx(6e12)
    assert metrics["throughput/mfu_fraction"] == pytest.approx(0.6)


def test_what_is_not_known_is_left_out():
    assert "throughput/mfu_fraction" not in Throughput(CPU, flops_per_token=6e9).metrics(record())
    assert "throughput/mfu_fraction" not in Throughput(CPU, device_peak_flops=1e13).metrics(record())
    assert "throughput/mfu_fraction" not in Throughput(CPU, 6e9, 1e13).metrics(record(seconds=0.0))


def test_every_metric_of_the_step_is_kept():
    assert record().metrics().items() <= Throughput(CPU).metrics(record()).items()


def test_peak_memory_is_in_bytes_and_does_not_fall():
    before = peak_memory(CPU)["memory/process_peak_bytes"]
    assert 50 * MIB < before < 100_000 * MIB
    size = int(before) + 50 * MIB - _resident_bytes()
    block = bytearray(size)
    during = peak_memory(CPU)["memory/process_peak_bytes"]
    del block
    assert during > before + 30 * MIB
    # The kernel adds up its counters of resident pages only now and then.
    assert peak_memory(CPU)["memory/process_peak_bytes"] > during - 2 * MIB


def _resident_bytes():
    import psutil

    return psutil.Process().memory_info().rss
