"""A model's loss at each token of a text, and the state in which a model is evaluated."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from baltoro.core.errors import InputError

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedModel

TokenIds = npt.NDArray[np.integer[Any]]
"""Token ids of one text, integer [T]."""

CHUNK_TOKENS = 512
"""Positions whose logits exist at one time."""

_OWN_ATTENTION = "baltoro_"
_FULL_ATTENTION = "sdpa"


@contextlib.contextmanager
def evaluating(model: PreTrainedModel) -> Iterator[None]:
    """Put a model into evaluation, with full attention and without gradients, and back afterwards.

    Attention of training (shifted sparse, packed rows) is told of its rows by the trainer; here there is one
    text at a time, which sees all of itself.

    Args:
        model: any causal language model.
    """
    import torch

    implementation = getattr(model.config, "_attn_implementation", None)
    own = str(implementation).startswith(_OWN_ATTENTION)
    training = model.training
    if own:
        model.set_attn_implementation(_FULL_ATTENTION)
    model.eval()
    try:
        with torch.inference_mode():
            yield
    finally:
        model.train(training)
        if own:
            model.set_attn_implementation(implementation)


def token_nats(
    model: PreTrainedModel, input_ids: TokenIds, *, first_target: int = 1, chunk_tokens: int = CHUNK_TOKENS
) -> npt.NDArray[np.float64]:
    """Return the loss of each token given all before it.

    One forward pass over the text; its logits exist for ``chunk_tokens`` positions at a time. Whatever the
    model does to its logits (a scale, a cap) is done: pieces of the hidden states go through the model's own
    forward pass, in which the decoder is left out.

    To be called within :func:`evaluating`.

    Args:
        model: a ``transformers`` causal language model.
        input_ids: of one text, at least ``first_target + 1``.
        first_target: index of the first token that is scored, from 1; everything before is context only.
        chunk_tokens: positions whose logits exist at one time.

    Returns:
        float64 [T - first_target], in nats.

    Raises:
        InputError: the model's logits do not come from its decoder's last hidden states alone.
    """
    import torch
    from torch.nn.functional import cross_entropy

    ids = torch.from_numpy(np.ascontiguousarray(input_ids, dtype=np.int64)).to(model.device)[None]
    decoder = model.get_decoder()
    hidden = decoder(input_ids=ids, use_cache=False).last_hidden_state
    stop = ids.shape[1] - 1
    losses = []
    for start in range(first_target - 1, stop, chunk_tokens):
        piece = slice(start, min(start + chunk_tokens, stop))
        logits = _logits(model, decoder, ids[:, piece], hidden[:, piece])
        targets = ids[0, start + 1 : piece.stop + 1]
        losses.append(cross_entropy(logits[0].float(), targets, reduction="none"))
        del logits
    return torch.cat(losses).cpu().numpy().astype(np.float64)


def _logits(model: Any, decoder: Any, ids: torch.Tensor, hidden: torch.Tensor) -> torch.Tensor:
    """Return [1, n, vocabulary] of hidden states [1, n, d], by the model's own code after its decoder."""
    from transformers.modeling_outputs import BaseModelOutputWithPast

    calls = 0

    def instead(*_: Any, **__: Any) -> BaseModelOutputWithPast:
        nonlocal calls
        calls += 1
        return BaseModelOutputWithPast(last_hidden_state=hidden)

    before = decoder.__dict__.get("forward")
    decoder.__dict__["forward"] = instead
    try:
        logits: torch.Tensor = model(input_ids=ids, use_cache=False).logits
    finally:
        if before is None:
            del decoder.__dict__["forward"]
        else:
            decoder.__dict__["forward"] = before
    if calls != 1 or logits.shape[:2] != ids.shape:
        raise InputError(
            f"{type(model).__name__}: its logits cannot be computed from its last hidden states piece by "
            "piece, so long texts cannot be scored with it; choose a decoder-only language model"
        )
    return logits
