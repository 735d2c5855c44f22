"""FSDP2 (``torch.distributed.fsdp.fully_shard``): parameters, gradients and moments sharded over ranks.

Works on CPU (gloo) and GPU (NCCL), on one rank too. Master weights are float32; with ``bfloat16`` precision
the forward and backward pass see bf16 copies and gradients are reduced in float32. FSDP's own averaging of
gradients is off: the loss of a micro-batch is already divided by the step's token count over all ranks.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Any, Literal

from baltoro.parallel.config import ParallelConfig
from baltoro.parallel.mesh import REPLICATE_AXIS, SHARD_AXIS, build_mesh
from baltoro.parallel.strategy import Assign, LossSum

if TYPE_CHECKING:
    import torch
    from torch import nn

Precision = Literal["float32", "bfloat16"]


class Fsdp2:
    """The FSDP2 strategy; see :class:`~baltoro.parallel.strategy.Strategy` for the contract.

    Args:
        config: degrees of data parallelism.
        device: where this rank computes; the process group must serve it.
        precision: dtype of forward and backward pass.
        max_gradient_norm: global norm that gradients are clipped to; ``None`` leaves them.
    """

    def __init__(
        self,
        config: ParallelConfig,
        *,
        device: torch.device,
        precision: Precision,
        max_gradient_norm: float | None,
    ) -> None:
        self.device = device
        self.mesh = build_mesh(config, device.type)
        self._precision = precision
        self._max_gradient_norm = max_gradient_norm
        self._model: Any = None
        self._optimizer: torch.optim.Optimizer
        self._loss_sum: LossSum

    def setup(
        self,
        model: nn.Module,
        *,
        blocks: Sequence[nn.Module],
        load: Callable[[nn.Module, Assign], None],
        build_optimizer: Callable[[nn.Module], torch.optim.Optimizer],
        loss_sum: LossSum,
    ) -> None:
        """Shard each block, then the rest as one unit; give it storage; load; make the optimizer.

        Embedding and output projection stay in the root unit, where tied weights remain one parameter.

        Args:
            model: float32 parameters on the meta device.
            blocks: the decoder blocks, each gathered and freed as a unit.
            load: fills every parameter of the model through the given :data:`Assign`.
            build_optimizer: called with the sharded model.
            loss_sum: the loss of one micro-batch.
        """
        import torch
        from torch.distributed.fsdp import FSDPModule, MixedPrecisionPolicy, fully_shard

        policy = (
            MixedPrecisionPolicy(param_dtype=torch.bfloat16, reduce_dtype=torch.float32)
            if self._precision == "bfloat16"
            else MixedPrecisionPolicy()
        )
        hybrid = self.mesh[REPLICATE_AXIS].size() > 1
        mesh = self.mesh if hybrid else self.mesh[SHARD_AXIS]
        for block in blocks:
            fully_shard(block, mesh=mesh, mp_policy=policy)
        fully_shard(model, mesh=mesh, mp_policy=policy)
        for module in model.modules():
            if isinstance(module, FSDPModule):
                module.set_gradient_divide_factor(1.0)
                # A factor alone asks for NCCL's pre-multiplied sum, which gloo does not have.
                module.set_force_sum_reduction_for_comms(True)
        model.to_empty(device=self.device)
        load(model, assign_shard)
        model.train()
        self._model, self._loss_sum = model, loss_sum
        self._optimizer = build_optimizer(model)
        self._hybrid = hybrid

    def forward_backward(self, inputs: Any, *, denominator: int, last: bool) -> torch.Tensor:
        """Add one micro-batch's gradient of ``loss_sum / denominator``; return the summed loss (detached).

        Shards of the gradient are reduced after every micro-batch (memory stays that of a shard); between
        replicas they are summed only with the last one.
        """
        if self._hybrid:
            self._model.set_requires_all_reduce(last)
        loss = self._loss_sum(self._model, inputs)
        (loss / denominator).backward()  # type: ignore[no-untyped-call]
        return loss.detach()

    def clip_and_step(self, learning_rate: float) -> tuple[float, bool]:
        """Clip to the global norm and update; a gradient that is not finite is dropped, weights untouched."""
        import math

        import torch

        limit = math.inf if self._max_gradient_norm is None else self._max_gradient_norm
        norm: Any = torch.nn.utils.clip_grad_norm_(self._model.parameters(), limit)
        gradient_norm = float(norm.full_tensor() if hasattr(norm, "full_tensor") else norm)
        stepped = math.isfinite(gradient_norm)
        if stepped:
            for group in self._optimizer.param_groups:
                group["lr"] = learning_rate
            self._optimizer.step()
        self._optimizer.zero_grad(set_to_none=True)
        return gradient_norm, stepped

    def evaluate(self, inputs: Any) -> torch.Tensor:
        """Return the summed loss of one micro-batch without gradient."""
        import torch

        self._model.eval()
        try:
            with torch.no_grad():
                return self._loss_sum(self._model, inputs)
        finally:
            # The root unit stays gathered for a backward pass that does not come here.
            self._model.reshard()
            self._model.train()

    def state_dict(self) -> dict[str, Any]:
        """Return ``{"model": …, "optimizer": …}`` as DTensors by parameter name, loadable on any layout."""
        from torch.distributed.checkpoint.state_dict import get_state_dict

        model, optimizer = get_state_dict(self._model, self._optimizer)
        return {"model": model, "optimizer": optimizer}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Take over a state that a checkpoint filled in place."""
        from torch.distributed.checkpoint.state_dict import set_state_dict

        set_state_dict(
            self._model,
            self._optimizer,
            model_state_dict=state["model"],
            optim_state_dict=state["optimizer"],
        )

    def full_parameters(self) -> Iterator[tuple[str, torch.Tensor]]:
        """Yield every parameter whole, in the model's order, one at a time; tied ones come once."""
        for name, parameter in self._model.named_parameters():
            value: Any = parameter.detach()
            yield name, value.full_tensor().cpu()


def assign_shard(parameter: nn.Parameter, full: torch.Tensor) -> None:
    """Copy this rank's share of ``full`` into a sharded parameter, without talking to other ranks.

    Args:
        parameter: a DTensor with storage.
        full: the whole tensor, the same on every rank, of any float dtype.
    """
    import torch
    from torch.distributed.tensor import DTensor, distribute_tensor

    if not isinstance(parameter, DTensor):
        raise TypeError("assign_shard needs a parameter that fully_shard has sharded")
    # src_data_rank=None: every rank cuts its own piece of the same values, nothing is sent.
    share = distribute_tensor(full, parameter.device_mesh, parameter.placements, src_data_rank=None)
    with torch.no_grad():
        parameter.to_local().copy_(share.to_local())
