"""The loss of packed rows, and its mean over a dataset."""

from __future__ import annotations

import importlib
import importlib.util
import logging
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from baltoro.core.errors import ConfigError
from baltoro.data.collate import IGNORED_LABEL, ModelInputs, collate
from baltoro.models.attention import SDPA, Attention
from baltoro.parallel.ranks import Ranks
from baltoro.parallel.strategy import LossSum, Strategy
from baltoro.train.chunked_loss import chunked_cross_entropy_sum
from baltoro.train.config import LossConfig

if TYPE_CHECKING:
    import torch
    from torch import nn

    from baltoro.data.shards import TokenDataset

_logger = logging.getLogger(__name__)

_ProjectionLoss = Callable[["nn.Module", "torch.Tensor", "torch.Tensor"], "torch.Tensor"]
"""``(output projection, hidden [N, d], labels [N]) → scalar``: the summed cross-entropy."""


def make_loss_sum(config: LossConfig, attention: Attention, device: torch.device) -> LossSum:
    """Return the function that training and evaluation compute a micro-batch's loss with.

    It returns the summed cross-entropy of the labels in nats, a float32 scalar. A sum, not a mean: the caller
    divides by the step's token count over all ranks and micro-batches, so the loss does not depend on how
    rows were spread.

    Args:
        config: which implementation.
        attention: the kernel that the model was built with.
        device: where the model is.

    Raises:
        ConfigError: ``liger`` where it cannot run.
    """
    name = config.implementation
    refuse_missing_kernel(config, device)
    lacking = _what_liger_lacks(device)
    if name == "full":
        _logger.info("loss: full logits")
        return lambda module, inputs: _full(module, inputs, attention)
    if name == "liger" or (name == "auto" and lacking is None):
        _logger.info("loss: Liger's fused kernel")
        return _LossAtProjection(attention, _liger, name)
    _logger.info("loss: at most %d positions' logits at one time", config.chunk_tokens)
    return _LossAtProjection(attention, _chunked(config.chunk_tokens), name)


def refuse_missing_kernel(config: LossConfig, device: torch.device) -> None:
    """Refuse an implementation that cannot run on a device.

    Args:
        config: which implementation.
        device: where the model is to be.

    Raises:
        ConfigError: ``liger`` without a GPU or without the package.
    """
    lacking = _what_liger_lacks(device)
    if config.implementation == "liger" and lacking is not None:
        raise ConfigError(
            f"loss.implementation=liger: {lacking}; set loss.implementation to auto, chunked or full"
        )


def next_token_loss_sum(model: nn.Module, inputs: ModelInputs) -> torch.Tensor:
    """Return the summed cross-entropy by the plainest way: all logits, attention with a dense mask.

    What the other implementations are compared with.

    Args:
        model: a ``transformers`` causal language model, built with the ``sdpa`` kernel.
        inputs: on the model's device.
    """
    return _full(model, inputs, SDPA)


def _what_liger_lacks(device: torch.device) -> str | None:
    if device.type != "cuda":
        return f"its kernels run on a GPU, not on {device.type}"
    if importlib.util.find_spec("liger_kernel") is None:
        return "package liger-kernel is not installed"
    return None


def _model_arguments(inputs: ModelInputs, attention: Attention) -> dict[str, Any]:
    return {
        "input_ids": inputs.input_ids,
        "position_ids": inputs.position_ids,
        "use_cache": False,
        **attention.arguments(inputs.segment_ids),
    }


def _full(module: nn.Module, inputs: ModelInputs, attention: Attention) -> torch.Tensor:
    from torch.nn.functional import cross_entropy

    logits = module(**_model_arguments(inputs, attention)).logits
    return cross_entropy(
        logits.float().flatten(0, 1), inputs.labels.flatten(), ignore_index=IGNORED_LABEL, reduction="sum"
    )


def _chunked(chunk_tokens: int) -> _ProjectionLoss:
    def loss(projection: Any, hidden: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        return chunked_cross_entropy_sum(
            hidden, projection.weight, projection.bias, labels, chunk_tokens=chunk_tokens
        )

    return loss


def _liger(projection: Any, hidden: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    # By name: the package is no dependency, and type checkers need not know it.
    liger = importlib.import_module("liger_kernel.transformers")
    kernel = liger.LigerFusedLinearCrossEntropyLoss(ignore_index=IGNORED_LABEL, reduction="sum")
    loss: torch.Tensor = kernel(projection.weight, hidden, labels, projection.bias)
    return loss.float()


class _LossAtProjection:
    """A loss that is computed where the model would compute its logits.

    The output projection's forward pass is replaced for the time of one call, so that the model returns the
    loss in place of logits. Everything else is as ever: the call goes through the outermost module, and hooks
    that gather weights (FSDP, ZeRO) find the projection used within it.
    """

    def __init__(self, attention: Attention, loss: _ProjectionLoss, name: str) -> None:
        self._attention = attention
        self._loss = loss
        self._name = name
        # Whether the model returns what its projection computes, as it is; unknown before the first call.
        self._returned_as_is: bool | None = None

    def __call__(self, module: nn.Module, inputs: ModelInputs) -> torch.Tensor:
        import torch

        if self._returned_as_is is False:
            return _full(module, inputs, self._attention)
        projection = _output_projection(module)
        labels = inputs.labels.flatten()

        def forward(hidden: torch.Tensor) -> torch.Tensor:
            loss = self._loss(projection, hidden.flatten(0, -2), labels)
            # The one comes back as one exactly if the model does nothing to its logits, on every rank alike.
            return torch.stack([loss, torch.ones_like(loss)])

        before = projection.__dict__.get("forward")
        projection.__dict__["forward"] = forward
        try:
            returned: torch.Tensor = module(**_model_arguments(inputs, self._attention)).logits
        finally:
            if before is None:
                del projection.__dict__["forward"]
            else:
                projection.__dict__["forward"] = before
        if self._returned_as_is is None:
            self._returned_as_is = returned[1].item() == 1.0
            if not self._returned_as_is:
                return self._without_projection(module, inputs)
        return returned[0]

    def _without_projection(self, module: nn.Module, inputs: ModelInputs) -> torch.Tensor:
        what = f"{type(_unwrapped(module)).__name__} changes its logits after the output projection"
        if self._name != "auto":
            raise ConfigError(f"loss.implementation={self._name}: {what}; set loss.implementation=full")
        _logger.warning("loss: %s, so all logits are computed at one time", what)
        return _full(module, inputs, self._attention)


def _unwrapped(module: Any) -> Any:
    """Return the language model inside a wrapper of a strategy (``DistributedDataParallel``, an engine)."""
    from transformers import PreTrainedModel

    while not isinstance(module, PreTrainedModel):
        module = module.module
    return module


def _output_projection(module: nn.Module) -> Any:
    return _unwrapped(module).get_output_embeddings()


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
