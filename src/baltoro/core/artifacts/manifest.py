"""The record of an artifact: what it is, what went into it, which files it has, and where it stands."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from baltoro.core.errors import ArtifactError
from baltoro.core.provenance import Provenance
from baltoro.core.storage import join

KINDS: Final = (
    "corpus",
    "tokenizer",
    "tokens",
    "instructions",
    "run",
    "adapter",
    "model",
    "evaluation",
    "certificate",
)
"""What an artifact can be; the first part of its path."""

SCHEMA_VERSION: Final = 1
MANIFEST_NAME: Final = "manifest.json"
FINGERPRINT = re.compile(r"[0-9a-f]{16}")
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,127}")

JsonObject = Mapping[str, Any]


def fingerprint_of(inputs: JsonObject) -> str:
    """Return the fingerprint of a stage's inputs: 16 hexadecimal digits of the SHA-256 of their canonical
    JSON.

    The order of keys does not matter, every value does (``1``, ``1.0``, ``true`` and ``"1"`` all differ).

    Args:
        inputs: what decides the output, as JSON values.

    Raises:
        TypeError: if a value is not JSON.
        ValueError: if a number is not finite.
    """
    text = json.dumps(inputs, sort_keys=True, separators=(",", ":"), ensure_ascii=True, allow_nan=False)
    return hashlib.sha256(text.encode("ascii")).hexdigest()[:16]


class ArtifactFile(BaseModel):
    """One data file of an artifact.

    Attributes:
        path: relative to the artifact's folder: the writer's sub-folder, then the file's name.
        rows: its records (0 for what has none).
        bytes: its length.
        sha256: the digest of its content.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    path: str
    rows: int = Field(ge=0)
    bytes: int = Field(ge=0)
    sha256: str = Field(pattern=r"^[0-9a-f]{64}$")

    @property
    def name(self) -> str:
        """The name it was written under, without the writer's sub-folder."""
        return self.path.partition("/")[2]


class Manifest(BaseModel):
    """What an artifact is, what went into it and which files it has.

    Attributes:
        schema_version: of this record.
        kind: one of :data:`KINDS`.
        name: the recipe's or stage's name for it.
        fingerprint: of ``inputs``.
        stage_version: of the stage that made it; raised when its output changes.
        inputs: exactly what was hashed, dotted key to JSON value.
        parents: role to path relative to the root (``corpus/geo/0123456789abcdef``).
        counts: what a summary shows.
        files: the data files, in the order of their paths.
        extra: what the kind adds.
        writer: the sub-folder that holds the files.
        made_by: who and what made it (not hashed).
        created_at: UTC, ISO 8601 with microseconds.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    schema_version: int
    kind: str
    name: str
    fingerprint: str
    stage_version: int
    inputs: dict[str, Any]
    parents: dict[str, str]
    counts: dict[str, Any]
    files: tuple[ArtifactFile, ...]
    extra: dict[str, Any]
    writer: str
    made_by: Provenance
    created_at: str


@dataclass(frozen=True, slots=True)
class InputChange:
    """One input that differs from the latest artifact; ``how`` is ``changed``, ``added`` or ``removed``."""

    key: str
    old: Any
    new: Any
    how: str

    def __str__(self) -> str:
        """Return it as a person reads it: ``key: 3 -> 5``."""
        if self.how == "added":
            return f"{self.key}: {_shown(self.new)} (new)"
        if self.how == "removed":
            return f"{self.key}: {_shown(self.old)} (not set now)"
        return f"{self.key}: {_shown(self.old)} -> {_shown(self.new)}"


@dataclass(frozen=True, slots=True)
class Artifact:
    """A published artifact.

    Attributes:
        root_uri: the root it lies under; its parents' paths are relative to it.
        manifest: its manifest.
    """

    root_uri: str
    manifest: Manifest

    @property
    def relative_path(self) -> str:
        """Its path under the root, as others name it as their parent."""
        return f"{self.manifest.kind}/{self.manifest.name}/{self.manifest.fingerprint}"

    @property
    def uri(self) -> str:
        """Its folder."""
        return join(self.root_uri, self.relative_path)

    @property
    def kind(self) -> str:
        """One of :data:`KINDS`."""
        return self.manifest.kind

    @property
    def fingerprint(self) -> str:
        """The fingerprint of what went into it."""
        return self.manifest.fingerprint

    def files(self, prefix: str = "") -> tuple[ArtifactFile, ...]:
        """Return its files whose names start with ``prefix``, in order."""
        return tuple(file for file in self.manifest.files if file.name.startswith(prefix))

    def uri_of(self, file: str | ArtifactFile) -> str:
        """Return where one of its files is, given by itself or by the name it was written under.

        Raises:
            ArtifactError: if the artifact has no such file.
        """
        if isinstance(file, ArtifactFile):
            return join(self.uri, file.path)
        for known in self.manifest.files:
            if known.name == file:
                return join(self.uri, known.path)
        raise ArtifactError(
            f"{self.uri} has no file {file!r}; it has "
            f"{', '.join(f.name for f in self.manifest.files) or 'none'}"
        )


def parse_manifest(uri: str, data: bytes) -> Manifest:
    """Return the manifest that a file holds.

    Raises:
        ArtifactError: it is none, or of a newer version; names the file.
    """
    try:
        content = json.loads(data)
    except ValueError as error:
        raise ArtifactError(f"{uri} is not a manifest: {error}; restore it or delete the folder") from error
    version = content.get("schema_version") if isinstance(content, dict) else None
    if isinstance(version, int) and version > SCHEMA_VERSION:
        raise ArtifactError(
            f"{uri} has schema_version {version}, made by a newer Baltoro; this one reads up to "
            f"{SCHEMA_VERSION}: upgrade it"
        )
    try:
        return Manifest.model_validate(content)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"]) or "the whole"
        raise ArtifactError(
            f"{uri} is not a manifest ({where}: {first['msg']}); restore it or delete the folder"
        ) from error


def path_of(kind: str, name: str, fingerprint: str) -> str:
    """Return an artifact's path under its root.

    Raises:
        ArtifactError: one of the three cannot be part of it.
    """
    check_kind(kind)
    check_name(name)
    if not FINGERPRINT.fullmatch(fingerprint):
        raise ArtifactError(f"{fingerprint!r} is not a fingerprint of 16 hexadecimal digits")
    return f"{kind}/{name}/{fingerprint}"


def check_kind(kind: str) -> None:
    """Refuse what is no kind of artifact.

    Raises:
        ArtifactError: with the kinds there are.
    """
    if kind not in KINDS:
        raise ArtifactError(f"{kind!r} is not a kind of artifact; the kinds are {', '.join(KINDS)}")


def check_name(name: str) -> None:
    """Refuse what cannot name an artifact.

    Raises:
        ArtifactError: with what is allowed.
    """
    if not _NAME.fullmatch(name):
        raise ArtifactError(
            f"{name!r} cannot name an artifact; use up to 128 letters, digits, '.', '_' and '-', starting "
            "with a letter or digit"
        )


def _shown(value: Any) -> str:
    text = json.dumps(value, ensure_ascii=False)
    return text if len(text) <= 80 else text[:77] + "..."
