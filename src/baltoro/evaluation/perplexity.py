"""Perplexity at lengths, by the protocols of the reference systems, whose numbers cannot be compared.

All of them average the means of windows, so that a window's tokens weigh the same whatever the window holds;
which windows there are, and which of their tokens are scored, is what they differ in. For a length of ``L``:

``longlora``
    LongLoRA's ``eval.py``. All texts are one stream. A window of ``L`` tokens begins every 256 tokens, but
    not at the last place where one would fit. All tokens of a window but its first are scored, so most
    tokens are scored ``L / 256`` times, after contexts of different lengths up to ``L - 1``.
``longqlora``
    LongQLoRA's evaluation: the same code, with windows that do not overlap (its documented stride 8,192 at a
    length of 8,192). Each token but a window's first is scored once.
``yarn``
    YaRN's ``eval/perplexity.py``, sliding, as its paper says. Within each text a window of ``L`` tokens moves
    by 256; only tokens that no earlier window scored are scored, and the last window ends with the text.
    Where there is a begin token, each window has it in front, within its ``L`` tokens.
``yarn_truncated``
    The same with ``--truncate``, behind YaRN's tables for Proof-pile: one window, the first ``L`` tokens of
    the text. All are scored, but the first where there is no begin token.

The originals raise 2.71828 (LongLoRA, LongQLoRA) or e to the mean loss; here it is e. LongQLoRA's script
always loads the model in four bits; here the model is scored as it is given.
"""

from __future__ import annotations

import math
from bisect import bisect_right
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import accumulate, islice
from typing import TYPE_CHECKING, Literal, NamedTuple, get_args

import numpy as np

from baltoro.core.errors import ConfigError, InputError
from baltoro.evaluation.lengths import choose_lengths
from baltoro.evaluation.scoring import CHUNK_TOKENS, TokenIds, evaluating, token_nats
from baltoro.evaluation.statistics import ratio_interval

if TYPE_CHECKING:
    from transformers import PreTrainedModel

Protocol = Literal["longlora", "longqlora", "yarn", "yarn_truncated"]

PROTOCOLS: tuple[Protocol, ...] = get_args(Protocol)

STRIDE_TOKENS = 256
"""How far ``longlora`` and ``yarn`` move a window."""

_STREAMS = ("longlora", "longqlora")


@dataclass(frozen=True, slots=True)
class Perplexity:
    """How well a model predicts texts at one length.

    Attributes:
        nats_per_token: mean over windows of their mean loss.
        perplexity: e to that.
        low: lower bound of the perplexity, 95 %, over texts: their windows are drawn together. ``None``
            where fewer than two texts were scored. (A window of a stream counts to the text it begins in.)
        high: upper bound.
        tokens: losses that were taken; a token that was scored in two windows is two.
        windows: forward passes.
        texts: with a window of their own.
        short_texts: left out, since they have fewer tokens than the length (or, with ``same_texts``, than the
            longest length); none in a stream.
    """

    nats_per_token: float
    perplexity: float
    low: float | None
    high: float | None
    tokens: int
    windows: int
    texts: int
    short_texts: int


class Window(NamedTuple):
    """What one forward pass reads.

    Attributes:
        text: number of the text that it belongs to.
        tokens: integer [at most the length].
        first_target: index of the first token that is scored.
    """

    text: int
    tokens: TokenIds
    first_target: int


