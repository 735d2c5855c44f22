"""What attention costs over the length of a row: full against shifted sparse (S²), forward and backward.

The bare operation, both sides on the same tensors in one process, in turns: queries, keys and values of one
row as one segment, causal; full is ``scaled_dot_product_attention`` (what a GPU has a flash kernel for), S²
is :func:`baltoro.models.shifted_sparse_attention.shifted_sparse_attention` with groups of a quarter of the
row. That includes laying out the groups, which a model does once for all of its layers.

Attention is a part of a step only, so a second figure says what a whole step of a 7B gains at most: from the
operations that the mathematics needs, as if both sides ran at the same speed.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from typing import TYPE_CHECKING

from results import Row

if TYPE_CHECKING:
    import torch

LEAST_AT_LONGEST = 2.0
"""Full over S² at the longest row; a quarter of the pairs of tokens is left."""

TOKENS_7B = (8192, 12_288, 32_768)
_WARM_UP_TURNS = 1


def measure_attention(
    *, tokens: tuple[int, ...], heads: int, head_size: int, turns: int, device: torch.device
) -> tuple[list[Row], str]:
    """Measure at each length: milliseconds of forward and backward, medians over turns; and the gain of a 7B.

    Args:
        tokens: lengths of the row, rising.
        heads: of queries, keys and values alike.
        head_size: values of a head.
        turns: of each side at each length.
        device: where; bfloat16 on a GPU, float32 on a CPU.

    Returns:
        The rows, and a line for the reader.
    """
    rows, ratios = [], []
    for length in tokens:
        times = _times(length, heads=heads, head_size=head_size, turns=turns, device=device)
        full, shifted = (statistics.median(times[name]) * 1000 for name in ("full", "shifted"))
        # A ratio of speeds is that of times the other way round: how many times as fast S² is.
        bound = LEAST_AT_LONGEST if length == tokens[-1] else None
        rows.append(Row(f"attention/{length}", "1/s", 1000 / shifted, 1000 / full, bound))
        ratios.append(full / shifted)
    pays = pays_from(tokens, ratios)
    if pays is not None:
        rows.append(Row("attention/pays_from", "tokens", pays, tokens[-1]))
    rows += [_gain_of_7b(length) for length in TOKENS_7B]
    what = "nowhere among these lengths" if pays is None else f"from rows of {pays:,} tokens on"
    return rows, f"attention: S² with groups of a quarter of the row is faster than full attention {what}"


def pays_from(tokens: tuple[int, ...], ratios: list[float]) -> int | None:
    """Return the shortest measured length from which on S² is always faster, ``None`` if it is at none."""
    found = None
    for length, ratio in zip(reversed(tokens), reversed(ratios), strict=True):
        if ratio <= 1.0:
            break
        found = length
    return found


def _times(
    tokens: int, *, heads: int, head_size: int, turns: int, device: torch.device
) -> dict[str, list[float]]:
    import torch
    from torch.nn.functional import scaled_dot_product_attention

    from baltoro.models.shifted_sparse_attention import choose_group_len, shifted_sparse_attention

    generator = torch.Generator(device).manual_seed(0)
    dtype = torch.bfloat16 if device.type == "cuda" else torch.float32
    # As a model has them: heads are a view of [rows, tokens, heads, size].
    query, key, value, gradient = (
        torch.randn(1, tokens, heads, head_size, generator=generator, device=device, dtype=dtype).transpose(
            1, 2
        )
        for _ in range(4)
    )
    states = [part.requires_grad_(True) for part in (query, key, value)]
    group_len = choose_group_len(tokens)

    def side(attend: Callable[[], torch.Tensor]) -> Callable[[], float]:
        def run() -> float:
            for part in states:
                part.grad = None
            _settle(device)
            began = time.perf_counter()
            attend().backward(gradient)
            _settle(device)
            return time.perf_counter() - began

        return run

    sides = {
        "full": side(lambda: scaled_dot_product_attention(*states, is_causal=True)),
        "shifted": side(lambda: shifted_sparse_attention(*states, group_len=group_len)),
    }
    times: dict[str, list[float]] = {name: [] for name in sides}
    for turn in range(_WARM_UP_TURNS + turns):
        for name in sorted(sides, reverse=turn % 2 == 1):
            seconds = sides[name]()
            if turn >= _WARM_UP_TURNS:
                times[name].append(seconds)
    return times


def _settle(device: torch.device) -> None:
    import torch

    if device.type == "cuda":
        torch.cuda.synchronize(device)


def _gain_of_7b(tokens: int) -> Row:
    """Return the operations of a 7B's step on one row, TFLOP: with full attention over those with S²."""
    from baltoro.models.flops import training_flops_per_token
    from baltoro.models.presets import preset_config
    from baltoro.models.shifted_sparse_attention import choose_group_len

    config = preset_config("llama-7b", vocabulary_size=32_000, sequence_length=tokens).to_dict()
    group = choose_group_len(tokens)
    full = training_flops_per_token(config, tokens)
    # Half of the heads have groups of G; the others have as many pairs but for the halves at both ends.
    plain = training_flops_per_token(config, group)
    per_pair = (full - plain) / (_pairs([tokens]) / tokens - _pairs([group]) / group)
    groups = [group] * (tokens // group)
    shifted = [group // 2, *groups[1:], group - group // 2]
    mean_keys = (_pairs(groups) + _pairs(shifted)) / 2 / tokens
    sparse = full - per_pair * (_pairs([tokens]) / tokens - mean_keys)
    return Row(
        f"attention/step_operations_7b/{tokens}", "TFLOP", full * tokens / 1e12, sparse * tokens / 1e12
    )


def _pairs(lengths: list[int]) -> float:
    """Return the pairs of tokens that see each other in causal groups of these lengths."""
    return sum(length * (length + 1) / 2 for length in lengths)
