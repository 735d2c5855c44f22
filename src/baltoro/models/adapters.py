"""Low-rank adapters on a frozen base, in full precision or in four bits; the one module here that knows peft.

An adapter (LoRA, Hu et al. 2021, arXiv:2106.09685) adds ``B A · alpha/rank`` to the weight of a linear layer
and trains A and B alone. Beside it, embeddings and norms may be trained whole, which longer contexts need
(LongLoRA, Chen et al. 2023, arXiv:2309.12307, section 3.3). The layers are peft's, put into the model as it
stands on the meta device; values are given by :mod:`baltoro.models.load` as to any other parameter.

On disk an adapter is what peft reads (``adapter_config.json``, ``adapter_model.safetensors``), a file
``baltoro_adapter.json`` with what peft has no place for (whether the base was in four bits, the digest of its
weights, the adapters merged into it before, its stretched positions), and a ``README.md`` for people.
"""

from __future__ import annotations

import importlib.util
import json
import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import ValidationError

from baltoro.core.errors import ConfigError, InputError, PlatformError, StorageError
from baltoro.models.adapter_card import CARD_FILE, adapter_card
from baltoro.models.config import ALL_LINEAR, AdapterConfig, QuantizationConfig
from baltoro.models.lineage import ADAPTER_FILE, OWN_FILE, AdapterRecord, TrainedOn

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedModel

ADAPTER_NAME = "default"

_PEFT_PREFIX = "base_model.model."
_FACTORS = ("lora_A", "lora_B")


@dataclass(frozen=True, slots=True)
class Tuning:
    """What of a model is trained, beside a frozen base; picklable, the same on every rank.

    Attributes:
        adapter: rank, targets, and what is trained whole.
        quantization: the base's linear layers are kept in four bits; ``None`` keeps them as they are.
        frozen_dtype: ``float32``, ``bfloat16`` or ``float16``, of what is frozen and not in four bits.
        start: folder of an adapter to go on with; ``None`` begins a new one.
    """

    adapter: AdapterConfig
    quantization: QuantizationConfig | None = None
    frozen_dtype: str = "bfloat16"
    start: Path | None = None


# --------------------------------------------------------------------------------------------------
# Into the model


def prepare_for_tuning(model: PreTrainedModel, tuning: Tuning) -> None:
    """Freeze a model, put its linear layers into four bits and adapters onto its targets; in place.

    Args:
        model: on the meta device, float32.
        tuning: what is trained.

    Raises:
        ConfigError: a target matches no linear layer, or the output projection.
        PlatformError: the library for 4-bit weights is not installed.
    """
    from peft import LoraConfig, inject_adapter_in_model

    targets = target_layers(model, tuning.adapter)
    if tuning.quantization is not None:
        quantize_layers(model, tuning.quantization)
    _freeze(model, tuning)
    config = LoraConfig(
        r=tuning.adapter.rank,
        lora_alpha=tuning.adapter.alpha,
        lora_dropout=tuning.adapter.dropout,
        target_modules=targets,
        task_type="CAUSAL_LM",
    )
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    inject_adapter_in_model(config, model, ADAPTER_NAME, low_cpu_mem_usage=True)
    for parameter in trained:
        # peft has frozen everything but what it put in.
        parameter.requires_grad_(True)


def target_layers(model: PreTrainedModel, config: AdapterConfig) -> list[str]:
    """Return the names of the linear layers that get an adapter.

    Args:
        model: any decoder.
        config: targets by the ends of their names, or all.

    Raises:
        ConfigError: a target matches nothing, or the output projection.
    """
    layers = linear_layers(model)
    if config.targets == ALL_LINEAR:
        return layers
    ends = sorted({name.rpartition(".")[2] for name in layers})
    chosen: set[str] = set()
    for target in config.targets:
        matching = [name for name in layers if name == target or name.endswith(f".{target}")]
        if not matching:
            output = "the output projection takes no adapter; " if _is_output(model, target) else ""
            raise ConfigError(
                f"adapter.targets: {target!r} matches no linear layer; {output}this model has "
                f"{', '.join(ends)}; name some of these, or {ALL_LINEAR}"
            )
        chosen.update(matching)
    return [name for name in layers if name in chosen]


def linear_layers(model: PreTrainedModel) -> list[str]:
    """Return the names of all linear layers but the output projection, in the model's order."""
    from torch import nn

    output = model.get_output_embeddings()
    return [
        name
        for name, module in model.named_modules()
        if isinstance(module, nn.Linear) and module is not output
    ]


def quantize_layers(model: PreTrainedModel, config: QuantizationConfig) -> None:
    """Put every linear layer but the output projection into four bits, without values yet.

    Raises:
        PlatformError: bitsandbytes is not installed.
    """
    from baltoro.models.nf4 import Nf4Linear

    refuse_missing_four_bits()
    for name in linear_layers(model):
        layer: Any = model.get_submodule(name)
        model.set_submodule(name, Nf4Linear(layer, double_quantization=config.double))


