"""Getting a base model once: from a folder, a GGUF file, a URI or a hub, into plain safetensors.

What comes out is a folder that :mod:`baltoro.models.load` can read parameter by parameter on any number of
ranks: ``config.json``, safetensors whose tensor names are the model's own, the tokenizer, nothing that needs
unpickling or remote code. It is staged once, checksummed, and never fetched per rank.
"""

from __future__ import annotations

import difflib
import json
import re
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from baltoro.core.errors import InputError
from baltoro.core.storage import Storage, expand_user, is_local, local_path
from baltoro.models.load import unmatched_names
from baltoro.models.presets import PRESETS
from baltoro.models.weights import (
    INDEX_FILE,
    FileDigest,
    combined_digest,
    digest_folder,
    weight_files,
    write_weights,
)

if TYPE_CHECKING:
    import torch

BaseKind = Literal["preset", "path", "uri", "hub"]

_HUB_ID = re.compile(r"^[A-Za-z0-9][\w.-]*(/[A-Za-z0-9][\w.-]*)?$")
_KEPT_PATTERNS = (
    "*.safetensors",
    INDEX_FILE,
    "config.json",
    "generation_config.json",
    "tokenizer*",
    "special_tokens_map.json",
    "added_tokens.json",
    "vocab*",
    "merges.txt",
    "spiece.model",
    "chat_template*",
    "LICENSE*",
    "README.md",
)
_PICKLED_PATTERNS = ("pytorch_model*.bin", "pytorch_model.bin.index.json")


@dataclass(frozen=True, slots=True)
class ImportedModel:
    """A base model as a folder of plain files.

    Attributes:
        folder: where the files stand.
        source: what it was made from (path, URI, or ``hub id@commit``).
        architecture: the model class (``LlamaForCausalLM``).
        parameters: number of parameters, tied ones counted once.
        files: size and SHA-256 of each file, by name.
        digest: one SHA-256 over all of them.
    """

    folder: Path
    source: str
    architecture: str
    parameters: int
    files: Mapping[str, FileDigest]
    digest: str


def base_kind(base: str) -> BaseKind:
    """Tell what a ``model.base`` names; an existing path wins over a hub id.

    Raises:
        InputError: it can be none of a preset, a path, a URI or a hub id.
    """
    if base in PRESETS:
        return "preset"
    if "://" in base:
        return "path" if is_local(base) else "uri"
    if expand_user(Path(base)).exists() or base.startswith((".", "/", "~")):
        return "path"
    if _HUB_ID.match(base):
        return "hub"
    raise InputError(
        f"model.base={base}: is no preset ({', '.join(PRESETS)}), existing path, URI or hub id; correct it"
    )


def missing_base(base: str) -> InputError:
    """Return the error for a base that has not been imported, with the command that imports it."""
    nearest = difflib.get_close_matches(base, PRESETS, n=1)
    preset = f", or did you mean the preset {nearest[0]}? Presets are {', '.join(PRESETS)}" if nearest else ""
    return InputError(
        f"model.base={base}: is not staged under storage.root, and training never downloads; "
        f"run `baltoro model import {base}` first{preset}"
    )


