"""The pretrain stage: a token dataset and a base → a trained, exported, registered model.

The driver checks, opens the MLflow run and watches; the workers are those of :mod:`baltoro.jobs.training`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from baltoro.checkpoint.head import RunIdentity, read_head
from baltoro.checkpoint.ledger import read_ledger
from baltoro.core.artifacts import Artifact, ArtifactWriter
from baltoro.core.config import result_fields
from baltoro.core.errors import ArtifactError
from baltoro.core.storage import join
from baltoro.jobs.cluster import given_address
from baltoro.jobs.extend import part_chain
from baltoro.jobs.model import is_preset
from baltoro.jobs.progress import training_progress
from baltoro.jobs.stages import Context, Stage, StageOutput
from baltoro.jobs.tokens import split_files
from baltoro.jobs.training.preflight import check_run, check_settings, check_workers, split_of
from baltoro.jobs.training.strikes import planned_strikes
from baltoro.jobs.training.workers import WorkerSettings, base_folder, run_workers
from baltoro.tracking.mlflow import StageRun, Tracker
from baltoro.train.config import total_steps
from baltoro.train.goodput import measure_goodput
from baltoro.train.report import goodput_picture, loss_curve


def pretrain_inputs(context: Context) -> dict[str, Any]:
    """Return what identifies a run beyond its token dataset, tokenizer and base model.

    Raises:
        ConfigError: settings that no dataset would make right; told before anything is built.
    """
    recipe = context.recipe
    check_settings(recipe)
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
    recipe = context.recipe
    config = recipe.pretrain
    parts = part_chain(context.store, parents["tokens"])
    train_files = tuple(split_files(parts, "train"))
    validation_files = tuple(split_files(parts, "validation"))
    identity = RunIdentity(writer.fingerprint, (parents["tokens"].fingerprint,))
    order = check_run(context, parents, train_files, validation_files, writer.artifact_uri, identity)
    check_workers(context, writer.artifact_uri)
    steps = total_steps(config, order)
    run.log_params(
        {
            "derived.steps": steps,
            "derived.rows_per_step": order.rows_per_step,
            "derived.accumulation_steps": split_of(recipe, order).accumulation,
            "derived.tokens_planned": steps * config.global_batch_tokens,
            "derived.rows_dropped": order.total_rows - steps * order.rows_per_step,
            "cluster.workers": recipe.cluster.workers,
            "pretrain.micro_batch": config.micro_batch,
            "pretrain.strategy": config.strategy,
        }
    )
    with training_progress(steps) as progress:
        settings = WorkerSettings(
            config=config,
            base=recipe.model.base,
            seed=recipe.model.init_seed,
            sequence_length=config.data.sequence_length,
            vocabulary_multiple=recipe.tokenizer.pad_vocab_to_multiple,
            storage=context.storage,
            base_folder=base_folder(parents.get("model")),
            rope_scaling=recipe.model.rope_scaling,
            tokenizer=parents["tokenizer"],
            train_files=train_files,
            validation_files=validation_files,
            run_uri=writer.artifact_uri,
            config_fingerprint=writer.fingerprint,
            dataset_fingerprint=parents["tokens"].fingerprint,
            # On a cluster a worker computes on what it reserved; a local Ray's CPUs are only logical ones.
            threads=recipe.cluster.cpus_per_worker if given_address(recipe) else None,
            elastic=recipe.cluster.elastic,
            mlflow_run=run,
            system_metrics=recipe.tracking.system_metrics,
            progress=progress.queue,
            strikes=planned_strikes(writer.artifact_uri),
        )
        result = run_workers(recipe, settings)
    _log_pictures(context, run, writer.artifact_uri, progress.history)
    # The export stands in a sub-folder of its own already, written by the attempt that finished.
    # The run's head names it, so it stays whatever becomes of this command.
    writer.adopt_folder(result["export_uri"].rsplit("/", 1)[-1], shared=True)
    for name, (size_bytes, sha256) in sorted(result["export_files"].items()):
        writer.add_file(name, rows=0, size_bytes=size_bytes, sha256=sha256)
    run.log_metrics({"train/tokens_per_second_mean": result["tokens_per_second"]})
    return StageOutput(
        counts={"steps": result["steps"], "tokens_seen": result["tokens_seen"]},
        summary={
            "run_id": run.run_id,
            "steps": result["steps"],
            "tokens_seen": result["tokens_seen"],
            "loss_first": result["loss_first"],
            "loss_last": result["loss_last"],
            "validation_loss_before": result["validation_before"],
            "validation_loss_after": result["validation_after"],
            "tokens_per_second": round(result["tokens_per_second"], 1),
            "attempt": result["attempt"],
            "resumed_from_step": result["resumed_from_step"],
        },
        extra={
            "export": result["export_uri"].rsplit("/", 1)[-1],
            "export_digest": result["export_digest"],
            "attempt": result["attempt"],
            "world_size": result["world_size"],
        },
    )


def _log_pictures(
    context: Context, run: StageRun, run_uri: str, history: Sequence[tuple[int, Mapping[str, float]]]
) -> None:
    """Log the loss curve, and where the devices' time went over all attempts."""
    name, head = context.recipe.name, read_head(context.storage, run_uri)
    if head is None:
        raise ArtifactError(f"{run_uri}: the head of the run has vanished; restore it from a backup")
    records = read_ledger(context.storage, run_uri)
    begun: dict[int, int] = {}
    for record in records:
        begun.setdefault(record.attempt, record.step)
    goodput = measure_goodput(records, head.attempts)
    run.log_metrics(goodput.metrics())
    run.log_bytes(goodput_picture(goodput, title=f"{name}: where the time went"), "goodput.png")
    run.log_bytes(
        loss_curve(history, title=f"{name}: loss", attempts=sorted(begun.items())), "loss_curve.png"
    )


def register(context: Context, artifact: Artifact, tracker: Tracker, run: StageRun | None) -> dict[str, Any]:
    """Register the export as a model version with alias ``candidate``; done once per export."""
    export = join(artifact.uri, artifact.manifest.extra["export"])
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
            "baltoro.export_digest": artifact.manifest.extra["export_digest"],
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
    finish=register,
)
