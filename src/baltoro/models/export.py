"""The trained model as a plain Hugging Face folder that also describes itself to MLflow.

``AutoModelForCausalLM.from_pretrained(folder)`` and ``AutoTokenizer.from_pretrained(folder)`` load it without
Baltoro, ``mlflow.transformers.load_model`` and ``mlflow.pyfunc.load_model`` through its ``MLmodel`` file. The
weights stand there once; MLflow looks for the tokenizer in ``components/tokenizer``, where it stands again.
"""

from __future__ import annotations

import json
import platform
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

from baltoro.models.load import ModelPlan, base_values, build_model
from baltoro.models.weights import combined_digest, digest_folder, write_weights

if TYPE_CHECKING:
    import torch

_TEXT_SIGNATURE = json.dumps([{"type": "string", "required": True}])


def write_hf_folder(
    folder: Path | None,
    *,
    plan: ModelPlan,
    parameters: Iterator[tuple[str, torch.Tensor]],
    save_tokenizer: Callable[[Path], None],
    dtype: str,
) -> None:
    """Write weights, configuration, generation configuration, tokenizer and ``MLmodel``.

    Every rank calls it, since gathering ``parameters`` is collective; one rank gives a folder.

    Args:
        folder: created; ``None`` on ranks that only take part.
        plan: what the model is.
        parameters: name and whole CPU tensor of every parameter, tied ones once, in the model's order.
        save_tokenizer: writes the tokenizer's files into a folder.
        dtype: ``float32`` or ``bfloat16``, of the written weights.

    Raises:
        StorageError: the disk refuses or is full.
    """
    import torch

    if folder is None:
        for _ in parameters:
            pass
        return
    target = getattr(torch, dtype)
    folder.mkdir(parents=True, exist_ok=True)
    model = build_model(plan)
    sizes_bytes = {name: value.numel() * target.itemsize for name, value in model.named_parameters()}
    write_weights(folder, ((name, value.to(target)) for name, value in parameters), sizes_bytes)
    model.config.architectures = [type(model).__name__]
    model.config.dtype = target
    model.config.save_pretrained(folder)
    _name_rope_theta(folder / "config.json")
    _write_generation_config(folder, model.config)
    save_tokenizer(folder)
    tokenizer_folder = folder / "components" / "tokenizer"
    tokenizer_folder.mkdir(parents=True)
    save_tokenizer(tokenizer_folder)
    _write_mlmodel(folder, model, dtype)


def write_merged_folder(
    folder: Path, *, plan: ModelPlan, save_tokenizer: Callable[[Path], None], dtype: str
) -> None:
    """Write a base with its adapters in it as a plain Hugging Face folder; one tensor in memory at a time.

    Args:
        folder: created.
        plan: the base and the adapters that belong to it; nothing is trained beside it.
        save_tokenizer: writes the tokenizer's files into a folder.
        dtype: ``float32`` or ``bfloat16``, of the written weights.

    Raises:
        InputError: the base or an adapter cannot be read, or they do not fit each other.
        StorageError: the disk refuses or is full.
    """
    model = build_model(plan)
    model.tie_weights()
    with base_values(model, plan) as value_of:
        write_hf_folder(
            folder,
            plan=plan,
            parameters=(
                (name, value_of(name, tuple(parameter.shape))) for name, parameter in model.named_parameters()
            ),
            save_tokenizer=save_tokenizer,
            dtype=dtype,
        )


def _name_rope_theta(path: Path) -> None:
    """Repeat the rotary base and stretched positions where transformers 4, and servers built on it, look.

    They do not know ``rope_parameters`` and would take 10,000, and unstretched positions, without a word.
    """
    config = json.loads(path.read_text(encoding="utf-8"))
    rotary = config.get("rope_parameters") or {}
    if "rope_theta" not in rotary:
        return
    config["rope_theta"] = rotary["rope_theta"]
    if rotary.get("rope_type", "default") != "default":
        # transformers 5 reads this one first, so it says the same.
        config["rope_scaling"] = rotary
    path.write_text(json.dumps(config, indent=2, sort_keys=True) + "\n", encoding="utf-8")


def _write_generation_config(folder: Path, config: Any) -> None:
    from transformers import GenerationConfig

    ids = {name: getattr(config, name, None) for name in ("bos_token_id", "eos_token_id", "pad_token_id")}
    GenerationConfig(**ids).save_pretrained(folder)


def _write_mlmodel(folder: Path, model: Any, dtype: str) -> None:
    """Write the file by which MLflow knows the folder (keys as its transformers flavour reads them).

    It holds no date and no random id: the same weights give the same folder.
    """
    import torch
    import transformers

    files = digest_folder(folder)
    tokenizer_settings = json.loads((folder / "tokenizer_config.json").read_text(encoding="utf-8"))
    transformers_flavor = {
        "code": None,
        "components": ["tokenizer"],
        "framework": "pt",
        "instance_type": "TextGenerationPipeline",
        "model_binary": ".",
        "pipeline_model_type": type(model).__name__,
        "source_model_name": type(model).__name__,
        "task": "text-generation",
        "tokenizer_type": tokenizer_settings["tokenizer_class"],
        "torch_dtype": f"torch.{dtype}",
        "transformers_version": transformers.__version__,
    }
    requirements = [f"torch=={torch.__version__.split('+')[0]}", f"transformers=={transformers.__version__}"]
    document = {
        "flavors": {
            "python_function": {
                "loader_module": "mlflow.transformers",
                "python_version": platform.python_version(),
                "env": {"virtualenv": "python_env.yaml"},
            },
            "transformers": transformers_flavor,
        },
        "model_size_bytes": sum(file.size_bytes for file in files.values()),
        "model_uuid": combined_digest(files)[:32],
        "signature": {"inputs": _TEXT_SIGNATURE, "outputs": _TEXT_SIGNATURE, "params": None},
    }
    environment = {"python": platform.python_version(), "dependencies": ["-r requirements.txt"]}
    (folder / "MLmodel").write_text(yaml.safe_dump(document, sort_keys=True), encoding="utf-8")
    (folder / "python_env.yaml").write_text(yaml.safe_dump(environment), encoding="utf-8")
    (folder / "requirements.txt").write_text("\n".join(["mlflow", *requirements]) + "\n", encoding="utf-8")
