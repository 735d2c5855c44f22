"""The pretrain stage: a token dataset and a base → a trained, exported, registered model.

The driver plans, opens the MLflow run and watches; Ray Train starts the workers and gives them a process
group; each calls :func:`baltoro.train.pretrain.pretrain`, which knows neither Ray nor MLflow. Rank 0 alone
writes metrics.
"""

from __future__ import annotations

import os
import shutil
import tempfile
import threading
from collections.abc import Callable, Mapping
from concurrent.futures import Future
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from baltoro.core.artifacts import Artifact, ArtifactWriter
from baltoro.core.config import result_fields
from baltoro.core.errors import BaltoroError, TrainingError
from baltoro.core.storage import Storage, is_local, join, local_path
from baltoro.data.order import StepOrder
from baltoro.data.shards import ShardFile, TokenDataset
from baltoro.jobs.cluster import given_address
from baltoro.jobs.extend import part_chain
from baltoro.jobs.model import is_preset
from baltoro.jobs.progress import training_progress
from baltoro.jobs.stages import Context, Stage, StageOutput
from baltoro.jobs.tokenizer import load_tokenizer
from baltoro.jobs.tokens import split_files
from baltoro.tracking.mlflow import StageRun, Tracker
from baltoro.train.config import TrainConfig, total_steps
from baltoro.train.report import loss_curve

if TYPE_CHECKING:
    from baltoro.train.pretrain import TrainResult


@dataclass(frozen=True, slots=True)
class WorkerSettings:
    """Everything a training worker needs; plain values, so that it travels to any node.

    ``threads`` is the number of threads a worker computes with on CPU; ``None`` shares the machine's cores
    evenly among its workers.
    """

    config: TrainConfig
    base: str
    seed: int
    sequence_length: int
    vocabulary_multiple: int
    storage: Storage
    model: Artifact | None
    tokenizer: Artifact
    train_files: tuple[ShardFile, ...]
    validation_files: tuple[ShardFile, ...]
    run_uri: str
    config_fingerprint: str
    dataset_fingerprint: str
    threads: int | None
    mlflow_run: StageRun
    system_metrics: bool
    progress: Any


def pretrain_inputs(context: Context) -> dict[str, Any]:
    """Return what identifies a run beyond its token dataset, tokenizer and base model.

    Raises:
        ConfigError: the global batch cannot be divided as the recipe asks; told before anything is built.
    """
    recipe = context.recipe
    StepOrder(0, recipe.pretrain.data.sequence_length, recipe.pretrain.global_batch_tokens).accumulation(
        recipe.cluster.workers, recipe.pretrain.micro_batch
    )
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
    rows = sum(file.rows for file in train_files)
    order = StepOrder(rows, config.data.sequence_length, config.global_batch_tokens)
    steps = total_steps(config, order)
    accumulation = order.accumulation(recipe.cluster.workers, config.micro_batch)
    run.log_params(
        {
            "derived.steps": steps,
            "derived.rows_per_step": order.rows_per_step,
            "derived.accumulation_steps": accumulation,
            "derived.tokens_planned": steps * config.global_batch_tokens,
            "derived.rows_dropped": rows - steps * order.rows_per_step,
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
            model=parents.get("model"),
            tokenizer=parents["tokenizer"],
            train_files=train_files,
            validation_files=validation_files,
            run_uri=writer.artifact_uri,
            config_fingerprint=writer.fingerprint,
            dataset_fingerprint=parents["tokens"].fingerprint,
            # On a cluster a worker computes on what it reserved; a local Ray's CPUs are only logical ones.
            threads=recipe.cluster.cpus_per_worker if given_address(recipe) else None,
            mlflow_run=run,
            system_metrics=recipe.tracking.system_metrics,
            progress=progress.queue,
        )
        result = run_workers(context, settings)
    run.log_bytes(loss_curve(progress.history, title=f"{recipe.name}: loss"), "loss_curve.png")
    # The export stands in a sub-folder of its own already, written by the attempt that finished.
    writer.adopt_folder(result["export_uri"].rsplit("/", 1)[-1])
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
        },
        extra={
            "export": result["export_uri"].rsplit("/", 1)[-1],
            "export_digest": result["export_digest"],
            "attempt": result["attempt"],
            "world_size": recipe.cluster.workers,
        },
    )


def run_workers(context: Context, settings: WorkerSettings) -> dict[str, Any]:
    """Start the workers, wait for the end, and return the result of training as a dict."""
    # Ray Train chooses its version when it is first imported.
    os.environ.setdefault("RAY_TRAIN_V2_ENABLED", "1")
    from ray.train import RunConfig, ScalingConfig
    from ray.train.torch import TorchConfig, TorchTrainer
    from ray.train.v2.api.exceptions import TrainingFailedError

    cluster = context.recipe.cluster
    scratch = Path(tempfile.mkdtemp(prefix="baltoro-train-"))
    try:
        trainer = TorchTrainer(
            train_worker,
            train_loop_config={"settings": settings},
            torch_config=TorchConfig(backend="nccl" if cluster.use_gpu else "gloo"),
            scaling_config=ScalingConfig(
                num_workers=cluster.workers,
                use_gpu=cluster.use_gpu,
                resources_per_worker={
                    "CPU": cluster.cpus_per_worker,
                    **({"GPU": 1} if cluster.use_gpu else {}),
                },
            ),
            # Checkpoints are ours; Ray keeps only its own bookkeeping here.
            run_config=RunConfig(name=settings.config_fingerprint, storage_path=str(scratch)),
        )
        try:
            outcome = call_interruptibly(trainer.fit)
        except TrainingFailedError as error:
            raise first_cause(error) from error
    finally:
        shutil.rmtree(scratch, ignore_errors=True)
    result: dict[str, Any] = outcome.return_value
    return result


