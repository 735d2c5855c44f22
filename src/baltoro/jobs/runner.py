"""Plan a recipe's stages (done, new, stale, and why), then build what is missing, in order.

A plan is made without a cluster: each stage's fingerprint follows from the recipe, the listing of the
sources and the fingerprints of its parents.
"""

from __future__ import annotations

import contextlib
import logging
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from baltoro.core.artifacts import Artifact, InputChange, fingerprint_of
from baltoro.core.config import dump_yaml
from baltoro.core.errors import ArtifactError, BaltoroError, ConfigError
from baltoro.core.provenance import Provenance, collect_provenance
from baltoro.core.storage import join
from baltoro.jobs.cluster import connected, given_address, local_cpus
from baltoro.jobs.corpus import CORPUS
from baltoro.jobs.evaluate import evaluation_stage, has_documents
from baltoro.jobs.extend import BASE, Extension, part_chain
from baltoro.jobs.finetune import finetune_stage, finetune_stage_name
from baltoro.jobs.instruction_tokens import rows_stage
from baltoro.jobs.instructions import INSTRUCTIONS, instructions_parents
from baltoro.jobs.model import MODEL, base_config, is_preset
from baltoro.jobs.pretrain import PRETRAIN
from baltoro.jobs.recipe import Recipe
from baltoro.jobs.stages import Context, Stage
from baltoro.jobs.summary import closing_lines
from baltoro.jobs.tokenizer import TOKENIZER
from baltoro.jobs.tokens import TOKENS
from baltoro.models.load import refuse_long_context
from baltoro.models.rope_scaling import scale_rope
from baltoro.tracking.mlflow import StageRun, Tracker

logger = logging.getLogger(__name__)

STAGES: tuple[Stage, ...] = (MODEL, CORPUS, TOKENIZER, TOKENS, PRETRAIN, INSTRUCTIONS)
"""The stages that a recipe has at most once, parents first; those of fine-tuning follow."""

Status = Literal["done", "new", "stale", "pinned"]


@dataclass(frozen=True, slots=True)
class PlannedStage:
    """One stage of a plan.

    Attributes:
        stage: what is built.
        status: whether it is there already.
        fingerprint: of the artifact.
        inputs: what the fingerprint is made of.
        parents: by role, the key of the planned stage that gives the parent.
        artifact: what is there already.
        changes: the keys that differ from the latest artifact of the name: what made a stage stale.
        given: by role, parents that no stage of the plan gives.
        part: which earlier part of an extended corpus it is for, from 1; 0 if for the recipe's own.
    """

    stage: Stage
    status: Status
    fingerprint: str
    inputs: Mapping[str, Any]
    parents: Mapping[str, str]
    artifact: Artifact | None
    changes: tuple[InputChange, ...] = ()
    given: Mapping[str, Artifact] = field(default_factory=dict)
    part: int = 0

    @property
    def key(self) -> str:
        """Its name in the plan."""
        return f"{self.stage.name}, part {self.part}" if self.part else self.stage.name


def active_stages(recipe: Recipe) -> tuple[Stage, ...]:
    """Return the stages a recipe has: one that starts from a preset has no model stage, and so on."""
    absent = {
        MODEL: is_preset(recipe.model.base),
        CORPUS: not has_documents(recipe),
        TOKENS: not recipe.pretrains,
        PRETRAIN: not recipe.pretrains,
        INSTRUCTIONS: not recipe.instructions.parts and recipe.pins.instructions is None,
    }
    once = [stage for stage in STAGES if not absent.get(stage, False)]
    tuned = [
        made
        for index in range(len(recipe.finetune.stages))
        for made in (rows_stage(recipe, index), finetune_stage(recipe, index))
    ]
    measured = [evaluation_stage(recipe)] if recipe.evaluation is not None else []
    return (*once, *tuned, *measured)


def last_stage(recipe: Recipe) -> str:
    """Return the name of the stage that a recipe ends with."""
    stages = recipe.finetune.stages
    if recipe.evaluation is not None:
        return "evaluate"
    return finetune_stage_name(stages[-1]) if stages else PRETRAIN.name


def trains(stage: Stage) -> bool:
    """Return whether a stage runs training workers."""
    return stage.kind == "run"


