"""The pretrain stage: a token dataset and a base → a trained, exported, registered model."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from baltoro.core.artifacts import Artifact, ArtifactWriter
from baltoro.core.config import result_fields
from baltoro.core.storage import join
from baltoro.jobs.model import is_preset
from baltoro.jobs.stages import Context, Stage, StageOutput
from baltoro.jobs.training.preflight import check_settings, pretraining
from baltoro.jobs.training.stage import StartingPoint, build_run
from baltoro.jobs.training.workers import base_folder
from baltoro.tracking.mlflow import StageRun, Tracker


def pretrain_inputs(context: Context) -> dict[str, Any]:
    """Return what identifies a run beyond its token dataset, tokenizer and base model.

    Raises:
        ConfigError: settings that no dataset would make right; told before anything is built.
    """
    recipe = context.recipe
    check_settings(pretraining(recipe))
    inputs = result_fields(recipe.pretrain, "pretrain.")
    # How rows are made is the token dataset's identity, which is a parent.
    inputs = {key: value for key, value in inputs.items() if not key.startswith("pretrain.data.")}
    inputs["tokenizer.pad_vocab_to_multiple"] = recipe.tokenizer.pad_vocab_to_multiple
    if is_preset(recipe.model.base):
        inputs |= {"model.preset": recipe.model.base, **result_fields(recipe.model, "model.")}
    return inputs


def build_pretrain(
    context: Context, parents: Mapping[str, Artifact], writer: ArtifactWriter, run: StageRun
) -> StageOutput:
    """Train from the beginning or the last checkpoint, export, and name the export's files in the artifact.

    Raises:
        ConfigError: batch, length or schedule do not fit the dataset.
        TrainingError: training ran and could not go on; the same command resumes from the last checkpoint.
    """
    model = parents.get("model")
    return build_run(
        context,
        pretraining(context.recipe),
        parents,
        StartingPoint(context.recipe.model.base, base_folder(model)),
        writer,
        run,
    )


def finish_pretrain(
    context: Context, artifact: Artifact, tracker: Tracker, run: StageRun | None
) -> dict[str, Any]:
    """Register the export, unless a finetune stage gives the recipe's model."""
    if context.recipe.finetune.stages:
        return {"export": join(artifact.uri, artifact.manifest.extra["export"])}
    return register_export(context, artifact, tracker, run)


def register_export(
    context: Context,
    artifact: Artifact,
    tracker: Tracker,
    run: StageRun | None,
    *,
    export: str | None = None,
    digest: str | None = None,
) -> dict[str, Any]:
    """Register an exported model as a model version with alias ``candidate``; done once per export.

    Args:
        context: the recipe.
        artifact: of the run.
        tracker: has the registry.
        run: the stage's, if it was built now.
        export: folder of the model within the artifact; the run's export if not given.
        digest: of that folder.
    """
    extra = artifact.manifest.extra
    export = join(artifact.uri, export or extra["export"])
    summary = artifact.manifest.extra["summary"]
    registered = tracker.register_model(
        context.recipe.model_name,
        export,
        run.run_id if run is not None else summary["run_id"],
        description=(
            f"{context.recipe.name}: {summary['steps']} steps, {summary['tokens_seen']} tokens, "
            f"last training loss {summary['loss_last']:.4f} nats per token"
        ),
        tags={
            "baltoro.run": artifact.relative_path,
            **{f"baltoro.parent.{role}": path for role, path in artifact.manifest.parents.items()},
            "baltoro.export_digest": digest or extra["export_digest"],
            "baltoro.git_commit": str(artifact.manifest.made_by.git_commit),
        },
        alias="candidate",
    )
    return {"export": export, "registered": {"name": registered.name, "version": registered.version}}


PRETRAIN = Stage(
    name="pretrain",
    kind="run",
    version=1,
    parents=("tokens", "tokenizer", "model"),
    inputs=pretrain_inputs,
    build=build_pretrain,
    finish=finish_pretrain,
)
