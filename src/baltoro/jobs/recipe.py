"""The recipe: one YAML file for a model's whole life, composed from the sections' own config classes.

Values come from four places, the later winning: defaults, the file, ``BALTORO__SECTION__KEY`` environment
variables, ``section.key=value`` on the command line.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from importlib import resources
from pathlib import Path
from typing import Any, Self
from urllib.parse import quote, urlsplit

from pydantic import model_validator

from baltoro.core.config import (
    StrictModel,
    apply_override,
    decode,
    environment_overrides,
    execution,
    load_mapping,
    parse_value,
    section,
    set_path,
)
from baltoro.core.errors import ConfigError
from baltoro.core.storage import StorageProfile, absolute_uri, is_local
from baltoro.corpus.config import CorpusConfig
from baltoro.data.config import DataConfig, TokenizerConfig
from baltoro.models.config import ModelConfig
from baltoro.models.import_base import base_kind
from baltoro.tracking.config import TrackingConfig
from baltoro.train.config import TrainConfig

RECIPE_SUFFIX = ".yaml"


class StorageConfig(StrictModel):
    """Where artifacts are kept, and how other places are reached."""

    root: str = execution("./workspace", "folder or s3:// prefix that holds every artifact", min_length=1)
    profiles: dict[str, StorageProfile] = execution(
        {}, "endpoint, CA bundle and credential profile by URI prefix; the longest prefix wins"
    )
    shared: bool = execution(False, "a local root is a file system that every node mounts")


class ClusterConfig(StrictModel):
    """How many processes train, and on what."""

    address: str | None = execution(
        None, "Ray address; empty takes RAY_ADDRESS, and without it starts a local Ray for the run"
    )
    workers: int = execution(1, "training processes", ge=1)
    min_workers: int | None = execution(
        None,
        "elastic: training goes on with so few processes when there is no room for all of them, with the "
        "same order, batch and learning rate; null waits for all",
        ge=1,
    )
    use_gpu: bool = execution(False, "give each training process one GPU")
    cpus_per_worker: int = execution(1, "logical CPUs reserved for each training process", ge=1)
    local_cpus: int | None = execution(
        None, "logical CPUs of a local Ray; empty takes enough for workers + 2", ge=1
    )

    @property
    def elastic(self) -> bool:
        """Whether the number of training processes may change within a run."""
        return self.min_workers is not None and self.min_workers < self.workers

    @property
    def least_workers(self) -> int:
        """Training processes without which nothing starts."""
        return self.workers if self.min_workers is None else self.min_workers

    @model_validator(mode="after")
    def _least_is_not_most(self) -> Self:
        if self.min_workers is not None and self.min_workers > self.workers:
            raise ValueError(
                f"min_workers={self.min_workers} is more than workers={self.workers}, the most there will "
                "be; lower it, or raise workers"
            )
        return self


class PinsConfig(StrictModel):
    """Artifacts taken as they are, instead of built: an artifact's URI per stage."""

    corpus: str | None = execution(None, "URI of a corpus artifact")
    tokenizer: str | None = execution(None, "URI of a tokenizer artifact")
    tokens: str | None = execution(None, "URI of a token dataset artifact")


class PretrainConfig(TrainConfig):
    """Continued pretraining on the corpus."""

    data: DataConfig = section(DataConfig, "how documents become sequences")


class Recipe(StrictModel):
    """One model's whole life."""

    name: str = execution(
        ...,
        "name of the recipe; first name of its artifacts, experiment and registered model",
        pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]*$",
    )
    storage: StorageConfig = section(StorageConfig, "where artifacts are kept")
    tracking: TrackingConfig = section(TrackingConfig, "MLflow")
    cluster: ClusterConfig = section(ClusterConfig, "Ray")
    pins: PinsConfig = section(PinsConfig, "artifacts used as they are")
    corpus: CorpusConfig = section(CorpusConfig, "papers to documents")
    tokenizer: TokenizerConfig = section(TokenizerConfig, "train a tokenizer, or take the base model's")
    model: ModelConfig = section(ModelConfig, "the model to start from")
    pretrain: PretrainConfig = section(PretrainConfig, "training")

    @model_validator(mode="after")
    def _corpus_has_sources(self) -> Self:
        if not self.corpus.sources and self.pins.corpus is None:
            raise ValueError(
                "corpus.sources is empty and pins.corpus is not set; name at least one source of papers, "
                "or the URI of a corpus artifact"
            )
        return self

    @property
    def experiment(self) -> str:
        """Name of the MLflow experiment."""
        return self.tracking.experiment or self.name

    @property
    def model_name(self) -> str:
        """Name of the registered model."""
        return self.tracking.model_name or self.name


def packaged_recipes() -> dict[str, Path]:
    """Return the recipes that come with Baltoro, by name; they work outside the repository too."""
    folder = packaged_folder("recipes")
    return {path.stem: path for path in sorted(folder.glob(f"*{RECIPE_SUFFIX}"))}


def packaged_folder(relative: str) -> Path:
    """Return a folder or file shipped with the package: inside the wheel, or in the checkout it runs from."""
    inside = Path(str(resources.files("baltoro"))) / relative
    return inside if inside.exists() else Path(__file__).resolve().parents[3] / relative


def find_recipe(recipe: str) -> Path:
    """Return the file of a recipe given by path, or by the name of a packaged one.

    Raises:
        ConfigError: neither exists.
    """
    path = Path(recipe)
    packaged = packaged_recipes()
    # `baltoro init demo` leaves a folder of that name, which must not hide the packaged recipe.
    if recipe in packaged and not path.is_file():
        return packaged[recipe]
    if path.exists():
        return path
    raise ConfigError(
        f"{recipe}: no such recipe file, and no packaged recipe of that name ({', '.join(packaged)}); "
        "`baltoro init DIR` writes one to start from"
    )


