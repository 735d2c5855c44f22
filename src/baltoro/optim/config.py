"""Settings of the optimizer and of the learning-rate schedule."""

from __future__ import annotations

import importlib.util
from typing import Literal, Self

from pydantic import model_validator

from baltoro.core.config import StrictModel, execution, result
from baltoro.core.errors import PlatformError


class OptimizerConfig(StrictModel):
    """AdamW (Loshchilov and Hutter 2019, arXiv:1711.05101) with decay decoupled from the gradient."""

    name: Literal["adamw", "adamw_8bit", "paged_adamw", "paged_adamw_8bit"] = result(
        "adamw",
        "adamw; adamw_8bit keeps both moments in 8 bits (Dettmers et al. 2022, arXiv:2110.02861); paged_… "
        "lets them leave the GPU's memory when it is full",
    )
    implementation: Literal["fused", "foreach"] = execution(
        "fused", "adamw: one kernel for all, or one per operation and list of tensors"
    )
    learning_rate: float = result(3e-4, "peak learning rate", gt=0.0, le=1.0)
    beta1: float = result(0.9, "decay of the gradient's running mean", ge=0.0, lt=1.0)
    beta2: float = result(0.95, "decay of the squared gradient's running mean", ge=0.0, lt=1.0)
    epsilon: float = result(1e-8, "added to the denominator of the update", gt=0.0, le=1e-2)
    weight_decay: float = result(0.1, "decoupled weight decay of matrices", ge=0.0, le=1.0)
    decay_embeddings: bool = result(True, "embedding matrices decay as well; norms and biases never do")
    max_gradient_norm: float | None = result(
        1.0, "gradients are scaled down to this global norm; null leaves them", gt=0.0
    )

    @model_validator(mode="after")
    def _implementation_is_of_adamw(self) -> Self:
        if self.name != "adamw" and self.implementation != "fused":
            raise ValueError(
                f"implementation={self.implementation} is of name=adamw; {self.name} has kernels of its own, "
                "so leave implementation out"
            )
        return self


class ScheduleConfig(StrictModel):
    """How the learning rate moves over the run's tokens; lengths are tokens or fractions of the run."""

    shape: Literal["cosine", "wsd", "linear", "constant"] = result(
        "cosine",
        "after the warm-up: cosine or linear decay to the end, wsd (constant, then linear decay), constant",
    )
    warmup_tokens: int | None = result(None, "length of the linear warm-up, in tokens", ge=0)
    warmup_fraction: float | None = result(
        None, "length of the warm-up as a share of the run (0.02 if neither is given)", ge=0.0, lt=1.0
    )
    decay_fraction: float = result(0.2, "wsd: the last share of the run that decays", gt=0.0, le=1.0)
    final_fraction: float = result(0.1, "learning rate at the end, as a share of the peak", ge=0.0, le=1.0)

    @model_validator(mode="after")
    def _one_warmup(self) -> Self:
        if self.warmup_tokens is not None and self.warmup_fraction is not None:
            raise ValueError(
                f"warmup_tokens={self.warmup_tokens} and warmup_fraction={self.warmup_fraction} "
                "both set the warm-up; give one of them"
            )
        return self


def refuse_missing_optimizer(config: OptimizerConfig) -> None:
    """Refuse an optimizer whose library is not installed.

    Raises:
        PlatformError: with the extra that brings it.
    """
    if config.name != "adamw" and importlib.util.find_spec("bitsandbytes") is None:
        raise PlatformError(
            f"optimizer.name={config.name} needs bitsandbytes, which is not installed; run `pip install "
            "'baltoro[nf4]'`, or set optimizer.name=adamw"
        )
