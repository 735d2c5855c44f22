"""Cross-entropy of an output projection, without all of its logits at one time.

For hidden states ``h`` (N × d), projection ``W`` (V × d) and labels ``y``, positions are taken in chunks: a
chunk's logits ``h Wᵀ`` give its loss and, at once, its part of the gradients ``(softmax − onehot) W`` and
``(softmax − onehot)ᵀ h``; then they are dropped. What lives longest is the gradient of ``W``, which any
backward pass holds; nothing grows with N × V, in neither pass, and no logits are computed twice. (The same
order of work as in Liger Kernel, arXiv:2410.10989.)
"""

from __future__ import annotations

from typing import Any

import torch
from torch.autograd.function import once_differentiable
from torch.nn.functional import linear

from baltoro.data.collate import IGNORED_LABEL


def chunked_cross_entropy_sum(
    hidden: torch.Tensor,
    weight: torch.Tensor,
    bias: torch.Tensor | None,
    labels: torch.Tensor,
    *,
    chunk_tokens: int,
) -> torch.Tensor:
    """Return the summed cross-entropy, in nats.

    The gradient of the projection is summed over chunks in float32, whatever the dtype of the weights. The
    result can be differentiated once.

    Args:
        hidden: [N, d], what the projection is given.
        weight: [V, d] of the projection.
        bias: [V], if it has one.
        labels: int64 [N]; ``IGNORED_LABEL`` where there is no target.
        chunk_tokens: positions whose logits exist at one time.

    Returns:
        float32 scalar.
    """
    # Within the function autograd is off in any case, so it is told whether a gradient will be asked for.
    wanted = torch.is_grad_enabled()
    loss: torch.Tensor = _ChunkedCrossEntropy.apply(hidden, weight, bias, labels, chunk_tokens, wanted)  # type: ignore[no-untyped-call]
    return loss


class _ChunkedCrossEntropy(torch.autograd.Function):
    @staticmethod
    def forward(  # noqa: PLR0917  (autograd hands over arguments by position)
        ctx: Any,
        hidden: torch.Tensor,
        weight: torch.Tensor,
        bias: torch.Tensor | None,
        labels: torch.Tensor,
        chunk_tokens: int,
        wanted: bool,
    ) -> torch.Tensor:
        of_hidden, of_weight, of_bias = (wanted and needed for needed in ctx.needs_input_grad[:3])
        grad_hidden = torch.empty_like(hidden) if of_hidden else None
        grad_weight = torch.zeros_like(weight, dtype=torch.float32) if of_weight else None
        grad_bias = torch.zeros_like(bias, dtype=torch.float32) if of_bias and bias is not None else None

        total = torch.zeros((), dtype=torch.float32, device=hidden.device)
        for start in range(0, len(hidden), chunk_tokens):
            chunk = slice(start, start + chunk_tokens)
            piece, targets = hidden[chunk], labels[chunk]
            valid = targets != IGNORED_LABEL
            column = targets.where(valid, 0)[:, None]
            # One float32 buffer of a chunk's size becomes logits, exponentials and gradient in turn.
            buffer = linear(piece, weight, bias).float()
            target_logit = buffer.gather(1, column)
            maximum = buffer.amax(dim=1, keepdim=True)
            sums = buffer.sub_(maximum).exp_().sum(dim=1, keepdim=True)
            losses = sums.log() + maximum - target_logit
            total += losses[:, 0].where(valid, 0.0).sum()
            if not (of_hidden or of_weight or of_bias):
                continue
            buffer.scatter_add_(1, column, -sums)
            # What is left of softmax − onehot: a row's sum, and nothing of rows without a target.
            factor = valid[:, None] / sums
            if weight.dtype == torch.float32:
                # d columns are scaled instead of V, which saves a pass over the largest tensor.
                if grad_hidden is not None:
                    torch.mm(buffer, weight, out=grad_hidden[chunk]).mul_(factor)
                if grad_weight is not None:
                    grad_weight.addmm_(buffer.T, piece * factor)
                if grad_bias is not None:
                    grad_bias.addmv_(buffer.T, factor[:, 0])
            else:
                # Before the cast: sums may be beyond float16, and products are rounded once.
                gradient = buffer.mul_(factor).to(weight.dtype)
                if grad_bias is not None:
                    grad_bias += buffer.sum(dim=0)
                if grad_hidden is not None:
                    torch.mm(gradient, weight, out=grad_hidden[chunk])
                if grad_weight is not None:
                    grad_weight += gradient.T @ piece
                del gradient
            # Or they would stand beside those of the next chunk.
            del buffer
        ctx.gradients = (grad_hidden, grad_weight, grad_bias)
        ctx.dtypes = (hidden.dtype, weight.dtype, None if bias is None else bias.dtype)
        return total

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad_output: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        gradients, ctx.gradients = ctx.gradients, None
        if gradients is None:
            raise RuntimeError("the chunked loss was differentiated already; compute it again")
        # Scaled in place and before the cast: weights' gradients are float32 up to here.
        scaled = (
            None if gradient is None else gradient.mul_(grad_output).to(dtype)
            for gradient, dtype in zip(gradients, ctx.dtypes, strict=True)
        )
        return (*scaled, None, None, None)
