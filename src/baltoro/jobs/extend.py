"""Snapshots: a corpus that continues another one with the papers that arrived since.

Its artifact holds the new part alone and names the part before it as its parent ``base``, so parts form a
chain. What stands in earlier parts never changes: training reads their sequences first, in the same order.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from baltoro.core.artifacts import Artifact, ArtifactStore, InputChange
from baltoro.core.config import result_fields
from baltoro.core.errors import ArtifactError, ConfigError
from baltoro.core.storage import Storage, digest_of
from baltoro.core.storage.objects import ObjectDifference, difference
from baltoro.corpus.config import LATEST, CorpusConfig
from baltoro.corpus.listing import SourceListing
from baltoro.corpus.passes.build import EarlierParts
from baltoro.corpus.passes.write import SIGNATURES, SPANS
from baltoro.corpus.work import read_parquet

logger = logging.getLogger(__name__)

BASE = "base"
"""Role of the part before, among the parents of a corpus or of a token dataset."""

_SOURCE_KEY = re.compile(r"corpus\.sources\.(\d+)\.(.+)")
_SET_KEY = re.compile(r"corpus\.decontaminate\.sets\.(\d+)\.")
_ARRIVING = frozenset({"objects", "listing", "metadata.digest"})
"""Inputs of a source that change as papers arrive."""


CORPUS_VERSION = 3
"""Version of the corpus stage; parts of one corpus share it."""


def corpus_settings(config: CorpusConfig, storage: Storage) -> dict[str, Any]:
    """Return what identifies a corpus besides the papers it reads."""
    settings = result_fields(config, "corpus.")
    for index, evaluation in enumerate(config.decontaminate.sets):
        settings[f"corpus.decontaminate.sets.{index}.content"] = digest_of(storage.list(evaluation.uri))
    return settings


def part_chain(store: ArtifactStore, artifact: Artifact) -> tuple[Artifact, ...]:
    """Return the parts that an artifact is made of, the first one first and itself last.

    Raises:
        ArtifactError: a part is not there any more.
    """
    parts = [artifact]
    while BASE in parts[0].manifest.parents:
        parts.insert(0, store.resolve_parent(parts[0].manifest.parents[BASE]))
    return tuple(parts)


@dataclass(frozen=True)
class Extension:
    """What a snapshot adds to the corpus that it extends.

    Attributes:
        parts: the corpus that is extended, its first part first.
        listings: per source of the recipe, the objects that it does not have.
        differences: how each source's listing differs from what is there.
        of_other_sources: objects there whose source the recipe does not have any more.
    """

    parts: tuple[Artifact, ...]
    listings: tuple[SourceListing, ...]
    differences: tuple[ObjectDifference, ...]
    of_other_sources: int

    @property
    def base(self) -> Artifact:
        """The newest part."""
        return self.parts[-1]

    @property
    def nothing_new(self) -> bool:
        """Whether every object listed is there already."""
        return not any(listing.objects for listing in self.listings)

    @cached_property
    def earlier(self) -> EarlierParts:
        """What the tasks of the build need of the parts before."""
        return EarlierParts(
            signatures=files_of(self.parts, SIGNATURES),
            spans=files_of(self.parts, SPANS),
            objects=sum(objects_of(part) for part in self.parts),
        )

    def figures(self) -> dict[str, Any]:
        """Return what the data card and the summary say about it."""
        return {
            "name": self.base.manifest.name,
            "fingerprint": self.base.fingerprint,
            "documents": sum(int(part.manifest.counts["kept"]) for part in self.parts),
            "objects_unchanged": sum(entry.unchanged for entry in self.differences),
            "objects_new": sum(entry.new for entry in self.differences),
            "objects_changed": sum(entry.changed for entry in self.differences),
            "objects_gone": sum(entry.gone for entry in self.differences),
            "objects_of_other_sources": self.of_other_sources,
        }


def files_of(parts: Sequence[Artifact], folder: str) -> tuple[str, ...]:
    """Return the URIs of the files of all parts under a folder, in order."""
    return tuple(part.uri_of(file) for part in parts for file in part.files(f"{folder}/"))


def objects_of(part: Artifact) -> int:
    """Return how many objects a part read."""
    return next(file.rows for file in part.files("objects.parquet"))


def extend(
    *,
    extends: str,
    store: ArtifactStore,
    storage: Storage,
    name: str,
    inputs: Mapping[str, Any],
    listings: Sequence[SourceListing],
) -> Extension | None:
    """Return what a recipe adds to the corpus that it extends; ``None`` if that would be its first part.

    Args:
        extends: ``corpus.extends``.
        store: holds the corpus.
        storage: opens its files.
        name: of the recipe's corpus.
        inputs: of the recipe's corpus stage, whatever its listings are.
        listings: all objects of the recipe's sources.

    Raises:
        ConfigError: the corpus was built with other settings, or none of that name was built with these.
        ArtifactError: ``extends`` names no corpus, one under another root, or one that has lost files.
    """
    base = _latest(store, name, inputs) if extends == LATEST else _named(store, extends, inputs)
    if base is None:
        logger.info("corpus.extends: %s: no corpus %r exists yet, so this is its first part", extends, name)
        return None
    parts = part_chain(store, base)
    for part in parts:
        store.check_files(part)
    known = _known_objects(parts, storage)
    differences = []
    for listing in listings:
        old = known.filter(pc.equal(known.column("source"), listing.source.name))
        differences.append(difference(old, listing.objects))
    fresh = [
        SourceListing(listing.source, entry.to_read)
        for listing, entry in zip(listings, differences, strict=True)
    ]
    others = known.num_rows - sum(entry.changed + entry.unchanged + entry.gone for entry in differences)
    return Extension(parts, tuple(fresh), tuple(differences), others)


def _latest(store: ArtifactStore, name: str, inputs: Mapping[str, Any]) -> Artifact | None:
    published = store.list("corpus", name)
    for artifact in reversed(published):
        if not differing(artifact.manifest.inputs, inputs):
            return artifact
    if not published:
        return None
    raise ConfigError(_refusal(published[-1], differing(published[-1].manifest.inputs, inputs)))


def _named(store: ArtifactStore, extends: str, inputs: Mapping[str, Any]) -> Artifact:
    try:
        artifact = store.open(extends, kind="corpus")
    except ArtifactError as error:
        raise ArtifactError(f"corpus.extends: {error.message}; or set it to {LATEST!r}") from None
    if artifact.root_uri != store.root_uri:
        raise ArtifactError(
            f"corpus.extends: {extends} lies outside storage.root ({store.root_uri}); copy its folder and "
            "those of its parents there, so that the root stays whole"
        )
    if changes := differing(artifact.manifest.inputs, inputs):
        raise ConfigError(_refusal(artifact, changes))
    return artifact


def _refusal(artifact: Artifact, changes: Sequence[InputChange]) -> str:
    shown = [str(change) for change in changes if not _SET_KEY.match(change.key)]
    sets = {match[1] for change in changes if (match := _SET_KEY.match(change.key))}
    shown += [
        f"corpus.decontaminate.sets.{index}: another evaluation set, or with other content"
        for index in sorted(sets)
    ]
    return (
        f"corpus.extends: {artifact.uri} was built with other settings (there -> here: "
        + "; ".join(shown)
        + "), and parts of one corpus share them; restore them, or set corpus.extends to null to build the "
        "whole corpus anew"
    )


def differing(old: Mapping[str, Any], new: Mapping[str, Any]) -> list[InputChange]:
    """Return the settings in which two corpora differ; which papers they read does not count.

    A source that only one of them has is no difference: its papers arrive, or stay. A new rendering style is
    one, since the tokenizer of the first part lacks its markers.
    """
    before, after = _settings(old), _settings(new)
    sources_before, sources_after = _sources(old), _sources(new)
    for name in sources_before.keys() & sources_after.keys():
        before |= {f"corpus.sources[{name}].{key}": value for key, value in sources_before[name].items()}
        after |= {f"corpus.sources[{name}].{key}": value for key, value in sources_after[name].items()}
    styles = {settings["style"] for settings in sources_before.values()}
    for name in sources_after.keys() - sources_before.keys():
        if sources_after[name]["style"] not in styles:
            before[f"corpus.sources[{name}].style"] = " or ".join(sorted(styles))
            after[f"corpus.sources[{name}].style"] = sources_after[name]["style"]
    changes = []
    for key in sorted(before.keys() | after.keys()):
        if key not in before:
            changes.append(InputChange(key, None, after[key], "added"))
        elif key not in after:
            changes.append(InputChange(key, before[key], None, "removed"))
        elif before[key] != after[key]:
            changes.append(InputChange(key, before[key], after[key], "changed"))
    return changes


def _settings(inputs: Mapping[str, Any]) -> dict[str, Any]:
    return {
        key: value
        for key, value in inputs.items()
        if not _SOURCE_KEY.fullmatch(key) and not key.startswith("parents.")
    }


def _sources(inputs: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """Return the settings of each source by its name; a new name has no settings to differ in."""
    by_index: dict[str, dict[str, Any]] = {}
    for key, value in inputs.items():
        if (match := _SOURCE_KEY.fullmatch(key)) and match[2] not in _ARRIVING:
            by_index.setdefault(match[1], {})[match[2]] = value
    return {settings["name"]: settings for settings in by_index.values()}


def _known_objects(parts: Sequence[Artifact], storage: Storage) -> pa.Table:
    """Return the objects that all parts read, each key with its newest state."""
    columns = ["place", "source", "key", "size_bytes", "etag"]
    tables = [read_parquet(storage, part.uri_of("objects.parquet"), columns) for part in parts]
    known = pa.concat_tables(tables)
    if len(parts) == 1:
        return known
    newest = known.group_by(["source", "key"]).aggregate([("place", "max")]).column("place_max")
    return known.filter(pc.is_in(known.column("place"), newest.combine_chunks()))
