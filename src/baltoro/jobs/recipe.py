"""The recipe: one YAML file for a model's whole life, composed from the sections' own config classes.

Values come from four places, the later winning: defaults, the file, ``BALTORO__SECTION__KEY`` environment
variables, ``section.key=value`` on the command line.
"""

from __future__ import annotations

import copy
import os
from collections.abc import Mapping, Sequence
from importlib import resources
from pathlib import Path
from typing import Any, Self

from pydantic import model_validator

from baltoro.core.config import (
    StrictModel,
    apply_override,
    decode,
    environment_overrides,
    execution,
    load_mapping,
    parse_yaml,
    section,
    set_path,
)
from baltoro.core.errors import ConfigError
from baltoro.core.storage import StorageProfile, absolute_uri, is_local
from baltoro.corpus.config import CorpusConfig
from baltoro.data.config import DataConfig, TokenizerConfig
from baltoro.models.config import ModelConfig
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
    use_gpu: bool = execution(False, "give each training process one GPU")
    cpus_per_worker: int = execution(1, "logical CPUs reserved for each training process", ge=1)
    local_cpus: int | None = execution(
        None, "logical CPUs of a local Ray; empty takes enough for workers + 2", ge=1
    )


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
    """Return a folder shipped with the package: inside the wheel, or in the checkout it runs from."""
    inside = Path(str(resources.files("baltoro"))) / relative
    return inside if inside.is_dir() else Path(__file__).resolve().parents[3] / relative


def find_recipe(recipe: str) -> Path:
    """Return the file of a recipe given by path, or by the name of a packaged one.

    Raises:
        ConfigError: neither exists.
    """
    path = Path(recipe)
    if path.exists():
        return path
    packaged = packaged_recipes()
    if recipe in packaged:
        return packaged[recipe]
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
    data = copy.deepcopy(load_mapping(path))
    for parts, text, variable in environment_overrides(environment):
        set_path(data, parts, parse_yaml(text, variable), variable)
    for assignment in overrides:
        apply_override(data, assignment)
    return make_absolute(decode(Recipe, data, str(path)), base=_base_folder(path))


def _base_folder(path: Path) -> Path:
    # A recipe that came with the package lies where nobody keeps data: its paths are relative to the
    # folder the command runs in, except its example papers, which it names by `package:`.
    return Path.cwd()


def make_absolute(recipe: Recipe, base: Path) -> Recipe:
    """Return the recipe with every relative path made absolute, and tracking resolved.

    A job that runs on another machine must not read ``./papers`` there, so this happens where the
    command is given.
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
    pins = recipe.pins.model_copy(
        update={
            name: resolve_uri(uri, base) for name, uri in recipe.pins.model_dump().items() if uri is not None
        }
    )
    tracking = recipe.tracking.model_copy(update={"uri": resolve_tracking_uri(recipe, root, base)})
    return recipe.model_copy(
        update={
            "storage": storage,
            "corpus": recipe.corpus.model_copy(update={"sources": sources}),
            "pins": pins,
            "tracking": tracking,
        }
    )


PACKAGE_SCHEME = "package:"


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


def resolve_tracking_uri(recipe: Recipe, root: str, base: Path) -> str:
    """Return the tracking URI: the recipe's, else MLFLOW_TRACKING_URI, else SQLite beside the artifacts."""
    uri = recipe.tracking.uri or os.environ.get("MLFLOW_TRACKING_URI")
    if uri is None:
        folder = Path(root) if is_local(root) else base / "workspace"
        return f"sqlite:///{folder / 'mlflow.db'}"
    if uri.startswith("sqlite:///") and not uri.startswith("sqlite:////"):
        return f"sqlite:///{(base / uri.removeprefix('sqlite:///')).resolve()}"
    return uri


def recipe_json_schema() -> dict[str, Any]:
    """Return the JSON schema of a recipe, for editors and checks."""
    schema = Recipe.model_json_schema(by_alias=True)
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", "title": "Baltoro recipe", **schema}