def refuse_missing_four_bits() -> None:
    """Refuse 4-bit bases where the library that quantises them is absent.

    Raises:
        PlatformError: bitsandbytes is not installed.
    """
    if importlib.util.find_spec("bitsandbytes") is None:
        raise PlatformError(
            "method=qlora and longqlora need bitsandbytes, which is not installed here; install the extra "
            "with `pip install 'baltoro[nf4]'`, or use method=lora"
        )


def _is_output(model: PreTrainedModel, target: str) -> bool:
    output = model.get_output_embeddings()
    return any(
        module is output and (name == target or name.endswith(f".{target}"))
        for name, module in model.named_modules()
    )


def _freeze(model: PreTrainedModel, tuning: Tuning) -> None:
    """Leave only embeddings and norms trainable that are to be, and give the rest the frozen dtype."""
    import torch
    from torch import nn

    whole = trained_whole(model, tuning.adapter)
    dtype = getattr(torch, tuning.frozen_dtype)
    made: dict[int, nn.Parameter] = {}
    for module_name, module in model.named_modules():
        for name, parameter in module._parameters.items():
            if parameter is None:
                continue
            path = f"{module_name}.{name}" if module_name else name
            if path in whole:
                # A tied output projection is the embedding itself, wherever it is met first.
                made[id(parameter)] = parameter
            elif id(parameter) not in made:
                made[id(parameter)] = nn.Parameter(parameter.detach().to(dtype), requires_grad=False)
            module._parameters[name] = made[id(parameter)]


def trained_whole(model: PreTrainedModel, config: AdapterConfig) -> set[str]:
    """Return the names of the parameters that are trained beside the adapter.

    Norms are recognised as in LongLoRA's ``fine-tune.py``, by ``norm`` in the name; embeddings are the input
    embedding, and the output projection where it is tied to it.
    """
    names: set[str] = set()
    embedding = model.get_input_embeddings()
    for name, parameter in model.named_parameters():
        if "norms" in config.train and "norm" in name.rpartition(".")[0].rpartition(".")[2].lower():
            names.add(name)
        if "embeddings" in config.train and embedding is not None and parameter is embedding.weight:
            names.add(name)
    return names


# --------------------------------------------------------------------------------------------------
# Names and values


def plain_name(name: str) -> str:
    """Return a parameter's name as it is without adapters.

    >>> plain_name("model.layers.0.mlp.up_proj.base_layer.weight")
    'model.layers.0.mlp.up_proj.weight'
    """
    return name.replace(".base_layer.", ".")


def is_factor(name: str) -> bool:
    """Return whether a parameter is a factor of an adapter."""
    return any(f".{factor}." in name for factor in _FACTORS)


def initial_factor(name: str, shape: tuple[int, ...], seed: int) -> torch.Tensor:
    """Return a factor's start, float32 on the CPU: A uniform within ±1/√in, B zero (as peft does).

    Args:
        name: of the parameter, which seeds its values.
        shape: of the parameter.
        seed: of the run.
    """
    import hashlib

    import torch

    if ".lora_B." in name:
        return torch.zeros(shape)
    digest = hashlib.sha256(f"{seed}:{name}".encode()).digest()
    generator = torch.Generator().manual_seed(int.from_bytes(digest[:8], "little") >> 1)
    bound = 1.0 / math.sqrt(shape[1])
    return torch.rand(shape, generator=generator).mul_(2 * bound).sub_(bound)


# --------------------------------------------------------------------------------------------------
# On disk


@dataclass(frozen=True, slots=True)
class Adapter:
    """An adapter that was read from its folder.

    Attributes:
        settings: it was made with.
        factors: by the name of the layer: A [rank, in] and B [out, rank], float32.
        whole: by plain name, the values of parameters that were trained whole, float32.
        quantization: of the base it was trained on; ``None`` if that was not in four bits.
        quantized: names of the layers that were in four bits.
        trained_on: the base, and what was merged into it before.
        dtype: of what was frozen and not in four bits, and of the run's own merged model.
        config: of the model as it was trained.
    """

    settings: AdapterConfig
    factors: Mapping[str, tuple[torch.Tensor, torch.Tensor]]
    whole: Mapping[str, torch.Tensor]
    quantization: QuantizationConfig | None
    quantized: frozenset[str]
    trained_on: TrainedOn
    dtype: str
    config: Mapping[str, Any]

    def applied(self, name: str, weight: torch.Tensor) -> torch.Tensor:
        """Return what a parameter of the base is with the adapter in it.

        Where the base was in four bits, the weight is first rounded as it was in training: the adapter was
        trained to make up for that, too.

        Args:
            name: plain name of the parameter.
            weight: of the base.
        """
        if name in self.whole:
            return self.whole[name]
        layer = name.removesuffix(".weight")
        if layer == name:
            return weight
        if self.quantization is not None and layer in self.quantized:
            weight = rounded_to_nf4(weight, self.quantization)
        if layer not in self.factors:
            return weight
        factor_a, factor_b = self.factors[layer]
        return weight.float() + self.settings.scale * (factor_b @ factor_a)


