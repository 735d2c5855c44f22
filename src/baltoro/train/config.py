"""Settings of a training run."""

from __future__ import annotations

from typing import Literal, Self

from pydantic import model_validator

from baltoro.checkpoint.config import CheckpointConfig
from baltoro.core.config import StrictModel, execution, result, section
from baltoro.core.errors import ConfigError
from baltoro.data.order import StepOrder
from baltoro.optim.config import OptimizerConfig, ScheduleConfig
from baltoro.parallel.config import ParallelConfig


class EvaluationConfig(StrictModel):
    """The validation loss during training; it never changes what is trained."""

    every_steps: int | None = execution(
        None, "steps between validations; null validates only before the first and after the last", ge=1
    )
    max_rows: int = execution(256, "rows of the validation split that are used, the first ones", ge=1)


class TrainConfig(StrictModel):
    """One training run over a token dataset: all of it, or the first ``steps`` or ``tokens``."""

    global_batch_tokens: int = result(
        65_536, "tokens of one step over all workers, padding included; a multiple of sequence_length", ge=1
    )
    epochs: int = result(
        1,
        "passes over the corpus, laid out when the dataset is built; the run ends with the last one, or "
        "earlier by steps or tokens",
        ge=1,
    )
    steps: int | None = result(None, "end after so many steps", ge=1)
    tokens: int | None = result(None, "end after so many tokens, rounded down to whole steps", ge=1)
    max_steps: int | None = result(
        None, "end here at the latest; unlike steps, a dataset that ends earlier is not refused", ge=1
    )
    seed: int = result(0, "of random generators during training", ge=0)
    precision: Literal["float32", "bfloat16"] = result(
        "bfloat16", "dtype of forward and backward pass and of the exported weights; masters are float32"
    )
    optimizer: OptimizerConfig = section(OptimizerConfig, "the optimizer")
    schedule: ScheduleConfig = section(ScheduleConfig, "the learning rate over the run")
    strategy: Literal["fsdp2"] = execution("fsdp2", "how the model is spread over workers")
    parallel: ParallelConfig = section(ParallelConfig, "degrees of parallelism")
    micro_batch: int = execution(1, "rows per forward pass and worker; accumulation follows from it", ge=1)
    log_every_steps: int = execution(1, "steps between reported metrics", ge=1)
    evaluation: EvaluationConfig = section(EvaluationConfig, "validation during training")
    checkpoint: CheckpointConfig = section(CheckpointConfig, "checkpoints")

    @model_validator(mode="after")
    def _one_length(self) -> Self:
        given = {name: getattr(self, name) for name in ("steps", "tokens")}
        set_names = [f"{name}={value}" for name, value in given.items() if value is not None]
        if len(set_names) > 1:
            raise ValueError(f"{' and '.join(set_names)} each set the length of the run; keep one")
        return self


def total_steps(config: TrainConfig, order: StepOrder) -> int:
    """Return the steps of the whole run.

    Args:
        config: the length in steps or tokens, or neither for the whole dataset.
        order: of the dataset, in which epochs are laid out already.

    Raises:
        ConfigError: not one whole step, or more than the dataset has rows for.
    """
    if config.steps is not None:
        steps = config.steps
    elif config.tokens is not None:
        steps = config.tokens // config.global_batch_tokens
        if steps == 0:
            raise ConfigError(
                f"tokens={config.tokens} is less than one step of "
                f"global_batch_tokens={config.global_batch_tokens}; raise tokens or lower global_batch_tokens"
            )
    else:
        steps = order.steps
        if steps == 0:
            raise ConfigError(
                f"the dataset has {order.total_rows} rows of {order.sequence_length} tokens, less than one "
                f"step of global_batch_tokens={config.global_batch_tokens} ({order.rows_per_step} rows); "
                "lower global_batch_tokens, or give more papers"
            )
    if config.max_steps is not None:
        steps = min(steps, config.max_steps)
    order.check_steps(steps)
    return steps
