"""Shifted sparse attention (S²): full attention within groups of tokens, for training on long rows.

LongLoRA (Chen et al. 2023, arXiv:2309.12307, section 3.2) trains a long context at the price of a short one:
tokens attend within groups of ``group_len``, and half of the heads have their groups shifted by half a group,
so that what one head cannot see passes on through another. After training the model runs with full attention.

This is the form of it that is exact. Inside each segment of a packed row, counted in its own tokens:

* heads below ``H // 2`` have group boundaries at the multiples of ``group_len``;
* the others have them at ``group_len // 2`` plus the multiples;
* the last group is as long as what is left, and the first of the shifted heads has half a group. Nothing
  wraps around: the authors' dense code rolls the sequence, so its first tokens attend to its last.

Nothing need divide anything. Rotary positions are applied before, at the true positions. A group is a
segment made smaller, so who may see whom follows from the one definition in :mod:`baltoro.models.attention`
with group numbers in place of segment ids (:func:`~baltoro.models.shifted_groups.may_attend_shifted`). Each
kernel has its way to it:

* ``sdpa``: groups lie next to each other, so each run of groups of one length is a batch of small causal
  attentions, without a mask and without copies. Time and memory fall with the length of a group.
* ``flex``: two block masks, one for each half of the heads.
* ``flash_varlen``: groups as sequences of their own lengths, once for each half of the heads.

All heads see a whole segment of ``n`` tokens from ``group_len = 2 · n`` on; at ``group_len = n`` the shifted
heads still have a boundary in the middle.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from fractions import Fraction
from functools import cached_property
from typing import TYPE_CHECKING, Any, NamedTuple

from baltoro.core.errors import ConfigError
from baltoro.models.attention import PADDING_SEGMENT, Attention
from baltoro.models.shifted_groups import (
    GroupLayout,
    Run,
    check_group_len,
    group_layout,
    shifted_block_masks,
    shifted_groups,
)

if TYPE_CHECKING:
    import torch
    from torch import nn

IMPLEMENTATION = "baltoro_shifted_sparse"
"""The name that ``transformers`` knows it by."""

DEFAULT_GROUP_RATIO = 0.25
"""Group length over row length: LongLoRA's, who found a half as good and a sixth worse (table 7)."""


def choose_group_len(
    context_tokens: int, *, ratio: float = DEFAULT_GROUP_RATIO, group_len: int | None = None
) -> int:
    """Return the tokens of a group.

    Args:
        context_tokens: tokens of a training row.
        ratio: of a group to a row, rounded up to whole tokens.
        group_len: the tokens themselves; ``ratio`` is not used then.

    Raises:
        ConfigError: a group of no token or of parts of one, or longer than two rows, which is full attention.
    """
    if group_len is None:
        if not 0 < ratio <= 1:
            raise ConfigError(
                f"group_ratio={ratio}: a group is a part of the row; give a number above 0 and up to 1, for "
                f"example {DEFAULT_GROUP_RATIO}"
            )
        # By the digits as written: in binary, 0.07 of 100 is a little above 7.
        return math.ceil(Fraction(str(ratio)) * context_tokens)
    check_group_len(group_len)
    if group_len > 2 * context_tokens:
        raise ConfigError(
            f"group_len={group_len}: a group has 1 to {2 * context_tokens} tokens in rows of "
            f"{context_tokens}; LongLoRA uses a quarter of the row, here "
            f"{choose_group_len(context_tokens)}"
        )
    return group_len


# --------------------------------------------------------------------------------------------------
# On plain tensors


class _States(NamedTuple):
    """Query, key and value; heads are dimension 1."""

    query: torch.Tensor
    key: torch.Tensor
    value: torch.Tensor

    @property
    def shared(self) -> bool:
        """Whether query heads share key heads."""
        return self.query.shape[1] != self.key.shape[1]


