"""The artifacts under one root: find, list, check and begin them."""

from __future__ import annotations

import hashlib
import json

from baltoro.core.artifacts.manifest import (
    FINGERPRINT,
    KINDS,
    MANIFEST_NAME,
    Artifact,
    InputChange,
    JsonObject,
    check_kind,
    check_name,
    fingerprint_of,
    parse_manifest,
    path_of,
)
from baltoro.core.artifacts.writer import ArtifactWriter
from baltoro.core.errors import ArtifactError
from baltoro.core.storage import MissingError, Storage, absolute_uri, join

_CHUNK_BYTES = 8 << 20


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
        return self._read(self.root_uri, path_of(kind, name, fingerprint))

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
        if len(parts) < 4 or parts[-3] not in KINDS or not FINGERPRINT.fullmatch(parts[-1]):
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
        check_kind(kind)
        names = self.storage.list_folders(join(self.root_uri, kind)) if name is None else (name,)
        found = []
        for each in names:
            check_name(each)
            for fingerprint in self.storage.list_folders(join(self.root_uri, kind, each)):
                if FINGERPRINT.fullmatch(fingerprint):
                    found.append(self._read(self.root_uri, path_of(kind, each, fingerprint)))
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
        manifest = parse_manifest(uri, data)
        named = f"{manifest.kind}/{manifest.name}/{manifest.fingerprint}"
        if named != path:
            raise ArtifactError(
                f"{uri} describes {named}; the folder was renamed or the manifest belongs elsewhere: move it "
                "back"
            )
        return Artifact(root_uri, manifest)


def _damaged(artifact: Artifact, damaged: list[str]) -> ArtifactError:
    more = f" and {len(damaged) - 5} more" if len(damaged) > 5 else ""
    return ArtifactError(
        f"{artifact.uri} was damaged after it was published: {'; '.join(damaged[:5])}{more}; restore it from "
        "a copy, or delete the folder and run its stage again"
    )


def _is_absolute(uri: str) -> bool:
    return "://" in uri or uri.startswith(("/", "~"))
