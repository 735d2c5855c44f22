"""Artifacts: what a stage made, published once and named by a fingerprint of what went into it.

An artifact is the folder ``{root}/{kind}/{name}/{fingerprint}/``. Its writer puts the data files under a
sub-folder of its own and then publishes by one conditional write of ``manifest.json``, which names them: the
artifact exists when its manifest does, nobody ever overwrites a named file with other bytes (writers that
share a folder write the same), and of two writers exactly one wins while both go on with the same artifact.

    store = ArtifactStore(storage, root_uri)
    fingerprint = fingerprint_of(inputs)
    artifact = store.find("corpus", "geo", fingerprint)
    if artifact is None:
        with store.begin("corpus", "geo", fingerprint) as writer:
            writer.write_file("documents.parquet", data, rows=1000)
            artifact = writer.publish(inputs=inputs, stage_version=1, counts={"documents": 1000})
"""

from __future__ import annotations

import hashlib
import json
import re
import secrets
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from baltoro.core.errors import ArtifactError
from baltoro.core.provenance import Provenance, collect_provenance
from baltoro.core.storage import (
    AlreadyExistsError,
    MissingError,
    Storage,
    absolute_uri,
    is_local,
    join,
)

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
_FINGERPRINT = re.compile(r"[0-9a-f]{16}")
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,127}")
_CHUNK_BYTES = 8 << 20

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
            return f"{self.key}: {_shown(self.old)} (no longer there)"
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
        """Return where a file is, given the name it was written under.

        Raises:
            ArtifactError: if the artifact has no such file.
        """
        name = file if isinstance(file, str) else file.name
        for known in self.manifest.files:
            if known.name == name:
                return join(self.uri, known.path)
        raise ArtifactError(
            f"{self.uri} has no file {name!r}; it has "
            f"{', '.join(f.name for f in self.manifest.files) or 'none'}"
        )


