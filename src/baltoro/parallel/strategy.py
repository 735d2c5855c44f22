"""What the training loop asks of a way to spread the work."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    import torch
    from torch import nn

LossSum = Callable[["nn.Module", Any], "torch.Tensor"]
"""``(module, inputs) → scalar``: the summed loss of a micro-batch in nats, with its graph."""

Assign = Callable[["nn.Parameter", "torch.Tensor"], None]
"""Writes a whole tensor's values into this rank's share of a parameter."""


class Strategy(Protocol):
    """One training step's parallel half; every method is called on every rank, in the same order."""

    def setup(
        self,
        model: nn.Module,
        *,
        blocks: Sequence[nn.Module],
        load: Callable[[nn.Module, Assign], None],
        build_optimizer: Callable[[nn.Module], torch.optim.Optimizer],
        loss_sum: LossSum,
    ) -> None:
        """Spread a model that stands on the meta device, load its weights, make its optimizer."""

    def forward_backward(self, inputs: Any, *, denominator: int, last: bool) -> torch.Tensor:
        """Add one micro-batch's gradient of ``loss_sum / denominator``; return the summed loss (detached)."""

    def clip_and_step(self, learning_rate: float) -> tuple[float, bool]:
        """Clip, update unless the gradient is not finite, clear; return ``(gradient norm, stepped)``."""

    def evaluate(self, inputs: Any) -> torch.Tensor:
        """Return the summed loss of one micro-batch without gradient."""

    def state_dict(self) -> dict[str, Any]:
        """Return this rank's share of model and optimizer, by names that do not depend on the layout."""

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Take over what :meth:`state_dict` gave and a checkpoint filled in place."""

    def full_parameters(self) -> Iterator[tuple[str, torch.Tensor]]:
        """Yield every parameter whole, by name, on the CPU; every rank must exhaust it."""
