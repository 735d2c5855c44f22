"""The cross-entropy of packed rows, by every implementation, against float64.

The model has no decoder block: between embedding and output projection stands one norm, so that what is
compared is the loss. Its logits are wide, as those of a trained model are.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

from baltoro.core.errors import ConfigError
from baltoro.jobs.gpu_check.attention import PRECISIONS, model_on
from baltoro.jobs.gpu_check.findings import Finding, at_most, attempted, deviation, not_available
from baltoro.models.attention import SDPA
from baltoro.parallel.build import refuse_missing_dtype
from baltoro.parallel.data_parallel import compute_dtype
from baltoro.parallel.strategy import Precision
from baltoro.train.config import LossConfig
from baltoro.train.loss import make_loss_sum

if TYPE_CHECKING:
    import torch
    from torch import nn

    from baltoro.data.collate import ModelInputs

BOUNDS: dict[Precision, tuple[float, str]] = {
    "float32": (1e-4, "float32 sums over the vocabulary differ by some 1e-6"),
    "bfloat16": (2e-2, "bfloat16 rounds logits to 1 in 256 before the softmax"),
}


def check_loss(device: torch.device) -> list[Finding]:
    """Compare value and gradients of every implementation with a loss written out in float64.

    Args:
        device: to run on.
    """
    findings = []
    for config in (
        LossConfig(implementation="full"),
        # Not a divisor of the positions, so that the last chunk is a shorter one.
        LossConfig(implementation="chunked", chunk_tokens=100),
        LossConfig(implementation="liger"),
    ):
        for precision in PRECISIONS:
            name = f"{config.implementation} {precision}"
            findings += attempted(name, partial(_check, name, config, precision, device))
    return findings


def _check(name: str, config: LossConfig, precision: Precision, device: torch.device) -> list[Finding]:
    from baltoro.data.collate import collate
    from baltoro.jobs.gpu_check.runs import small_plan, small_rows

    try:
        refuse_missing_dtype(precision, device)
        loss_sum = make_loss_sum(config, SDPA, device)
    except ConfigError as error:
        return [not_available(name, error.message)]
    # Deviation 0.3: logits spread by several nats, where a sloppy softmax shows.
    plan = small_plan(layers=0, vocabulary=1003, deviation=0.3)
    model = model_on(device, plan, SDPA).to(compute_dtype(precision))
    inputs = collate(small_rows(3, vocabulary=1003)).to(device)
    loss = loss_sum(model, inputs)
    # As training does it: divided by the step's tokens, with a scale that float16 would have.
    (loss / inputs.valid_tokens * 8.0).backward()  # type: ignore[no-untyped-call]

    reference = model_on(device, plan, SDPA).double()
    reference.load_state_dict(model.state_dict())
    exact = _loss_written_out(reference, inputs)
    (exact / inputs.valid_tokens * 8.0).backward()  # type: ignore[no-untyped-call]
    expected = dict(reference.named_parameters())
    shares = {"value": deviation(loss, exact)}
    for key, parameter in model.named_parameters():
        gradient = expected[key].grad
        assert gradient is not None
        shares[f"gradient of {key}"] = deviation(parameter.grad, gradient)
    bound, why = BOUNDS[precision]
    told = ", ".join(f"{key} {share:.1e}" for key, share in shares.items())
    return [at_most(name, max(shares.values()), bound, details=f"{told}; {why}")]


def _loss_written_out(model: nn.Module, inputs: ModelInputs) -> torch.Tensor:
    """Return minus the log-probability of every label, summed; in the model's dtype."""
    from baltoro.data.collate import IGNORED_LABEL

    logits = model(input_ids=inputs.input_ids, position_ids=inputs.position_ids, use_cache=False).logits
    valid = inputs.labels != IGNORED_LABEL
    chosen = logits[valid].gather(1, inputs.labels[valid][:, None])[:, 0]
    total: torch.Tensor = (logits[valid].logsumexp(dim=1) - chosen).sum()
    return total
