"""Linear layers whose frozen weight is kept in four bits (QLoRA, Dettmers et al. 2023, arXiv:2305.14314).

A weight is cut into blocks of 64 values; each value becomes one of the 16 quantiles of a normal distribution
(NF4), scaled by its block's largest magnitude. With double quantisation these scales are kept in eight bits,
in blocks of 256 (section 3 of the paper). bitsandbytes computes both directions.

The layer is our own, for three reasons. What it keeps is one tensor of bytes, which nothing casts or
averages: a buffer that most strategies leave whole on every rank, or a parameter where a strategy shards it,
so that 4-bit bases train alike under all of them. The backward pass expands the weight anew instead of
holding on to it. And bitsandbytes' own layer repacks its weights in evaluation on some CPUs, after which
gradients are wrong without a word.
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

STORED = "stored"
"""Name of the tensor that a layer keeps."""


class Nf4Linear(nn.Linear):
    """A linear layer with a frozen weight in four bits; its bias stays as it is.

    A subclass of ``nn.Linear`` so that what asks for one (adapters among it) finds one. The weight itself is
    no parameter: :attr:`weight` expands it.

    Args:
        layer: the layer whose place this takes; its bias becomes this one's.
        double_quantization: keep the scales in eight bits, too.

    Attributes:
        stored: uint8, all that is kept, one piece after the other: float32 offset of the scales and the
            scales' scales [blocks / 256] with double quantisation, scales (uint8 [blocks] with double
            quantisation, else float32), and the values, two in a byte.
    """

    stored: torch.Tensor

    def __init__(self, layer: nn.Linear, *, double_quantization: bool) -> None:
        nn.Module.__init__(self)
        self.in_features, self.out_features = layer.in_features, layer.out_features
        self.double_quantization = double_quantization
        self.register_parameter("bias", layer.bias)
        values, device = layer.in_features * layer.out_features, layer.weight.device
        blocks = -(-values // BLOCK_VALUES)
        pieces = [
            (blocks, torch.uint8 if double_quantization else torch.float32),
            (-(-values // 2), torch.uint8),
        ]
        if double_quantization:
            # What is read in words of four bytes comes first, where it begins at a multiple of four.
            pieces = [(1, torch.float32), (-(-blocks // SCALES_BLOCK_VALUES), torch.float32), *pieces]
        self._sizes_bytes = [count * dtype.itemsize for count, dtype in pieces]
        self._dtypes = [dtype for _, dtype in pieces]
        # Not saved: it follows from the base model.
        stored = torch.empty(sum(self._sizes_bytes), dtype=torch.uint8, device=device)
        self.register_buffer(STORED, stored, persistent=False)

    @property
    def weight(self) -> torch.Tensor:  # type: ignore[override]
        """The weight that the layer computes with, float32 [out, in]; made anew each time."""
        return self.expanded(torch.float32)

    def buffers_to_parameters(self) -> None:
        """Keep the bytes as a parameter without gradient, for a strategy that shards parameters."""
        stored = self._buffers.pop(STORED)
        assert stored is not None
        self._non_persistent_buffers_set.discard(STORED)
        self.register_parameter(STORED, nn.Parameter(stored, requires_grad=False))

    @torch.no_grad()
    def fill(self, weight: torch.Tensor) -> None:
        """Take over a weight [out, in] of any float dtype."""
        self.stored.copy_(self.bytes_of(weight))

    @torch.no_grad()
    def bytes_of(self, weight: torch.Tensor) -> torch.Tensor:
        """Return what the layer keeps of a weight.

        Quantised on the device where the layer is, so that ranks on devices of one kind hold the same bits.

        Args:
            weight: [out, in], of any float dtype.

        Returns:
            uint8, as :attr:`stored`.
        """
        bitsandbytes = _functional()
        packed, state = bitsandbytes.quantize_4bit(
            weight.to(self.stored.device, torch.float32).contiguous(),
            blocksize=BLOCK_VALUES,
            compress_statistics=self.double_quantization,
            quant_type="nf4",
        )
        pieces = [state.absmax, packed]
        if self.double_quantization:
            pieces = [state.offset, state.state2.absmax, *pieces]
        return torch.cat([piece.contiguous().view(-1).view(torch.uint8) for piece in pieces])

    @torch.no_grad()
    def expanded(self, dtype: torch.dtype) -> torch.Tensor:
        """Return the weight in a float dtype, [out, in]."""
        if self.stored.device.type == "meta":
            return torch.empty(self.out_features, self.in_features, dtype=dtype, device="meta")
        return _expand(self._kept(), (self.out_features, self.in_features), dtype)

    def forward(self, input: torch.Tensor) -> torch.Tensor:
        """Return ``input @ weight.T + bias`` in the dtype of the input."""
        shape = (self.out_features, self.in_features)
        product: torch.Tensor = _FrozenProduct.apply(input, shape, *self._kept())  # type: ignore[no-untyped-call]
        return product if self.bias is None else product + self.bias.to(product.dtype)

    def _kept(self) -> tuple[torch.Tensor, ...]:
        pieces = torch.split(self.stored, self._sizes_bytes)
        return tuple(piece.view(dtype) for piece, dtype in zip(pieces, self._dtypes, strict=True))


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
    *nested, scales, packed = kept
    state = bitsandbytes.QuantState(
        absmax=scales,
        shape=torch.Size(shape),
        dtype=dtype,
        blocksize=BLOCK_VALUES,
        code=_values_of_nf4(packed.device),
        quant_type="nf4",
    )
    if nested:
        offset, scale_scales = nested
        state.offset, state.nested = offset[0], True
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
