"""The groups of shifted sparse attention: which tokens are in one, and where they lie.

What the groups are for is told in :mod:`baltoro.models.shifted_sparse_attention`. Inside each segment of a
packed row, counted in its own tokens, heads below ``H // 2`` have group boundaries at the multiples of
``group_len``; the others have them at ``group_len // 2`` plus the multiples; the last group is shorter.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

from baltoro.core.errors import ConfigError
from baltoro.models.attention import PADDING_SEGMENT, may_attend

if TYPE_CHECKING:
    import torch

_PADDING_GROUP = PADDING_SEGMENT


def check_group_len(group_len: int) -> None:
    """Refuse a length of which no groups can be made.

    Raises:
        ConfigError: it is no whole number, or below 1.
    """
    if not isinstance(group_len, int) or group_len < 1:
        raise ConfigError(f"group_len={group_len}: a group has a whole number of tokens, at least one")


def shifted_groups(
    segment_ids: torch.Tensor, group_len: int, padding_mask: torch.Tensor | None = None
) -> torch.Tensor:
    """Return the group of each token, for both halves of the heads.

    Args:
        segment_ids: integer [B, T]; equal values in a row are one segment, wherever they stand.
        group_len: tokens of a group.
        padding_mask: bool [B, T], true for real tokens, which alone are counted; ``None`` where all are.

    Returns:
        int64 [B, 2, T]; element 0 is for heads below ``H // 2``, element 1 for the others. Equal numbers in a
        row are one group, 0 is padding. Numbers rise with the segment and the position in it.

    Raises:
        ConfigError: ``group_len`` is no whole number, or below 1.
    """
    import torch

    check_group_len(group_len)
    _, numbers = torch.unique(segment_ids, return_inverse=True)
    numbers = numbers + 1
    if padding_mask is not None:
        numbers = numbers.masked_fill(~padding_mask, _PADDING_GROUP)
    # Stable, so tokens of a segment keep their order; padding comes first.
    ordered, order = numbers.sort(dim=1, stable=True)
    position = torch.arange(segment_ids.shape[1], device=segment_ids.device).expand_as(ordered)
    begins = torch.ones_like(ordered, dtype=torch.bool)
    begins[:, 1:] = ordered[:, 1:] != ordered[:, :-1]
    rank = position - torch.where(begins, position, 0).cummax(dim=1).values
    halves = []
    for first_len in (group_len, group_len // 2):
        part = (rank + group_len - first_len) // group_len
        opens = begins.clone()
        opens[:, 1:] |= part[:, 1:] != part[:, :-1]
        number = (opens & (ordered != _PADDING_GROUP)).cumsum(dim=1)
        number = number.masked_fill(ordered == _PADDING_GROUP, _PADDING_GROUP)
        halves.append(torch.empty_like(number).scatter(1, order, number))
    return torch.stack(halves, dim=1)


def may_attend_shifted(groups: torch.Tensor, row: Any, upper: Any, query: Any, key: Any) -> Any:
    """Return whether query positions may attend to key positions: the definition that all kernels follow.

    Padding sees only itself, as in :func:`~baltoro.models.attention.may_attend`.

    Args:
        groups: from :func:`shifted_groups`.
        row: integer tensor, index into the batch.
        upper: 1 for heads from ``H // 2`` on, 0 for those below.
        query: integer tensor, position that looks; all four broadcast against each other.
        key: integer tensor, position that is looked at.
    """
    return may_attend(groups.flatten(0, 1), 2 * row + upper, query, key)


def shifted_block_masks(groups: torch.Tensor) -> tuple[Any, Any]:
    """Return the masks as FlexAttention takes them.

    Args:
        groups: from :func:`shifted_groups`.

    Returns:
        ``torch.nn.attention.flex_attention.BlockMask`` of shape [B, 1, T, T] for the lower and for the upper
        half of the heads.
    """
    from torch.nn.attention.flex_attention import create_block_mask

    rows, _, tokens = groups.shape

    def block_mask(upper: int) -> Any:
        def mask(row: Any, head: Any, query: Any, key: Any) -> Any:  # noqa: ARG001  (FlexAttention's signature)
            return may_attend_shifted(groups, row, upper, query, key)

        return create_block_mask(
            mask,
            B=rows,
            H=None,
            Q_LEN=tokens,
            KV_LEN=tokens,
            device=groups.device,
            _compile=groups.device.type == "cuda",
        )

    return block_mask(0), block_mask(1)


class Run(NamedTuple):
    """Neighbouring groups of one length; ``real`` is false for padding."""

    groups: int
    tokens: int
    real: bool


@dataclass(frozen=True, slots=True, eq=False)
class GroupLayout:
    """Where groups lie once the rows are laid end to end.

    Attributes:
        order: int64 [B · T], token of the rows that comes at each place; ``None`` where groups are in one
            piece already, as in packed rows.
        halves: the runs of the lower and of the upper half of the heads, in that order.
    """

    order: torch.Tensor | None
    halves: tuple[tuple[Run, ...], tuple[Run, ...]]


def group_layout(groups: torch.Tensor) -> GroupLayout:
    """Return where groups lie; reads their lengths back from the device.

    Args:
        groups: from :func:`shifted_groups`.
    """
    import torch

    rows, _, tokens = groups.shape
    order = None
    if not _in_one_piece(groups):
        # Numbers rise with segment and position, so this brings both halves' groups together.
        offsets = torch.arange(rows, device=groups.device)[:, None] * tokens
        by_group = groups[:, 0].argsort(dim=1, stable=True)
        order = (by_group + offsets).flatten()
        groups = groups.take_along_dim(by_group[:, None], dim=2)
    lower, upper = (_runs(groups[:, half]) for half in (0, 1))
    return GroupLayout(order, (lower, upper))


def _in_one_piece(groups: torch.Tensor) -> bool:
    opens = groups != _PADDING_GROUP
    opens[:, :, 1:] &= groups[:, :, 1:] != groups[:, :, :-1]
    return bool(opens.sum() == groups.amax(dim=2).sum())


def _runs(groups: torch.Tensor) -> tuple[Run, ...]:
    """Return the runs of one half, whose groups [B, T] are in one piece each."""
    import torch
    from torch.nn.functional import pad

    opens = torch.ones_like(groups, dtype=torch.bool)
    opens[:, 1:] = groups[:, 1:] != groups[:, :-1]
    starts = opens.flatten().nonzero().flatten()
    lengths = pad(starts, (0, 1), value=groups.numel()).diff().tolist()
    real = (groups.flatten()[starts] != _PADDING_GROUP).tolist()
    return tuple(
        Run(sum(1 for _ in same), *kind) for kind, same in itertools.groupby(zip(lengths, real, strict=True))
    )