Result = TypeVar("Result")


def call_interruptibly(function: Callable[[], Result]) -> Result:
    """Call a function in a thread of its own and return or raise what it does.

    On the main thread Ray Train would put its own handler in the place of Ctrl-C's, which waits for the
    controller and then leaves the process without a word. Here the interrupt is raised at once, and what
    runs in Ray ends with the connection.
    """
    outcome: Future[Result] = Future()

    def call() -> None:
        try:
            outcome.set_result(function())
        except BaseException as error:  # noqa: BLE001  (raised again by result())
            outcome.set_exception(error)

    threading.Thread(target=call, name="baltoro-trainer", daemon=True).start()
    return outcome.result()


def first_cause(error: BaseException) -> BaltoroError:
    """Return the error of the lowest failing rank that says what happened, not the wrapper around it."""
    failures: Mapping[int, BaseException] = getattr(error, "worker_failures", {})
    causes = [(rank, unwrap(failures[rank])) for rank in sorted(failures)]
    for _, cause in causes:
        if isinstance(cause, BaltoroError):
            return cause
    if causes:
        rank, cause = causes[0]
        text = str(failures[rank]).strip().splitlines()
        return TrainingError(
            f"training stopped on rank {rank}: {type(cause).__name__}: "
            f"{cause or (text[-1] if text else '')}; "
            "the same command resumes from the last checkpoint"
        )
    return TrainingError(f"training stopped: {error}; the same command resumes from the last checkpoint")


def unwrap(error: BaseException) -> BaseException:
    """Return the exception that user code raised, inside Ray's wrappers."""
    inner = getattr(error, "_base_exc", None) or getattr(error, "cause", None)
    return unwrap(inner) if isinstance(inner, BaseException) and inner is not error else error


def train_worker(loop_config: dict[str, Any]) -> dict[str, Any]:
    """Run on every training worker, inside Ray Train's process group; return the result as a dict."""
    import ray.train
    import torch

    from baltoro.checkpoint.head import RunIdentity
    from baltoro.models.load import plan_model
    from baltoro.train.pretrain import pretrain

    settings: WorkerSettings = loop_config["settings"]
    context = ray.train.get_context()
    rank = context.get_world_rank()
    device = ray.train.torch.get_device()
    if device.type == "cpu":
        torch.set_num_threads(
            settings.threads or max(1, (os.cpu_count() or 1) // context.get_local_world_size())
        )
    scratch = Path(tempfile.mkdtemp(prefix="baltoro-rank-"))
    try:
        tokenizer = load_tokenizer(settings.storage, settings.tokenizer, scratch / "tokenizer")
        plan = plan_model(
            local_weights(settings, scratch, context.get_local_rank()),
            tokenizer,
            sequence_length=settings.sequence_length,
            vocabulary_multiple=settings.vocabulary_multiple,
            seed=settings.seed,
        )
        run = settings.mlflow_run

        def report(step: int, metrics: Mapping[str, float]) -> None:
            if rank == 0:
                run.log_metrics(metrics, step)
                settings.progress.put((step, dict(metrics)))

        monitor = run.system_metrics() if rank == 0 and settings.system_metrics else None
        try:
            result: TrainResult = pretrain(
                config=settings.config,
                plan=plan,
                tokenizer=tokenizer,
                dataset=TokenDataset.open(settings.train_files, settings.storage),
                validation=TokenDataset.open(settings.validation_files, settings.storage)
                if settings.validation_files
                else None,
                storage=settings.storage,
                run_uri=settings.run_uri,
                identity=RunIdentity(settings.config_fingerprint, (settings.dataset_fingerprint,)),
                device=device,
                scratch=scratch,
                report=report,
            )
        finally:
            if monitor is not None:
                monitor.finish()
            if rank == 0:
                run.flush()
        return asdict(result)
    finally:
        shutil.rmtree(scratch, ignore_errors=True)


def local_weights(settings: WorkerSettings, scratch: Path, local_rank: int) -> str | Path:
    """Return a preset's name, or the folder of the staged base model on this node.

    A local store is read in place. From an object store the first rank of each node downloads; the others
    of the node wait, then read the same files.
    """
    if settings.model is None:
        return settings.base
    uri = join(settings.model.uri, settings.model.manifest.writer, settings.model.manifest.extra["folder"])
    if is_local(uri):
        return local_path(uri)
    import torch.distributed as dist

    shared = Path(tempfile.gettempdir()) / f"baltoro-base-{settings.model.fingerprint}"
    if local_rank == 0 and not (shared / ".complete").exists():
        shutil.rmtree(shared, ignore_errors=True)
        settings.storage.download_folder(uri, scratch / "base")
        shutil.move(scratch / "base", shared)
        (shared / ".complete").touch()
    dist.barrier()
    return shared


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
