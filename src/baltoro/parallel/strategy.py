"""What the training loop asks of a way to spread the work."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, Protocol, runtime_checkable

if TYPE_CHECKING:
    import torch
    from torch import nn

Precision = Literal["float32", "bfloat16", "float16"]

LossSum = Callable[["nn.Module", Any], "torch.Tensor"]
"""``(module, inputs) → scalar``: the summed loss of a micro-batch in nats, with its graph."""

Assign = Callable[["nn.Parameter", "torch.Tensor"], None]
"""Writes a whole tensor's values into this rank's share of a parameter."""


@dataclass(frozen=True, slots=True)
class Update:
    """What became of a step's gradients, the same on every rank.

    Attributes:
        gradient_norm: global norm before clipping, without the loss scale.
        stepped: weights and moments were updated.
        overflowed: not updated because the float16 loss scale was too high; it is lower now.
    """

    gradient_norm: float
    stepped: bool
    overflowed: bool = False


@runtime_checkable
class KeepsFrozenBuffers(Protocol):
    """A module whose frozen weights are buffers, of a form that no gradient or cast fits."""

    def buffers_to_parameters(self) -> None:
        """Make them parameters without gradient, so that they can be sharded."""


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
        """Spread a model that stands on the meta device, load its weights, make its optimizer.

        Parameters without ``requires_grad`` stay as they are loaded, in the dtype that they have; they
        follow from the base model, so nothing below knows of them.
        """

    def forward_backward(self, inputs: Any, *, denominator: int, last: bool) -> torch.Tensor:
        """Add one micro-batch's gradient of ``loss_sum / denominator``; return the summed loss (detached)."""

    def clip_and_step(self, learning_rate: float) -> Update:
        """Clip, update unless the gradient is not finite, clear the gradients."""

    def leave_out(self) -> Update:
        """Clear the gradients without an update; the norm of the answer is not a number."""

    def evaluate(self, inputs: Any) -> torch.Tensor:
        """Return the summed loss of one micro-batch without gradient."""

    def state_dict(self) -> dict[str, Any]:
        """Return this rank's share of what is trained, by names that do not depend on the layout.

        ``{"model": {name: …}, "optimizer": {"state": {name: {"step", "exp_avg", "exp_avg_sq"}}, …}}`` in the
        float32 of the master weights, as ``torch.distributed.checkpoint`` saves and loads it: tensors,
        DTensors, or boxes of them. Every strategy reads what any other has written.
        """

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Take over what :meth:`state_dict` gave and a checkpoint filled in place."""

    def full_parameters(self) -> Iterator[tuple[str, torch.Tensor]]:
        """Yield every trained parameter whole, by name, on the CPU; every rank must exhaust it."""