def shifted_sparse_attention(
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    *,
    group_len: int,
    segment_ids: torch.Tensor | None = None,
    padding_mask: torch.Tensor | None = None,
    scaling: float | None = None,
) -> torch.Tensor:
    """Attend causally within groups; heads from ``H // 2`` on have theirs shifted by half a group.

    Any device and dtype, any length, gradients to all three. Memory grows with T, time with
    ``T · group_len``. Rotary positions must be applied already, at true positions.

    Args:
        query: [B, H, T, D].
        key: [B, K, T, D]; K divides H, query head h looks at key head ``h // (H // K)``.
        value: [B, K, T, any size].
        group_len: tokens of a group; from ``2 · T`` on this is full causal attention.
        segment_ids: integer [B, T]; tokens attend within equal ids, and groups are counted inside them.
            ``None``: a row is one segment.
        padding_mask: bool [B, T], true for real tokens; padding may stand anywhere. Nobody sees it, it is
            not counted, and its outputs are zero. ``None``: all are real.
        scaling: factor of the scores; one over the root of D if not given.

    Returns:
        [B, H, T, size of a value].

    Raises:
        ConfigError: ``group_len`` no whole number or below 1, or shapes that do not belong together.
    """
    import torch

    rows, heads, tokens, _ = query.shape
    check_group_len(group_len)
    if key.shape[0] != rows or key.shape[2] != tokens or key.shape[:3] != value.shape[:3]:
        raise ConfigError(
            f"query {tuple(query.shape)}, key {tuple(key.shape)} and value {tuple(value.shape)} do not "
            "belong together; rows and tokens of all three, and heads of key and value, must be equal"
        )
    if heads % key.shape[1]:
        raise ConfigError(f"{heads} query heads cannot share {key.shape[1]} key heads evenly; use a divisor")
    for name, given in (("segment_ids", segment_ids), ("padding_mask", padding_mask)):
        if given is not None and tuple(given.shape) != (rows, tokens):
            raise ConfigError(f"{name} {tuple(given.shape)}: one entry per token is needed, {(rows, tokens)}")
    if segment_ids is None:
        segment_ids = torch.zeros(rows, tokens, dtype=torch.int32, device=query.device)
    if padding_mask is not None:
        padding_mask = padding_mask.bool()
    if not rows * tokens:
        # Sums of nothing, so that the gradients are there, too.
        nothing = sum(part.sum() for part in (query, key, value))
        return query.new_zeros(rows, heads, tokens, value.shape[3]) + nothing
    layout = group_layout(shifted_groups(segment_ids, group_len, padding_mask))
    return _attend_in_batches(_States(query, key, value), layout, scaling).transpose(1, 2)