def perplexities(
    model: PreTrainedModel,
    texts: Sequence[TokenIds],
    *,
    protocol: Protocol,
    lengths: Sequence[int],
    bos_token_id: int | None = None,
    max_texts: int | None = None,
    same_texts: bool = True,
    chunk_tokens: int = CHUNK_TOKENS,
    setting: str = "lengths",
) -> dict[int, Perplexity]:
    """Return the perplexity at each length, rising.

    Args:
        model: a ``transformers`` causal language model; evaluated with full attention.
        texts: token ids of each text, integer [T]; for a stream with whatever should stand between texts.
        protocol: one of :data:`PROTOCOLS`.
        lengths: of windows, in tokens; empty: a quarter, a half and the whole of the model's positions.
        bos_token_id: the begin token that YaRN's windows have in front; ``None`` if there is none.
        max_texts: at most so many, the first that are long enough; a stream takes the first of all.
        same_texts: at every length only texts that reach the longest one, as YaRN chose them, so that
            lengths differ in nothing else; otherwise all texts that reach each length.
        chunk_tokens: positions whose logits exist at one time.
        setting: what people call ``lengths``, for messages.

    Raises:
        ConfigError: a length is below 2, or beyond the model's positions.
        InputError: no text is long enough, or the stream gives no window.
    """
    chosen = choose_lengths(lengths, model.config.to_dict(), setting=setting)
    if chosen[0] < 2:
        raise ConfigError(f"{setting}: {chosen[0]} leaves no token to predict; give lengths of at least 2")
    found = {}
    with evaluating(model):
        for length in chosen:
            required = 1 if protocol in _STREAMS else chosen[-1] if same_texts else length
            reaching = [text for text in texts if len(text) >= required]
            short = len(texts) - len(reaching)
            if not reaching:
                raise InputError(
                    f"{setting}: none of the {len(texts)} texts has {required} tokens; lower the lengths, or "
                    "give longer texts"
                )
            taken = list(islice(reaching, max_texts))
            counted = [(0.0, 0, 0)] * len(taken)
            for window in windows_of(protocol, taken, length, bos_token_id=bos_token_id):
                nats = token_nats(
                    model, window.tokens, first_target=window.first_target, chunk_tokens=chunk_tokens
                )
                total, windows, tokens = counted[window.text]
                counted[window.text] = (total + float(nats.mean()), windows + 1, tokens + len(nats))
            found[length] = _summary(counted, 0 if protocol in _STREAMS else short)
    return found


def windows_of(
    protocol: Protocol, texts: Sequence[TokenIds], length: int, *, bos_token_id: int | None = None
) -> Iterator[Window]:
    """Yield the windows of a protocol.

    Args:
        protocol: one of :data:`PROTOCOLS`.
        texts: token ids of each text, each of at least one token.
        length: tokens of a window, at least 2.
        bos_token_id: the begin token that YaRN's windows have in front, if any.

    Raises:
        InputError: the texts together are too few tokens for one window of a stream.
    """
    if protocol in _STREAMS:
        yield from _of_stream(texts, length, STRIDE_TOKENS if protocol == "longlora" else length)
        return
    begin = np.array([] if bos_token_id is None else [bos_token_id], dtype=np.int64)
    room = length - len(begin)
    for number, text in enumerate(texts):
        scored = 0
        last = 1 if protocol == "yarn_truncated" else len(text)
        for start in range(0, last, STRIDE_TOKENS):
            stop = min(start + room, len(text))
            tokens = np.concatenate([begin, text[start:stop]])
            # Without a begin token the first token of a text has nothing before it.
            yield Window(number, tokens, max(len(tokens) - (stop - scored), 1))
            scored = stop
            if stop == len(text):
                break


def _of_stream(texts: Sequence[TokenIds], length: int, stride: int) -> Iterator[Window]:
    stream = np.concatenate(texts)
    # LongLoRA's loop drops the last place, where one more window would fit.
    starts = range(0, len(stream) - length, stride)[:-1]
    if not starts:
        raise InputError(
            f"the {len(texts)} texts have {len(stream)} tokens together, too few for one window of {length} "
            f"(the last of those that begin every {stride} tokens is dropped); give more texts, or lower the "
            "length"
        )
    ends = list(accumulate(len(text) for text in texts))
    for start in starts:
        yield Window(bisect_right(ends, start), stream[start : start + length], 1)


def _summary(counted: Sequence[tuple[float, int, int]], short_texts: int) -> Perplexity:
    sums, windows, tokens = zip(*counted, strict=True)
    mean = math.fsum(sums) / sum(windows)
    bounds = ratio_interval(sums, windows)
    return Perplexity(
        nats_per_token=mean,
        perplexity=math.exp(mean),
        low=None if bounds is None else math.exp(bounds[0]),
        high=None if bounds is None else math.exp(bounds[1]),
        tokens=sum(tokens),
        windows=sum(windows),
        texts=sum(number > 0 for number in windows),
        short_texts=short_texts,
    )
