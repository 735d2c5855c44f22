"""Activation checkpointing: decoder blocks that compute again, in the backward pass, what they did not keep.

A block's ``forward`` is replaced in place: names of parameters stay, hooks of a sharding strategy run around
it, and what they gather is there when it runs a second time (Chen et al. 2016, arXiv:1604.06174; selective
recomputation: Korthikanti et al. 2022, arXiv:2205.05198). Random states are restored for the second run, so
gradients are those of a block that keeps everything, dropout included.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:
    from torch import nn

Mode = Literal["none", "selective", "full"]

_KEPT_NAMES = frozenset(
    {
        # What F.linear, matmul and batched products become.
        "aten::mm",
        "aten::addmm",
        "aten::bmm",
        "aten::baddbmm",
        "aten::_scaled_mm",
        # What scaled_dot_product_attention becomes on CPU and GPU; its plain form is made of bmm.
        "aten::_scaled_dot_product_flash_attention_for_cpu",
        "aten::_scaled_dot_product_flash_attention",
        "aten::_scaled_dot_product_efficient_attention",
        "aten::_scaled_dot_product_cudnn_attention",
        "aten::_scaled_dot_product_fused_attention_overrideable",
        "flex_attention",
        "flash_attn::_flash_attn_forward",
        "flash_attn::_flash_attn_varlen_forward",
        "flash_attn_3::_flash_attn_forward",
    }
)


def checkpoint_blocks(blocks: Sequence[nn.Module], mode: Mode) -> None:
    """Let each block keep less between its forward and its backward pass.

    To be called before the blocks are compiled or sharded.

    Args:
        blocks: the decoder blocks.
        mode: ``none`` changes nothing; ``selective`` keeps a block's input and the outputs of its matrix
            products and attention; ``full`` keeps its input only.
    """
    if mode == "none":
        return
    from torch.utils.checkpoint import checkpoint

    options: dict[str, Any] = {"use_reentrant": False}
    if mode == "selective":
        options["context_fn"] = _selective_contexts
    for block in blocks:
        block.forward = functools.partial(checkpoint, block.forward, **options)


def _selective_contexts() -> Any:
    from torch.utils.checkpoint import create_selective_checkpoint_contexts

    return create_selective_checkpoint_contexts(_policy)  # type: ignore[no-untyped-call]


def _policy(context: Any, operator: Any, *args: Any, **kwargs: Any) -> Any:  # noqa: ARG001  (torch's interface)
    from torch.utils.checkpoint import CheckpointPolicy

    kept = operator.name().partition(".")[0] in _KEPT_NAMES
    return CheckpointPolicy.MUST_SAVE if kept else CheckpointPolicy.PREFER_RECOMPUTE
