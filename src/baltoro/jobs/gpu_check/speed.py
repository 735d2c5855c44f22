"""How fast the device is: copies, matrix products, training steps of a model of 110 million parameters."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING

from baltoro.checkpoint.state import TrainState
from baltoro.core.errors import ConfigError
from baltoro.data.feed import Feed, RowsInMemory
from baltoro.data.order import StepOrder
from baltoro.jobs.gpu_check.findings import Finding, attempted, measured
from baltoro.jobs.gpu_check.runs import one_rank, small_config, small_rows
from baltoro.models.flops import parameter_count, peak_flops, training_flops_per_token
from baltoro.models.load import ModelPlan
from baltoro.models.presets import preset_config
from baltoro.optim.schedule import build_schedule
from baltoro.parallel.build import refuse_missing_dtype
from baltoro.parallel.ranks import Ranks
from baltoro.parallel.strategy import Precision
from baltoro.parallel.timing import PhaseTimer
from baltoro.train.bad_steps import BadSteps
from baltoro.train.hooks import Hook
from baltoro.train.loop import train_steps
from baltoro.train.metrics import TOKENS_PER_SECOND, StepRecord
from baltoro.train.run import set_up_strategy
from baltoro.train.throughput import MFU, MODEL_FLOPS_PER_SECOND, Throughput

if TYPE_CHECKING:
    import torch

    from baltoro.train.config import TrainConfig

LEAST_SHARE = 0.4
"""Of the peak that the device's maker names; below it something holds the device back."""

PRESET, VOCABULARY = "llama-125m", 32_000


def check_speed(device: torch.device) -> list[Finding]:
    """Measure; only a matrix product far below the device's peak is remarked on, as a warning.

    Args:
        device: to run on.
    """
    return [
        *attempted("copies", partial(_measure_copies, device)),
        *attempted("matrix product", partial(_measure_product, device)),
        *attempted("training", partial(_measure_training, device)),
    ]


def _precision(device: torch.device) -> Precision:
    try:
        refuse_missing_dtype("bfloat16", device)
    except ConfigError:
        return "float16"
    return "bfloat16"


def _seconds(call: Callable[[], object], device: torch.device, times: int) -> float:
    """Return the shortest of some turns, with the device's work done; one turn before them warms up."""
    import torch

    def turn() -> float:
        began = time.perf_counter()
        call()
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        return time.perf_counter() - began

    turn()
    return min(turn() for _ in range(times))


def _measure_copies(device: torch.device) -> list[Finding]:
    import torch

    on_gpu = device.type == "cuda"
    size_bytes = (1 << 28) if on_gpu else (1 << 26)
    source = torch.zeros(size_bytes, dtype=torch.uint8, pin_memory=on_gpu)
    target = torch.empty(size_bytes, dtype=torch.uint8, device=device)
    seconds = _seconds(lambda: target.copy_(source, non_blocking=True), device, 5)
    where = "pinned host memory to the GPU" if on_gpu else "within host memory, since there is no GPU"
    return [
        measured("copy", size_bytes / seconds / 1e9, unit="GB/s", details=f"{size_bytes >> 20} MiB {where}")
    ]


def _measure_product(device: torch.device) -> list[Finding]:
    import torch

    precision = _precision(device)
    on_gpu = device.type == "cuda"
    size = 8192 if on_gpu else 1024
    dtype = {"bfloat16": torch.bfloat16, "float16": torch.float16}[precision]
    one, other = (torch.randn(size, size, device=device, dtype=dtype) for _ in range(2))
    rate = 2.0 * size**3 / _seconds(lambda: one @ other, device, 10)
    name, shape = f"matrix product {precision}", f"{size} × {size} × {size}"
    peak = peak_flops(torch.cuda.get_device_name(device), precision) if on_gpu else None
    if peak is None:
        told = f"{shape}; no peak of this device is known, so it is not judged"
        return [measured(name, rate / 1e12, unit="TFLOP/s", details=told)]
    return [judge_product(name, rate, peak, shape)]


