"""The finetune stages: rows of examples or documents and a trained model → an adapter or another model.

Stages run in the order of the recipe. Each starts from where the one before ended: from its whole model, or
from the same base with its adapter, trained further or made part of the base. The last stage also writes the
whole model with everything in it, and registers that.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

from baltoro.core.artifacts import Artifact, ArtifactWriter
from baltoro.core.config import result_fields
from baltoro.core.errors import ArtifactError, ConfigError
from baltoro.core.storage import join
from baltoro.instructions.reviews.service import SERVICE_FILE, service_file
from baltoro.jobs.merge import MERGED_FOLDER, write_merged
from baltoro.jobs.model import base_config, base_lacks_chat_template, is_preset
from baltoro.jobs.pretrain import register_export
from baltoro.jobs.recipe import DataTrainConfig, FinetuneStageConfig, Recipe
from baltoro.jobs.review import taught_to_review
from baltoro.jobs.stages import Context, Stage, StageOutput
from baltoro.jobs.training.preflight import Training, check_model, check_settings
from baltoro.jobs.training.stage import StartingPoint, build_run
from baltoro.jobs.training.workers import RemoteFolder, base_folder, shown_uri
from baltoro.models.adapters import Tuning, refuse_missing_four_bits
from baltoro.models.presets import preset_config
from baltoro.models.rope_scaling import scale_rope
from baltoro.models.rope_scaling_config import RopeScalingConfig
from baltoro.tracking.mlflow import StageRun, Tracker


def tokens_stage_name(stage: FinetuneStageConfig) -> str:
    """Return the name of the stage that makes a finetune stage's rows."""
    return f"tokens-{stage.name}"


def finetune_stage_name(stage: FinetuneStageConfig) -> str:
    """Return the name of a finetune stage among all stages."""
    return f"finetune-{stage.name}"


@dataclass(frozen=True, slots=True)
class Chain:
    """Which earlier results a stage builds on, by the names of their stages.

    Attributes:
        whole: the run whose exported model is the base; ``None`` if that is ``model.base``.
        merged: runs whose adapters are part of the base, in order.
        carried: the run whose adapter is trained further.
        rope_scaling: that the base's configuration does not have yet.
    """

    whole: str | None
    merged: tuple[str, ...]
    carried: str | None
    rope_scaling: RopeScalingConfig | None

    @property
    def names(self) -> tuple[str, ...]:
        """All of them."""
        own = (self.whole, *self.merged, self.carried)
        return tuple(name for name in own if name is not None)


def chain_of(recipe: Recipe, index: int) -> Chain:
    """Return what the stage of an index builds on."""
    from_pretrain = recipe.finetune.base == "pretrain"
    whole = "pretrain" if from_pretrain else None
    rope_scaling = None if from_pretrain else recipe.model.rope_scaling
    merged: tuple[str, ...] = ()
    carried: str | None = None
    stages = recipe.finetune.stages
    for earlier in stages[:index]:
        rope_scaling = earlier.rope_scaling or rope_scaling
        if not earlier.has_adapter:
            whole, merged, carried, rope_scaling = finetune_stage_name(earlier), (), None, None
            continue
        if carried is not None and earlier.start == "merged":
            merged += (carried,)
        carried = finetune_stage_name(earlier)
    stage = stages[index]
    if carried is not None and (stage.start == "merged" or not stage.has_adapter):
        merged, carried = (*merged, carried), None
    return Chain(whole, merged, carried, stage.rope_scaling or rope_scaling)


def training_of(recipe: Recipe, index: int) -> Training:
    """Return a finetune stage as something that trains."""
    stage, chain = recipe.finetune.stages[index].settled(), chain_of(recipe, index)
    return Training(recipe, stage, f"finetune.stages.{index}", chain.rope_scaling)


