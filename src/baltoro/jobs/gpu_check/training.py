"""Whole training runs on the device: resumed, compiled, in other precisions."""

from __future__ import annotations

import contextlib
import importlib.util
import shutil
import statistics
import tempfile
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from baltoro.checkpoint.config import CheckpointConfig
from baltoro.core.errors import ConfigError
from baltoro.jobs.gpu_check.findings import (
    Finding,
    at_least,
    at_most,
    attempted,
    holds,
    measured,
    not_available,
)
from baltoro.jobs.gpu_check.runs import STEPS, Curve, largest_difference, one_rank, small_config, train_small
from baltoro.parallel.build import refuse_missing_dtype
from baltoro.parallel.config import DeepSpeedConfig, ParallelConfig, StrategyName
from baltoro.parallel.strategy import Precision
from baltoro.train.config import LossConfig

if TYPE_CHECKING:
    import torch

FLOAT32_BOUND = 1e-4
BFLOAT16_BOUND = 2e-2

CHECKPOINT_EVERY = 5
INTERRUPT_AT = 8

_NO_DETERMINISTIC_FORM = "does not have a deterministic implementation"


@contextlib.contextmanager
def _folder() -> Iterator[Path]:
    with tempfile.TemporaryDirectory(prefix="baltoro-gpu-check-") as name:
        yield Path(name)


def _best_precision(device: torch.device) -> Precision:
    """Return bfloat16 where the device has it: masters must then come back in more than that."""
    try:
        refuse_missing_dtype("bfloat16", device)
    except ConfigError:
        return "float32"
    return "bfloat16"


def check_resume(device: torch.device) -> list[Finding]:
    """Interrupt runs of FSDP2 and ZeRO-2, resume them, and compare with runs that nobody interrupted.

    Args:
        device: to run on.
    """
    with one_rank(device):
        findings = attempted("fsdp2", partial(_check_resume, "fsdp2", device))
        if importlib.util.find_spec("deepspeed") is None:
            why = "deepspeed is not installed; `pip install 'baltoro[deepspeed]'` to have it tried"
            return [*findings, not_available("deepspeed", why)]
        return findings + attempted("deepspeed", partial(_check_resume, "deepspeed", device))


def _check_resume(strategy: StrategyName, device: torch.device) -> list[Finding]:
    label = "fsdp2" if strategy == "fsdp2" else "deepspeed ZeRO-2"
    deepspeed = DeepSpeedConfig(zero_stage=2)
    config = small_config(
        strategy=strategy,
        parallel=ParallelConfig(deepspeed=deepspeed) if strategy == "deepspeed" else ParallelConfig(),
        precision=_best_precision(device),
        # Kernels that give the same bits every time, if they are asked to.
        attention="sdpa",
        loss=LossConfig(implementation="chunked"),
        checkpoint=CheckpointConfig(every_steps=CHECKPOINT_EVERY),
    )

    def runs() -> tuple[Curve, Curve, Curve]:
        with _folder() as folder:
            whole = train_small(config, device, folder / "whole")
            first = train_small(config, device, folder / "resumed", interrupt_at=INTERRUPT_AT)
            return whole, first, train_small(config, device, folder / "resumed")

    findings = []
    bound, how = 0.0, "bit for bit: deterministic algorithms are on"
    try:
        with _deterministic_algorithms():
            whole, first, second = runs()
    except RuntimeError as error:
        if _NO_DETERMINISTIC_FORM not in str(error):
            raise
        findings.append(
            Finding(
                f"{label}: deterministic algorithms",
                "warning",
                details=f"losses are compared within {FLOAT32_BOUND:g} instead of bit for bit: {error}",
            )
        )
        bound, how = FLOAT32_BOUND, "without deterministic algorithms"
        whole, first, second = runs()
    assert whole.result is not None
    assert second.result is not None
    resumed_from = second.result.resumed_from_step
    # What the second attempt did replaces what the first had done since its checkpoint.
    joined = first.losses | second.losses
    findings += [
        holds(
            f"{label}: resumed from its checkpoint",
            resumed_from == CHECKPOINT_EVERY and min(second.losses) == CHECKPOINT_EVERY + 1,
            f"interrupted after step {INTERRUPT_AT}, resumed after step {resumed_from}; the checkpoint was "
            f"of step {CHECKPOINT_EVERY}",
        ),
        at_most(
            f"{label}: losses of {STEPS} steps",
            largest_difference(whole.losses, joined),
            bound,
            unit="nats/token",
            details=f"resumed against uninterrupted, {how}, {config.precision}",
        ),
    ]
    if bound == 0.0:
        findings.append(
            holds(
                f"{label}: exported weights",
                whole.result.export_digest == second.result.export_digest,
                "resumed and uninterrupted run export the same bytes",
            )
        )
    return findings


