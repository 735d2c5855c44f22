"""The loss of packed rows, and its mean over a dataset."""

from __future__ import annotations

from typing import TYPE_CHECKING

from baltoro.data.collate import IGNORED_LABEL, ModelInputs, collate
from baltoro.models.attention import packed_causal_mask
from baltoro.parallel.ranks import Ranks
from baltoro.parallel.strategy import Strategy

if TYPE_CHECKING:
    import torch
    from torch import nn

    from baltoro.data.shards import TokenDataset


def next_token_loss_sum(model: nn.Module, inputs: ModelInputs) -> torch.Tensor:
    """Return the summed cross-entropy of a micro-batch's labels, in nats.

    A sum, not a mean: the caller divides by the step's token count over all ranks and micro-batches, so the
    loss does not depend on how rows were spread.

    Args:
        model: a ``transformers`` causal language model.
        inputs: on the model's device.

    Returns:
        float32 scalar.
    """
    from torch.nn.functional import cross_entropy

    logits = model(
        input_ids=inputs.input_ids,
        attention_mask=packed_causal_mask(inputs.segment_ids),
        position_ids=inputs.position_ids,
        use_cache=False,
    ).logits
    return cross_entropy(
        logits.float().flatten(0, 1), inputs.labels.flatten(), ignore_index=IGNORED_LABEL, reduction="sum"
    )


def evaluate(
    strategy: Strategy,
    dataset: TokenDataset,
    *,
    ranks: Ranks,
    device: torch.device,
    micro_batch: int,
    max_rows: int,
) -> float:
    """Return the mean loss over the valid tokens of a dataset's first rows, nats per token, on every rank.

    Every rank runs the same number of forward passes (each is collective); one that has run out of rows
    repeats the first with no token counted.

    Args:
        strategy: set up.
        dataset: opened on this rank.
        ranks: all ranks.
        device: where the model is.
        micro_batch: rows per forward pass and rank.
        max_rows: rows used.
    """
    import torch

    rows = min(len(dataset), max_rows)
    totals = torch.zeros(2, dtype=torch.float64, device=device)
    for start in range(
        ranks.rank * micro_batch, rows + ranks.rank * micro_batch, ranks.world_size * micro_batch
    ):
        stop = min(start + micro_batch, rows)
        idle = start >= stop
        inputs = collate(dataset.read_rows(0, 1) if idle else dataset.read_rows(start, stop)).to(device)
        loss = strategy.evaluate(inputs)
        if not idle:
            totals += torch.stack([loss.double(), torch.tensor(inputs.valid_tokens).double().to(device)])
    loss_sum, valid_tokens = ranks.sum(totals).tolist()
    return float(loss_sum / max(valid_tokens, 1))