def _check_format(context: Context, index: int) -> None:
    """Refuse a chat format whose template is known not to exist."""
    recipe = context.recipe
    data = recipe.finetune.stages[index].data
    if data.format.format != "chat" or data.of_corpus or recipe.pins.tokenizer is not None:
        return
    trained = recipe.tokenizer.origin == "train"
    if trained or base_lacks_chat_template(context):
        which = "trained on the corpus" if trained else f"of {recipe.model.base}"
        raise ConfigError(
            f"finetune.stages.{index}.data.format.format=chat: the tokenizer {which} has no chat template; "
            "use the tokenizer of an instruction-tuned model (tokenizer.from=base), or set another format"
        )


def starting_config(context: Context, index: int) -> Mapping[str, Any] | None:
    """Return the configuration that a stage's model begins with; ``None`` where only staging will tell.

    Positions are those of the last run that trained the whole model; the vocabulary is not the final one.
    """
    recipe = context.recipe
    base = recipe.model.base
    config: Mapping[str, Any] | None = base_config(context)
    if is_preset(base):
        # A preset's rotary positions grow to the rows that it is first trained on.
        first: Sequence[DataTrainConfig] = (
            [recipe.pretrain]
            if recipe.finetune.base == "pretrain"
            else [stage for stage in recipe.finetune.stages[: index + 1] if stage.rope_scaling is None]
        )
        longest = max((training.data.sequence_length for training in first), default=0)
        config = preset_config(base, vocabulary_size=1, sequence_length=longest).to_dict()
    if config is None:
        return None
    scalings = [recipe.model.rope_scaling] if recipe.finetune.base == "pretrain" else []
    scalings += [
        chain_of(recipe, earlier).rope_scaling
        for earlier, stage in enumerate(recipe.finetune.stages[:index])
        if not stage.has_adapter
    ]
    for scaling in scalings:
        config = config if scaling is None else scale_rope(config, scaling, base=base)
    return config


def finetune_inputs(context: Context, index: int) -> dict[str, Any]:
    """Return what identifies a run beyond its rows, tokenizer and what it starts from.

    Raises:
        ConfigError: settings that no dataset would make right; told before anything is built.
        PlatformError: the library for 4-bit weights is not installed.
    """
    recipe = context.recipe
    stage = recipe.finetune.stages[index].settled()
    check_settings(training_of(recipe, index))
    _check_format(context, index)
    if (config := starting_config(context, index)) is not None:
        check_model(training_of(recipe, index), config)
    if stage.quantized:
        refuse_missing_four_bits()
    inputs = result_fields(stage, "finetune.")
    # How rows are made is the token dataset's identity, which is a parent.
    inputs = {key: value for key, value in inputs.items() if not key.startswith("finetune.data.")}
    if not stage.has_adapter:
        inputs = {key: value for key, value in inputs.items() if not key.startswith("finetune.adapter.")}
    if not stage.quantized:
        inputs = {key: value for key, value in inputs.items() if not key.startswith("finetune.quantization.")}
    rope_scaling = chain_of(recipe, index).rope_scaling
    inputs |= {"finetune.rope_scaling": rope_scaling and rope_scaling.model_dump(mode="json")}
    inputs["tokenizer.pad_vocab_to_multiple"] = recipe.tokenizer.pad_vocab_to_multiple
    inputs["last"] = index == len(recipe.finetune.stages) - 1
    if recipe.finetune.base == "model" and is_preset(recipe.model.base):
        inputs |= {"model.preset": recipe.model.base, **result_fields(recipe.model, "model.")}
    return inputs


def build_finetune(
    context: Context, parents: Mapping[str, Artifact], writer: ArtifactWriter, run: StageRun, index: int
) -> StageOutput:
    """Train a stage; after the last one, write the whole model as well.

    Raises:
        ConfigError: batch, length or schedule do not fit the dataset, or the adapter does not fit the model.
        TrainingError: training ran and could not go on; the same command resumes from the last checkpoint.
    """
    recipe = context.recipe
    stage = recipe.finetune.stages[index]
    start = starting_point(context, parents, index)
    roles = {"tokens": parents[tokens_stage_name(stage)], "tokenizer": parents["tokenizer"]}
    output = build_run(context, training_of(recipe, index), roles, start, writer, run)
    if not stage.has_adapter or index != len(recipe.finetune.stages) - 1:
        return output
    export, export_digest = output.extra["export"], output.extra["export_digest"]
    adapter = RemoteFolder(join(writer.artifact_uri, export), export_digest)
    digest = write_merged(context, roles["tokenizer"], start, adapter, training_of(recipe, index), writer)
    merged = {"merged": f"{export}/{MERGED_FOLDER}", "merged_digest": digest}
    return StageOutput(output.counts, output.summary, {**output.extra, **merged})


