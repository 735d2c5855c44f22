"""The recipe: one YAML file for a model's whole life, composed from the sections' own config classes.

Values come from four places, the later winning: defaults, the file, ``BALTORO__SECTION__KEY`` environment
variables, ``section.key=value`` on the command line.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from importlib import resources
from itertools import pairwise
from pathlib import Path
from typing import Annotated, Any, Literal, Self
from urllib.parse import quote, urlsplit

from pydantic import Field, model_validator

from baltoro.core.config import (
    StrictModel,
    apply_override,
    decode,
    environment_overrides,
    execution,
    first_repeated,
    load_mapping,
    parse_value,
    result,
    section,
    set_path,
)
from baltoro.core.errors import ConfigError
from baltoro.core.storage import StorageProfile, absolute_uri, is_local
from baltoro.corpus.config import CorpusConfig
from baltoro.data.config import DataConfig, TokenizerConfig
from baltoro.evaluation.config import LongContextConfig
from baltoro.instructions.formats_config import FilesSource, FormatConfig
from baltoro.instructions.reviews.config import ReviewsConfig
from baltoro.instructions.signals.config import SignalsConfig
from baltoro.models.config import (
    AdapterConfig,
    ModelConfig,
    QuantizationConfig,
    ShiftedAttentionConfig,
)
from baltoro.models.import_base import base_kind
from baltoro.models.rope_scaling_config import RopeScalingConfig
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
    instructions: str | None = execution(None, "URI of an instruction set artifact")
    pretrain: str | None = execution(None, "URI of a run artifact, whose exported model is fine-tuned")


class DataTrainConfig(TrainConfig):
    """A training run together with how its rows are made."""

    data: DataConfig = section(DataConfig, "how documents become sequences")


class PretrainConfig(DataTrainConfig):
    """Continued pretraining on the corpus."""


class InstructionsConfig(StrictModel):
    """Instruction data: what is made of papers, knowledge and reviews, and what is there already."""

    signals: SignalsConfig | None = section(
        lambda: None, "examples restructured from the corpus' papers and from knowledge files"
    )
    reviews: ReviewsConfig | None = section(lambda: None, "peer reviews merged into one example per paper")
    files: tuple[FilesSource, ...] = section(tuple, "instruction data in files, as it is")
    decisions: str | None = execution(
        None,
        "URI of a filled-in review sheet (CSV); its content counts as an input. `baltoro instructions "
        "review-sheet` writes one",
        min_length=1,
    )
    validation_fraction: float = result(
        0.02,
        "part of the papers, concepts and files' examples held out; one rule for all parts, so that a paper "
        "stands on one side",
        ge=0,
        lt=0.5,
    )
    seed: int = result(0, "another seed draws another hold-out", ge=0)

    @model_validator(mode="after")
    def _file_names_are_unique(self) -> Self:
        if (twice := first_repeated(file.name for file in self.files)) is not None:
            raise ValueError(
                f"files: the name {twice!r} stands twice; a name is part of every example's id, so give each "
                "file its own"
            )
        return self

    @property
    def parts(self) -> tuple[str, ...]:
        """What there is to train on."""
        return tuple(name for name in ("signals", "reviews", "files") if getattr(self, name))


FinetuneSource = Annotated[
    str,
    Field(
        pattern=r"^(corpus|instructions|instructions\.(signals|reviews|files(\.[A-Za-z0-9][A-Za-z0-9_.-]*)?))$"
    ),
]
"""A part of the instruction set, one of its files by name, all of it, or the corpus."""


class FinetuneDataConfig(DataConfig):
    """Which examples or documents a stage trains on, and how they become rows."""

    sources: tuple[FinetuneSource, ...] = result(
        ("instructions",),
        "instructions (all of them) or some of instructions.signals, instructions.reviews, "
        "instructions.files and instructions.files.NAME; or corpus alone, for longer contexts",
        alias="from",
        min_length=1,
    )
    format: FormatConfig = section(FormatConfig, "how an example is written for the model")

    @property
    def of_corpus(self) -> bool:
        """Whether rows are made of the corpus' documents."""
        return self.sources == ("corpus",)

    @model_validator(mode="after")
    def _documents_or_examples(self) -> Self:
        if "corpus" in self.sources and not self.of_corpus:
            raise ValueError(
                f"from={list(self.sources)}: rows are made either of documents or of examples; give the "
                "corpus a stage of its own"
            )
        return self


Method = Literal["full", "lora", "qlora", "longqlora"]


class FinetuneStageConfig(DataTrainConfig):
    """One stage of fine-tuning; stages run in order, each from where the one before ended."""

    name: str = execution(..., "name of the stage", pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]*$")
    method: Method = result(
        "lora",
        "full trains everything; lora an adapter; qlora an adapter on a base in four bits; longqlora the "
        "same with shifted sparse attention",
    )
    data: FinetuneDataConfig = section(FinetuneDataConfig, "what it trains on")
    adapter: AdapterConfig = section(AdapterConfig, "the adapter, for all methods but full")
    quantization: QuantizationConfig = section(QuantizationConfig, "the base's four bits")
    rope_scaling: RopeScalingConfig | None = section(
        lambda: None, "longer positions from this stage on; null keeps those of the stage before"
    )
    start: Literal["carried", "merged"] = result(
        "carried",
        "what becomes of the adapter of the stage before: carried trains it further, merged makes it part of "
        "the base and begins a new one",
    )

    @property
    def has_adapter(self) -> bool:
        """Whether the base stays frozen."""
        return self.method != "full"

    @property
    def quantized(self) -> bool:
        """Whether the base is in four bits."""
        return self.method in ("qlora", "longqlora")

    def settled(self) -> FinetuneStageConfig:
        """Return the same with what its method implies written out."""
        if self.method != "longqlora" or self.shifted_sparse_attention is not None:
            return self
        return self.model_copy(update={"shifted_sparse_attention": ShiftedAttentionConfig()})