def import_base_model(
    source: str, folder: Path, *, storage: Storage, scratch: Path, allow_download: bool = True
) -> ImportedModel:
    """Make a folder of plain safetensors, tokenizer and configuration from a base model.

    A Hugging Face folder whose safetensors already carry the model's own tensor names is copied; anything
    else (pickled weights, older names, GGUF) is loaded once and written anew: GGUF dequantised to bfloat16,
    others in their own dtype.

    Args:
        source: a folder or ``.gguf`` file (path or URI), a folder with one ``.gguf`` file, or a hub id.
        folder: is created; must be empty or absent.
        storage: gives access to URIs.
        scratch: a local folder for what is fetched first.
        allow_download: whether a hub may be asked; ``HF_TOKEN``, ``HF_ENDPOINT``, ``HF_HOME`` and
            ``HF_HUB_OFFLINE`` are honoured.

    Raises:
        InputError: nothing usable is there, it is quantised or no causal language model, or the hub refuses;
            without ``allow_download``, a hub id that is not staged, with the command to run.
    """
    kind = base_kind(source)
    if kind == "preset":
        raise InputError(f"{source} is a preset, trained from random weights; there is nothing to import")
    if kind == "hub":
        if not allow_download:
            raise missing_base(source)
        origin, label = _download(source)
    elif kind == "uri":
        origin, label = scratch / "download" / source.rstrip("/").rsplit("/", 1)[-1], source
        if storage.stat(source, with_etag=False) is None:
            storage.download_folder(source, origin)
        else:
            storage.download_file(source, origin)
    else:
        origin, label = expand_user(local_path(source)), source
    folder.mkdir(parents=True, exist_ok=True)
    if any(folder.iterdir()):
        raise InputError(f"{folder}: is not empty; give a new folder for the imported model")
    gguf_file = _gguf_file(origin)
    if gguf_file is not None:
        _convert_gguf(gguf_file, folder)
    else:
        _import_folder(origin, folder, label)
    return describe_folder(folder, label)


def describe_folder(folder: Path, source: str) -> ImportedModel:
    """Return what an imported folder holds; reads every file once for its checksum.

    Raises:
        InputError: the weights are not those of the model that ``config.json`` names.
    """
    model = _meta_model(folder, source)
    missing, extra = unmatched_names(model, weight_files(folder))
    if missing or extra:
        raise InputError(
            f"{source}: {type(model).__name__} keeps its weights in a layout that cannot be loaded "
            f"({len(missing)} parameters missing, {len(extra)} unknown, first {(missing or extra)[0]}); "
            "choose another model.base"
        )
    files = digest_folder(folder)
    return ImportedModel(
        folder=folder,
        source=source,
        architecture=type(model).__name__,
        parameters=sum(parameter.numel() for parameter in model.parameters()),
        files=files,
        digest=combined_digest(files),
    )


def _meta_model(folder: Path, source: str) -> Any:
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM

    config = _checked_config(folder, source)
    with torch.device("meta"):
        return AutoModelForCausalLM.from_config(
            AutoConfig.for_model(config.pop("model_type"), **config), dtype=torch.float32
        )


def _checked_config(folder: Path, source: str) -> dict[str, Any]:
    """Return ``config.json``, refusing what cannot be trained from."""
    from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES

    path = folder / "config.json"
    try:
        config: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise InputError(
            f"{source}: has neither a config.json nor one .gguf file; give a Hugging Face model folder or "
            "a GGUF file"
        ) from None
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise InputError(f"{source}: config.json is not JSON ({error}); get the model again") from None
    if config.get("quantization_config"):
        method = config["quantization_config"].get("quant_method", "some method")
        raise InputError(
            f"{source}: the weights are quantised ({method}), which cannot be trained further; take the "
            "original model in bfloat16 or float32 (a GGUF file is dequantised)"
        )
    if config.get("model_type") not in MODEL_FOR_CAUSAL_LM_MAPPING_NAMES:
        raise InputError(
            f"{source}: model_type={config.get('model_type')} is no causal language model that transformers "
            "knows; choose another model.base"
        )
    return config


def _download(hub_id: str) -> tuple[Path, str]:
    """Fetch a snapshot through the hub's own cache (``HF_HOME``); return its folder and ``id@commit``.

    Offline, what the cache holds is taken.
    """
    from huggingface_hub import HfApi, constants, snapshot_download

    # HTTPError is what its client raises when the network is away; it has no other name there.
    from huggingface_hub.errors import (  # type: ignore[attr-defined]
        HfHubHTTPError,
        HFValidationError,
        HTTPError,
        LocalEntryNotFoundError,
        OfflineModeIsEnabled,
    )

    remedy = (
        "check the id, set HF_TOKEN for a gated model, HF_ENDPOINT for a mirror, or give the path of a copy: "
        "`baltoro model import PATH`"
    )
    try:
        if constants.HF_HUB_OFFLINE:
            snapshot = Path(snapshot_download(hub_id, local_files_only=True))
        else:
            names = [file.rfilename for file in HfApi().model_info(hub_id).siblings or []]
            safe = any(name.endswith(".safetensors") for name in names)
            patterns = [*_KEPT_PATTERNS, *(() if safe else _PICKLED_PATTERNS)]
            snapshot = Path(snapshot_download(hub_id, allow_patterns=patterns))
    except (
        HTTPError,
        HfHubHTTPError,
        HFValidationError,
        LocalEntryNotFoundError,
        OfflineModeIsEnabled,
        OSError,
    ) as error:
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise InputError(f"model.base={hub_id}: cannot be downloaded ({reason}); {remedy}") from error
    return snapshot, f"{hub_id}@{snapshot.name}"


