"""The checks there are, in the order in which they run."""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from dataclasses import dataclass, field

from baltoro.core.errors import ConfigError


@dataclass(frozen=True, slots=True)
class Check:
    """One check.

    Attributes:
        name: for ``--only``.
        title: what it tries, for people.
        function: ``module:function`` of ``device → list of findings``.
        seconds: after which it is ended on a GPU.
        remedy: what to do about it when it fails.
        environment: variables that its process needs from its start.
        every_thread: it may use all of a CPU's cores; small models are faster on one.
    """

    name: str
    title: str
    function: str
    seconds: float
    remedy: str
    environment: Mapping[str, str] = field(default_factory=dict)
    every_thread: bool = False


_HERE = "baltoro.jobs.gpu_check"

CHECKS: tuple[Check, ...] = (
    Check(
        "attention",
        "attention kernels within packed rows, against each segment alone",
        f"{_HERE}.attention:check_attention",
        150.0,
        "set pretrain.attention to a kernel that passed; sdpa runs everywhere",
    ),
    Check(
        "loss",
        "cross-entropy: full, chunked, Liger, against float64",
        f"{_HERE}.losses:check_loss",
        60.0,
        "set pretrain.loss.implementation to one that passed",
    ),
    Check(
        "nf4",
        "4-bit NF4 weights of bitsandbytes, against the matrix that their bytes stand for",
        f"{_HERE}.nf4:check_nf4",
        60.0,
        "do not train on 4-bit bases here; install the bitsandbytes of requirements.lock and check again",
    ),
    Check(
        "optimizers",
        "AdamW: fused, foreach, 8-bit, paged, against float64",
        f"{_HERE}.optimizers:check_optimizers",
        60.0,
        "set pretrain.optimizer.name (or implementation) to one that passed",
    ),
    Check(
        "compile",
        "compiled decoder blocks, against eager ones, in training",
        f"{_HERE}.training:check_compile",
        150.0,
        "leave pretrain.parallel.compile at false; torch.compile needs g++ and, on a GPU, triton",
    ),
    Check(
        "resume",
        "interrupted and resumed training, against uninterrupted: FSDP2 and ZeRO-2",
        f"{_HERE}.training:check_resume",
        120.0,
        "a run resumed here may not be the run that was interrupted: report this before a long run",
        # cuBLAS reads it when it starts; without it products may differ from run to run.
        environment={"CUBLAS_WORKSPACE_CONFIG": ":4096:8"},
    ),
    Check(
        "precision",
        "loss curves in bfloat16 and float16, against float32",
        f"{_HERE}.training:check_precision",
        60.0,
        "set pretrain.precision to one that passed; float32 is the slow and safe one",
    ),
    Check(
        "memory",
        "an allocation too large during training is told with what to set",
        f"{_HERE}.memory:check_memory",
        45.0,
        "out-of-memory errors will be hard to read here; the settings that need less stand in the recipe's "
        "pretrain.parallel and pretrain.micro_batch",
    ),
    Check(
        "speed",
        "copies, matrix products, training steps of 110 million parameters (told, not judged)",
        f"{_HERE}.speed:check_speed",
        90.0,
        "see whether another process holds the device (nvidia-smi), then check again",
        every_thread=True,
    ),
)


def chosen_checks(only: str | None) -> tuple[Check, ...]:
    """Return the checks that a command names, in their own order.

    Args:
        only: names with commas between them; ``None`` for all.

    Raises:
        ConfigError: there is no such check, or none is named.
    """
    if only is None:
        return CHECKS
    known = [check.name for check in CHECKS]
    wanted = [name.strip() for name in only.split(",") if name.strip()]
    for name in wanted:
        if name not in known:
            close = difflib.get_close_matches(name, known, n=1)
            meant = f" did you mean {close[0]}?" if close else ""
            raise ConfigError(f"--only {only}: there is no check {name};{meant} there are {', '.join(known)}")
    if not wanted:
        raise ConfigError(f"--only {only!r} names no check; there are {', '.join(known)}")
    return tuple(check for check in CHECKS if check.name in wanted)
