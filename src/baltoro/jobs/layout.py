"""`baltoro layout`: what a recipe's training takes, proved on a CPU before anything is rented.

The model, the strategy and the mesh are the real ones, at the real world size, without storage and without
other processes (:mod:`baltoro.jobs.layout_probe`). What follows from their shards is exact: parameters, the
bytes of weights, gradients and moments of a worker, the arithmetic of batch and steps. What is estimated says
how. Needs neither Ray nor a corpus nor a network.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from baltoro.core.errors import ConfigError, InputError, PlatformError
from baltoro.data.order import StepOrder
from baltoro.jobs.layout_memory import CHECKPOINTING, Checkpointing, Facts, WorkerMemory, worker_memory
from baltoro.jobs.recipe import Recipe
from baltoro.models.embeddings import padded_size
from baltoro.models.flops import peak_flops, training_flops_per_token
from baltoro.models.import_base import base_kind
from baltoro.models.load import refuse_long_context
from baltoro.models.presets import PRESETS, preset_config
from baltoro.papers.renderers import special_tokens
from baltoro.parallel.build import refuse_contradictions
from baltoro.parallel.mesh import resolve_degrees
from baltoro.train.config import TrainConfig

GIB = 1 << 30

USABLE_FRACTION = 0.92
"""Of a device's memory; the rest is left to the CUDA context, NCCL and the allocator's gaps."""

DEFAULT_MFU_FRACTION = 0.4
"""Share of the device's peak that the time estimate assumes; trainers reach 0.3 to 0.5 on dense decoders."""

_PROBE_SECONDS = 600.0


@dataclass(frozen=True, slots=True)
class PublishedShape:
    """The shape of a base that stands on a hub, so that a recipe's layout can be seen without it.

    Attributes:
        tokens: entries of its tokenizer.
        preset: the preset of that shape.
        config: where no preset has it, the values of its ``config.json`` that make the shape.
    """

    tokens: int
    preset: str | None = None
    config: Mapping[str, Any] | None = None


PUBLISHED_SHAPES: dict[str, PublishedShape] = {
    "huggyllama/llama-7b": PublishedShape(32_000, preset="llama-7b"),
    "meta-llama/Llama-2-70b-hf": PublishedShape(32_000, preset="llama2-70b"),
    "facebook/galactica-30b": PublishedShape(50_000, preset="galactica-30b"),
    "Qwen/Qwen3-8B-Base": PublishedShape(
        151_669,
        config={
            "model_type": "qwen3",
            "vocab_size": 151_936,
            "hidden_size": 4096,
            "intermediate_size": 12_288,
            "num_hidden_layers": 36,
            "num_attention_heads": 32,
            "num_key_value_heads": 8,
            "head_dim": 128,
            "max_position_embeddings": 32_768,
            "rope_theta": 1_000_000.0,
            "tie_word_embeddings": False,
        },
    ),
}
"""Bases of the packaged recipes, by hub id."""


@dataclass(frozen=True, slots=True)
class Shape:
    """A model's configuration and where it was taken from.

    Attributes:
        config: the ``transformers`` configuration as plain values, vocabulary included.
        origin: for people.
    """

    config: dict[str, Any]
    origin: str


@dataclass(frozen=True, slots=True)
class Batch:
    """The arithmetic of a step and of the run; ``None`` where only a dataset tells its length."""

    sequence_length: int
    global_batch_tokens: int
    rows_per_step: int
    rows_per_worker: int
    micro_batch: int
    accumulation: int
    steps: int | None
    tokens: int | None
    length_from: str


@dataclass(frozen=True, slots=True)
class Choice:
    """Device bytes of the fullest worker under one kind of activation checkpointing.

    Attributes:
        activation_checkpointing: the kind.
        device: bytes at the recipe's micro-batch.
        largest_micro_batch: that fits and divides the rows of a worker; 0 where none does, ``None`` where no
            device memory was named.
    """

    activation_checkpointing: Checkpointing
    device: int
    largest_micro_batch: int | None


