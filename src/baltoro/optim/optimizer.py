"""The optimizer of a model, from its settings."""

from __future__ import annotations

from typing import TYPE_CHECKING

from baltoro.optim.config import OptimizerConfig
from baltoro.optim.param_groups import build_param_groups

if TYPE_CHECKING:
    import torch
    from torch import nn


def build_optimizer(model: nn.Module, config: OptimizerConfig) -> torch.optim.Optimizer:
    """Return AdamW over the model's trainable parameters.

    To be called after sharding, so that the moments are sharded like the parameters (and have their dtype,
    float32 master weights).
    """
    import torch

    groups = build_param_groups(
        model, weight_decay=config.weight_decay, decay_embeddings=config.decay_embeddings
    )
    return torch.optim.AdamW(
        groups,
        lr=config.learning_rate,
        betas=(config.beta1, config.beta2),
        eps=config.epsilon,
        # One kernel per group on CPU and GPU; the update's arithmetic is the same.
        fused=True,
    )


def set_learning_rate(optimizer: torch.optim.Optimizer, learning_rate: float) -> None:
    """Set the learning rate of every group."""
    for group in optimizer.param_groups:
        group["lr"] = learning_rate
