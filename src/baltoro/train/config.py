"""Settings of a training run."""

from __future__ import annotations

from typing import Literal, Self

from pydantic import model_validator

from baltoro.checkpoint.config import CheckpointConfig
from baltoro.core.config import StrictModel, execution, result, section
from baltoro.core.errors import ConfigError
from baltoro.data.order import StepOrder
from baltoro.models.config import AttentionName, ShiftedAttentionConfig
from baltoro.optim.config import OptimizerConfig, ScheduleConfig
from baltoro.parallel.config import ParallelConfig, StrategyName
from baltoro.parallel.strategy import Precision


class EvaluationConfig(StrictModel):
    """The validation loss during training; it never changes what is trained."""

    every_steps: int | None = execution(
        None, "steps between validations; null validates only before the first and after the last", ge=1
    )
    max_rows: int = execution(256, "rows of the validation split that are used, the first ones", ge=1)


class LossConfig(StrictModel):
    """Which implementation computes the cross-entropy; all give the same loss."""

    implementation: Literal["auto", "full", "chunked", "liger"] = execution(
        "auto",
        "full: all logits at once; chunked: never more than chunk_tokens of them; liger: fused kernel (GPU); "
        "auto: liger where it runs, else chunked",
    )
    chunk_tokens: int = execution(512, "chunked: positions whose logits exist at one time", ge=1)


class FeedConfig(StrictModel):
    """How rows reach the workers; which rows never depends on it."""

    implementation: Literal["direct", "ray_data"] = execution(
        "direct", "direct: each worker reads its row groups; ray_data: tasks of the cluster read for it"
    )
    prefetch_steps: int = execution(2, "steps that are kept ready", ge=1, le=1024)


class FaultConfig(StrictModel):
    """What happens when a step, a worker or a node goes wrong."""

    max_failures: int = execution(
        3, "times that workers are started again after a failure; 0 stops at once", ge=0
    )
    preemption_grace_seconds: float = execution(
        30.0, "time between a preemption notice and the end; a checkpoint that fits is taken", ge=0.0
    )
    hang_seconds: float | None = execution(
        1800.0, "a rank without progress for so long dumps its stacks and ends; null waits for ever", gt=0.0
    )
    on_bad_step: Literal["stop", "skip", "roll_back"] = execution(
        "stop",
        "loss or gradient not finite, or a spike: stop, leave the step's update out, or go back to the last "
        "checkpoint and leave the steps since then out",
    )
    spike_factor: float | None = execution(
        None,
        "a loss above so many times the median of the last 100 steps is a bad step, once there are 10; null "
        "tests none",
        gt=1.0,
    )
    max_bad_steps: int = execution(10, "bad steps of one attempt after which training stops", ge=1)


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
    precision: Precision = result(
        "bfloat16",
        "dtype of forward and backward pass and of the exported weights; masters are float32; float16 scales "
        "the loss, for GPUs without bfloat16",
    )
    optimizer: OptimizerConfig = section(OptimizerConfig, "the optimizer")
    schedule: ScheduleConfig = section(ScheduleConfig, "the learning rate over the run")
    strategy: StrategyName = execution(
        "fsdp2", "how the model is spread over workers: fsdp2 or deepspeed shard it, ddp copies it"
    )
    parallel: ParallelConfig = section(ParallelConfig, "layout over workers, memory against time")
    attention: AttentionName = execution(
        "auto",
        "kernel behind the one packed mask: sdpa (any device), flex or flash_varlen (GPU); auto takes the "
        "best that the device has and says which",
    )
    shifted_sparse_attention: ShiftedAttentionConfig | None = section(
        lambda: None, "train with attention within shifted groups, for long rows; null: every token sees all"
    )
    loss: LossConfig = section(LossConfig, "how logits and cross-entropy are computed")
    micro_batch: int = execution(1, "rows per forward pass and worker; accumulation follows from it", ge=1)
    log_every_steps: int = execution(1, "steps between reported metrics", ge=1)
    evaluation: EvaluationConfig = section(EvaluationConfig, "validation during training")
    checkpoint: CheckpointConfig = section(CheckpointConfig, "checkpoints")
    feed: FeedConfig = section(FeedConfig, "how rows reach the workers")
    faults: FaultConfig = section(FaultConfig, "what happens when something breaks")
    prometheus_port: int | None = execution(
        None, "rank 0 serves its metrics on this port for Prometheus; null serves none", ge=1, le=65_535
    )
    device_peak_flops: float | None = execution(
        None, "peak of one device in FLOP/s at this precision, for MFU; null looks the device up", gt=0.0
    )

    @model_validator(mode="after")
    def _one_length(self) -> Self:
        given = {name: getattr(self, name) for name in ("steps", "tokens")}
        set_names = [f"{name}={value}" for name, value in given.items() if value is not None]
        if len(set_names) > 1:
            raise ValueError(f"{' and '.join(set_names)} each set the length of the run; keep one")
        if self.steps is not None and self.max_steps is not None and self.steps > self.max_steps:
            raise ValueError(
                f"steps={self.steps} is above max_steps={self.max_steps}, which would end the run earlier; "
                f"raise max_steps to at least {self.steps}, or set it to null"
            )
        return self

    @model_validator(mode="after")
    def _best_is_measured(self) -> Self:
        if self.checkpoint.keep_best and self.evaluation.every_steps is None:
            raise ValueError(
                f"checkpoint.keep_best={self.checkpoint.keep_best} keeps checkpoints by their validation "
                "loss, and evaluation.every_steps=null measures none on the way; set evaluation.every_steps "
                "(to checkpoint.every_steps, so that each has its own), or keep_best to 0"
            )
        measured, saved = self.evaluation.every_steps, self.checkpoint.every_steps
        if self.checkpoint.keep_best and measured and saved and saved % measured:
            raise ValueError(
                f"checkpoint.keep_best={self.checkpoint.keep_best} keeps checkpoints by their own validation "
                f"loss, but checkpoint.every_steps={saved} is no multiple of "
                f"evaluation.every_steps={measured}, so that some would have none; make it a multiple"
            )
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