class ArtifactStore:
    """The artifacts under one root. Cheap to make and to pickle.

    Args:
        storage: how to reach the root.
        root_uri: the root; made absolute.
    """

    def __init__(self, storage: Storage, root_uri: str) -> None:
        self.storage = storage
        self.root_uri = absolute_uri(root_uri)

    def find(self, kind: str, name: str, fingerprint: str) -> Artifact | None:
        """Return the artifact of that fingerprint, or ``None`` if it was not published.

        Raises:
            ArtifactError: if its manifest is damaged.
        """
        return self._read(self.root_uri, _path(kind, name, fingerprint))

    def open(self, uri_or_relative_path: str, *, kind: str | None = None) -> Artifact:
        """Return the artifact that a person or a manifest names.

        Args:
            uri_or_relative_path: its folder or manifest, as an absolute URI (under any root) or relative to
                this root.
            kind: refuse any other kind.

        Raises:
            ArtifactError: if there is none, it is damaged or of another kind.
        """
        given = str(uri_or_relative_path)
        located = given if _is_absolute(given) else join(self.root_uri, *given.rstrip("/").split("/"))
        parts = absolute_uri(located).removesuffix("/" + MANIFEST_NAME).split("/")
        path = "/".join(parts[-3:])
        if len(parts) < 4 or parts[-3] not in KINDS or not _FINGERPRINT.fullmatch(parts[-1]):
            raise ArtifactError(
                f"{given} is not an artifact: its path must end in KIND/NAME/FINGERPRINT, KIND being one of "
                f"{', '.join(KINDS)}; list what there is under {self.root_uri}"
            )
        artifact = self._read("/".join(parts[:-3]) or "/", path)
        if artifact is None:
            raise ArtifactError(
                f"{given} is not a published artifact: there is no {MANIFEST_NAME} in it; run the stage that "
                "makes it or correct the URI"
            )
        if kind is not None and artifact.kind != kind:
            raise ArtifactError(
                f"{given} is of kind {artifact.kind}, but {kind} is needed here; name another one"
            )
        return artifact

    def resolve_parent(self, relative: str) -> Artifact:
        """Return the artifact that a manifest names as a parent, under this root.

        Raises:
            ArtifactError: if it is not there (a root must be copied whole).
        """
        if _is_absolute(relative):
            raise ArtifactError(f"{relative} is not relative to the root, as a parent's path must be")
        return self.open(relative)

    def parents_of(self, artifact: Artifact) -> dict[str, Artifact]:
        """Return the parents of an artifact by role, resolved under its own root."""
        store = ArtifactStore(self.storage, artifact.root_uri)
        return {role: store.resolve_parent(path) for role, path in artifact.manifest.parents.items()}

    def list(self, kind: str, name: str | None = None) -> tuple[Artifact, ...]:
        """Return the published artifacts of a kind (and name), the oldest first."""
        _check_kind(kind)
        names = self.storage.list_folders(join(self.root_uri, kind)) if name is None else (name,)
        found = []
        for each in names:
            _check_name(each)
            for fingerprint in self.storage.list_folders(join(self.root_uri, kind, each)):
                if _FINGERPRINT.fullmatch(fingerprint):
                    found.append(self._read(self.root_uri, _path(kind, each, fingerprint)))
        published = (artifact for artifact in found if artifact is not None)
        return tuple(
            sorted(published, key=lambda artifact: (artifact.manifest.created_at, artifact.fingerprint))
        )

    def latest(self, kind: str, name: str) -> Artifact | None:
        """Return the artifact published last under that name, or ``None``."""
        published = self.list(kind, name)
        return published[-1] if published else None

    def begin(self, kind: str, name: str, fingerprint: str) -> ArtifactWriter:
        """Return a writer for a new artifact; nothing of it is visible before it publishes."""
        return ArtifactWriter(self, kind, name, fingerprint)

    def verify(self, artifact: Artifact) -> None:
        """Read every file and compare with the manifest.

        Raises:
            ArtifactError: naming the files that are missing or damaged.
        """
        damaged = []
        if fingerprint_of(artifact.manifest.inputs) != artifact.fingerprint:
            damaged.append(f"{MANIFEST_NAME} (its inputs do not have its fingerprint)")
        for file in artifact.manifest.files:
            uri = join(artifact.uri, file.path)
            info = self.storage.stat(uri, with_etag=False)
            if info is None:
                damaged.append(f"{file.path} (missing)")
            elif info.size_bytes != file.bytes:
                damaged.append(f"{file.path} ({info.size_bytes} bytes instead of {file.bytes})")
            elif self._sha256(uri) != file.sha256:
                damaged.append(f"{file.path} (its content has another checksum)")
        if damaged:
            raise _damaged(artifact, damaged)

    def check_files(self, artifact: Artifact) -> None:
        """Compare names and sizes of an artifact's files with its manifest, by one listing.

        Raises:
            ArtifactError: naming the files that are missing or of another size.
        """
        found = {info.key: info.size_bytes for info in self.storage.list(artifact.uri, with_etag=False)}
        damaged = [
            f"{file.path} (missing)"
            if file.path not in found
            else f"{file.path} ({found[file.path]} bytes instead of {file.bytes})"
            for file in artifact.manifest.files
            if found.get(file.path) != file.bytes
        ]
        if damaged:
            raise _damaged(artifact, damaged)

    def explain_stale(self, kind: str, name: str, inputs: JsonObject) -> tuple[InputChange, ...]:
        """Return what differs between ``inputs`` and those of the latest artifact of that name, by key.

        Nothing differs if there is no earlier artifact; :meth:`latest` tells the two apart.
        """
        latest = self.latest(kind, name)
        if latest is None:
            return ()
        old = latest.manifest.inputs
        new = json.loads(json.dumps(inputs))
        changes = []
        for key in sorted(old.keys() | new.keys()):
            if key not in new:
                changes.append(InputChange(key, old[key], None, "removed"))
            elif key not in old:
                changes.append(InputChange(key, None, new[key], "added"))
            elif fingerprint_of({key: old[key]}) != fingerprint_of({key: new[key]}):
                changes.append(InputChange(key, old[key], new[key], "changed"))
        return tuple(changes)

    def _sha256(self, uri: str) -> str:
        digest = hashlib.sha256()
        with self.storage.open(uri) as file:
            while chunk := file.read(_CHUNK_BYTES):
                digest.update(chunk)
        return digest.hexdigest()

    def _read(self, root_uri: str, path: str) -> Artifact | None:
        uri = join(root_uri, path, MANIFEST_NAME)
        try:
            data = self.storage.read_bytes(uri)
        except MissingError:
            return None
        manifest = _parse(uri, data)
        named = f"{manifest.kind}/{manifest.name}/{manifest.fingerprint}"
        if named != path:
            raise ArtifactError(
                f"{uri} describes {named}; the folder was renamed or the manifest belongs elsewhere: move it "
                "back"
            )
        return Artifact(root_uri, manifest)