@dataclass(frozen=True, slots=True)
class Layout:
    """What a dry run found.

    Attributes:
        recipe: its name.
        base: ``model.base``.
        shape_from: where the model's shape was taken from.
        architecture: ``model_type`` of its configuration.
        vocabulary: rows of the embedding.
        parameters: tied ones counted once.
        blocks: decoder blocks.
        strategy: ``fsdp2``, ``deepspeed`` or ``ddp``.
        proved: whether shards come from a set-up of the strategy at this world size, not from arithmetic.
        workers: the world size.
        dp_replicate: whole copies of the model.
        dp_shard: workers that share one copy.
        batch: of a step and the run.
        memory: of the first and the last rank.
        largest_share: parameters of the worker that holds most.
        smallest_share: parameters of the worker that holds least.
        empty_tensors: parameters with fewer rows than it takes to give every worker one.
        choices: memory under each kind of activation checkpointing.
        device_memory_bytes: as named, or ``None``.
        fits: whether the fullest worker fits, or ``None``.
        flops_per_token: forward and backward.
        run_flops: of the whole run, or ``None``.
        device_flops: peak of one device, or ``None``.
        run_seconds: of the run at ``mfu_fraction`` of the peak, or ``None``.
        mfu_fraction: assumed.
        probe_seconds: that the dry run took, start of Python not counted.
        probe_cpu_seconds: of its process, start of Python counted.
        probe_peak_memory_bytes: of the process that did it.
    """

    recipe: str
    base: str
    shape_from: str
    architecture: str
    vocabulary: int
    parameters: int
    blocks: int
    strategy: str
    proved: bool
    workers: int
    dp_replicate: int
    dp_shard: int
    batch: Batch
    memory: dict[int, WorkerMemory]
    largest_share: int
    smallest_share: int
    empty_tensors: int
    choices: tuple[Choice, ...]
    device_memory_bytes: int | None
    fits: bool | None
    flops_per_token: float
    run_flops: float | None
    device_flops: float | None
    run_seconds: float | None
    mfu_fraction: float
    probe_seconds: float
    probe_cpu_seconds: float
    probe_peak_memory_bytes: int

    def to_json(self) -> dict[str, Any]:
        """Return the layout as plain values."""
        return asdict(self)


def dry_run_layout(
    recipe: Recipe,
    *,
    model_config: str | None = None,
    device_memory_gib: float | None = None,
    device: str | None = None,
    mfu_fraction: float = DEFAULT_MFU_FRACTION,
) -> Layout:
    """Set a recipe's training up as it would stand on its workers, and return what that takes.

    Args:
        recipe: ``cluster.workers`` is the world size.
        model_config: a ``config.json``, the folder of one, or a preset: the shape of a base that is not here.
        device_memory_gib: memory of one device, to tell what fits.
        device: the device's name, to look its peak up; ``pretrain.device_peak_flops`` wins.
        mfu_fraction: share of the peak that the time estimate assumes.

    Raises:
        ConfigError: batch, degrees or length do not fit together; told before anything is started.
        InputError: the shape of the model is not to be had.
        PlatformError: the process of the dry run failed.
    """
    if not recipe.pretrains:
        raise ConfigError(
            f"{recipe.name} has no pretraining (finetune.base={recipe.finetune.base}), and a layout shows "
            "pretraining alone; docs/recipes.md says what fine-tuning takes, and how a stage of method=full "
            "is laid out as pretraining"
        )
    config, workers = recipe.pretrain, recipe.cluster.workers
    refuse_contradictions(
        config.strategy, config.parallel, device_type="cuda" if recipe.cluster.use_gpu else "cpu"
    )
    replicas, ways = _degrees(config, workers)
    batch = batch_of(config, workers, config.data.sequence_length)
    shape = shape_of(recipe, model_config)
    refuse_long_context(shape.config, batch.sequence_length, recipe.model.base)
    found = run_probe(
        {
            "config": shape.config,
            "world_size": workers,
            "ranks": sorted({0, workers - 1}),
            "strategy": config.strategy,
            "parallel": config.parallel.model_dump(mode="json"),
            "optimizer": config.optimizer.model_dump(mode="json"),
            "precision": config.precision,
            "sequence_length": batch.sequence_length,
        }
    )
    vocabulary = int(shape.config["vocab_size"])
    facts = Facts.of(found, config, shape.config, batch.sequence_length)
    shares = _shares(found, workers, ways)

    def memory_of(share: int, checkpointing: Checkpointing, micro_batch: int) -> WorkerMemory:
        return worker_memory(config, facts, share=share, checkpointing=checkpointing, micro_batch=micro_batch)

    kind = config.parallel.activation_checkpointing
    usable = None if device_memory_gib is None else int(device_memory_gib * GIB * USABLE_FRACTION)
    sizes = [size for size in range(batch.rows_per_worker, 0, -1) if batch.rows_per_worker % size == 0]
    choices = tuple(
        Choice(
            checkpointing,
            memory_of(shares.largest, checkpointing, batch.micro_batch).device,
            None
            if usable is None
            else next((n for n in sizes if memory_of(shares.largest, checkpointing, n).device <= usable), 0),
        )
        for checkpointing in CHECKPOINTING
    )
    fullest = memory_of(shares.largest, kind, batch.micro_batch)
    flops = training_flops_per_token(shape.config, batch.sequence_length)
    peak = config.device_peak_flops or (peak_flops(device, config.precision) if device else None)
    if device and peak is None:
        raise ConfigError(
            f"--device {device}: its peak is not in the table; give it as pretrain.device_peak_flops=… in "
            "FLOP/s, dense, at the recipe's precision"
        )
    run_flops = None if batch.tokens is None else flops * batch.tokens
    return Layout(
        recipe=recipe.name,
        base=recipe.model.base,
        shape_from=shape.origin,
        architecture=str(shape.config["model_type"]),
        vocabulary=vocabulary,
        parameters=found["parameters"],
        blocks=found["blocks"],
        strategy=config.strategy,
        proved="shards" in found,
        workers=workers,
        dp_replicate=replicas,
        dp_shard=ways,
        batch=batch,
        memory={rank: memory_of(share, kind, batch.micro_batch) for rank, share in shares.by_rank.items()},
        largest_share=shares.largest,
        smallest_share=shares.smallest,
        empty_tensors=shares.empty_tensors,
        choices=choices,
        device_memory_bytes=None if device_memory_gib is None else int(device_memory_gib * GIB),
        fits=None if usable is None else fullest.device <= usable,
        flops_per_token=flops,
        run_flops=run_flops,
        device_flops=peak,
        run_seconds=None
        if run_flops is None or peak is None
        else run_flops / (peak * mfu_fraction * workers),
        mfu_fraction=mfu_fraction,
        probe_seconds=found["seconds"],
        probe_cpu_seconds=found["cpu_seconds"],
        probe_peak_memory_bytes=found["peak_memory_bytes"],
    )


