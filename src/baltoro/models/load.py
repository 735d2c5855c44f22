"""From a preset or a folder of weights to a model whose every parameter is filled.

The model is built on the meta device, sharded by a strategy, and only then given values, parameter by
parameter: no rank ever holds it whole. Random weights come from a generator seeded by the parameter's *name*,
so they are the same whatever the number of ranks; trained weights are read from memory-mapped safetensors.
"""

from __future__ import annotations

import contextlib
import hashlib
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from baltoro.core.errors import ConfigError, InputError
from baltoro.models.adapters import (
    Adapter,
    Tuning,
    initial_factor,
    is_factor,
    plain_name,
    prepare_for_tuning,
    read_adapter,
    target_layers,
)
from baltoro.models.attention import SDPA, Attention
from baltoro.models.config import ALL_LINEAR, AdapterConfig
from baltoro.models.embeddings import VocabularyMap, map_vocabulary, padded_size
from baltoro.models.presets import PRESETS, preset_config
from baltoro.models.rope_scaling import context_positions, has_rotary_positions, scale_rope
from baltoro.models.rope_scaling_config import RopeScalingConfig
from baltoro.models.weights import weight_files
from baltoro.models.windowed_layers import narrowest_window

if TYPE_CHECKING:
    import torch
    from torch import nn
    from transformers import PreTrainedModel


RESIDUAL_PROJECTIONS = ("o_proj.weight", "down_proj.weight", "out_proj.weight", "fc2.weight")
"""How names of matrices end that write to the residual stream (LLaMA's two, and OPT's)."""

_DEVIATION = {"opt": "init_std"}
"""What a configuration calls the deviation of random matrices, where not ``initializer_range``."""


@dataclass(frozen=True, slots=True)
class ModelPlan:
    """What a model is and where its values come from; picklable, the same on every rank.

    Attributes:
        config: the ``transformers`` configuration as plain values, vocabulary size already final.
        weights: folder of plain safetensors on this machine; ``None`` for random weights.
        vocabulary: how the folder's embedding is carried over to the tokenizer; ``None`` where it is kept.
        seed: of the random weights.
        merged: folders of adapters that are part of the base, in the order in which they were trained.
        tuning: what is trained beside a frozen base; ``None`` trains everything.
    """

    config: Mapping[str, Any]
    weights: Path | None = None
    vocabulary: VocabularyMap | None = None
    seed: int = 0
    merged: tuple[Path, ...] = ()
    tuning: Tuning | None = None

    @property
    def vocabulary_size(self) -> int:
        """Rows of the embedding."""
        return int(self.config["vocab_size"])


def plan_model(
    base: str | Path,
    tokenizer: Any,
    *,
    sequence_length: int,
    vocabulary_multiple: int,
    seed: int = 0,
    rope_scaling: RopeScalingConfig | None = None,
) -> ModelPlan:
    """Decide what to train.

    Args:
        base: the name of a preset, or a local folder as :mod:`baltoro.models.import_base` makes it.
        tokenizer: the ``transformers`` fast tokenizer to train with.
        sequence_length: tokens of a training row.
        vocabulary_multiple: the embedding gets a multiple of this many rows.
        seed: of the random weights of a preset.
        rope_scaling: stretches the base's positions; ``None`` keeps them.

    Raises:
        ConfigError: rows are longer than the base's context, stretched or not, or than a preset's learned
            positions; or its positions cannot be stretched.
        InputError: the folder is not a plain safetensors copy of a causal language model.
    """
    from transformers import AutoConfig, AutoTokenizer

    ids = {name: getattr(tokenizer, name) for name in ("bos_token_id", "eos_token_id", "pad_token_id")}
    if str(base) in PRESETS:
        settings = preset_config(
            str(base),
            vocabulary_size=padded_size(len(tokenizer), vocabulary_multiple),
            sequence_length=sequence_length if rope_scaling is None else PRESETS[str(base)].context_tokens,
            **ids,
        ).to_dict()
        settings = _stretched(settings, rope_scaling, str(base))
        refuse_long_context(settings, sequence_length, str(base))
        return ModelPlan(settings, seed=seed)
    folder = Path(base)
    weight_files(folder)
    config = AutoConfig.from_pretrained(folder, local_files_only=True)
    vocabulary = map_vocabulary(
        AutoTokenizer.from_pretrained(folder, local_files_only=True),
        tokenizer,
        base_rows=config.vocab_size,
        multiple=vocabulary_multiple,
    )
    if vocabulary is not None:
        config.vocab_size = vocabulary.size
    for name, value in ids.items():
        setattr(config, name, value)
    settings = _stretched(config.to_dict(), rope_scaling, str(folder))
    refuse_long_context(settings, sequence_length, str(folder))
    return ModelPlan(settings, weights=folder, vocabulary=vocabulary, seed=seed)


