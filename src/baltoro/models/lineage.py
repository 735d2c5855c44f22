"""What an adapter was trained on: the base, by the content of its weights, and the adapters merged into it.

An adapter makes up for exactly the weights that it saw. On others of the same shapes it fits without a word
and gives a wrong model, so its folder says what they were, in a form that any folder can be held against.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator

from baltoro.core.errors import InputError
from baltoro.models.config import AdapterConfig, QuantizationConfig
from baltoro.models.weights import combined_digest, digest_file, weight_files

ADAPTER_FILE, PEFT_CONFIG_FILE, OWN_FILE = (
    "adapter_model.safetensors",
    "adapter_config.json",
    "baltoro_adapter.json",
)


class MergedBefore(BaseModel):
    """An adapter that was part of the weights already."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    folder: str = Field(description="where it stood: a path or URI")
    digest: str = Field(description="as adapter_digest gives it")
    four_bits: bool = Field(description="the weights were rounded to four bits before it was added")


class TrainedOn(BaseModel):
    """What an adapter was trained on, but for the rounding that the adapter itself asks for."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    base: str = Field(description="path, URI or hub id of the base, or the name of a preset")
    seed: int | None = Field(description="of a preset's random weights; null where weights were read")
    digest: str | None = Field(description="of the base's weights, as weights_digest gives it")
    dtype: str | None = Field(description="of the base's weights")
    rows: int | None = Field(description="of the base's own embedding")
    vocabulary: str | None = Field(
        description="digest of how it was carried over to the tokenizer, if it was"
    )
    positions: dict[str, Any] = Field(description="of the base's own configuration")
    adapters: tuple[MergedBefore, ...] = Field(description="merged into the base before, in order")


class AdapterRecord(BaseModel):
    """What ``baltoro_adapter.json`` says; :class:`~baltoro.models.adapters.Adapter` tells what it means."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    trained_on: TrainedOn
    adapter: AdapterConfig
    quantization: QuantizationConfig | None
    quantized_layers: tuple[str, ...]
    dtype: Literal["float32", "bfloat16", "float16"]
    config: dict[str, Any]

    @field_validator("config")
    @classmethod
    def _is_of_a_model(cls, config: dict[str, Any]) -> dict[str, Any]:
        for name, kind in (("model_type", str), ("vocab_size", int)):
            if not isinstance(config.get(name), kind):
                raise ValueError(f"{name} is missing")
        return config


def weights_digest(folder: Path, names: Iterable[str]) -> tuple[str, str]:
    """Return one SHA-256 over tensors, and their dtypes; neither depends on how files are cut and named.

    One tensor is in memory at a time; about a second per GB.

    Args:
        folder: of plain safetensors.
        names: of the tensors that count; what else the folder holds does not.

    Raises:
        InputError: a tensor is missing, or cannot be read.
    """
    import torch
    from safetensors import SafetensorError, safe_open

    files = weight_files(folder)
    by_file: dict[str, list[str]] = {}
    for name in sorted(names):
        if name not in files:
            raise InputError(
                f"{folder}: lacks {name}, which the base has; give the whole folder of that model"
            )
        by_file.setdefault(files[name], []).append(name)
    lines, dtypes = [], set()
    try:
        for file_name, here in by_file.items():
            with safe_open(folder / file_name, framework="pt") as file:
                for name in here:
                    tensor = file.get_tensor(name).contiguous()
                    dtype = str(tensor.dtype).removeprefix("torch.")
                    content = hashlib.sha256(tensor.reshape(-1).view(torch.uint8).numpy())
                    lines.append(f"{name} {dtype} {list(tensor.shape)} {content.hexdigest()}\n")
                    dtypes.add(dtype)
    except (OSError, SafetensorError) as error:
        raise InputError(f"{folder}: the weights cannot be read ({error}); get the model again") from error
    return hashlib.sha256("".join(sorted(lines)).encode()).hexdigest(), ", ".join(sorted(dtypes))


def adapter_digest(folder: Path) -> str:
    """Return one SHA-256 over the files of an adapter's folder that decide what it adds, and to what.

    Raises:
        InputError: one of them cannot be read.
    """
    try:
        return combined_digest({name: digest_file(folder / name) for name in (ADAPTER_FILE, OWN_FILE)})
    except OSError as error:
        raise InputError(
            f"{folder}: is no adapter that can be read ({error}); give the folder that a finetune run "
            f"exported, with {OWN_FILE} and {ADAPTER_FILE}"
        ) from error
