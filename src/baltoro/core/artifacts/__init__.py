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

from baltoro.core.artifacts.manifest import (
    KINDS,
    MANIFEST_NAME,
    SCHEMA_VERSION,
    Artifact,
    ArtifactFile,
    InputChange,
    JsonObject,
    Manifest,
    fingerprint_of,
)
from baltoro.core.artifacts.store import ArtifactStore
from baltoro.core.artifacts.writer import ArtifactWriter

__all__ = [
    "KINDS",
    "MANIFEST_NAME",
    "SCHEMA_VERSION",
    "Artifact",
    "ArtifactFile",
    "ArtifactStore",
    "ArtifactWriter",
    "InputChange",
    "JsonObject",
    "Manifest",
    "fingerprint_of",
]