class ArtifactWriter:
    """Writes the files of one artifact under a sub-folder of its own and publishes them.

    Workers may write to :meth:`uri_for` themselves; whoever publishes names each file with :meth:`add_file`.
    Used as a context manager it abandons what was not published.
    """

    def __init__(self, store: ArtifactStore, kind: str, name: str, fingerprint: str) -> None:
        self.store = store
        self.kind = kind
        self.name = name
        self.fingerprint = fingerprint
        self.folder = f"w-{secrets.token_hex(8)}"
        self.artifact_uri = join(store.root_uri, _path(kind, name, fingerprint))
        self._files: dict[str, ArtifactFile] = {}
        self._open = True
        self._may_be_published = False
        self._shared = False

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._open:
            self.abandon()

    def uri_for(self, filename: str) -> str:
        """Return where to write a file of that name (which may have folders)."""
        return join(self.artifact_uri, self.folder, filename)

    def adopt_folder(self, folder: str, *, shared: bool = False) -> None:
        """Take a sub-folder of the artifact that is already written as this writer's own.

        For a stage whose files must stand in place before it is known that they are the final ones, as the
        export of a training attempt does. Before the first file is named.

        Args:
            folder: its name.
            shared: it is also that of an interrupted build, or of another one that runs now and writes the
                same bytes, so it is left when this writer gives up.

        Raises:
            ArtifactError: a file was named already.
        """
        if self._files:
            raise ArtifactError(f"{self.artifact_uri}: files were named under {self.folder} already")
        join(self.artifact_uri, folder)
        self.folder = folder
        self._shared = shared

    def add_file(self, filename: str, *, rows: int, size_bytes: int, sha256: str) -> None:
        """Name a file that was written to :meth:`uri_for`.

        Raises:
            ArtifactError: if the name was added before.
        """
        self.uri_for(filename)
        if filename in self._files:
            raise ArtifactError(
                f"{self.artifact_uri}: the file {filename!r} was added twice; each has its own name"
            )
        self._files[filename] = ArtifactFile(
            path=f"{self.folder}/{filename}", rows=rows, bytes=size_bytes, sha256=sha256
        )

    def write_file(self, filename: str, data: bytes, rows: int = 0) -> None:
        """Write a file and name it."""
        self.store.storage.write_bytes(self.uri_for(filename), data)
        self.add_file(filename, rows=rows, size_bytes=len(data), sha256=hashlib.sha256(data).hexdigest())

    def upload_file(self, filename: str, local_path: str | Path, rows: int = 0) -> None:
        """Copy a file of this machine into the artifact and name it."""
        path = Path(local_path)
        self.store.storage.upload_file(path, self.uri_for(filename))
        with path.open("rb") as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()
        self.add_file(filename, rows=rows, size_bytes=path.stat().st_size, sha256=digest)

    def publish(
        self,
        *,
        inputs: JsonObject,
        stage_version: int,
        parents: Mapping[str, Artifact | str] | None = None,
        counts: JsonObject | None = None,
        extra: JsonObject | None = None,
        made_by: Provenance | None = None,
    ) -> Artifact:
        """Make the artifact exist, by one conditional write of its manifest.

        Args:
            inputs: exactly what the fingerprint was made of.
            stage_version: of the stage.
            parents: role to artifact, or to path relative to the root.
            counts: what a summary shows.
            extra: what the kind adds.
            made_by: who and what made it; collected here if not given.

        Returns:
            This artifact, or the one another writer published meanwhile; this writer's files are then
            removed.

        Raises:
            ArtifactError: if the inputs do not have the fingerprint, a named file is not there as described,
                a parent lies under another root, or this writer has ended.
            StorageError: if the store refuses.
        """
        if not self._open:
            raise ArtifactError(
                f"{self.artifact_uri}: this writer has already published or abandoned; begin a new one"
            )
        if fingerprint_of(inputs) != self.fingerprint:
            raise ArtifactError(
                f"{self.artifact_uri}: the inputs to publish have the fingerprint {fingerprint_of(inputs)}; "
                "publish exactly the inputs that were fingerprinted at the start"
            )
        manifest = Manifest(
            schema_version=SCHEMA_VERSION,
            kind=self.kind,
            name=self.name,
            fingerprint=self.fingerprint,
            stage_version=stage_version,
            inputs=dict(inputs),
            parents={role: self._relative(role, parent) for role, parent in (parents or {}).items()},
            counts=dict(counts or {}),
            files=tuple(sorted(self._files.values(), key=lambda file: file.path)),
            extra=dict(extra or {}),
            writer=self.folder,
            made_by=made_by or collect_provenance(),
            created_at=datetime.now(UTC).isoformat(timespec="microseconds"),
        )
        self._check_files()
        text = json.dumps(manifest.model_dump(mode="json"), indent=1, ensure_ascii=True, allow_nan=False)
        # An object store may still carry out a request whose answer never came.
        self._may_be_published = not is_local(self.artifact_uri)
        with suppress(AlreadyExistsError):
            self.store.storage.create(join(self.artifact_uri, MANIFEST_NAME), text.encode("ascii"))
        winner = self.store.find(self.kind, self.name, self.fingerprint)
        if winner is None:
            raise ArtifactError(
                f"{self.artifact_uri} was deleted while it was published; run the stage again"
            )
        if winner.manifest.writer == self.folder:
            self._open = False
        else:
            self._may_be_published = False
            self.abandon()
        return winner

    def abandon(self) -> None:
        """Remove this writer's files, unless they were published or may have been."""
        still_own = self._open and not self._may_be_published
        self._open = False
        if not still_own or self._shared:
            return
        self.store.storage.delete_folder(join(self.artifact_uri, self.folder))

    def _check_files(self) -> None:
        folder = join(self.artifact_uri, self.folder)
        written = {info.key: info.size_bytes for info in self.store.storage.list(folder, with_etag=False)}
        for filename, file in self._files.items():
            if filename not in written:
                raise ArtifactError(
                    f"{join(folder, filename)} was named but never written; write it before publishing"
                )
            if written[filename] != file.bytes:
                raise ArtifactError(
                    f"{join(folder, filename)} has {written[filename]} bytes but was named with "
                    f"{file.bytes}; name it after it is written whole"
                )

    def _relative(self, role: str, parent: Artifact | str) -> str:
        if isinstance(parent, str):
            return self.store.resolve_parent(parent).relative_path
        if parent.root_uri != self.store.root_uri:
            raise ArtifactError(
                f"the parent {role} ({parent.uri}) lies outside the root {self.store.root_uri}; copy it "
                "there, so that the root stays whole"
            )
        return parent.relative_path


