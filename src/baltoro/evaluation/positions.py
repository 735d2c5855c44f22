"""Loss by position: whether a model gains from more context, or falls apart where it was not trained."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import islice
from typing import TYPE_CHECKING

import numpy as np

from baltoro.core.errors import ConfigError, InputError
from baltoro.evaluation.lengths import choose_lengths
from baltoro.evaluation.scoring import CHUNK_TOKENS, TokenIds, evaluating, token_nats
from baltoro.evaluation.statistics import ratio_interval

if TYPE_CHECKING:
    from transformers import PreTrainedModel


@dataclass(frozen=True, slots=True)
class PositionBucket:
    """The tokens whose contexts are about equally long.

    Attributes:
        first: fewest tokens before a token of this bucket, from 1.
        last: most tokens before one.
        tokens: losses that were taken.
        nats_per_token: their mean.
        low: lower bound of the mean, 95 %, over texts; ``None`` of fewer than two texts.
        high: upper bound.
    """

    first: int
    last: int
    tokens: int
    nats_per_token: float
    low: float | None
    high: float | None


@dataclass(frozen=True, slots=True)
class PositionLosses:
    """The losses of texts by position.

    Attributes:
        length: tokens of each text that were read: the first.
        buckets: without a gap from 1 to ``length - 1`` tokens of context.
        texts: that were read.
        short_texts: left out, since they have fewer tokens than the length.
    """

    length: int
    buckets: tuple[PositionBucket, ...]
    texts: int
    short_texts: int


def loss_by_position(
    model: PreTrainedModel,
    texts: Sequence[TokenIds],
    *,
    length: int | None = None,
    buckets_per_doubling: int = 1,
    max_texts: int | None = None,
    chunk_tokens: int = CHUNK_TOKENS,
    setting: str = "length",
) -> PositionLosses:
    """Return the mean loss in buckets of positions, whose borders are evenly spaced in their logarithm.

    Every bucket has tokens of the same texts, so they differ in the context alone.

    Args:
        model: a ``transformers`` causal language model; evaluated with full attention.
        texts: token ids of each text, integer [T].
        length: tokens of each text to read; ``None``: as many as the model reads.
        buckets_per_doubling: of the position.
        max_texts: at most so many, the first that are long enough.
        chunk_tokens: positions whose logits exist at one time.
        setting: what people call ``length``, for messages.

    Raises:
        ConfigError: the length is below 2, or beyond the model's positions.
        InputError: no text is long enough.
    """
    lengths = () if length is None else (length,)
    chosen = choose_lengths(lengths, model.config.to_dict(), setting=setting)[-1]
    if chosen < 2:
        raise ConfigError(f"{setting}={chosen} leaves no token to predict; give a length of at least 2")
    reaching = [text for text in texts if len(text) >= chosen]
    if not reaching:
        raise InputError(
            f"{setting}: none of the {len(texts)} texts has {chosen} tokens; lower the length, or give "
            "longer texts"
        )
    starts = bucket_starts(chosen, buckets_per_doubling)
    with evaluating(model):
        sums = np.array(
            [
                # The loss at index i is that of the token with i + 1 tokens before it.
                np.add.reduceat(token_nats(model, text[:chosen], chunk_tokens=chunk_tokens), starts - 1)
                for text in islice(reaching, max_texts)
            ]
        )
    counts = np.diff(starts, append=chosen)
    buckets = []
    for first, count, column in zip(starts.tolist(), counts.tolist(), sums.T, strict=True):
        bounds = ratio_interval(column.tolist(), [count] * len(column))
        low, high = (None, None) if bounds is None else bounds
        tokens = count * len(column)
        mean = math.fsum(column) / tokens
        buckets.append(PositionBucket(first, first + count - 1, tokens, mean, low, high))
    return PositionLosses(chosen, tuple(buckets), len(sums), len(texts) - len(reaching))


def bucket_starts(length: int, per_doubling: int) -> TokenIds:
    """Return the first position of each bucket, int64, rising from 1 to below ``length``.

    >>> bucket_starts(10, 1).tolist()
    [1, 2, 4, 8]
    """
    powers = range(math.ceil(math.log2(length) * per_doubling) + 1)
    starts = sorted({round(2 ** (power / per_doubling)) for power in powers})
    return np.array([start for start in starts if start < length], dtype=np.int64)