def parents_of(stage: Stage, recipe: Recipe) -> tuple[str, ...]:
    """Return the names of the stages whose artifacts a stage reads under this recipe."""
    names = stage.parents
    if stage is TOKENIZER:
        names = ("model",) if recipe.tokenizer.origin == "base" else ("corpus",)
    if stage is INSTRUCTIONS:
        names = instructions_parents(recipe)
    return tuple(name for name in names if name != "model" or not is_preset(recipe.model.base))


def needed_stages(recipe: Recipe, target: str) -> tuple[Stage, ...]:
    """Return the target and everything it needs, parents first.

    Raises:
        ConfigError: the recipe has no such stage.
    """
    by_name = {stage.name: stage for stage in active_stages(recipe)}
    if target == "evaluate" and recipe.evaluation is None:
        raise ConfigError(
            "evaluation is null: this recipe measures nothing; set evaluation.tasks, for example "
            "evaluation.tasks=[perplexity,passkey] (`baltoro config show RECIPE` lists the settings)"
        )
    if target not in by_name:
        raise ConfigError(f"this recipe has no stage {target!r}; it has {', '.join(by_name)}")
    wanted: set[str] = set()

    def collect(name: str) -> None:
        if name in wanted:
            return
        wanted.add(name)
        if getattr(recipe.pins, name, None) is None:
            for parent in parents_of(by_name[name], recipe):
                collect(parent)

    collect(target)
    return tuple(stage for stage in active_stages(recipe) if stage.name in wanted)


def plan(context: Context, target: str) -> list[PlannedStage]:
    """Say of each needed stage whether it is done, new or stale, and what made it so.

    Raises:
        ArtifactError: a pin names nothing, another kind, another root, or does not fit another stage.
        BaltoroError: whatever a stage refuses of its inputs.
    """
    if given_address(context.recipe) is None:
        local_cpus(
            context.recipe, training=any(trains(stage) for stage in needed_stages(context.recipe, target))
        )
    planned: dict[str, PlannedStage] = {}
    for stage in needed_stages(context.recipe, target):
        pin = getattr(context.recipe.pins, stage.name, None)
        if pin is not None:
            pinned = open_pin(context, stage, pin)
            planned[stage.name] = PlannedStage(stage, "pinned", pinned.fingerprint, {}, {}, pinned)
            continue
        parents = {name: name for name in parents_of(stage, context.recipe)}
        given: dict[str, Artifact] = {}
        earlier = earlier_parts(context, planned)
        if stage is CORPUS and context.extension is not None:
            if context.extension.nothing_new:
                planned[stage.name] = _nothing_new(context.extension)
                continue
            given[BASE] = context.extension.base
        elif stage is TOKENIZER and "corpus" in parents and earlier:
            # The tokenizer of the first part: another one would change every sequence there is.
            del parents["corpus"]
            given["corpus"] = earlier[0]
        elif stage is TOKENS:
            for number, part in enumerate(earlier, 1):
                without = {role: key for role, key in parents.items() if role != "corpus"}
                entry = _plan_stage(context, stage, without, {"corpus": part}, planned, number)
                planned[entry.key] = entry
                parents[BASE] = entry.key
        planned[stage.name] = _plan_stage(context, stage, parents, given, planned)
    refuse_other_tokenizer(planned)
    refuse_longer_sequences(context, planned)
    return list(planned.values())


def _plan_stage(  # noqa: PLR0917  (the parts of one entry)
    context: Context,
    stage: Stage,
    parents: Mapping[str, str],
    given: Mapping[str, Artifact],
    planned: Mapping[str, PlannedStage],
    part: int = 0,
) -> PlannedStage:
    """Say whether a stage with these parents is done, new or stale."""
    fingerprints = {role: planned[key].fingerprint for role, key in parents.items()}
    fingerprints |= {role: artifact.fingerprint for role, artifact in given.items()}
    inputs = {
        **stage.inputs(context),
        "stage.version": stage.version,
        **{f"parents.{role}": fingerprint for role, fingerprint in fingerprints.items()},
    }
    fingerprint = fingerprint_of(inputs)
    name = stage.artifact_name(context)
    artifact: Artifact | None = context.store.find(stage.kind, name, fingerprint)
    changes: tuple[InputChange, ...] = ()
    status: Status = "done"
    if artifact is None:
        if stage.check is not None:
            stage.check(context)
        changes = context.store.explain_stale(stage.kind, name, inputs)
        status = "stale" if changes else "new"
    else:
        context.store.check_files(artifact)
    return PlannedStage(stage, status, fingerprint, inputs, parents, artifact, changes, given, part)


