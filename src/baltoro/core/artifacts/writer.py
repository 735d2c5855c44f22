"""Writing an artifact: files first, then one conditional write makes it exist."""

from __future__ import annotations

import hashlib
import json
import secrets
from collections.abc import Mapping
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Self

from baltoro.core.artifacts.manifest import (
    MANIFEST_NAME,
    SCHEMA_VERSION,
    Artifact,
    ArtifactFile,
    JsonObject,
    Manifest,
    fingerprint_of,
    path_of,
)
from baltoro.core.errors import ArtifactError
from baltoro.core.provenance import Provenance, collect_provenance
from baltoro.core.storage import AlreadyExistsError, is_local, join

if TYPE_CHECKING:
    from baltoro.core.artifacts.store import ArtifactStore


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
        self.artifact_uri = join(store.root_uri, path_of(kind, name, fingerprint))
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