def _halves(states: _States) -> Iterator[tuple[int, _States]]:
    """Yield the number and the heads of each half that has any."""
    heads = states.query.shape[1]
    ratio = heads // states.key.shape[1]
    for half, (start, stop) in enumerate(((0, heads // 2), (heads // 2, heads))):
        if start < stop:
            key, value = (_serving(part, start, stop, ratio) for part in (states.key, states.value))
            yield half, _States(states.query[:, start:stop], key, value)


def _serving(states: torch.Tensor, start: int, stop: int, ratio: int) -> torch.Tensor:
    """Return the key or value heads of query heads ``start`` to ``stop``, each shared by equally many."""
    import torch

    first, last = start // ratio, -(-stop // ratio)
    if last - first == 1 or (start % ratio == 0 and stop % ratio == 0):
        return states[:, first:last]
    # The halves cut through what one key head serves: every query head gets its own.
    return states.index_select(1, torch.arange(start, stop, device=states.device) // ratio)


def _end_to_end(states: _States, order: torch.Tensor | None) -> _States:
    """Return [B · T, heads, size] of [B, heads, T, size], in the order of a layout."""
    flat = (part.transpose(1, 2).flatten(0, 1) for part in states)
    return _States(*(part if order is None else part.index_select(0, order) for part in flat))


def _in_rows(outputs: Sequence[torch.Tensor], order: torch.Tensor | None, rows: int) -> torch.Tensor:
    """Return [B, T, H, size] of each half's [B · T, heads, size]."""
    import torch

    output = torch.cat(list(outputs), dim=1)
    if order is not None:
        output = output.index_select(0, order.argsort())
    return output.view(rows, -1, *output.shape[1:])


def _attend_in_batches(
    states: _States, layout: GroupLayout, scaling: float | None, dropout: float = 0.0
) -> torch.Tensor:
    """Return [B, T, H, size of a value]: a run of equally long groups is one batch, causal without a mask."""
    outputs = [
        _attend_in_runs(half_states, layout.halves[half], scaling, dropout)
        for half, half_states in _halves(_end_to_end(states, layout.order))
    ]
    return _in_rows(outputs, layout.order, len(states.query))


def _attend_in_runs(
    states: _States, runs: Sequence[Run], scaling: float | None, dropout: float
) -> torch.Tensor:
    import torch
    from torch.nn.functional import scaled_dot_product_attention

    sizes = [run.groups * run.tokens for run in runs]
    pieces = []
    for run, *parts in zip(runs, *(torch.split(part, sizes) for part in states), strict=True):
        if run.real:
            query, key, value = (
                part.unflatten(0, (run.groups, run.tokens)).transpose(1, 2) for part in parts
            )
            output = scaled_dot_product_attention(
                query,
                key,
                value,
                is_causal=True,
                scale=scaling,
                dropout_p=dropout,
                enable_gqa=states.shared,
            )
            pieces.append(output.transpose(1, 2).flatten(0, 1))
        else:
            # Sums of nothing, so that a batch of padding alone still has (zero) gradients.
            nothing = torch.stack([part[:0].sum() for part in parts]).sum()
            zeros = nothing.new_zeros(len(parts[0]), states.query.shape[1], states.value.shape[2])
            pieces.append(zeros + nothing)
    return torch.cat(pieces)


def _attend_as_sequences(states: _States, layout: GroupLayout, scaling: float | None) -> torch.Tensor:
    """Return [B, T, H, head size] by FlashAttention over groups as sequences; padding is not yet zero."""
    import torch
    from torch.nn.attention.varlen import varlen_attn

    outputs = []
    for half, (query, key, value) in _halves(_end_to_end(states, layout.order)):
        lengths = [run.tokens for run in layout.halves[half] for _ in range(run.groups)]
        boundaries = torch.tensor(
            list(itertools.accumulate(lengths, initial=0)), dtype=torch.int32, device=query.device
        )
        output = varlen_attn(
            query.contiguous(),
            key.contiguous(),
            value.contiguous(),
            boundaries,
            boundaries,
            max(lengths),
            max(lengths),
            scale=scaling,
            window_size=(-1, 0),
            enable_gqa=query.shape[1] != key.shape[1],
        )
        assert not isinstance(output, tuple)
        outputs.append(output)
    return _in_rows(outputs, layout.order, len(states.query))


# --------------------------------------------------------------------------------------------------
# In a model


@dataclass(frozen=True, slots=True)
class ShiftedSparseAttention(Attention):
    """Shifted sparse attention while a model trains; when it evaluates, full attention by the same kernel.

    Stands wherever an :class:`~baltoro.models.attention.Attention` does.

    Attributes:
        kernel: which one.
        group_len: tokens of a group.
    """

    group_len: int = field(kw_only=True)

    @property
    def full(self) -> Attention:
        """What the model evaluates with."""
        return Attention(self.kernel)

    def implementation(self) -> str:
        """Return the name that ``transformers`` knows the attention by, registered."""
        import torch
        from transformers import AttentionInterface

        # Not traced: how many groups there are changes with every batch. FlexAttention still compiles itself.
        untraced = torch.compiler.disable(_shifted_attention)  # type: ignore[no-untyped-call]
        AttentionInterface.register(IMPLEMENTATION, untraced)
        return IMPLEMENTATION

    def arguments(self, segment_ids: torch.Tensor) -> dict[str, Any]:
        """Return what a model's forward pass takes besides ids and positions.

        Args:
            segment_ids: integer [B, T] on the model's device; equal values are one segment, 0 is padding.
        """
        import torch

        rows = ShiftedRows(self, segment_ids)
        if torch.is_grad_enabled():
            # Here once, and not in the first layer, which activation checkpointing runs twice.
            rows.prepare()
        return {"attention_mask": None, "shifted_rows": rows}


class ShiftedRows:
    """What every layer is told of one batch of packed rows; worked out once for them all.

    No dataclass: wrappers of distributed training take those apart.

    Args:
        attention: the settings.
        segment_ids: integer [B, T]; equal values are one segment, 0 is padding.
    """

    def __init__(self, attention: ShiftedSparseAttention, segment_ids: torch.Tensor) -> None:
        self.attention = attention
        self.segment_ids = segment_ids

    def prepare(self) -> None:
        """Work out what training takes."""
        if self.attention.kernel == "flex":
            self.block_masks  # noqa: B018  (a cached property)
        else:
            self.layout  # noqa: B018

    @cached_property
    def padding(self) -> torch.Tensor:
        """Bool [B, T], true for padding."""
        return self.segment_ids == PADDING_SEGMENT

    @cached_property
    def _groups(self) -> torch.Tensor:
        return shifted_groups(self.segment_ids, self.attention.group_len, ~self.padding)

    @cached_property
    def layout(self) -> GroupLayout:
        """Where the groups lie."""
        return group_layout(self._groups)

    @cached_property
    def block_masks(self) -> tuple[Any, Any]:
        """As FlexAttention takes them."""
        return shifted_block_masks(self._groups)

    @cached_property
    def full_arguments(self) -> dict[str, Any]:
        """What full attention takes; not made unless a model evaluates."""
        return self.attention.full.arguments(self.segment_ids)


def _shifted_attention(
    module: nn.Module,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    _attention_mask: torch.Tensor | None,
    *,
    shifted_rows: ShiftedRows,
    scaling: float | None = None,
    dropout: float = 0.0,
    **others: Any,
) -> tuple[torch.Tensor, None]:
    """Attend within groups while training, fully otherwise; ``transformers``' attention interface.

    Args:
        module: the attention layer.
        query: [B, heads, T, head size].
        key: [B, key-value heads, T, head size].
        value: like ``key``.
        _attention_mask: none; the rows say it all.
        shifted_rows: from :meth:`ShiftedSparseAttention.arguments`.
        scaling: factor of the scores; one over the root of the head size if not given.
        dropout: share of attention weights left out.
        **others: what the interface hands to other kernels.

    Returns:
        [B, T, heads, head size], and no attention weights.

    Raises:
        ConfigError: the model changes its scores in a way that the kernel does not compute.
    """
    import torch
    from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

    rows, kernel = shifted_rows, shifted_rows.attention.kernel
    output: torch.Tensor
    if not module.training:
        full = ALL_ATTENTION_FUNCTIONS[rows.attention.full.implementation()]
        told = dict(rows.full_arguments)
        mask = told.pop("attention_mask")
        output, _ = full(
            module, query, key, value, mask, scaling=scaling, dropout=dropout, **{**others, **told}
        )
        return output, None
    for name in ("softcap", "s_aux", "position_bias"):
        if others.get(name) is not None:
            raise ConfigError(
                f"{type(module).__name__} changes its attention scores ({name}), which shifted sparse "
                "attention does not compute; train with full attention, or choose another model.base"
            )
    states = _States(query, key, value)
    if kernel == "sdpa":
        return _attend_in_batches(states, rows.layout, scaling, dropout), None
    if kernel == "flash_varlen":
        output = _attend_as_sequences(states, rows.layout, scaling)
    else:
        flex = ALL_ATTENTION_FUNCTIONS[rows.attention.full.implementation()]
        outputs = [
            flex(module, *half_states, rows.block_masks[half], scaling=scaling, dropout=dropout)[0]
            for half, half_states in _halves(states)
        ]
        output = torch.cat(outputs, dim=2)
    return output.masked_fill(rows.padding[:, :, None, None], 0.0), None
