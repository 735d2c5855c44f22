"""``checkpoint.json``: names every file of a checkpoint with size and SHA-256, and where the run stood."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from typing import Any

from baltoro.checkpoint.state import TrainState
from baltoro.core.errors import ArtifactError
from baltoro.core.storage import ChangedError, MissingError, Storage, join

MARKER_FILE = "checkpoint.json"
SCHEMA_VERSION = 2
_VERIFY_THREADS = 4
_CHUNK_BYTES = 16 << 20


class DamagedError(ArtifactError):
    """Something that a checkpoint names is missing or not what it was."""


@dataclass(frozen=True, slots=True)
class FileRecord:
    """One file of a checkpoint."""

    size_bytes: int
    sha256: str

    @staticmethod
    def of(data: bytes) -> FileRecord:
        """Describe a file by its content."""
        return FileRecord(len(data), hashlib.sha256(data).hexdigest())


@dataclass(frozen=True, slots=True)
class Marker:
    """The content of ``checkpoint.json``.

    Attributes:
        state: where the run stood.
        attempt: that wrote it.
        world_size: number of ranks that wrote it, each with its random state.
        validation_loss: the newest one then, nats per token.
        save_seconds: from the beginning of the save to this file.
        files: by name, relative to the checkpoint's folder.
    """

    state: TrainState
    attempt: int
    world_size: int
    validation_loss: float | None
    save_seconds: float
    files: Mapping[str, FileRecord]

    def encode(self) -> bytes:
        """Return the JSON as it is stored."""
        record = {"schema_version": SCHEMA_VERSION, **asdict(self)}
        return (json.dumps(record, indent=1, sort_keys=True) + "\n").encode()


def read_marker(storage: Storage, folder_uri: str, sha256: str) -> Marker:
    """Return the marker of a checkpoint.

    Raises:
        DamagedError: it is missing, or not the one that the run's head names.
        ArtifactError: another version of Baltoro wrote it.
    """
    uri = join(folder_uri, MARKER_FILE)
    try:
        data = storage.read_bytes(uri)
    except MissingError as error:
        raise DamagedError(f"{uri}: is missing") from error
    if hashlib.sha256(data).hexdigest() != sha256:
        raise DamagedError(f"{uri}: is not the file that the run's head names")
    record: dict[str, Any] = json.loads(data)
    version = record.pop("schema_version")
    if version != SCHEMA_VERSION:
        raise ArtifactError(
            f"{uri}: has schema version {version}, this Baltoro reads {SCHEMA_VERSION}; use the version that "
            "wrote it"
        )
    record["state"] = TrainState(**record["state"])
    record["files"] = {name: FileRecord(**entry) for name, entry in record["files"].items()}
    return Marker(**record)


def find_damage(storage: Storage, folder_uri: str, files: Mapping[str, FileRecord]) -> list[str]:
    """Return a sentence on each file that is missing or not what its record says; reads all of them.

    Raises:
        InputError: the store cannot be reached, which says nothing about the files.
    """
    with ThreadPoolExecutor(_VERIFY_THREADS, thread_name_prefix="baltoro-verify") as pool:
        found = pool.map(lambda name: _damage(storage, join(folder_uri, name), files[name]), sorted(files))
        return [sentence for sentence in found if sentence is not None]


def _damage(storage: Storage, uri: str, record: FileRecord) -> str | None:
    info = storage.stat(uri, with_etag=False)
    if info is None:
        return f"{uri}: is missing"
    if info.size_bytes != record.size_bytes:
        return f"{uri}: is damaged: it has {info.size_bytes} bytes instead of {record.size_bytes}"
    digest = hashlib.sha256()
    for start in range(0, record.size_bytes, _CHUNK_BYTES):
        try:
            digest.update(storage.read_range(uri, start, min(_CHUNK_BYTES, record.size_bytes - start)))
        except (MissingError, ChangedError) as error:
            return f"{uri}: is damaged: {error.message}"
    if digest.hexdigest() != record.sha256:
        return f"{uri}: is damaged: its SHA-256 is another than {MARKER_FILE} says"
    return None