def earlier_parts(context: Context, planned: Mapping[str, PlannedStage]) -> tuple[Artifact, ...]:
    """Return the parts before the one that the recipe's corpus stage gives, the first one first."""
    corpus = planned.get("corpus")
    if corpus is None:
        return ()
    if corpus.artifact is not None:
        return part_chain(context.store, corpus.artifact)[:-1]
    return context.extension.parts if context.extension is not None else ()


def _nothing_new(extension: Extension) -> PlannedStage:
    """Return the corpus stage of a recipe whose papers are all there already."""
    base = extension.base
    return PlannedStage(CORPUS, "done", base.fingerprint, base.manifest.inputs, {}, base)


def open_pin(context: Context, stage: Stage, pin: str) -> Artifact:
    """Return the artifact that a recipe pins for a stage.

    Raises:
        ArtifactError: it does not exist, or is of another kind or under another root.
    """
    try:
        artifact = context.store.open(pin, kind=stage.kind)
    except ArtifactError as error:
        raise ArtifactError(f"pins.{stage.name}: {error.message}") from None
    if artifact.root_uri != context.store.root_uri:
        raise ArtifactError(
            f"pins.{stage.name}: {pin} lies outside storage.root ({context.store.root_uri}); copy its folder "
            "and those of its parents there, so that the root stays whole, and pin the copy"
        )
    return artifact


def refuse_other_tokenizer(planned: Mapping[str, PlannedStage]) -> None:
    """Refuse to train on pinned tokens with a tokenizer that did not make them.

    Raises:
        ArtifactError: with the pin that mends it.
    """
    tokens, tokenizer = planned.get("tokens"), planned.get("tokenizer")
    if tokens is None or tokens.status != "pinned" or tokens.artifact is None or tokenizer is None:
        return
    made_with = tokens.artifact.manifest.parents["tokenizer"]
    if made_with.rpartition("/")[2] != tokenizer.fingerprint:
        raise ArtifactError(
            f"pins.tokens: {tokens.artifact.uri} was made with the tokenizer {made_with}, this recipe has "
            f"{tokenizer.fingerprint}; set pins.tokenizer={join(tokens.artifact.root_uri, made_with)}"
        )


def refuse_longer_sequences(context: Context, planned: Mapping[str, PlannedStage]) -> None:
    """Refuse rows longer than the base model reads, before a corpus is built for them.

    Raises:
        ConfigError: with the length it reads.
    """
    config = base_config(context) if "model" in planned and "tokens" in planned else None
    if config is None:
        return
    recipe = context.recipe
    if recipe.model.rope_scaling is not None:
        config = scale_rope(config, recipe.model.rope_scaling, base=recipe.model.base)
    refuse_long_context(config, recipe.pretrain.data.sequence_length, recipe.model.base)


def describe_plan(planned: Sequence[PlannedStage]) -> str:
    """Return the plan for people: one line a stage, and under a stale one the keys that made it so."""
    width = max(10, *(len(entry.key) for entry in planned))
    lines = []
    for entry in planned:
        lines.append(f"{entry.key:<{width}} {entry.status:<7} {entry.fingerprint}")
        lines.extend(f"{'':{width}}   {change}" for change in entry.changes)
    return "\n".join(lines)