def run_probe(request: Mapping[str, Any]) -> dict[str, Any]:
    """Answer a request to :func:`baltoro.jobs.layout_probe.probe` in a process of its own.

    Raises:
        PlatformError: it failed; with the last line that it said.
    """
    environment = {**os.environ, "CUDA_VISIBLE_DEVICES": "", "HF_HUB_OFFLINE": "1"}
    try:
        done = subprocess.run(
            [sys.executable, "-m", "baltoro.jobs.layout_probe"],
            input=json.dumps(request),
            capture_output=True,
            text=True,
            env=environment,
            timeout=_PROBE_SECONDS,
            check=False,
        )
    except subprocess.TimeoutExpired:
        raise PlatformError(f"the dry run did not end within {_PROBE_SECONDS:.0f} seconds") from None
    if done.returncode:
        said = done.stderr.strip().splitlines() or [f"exit code {done.returncode}"]
        raise PlatformError(f"the dry run of this layout failed: {said[-1]}")
    answer: dict[str, Any] = json.loads(done.stdout)
    return answer


# --------------------------------------------------------------------------------------------------
# What is known before the dry run


def batch_of(config: TrainConfig, workers: int, sequence_length: int) -> Batch:
    """Return the arithmetic of a step and of the run.

    Raises:
        ConfigError: workers × micro-batch do not divide a step, or the run is shorter than a step.
    """
    # A dry run has no dataset: as many rows as are asked for.
    order = StepOrder(0, sequence_length, config.global_batch_tokens)
    split = order.split(workers, config.micro_batch)
    steps, length_from = config.steps, f"steps={config.steps}"
    if steps is None and config.tokens is not None:
        steps, length_from = config.tokens // config.global_batch_tokens, f"tokens={config.tokens}"
        if steps == 0:
            raise ConfigError(
                f"pretrain.tokens={config.tokens} is less than one step of "
                f"global_batch_tokens={config.global_batch_tokens}; raise tokens or lower global_batch_tokens"
            )
    if config.max_steps is not None and (steps is None or config.max_steps < steps):
        steps, length_from = config.max_steps, f"max_steps={config.max_steps}"
    if steps is None:
        length_from = f"epochs={config.epochs}"
    return Batch(
        sequence_length=sequence_length,
        global_batch_tokens=config.global_batch_tokens,
        rows_per_step=order.rows_per_step,
        rows_per_worker=order.rows_per_step // workers,
        micro_batch=config.micro_batch,
        accumulation=split.accumulation,
        steps=steps,
        tokens=None if steps is None else steps * config.global_batch_tokens,
        length_from=length_from,
    )


