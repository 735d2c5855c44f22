"""Attention within packed rows: the one definition of who may see whom, and the kernels behind it.

A row holds several documents (segments) side by side. A token sees itself and the earlier tokens of its own
segment, nothing else (:func:`may_attend`); positions restart per segment, so a packed row gives each segment
exactly the outputs it has alone. Three kernels do the same:

* ``sdpa``: ``scaled_dot_product_attention`` with the mask as a tensor; any device, any dtype, dropout.
* ``flex``: FlexAttention (Dong et al. 2024, arXiv:2412.05496), which compiles the definition into the kernel
  and leaves blocks out in which nobody sees anybody; GPU.
* ``flash_varlen``: FlashAttention-2 (Dao 2023, arXiv:2307.08691) over segments as sequences of their own
  lengths, as PyTorch carries it (``torch.nn.attention.varlen``); GPU, half precision.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from baltoro.core.errors import ConfigError
from baltoro.models.config import AttentionName

if TYPE_CHECKING:
    import torch
    from torch import nn

_logger = logging.getLogger(__name__)

PADDING_SEGMENT = 0

KernelName = Literal["flash_varlen", "flex", "sdpa"]

KERNELS: tuple[KernelName, ...] = ("flash_varlen", "flex", "sdpa")
"""The kernels, the one that ``auto`` prefers first."""

# transformers takes any name with "flash" in it for one of its own kernels.
_VARLEN_IMPLEMENTATION = "baltoro_varlen"

_AMPERE = (8, 0)


def may_attend(segment_ids: torch.Tensor, row: Any, query: Any, key: Any) -> Any:
    """Return whether query positions may attend to key positions: the mask's one definition.

    Padding sees only itself: a row of the mask without any key would make softmax divide zero by zero.

    Args:
        segment_ids: integer [B, T]; equal values are one segment, 0 is padding.
        row: integer tensor, index into the batch.
        query: integer tensor, position that looks; all three broadcast against each other.
        key: integer tensor, position that is looked at.
    """
    own = segment_ids[row, query]
    same_segment = (own == segment_ids[row, key]) & (own != PADDING_SEGMENT)
    return (query == key) | (same_segment & (key < query))


def packed_causal_mask(segment_ids: torch.Tensor) -> torch.Tensor:
    """Return the mask as a tensor.

    Args:
        segment_ids: integer [B, T]; equal values are one segment, 0 is padding.

    Returns:
        bool [B, 1, T, T]; element [b, 0, q, k] is true where query q may attend to key k.
    """
    import torch

    rows, tokens = segment_ids.shape
    position = torch.arange(tokens, device=segment_ids.device)
    row = torch.arange(rows, device=segment_ids.device)[:, None, None]
    mask: torch.Tensor = may_attend(segment_ids, row, position[:, None], position[None, :])
    return mask[:, None]


def packed_block_mask(segment_ids: torch.Tensor) -> Any:
    """Return the mask as FlexAttention takes it.

    Args:
        segment_ids: integer [B, T]; equal values are one segment, 0 is padding.

    Returns:
        ``torch.nn.attention.flex_attention.BlockMask`` of shape [B, 1, T, T].
    """
    from torch.nn.attention.flex_attention import create_block_mask

    rows, tokens = segment_ids.shape

    def mask(row: Any, head: Any, query: Any, key: Any) -> Any:  # noqa: ARG001  (FlexAttention's signature)
        return may_attend(segment_ids, row, query, key)

    on_gpu = segment_ids.device.type == "cuda"
    # Compiled, the blocks are found without a tensor of rows × tokens × tokens.
    return create_block_mask(
        mask, B=rows, H=None, Q_LEN=tokens, KV_LEN=tokens, device=segment_ids.device, _compile=on_gpu
    )


def packed_boundaries(segment_ids: torch.Tensor) -> torch.Tensor:
    """Return where each segment begins in the rows laid end to end, and the end of them all.

    A row's padding counts as a segment: its outputs are no one's target, and nobody looks at it.

    Args:
        segment_ids: integer [B, T]; equal neighbours are one segment.

    Returns:
        int32 [segments + 1], rising from 0 to B · T.
    """
    import torch
    from torch.nn.functional import pad

    begins = torch.ones_like(segment_ids, dtype=torch.bool)
    begins[:, 1:] = segment_ids[:, 1:] != segment_ids[:, :-1]
    starts = begins.flatten().nonzero().flatten().to(torch.int32)
    return pad(starts, (0, 1), value=segment_ids.numel())


@dataclass(frozen=True, slots=True)
class Attention:
    """A kernel, and what it is told of packed rows.

    Attributes:
        kernel: which one.
    """

    kernel: KernelName = "sdpa"

    def implementation(self) -> str:
        """Return the name that ``transformers`` knows the kernel by, registered if it is ours."""
        if self.kernel == "flash_varlen":
            from transformers import AttentionInterface

            AttentionInterface.register(_VARLEN_IMPLEMENTATION, _varlen_attention)
            return _VARLEN_IMPLEMENTATION
        return {"sdpa": "sdpa", "flex": "flex_attention"}[self.kernel]

    def arguments(self, segment_ids: torch.Tensor) -> dict[str, Any]:
        """Return what a model's forward pass takes besides ids and positions.

        Args:
            segment_ids: integer [B, T] on the model's device; equal values are one segment, 0 is padding.
        """
        if self.kernel == "sdpa":
            return {"attention_mask": packed_causal_mask(segment_ids)}
        if self.kernel == "flex":
            return {"attention_mask": packed_block_mask(segment_ids)}
        boundaries = packed_boundaries(segment_ids)
        return {
            "attention_mask": None,
            "segment_boundaries": boundaries,
            "longest_segment": int(boundaries.diff().max()),
        }


SDPA = Attention("sdpa")
"""The kernel that runs everywhere, which the others are compared with."""


def choose_attention(
    name: AttentionName, *, device: torch.device, precision: str, config: Mapping[str, Any]
) -> Attention:
    """Return the kernel to use, and say it in the log.

    Args:
        name: one kernel, or ``auto`` for the first of :data:`KERNELS` that fits.
        device: where the model computes.
        precision: ``float32``, ``bfloat16`` or ``float16``, of the forward pass.
        config: the model's ``config.json``.

    Raises:
        ConfigError: device, dtype or model are not what the named kernel can do.
    """
    lacking = {kernel: _what_lacks(kernel, device, precision, config) for kernel in KERNELS}
    fitting = [kernel for kernel in KERNELS if lacking[kernel] is None]
    if name != "auto" and lacking[name] is not None:
        raise ConfigError(f"attention={name}: {lacking[name]}; allowed here: {', '.join(['auto', *fitting])}")
    if not fitting:
        raise ConfigError(f"attention=auto: no kernel fits this model on {device}: {lacking['sdpa']}")
    kernel = fitting[0] if name == "auto" else name
    passed_over = [f"{other}: {lacking[other]}" for other in KERNELS[: KERNELS.index(kernel)]]
    why = "as set" if name != "auto" else "; ".join(passed_over) or "the first choice"
    _logger.info("attention kernel: %s (%s)", kernel, why)
    return Attention(kernel)


def _what_lacks(
    kernel: KernelName, device: torch.device, precision: str, config: Mapping[str, Any]
) -> str | None:
    """Return what keeps a kernel from running this model here, ``None`` if nothing does."""
    import torch

    caps_scores = config.get("attn_logit_softcapping") is not None
    if kernel == "sdpa":
        return "the model caps its attention scores, which only flex on a GPU does" if caps_scores else None
    if device.type != "cuda":
        return f"it needs a GPU, not {device.type}"
    capability = torch.cuda.get_device_capability(device)
    if torch.version.hip is None and capability < _AMPERE:
        return f"it needs a GPU of compute capability 8.0, not {capability[0]}.{capability[1]}"
    dropout = float(config.get("attention_dropout") or 0.0)
    if dropout:
        return f"it has no attention dropout, and the model's is {dropout}"
    if kernel == "flash_varlen":
        head_size = config.get("head_dim") or config["hidden_size"] // config["num_attention_heads"]
        if torch.version.hip is not None:
            return "it needs an NVIDIA GPU"
        if precision == "float32":
            return "it computes in bfloat16 or float16, not float32"
        if head_size > 256 or head_size % 8:
            return f"it needs heads of a multiple of 8 up to 256 values, not {head_size}"
        if caps_scores:
            return "the model caps its attention scores"
    return None


def _varlen_attention(
    _module: nn.Module,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    _attention_mask: torch.Tensor | None,
    *,
    segment_boundaries: torch.Tensor,
    longest_segment: int,
    scaling: float | None = None,
    **_others: Any,
) -> tuple[torch.Tensor, None]:
    """Attend within segments; ``transformers``' attention interface.

    Args:
        _module: the attention layer.
        query: [B, heads, T, head size].
        key: [B, key-value heads, T, head size].
        value: like ``key``.
        _attention_mask: none; the boundaries say it all.
        segment_boundaries: from :func:`packed_boundaries`.
        longest_segment: tokens of the longest segment.
        scaling: factor of the scores; one over the root of the head size if not given.
        **_others: what the interface hands to other kernels.

    Returns:
        [B, T, heads, head size], and no attention weights.
    """
    from torch.nn.attention.varlen import varlen_attn

    rows, heads, tokens, _ = query.shape
    flat_query, flat_key, flat_value = (
        states.transpose(1, 2).flatten(0, 1).contiguous() for states in (query, key, value)
    )
    output = varlen_attn(
        flat_query,
        flat_key,
        flat_value,
        segment_boundaries,
        segment_boundaries,
        longest_segment,
        longest_segment,
        scale=scaling,
        window_size=(-1, 0),
        enable_gqa=key.shape[1] != heads,
    )
    assert not isinstance(output, tuple)
    return output.view(rows, tokens, heads, -1), None
