"""The optimizers against AdamW in float64, written out (Loshchilov and Hutter 2019, arXiv:1711.05101)."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from functools import partial
from typing import TYPE_CHECKING, Any

from baltoro.core.errors import ConfigError, PlatformError
from baltoro.jobs.gpu_check.findings import Finding, at_most, attempted, deviation, holds, not_available
from baltoro.optim.config import OptimizerConfig
from baltoro.optim.optimizer import build_optimizer

if TYPE_CHECKING:
    import torch
    from torch import nn

STEPS = 30
SAVED_AT = 20
LEARNING_RATE = 1e-2

EXACT_BOUND = 1e-4
QUANTISED_BOUND = 0.2

_EXACT = "of how far weights moved: float32 rounds each of 30 steps to some 1e-6 of it"
_QUANTISED = (
    "of how far weights moved; a loose bound: 8-bit codes are up to 1 in 30 off the moments, which mostly "
    "evens out over steps; a lost moment is off by half and more"
)


def check_optimizers(device: torch.device) -> list[Finding]:
    """Compare every optimizer with AdamW in float64, and a saved and loaded one with itself.

    Args:
        device: to run on.
    """
    configs = (
        OptimizerConfig(learning_rate=LEARNING_RATE, implementation="fused"),
        OptimizerConfig(learning_rate=LEARNING_RATE, implementation="foreach"),
        OptimizerConfig(learning_rate=LEARNING_RATE, name="adamw_8bit"),
        OptimizerConfig(learning_rate=LEARNING_RATE, name="paged_adamw"),
        OptimizerConfig(learning_rate=LEARNING_RATE, name="paged_adamw_8bit"),
    )
    findings = []
    for config in configs:
        name = f"{config.name} {config.implementation}" if config.name == "adamw" else config.name
        findings += attempted(name, partial(_check, name, config, device))
    return findings


def _check(name: str, config: OptimizerConfig, device: torch.device) -> list[Finding]:
    model = _model(device)
    start = {key: parameter.detach().clone() for key, parameter in model.named_parameters()}
    try:
        optimizer = build_optimizer(model, config)
    except (ConfigError, PlatformError) as error:
        return [not_available(name, error.message)]
    saved: dict[str, Any] = {}
    for step, gradients in enumerate(_gradients(model)):
        if step == SAVED_AT:
            # A copy: torch gives out its own tensors, which go on moving.
            saved = copy.deepcopy({"optimizer": optimizer.state_dict(), "model": model.state_dict()})
        _step(model, optimizer, gradients, step)
    moved = {key: parameter.detach() - start[key] for key, parameter in model.named_parameters()}
    expected = _adamw_written_out(start, config)
    quantised = config.name.endswith("_8bit")
    shares = {key: deviation(moved[key], expected[key] - start[key].double()) for key in moved}
    told = ", ".join(f"{key} {share:.1e}" for key, share in shares.items())
    bound, why = (QUANTISED_BOUND, _QUANTISED) if quantised else (EXACT_BOUND, _EXACT)
    findings = [at_most(f"{name}: {STEPS} steps", max(shares.values()), bound, details=f"{told}; {why}")]

    # Another one takes over what was saved, and must end at the very same weights.
    again = _model(device)
    again.load_state_dict(saved["model"])
    successor = build_optimizer(again, config)
    successor.load_state_dict(saved["optimizer"])
    for step, gradients in enumerate(_gradients(again)):
        if step >= SAVED_AT:
            _step(again, successor, gradients, step)
    ends = zip(model.parameters(), again.parameters(), strict=True)
    findings.append(
        holds(
            f"{name}: saved and loaded",
            all(bool((one == other).all()) for one, other in ends),
            f"a new optimizer with the state of step {SAVED_AT} ends at the same weights, bit for bit",
        )
    )
    return findings


def _model(device: torch.device) -> nn.Module:
    """Return an embedding, a matrix (of a size that is quantised) and a bias."""
    import torch
    from torch import nn

    torch.manual_seed(0)
    model = nn.Sequential(nn.Embedding(96, 64), nn.Linear(64, 128))
    return model.to(device)


def _gradients(model: nn.Module) -> Iterator[dict[str, torch.Tensor]]:
    """Give each step's gradients, the same on every device: a drift that wanders, and noise."""
    import torch

    generator = torch.Generator().manual_seed(1)
    shapes = {key: tuple(value.shape) for key, value in model.state_dict().items()}
    drift = {key: torch.randn(shape, generator=generator) for key, shape in shapes.items()}
    for _ in range(STEPS):
        for key, shape in shapes.items():
            drift[key] += 0.2 * torch.randn(shape, generator=generator)
        yield {
            key: 1e-2 * (drift[key] + 0.5 * torch.randn(shape, generator=generator))
            for key, shape in shapes.items()
        }


def _learning_rate(step: int) -> float:
    return LEARNING_RATE * (1.0 - 0.5 * step / STEPS)


def _step(
    model: nn.Module, optimizer: torch.optim.Optimizer, gradients: dict[str, torch.Tensor], step: int
) -> None:
    for key, parameter in model.named_parameters():
        parameter.grad = gradients[key].to(parameter.device)
    for group in optimizer.param_groups:
        group["lr"] = _learning_rate(step)
    optimizer.step()


def _adamw_written_out(start: dict[str, torch.Tensor], config: OptimizerConfig) -> dict[str, torch.Tensor]:
    """Return the weights after all steps, in float64; only matrices decay."""
    import torch

    weights = {key: value.double().clone() for key, value in start.items()}
    first = {key: torch.zeros_like(value) for key, value in weights.items()}
    second = {key: torch.zeros_like(value) for key, value in weights.items()}
    for step, gradients in enumerate(_gradients(_model(torch.device("cpu")))):
        rate = _learning_rate(step)
        for key, weight in weights.items():
            gradient = gradients[key].to(weight.device).double()
            first[key] = config.beta1 * first[key] + (1.0 - config.beta1) * gradient
            second[key] = config.beta2 * second[key] + (1.0 - config.beta2) * gradient**2
            mean = first[key] / (1.0 - config.beta1 ** (step + 1))
            square = second[key] / (1.0 - config.beta2 ** (step + 1))
            if weight.dim() >= 2:
                weight *= 1.0 - rate * config.weight_decay  # noqa: PLW2901  (in place)
            weight -= rate * mean / (square.sqrt() + config.epsilon)  # noqa: PLW2901  (in place)
    return weights
