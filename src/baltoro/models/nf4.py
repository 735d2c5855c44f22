"""Linear layers whose frozen weight is kept in four bits (QLoRA, Dettmers et al. 2023, arXiv:2305.14314).

A weight is cut into blocks of 64 values; each value becomes one of the 16 quantiles of a normal distribution
(NF4), scaled by its block's largest magnitude. With double quantisation these scales are kept in eight bits,
in blocks of 256 (section 3 of the paper). bitsandbytes computes both directions.

The layer is our own, for three reasons. Its values are plain buffers, which every strategy leaves as they
are: nothing casts, shards or averages them, so that 4-bit bases train alike under all of them. The backward
pass expands the weight anew instead of holding on to it. And bitsandbytes' own layer repacks its weights in
evaluation on some CPUs, after which gradients are wrong without a word.
"""

from __future__ import annotations

import logging
from functools import lru_cache
from typing import TYPE_CHECKING, Any

import torch
from torch import nn
from torch.autograd.function import once_differentiable
from torch.nn.functional import linear

from baltoro.core.errors import PlatformError

if TYPE_CHECKING:
    from collections.abc import Iterable

BLOCK_VALUES = 64
"""Values that share a scale."""

SCALES_BLOCK_VALUES = 256
"""Scales that share a scale of their own, with double quantisation."""


class Nf4Linear(nn.Linear):
    """A linear layer with a frozen weight in four bits; its bias stays as it is.

    A subclass of ``nn.Linear`` so that what asks for one (adapters among it) finds one. The weight itself is
    no parameter: :attr:`weight` expands it.

    Args:
        layer: the layer whose place this takes; its bias becomes this one's.
        double_quantization: keep the scales in eight bits, too.

    Attributes:
        packed: uint8 [values / 2], two values in each.
        scales: float32 [blocks], or uint8 with double quantisation.
        scale_scales: float32 [blocks / 256], with double quantisation.
        scale_offset: float32 scalar, with double quantisation.
    """

    packed: torch.Tensor
    scales: torch.Tensor
    scale_scales: torch.Tensor
    scale_offset: torch.Tensor

    def __init__(self, layer: nn.Linear, *, double_quantization: bool) -> None:
        nn.Module.__init__(self)
        self.in_features, self.out_features = layer.in_features, layer.out_features
        self.double_quantization = double_quantization
        self.register_parameter("bias", layer.bias)
        values, device = layer.in_features * layer.out_features, layer.weight.device
        blocks = -(-values // BLOCK_VALUES)
        shapes: dict[str, tuple[tuple[int, ...], torch.dtype]] = {
            "packed": ((-(-values // 2),), torch.uint8),
            "scales": ((blocks,), torch.uint8 if double_quantization else torch.float32),
        }
        if double_quantization:
            shapes["scale_scales"] = ((-(-blocks // SCALES_BLOCK_VALUES),), torch.float32)
            shapes["scale_offset"] = ((), torch.float32)
        for name, (shape, dtype) in shapes.items():
            # Not saved: they follow from the base model.
            self.register_buffer(name, torch.empty(shape, dtype=dtype, device=device), persistent=False)

    @property
    def weight(self) -> torch.Tensor:  # type: ignore[override]
        """The weight that the layer computes with, float32 [out, in]; made anew each time."""
        return self.expanded(torch.float32)

    @torch.no_grad()
    def fill(self, weight: torch.Tensor) -> None:
        """Take over a weight.

        Quantised on the device where the layer is, so that ranks on devices of one kind hold the same bits.

        Args:
            weight: [out, in], of any float dtype.
        """
        bitsandbytes = _functional()
        packed, state = bitsandbytes.quantize_4bit(
            weight.to(self.packed.device, torch.float32).contiguous(),
            blocksize=BLOCK_VALUES,
            compress_statistics=self.double_quantization,
            quant_type="nf4",
        )
        self.packed.copy_(packed.flatten())
        self.scales.copy_(state.absmax)
        if self.double_quantization:
            self.scale_scales.copy_(state.state2.absmax)
            self.scale_offset.copy_(state.offset)

    @torch.no_grad()
    def expanded(self, dtype: torch.dtype) -> torch.Tensor:
        """Return the weight in a float dtype, [out, in]."""
        if self.packed.device.type == "meta":
            return torch.empty(self.out_features, self.in_features, dtype=dtype, device="meta")
        return _expand(self._kept(), (self.out_features, self.in_features), dtype)

    def forward(self, input: torch.Tensor) -> torch.Tensor:
        """Return ``input @ weight.T + bias`` in the dtype of the input."""
        shape = (self.out_features, self.in_features)
        product: torch.Tensor = _FrozenProduct.apply(input, shape, *self._kept())  # type: ignore[no-untyped-call]
        return product if self.bias is None else product + self.bias.to(product.dtype)

    def _kept(self) -> tuple[torch.Tensor, ...]:
        if self.double_quantization:
            return self.packed, self.scales, self.scale_scales, self.scale_offset
        return self.packed, self.scales


class _FrozenProduct(torch.autograd.Function):
    """``x Wᵀ`` for a weight in four bits, which has no gradient; nothing expanded outlives either pass."""

    @staticmethod
    def forward(ctx: Any, x: torch.Tensor, shape: tuple[int, int], *kept: torch.Tensor) -> torch.Tensor:
        ctx.shape = shape
        ctx.save_for_backward(*kept)
        return linear(x, _expand(kept, shape, x.dtype))

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        kept = ctx.saved_tensors
        of_input = gradient @ _expand(kept, ctx.shape, gradient.dtype) if ctx.needs_input_grad[0] else None
        return (of_input, None, *(None for _ in kept))


def _expand(kept: Iterable[torch.Tensor], shape: tuple[int, int], dtype: torch.dtype) -> torch.Tensor:
    bitsandbytes = _functional()
    packed, scales, *nested = kept
    state = bitsandbytes.QuantState(
        absmax=scales,
        shape=torch.Size(shape),
        dtype=dtype,
        blocksize=BLOCK_VALUES,
        code=_values_of_nf4(packed.device),
        quant_type="nf4",
    )
    if nested:
        scale_scales, offset = nested
        state.offset, state.nested = offset, True
        state.state2 = bitsandbytes.QuantState(
            absmax=scale_scales,
            blocksize=SCALES_BLOCK_VALUES,
            code=_values_of_scales(packed.device),
            dtype=torch.float32,
        )
    expanded: torch.Tensor = bitsandbytes.dequantize_4bit(packed[:, None], state)
    return expanded


@lru_cache(maxsize=8)
def _values_of_nf4(device: torch.device) -> torch.Tensor:
    values: torch.Tensor = _functional().get_4bit_type("nf4", device=device)
    return values


@lru_cache(maxsize=8)
def _values_of_scales(device: torch.device) -> torch.Tensor:
    values: torch.Tensor = _functional().create_dynamic_map().to(device)
    return values


def _functional() -> Any:
    # It warns that a kernel for inference on CPUs is absent, which is not used here.
    logging.getLogger("bitsandbytes.backends.cpu.ops").setLevel(logging.ERROR)
    try:
        from bitsandbytes import functional
    except ImportError as error:
        raise PlatformError(
            "4-bit weights need bitsandbytes, which is not installed here; install the extra with `pip "
            "install 'baltoro[nf4]'`, or use method lora"
        ) from error
    return functional
