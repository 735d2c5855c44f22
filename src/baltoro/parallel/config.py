"""Settings of the parallel layout; they never change what comes out."""

from __future__ import annotations

from typing import Literal, Self

from pydantic import model_validator

from baltoro.core.config import StrictModel, execution, section

StrategyName = Literal["fsdp2", "deepspeed", "ddp"]


class Fsdp2Config(StrictModel):
    """What only ``strategy: fsdp2`` reads."""

    reshard_after_forward: bool = execution(
        True, "free gathered weights between forward and backward pass; false is faster and takes more memory"
    )
    cpu_offload: bool = execution(
        False, "keep shards of weights, gradients and moments in host memory and update them there"
    )


class DeepSpeedConfig(StrictModel):
    """What only ``strategy: deepspeed`` reads."""

    zero_stage: Literal[1, 2, 3] = execution(
        2, "what is sharded: 1 moments, 2 gradients as well, 3 weights as well"
    )
    offload_optimizer: bool = execution(False, "keep master weights and moments in host memory")
    offload_parameters: bool = execution(False, "zero_stage 3: keep shards of the weights in host memory")

    @model_validator(mode="after")
    def _parameters_are_sharded(self) -> Self:
        if self.offload_parameters and self.zero_stage != 3:
            raise ValueError(
                f"offload_parameters needs zero_stage=3, not {self.zero_stage}: other stages keep the whole "
                "model on each device; set zero_stage=3 or offload_parameters=false"
            )
        return self


class ParallelConfig(StrictModel):
    """How a model and a step are spread over workers, and what is traded for memory."""

    dp_replicate: int = execution(
        1, "groups of workers that each hold a whole copy of the model (hybrid sharding)", ge=1
    )
    dp_shard: int | None = execution(
        None, "workers one copy of the model is sharded over; null uses all that remain", ge=1
    )
    fsdp2: Fsdp2Config = section(Fsdp2Config, "settings of fsdp2")
    deepspeed: DeepSpeedConfig = section(DeepSpeedConfig, "settings of deepspeed")
    activation_checkpointing: Literal["none", "selective", "full"] = execution(
        "none",
        "what the backward pass computes again instead of keeping: nothing, all but matrix products and "
        "attention, or everything inside a block",
    )
    compile: bool = execution(False, "torch.compile each decoder block")
