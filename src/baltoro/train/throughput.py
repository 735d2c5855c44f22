"""How well the devices are used: model FLOPs utilisation and peak memory beside the metrics of a step."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from baltoro.core.memory import peak_resident_bytes
from baltoro.train.metrics import TOKENS_PER_SECOND_PER_DEVICE, StepRecord

if TYPE_CHECKING:
    import torch

MODEL_FLOPS_PER_SECOND = "throughput/model_flops_per_second_per_device"
MFU = "throughput/mfu_fraction"
PROCESS_PEAK_BYTES = "memory/process_peak_bytes"
DEVICE_PEAK_BYTES = "memory/device_peak_bytes"


@dataclass(frozen=True, slots=True)
class Throughput:
    """Adds to a step's metrics what follows from the model and the device.

    Attributes:
        device: of this rank; peak memory is this rank's alone.
        flops_per_token: floating-point operations that the model needs for a token, forward and backward;
            ``None`` if they are not known.
        device_peak_flops: most floating-point operations per second of one device at the precision
            trained in; ``None`` if it is not known, which leaves utilisation out.
    """

    device: torch.device
    flops_per_token: float | None = None
    device_peak_flops: float | None = None

    def metrics(self, record: StepRecord) -> dict[str, float]:
        """Return the record's metrics, utilisation and peak memory.

        Utilisation (MFU: Chowdhery et al. 2022, "PaLM", appendix B) is the rate of the operations that the
        model needs, over the device's peak: recomputed activations and padding do not count as work.
        """
        values = record.metrics()
        rate = values.get(TOKENS_PER_SECOND_PER_DEVICE)
        if rate is not None and self.flops_per_token is not None:
            values[MODEL_FLOPS_PER_SECOND] = rate * self.flops_per_token
            if self.device_peak_flops is not None:
                values[MFU] = rate * self.flops_per_token / self.device_peak_flops
        return values | peak_memory(self.device)


def peak_memory(device: torch.device) -> dict[str, float]:
    """Return the most memory this process has held so far: of the host, and of its GPU."""
    values = {PROCESS_PEAK_BYTES: float(peak_resident_bytes())}
    if device.type == "cuda":
        import torch

        values[DEVICE_PEAK_BYTES] = float(torch.cuda.max_memory_allocated(device))
    return values