def execute(
    recipe: Recipe,
    target: str,
    *,
    build_parents: bool = True,
    say: Callable[[str], None] = logger.info,
) -> dict[str, dict[str, Any]]:
    """Build a stage and whatever it needs; return each stage's summary (what ``--json`` prints).

    Args:
        recipe: a loaded recipe.
        target: name of the last stage to build.
        build_parents: refuse, instead of building, when a parent is missing.
        say: called with one line per stage for people.

    Raises:
        ConfigError: a parent is missing and ``build_parents`` is off.
        BaltoroError: whatever a stage refuses.
    """
    context = Context(recipe)
    context.storage.probe(recipe.storage.root)
    planned = plan(context, target)
    missing = [entry for entry in planned if entry.artifact is None]
    refused = [entry.stage.name for entry in missing if entry.stage.name != target]
    if refused and not build_parents:
        raise ConfigError(
            f"{target} needs {', '.join(refused)}, not built yet; run `baltoro run` or leave out --no-parents"
        )
    tracker = make_tracker(recipe)
    tracker.prepare()
    artifacts: dict[str, Artifact] = {}
    summaries: dict[str, dict[str, Any]] = {}
    with contextlib.ExitStack() as stack:
        if any(entry.stage.needs_ray for entry in missing):
            training = any(trains(entry.stage) for entry in missing)
            stack.enter_context(connected(recipe, training=training))
        recipe_run = None
        if missing:
            tags = {"baltoro.recipe": recipe.name, **provenance_tags(collect_provenance())}
            recipe_run = stack.enter_context(tracker.run(recipe.name, tags=tags))
            recipe_run.log_bytes(dump_yaml(recipe).encode(), "recipe.yaml")
        for entry in planned:
            name = entry.key
            if entry.artifact is None:
                assert recipe_run is not None
                artifacts[name], added = build_stage(context, entry, artifacts, tracker, recipe_run, say=say)
            else:
                say(f"{name}: {entry.status} ({entry.fingerprint})")
                artifacts[name] = entry.artifact
                finish = entry.stage.finish
                added = finish(context, entry.artifact, tracker, None) if finish is not None else {}
            if not entry.part:
                summaries[name] = {**stage_summary(artifacts[name]), **added}
        if recipe_run is not None:
            # What MLflow shows as the run's description, first thing on its page.
            note = closing_lines(recipe, summaries, None if len(summaries) > 1 else target)
            recipe_run.set_tags({"mlflow.note.content": f"```\n{note}\n```"})
    return summaries


def stage_summary(artifact: Artifact) -> dict[str, Any]:
    """Return what a finished stage tells: its artifact's URI and the figures its manifest keeps."""
    return {"artifact": artifact.uri, **artifact.manifest.extra.get("summary", {})}


def make_tracker(recipe: Recipe) -> Tracker:
    """Return the recipe's tracker."""
    assert recipe.tracking.uri is not None, "load_recipe resolves tracking.uri"
    return Tracker(recipe.tracking.uri, recipe.experiment)


def provenance_tags(provenance: Provenance) -> dict[str, str]:
    """Return who and what makes a run, as MLflow tags."""
    return {
        f"baltoro.{key}": str(value) for key, value in provenance.model_dump().items() if value is not None
    }


@contextlib.contextmanager
def _stage_run(
    tracker: Tracker, entry: PlannedStage, recipe: Recipe, recipe_run: StageRun
) -> Iterator[StageRun]:
    tags = {
        "baltoro.stage": entry.stage.name,
        "baltoro.fingerprint": entry.fingerprint,
        **provenance_tags(collect_provenance()),
    }
    with tracker.run(f"{recipe.name}-{entry.stage.name}", parent_run_id=recipe_run.run_id, tags=tags) as run:
        run.log_params(entry.inputs)
        run.log_bytes(dump_yaml(recipe).encode(), "recipe.yaml")
        yield run


def build_stage(
    context: Context,
    entry: PlannedStage,
    artifacts: Mapping[str, Artifact],
    tracker: Tracker,
    recipe_run: StageRun,
    *,
    say: Callable[[str], None],
) -> tuple[Artifact, dict[str, Any]]:
    """Build and publish one stage inside its own MLflow run; return its artifact and what finishing adds."""
    stage, recipe = entry.stage, context.recipe
    started = time.monotonic()
    label = entry.key
    say(f"{label}: building {entry.fingerprint}")
    with _stage_run(tracker, entry, recipe, recipe_run) as run:
        parents = {role: artifacts[key] for role, key in entry.parents.items()} | dict(entry.given)
        for role, parent in parents.items():
            run.log_dataset(role, parent.uri, parent.fingerprint, "training", dict(parent.manifest.counts))
        writer = context.store.begin(stage.kind, stage.artifact_name(context), entry.fingerprint)
        try:
            output = stage.build(context, parents, writer, run)
            artifact = writer.publish(
                inputs=dict(entry.inputs),
                stage_version=stage.version,
                parents=parents,
                counts=dict(output.counts),
                extra={**output.extra, "summary": dict(output.summary)},
                made_by=collect_provenance(),
            )
        except BaseException as error:
            writer.abandon()
            # Another command may have published it meanwhile, and removed what both were working on.
            published = context.store.find(stage.kind, writer.name, entry.fingerprint)
            if published is None or not isinstance(error, BaltoroError):
                raise
            artifact = published
        run.set_tags({"baltoro.artifact": artifact.uri})
        added = stage.finish(context, artifact, tracker, run) if stage.finish is not None else {}
    say(f"{label}: done in {time.monotonic() - started:.0f} s ({artifact.uri})")
    return artifact, added