def _gguf_file(origin: Path) -> Path | None:
    if not origin.exists():
        raise InputError(
            f"{origin}: does not exist; give a Hugging Face model folder, a GGUF file or a hub id"
        )
    if origin.is_file():
        if origin.suffix != ".gguf":
            raise InputError(
                f"{origin}: is a single file but no .gguf; give the folder that holds config.json"
            )
        return origin
    found = sorted(origin.glob("*.gguf"))
    if (origin / "config.json").exists() or not found:
        return None
    if len(found) > 1:
        raise InputError(
            f"{origin}: holds {len(found)} GGUF files ({', '.join(path.name for path in found[:3])}, …); "
            "name one"
        )
    return found[0]


def _convert_gguf(path: Path, folder: Path) -> None:
    """Dequantise a GGUF file; the transformers loader for it would need accelerate, its parser does not."""
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer
    from transformers.modeling_gguf_pytorch_utils import load_gguf_checkpoint

    try:
        config = AutoConfig.from_pretrained(path.parent, gguf_file=path.name, local_files_only=True)
        with torch.device("meta"):
            model = AutoModelForCausalLM.from_config(config, dtype=torch.float32)
        tensors = load_gguf_checkpoint(
            str(path), return_tensors=True, model_to_load=model, torch_dtype=torch.bfloat16
        )["tensors"]
        tokenizer = AutoTokenizer.from_pretrained(path.parent, gguf_file=path.name, local_files_only=True)
    except Exception as error:  # its parsers raise every kind, a bare Exception included, for one meaning
        raise InputError(
            f"{path}: the GGUF file cannot be read ({error}); get it again, or another one"
        ) from error
    config.architectures = [type(model).__name__]
    config.dtype = torch.bfloat16
    config.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    _write(folder, tensors)


def _import_folder(origin: Path, folder: Path, source: str) -> None:
    from transformers import AutoModelForCausalLM

    _checked_config(origin, source)
    for pattern in _KEPT_PATTERNS:
        for path in origin.glob(pattern):
            if path.is_file():
                shutil.copyfile(path, folder / path.name)
    if any(folder.glob("*.safetensors")):
        missing, extra = unmatched_names(_meta_model(folder, source), weight_files(folder))
        if not missing and not extra:
            return
    try:
        model = AutoModelForCausalLM.from_pretrained(
            origin, dtype="auto", local_files_only=True, trust_remote_code=False
        )
    except (OSError, ValueError, RuntimeError) as error:
        reason = str(error).strip().splitlines()[0]
        raise InputError(
            f"{source}: the weights cannot be loaded ({reason}); choose another model.base"
        ) from error
    for path in [*folder.glob("*.safetensors"), *folder.glob(INDEX_FILE)]:
        path.unlink()
    wanted = {name for name, _ in model.named_parameters()}
    state: dict[str, torch.Tensor] = model.state_dict()
    buffers = {name for name, _ in model.named_buffers()}
    _write(folder, {name: value for name, value in state.items() if name in wanted | buffers})


def _write(folder: Path, tensors: Mapping[str, torch.Tensor]) -> None:
    write_weights(
        folder,
        tensors.items(),
        {name: value.numel() * value.element_size() for name, value in tensors.items()},
    )
