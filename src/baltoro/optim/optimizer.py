"""The optimizer of a model, from its settings."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from baltoro.optim.config import OptimizerConfig
from baltoro.optim.param_groups import build_param_groups

if TYPE_CHECKING:
    import torch
    from torch import nn


def build_optimizer(model: nn.Module, config: OptimizerConfig) -> torch.optim.Optimizer:
    """Return AdamW over the model's trainable parameters.

    To be called after sharding, so that the moments are sharded like the parameters (and have their dtype,
    float32 master weights). Whatever the name, its ``state_dict`` holds float32 ``exp_avg``, ``exp_avg_sq``
    and ``step`` by parameter.

    Args:
        model: sharded or not, on its device.
        config: which AdamW.

    Raises:
        ConfigError: the device cannot do what ``config.name`` asks for.
        PlatformError: a library that it needs is not installed.
    """
    import torch
    from torch import nn

    groups = build_param_groups(
        model, weight_decay=config.weight_decay, decay_embeddings=config.decay_embeddings
    )
    if config.name != "adamw":
        from baltoro.optim.eight_bit import build_bitsandbytes_adamw

        embeddings = [module.weight for module in model.modules() if isinstance(module, nn.Embedding)]
        return build_bitsandbytes_adamw(groups, config, float32_moments=embeddings)
    kernels = {name: config.implementation == name for name in ("fused", "foreach")}
    optimizer = torch.optim.AdamW(
        groups,
        lr=config.learning_rate,
        betas=(config.beta1, config.beta2),
        eps=config.epsilon,
        fused=kernels["fused"],
        foreach=kernels["foreach"],
    )

    def keep_kernels(_optimizer: torch.optim.Optimizer, state: dict[str, Any]) -> dict[str, Any]:
        # A checkpoint names the kernels it was made with; a resumed run may have others.
        return {**state, "param_groups": [group | kernels for group in state["param_groups"]]}

    optimizer.register_load_state_dict_pre_hook(keep_kernels)
    return optimizer