def starting_point(context: Context, parents: Mapping[str, Artifact], index: int) -> StartingPoint:
    """Return what a stage starts from, as folders of storage."""
    recipe = context.recipe
    stage, chain = recipe.finetune.stages[index], chain_of(recipe, index)
    if chain.whole is None:
        base, folder = recipe.model.base, base_folder(parents.get("model"))
    else:
        folder = exported(parents[chain.whole])
        base = shown_uri(folder.uri)
    taught = taught_to_review(recipe, index)
    tuning = None
    if stage.has_adapter:
        tuning = Tuning(
            stage.adapter, stage.quantization if stage.quantized else None, frozen_dtype=stage.precision
        )
    return StartingPoint(
        base,
        folder,
        merged=tuple(exported(parents[name]) for name in chain.merged),
        tuning=tuning,
        tuning_start=exported(parents[chain.carried]) if chain.carried is not None else None,
        export_files={} if taught is None else {SERVICE_FILE: service_file(taught)},
    )


def exported(run: Artifact) -> RemoteFolder:
    """Return where a run's export is.

    Raises:
        ArtifactError: the artifact is no finished run.
    """
    extra = run.manifest.extra
    if "export" not in extra:
        raise ArtifactError(f"{run.uri}: is no run with an export; pin a run artifact of a training stage")
    return RemoteFolder(join(run.uri, extra["export"]), extra["export_digest"])


def finish_finetune(
    context: Context, artifact: Artifact, tracker: Tracker, run: StageRun | None, index: int
) -> dict[str, Any]:
    """Register the model of the last stage with alias ``candidate``; done once per export."""
    extra = artifact.manifest.extra
    if index != len(context.recipe.finetune.stages) - 1:
        return {"export": join(artifact.uri, extra["export"])}
    if "merged" not in extra:
        return register_export(context, artifact, tracker, run)
    told = register_export(
        context, artifact, tracker, run, export=extra["merged"], digest=extra["merged_digest"]
    )
    return {**told, "adapter": join(artifact.uri, extra["export"])}


def finetune_target(recipe: Recipe, name: str | None) -> str:
    """Return the name of a recipe's finetune stage among all stages: the last one, or that of a name.

    Raises:
        ConfigError: the recipe has no such stage.
    """
    stages = {stage.name: stage for stage in recipe.finetune.stages}
    if not stages:
        raise ConfigError(
            f"finetune.stages is empty: {recipe.name} has nothing to fine-tune; add a stage, or use `baltoro "
            "pretrain`"
        )
    if name is not None and name not in stages:
        raise ConfigError(f"--stage {name}: there is no such stage; this recipe has {', '.join(stages)}")
    return finetune_stage_name(stages[name] if name is not None else recipe.finetune.stages[-1])


def finetune_stage(recipe: Recipe, index: int) -> Stage:
    """Return the stage of an index, for the plan."""
    config = recipe.finetune.stages[index]
    chain = chain_of(recipe, index)
    names = [tokens_stage_name(config), "tokenizer", *chain.names]
    if chain.whole is None and not is_preset(recipe.model.base):
        names.append("model")
    return Stage(
        name=finetune_stage_name(config),
        kind="run",
        version=2,
        parents=tuple(names),
        inputs=partial(finetune_inputs, index=index),
        build=partial(build_finetune, index=index),
        artifact_name=lambda context: f"{context.recipe.name}-{config.name}",
        finish=partial(finish_finetune, index=index),
    )
