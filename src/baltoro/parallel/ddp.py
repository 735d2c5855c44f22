"""Distributed data parallelism: every rank holds the whole model; gradients are summed between ranks.

Made here rather than taken from ``torch.nn.parallel.DistributedDataParallel`` for three reasons: that wraps
the model, which changes names and hides what a loss calls; it averages; and it reduces gradients in the dtype
of the weights, so that bfloat16 would add up differently than under FSDP2. The method is the same (Li et al.
2020, arXiv:2006.15704): gradients live in flat buckets, and a bucket is reduced as soon as the backward pass
has filled it, while the pass goes on. Only the last micro-batch of a step talks to other ranks.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

from baltoro.parallel.config import ParallelConfig
from baltoro.parallel.data_parallel import DataParallel, compute_dtype
from baltoro.parallel.strategy import Precision
from baltoro.parallel.timing import PhaseTimer

if TYPE_CHECKING:
    import torch
    from torch import nn

BUCKET_BYTES = 25 << 20
"""Size of a bucket: large enough for full bandwidth, small enough to start long before the pass ends."""

_ALIGNMENT_ELEMENTS = 32


class Ddp(DataParallel):
    """The DDP strategy; see :class:`~baltoro.parallel.strategy.Strategy` for the contract.

    In ``bfloat16`` and ``float16`` the copies that are computed with are kept beside the float32 masters.
    They stand in the model only while a pass runs: names, optimizer and checkpoints know the masters alone.
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
        self._copies: _WorkingCopies | None = None
        self._gradients: _GradientBuckets | None = None

    def _spread(self, model: nn.Module, blocks: Sequence[nn.Module]) -> None:  # noqa: ARG002  (all stay whole)
        model.to_empty(device=self.device)

    def _assign(self, parameter: nn.Parameter, full: torch.Tensor) -> None:
        import torch

        with torch.no_grad():
            parameter.copy_(full)

    def _weights_changed(self) -> None:
        if self._gradients is None:
            # The first time: tied weights are one parameter only once they are loaded.
            if self._precision != "float32":
                self._copies = _WorkingCopies(self._model, compute_dtype(self._precision))
            self._gradients = _GradientBuckets(self._model, self._copies)
        if self._copies is not None:
            self._copies.refresh()

    @contextlib.contextmanager
    def _passes(self, *, last: bool) -> Iterator[None]:
        assert self._gradients is not None
        self._gradients.begin(reduce=last)
        with self._evaluation():
            yield
        with self._timer.device("backward"):
            self._gradients.finish()

    def _evaluation(self) -> contextlib.AbstractContextManager[None]:
        return contextlib.nullcontext() if self._copies is None else self._copies.in_place()

    def _local(self, tensor: torch.Tensor) -> torch.Tensor:
        return tensor

    def _sum_over_shards(self, value: torch.Tensor) -> None:
        # Every rank holds the whole gradient.
        pass

    def _whole(self, parameter: torch.Tensor) -> torch.Tensor:
        return parameter


class _WorkingCopies:
    """Low-precision copies of a model's float parameters, put in their places for a while.

    Args:
        model: its parameters are the masters.
        dtype: of the copies.
    """

    def __init__(self, model: nn.Module, dtype: torch.dtype) -> None:
        from torch import nn

        self._copy_of: dict[int, nn.Parameter] = {}
        self._masters: list[torch.Tensor] = []
        self._copies: list[torch.Tensor] = []
        for master in model.parameters():
            # A frozen weight may have the dtype already.
            if master.is_floating_point() and master.dtype != dtype:
                copy = nn.Parameter(master.detach().to(dtype), requires_grad=master.requires_grad)
                self._copy_of[id(master)] = copy
                self._masters.append(master)
                self._copies.append(copy)
        # A tied weight has several places.
        self._places = [
            (module, name, parameter)
            for module in model.modules()
            for name, parameter in module._parameters.items()
            if parameter is not None and id(parameter) in self._copy_of
        ]

    def of(self, master: nn.Parameter) -> nn.Parameter:
        """Return what is computed with in place of a master."""
        return self._copy_of.get(id(master), master)

    def refresh(self) -> None:
        """Take the masters' values over."""
        import torch

        with torch.no_grad():
            torch._foreach_copy_(self._copies, self._masters)

    @contextlib.contextmanager
    def in_place(self) -> Iterator[None]:
        """Let the model compute with the copies within the block."""
        for module, name, master in self._places:
            module._parameters[name] = self.of(master)
        try:
            yield
        finally:
            for module, name, master in self._places:
                module._parameters[name] = master


