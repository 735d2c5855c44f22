"""What the strategies of PyTorch's own have in common: every rank runs the whole model on its own rows.

Master weights, gradients that are reduced, and moments are float32. With ``bfloat16`` or ``float16``
precision the forward and backward pass see copies of the weights in that dtype, and the gradient of each
micro-batch is turned to float32 before it is added to the others or to that of other ranks. Gradients are
summed, never averaged: the loss of a micro-batch is already divided by the step's token count over all ranks.
"""

from __future__ import annotations

import contextlib
import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Any

from baltoro.parallel.activation_checkpoint import checkpoint_blocks
from baltoro.parallel.compile import compile_blocks
from baltoro.parallel.config import ParallelConfig
from baltoro.parallel.loss_scale import DynamicLossScale, settle
from baltoro.parallel.strategy import Assign, LossSum, Precision, Update
from baltoro.parallel.timing import PhaseTimer

if TYPE_CHECKING:
    import torch
    from torch import nn

# torch.nn.utils.clip_grad_norm_ adds the same, so that a norm of exactly the limit is not exceeded.
_CLIP_EPSILON = 1e-6


class DataParallel(ABC):
    """All of a :class:`~baltoro.parallel.strategy.Strategy` but how weights and gradients are spread.

    Args:
        config: degrees of data parallelism, and what is traded for memory.
        device: where this rank computes; the process group must serve it.
        precision: dtype of forward and backward pass.
        max_gradient_norm: global norm that gradients are clipped to; ``None`` leaves them.
        timer: counts the phases of a step.
    """

    def __init__(
        self,
        config: ParallelConfig,
        *,
        device: torch.device,
        precision: Precision,
        max_gradient_norm: float | None,
        timer: PhaseTimer,
    ) -> None:
        self.device = device
        self._config = config
        self._precision = precision
        self._max_gradient_norm = max_gradient_norm
        self._timer = timer
        self._loss_scale = DynamicLossScale() if precision == "float16" else None
        self._model: Any = None
        self._optimizer: torch.optim.Optimizer
        self._loss_sum: LossSum

    @abstractmethod
    def _spread(self, model: nn.Module, blocks: Sequence[nn.Module]) -> None:
        """Shard a model on the meta device, or leave it whole, and give it storage."""

    @abstractmethod
    def _assign(self, parameter: nn.Parameter, full: torch.Tensor) -> None:
        """Copy this rank's share of ``full`` into a parameter."""

    @abstractmethod
    def _weights_changed(self) -> None:
        """React to new values in the master weights: loaded, restored or updated."""

    @abstractmethod
    def _passes(self, *, last: bool) -> contextlib.AbstractContextManager[None]:
        """Enclose the forward and backward pass of a micro-batch, the ``last`` of its step or not."""

    @abstractmethod
    def _evaluation(self) -> contextlib.AbstractContextManager[None]:
        """Enclose a forward pass without gradient."""

    @abstractmethod
    def _local(self, tensor: torch.Tensor) -> torch.Tensor:
        """Return what this rank holds of a parameter's gradient."""

    @abstractmethod
    def _sum_over_shards(self, value: torch.Tensor) -> None:
        """Add up in place, over the ranks that together hold one gradient, a number of each of them."""

    @abstractmethod
    def _whole(self, parameter: torch.Tensor) -> torch.Tensor:
        """Return all values of a parameter; collective where ranks hold shares."""

    def setup(
        self,
        model: nn.Module,
        *,
        blocks: Sequence[nn.Module],
        load: Callable[[nn.Module, Assign], None],
        build_optimizer: Callable[[nn.Module], torch.optim.Optimizer],
        loss_sum: LossSum,
    ) -> None:
        """Checkpoint activations, compile, spread, load, make the optimizer; in this order.

        Args:
            model: on the meta device; trained parameters in float32, those without ``requires_grad`` in any
                float dtype.
            blocks: the decoder blocks, the units of everything that is done to a part of the model.
            load: fills every parameter of the model through the given :data:`Assign`.
            build_optimizer: called with the model as it is spread.
            loss_sum: the loss of one micro-batch.
        """
        checkpoint_blocks(blocks, self._config.activation_checkpointing)
        if self._config.compile:
            compile_blocks(blocks)
        self._spread(model, blocks)
        load(model, self._assign)
        model.train()
        self._model, self._loss_sum = model, loss_sum
        self._weights_changed()
        self._optimizer = build_optimizer(model)

    def forward_backward(self, inputs: Any, *, denominator: int, last: bool) -> torch.Tensor:
        """Add one micro-batch's gradient of ``loss_sum / denominator``; return the summed loss (detached)."""
        with self._passes(last=last):
            with self._timer.device("forward"):
                loss = self._loss_sum(self._model, inputs)
            with self._timer.device("backward"):
                scaled = loss / denominator
                if self._loss_scale is not None:
                    scaled = scaled * self._loss_scale.scale
                scaled.backward()  # type: ignore[no-untyped-call]
        return loss.detach()

    def clip_and_step(self, learning_rate: float) -> Update:
        """Clip to the global norm and update; a gradient that is not finite is dropped, weights untouched.

        In float16 such a gradient counts as an overflow: the loss scale is halved.
        """
        with self._timer.device("optimizer"):
            gradients = [
                self._local(parameter.grad)
                for parameter in self._model.parameters()
                if parameter.grad is not None
            ]
            scale = 1.0 if self._loss_scale is None else self._loss_scale.scale
            gradient_norm = self._global_norm(gradients) / scale
            stepped = math.isfinite(gradient_norm)
            if stepped:
                self._rescale(gradients, gradient_norm, scale)
                for group in self._optimizer.param_groups:
                    group["lr"] = learning_rate
                self._optimizer.step()
            self._optimizer.zero_grad(set_to_none=True)
            if stepped:
                self._weights_changed()
        return settle(self._loss_scale, gradient_norm, stepped=stepped)

    def leave_out(self) -> Update:
        """Clear the gradients without an update; the norm of the answer is not a number."""
        self._optimizer.zero_grad(set_to_none=True)
        return Update(math.nan, stepped=False)

    def evaluate(self, inputs: Any) -> torch.Tensor:
        """Return the summed loss of one micro-batch without gradient."""
        import torch

        self._model.eval()
        try:
            with torch.no_grad(), self._evaluation():
                return self._loss_sum(self._model, inputs)
        finally:
            self._model.train()

    def state_dict(self) -> dict[str, Any]:
        """Return ``{"model": …, "optimizer": …}`` of what is trained by name, loadable on any layout.

        With float16, ``"loss_scale"`` stands beside them.
        """
        from torch.distributed.checkpoint.state_dict import StateDictOptions, get_state_dict

        options = StateDictOptions(ignore_frozen_params=True)
        model, optimizer = get_state_dict(self._model, self._optimizer, options=options)
        for name, parameter in self._model.named_parameters(remove_duplicate=False):
            if not parameter.requires_grad:
                # The other name of a tied weight, which torch leaves in.
                model.pop(name, None)
        state: dict[str, Any] = {"model": model, "optimizer": optimizer}
        if self._loss_scale is not None:
            state["loss_scale"] = self._loss_scale.state_dict()
        return state

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Take over a state that a checkpoint filled in place."""
        from torch.distributed.checkpoint.state_dict import StateDictOptions, set_state_dict

        set_state_dict(
            self._model,
            self._optimizer,
            model_state_dict=state["model"],
            optim_state_dict=state["optimizer"],
            options=StateDictOptions(ignore_frozen_params=True, strict=False),
        )
        if self._loss_scale is not None:
            self._loss_scale.load_state_dict(state["loss_scale"])
        self._weights_changed()

    def full_parameters(self) -> Iterator[tuple[str, torch.Tensor]]:
        """Yield every trained parameter whole, in the model's order, one at a time; tied ones come once."""
        for name, parameter in self._model.named_parameters():
            if parameter.requires_grad:
                yield name, self._whole(parameter.detach()).cpu()

    def _global_norm(self, gradients: list[torch.Tensor]) -> float:
        """Return the norm over all ranks, with the loss scale still in it; the same number on each."""
        import torch

        # float64 on the device that the process group serves, wherever the gradients are kept.
        squared = torch.nn.utils.get_total_norm(gradients).to(self.device, torch.float64).square()
        self._sum_over_shards(squared)
        return math.sqrt(float(squared))

    def _rescale(self, gradients: list[torch.Tensor], gradient_norm: float, scale: float) -> None:
        """Take the loss scale out of the gradients and clip them, in one pass."""
        import torch

        factor = 1.0 / scale
        if self._max_gradient_norm is not None:
            factor *= min(1.0, self._max_gradient_norm / (gradient_norm + _CLIP_EPSILON))
        if factor != 1.0:
            torch._foreach_mul_(gradients, factor)


def compute_dtype(precision: Precision) -> torch.dtype:
    """Return torch's dtype of a precision's name."""
    import torch

    return {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}[precision]
