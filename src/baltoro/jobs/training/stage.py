"""A training stage on the driver's side: it checks, opens the MLflow run and watches the workers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from baltoro.checkpoint.head import RunIdentity, read_head
from baltoro.checkpoint.ledger import read_ledger
from baltoro.core.artifacts import Artifact, ArtifactWriter
from baltoro.core.errors import ArtifactError
from baltoro.jobs.cluster import given_address
from baltoro.jobs.extend import part_chain
from baltoro.jobs.progress import training_progress
from baltoro.jobs.stages import Context, StageOutput
from baltoro.jobs.tokens import split_files
from baltoro.jobs.training.preflight import Training, check_run, check_workers, split_of
from baltoro.jobs.training.strikes import planned_strikes
from baltoro.jobs.training.workers import RemoteFolder, WorkerSettings, run_workers
from baltoro.models.adapters import Tuning
from baltoro.tracking.mlflow import StageRun
from baltoro.train.config import total_steps
from baltoro.train.goodput import measure_goodput
from baltoro.train.report import goodput_picture, loss_curve


@dataclass(frozen=True, slots=True)
class StartingPoint:
    """What a run starts from.

    Attributes:
        base: as people named it, or where it stands; a preset where there is no folder.
        folder: the base's weights.
        merged: adapters that belong to the base, in order.
        tuning: what is trained beside a frozen base; ``None`` trains everything.
        tuning_start: the adapter that is trained further.
        export_files: further files of the export, by name.
    """

    base: str
    folder: RemoteFolder | None
    merged: tuple[RemoteFolder, ...] = ()
    tuning: Tuning | None = None
    tuning_start: RemoteFolder | None = None
    export_files: Mapping[str, bytes] = field(default_factory=dict)


def build_run(  # noqa: PLR0917  (each is a thing of its own that the caller has at hand)
    context: Context,
    training: Training,
    parents: Mapping[str, Artifact],
    start: StartingPoint,
    writer: ArtifactWriter,
    run: StageRun,
) -> StageOutput:
    """Train from the beginning or the last checkpoint, export, and name the export's files in the artifact.

    Args:
        context: the recipe and its storage.
        training: what is trained.
        parents: ``tokens`` and ``tokenizer``, and ``model`` where a base model was staged.
        start: the base, and what is trained of it.
        writer: of the run's artifact.
        run: figures are logged there.

    Raises:
        ConfigError: batch, length or schedule do not fit the dataset.
        TrainingError: training ran and could not go on; the same command resumes from the last checkpoint.
    """
    recipe, config = context.recipe, training.config
    parts = part_chain(context.store, parents["tokens"])
    train_files = tuple(split_files(parts, "train"))
    validation_files = tuple(split_files(parts, "validation"))
    identity = RunIdentity(writer.fingerprint, (parents["tokens"].fingerprint,))
    order = check_run(
        context, training, parents, train_files, validation_files, writer.artifact_uri, identity
    )
    check_workers(context, training, writer.artifact_uri)
    steps = total_steps(config, order)
    run.log_params(
        {
            "derived.steps": steps,
            "derived.rows_per_step": order.rows_per_step,
            "derived.accumulation_steps": split_of(training, order).accumulation,
            "derived.tokens_planned": steps * config.global_batch_tokens,
            "derived.rows_dropped": order.total_rows - steps * order.rows_per_step,
            "cluster.workers": recipe.cluster.workers,
            f"{training.section}.micro_batch": config.micro_batch,
            f"{training.section}.strategy": config.strategy,
        }
    )
    with training_progress(steps) as progress:
        settings = WorkerSettings(
            config=config,
            base=start.base,
            seed=recipe.model.init_seed,
            sequence_length=config.data.sequence_length,
            vocabulary_multiple=recipe.tokenizer.pad_vocab_to_multiple,
            storage=context.storage,
            base_folder=start.folder,
            merged=start.merged,
            tuning=start.tuning,
            tuning_start=start.tuning_start,
            export_files=start.export_files,
            rope_scaling=training.rope_scaling,
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