def _damaged(artifact: Artifact, damaged: list[str]) -> ArtifactError:
    more = f" and {len(damaged) - 5} more" if len(damaged) > 5 else ""
    return ArtifactError(
        f"{artifact.uri} was damaged after it was published: {'; '.join(damaged[:5])}{more}; restore it from "
        "a copy, or delete the folder and run its stage again"
    )


def _parse(uri: str, data: bytes) -> Manifest:
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


def _path(kind: str, name: str, fingerprint: str) -> str:
    _check_kind(kind)
    _check_name(name)
    if not _FINGERPRINT.fullmatch(fingerprint):
        raise ArtifactError(f"{fingerprint!r} is not a fingerprint of 16 hexadecimal digits")
    return f"{kind}/{name}/{fingerprint}"


def _check_kind(kind: str) -> None:
    if kind not in KINDS:
        raise ArtifactError(f"{kind!r} is not a kind of artifact; the kinds are {', '.join(KINDS)}")


def _check_name(name: str) -> None:
    if not _NAME.fullmatch(name):
        raise ArtifactError(
            f"{name!r} cannot name an artifact; use up to 128 letters, digits, '.', '_' and '-', starting "
            "with a letter or digit"
        )


def _is_absolute(uri: str) -> bool:
    return "://" in uri or uri.startswith(("/", "~"))


def _shown(value: Any) -> str:
    text = json.dumps(value, ensure_ascii=False)
    return text if len(text) <= 80 else text[:77] + "..."
