"""Attention within packed rows: the one definition of who may see whom.

A row holds several documents (segments) side by side. A token sees itself and the earlier tokens of its own
segment, nothing else. The mask goes through transformers' four-dimensional mask path to
``scaled_dot_product_attention``, on every device; positions restart per segment, so a packed row gives each
segment exactly the outputs it has alone.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch

PADDING_SEGMENT = 0


def packed_causal_mask(segment_ids: torch.Tensor) -> torch.Tensor:
    """Return which key position each query position may attend to.

    Padding sees only itself: a row of the mask without any key would make softmax divide zero by zero.

    Args:
        segment_ids: integer [B, T]; equal values are one segment, 0 is padding.

    Returns:
        bool [B, 1, T, T]; element [b, 0, q, k] is true where query q may attend to key k.
    """
    import torch

    tokens = segment_ids.shape[1]
    same_segment = segment_ids[:, :, None] == segment_ids[:, None, :]
    not_padding = (segment_ids != PADDING_SEGMENT)[:, :, None]
    causal = torch.ones(tokens, tokens, dtype=torch.bool, device=segment_ids.device).tril()
    itself = torch.eye(tokens, dtype=torch.bool, device=segment_ids.device)
    return (same_segment & not_padding & causal | itself)[:, None]