def load_recipe(
    recipe: str, overrides: Sequence[str] = (), environment: Mapping[str, str] | None = None
) -> Recipe:
    """Read, override and check a recipe; relative places become absolute.

    Args:
        recipe: path of a YAML file, or the name of a packaged recipe.
        overrides: ``section.key=value`` texts, applied last.
        environment: taken from the process when ``None``.

    Raises:
        ConfigError: anything wrong with the file, the variables or the overrides.
    """
    path = find_recipe(recipe)
    environment = os.environ if environment is None else environment
    data = load_mapping(path)
    given_by: dict[str, str] = {}
    for parts, text, variable in environment_overrides(environment):
        set_path(data, parts, parse_value(text, variable), variable)
        given_by[".".join(parts)] = variable
    for assignment in overrides:
        apply_override(data, assignment)
        given_by[assignment.partition("=")[0]] = "the command line"
    # Relative to the command's folder, not the recipe's: a packaged recipe lies where nobody keeps data.
    return make_absolute(decode(Recipe, data, str(path), given_by), Path.cwd(), environment)


def make_absolute(recipe: Recipe, base: Path, environment: Mapping[str, str]) -> Recipe:
    """Return the recipe with every relative path made absolute, and tracking resolved.

    A job that runs on another machine must not read ``./papers`` there, so this happens where the
    command is given.

    Args:
        recipe: as decoded.
        base: the folder that paths are relative to.
        environment: where MLFLOW_TRACKING_URI is looked up.

    Raises:
        ConfigError: a ``package:`` URI that does not exist, or a password in the tracking URI.
    """
    root = absolute_uri(recipe.storage.root, base)
    storage = recipe.storage.model_copy(update={"root": root})
    sources = tuple(
        source.model_copy(
            update={
                "uri": resolve_uri(source.uri, base),
                "metadata": source.metadata
                and source.metadata.model_copy(update={"uri": resolve_uri(source.metadata.uri, base)}),
            }
        )
        for source in recipe.corpus.sources
    )
    decontaminate = recipe.corpus.decontaminate.model_copy(
        update={
            "sets": tuple(
                evaluation.model_copy(update={"uri": resolve_uri(evaluation.uri, base)})
                for evaluation in recipe.corpus.decontaminate.sets
            )
        }
    )
    pins = recipe.pins.model_copy(
        update={
            name: resolve_uri(uri, base) for name, uri in recipe.pins.model_dump().items() if uri is not None
        }
    )
    tracking_uri = resolve_tracking_uri(recipe, root, base, environment)
    return recipe.model_copy(
        update={
            "storage": storage,
            "corpus": recipe.corpus.model_copy(update={"sources": sources, "decontaminate": decontaminate}),
            "pins": pins,
            "tracking": recipe.tracking.model_copy(update={"uri": tracking_uri}),
            "model": recipe.model.model_copy(update={"base": absolute_base(recipe.model.base, base)}),
        }
    )


PACKAGE_SCHEME = "package:"
_PLAIN_IN_URIS = "/ ~+,;=@()&'!$*"


def resolve_uri(uri: str, base: Path) -> str:
    """Return an absolute URI; ``package:examples/papers`` is a folder that comes with Baltoro.

    Raises:
        ConfigError: the package holds no such folder.
    """
    if uri.startswith(PACKAGE_SCHEME):
        folder = packaged_folder(uri.removeprefix(PACKAGE_SCHEME))
        if not folder.exists():
            raise ConfigError(f"{uri}: Baltoro comes with no such folder; give a path or an s3:// prefix")
        return str(folder)
    return absolute_uri(uri, base)


def absolute_base(base_model: str, base: Path) -> str:
    """Return ``model.base`` with a path or URI made absolute; a preset or hub id stays as it is."""
    if base_kind(base_model) in ("path", "uri"):
        return absolute_uri(base_model, base)
    return base_model


def resolve_tracking_uri(recipe: Recipe, root: str, base: Path, environment: Mapping[str, str]) -> str:
    """Return the tracking URI: the recipe's, else MLFLOW_TRACKING_URI, else SQLite beside the artifacts.

    Raises:
        ConfigError: it carries a password, which would end up in every recipe that is recorded.
    """
    variable = environment.get("MLFLOW_TRACKING_URI")
    uri = recipe.tracking.uri or variable
    if not uri:
        folder = root if is_local(root) else str(base / "workspace")
        # The path of a database URI is percent-decoded.
        return f"sqlite:///{quote(f'{folder}/mlflow.db', safe=_PLAIN_IN_URIS)}"
    if urlsplit(uri).password:
        name = "tracking.uri" if recipe.tracking.uri else "MLFLOW_TRACKING_URI"
        raise ConfigError(
            f"{name}: the URI of {urlsplit(uri).hostname} carries a password, which would be recorded with "
            "every run; take it out and set MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD (or, for "
            "PostgreSQL, PGPASSWORD)"
        )
    if uri.startswith("sqlite:///") and not uri.startswith("sqlite:////"):
        return f"sqlite:///{absolute_uri(uri.removeprefix('sqlite:///'), base)}"
    return uri


def recipe_json_schema() -> dict[str, Any]:
    """Return the JSON schema of a recipe, for editors and checks."""
    schema = Recipe.model_json_schema(by_alias=True)
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", **schema, "title": "Baltoro recipe"}