def _stretched(settings: dict[str, Any], rope_scaling: RopeScalingConfig | None, base: str) -> dict[str, Any]:
    return settings if rope_scaling is None else scale_rope(settings, rope_scaling, base=base)


def refuse_long_context(config: Mapping[str, Any], sequence_length: int, base: str) -> None:
    """Refuse rows that are longer than a model reads.

    Args:
        config: the model's ``config.json``.
        sequence_length: tokens of a row.
        base: the model, as people named it.

    Raises:
        ConfigError: with the length that it reads.
    """
    context = context_positions(config)
    if context is not None and sequence_length > context:
        why = (
            f"the {context} positions {base} was trained for"
            if has_rotary_positions(config)
            else f"the {context} learned positions of {base}, and there is nothing beyond them"
        )
        raise ConfigError(
            f"sequence_length={sequence_length} is longer than {why}; lower it to at most {context}, "
            + ("stretch them with rope_scaling, " if has_rotary_positions(config) else "")
            + "or choose another model.base"
        )
    window = narrowest_window(config)
    if window is not None and sequence_length > window:
        raise ConfigError(
            f"sequence_length={sequence_length} is longer than the attention window of {window} tokens that "
            f"{base} uses, which packed attention does not reproduce; lower it to at most {window}, or "
            "widen the window in the base's config.json"
        )


def refuse_unknown_targets(config: Mapping[str, Any], adapter: AdapterConfig) -> None:
    """Refuse targets that are no linear layers of a model.

    Args:
        config: the model's ``config.json``.
        adapter: whose targets they are.

    Raises:
        ConfigError: a target matches nothing, or the output projection.
    """
    if adapter.targets != ALL_LINEAR:
        target_layers(build_model(ModelPlan(config)), adapter)


def refuse_untrained_rows(plan: ModelPlan) -> None:
    """Refuse an adapter on a base whose vocabulary grew, unless it trains the embedding.

    Raises:
        ConfigError: the new tokens would keep the values that they begin with.
    """
    if plan.tuning is None or plan.vocabulary is None or "embeddings" in plan.tuning.adapter.train:
        return
    if plan.vocabulary.grows:
        raise ConfigError(
            "adapter.train: the tokenizer has tokens that the base was not trained with, and an "
            "adapter leaves their embeddings as they begin; set adapter.train=[embeddings], "
            "tokenizer.add_tokens=none or method=full"
        )


def build_model(plan: ModelPlan, attention: Attention = SDPA) -> PreTrainedModel:
    """Return the model on the meta device: shapes, no values; float32, but for what tuning freezes.

    Args:
        plan: what it is.
        attention: the kernel it will run with.

    Raises:
        InputError: the architecture cannot run with packed rows.
        ConfigError: an adapter's targets are not in the model.
    """
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM

    settings = dict(plan.config)
    config = AutoConfig.for_model(settings.pop("model_type"), **settings)
    try:
        with torch.device("meta"):
            model: PreTrainedModel = AutoModelForCausalLM.from_config(
                config, attn_implementation=attention.implementation(), dtype=torch.float32
            )
    except ValueError as error:
        # So transformers refuses an architecture without this kernel.
        raise InputError(
            f"the {config.model_type} architecture does not run with the attention kernel "
            f"{attention.kernel} ({error}); choose another attention or model.base"
        ) from error
    if plan.tuning is not None:
        # Tied weights are one before any of them is frozen.
        model.tie_weights()
        prepare_for_tuning(model, plan.tuning)
    return model


def decoder_blocks(model: PreTrainedModel) -> list[nn.Module]:
    """Return the decoder blocks in order: the units that are sharded.

    Raises:
        InputError: the architecture has no list of as many blocks as its configuration names.
    """
    from torch import nn

    layers = model.config.num_hidden_layers
    for module in model.modules():
        if isinstance(module, nn.ModuleList) and len(module) == layers:
            return list(module)
    raise InputError(
        f"{type(model).__name__}: no list of {layers} decoder blocks was found; choose a "
        "decoder-only model.base"
    )


