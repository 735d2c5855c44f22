"""FSDP2 (``torch.distributed.fsdp.fully_shard``): parameters, gradients and moments sharded over ranks.

Works on CPU (gloo) and GPU (NCCL), on one rank too. With ``dp_replicate`` above 1 the model is sharded within
groups of ranks and copied between them (hybrid sharding). FSDP's own averaging of gradients is off.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

from baltoro.parallel.config import ParallelConfig
from baltoro.parallel.data_parallel import DataParallel, compute_dtype
from baltoro.parallel.mesh import REPLICATE_AXIS, SHARD_AXIS, build_mesh
from baltoro.parallel.strategy import KeepsFrozenBuffers, Precision
from baltoro.parallel.timing import PhaseTimer

if TYPE_CHECKING:
    import torch
    from torch import nn


class Fsdp2(DataParallel):
    """The FSDP2 strategy; see :class:`~baltoro.parallel.strategy.Strategy` for the contract.

    Each decoder block is gathered and freed as a unit, the rest of the model is one more: embedding and
    output projection stay in that root unit, where tied weights remain one parameter. Shards of the gradient
    are reduced after every micro-batch, so memory stays that of a shard; between replicas they are summed
    only with the last one of a step. Frozen weights are sharded, too, those in four bits as well.
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
        super().__init__(
            config, device=device, precision=precision, max_gradient_norm=max_gradient_norm, timer=timer
        )
        self.mesh = build_mesh(config, device.type)
        self._hybrid = self.mesh[REPLICATE_AXIS].size() > 1
        self._units: list[Any] = []

    def _spread(self, model: nn.Module, blocks: Sequence[nn.Module]) -> None:
        import torch
        from torch.distributed.fsdp import (
            CPUOffloadPolicy,
            FSDPModule,
            MixedPrecisionPolicy,
            OffloadPolicy,
            fully_shard,
        )

        settings = self._config.fsdp2
        on_gpu = self.device.type == "cuda"
        options: dict[str, Any] = {
            "mesh": self.mesh[REPLICATE_AXIS, SHARD_AXIS] if self._hybrid else self.mesh[SHARD_AXIS],
            "mp_policy": MixedPrecisionPolicy()
            if self._precision == "float32"
            else MixedPrecisionPolicy(param_dtype=compute_dtype(self._precision), reduce_dtype=torch.float32),
            "offload_policy": CPUOffloadPolicy(pin_memory=on_gpu)
            if settings.cpu_offload
            else OffloadPolicy(),
        }
        for module in model.modules():
            if isinstance(module, KeepsFrozenBuffers):
                module.buffers_to_parameters()
        for block in blocks:
            fully_shard(block, reshard_after_forward=settings.reshard_after_forward, **options)
        # The backward pass begins with the root unit: freeing it after the forward pass would save nothing.
        fully_shard(model, reshard_after_forward=False, **options)
        self._units = [module for module in model.modules() if isinstance(module, FSDPModule)]
        for unit in self._units:
            unit.set_gradient_divide_factor(1.0)
            # A factor alone asks for NCCL's pre-multiplied sum, which gloo does not have.
            unit.set_force_sum_reduction_for_comms(True)
        model.to_empty(device="cpu" if settings.cpu_offload else self.device)
        if settings.cpu_offload:
            # Only parameters travel to the device and back; buffers are used where they are.
            for module in model.modules():
                for name, buffer in module._buffers.items():
                    if buffer is not None:
                        module._buffers[name] = buffer.to(self.device)

    def _assign(self, parameter: nn.Parameter, full: torch.Tensor) -> None:
        assign_shard(parameter, full)

    def _weights_changed(self) -> None:
        # The next pass gathers anew.
        pass

    @contextlib.contextmanager
    def _passes(self, *, last: bool) -> Iterator[None]:
        if self._hybrid:
            self._model.set_requires_all_reduce(last)
        yield

    @contextlib.contextmanager
    def _evaluation(self) -> Iterator[None]:
        try:
            yield
        finally:
            # What stays gathered for a backward pass that does not come here would miss the next update.
            for unit in self._units:
                unit.reshard()

    def _local(self, tensor: torch.Tensor) -> torch.Tensor:
        sharded: Any = tensor.detach()
        local: torch.Tensor = sharded.to_local()
        return local

    def _sum_over_shards(self, value: torch.Tensor) -> None:
        import torch.distributed as dist

        dist.all_reduce(value, group=self.mesh[SHARD_AXIS].get_group())

    def _whole(self, parameter: torch.Tensor) -> torch.Tensor:
        # An offloaded shard travels through the device, which the process group serves.
        on_device: Any = parameter.to(self.device)
        whole: torch.Tensor = on_device.full_tensor()
        return whole


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