def shape_of(recipe: Recipe, model_config: str | None = None) -> Shape:
    """Return the configuration of the recipe's model, vocabulary included, without touching a network.

    A preset is known; a folder has its ``config.json``; a hub id is looked for in the hub's local cache, then
    among :data:`PUBLISHED_SHAPES`.

    Raises:
        InputError: none of these has it, or the file is not a model's configuration.
    """
    base = recipe.model.base
    if model_config is not None:
        if model_config in PRESETS:
            published = PUBLISHED_SHAPES.get(base)
            tokens = published.tokens if published else recipe.tokenizer.vocab_size
            return _preset_shape(recipe, model_config, tokens, f"--model-config: preset {model_config}")
        return _file_shape(recipe, Path(model_config), f"--model-config: {model_config}")
    kind = base_kind(base)
    if kind == "preset":
        return _preset_shape(recipe, base, recipe.tokenizer.vocab_size, "preset")
    if kind == "path":
        return _file_shape(recipe, Path(base.removeprefix("file://")), "its config.json")
    if kind == "hub":
        cached = _cached_config(base)
        if cached is not None:
            return _file_shape(recipe, cached, "config.json in the hub's local cache")
        published = PUBLISHED_SHAPES.get(base)
        if published is not None and published.preset is not None:
            return _preset_shape(recipe, published.preset, published.tokens, f"preset {published.preset}")
        if published is not None and published.config is not None:
            return _with_vocabulary(
                recipe, dict(published.config), published.tokens, "its published shape, kept by Baltoro"
            )
    raise InputError(
        f"model.base={base}: a layout needs its config.json, which is not on this machine; give it with "
        f"--model-config FILE (for a hub id: `hf download {base} config.json`), or name a preset of the same "
        f"shape: {', '.join(PRESETS)}"
    )


def _cached_config(hub_id: str) -> Path | None:
    from huggingface_hub import try_to_load_from_cache

    found = try_to_load_from_cache(hub_id, "config.json")
    return Path(found) if isinstance(found, str) else None


def _preset_shape(recipe: Recipe, preset: str, tokens: int, origin: str) -> Shape:
    config = preset_config(
        preset, vocabulary_size=tokens, sequence_length=recipe.pretrain.data.sequence_length
    ).to_dict()
    trained = recipe.tokenizer.origin == "train"
    # A preset's embedding has room for the tokenizer alone; a base keeps the rows that it has.
    rows = padded_size(tokens, recipe.tokenizer.pad_vocab_to_multiple) if trained else tokens
    return _with_vocabulary(recipe, {**config, "vocab_size": rows}, tokens, origin)


def _file_shape(recipe: Recipe, path: Path, origin: str) -> Shape:
    file = path / "config.json" if path.is_dir() else path
    try:
        config = json.loads(file.read_text(encoding="utf-8"))
    except OSError as error:
        raise InputError(f"{file}: cannot be read: {error.strerror}; give a model's config.json") from None
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise InputError(f"{file}: is not JSON ({error}); give a model's config.json") from None
    if not isinstance(config, dict) or not {"model_type", "vocab_size"} <= config.keys():
        raise InputError(
            f"{file}: names no model_type and vocab_size; give the config.json of a language model"
        )
    return _with_vocabulary(recipe, config, int(config["vocab_size"]), origin)


def _with_vocabulary(recipe: Recipe, config: dict[str, Any], tokens: int, origin: str) -> Shape:
    """Return the shape with the embedding rows that training will give it, as far as a recipe tells.

    Args:
        recipe: says which tokenizer, and which markers it gets.
        config: of the base.
        tokens: entries of the base's tokenizer, at most.
        origin: for people.
    """
    tokenizer, rows = recipe.tokenizer, int(config["vocab_size"])
    if tokenizer.origin == "train":
        rows = padded_size(tokenizer.vocab_size, tokenizer.pad_vocab_to_multiple)
    elif tokenizer.add_tokens == "renderer":
        markers = {token for source in recipe.corpus.sources for token in special_tokens(source.style)}
        if tokens + len(markers) > rows:
            rows = padded_size(tokens + len(markers), tokenizer.pad_vocab_to_multiple)
    return Shape({**config, "vocab_size": rows}, origin)


@dataclass(frozen=True, slots=True)
class _Shares:
    """Parameters that workers hold as their own."""

    by_rank: Mapping[int, int]
    largest: int
    smallest: int
    empty_tensors: int


def _shares(found: Mapping[str, Any], workers: int, ways: int) -> _Shares:
    """Return the shares that the dry run read, or those of a strategy that it does not set up."""
    if "shards" in found:
        shards = found["shards"]
        by_rank = {int(rank): elements for rank, elements in shards["by_rank"].items()}
        return _Shares(by_rank, shards["largest"], shards["smallest"], shards["empty_tensors"])
    # ZeRO cuts one flat list of all parameters into equal parts; DDP gives each worker all of them.
    first = -(-found["parameters"] // ways)
    last = max(0, found["parameters"] - first * (ways - 1))
    return _Shares({0: first, workers - 1: last} if workers > 1 else {0: first}, first, last, 0)


def _degrees(config: TrainConfig, workers: int) -> tuple[int, int]:
    """Return copies of the model, and workers that share one."""
    if config.strategy == "fsdp2":
        return resolve_degrees(config.parallel, workers)
    return (workers, 1) if config.strategy == "ddp" else (1, workers)
