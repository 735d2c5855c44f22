"""The bytes of one training worker, from what a dry run found.

States (weights, gradients, moments) follow from the shares exactly. What comes and goes within a step is
estimated, each part at its own peak and all parts at once, so the sum is an upper side; kernels, NCCL and the
allocator's gaps come on top.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, Self

from baltoro.train.config import TrainConfig

Checkpointing = Literal["none", "selective", "full"]
CHECKPOINTING: tuple[Checkpointing, ...] = ("none", "selective", "full")

_MASTER_BYTES = 4
_GRADIENT_BYTES = 4
_COMPUTE_BYTES = {"float32": 4, "bfloat16": 2, "float16": 2}
# Two moments: float32, or 8 bits with a float32 scale for each block of 256 (Dettmers et al. 2022).
_MOMENT_BYTES = {"adamw": 8.0, "paged_adamw": 8.0, "adamw_8bit": 2 + 8 / 256, "paged_adamw_8bit": 2 + 8 / 256}


@dataclass(frozen=True, slots=True)
class Facts:
    """What a dry run found out about a model, once for all workers.

    Attributes:
        parameters: of the whole model.
        blocks: decoder blocks.
        largest_block: parameters of the largest one.
        root: parameters outside the blocks.
        stored_share: elements that a worker's shares take, padding included; ``None`` where FSDP2 cut none.
        sequence_length: tokens of a row.
        vocabulary: rows of the embedding.
        embedding: parameters of the embedding, whose moments 8-bit optimizers keep in float32.
        dense_mask: attention takes its mask as a tensor: asked for, or because the model has dropout there.
        activations: bytes for one row, as :func:`baltoro.jobs.layout_probe.count_activations` names them.
    """

    parameters: int
    blocks: int
    largest_block: int
    root: int
    stored_share: int | None
    sequence_length: int
    vocabulary: int
    embedding: int
    dense_mask: bool
    activations: Mapping[str, int]

    @classmethod
    def of(cls, answer: Mapping[str, Any], config: TrainConfig, shape: Mapping[str, Any], rows: int) -> Self:
        """Return the facts in an answer of :func:`baltoro.jobs.layout_probe.probe`.

        Args:
            answer: of the dry run.
            config: of the training.
            shape: the model's configuration.
            rows: tokens of a row of training.
        """
        return cls(
            parameters=answer["parameters"],
            blocks=answer["blocks"],
            largest_block=answer["units"]["largest_block"],
            root=answer["units"]["root"],
            stored_share=answer["shards"]["padded"] if "shards" in answer else None,
            sequence_length=rows,
            vocabulary=shape["vocab_size"],
            embedding=answer["units"]["embedding"],
            dense_mask=config.attention == "sdpa" or bool(shape.get("attention_dropout")),
            activations=answer["activations"],
        )


@dataclass(frozen=True, slots=True)
class WorkerMemory:
    """Bytes of one worker at its peak.

    Attributes:
        parameters: elements of the model that are its share; no bytes.
        master_weights: float32 weights that the optimizer updates.
        weights: a copy in the precision of the forward pass that stays all the time.
        gradients: that it keeps between micro-batches.
        moments: of the optimizer.
        gathered: weights and gradients of units that are whole while they are worked on.
        activations: what the forward pass keeps for the backward pass.
        loss: logits and their gradients.
        device: what of all this is on the device.
        host: what is kept in host memory.
    """

    parameters: int
    master_weights: int
    weights: int
    gradients: int
    moments: int
    gathered: int
    activations: int
    loss: int
    device: int
    host: int


def worker_memory(
    config: TrainConfig, facts: Facts, *, share: int, checkpointing: Checkpointing, micro_batch: int
) -> WorkerMemory:
    """Return the memory of a worker.

    Args:
        config: of the training.
        facts: of the model.
        share: parameters that the worker holds as its own.
        checkpointing: of activations.
        micro_batch: rows of a forward pass.
    """
    compute = _COMPUTE_BYTES[config.precision]
    stage = config.parallel.deepspeed.zero_stage if config.strategy == "deepspeed" else None
    # FSDP2 stores shares of one size, whether a worker's own is full or not.
    stored = share if facts.stored_share is None else facts.stored_share
    # Without sharded weights, whole ones in the precision of the forward pass stand beside the masters.
    copied = (config.strategy == "ddp" and compute < _MASTER_BYTES) or stage in (1, 2)
    weights = facts.parameters * compute if copied else 0
    if stage == 3 and compute < _MASTER_BYTES:
        weights = share * compute
    states = {
        "master_weights": stored * _MASTER_BYTES,
        "weights": weights,
        "gradients": (facts.parameters if stage == 1 else stored) * _GRADIENT_BYTES,
        "moments": _moment_bytes(config, facts, share),
    }
    passing = {
        "gathered": _gathered_bytes(config, facts, compute),
        "activations": micro_batch * _activation_bytes(facts, checkpointing, compute),
        "loss": _loss_bytes(config, facts, micro_batch, compute),
    }
    host = sum(states[name] for name in _offloaded(config))
    return WorkerMemory(
        parameters=share,
        **states,
        **passing,
        device=sum(states.values()) + sum(passing.values()) - host,
        host=host,
    )


def _moment_bytes(config: TrainConfig, facts: Facts, share: int) -> int:
    of_one = _MOMENT_BYTES[config.optimizer.name]
    embedding = share * facts.embedding / facts.parameters
    return math.ceil(share * of_one + embedding * (_MOMENT_BYTES["adamw"] - of_one))


def _gathered_bytes(config: TrainConfig, facts: Facts, compute: int) -> int:
    """Return what is put together from shares, worked on and freed.

    The root unit (embedding and output) is whole for the step, and so is its gradient until the end; of the
    blocks, the one at work and the next, and one gradient, with the float32 buffer it is reduced from.
    """
    sharded = config.strategy == "fsdp2" or (
        config.strategy == "deepspeed" and config.parallel.deepspeed.zero_stage == 3
    )
    if not sharded:
        return 0
    kept = config.strategy == "fsdp2" and not config.parallel.fsdp2.reshard_after_forward
    weights = facts.parameters if kept else min(facts.parameters, facts.root + 2 * facts.largest_block)
    reduced = max(facts.largest_block * (compute + _GRADIENT_BYTES), facts.root * _GRADIENT_BYTES)
    return (weights + facts.root) * compute + reduced


def _activation_bytes(facts: Facts, checkpointing: Checkpointing, compute: int) -> int:
    """Return what is kept for the backward pass of one row, and computed again for one block of it."""
    kept = facts.activations
    # A mask of booleans becomes a tensor of the forward pass' dtype in each call, and is kept.
    mask = facts.sequence_length**2 * compute if facts.dense_mask else 0
    block = kept["block"] + mask
    if checkpointing == "none":
        blocks = facts.blocks * block
    else:
        of_one = kept["block_selective"] + mask if checkpointing == "selective" else kept["block_input"]
        blocks = facts.blocks * of_one + block
    return blocks + kept["outside"]


def _loss_bytes(config: TrainConfig, facts: Facts, micro_batch: int, compute: int) -> int:
    """Return logits and their gradient in the forward pass' dtype, and both in float32."""
    positions = micro_batch * facts.sequence_length
    if config.loss.implementation != "full":
        positions = min(positions, config.loss.chunk_tokens)
    return positions * facts.vocabulary * (2 * compute + 8)


def _offloaded(config: TrainConfig) -> tuple[str, ...]:
    if config.strategy == "fsdp2" and config.parallel.fsdp2.cpu_offload:
        return ("master_weights", "gradients", "moments")
    if config.strategy == "deepspeed":
        settings = config.parallel.deepspeed
        states = ("master_weights", "moments") if settings.offload_optimizer else ()
        if settings.offload_optimizer and settings.zero_stage > 1:
            states = (*states, "gradients")
        return (*states, "weights") if settings.offload_parameters else states
    return ()
