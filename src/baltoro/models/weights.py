"""Folders of plain safetensors: which file holds which tensor, writing them in parts, their checksums."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

from baltoro.core.errors import InputError, StorageError

if TYPE_CHECKING:
    import torch

SINGLE_FILE, INDEX_FILE = "model.safetensors", "model.safetensors.index.json"
MAX_FILE_BYTES = 5_000_000_000
_HASH_CHUNK_BYTES = 1 << 22


@dataclass(frozen=True, slots=True)
class FileDigest:
    """Size and SHA-256 of one file."""

    size_bytes: int
    sha256: str


def digest_stream(stream: BinaryIO) -> FileDigest:
    """Return size and SHA-256 of what is left to be read."""
    digest, size_bytes = hashlib.sha256(), 0
    while chunk := stream.read(_HASH_CHUNK_BYTES):
        digest.update(chunk)
        size_bytes += len(chunk)
    return FileDigest(size_bytes, digest.hexdigest())


def digest_file(path: Path) -> FileDigest:
    """Return size and SHA-256 of a local file."""
    with path.open("rb") as file:
        return digest_stream(file)


def digest_folder(folder: Path) -> dict[str, FileDigest]:
    """Return ``{path relative to the folder: digest}`` of every file below, sorted by path."""
    paths = sorted(path for path in folder.rglob("*") if path.is_file())
    return {path.relative_to(folder).as_posix(): digest_file(path) for path in paths}


def combined_digest(files: Mapping[str, FileDigest]) -> str:
    """Return one SHA-256 over names and contents: the identity of a folder, wherever it stands."""
    lines = [f"{files[name].sha256} {name}\n" for name in sorted(files)]
    return hashlib.sha256("".join(lines).encode()).hexdigest()


def weight_files(folder: Path) -> dict[str, str]:
    """Return ``{tensor name: file name}`` of a folder of safetensors.

    Raises:
        InputError: the folder has no readable ``model.safetensors`` (or index with all its files).
    """
    from safetensors import SafetensorError, safe_open

    try:
        if (folder / INDEX_FILE).exists():
            names: dict[str, str] = json.loads((folder / INDEX_FILE).read_text(encoding="utf-8"))[
                "weight_map"
            ]
            missing = sorted({file for file in names.values() if not (folder / file).exists()})
            if missing:
                raise InputError(
                    f"{folder}: {INDEX_FILE} names {missing[0]}, which is not there; complete the folder and "
                    "import it again"
                )
            return names
        with safe_open(folder / SINGLE_FILE, framework="pt") as file:
            return dict.fromkeys(file.keys(), SINGLE_FILE)
    except FileNotFoundError:
        raise InputError(
            f"{folder}: holds no {SINGLE_FILE}; run `baltoro model import {folder}` and use what it makes"
        ) from None
    except (SafetensorError, json.JSONDecodeError, KeyError, OSError) as error:
        raise InputError(
            f"{folder}: the weights cannot be read ({error}); get the model again and import it"
        ) from error


def write_weights(
    folder: Path,
    tensors: Iterable[tuple[str, torch.Tensor]],
    sizes_bytes: Mapping[str, int],
    *,
    max_file_bytes: int = MAX_FILE_BYTES,
) -> None:
    """Write tensors as safetensors, in one file or in numbered parts with an index, as Hugging Face does.

    At most one file's worth of tensors is held in memory.

    Args:
        folder: exists already.
        tensors: name and CPU tensor, in the order of ``sizes_bytes``.
        sizes_bytes: the bytes of every tensor that will come.
        max_file_bytes: a new file is begun when a tensor would go beyond this.

    Raises:
        StorageError: the disk refuses or is full.
    """
    from safetensors import SafetensorError
    from safetensors.torch import save_file

    parts: list[list[str]] = [[]]
    used = 0
    for name, size in sizes_bytes.items():
        if parts[-1] and used + size > max_file_bytes:
            parts.append([])
            used = 0
        parts[-1].append(name)
        used += size
    file_names = (
        [SINGLE_FILE]
        if len(parts) == 1
        else [f"model-{index + 1:05d}-of-{len(parts):05d}.safetensors" for index in range(len(parts))]
    )
    arriving = iter(tensors)
    try:
        for file_name, names in zip(file_names, parts, strict=True):
            part = {}
            for expected in names:
                name, tensor = next(arriving)
                if name != expected:
                    raise ValueError(f"tensor {name} came where {expected} was announced")
                part[name] = tensor.contiguous()
            save_file(part, folder / file_name, metadata={"format": "pt"})
        if len(parts) > 1:
            weight_map = {
                name: file_name for file_name, names in zip(file_names, parts, strict=True) for name in names
            }
            index = {"metadata": {"total_size": sum(sizes_bytes.values())}, "weight_map": weight_map}
            (folder / INDEX_FILE).write_text(
                json.dumps(index, indent=2, sort_keys=True) + "\n", encoding="utf-8"
            )
    except (OSError, SafetensorError) as error:
        raise StorageError(
            f"{folder}: the model cannot be written ({error}); free disk space there"
        ) from error
