"""What a stage is: what it reads, what identifies it, what builds it.

A stage's identity is its result fields, its version, the fingerprints of its parents and the digests of
what it reads from outside. That alone decides where its artifact stands, so a plan needs no cluster.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

from baltoro.core.artifacts import Artifact, ArtifactStore, ArtifactWriter
from baltoro.core.storage import Storage, join
from baltoro.corpus.listing import SourceListing, list_sources, sample_listings
from baltoro.corpus.work import STAGING
from baltoro.jobs.extend import CORPUS_VERSION, Extension, corpus_settings, extend
from baltoro.jobs.recipe import Recipe
from baltoro.tracking.mlflow import StageRun, Tracker


@dataclass
class Context:
    """What every stage of one command shares."""

    recipe: Recipe

    @cached_property
    def storage(self) -> Storage:
        """Opens every URI of the recipe."""
        return Storage(self.recipe.storage.profiles)

    @cached_property
    def store(self) -> ArtifactStore:
        """The artifacts under ``storage.root``."""
        return ArtifactStore(self.storage, self.recipe.storage.root)

    @cached_property
    def whole_listings(self) -> list[SourceListing]:
        """All files of the recipe's sources, listed once per command."""
        return list_sources(self.recipe.corpus, self.storage, self.recipe.storage.root)

    @cached_property
    def extension(self) -> Extension | None:
        """What the recipe adds to the corpus that it extends, if it extends one."""
        if self.recipe.corpus.extends is None:
            return None
        return extend(
            extends=self.recipe.corpus.extends,
            store=self.store,
            storage=self.storage,
            name=self.recipe.name,
            inputs={**corpus_settings(self.recipe.corpus, self.storage), "stage.version": CORPUS_VERSION},
            listings=self.whole_listings,
        )

    @cached_property
    def listings(self) -> list[SourceListing]:
        """The files that are read: all, those that a corpus lacks, or the part that a trial chooses."""
        if self.extension is not None:
            return list(self.extension.listings)
        return sample_listings(self.whole_listings, self.recipe.corpus.trial)


@dataclass(frozen=True, slots=True)
class StageOutput:
    """What a build hands to publishing.

    ``counts`` and ``extra`` go into the manifest; ``summary`` is what ``--json`` prints for the stage
    (without the artifact's URI) and is kept in the manifest, so that a stage already done prints it too.
    """

    counts: Mapping[str, int]
    summary: Mapping[str, Any]
    extra: Mapping[str, Any] = field(default_factory=dict)


def remove_staging(context: Context, artifact: Artifact) -> None:
    """Remove what the passes of a build handed to each other; the artifact is published."""
    context.storage.delete_folder(join(artifact.uri, artifact.manifest.writer, STAGING))


def _recipe_name(context: Context) -> str:
    return context.recipe.name


Build = Callable[[Context, Mapping[str, Artifact], ArtifactWriter, StageRun], StageOutput]

Finish = Callable[[Context, Artifact, Tracker, StageRun | None], dict[str, Any]]


@dataclass(frozen=True, slots=True)
class Stage:
    """One step of a recipe.

    ``inputs`` returns the flat ``{key: JSON value}`` that, with version and parents, is fingerprinted.
    ``version`` is raised when the same inputs would give other output, never for a refactoring.
    ``finish`` is what must hold beside the artifact (a registered model), done again for a stage that is
    already built; what it returns is added to the stage's summary. ``check`` refuses, before anything is
    built, what the build would refuse of its input.
    """

    name: str
    kind: str
    version: int
    parents: tuple[str, ...]
    inputs: Callable[[Context], dict[str, Any]]
    build: Build
    needs_ray: bool = True
    artifact_name: Callable[[Context], str] = _recipe_name
    finish: Finish | None = None
    check: Callable[[Context], object] | None = None