def copy_whole(parameter: nn.Parameter, full: torch.Tensor) -> None:
    """Assign a whole tensor to an unsharded parameter."""
    import torch

    with torch.no_grad():
        parameter.copy_(full)


def load_weights(
    model: PreTrainedModel,
    plan: ModelPlan,
    assign: Callable[[nn.Parameter, torch.Tensor], None] = copy_whole,
) -> None:
    """Fill every parameter and buffer of a model that has storage but no values yet.

    Args:
        model: from :func:`build_model`, after ``to_empty``; sharded or not.
        plan: the same that built it.
        assign: writes a whole tensor into (this rank's share of) a parameter.

    Raises:
        InputError: names or shapes in the folder are not those of the model, or an adapter cannot be read.
    """
    from torch import nn

    from baltoro.models.nf4 import STORED, Nf4Linear

    # Moving off the meta device gives each place of a tied weight a storage of its own.
    model.tie_weights()
    for module in model.modules():
        # Rotary frequencies are not saved: transformers recomputes them in its own initialiser.
        if module._non_persistent_buffers_set and not isinstance(module, Nf4Linear):
            model._init_weights(module)
    start = read_adapter(plan.tuning.start) if plan.tuning is not None and plan.tuning.start else None
    quantized = {
        plain_name(f"{name}.weight"): module
        for name, module in model.named_modules()
        if isinstance(module, Nf4Linear)
    }
    with base_values(model, plan, [*quantized]) as value_of:
        for name, parameter in model.named_parameters():
            if name.endswith(f".{STORED}"):
                continue
            if is_factor(name):
                full = _factor(name, tuple(parameter.shape), plan, start)
            else:
                full = value_of(plain_name(name), tuple(parameter.shape))
                if start is not None:
                    full = start.whole.get(plain_name(name), full)
            assign(parameter, full)
        for name, module in quantized.items():
            weight = value_of(name, (module.out_features, module.in_features))
            if isinstance(module.stored, nn.Parameter):
                assign(module.stored, module.bytes_of(weight))
            else:
                module.fill(weight)
        if plan.weights is not None:
            persistent = set(model.state_dict())
            for name, buffer in model.named_buffers():
                if name in persistent:
                    copy_whole(cast(Any, buffer), value_of(plain_name(name), tuple(buffer.shape)))


ValueOf = Callable[[str, tuple[int, ...]], "torch.Tensor"]
"""``(plain name, shape) → tensor``: the value of a parameter or buffer of the base, on the CPU."""


@contextlib.contextmanager
def base_values(model: PreTrainedModel, plan: ModelPlan, also: Sequence[str] = ()) -> Iterator[ValueOf]:
    """Give what the base's values are read with: its folder or random start, and the adapters merged into it.

    Args:
        model: built from the plan.
        plan: where the values come from.
        also: plain names of weights that the model needs and that are none of its parameters.

    Raises:
        InputError: names or shapes in the folder are not those of the model, or an adapter cannot be read.
    """
    merged = [read_adapter(folder) for folder in plan.merged]
    with contextlib.ExitStack() as stack:
        read = (
            (lambda name, shape: initial_value(name, shape, plan))
            if plan.weights is None
            else _folder_values(model, plan, plan.weights, also, stack)
        )

        def value_of(name: str, shape: tuple[int, ...]) -> torch.Tensor:
            value = read(name, shape)
            for adapter in merged:
                value = adapter.applied(name, value)
            return value

        yield value_of


def _factor(name: str, shape: tuple[int, ...], plan: ModelPlan, start: Adapter | None) -> torch.Tensor:
    """Return the start of an adapter's factor: that of the adapter that is gone on with, if any."""
    if start is None:
        return initial_factor(name, shape, plan.seed)
    layer, _, factor = name.partition(".lora_")
    pair = start.factors.get(layer)
    if pair is None or tuple(pair["AB".index(factor[0])].shape) != shape:
        assert plan.tuning is not None
        raise InputError(
            f"{plan.tuning.start}: has no factor for {layer} of shape {shape}; an adapter goes on with the "
            "rank and targets that it was begun with, or is merged before another one begins"
        )
    return pair["AB".index(factor[0])]


