"""Out of memory during training: recognised, told with the settings that need less, and survived."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

from baltoro.core.errors import TrainingError
from baltoro.jobs.gpu_check.findings import Finding, at_most, deviation, holds
from baltoro.jobs.gpu_check.runs import SEQUENCE_LENGTH, one_rank, small_config, train_small
from baltoro.train import failure_report
from baltoro.train.config import LossConfig
from baltoro.train.hooks import Hook
from baltoro.train.metrics import StepRecord

if TYPE_CHECKING:
    import torch

SETTINGS = (
    "micro_batch=",
    "loss.implementation=full",
    "parallel.activation_checkpointing=",
    "cluster.workers",
    "data.sequence_length=",
)
"""What the report must name for the run below; each of them would lower its memory."""

_GIB = 1 << 30
_HOST_BYTES = 1 << 50


class _Hungry(Hook):
    """Asks for far more than there is after the second step."""

    def __init__(self, device: torch.device, size_bytes: int) -> None:
        self._device = device
        self._size_bytes = size_bytes

    def step_end(self, record: StepRecord) -> None:
        """Ask."""
        import torch

        if record.step == 2:
            torch.empty(self._size_bytes, dtype=torch.uint8, device=self._device)


def check_memory(device: torch.device) -> list[Finding]:
    """Let a training run ask for too much memory.

    Args:
        device: to run on.
    """
    import torch

    on_gpu = device.type == "cuda"
    # Whole GiB, which every allocator tells as they are.
    total_bytes = torch.cuda.get_device_properties(device).total_memory if on_gpu else 0
    size_bytes = 4 * (total_bytes // _GIB + 1) * _GIB if on_gpu else _HOST_BYTES
    config = small_config(loss=LossConfig(implementation="full"))
    raised: Exception | None = None
    with one_rank(device), tempfile.TemporaryDirectory(prefix="baltoro-gpu-check-") as name:
        try:
            train_small(config, device, Path(name) / "run", hooks=(_Hungry(device, size_bytes),))
        except (RuntimeError, MemoryError, TrainingError) as error:
            raised = error
    asked = f"{size_bytes / _GIB:.2f} GiB"
    if raised is None:
        return [holds("an allocation too large", False, f"{asked} on {device} were granted")]
    recognised = failure_report.is_out_of_memory(raised)
    told = failure_report.explain_out_of_memory(
        raised, config, device=device, sequence_length=SEQUENCE_LENGTH
    ).message
    missing = [setting for setting in SETTINGS if setting not in told]
    findings = [
        holds("recognised as out of memory", recognised, f"{type(raised).__name__}: {raised}"),
        holds(
            "says how much was asked for",
            f"while it asked for {asked}" in told,
            f"it was {asked}",
        ),
        holds(
            "names the settings that need less",
            not missing,
            f"not named: {', '.join(missing)}; the report: {told}" if missing else f"the report: {told}",
        ),
    ]
    # The device must still be of use: a worker that is started again meets the same one.
    matrix = torch.eye(256, device=device) * 2.0
    share = deviation(matrix @ matrix, torch.eye(256, device=device) * 4.0)
    return [
        *findings,
        at_most("the device computes afterwards", share, 0.0, details="twos times twos, exactly"),
    ]
