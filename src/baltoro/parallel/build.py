"""From the name of a strategy to the strategy, once its settings are known to mean something together."""

from __future__ import annotations

from typing import TYPE_CHECKING

from baltoro.core.config import StrictModel
from baltoro.core.errors import ConfigError
from baltoro.parallel.config import DeepSpeedConfig, Fsdp2Config, ParallelConfig, StrategyName
from baltoro.parallel.strategy import Precision, Strategy
from baltoro.parallel.timing import PhaseTimer

if TYPE_CHECKING:
    import torch

    from baltoro.parallel.data_parallel import DataParallel
    from baltoro.parallel.deepspeed import DeepSpeedZero


def build_strategy(
    name: StrategyName,
    config: ParallelConfig,
    *,
    device: torch.device,
    precision: Precision,
    max_gradient_norm: float | None,
    timer: PhaseTimer,
) -> Strategy:
    """Return a strategy, not set up yet. Collective; the process group must be initialised.

    Args:
        name: which one.
        config: layout over workers, and what is traded for memory.
        device: where this rank computes; the process group must serve it.
        precision: dtype of forward and backward pass.
        max_gradient_norm: global norm that gradients are clipped to; ``None`` leaves them.
        timer: counts the phases of a step.

    Raises:
        ConfigError: settings contradict each other, the number of workers, or the device.
    """
    refuse_contradictions(name, config, device_type=device.type)
    refuse_missing_dtype(precision, device)
    return _class_of(name)(
        config, device=device, precision=precision, max_gradient_norm=max_gradient_norm, timer=timer
    )


def _class_of(name: StrategyName) -> type[DataParallel | DeepSpeedZero]:
    """Return the class of a strategy, imported only where it is asked for: DeepSpeed takes seconds."""
    if name == "fsdp2":
        from baltoro.parallel.fsdp2 import Fsdp2

        return Fsdp2
    if name == "ddp":
        from baltoro.parallel.ddp import Ddp

        return Ddp
    from baltoro.parallel.deepspeed import DeepSpeedZero

    return DeepSpeedZero


def refuse_contradictions(name: StrategyName, config: ParallelConfig, *, device_type: str) -> None:
    """Refuse settings that the chosen strategy would ignore, or cannot obey on such a device.

    Needs no process group, so it can be asked before any worker starts.

    Args:
        name: of the strategy.
        config: its settings, and those of the others.
        device_type: ``cpu`` or ``cuda``.

    Raises:
        ConfigError: names the setting, its value and what to do.
    """
    if name != "fsdp2":
        _refuse_degrees(name, config)
        _refuse_foreign(name, config.fsdp2, Fsdp2Config(), "fsdp2")
    if name != "deepspeed":
        _refuse_foreign(name, config.deepspeed, DeepSpeedConfig(), "deepspeed")
    elif config.compile and config.deepspeed.zero_stage == 3:
        raise ConfigError(
            "parallel.compile=true: parallel.deepspeed.zero_stage=3 gathers weights inside each block, which "
            "torch.compile compiles again and again until it gives up; set compile to false, zero_stage to 1 "
            "or 2, or strategy=fsdp2"
        )
    if config.fsdp2.cpu_offload and device_type == "cpu":
        raise ConfigError(
            "parallel.fsdp2.cpu_offload=true moves weights, gradients and moments from a GPU's memory to the "
            "host's, but this device is a CPU: there is nothing to offload; set it to false, or "
            "cluster.use_gpu=true"
        )


def refuse_missing_dtype(precision: Precision, device: torch.device) -> None:
    """Refuse a precision that a GPU would only emulate.

    Args:
        precision: dtype of forward and backward pass.
        device: of this rank; if it is a GPU, the current one.

    Raises:
        ConfigError: names the device and the precisions that it has.
    """
    import torch

    if precision != "bfloat16" or device.type != "cuda":
        return
    if not torch.cuda.is_bf16_supported(including_emulation=False):
        raise ConfigError(
            f"precision=bfloat16 is not among the dtypes of {torch.cuda.get_device_name(device)}; set it to "
            "float16, which scales the loss, or float32"
        )


def _refuse_degrees(name: StrategyName, config: ParallelConfig) -> None:
    does = {
        "ddp": "copies the whole model to every worker",
        "deepspeed": "shards over all workers",
    }[name]
    if config.dp_replicate != 1:
        raise ConfigError(
            f"parallel.dp_replicate={config.dp_replicate} asks for hybrid sharding, but strategy={name} "
            f"{does}; set it to 1, or strategy=fsdp2"
        )
    if config.dp_shard is not None:
        raise ConfigError(
            f"parallel.dp_shard={config.dp_shard} asks for copies sharded over so many workers, but "
            f"strategy={name} {does}; set it to null, or strategy=fsdp2"
        )


def _refuse_foreign(name: StrategyName, given: StrictModel, default: StrictModel, owner: str) -> None:
    changed = [
        f"parallel.{owner}.{field}={_as_yaml(getattr(given, field))}"
        for field in type(given).model_fields
        if getattr(given, field) != getattr(default, field)
    ]
    if changed:
        raise ConfigError(
            f"{', '.join(changed)}: only strategy={owner} reads this, the recipe has strategy={name}; remove "
            f"it, or set strategy={owner}"
        )


def _as_yaml(value: object) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)