def initial_value(name: str, shape: tuple[int, ...], plan: ModelPlan) -> torch.Tensor:
    """Return a parameter's random start, float32 on the CPU.

    Matrices are normal with the configuration's deviation; the two projections of each block that write to
    the residual stream are scaled by ``1/√(2 · layers)``, so that its variance does not grow with depth
    (Radford et al. 2019, GPT-2, section 2.3). Norm scales are one, biases zero.
    """
    import torch

    if name.endswith(".bias"):
        return torch.zeros(shape)
    if len(shape) < 2:
        return torch.ones(shape)
    deviation = float(plan.config[_DEVIATION.get(plan.config["model_type"], "initializer_range")])
    if name.endswith(RESIDUAL_PROJECTIONS):
        deviation /= math.sqrt(2 * plan.config["num_hidden_layers"])
    digest = hashlib.sha256(f"{plan.seed}:{name}".encode()).digest()
    generator = torch.Generator().manual_seed(int.from_bytes(digest[:8], "little") >> 1)
    return torch.randn(shape, generator=generator).mul_(deviation)


def unmatched_names(
    model: PreTrainedModel, names: Mapping[str, str], also: Sequence[str] = ()
) -> tuple[list[str], list[str]]:
    """Return parameters that the folder lacks, and tensors of the folder that the model has no place for.

    A tied output projection that is stored as well, and recomputed buffers, are neither.

    Args:
        model: with or without adapters.
        names: of the folder's tensors.
        also: plain names of weights that the model needs and that are none of its parameters.
    """
    from baltoro.models.nf4 import STORED

    own = {
        plain_name(name)
        for name, _ in model.named_parameters()
        if not is_factor(name) and not name.endswith(f".{STORED}")
    }
    wanted = own | set(also)
    every = {plain_name(name) for name, _ in model.named_parameters(remove_duplicate=False)}
    tied = every - wanted
    persistent = {plain_name(name) for name in model.state_dict()}
    buffers = {plain_name(name) for name, _ in model.named_buffers()}
    missing = (wanted | (buffers & persistent)) - names.keys()
    extra = {
        name for name in names.keys() - wanted - tied - buffers if not name.endswith("rotary_emb.inv_freq")
    }
    return sorted(missing), sorted(extra)


def _folder_values(
    model: PreTrainedModel,
    plan: ModelPlan,
    folder: Path,
    also: Sequence[str],
    stack: contextlib.ExitStack,
) -> ValueOf:
    """Return what reads a folder's tensors, carried over to the plan's vocabulary."""
    from safetensors import safe_open

    names = weight_files(folder)
    missing, extra = unmatched_names(model, names, also)
    if missing or extra:
        complaint = f"lacks {missing[0]}" if missing else f"has {extra[0]}, which the model has no place for"
        raise InputError(
            f"{folder}: {complaint} ({len(missing)} missing, {len(extra)} unknown names); run `baltoro model "
            f"import {folder}` and use what it makes"
        )
    rows_of_vocabulary = _vocabulary_parameters(model)
    opened: dict[str, Any] = {}

    def read(name: str, shape: tuple[int, ...]) -> torch.Tensor:
        file_name = names[name]
        if file_name not in opened:
            opened[file_name] = stack.enter_context(safe_open(folder / file_name, framework="pt"))
        full: torch.Tensor = opened[file_name].get_tensor(name)
        if plan.vocabulary is not None and name in rows_of_vocabulary:
            full = plan.vocabulary.apply(full)
        if tuple(full.shape) != shape:
            raise InputError(
                f"{folder}: {name} has shape {tuple(full.shape)}, its config.json means {shape}; the files "
                "are not of one model"
            )
        return full

    return read


def _vocabulary_parameters(model: PreTrainedModel) -> set[str]:
    """Return the plain names of parameters that have one row for each entry of the vocabulary."""
    found: set[int] = set()
    for module in (model.get_input_embeddings(), model.get_output_embeddings()):
        if module is not None:
            found.add(id(module.weight))
    output_bias = getattr(model.get_output_embeddings(), "bias", None)
    if output_bias is not None:
        found.add(id(output_bias))
    return {plain_name(name) for name, value in model.named_parameters() if id(value) in found}
