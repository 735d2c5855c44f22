"""An adapter's base: saying what it is when the adapter is written, and holding a folder against that."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from baltoro.core.errors import InputError
from baltoro.models.adapter_card import POSITION_SETTINGS, merge_command
from baltoro.models.adapters import Adapter, plain_name, read_adapter
from baltoro.models.embeddings import VocabularyMap
from baltoro.models.lineage import MergedBefore, TrainedOn, adapter_digest, weights_digest
from baltoro.models.load import ModelPlan, build_model

_SHOWN_CHARACTERS = 12


def trained_on(plan: ModelPlan, *, base: str, merged: Sequence[str] = ()) -> TrainedOn:
    """Return what the adapter of a plan is trained on; reads the base's weights once.

    Args:
        plan: of the model that is trained.
        base: path, URI or hub id of the base, or the name of a preset.
        merged: where the folders of ``plan.merged`` stand, for people; theirs on this machine if not given.

    Raises:
        InputError: the base or an adapter cannot be read.
    """
    names = merged or [str(folder) for folder in plan.merged]
    adapters = tuple(
        MergedBefore(
            folder=name,
            digest=adapter_digest(folder),
            four_bits=read_adapter(folder).quantization is not None,
        )
        for name, folder in zip(names, plan.merged, strict=True)
    )
    if plan.weights is None:
        return TrainedOn(
            base=base,
            seed=plan.seed,
            digest=None,
            dtype=None,
            rows=None,
            vocabulary=None,
            positions={},
            adapters=adapters,
        )
    config = _base_config(plan.weights)
    digest, dtype = weights_digest(plan.weights, _tensor_names(plan))
    return TrainedOn(
        base=base,
        seed=None,
        digest=digest,
        dtype=dtype,
        rows=config["vocab_size"],
        vocabulary=_vocabulary_digest(plan.vocabulary),
        positions=_positions(config),
        adapters=adapters,
    )


def check_chain(folder: Path, known: Adapter, before: Sequence[Path]) -> None:
    """Refuse adapters that are not those which were merged into the base before another was trained.

    Args:
        folder: of the adapter.
        known: the adapter.
        before: folders that are given in their place.

    Raises:
        InputError: with those that are needed, in order.
    """
    needed = known.trained_on.adapters
    command = merge_command(known.trained_on, str(folder))
    if not needed and before:
        raise InputError(
            f"{folder}: was trained on {known.trained_on.base} alone, with no adapter merged into it before; "
            f"leave {before[0]} out: `{command}`"
        )
    if len(needed) != len(before):
        raise InputError(
            f"{folder}: was trained on {known.trained_on.base} after {len(needed)} "
            f"{'adapter was' if len(needed) == 1 else 'adapters were'} merged into it, and "
            f"{len(before) or 'none'} given; give their folders before it, in this order: "
            f"`{command}`"
        )
    for wanted, given in zip(needed, before, strict=True):
        if (digest := adapter_digest(given)) != wanted.digest:
            raise InputError(
                f"{given}: is not the adapter that was merged into the base before {folder} was trained "
                f"(SHA-256 {digest[:_SHOWN_CHARACTERS]}…, not {wanted.digest[:_SHOWN_CHARACTERS]}…); give "
                f"{wanted.folder}, or a copy of it, unchanged"
            )


def check_preset(folder: Path, known: Adapter, preset: str) -> None:
    """Refuse a preset that an adapter was not trained on.

    Raises:
        InputError: with the base that it was trained on.
    """
    if known.trained_on.seed is None or preset != known.trained_on.base:
        raise InputError(
            f"{folder}: was trained on {_named(known.trained_on)}, not on {preset}; {_remedy(known)}"
        )


def check_base(folder: Path, known: Adapter, plan: ModelPlan) -> None:
    """Refuse a base that is not, to the bit, what an adapter was trained on; reads its weights once.

    Args:
        folder: of the adapter.
        known: the adapter.
        plan: of the base with the adapter's tokenizer.

    Raises:
        InputError: with what is different, and what it was trained on.
    """
    wanted, base = known.trained_on, plan.weights
    if base is None or wanted.seed is not None:
        raise InputError(f"{folder}: was trained on {_named(wanted)}, not on {base}; {_remedy(known)}")
    config = _base_config(base)
    if config["model_type"] != known.config["model_type"]:
        raise _other(
            folder, known, base, f"is a {config['model_type']} model, not a {known.config['model_type']} one"
        )
    if config["vocab_size"] != wanted.rows:
        raise _other(
            folder,
            known,
            base,
            f"has an embedding of {config['vocab_size']:,} rows, not {wanted.rows:,} (padded since?)",
        )
    if _as_json(config.get("rope_parameters")) != wanted.positions.get("rope_parameters"):
        raise _other(folder, known, base, "has other rotary positions in its config.json (stretched since?)")
    digest, dtype = weights_digest(base, _tensor_names(plan))
    if dtype != wanted.dtype:
        raise _other(folder, known, base, f"has weights in {dtype}, not in {wanted.dtype}")
    if digest != wanted.digest:
        raise _other(
            folder,
            known,
            base,
            "holds other weights (another seed or revision, or trained or merged since; SHA-256 "
            f"{digest[:_SHOWN_CHARACTERS]}…, not {(wanted.digest or '')[:_SHOWN_CHARACTERS]}…)",
        )
    if _vocabulary_digest(plan.vocabulary) != wanted.vocabulary:
        raise _other(folder, known, base, "has another tokenizer beside the same weights")


def refuse_quantized(folder: Path, known: Adapter, base: Path) -> None:
    """Refuse a base whose weights are quantised on disk.

    Raises:
        InputError: with the base that the adapter was trained on; or the folder is no model's.
    """
    try:
        config = json.loads((base / "config.json").read_bytes())
        quantized = config.get("quantization_config")
    except (OSError, ValueError, AttributeError) as error:
        raise InputError(
            f"{base}: is no model's folder: config.json cannot be read ({error}); of a GGUF file give the "
            "folder that `baltoro model import` names as the plain model"
        ) from error
    if quantized:
        rounded = "; the merge rounds it as training did" if known.quantization is not None else ""
        raise _other(folder, known, base, f"is quantised on disk, which the trained one was not{rounded}")


def _other(folder: Path, known: Adapter, base: Path, what: str) -> InputError:
    return InputError(
        f"{base}: is not the base that {folder} was trained on, {_named(known.trained_on)}: it {what}; "
        f"{_remedy(known)}"
    )


def _named(wanted: TrainedOn) -> str:
    return wanted.base if wanted.seed is None else f"the preset {wanted.base} with seed {wanted.seed}"


def _remedy(known: Adapter) -> str:
    wanted = known.trained_on
    return (
        f"give --base {wanted.base}" if wanted.seed is not None else "give that model, unchanged, with --base"
    )


def _tensor_names(plan: ModelPlan) -> list[str]:
    """Return the names of the base's tensors that a model is made of: tied and recomputed ones left out."""
    model = build_model(replace(plan, tuning=None))
    persistent = model.state_dict().keys()
    names = [name for name, _ in model.named_parameters()]
    names += [name for name, _ in model.named_buffers() if name in persistent]
    return [plain_name(name) for name in names]


def _base_config(folder: Path) -> dict[str, Any]:
    from transformers import AutoConfig

    config: dict[str, Any] = AutoConfig.from_pretrained(folder, local_files_only=True).to_dict()
    return config


def _positions(config: Any) -> dict[str, Any]:
    return {name: _as_json(config[name]) for name in POSITION_SETTINGS if name in config}


def _as_json(value: Any) -> Any:
    """Return a value as it is once written and read, so that both compare alike."""
    return json.loads(json.dumps(value))


def _vocabulary_digest(vocabulary: VocabularyMap | None) -> str | None:
    if vocabulary is None:
        return None
    parts = [vocabulary.size, vocabulary.known, sorted(vocabulary.pieces.items())]
    return hashlib.sha256(json.dumps(parts).encode()).hexdigest()