def _base_rounding(stage: FinetuneStageConfig) -> str:
    """Return how a stage's base is kept, for people; adapters go on only where it stays so."""
    if not stage.quantized:
        return "in full precision"
    return f"in four bits with quantization.double={str(stage.quantization.double).lower()}"


class FinetuneConfig(StrictModel):
    """Fine-tuning in stages: the general first, the expert second."""

    base: Literal["pretrain", "model"] = result(
        "pretrain", "what the first stage starts from: the recipe's pretrained model, or model.base as it is"
    )
    stages: tuple[FinetuneStageConfig, ...] = section(tuple, "in order; none leaves fine-tuning out")

    @model_validator(mode="after")
    def _stage_names_are_unique(self) -> Self:
        if (twice := first_repeated(stage.name for stage in self.stages)) is not None:
            raise ValueError(f"stages: the name {twice!r} stands twice; give each stage its own")
        return self

    @model_validator(mode="after")
    def _carried_adapters_fit(self) -> Self:
        for before, stage in pairwise(self.stages):
            if not (before.has_adapter and stage.has_adapter and stage.start == "carried"):
                continue
            for what in ("rank", "alpha", "targets", "train"):
                old, new = getattr(before.adapter, what), getattr(stage.adapter, what)
                if old != new:
                    raise ValueError(
                        f"stages: {stage.name} goes on with the adapter of {before.name}, whose {what} is "
                        f"{old}, not {new}; make them the same, or set start=merged"
                    )
            old, new = _base_rounding(before), _base_rounding(stage)
            if old != new:
                raise ValueError(
                    f"stages: {stage.name} goes on with the adapter of {before.name}, whose base is {old}, "
                    f"not {new}, and would go on over other weights; make method and quantization.double the "
                    "same, or set start=merged"
                )
        return self


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
    instructions: InstructionsConfig = section(InstructionsConfig, "instruction data")
    finetune: FinetuneConfig = section(FinetuneConfig, "fine-tuning")
    evaluation: LongContextConfig | None = section(
        lambda: None, "what the model is measured by; null leaves evaluation out"
    )

    @property
    def pretrains(self) -> bool:
        """Whether the recipe's model is pretrained on its corpus."""
        return self.finetune.base == "pretrain" or not self.finetune.stages

    @property
    def needs_corpus(self) -> bool:
        """Whether any stage reads the corpus' papers."""
        pins = self.pins
        return (
            (self.pretrains and pins.pretrain is None and pins.tokens is None)
            or (self.tokenizer.origin != "base" and pins.tokenizer is None)
            or any(stage.data.of_corpus for stage in self.finetune.stages)
        )

    @model_validator(mode="after")
    def _examples_are_made(self) -> Self:
        for index, stage in enumerate(self.finetune.stages):
            for source in stage.data.sources:
                part = source.removeprefix("instructions").removeprefix(".")
                known = {
                    *self.instructions.parts,
                    *(f"files.{file.name}" for file in self.instructions.files),
                }
                there = part in known if part else bool(known)
                if source != "corpus" and not there:
                    raise ValueError(
                        f"finetune.stages.{index}.data.from: {source} is not made by this recipe; fill in "
                        f"{source if part else 'instructions.signals, .reviews or .files'}"
                    )
        return self

    @model_validator(mode="after")
    def _signals_have_papers(self) -> Self:
        signals = self.instructions.signals
        if signals is not None and not self.corpus.sources and not signals.knowledge:
            raise ValueError(
                "instructions.signals: there is nothing to make them of; name papers under corpus.sources, "
                "or files under instructions.signals.knowledge"
            )
        return self

    @model_validator(mode="after")
    def _corpus_has_sources(self) -> Self:
        if not self.corpus.sources and self.pins.corpus is None and self.needs_corpus:
            raise ValueError(
                "corpus.sources is empty and pins.corpus is not set; name at least one source of papers, or "
                "the URI of a corpus artifact, or pin what is made of one (pins.tokenizer with pins.pretrain "
                "or pins.tokens)"
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
    instructions = _absolute_instructions(recipe.instructions, base)
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
            "instructions": instructions,
            "tracking": recipe.tracking.model_copy(update={"uri": tracking_uri}),
            "model": recipe.model.model_copy(update={"base": absolute_base(recipe.model.base, base)}),
        }
    )


def _absolute_instructions(config: InstructionsConfig, base: Path) -> InstructionsConfig:
    """Return the section with every path made absolute."""

    def moved(model: Any, *names: str) -> Any:
        if model is None:
            return None
        given = {name: uri for name in names if (uri := getattr(model, name)) is not None}
        return model.model_copy(update={name: resolve_uri(uri, base) for name, uri in given.items()})

    signals, reviews = moved(config.signals, "templates"), moved(config.reviews, "papers", "reviews")
    if signals is not None:
        knowledge = tuple(moved(source, "uri") for source in signals.knowledge)
        signals = signals.model_copy(update={"knowledge": knowledge})
    if reviews is not None:
        metadata = moved(reviews.papers_metadata, "uri")
        reviews = reviews.model_copy(update={"papers_metadata": metadata})
    files = tuple(moved(source, "uri") for source in config.files)
    absolute: InstructionsConfig = moved(config, "decisions")
    return absolute.model_copy(update={"signals": signals, "reviews": reviews, "files": files})


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