@contextlib.contextmanager
def _deterministic_algorithms() -> Iterator[None]:
    """Have torch choose kernels that give the same bits every time, and raise where there is none.

    On a GPU, cuBLAS must be told as well before it starts: ``CUBLAS_WORKSPACE_CONFIG``.
    """
    import torch

    before = torch.are_deterministic_algorithms_enabled()
    torch.use_deterministic_algorithms(True)
    try:
        yield
    finally:
        torch.use_deterministic_algorithms(before)


def check_compile(device: torch.device) -> list[Finding]:
    """Compare runs with compiled decoder blocks with runs without.

    Args:
        device: to run on.
    """
    if shutil.which("g++") is None and shutil.which("clang++") is None and shutil.which("gcc") is None:
        return [
            not_available(
                "compile", "torch.compile needs a C++ compiler, and none is on the PATH; install g++"
            )
        ]
    # A CPU takes long to compile, and one precision shows whether it works.
    precisions: tuple[Precision, ...] = (
        ("float32", _best_precision(device)) if device.type == "cuda" else ("float32",)
    )
    findings = []
    with one_rank(device):
        for precision in dict.fromkeys(precisions):
            findings += attempted(precision, partial(_check_compile, precision, device))
    return findings


def _check_compile(precision: Precision, device: torch.device) -> list[Finding]:
    curves, graphs = {}, {}
    for compiled in (False, True):
        config = small_config(
            precision=precision, strategy="fsdp2", parallel=ParallelConfig(compile=compiled)
        )
        with _folder() as folder, _counted_graphs() as counted:
            curves[compiled] = train_small(config, device, folder / "run")
            graphs[compiled] = counted()
    bound = FLOAT32_BOUND if precision == "float32" else BFLOAT16_BOUND
    first, eager, later = (
        curves[True].step_seconds[1],
        statistics.median(list(curves[False].step_seconds.values())[STEPS // 2 :]),
        statistics.median(list(curves[True].step_seconds.values())[STEPS // 2 :]),
    )
    return [
        at_most(
            f"{precision}: losses of {STEPS} steps",
            largest_difference(curves[False].losses, curves[True].losses),
            bound,
            unit="nats/token",
            details="compiled against eager; kernels that are fused round elsewhere",
        ),
        at_least(
            f"{precision}: graphs that were compiled",
            graphs[True] - graphs[False],
            1,
            details="none would mean that eager was compared with eager",
        ),
        measured(
            f"{precision}: compiling",
            max(first - later, 0.0),
            unit="s",
            details=f"first step less a later one; nothing was cached; a step takes {1000 * eager:.0f} ms "
            f"eager, {1000 * later:.0f} ms compiled",
        ),
    ]


@contextlib.contextmanager
def _counted_graphs() -> Iterator[Callable[[], int]]:
    """Give a function that returns how many graphs were compiled since, with nothing compiled before."""
    import torch
    from torch._dynamo.utils import counters

    torch.compiler.reset()
    counters.clear()
    yield lambda: int(counters["stats"]["unique_graphs"])
    torch.compiler.reset()


def check_precision(device: torch.device) -> list[Finding]:
    """Compare loss curves in bfloat16 and float16 with that in float32.

    Args:
        device: to run on.
    """
    with one_rank(device), _folder() as folder:
        reference = train_small(small_config(), device, folder / "float32")
        findings = [
            at_least(
                "float32: loss that was learned",
                reference.losses[1] - reference.losses[STEPS],
                0.1,
                unit="nats/token",
                details="a model that learns nothing would show no precision",
            )
        ]
        precisions: tuple[Precision, ...] = ("bfloat16", "float16")
        for precision in precisions:
            findings += attempted(
                precision, partial(_check_precision, precision, reference, device, folder / precision)
            )
    return findings


def _check_precision(
    precision: Precision, reference: Curve, device: torch.device, folder: Path
) -> list[Finding]:
    try:
        curve = train_small(small_config(precision=precision), device, folder)
    except ConfigError as error:
        return [not_available(precision, error.message)]
    difference = largest_difference(reference.losses, curve.losses)
    findings = [
        at_most(
            f"{precision}: losses of {STEPS} steps",
            difference,
            BFLOAT16_BOUND,
            unit="nats/token",
            details="against float32, same rows and weights; forward and backward pass are rounded",
        ),
        holds(
            f"{precision}: is really used",
            difference > 0.0,
            "losses must differ from those of float32 in some digit",
        ),
    ]
    if precision == "float16":
        findings.append(
            at_most(
                "float16: steps that the loss scale left out",
                curve.skipped_steps,
                STEPS // 4,
                details=f"of {STEPS}; the scale starts at 65,536 and is halved at each overflow",
            )
        )
    return findings
