"""Packed rows to what a model and its loss take; the one module here that knows torch."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import torch

from baltoro.data.shards import RowBatch

IGNORED_LABEL = -100
"""The label of a position without a target, as ``torch.nn.functional.cross_entropy`` ignores by default."""


@dataclass(frozen=True, slots=True, eq=False)
class ModelInputs:
    """One micro-batch.

    Attributes:
        input_ids: int64 [rows, sequence_length].
        segment_ids: int32 [rows, sequence_length]; 1 for a row's first segment and so on, 0 for padding.
            Attention never crosses from one value to another.
        position_ids: int64 [rows, sequence_length]; starts again at 0 with each segment, and with padding.
        labels: int64 [rows, sequence_length]; the token to be predicted *at* a position, which is the next
            token of the same segment; ``IGNORED_LABEL`` where there is none or the loss mask leaves it out.
            Already shifted: the loss compares ``logits[:, t]`` with ``labels[:, t]``.
        valid_tokens: positions with a label.
        tokens: positions that are not padding.
    """

    input_ids: torch.Tensor
    segment_ids: torch.Tensor
    position_ids: torch.Tensor
    labels: torch.Tensor
    valid_tokens: int
    tokens: int

    def to(self, device: torch.device) -> ModelInputs:
        """Return the same with its tensors on a device."""
        return ModelInputs(
            self.input_ids.to(device, non_blocking=True),
            self.segment_ids.to(device, non_blocking=True),
            self.position_ids.to(device, non_blocking=True),
            self.labels.to(device, non_blocking=True),
            self.valid_tokens,
            self.tokens,
        )


def without_targets(inputs: ModelInputs) -> ModelInputs:
    """Return the same inputs with no position counted: what keeps an idle rank in step with the others."""
    return replace(inputs, labels=torch.full_like(inputs.labels, IGNORED_LABEL), valid_tokens=0, tokens=0)


def collate(batch: RowBatch) -> ModelInputs:
    """Return tensors on the CPU for packed rows (shapes and dtypes: :class:`ModelInputs`)."""
    rows, width = batch.input_ids.shape
    counts = np.array([len(ends) for ends in batch.segment_ends])
    row = np.repeat(np.arange(rows), counts)
    ends = np.concatenate(batch.segment_ends).astype(np.int64)
    used = np.array([segments[-1] for segments in batch.segment_ends], dtype=np.int64)

    # A segment (or the padding) begins where the one before ends; an end at the row's end begins nothing.
    begins = np.zeros((rows, width), dtype=np.int32)
    inner = ends < width
    begins[row[inner], ends[inner]] = 1
    segment_ids = np.cumsum(begins, axis=1, dtype=np.int32) + 1
    columns = np.arange(width)
    position_ids = columns - np.maximum.accumulate(np.where(begins == 1, columns, 0), axis=1)
    is_padding = columns >= used[:, None]
    segment_ids[is_padding] = 0

    input_ids = batch.input_ids.astype(np.int64)
    is_target = (segment_ids[:, 1:] == segment_ids[:, :-1]) & ~is_padding[:, 1:]
    if batch.loss_mask is not None:
        is_target &= batch.loss_mask[:, 1:]
    labels = np.full((rows, width), IGNORED_LABEL, dtype=np.int64)
    labels[:, :-1][is_target] = input_ids[:, 1:][is_target]
    return ModelInputs(
        torch.from_numpy(input_ids),
        torch.from_numpy(segment_ids),
        torch.from_numpy(position_ids),
        torch.from_numpy(labels),
        valid_tokens=int(is_target.sum()),
        tokens=int(used.sum()),
    )