def judge_product(name: str, rate: float, peak: float, shape: str) -> Finding:
    """Return what a rate means beside the device's peak.

    Args:
        name: of the finding.
        rate: reached, FLOP/s.
        peak: of the device, FLOP/s.
        shape: of the product.
    """
    share = rate / peak
    told = f"{shape}; {100 * share:.0f} % of the peak of {peak / 1e12:,.0f} TFLOP/s"
    if share >= LEAST_SHARE:
        return measured(name, rate / 1e12, unit="TFLOP/s", details=told)
    told += (
        f", less than {100 * LEAST_SHARE:.0f} %: look for another process on the device, a power limit, "
        "heat (clocks in the environment below), or a share of a device"
    )
    bound = LEAST_SHARE * peak / 1e12
    return Finding(name, "warning", rate / 1e12, "TFLOP/s", bound, True, told)


class _Rates(Hook):
    def __init__(self, throughput: Throughput) -> None:
        self._throughput = throughput
        self.metrics: list[dict[str, float]] = []

    def step_end(self, record: StepRecord) -> None:
        """Keep the step's figures."""
        self.metrics.append(self._throughput.metrics(record))

    def median(self, name: str) -> float | None:
        """Return the median of the steps after the first two, which allocate; ``None`` if it is not told."""
        values = [step[name] for step in self.metrics[2:] if name in step]
        return statistics.median(values) if values else None


def _measure_training(device: torch.device) -> list[Finding]:
    """Run the loop itself, without checkpoints and export, which would take longer than what is measured."""
    on_gpu = device.type == "cuda"
    length, rows, steps = (2048, 4, 20) if on_gpu else (128, 1, 4)
    precision = _precision(device)
    config = small_config(
        precision=precision, steps=steps, micro_batch=rows, global_batch_tokens=rows * length
    )
    settings = preset_config(PRESET, vocabulary_size=VOCABULARY, sequence_length=length).to_dict()
    plan = ModelPlan(settings)
    with one_rank(device):
        rates = _train(config, plan, device, length)
    told = (
        f"{PRESET} of {parameter_count(settings) / 1e6:.0f} M parameters, {steps} steps of {rows} × {length} "
        f"tokens, {precision}, {config.strategy}; median of the steps after the second"
    )
    findings = [
        measured("training", rates.median(TOKENS_PER_SECOND) or 0.0, unit="tokens/s", details=told),
        measured(
            "training, arithmetic",
            (rates.median(MODEL_FLOPS_PER_SECOND) or 0.0) / 1e12,
            unit="TFLOP/s",
            details="operations that the model needs",
        ),
    ]
    utilisation = rates.median(MFU)
    if utilisation is None:
        told = "no peak of this device is known, so there is no utilisation"
        return [*findings, Finding("training, MFU", "not available", details=told)]
    return [
        *findings,
        measured("training, MFU", 100.0 * utilisation, unit="%", details="of the device's peak"),
    ]


def _train(config: TrainConfig, plan: ModelPlan, device: torch.device, length: int) -> _Rates:
    import torch

    assert config.steps is not None
    peak = None
    if device.type == "cuda":
        peak = peak_flops(torch.cuda.get_device_name(device), config.precision)
    rates = _Rates(Throughput(device, training_flops_per_token(plan.config, length), peak))
    timer = PhaseTimer(device)
    ranks = Ranks()
    strategy = set_up_strategy(
        config, plan, device=device, timer=timer, rank=ranks.rank, sequence_length=length
    )
    rows = small_rows(
        config.steps * config.global_batch_tokens // length, sequence_length=length, vocabulary=VOCABULARY
    )
    order = StepOrder(len(rows), length, config.global_batch_tokens)
    schedule = build_schedule(
        config.schedule,
        learning_rate=config.optimizer.learning_rate,
        steps=config.steps,
        global_batch_tokens=config.global_batch_tokens,
    )
    with Feed(RowsInMemory(rows), order, order.split(1, config.micro_batch), rank=0) as feed:
        train_steps(
            strategy,
            feed,
            schedule=schedule,
            state=TrainState(),
            ranks=ranks,
            device=device,
            timer=timer,
            bad_steps=BadSteps(config.faults),
            hooks=[rates],
        )
    return rates