class _Bucket:
    """A flat float32 buffer that the gradients of some parameters are views of."""

    def __init__(self, parameters: list[nn.Parameter]) -> None:
        import torch

        starts, size = [], 0
        for parameter in parameters:
            starts.append(size)
            # Kernels of the optimizer read whole vectors at once where addresses allow it.
            size += -(-parameter.numel() // _ALIGNMENT_ELEMENTS) * _ALIGNMENT_ELEMENTS
        self.flat = torch.zeros(size, dtype=torch.float32, device=parameters[0].device)
        self.views = [
            (parameter, self.flat[start : start + parameter.numel()].view_as(parameter))
            for parameter, start in zip(parameters, starts, strict=True)
        ]
        self.waiting = 0


class _GradientBuckets:
    """Gradients of the masters over the micro-batches of a step, and their sum over ranks.

    Between two steps the masters have no gradient, as ``zero_grad(set_to_none=True)`` leaves them; the
    buffers stay.

    Args:
        model: its trainable parameters are the masters.
        copies: what the backward pass gives gradients to; ``None`` for the masters themselves.
    """

    def __init__(self, model: nn.Module, copies: _WorkingCopies | None) -> None:
        import torch.distributed as dist

        # A backward pass reaches the parameters roughly in the opposite order of the model's.
        trainable = [parameter for parameter in model.parameters() if parameter.requires_grad][::-1]
        self._buckets = [_Bucket(parameters) for parameters in _grouped(trainable)]
        self._several_ranks = dist.get_world_size() > 1
        self._reduce = False
        self._next = 0
        self._works: list[Any] = []
        for bucket in self._buckets:
            for master, _ in bucket.views:
                leaf = master if copies is None else copies.of(master)
                hook = self._receiver(bucket, master, leaf)
                leaf.register_post_accumulate_grad_hook(hook)  # type: ignore[no-untyped-call]

    def begin(self, *, reduce: bool) -> None:
        """Make ready for a micro-batch.

        Args:
            reduce: it is the last one of its step, so that full buckets may be summed over ranks.
        """
        self._reduce, self._next = reduce and self._several_ranks, 0
        for bucket in self._buckets:
            bucket.waiting = len(bucket.views)
            if bucket.views[0][0].grad is None:
                bucket.flat.zero_()
                for master, view in bucket.views:
                    master.grad = view

    def finish(self) -> None:
        """After the backward pass: wait until every bucket is summed, if this was the last micro-batch."""
        if not self._reduce:
            return
        # A bucket with a parameter that this pass did not use is still to be sent.
        for bucket in self._buckets[self._next :]:
            self._send(bucket)
        for work in self._works:
            work.wait()
        self._works = []

    def _receiver(self, bucket: _Bucket, master: nn.Parameter, leaf: nn.Parameter) -> Any:
        def receive(_: torch.Tensor) -> None:
            if leaf is not master:
                assert master.grad is not None
                assert leaf.grad is not None
                master.grad.add_(leaf.grad)
                leaf.grad = None
            bucket.waiting -= 1
            if self._reduce:
                self._send_full()

        return receive

    def _send_full(self) -> None:
        # In the order of buckets, whatever the order of their completion: the same on every rank.
        while self._next < len(self._buckets) and self._buckets[self._next].waiting == 0:
            self._send(self._buckets[self._next])
            self._next += 1

    def _send(self, bucket: _Bucket) -> None:
        import torch.distributed as dist

        self._works.append(dist.all_reduce(bucket.flat, async_op=True))


def _grouped(parameters: list[nn.Parameter]) -> list[list[nn.Parameter]]:
    """Cut parameters into runs of at most :data:`BUCKET_BYTES` of float32, or a single larger one."""
    groups: list[list[nn.Parameter]] = []
    room = 0
    for parameter in parameters:
        size_bytes = 4 * parameter.numel()
        if size_bytes > room:
            groups.append([])
            room = BUCKET_BYTES
        groups[-1].append(parameter)
        room -= size_bytes
    return groups
