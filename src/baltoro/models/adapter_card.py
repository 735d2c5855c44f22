"""The ``README.md`` of an adapter's folder: what it was trained on, and how it becomes a model again."""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from typing import Any

from baltoro.models.config import AdapterConfig
from baltoro.models.lineage import OWN_FILE, TrainedOn

CARD_FILE = "README.md"

POSITION_SETTINGS = ("rope_parameters", "max_position_embeddings", "head_dim")
"""What stretching positions changes in a configuration."""


def merge_command(trained_on: TrainedOn, adapter: str) -> str:
    """Return the command that makes an adapter and what it was trained on one model.

    Args:
        trained_on: the base and the adapters before.
        adapter: the adapter's folder.
    """
    before = [merged.folder for merged in trained_on.adapters]
    return shlex.join(
        ["baltoro", "model", "merge", *before, adapter, "--base", trained_on.base, "--output", "FOLDER"]
    )


def adapter_card(
    trained_on: TrainedOn,
    settings: AdapterConfig,
    *,
    four_bits: bool,
    tied: bool,
    config: Mapping[str, Any],
) -> str:
    """Return the text.

    Args:
        trained_on: the base and the adapters before.
        settings: the adapter's.
        four_bits: whether the base's layers were in four bits.
        tied: whether the output projection is the embedding.
        config: of the model as it was trained.
    """
    changed = _changed_positions(trained_on, config)
    targets = settings.targets if isinstance(settings.targets, str) else ", ".join(settings.targets)
    facts = [f"Base: {_base(trained_on)}."]
    facts += [
        f"Merged into the base before, {number}: `{merged.folder}` (SHA-256 {merged.digest[:16]}…)"
        + (", after the weights were rounded to four bits." if merged.four_bits else ".")
        for number, merged in enumerate(trained_on.adapters, 1)
    ]
    facts.append(
        f"LoRA of rank {settings.rank}, alpha {settings.alpha}, on {targets}"
        + (f"; {' and '.join(settings.train)} trained whole beside it." if settings.train else ".")
    )
    facts.append(
        "The base's linear layers were in four bits (NF4), and the adapter makes up for their rounding."
        if four_bits
        else "The base's weights were not in four bits."
    )
    if changed or (trained_on.seed is not None and config.get("rope_parameters")):
        facts.append(
            f"{'Stretched p' if changed else 'P'}ositions: {_stretch(config)}. peft's files have no place "
            f"for them; `{OWN_FILE}` says them."
        )
    else:
        facts.append("Positions are those of the base.")
    converted = (
        ""
        if trained_on.seed is not None
        else " Of a GGUF file or pickles, the base is the plain model that `baltoro model import` names."
    )
    remote = "" if "://" not in merge_command(trained_on, ".") else " Copy what is not on this machine first."
    hindrance = _hindrance(trained_on, settings, four_bits=four_bits, tied=tied)
    peft = [
        "## With peft alone",
        "",
        *(
            [f"Not possible with the same result: {hindrance}. Merge it as above."]
            if hindrance
            else [
                "This gives the same logits, in this folder:",
                "",
                "```python",
                *_snippet(trained_on, changed),
                "```",
            ]
        ),
    ]
    return "\n".join(
        [
            "---",
            "library_name: peft",
            "tags:",
            "- baltoro",
            "- lora",
            "---",
            "",
            "# A low-rank adapter",
            "",
            *(f"- {fact}" for fact in facts),
            "",
            "It fits these weights only; others of the same shape would take it without a word and give a "
            "wrong model.",
            "",
            "## As a plain model",
            "",
            f"In this folder, with a new folder for FOLDER.{remote} The command compares the weights with "
            f"those of training.{converted}",
            "",
            "```sh",
            merge_command(trained_on, "."),
            "```",
            "",
            *peft,
            "",
        ]
    )


def _base(trained_on: TrainedOn) -> str:
    if trained_on.seed is not None:
        return f"the preset `{trained_on.base}`, random weights of seed {trained_on.seed}"
    return f"`{trained_on.base}` ({trained_on.dtype}; weights' SHA-256 {(trained_on.digest or '')[:16]}…)"


def _changed_positions(trained_on: TrainedOn, config: Mapping[str, Any]) -> dict[str, Any]:
    """Return the settings of positions that a base's configuration needs changed."""
    own = trained_on.positions
    if trained_on.seed is not None:
        return {}
    if config.get("rope_parameters") == own.get("rope_parameters"):
        return {}
    return {
        name: config[name] for name in POSITION_SETTINGS if name in config and config[name] != own.get(name)
    }


def _stretch(config: Mapping[str, Any]) -> str:
    rotary = config.get("rope_parameters") or {}
    return ", ".join(f"{name} {value}" for name, value in sorted(rotary.items()))


def _hindrance(trained_on: TrainedOn, settings: AdapterConfig, *, four_bits: bool, tied: bool) -> str | None:
    """Return why peft alone does not give the trained model; ``None`` if it does."""
    if trained_on.seed is not None:
        return "no folder holds the base's random weights"
    if four_bits or any(merged.four_bits for merged in trained_on.adapters):
        return "it would add the adapter to weights that were not rounded to four bits as in training"
    if trained_on.vocabulary is not None:
        return "the base's embedding was carried over to this folder's tokenizer, which peft does not do"
    if tied and "embeddings" in settings.train:
        return "the trained embedding is the output projection as well, which peft would leave as it was"
    return None


def _snippet(trained_on: TrainedOn, changed: Mapping[str, Any]) -> list[str]:
    lines = [
        "import torch",
        "from peft import PeftModel",
        f"from transformers import {'AutoConfig, ' if changed else ''}AutoModelForCausalLM",
        "",
        f"base = {trained_on.base!r}",
    ]
    if changed:
        lines.append("config = AutoConfig.from_pretrained(base)")
        lines += [f"config.{name} = {value!r}" for name, value in changed.items()]
    given = "config=config, " if changed else ""
    lines.append(f"model = AutoModelForCausalLM.from_pretrained(base, {given}dtype=torch.float32)")
    lines += [
        f"model = PeftModel.from_pretrained(model, {merged.folder!r}).merge_and_unload()"
        for merged in trained_on.adapters
    ]
    return [*lines, 'model = PeftModel.from_pretrained(model, ".").eval()']