def rounded_to_nf4(weight: torch.Tensor, config: QuantizationConfig) -> torch.Tensor:
    """Return a weight as four bits give it back, float32."""
    from torch import nn

    from baltoro.models.nf4 import Nf4Linear

    layer = nn.Linear(weight.shape[1], weight.shape[0], bias=False, device="meta")
    quantized = Nf4Linear(layer, double_quantization=config.double).to_empty(device=weight.device)
    quantized.fill(weight)
    return quantized.weight


def write_adapter_folder(
    folder: Path,
    *,
    model: PreTrainedModel,
    tuning: Tuning,
    parameters: Iterable[tuple[str, torch.Tensor]],
    trained_on: TrainedOn,
    config: Mapping[str, Any],
    save_tokenizer: Callable[[Path], None],
) -> None:
    """Write an adapter as peft reads it, with its tokenizer; values in float32, as they were trained.

    Args:
        folder: created.
        model: prepared for tuning; only names and shapes are looked at.
        tuning: what was trained.
        parameters: name and whole CPU tensor of every trained parameter.
        trained_on: the base, and what was merged into it before.
        config: of the model as it was trained, stretched positions and all.
        save_tokenizer: writes the tokenizer's files into a folder.

    Raises:
        StorageError: the disk refuses or is full.
    """
    from peft import LoraConfig
    from safetensors import SafetensorError
    from safetensors.torch import save_file

    from baltoro.models.nf4 import Nf4Linear

    folder.mkdir(parents=True, exist_ok=True)
    tensors: dict[str, torch.Tensor] = {}
    layers, modules = set(), set()
    for name, value in parameters:
        if is_factor(name):
            layers.add(name.partition(".lora_")[0])
            stored = name.replace(f".{ADAPTER_NAME}.", ".")
        else:
            stored = plain_name(name)
            modules.add(stored.rpartition(".")[0].rpartition(".")[2])
        tensors[_PEFT_PREFIX + stored] = value.float().contiguous()
    quantized = sorted(name for name, module in model.named_modules() if isinstance(module, Nf4Linear))
    settings = LoraConfig(
        r=tuning.adapter.rank,
        lora_alpha=tuning.adapter.alpha,
        lora_dropout=tuning.adapter.dropout,
        target_modules=sorted(layers),
        modules_to_save=sorted(modules) or None,
        task_type="CAUSAL_LM",
        base_model_name_or_path=trained_on.base,
        inference_mode=True,
    )
    own = {
        "trained_on": trained_on.model_dump(mode="json"),
        "adapter": tuning.adapter.model_dump(mode="json"),
        "quantization": tuning.quantization and tuning.quantization.model_dump(mode="json"),
        "quantized_layers": [plain_name(f"{name}.").rstrip(".") for name in quantized],
        "dtype": tuning.frozen_dtype,
        "config": dict(config),
    }
    card = adapter_card(
        trained_on,
        tuning.adapter,
        four_bits=bool(quantized),
        tied=model.config.tie_word_embeddings,
        config=config,
    )
    try:
        save_file(tensors, folder / ADAPTER_FILE, metadata={"format": "pt"})
        settings.save_pretrained(str(folder))
        (folder / OWN_FILE).write_text(json.dumps(own, indent=1) + "\n", encoding="utf-8")
        (folder / CARD_FILE).write_text(card, encoding="utf-8")
    except (OSError, SafetensorError) as error:
        raise StorageError(
            f"{folder}: the adapter cannot be written ({error}); free disk space there"
        ) from error
    save_tokenizer(folder)


def read_adapter(folder: Path) -> Adapter:
    """Return the adapter of a folder that :func:`write_adapter_folder` wrote.

    Raises:
        InputError: it is no such folder, or not whole.
    """
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        own = AdapterRecord.model_validate_json((folder / OWN_FILE).read_bytes())
        tensors = load_file(folder / ADAPTER_FILE)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"]))
        what = f"{where}: {first['msg']}" if where else first["msg"]
        raise InputError(
            f"{folder / OWN_FILE}: is not as this version of Baltoro writes it ({what}); give the folder "
            "that a finetune run exported, unchanged, or export the adapter again"
        ) from None
    except (OSError, SafetensorError) as error:
        raise InputError(
            f"{folder}: is no adapter that can be read ({error}); give the folder that a finetune run "
            f"exported, with {OWN_FILE} and {ADAPTER_FILE}"
        ) from error
    factors: dict[str, dict[str, torch.Tensor]] = {}
    whole: dict[str, torch.Tensor] = {}
    for stored, value in tensors.items():
        name = stored.removeprefix(_PEFT_PREFIX)
        if is_factor(name):
            layer, _, factor = name.partition(".lora_")
            factors.setdefault(layer, {})[factor[0]] = value
        else:
            whole[name] = value
    halves = [layer for layer, pair in factors.items() if pair.keys() != {"A", "B"}]
    if halves:
        raise InputError(f"{folder}: has only one factor of {halves[0]}; export the adapter again")
    return Adapter(
        settings=own.adapter,
        factors={layer: (pair["A"], pair["B"]) for layer, pair in factors.items()},
        whole=whole,
        quantization=own.quantization,
        quantized=frozenset(own.quantized_layers),
        trained_on=own.trained_on,
        dtype=own.dtype,
        config=own.config,
    )
