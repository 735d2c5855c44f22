"""The training workers: Ray Train starts them, gives them a process group, and starts them again.

Each worker calls :func:`baltoro.train.run.train_model`, which knows neither Ray nor MLflow. Rank 0 alone
writes metrics. A worker that fails tells the desk (:mod:`baltoro.jobs.training.failures`) before it ends.
"""

from __future__ import annotations

import contextlib
import logging
import os
import shlex
import shutil
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Mapping
from concurrent.futures import Future
from dataclasses import asdict, dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from baltoro.core.artifacts import Artifact
from baltoro.core.errors import BaltoroError, TrainingError
from baltoro.core.storage import Storage, is_local, join, local_path
from baltoro.data.shards import ShardFile, TokenDataset
from baltoro.jobs.recipe import Recipe
from baltoro.jobs.tokenizer import load_tokenizer
from baltoro.jobs.training.failures import NODE_TAKEN_AWAY, Failure, RankLine, start_desk, unwrap
from baltoro.jobs.training.strikes import StrikeHook, StrikePlan
from baltoro.models.adapters import Tuning
from baltoro.models.load import ModelPlan, refuse_untrained_rows
from baltoro.models.rope_scaling_config import RopeScalingConfig
from baltoro.tracking.mlflow import StageRun
from baltoro.train.config import TrainConfig
from baltoro.train.failure_report import explain_out_of_memory, is_out_of_memory
from baltoro.train.hooks import Hook
from baltoro.train.preemption import Preempted
from baltoro.train.watchdog import Watchdog, process_group_timeout_seconds

if TYPE_CHECKING:
    import torch

    from baltoro.train.metrics import StepRecord
    from baltoro.train.run import TrainResult

RESIZE_SECONDS = 60.0
"""Elastic workers are joined by more at most so often; each time training starts anew from a checkpoint."""

_LOOK_SECONDS = 2.0
_UNSTARTED_SECONDS = 120.0
_LEFT = "left_after_step"

_logger = logging.getLogger(__name__)

Result = TypeVar("Result")


@dataclass(frozen=True, slots=True)
class RemoteFolder:
    """A folder of storage that workers read as files.

    Attributes:
        uri: where it is.
        key: of its content; nodes keep what they downloaded under it.
    """

    uri: str
    key: str


def shown_uri(uri: str) -> str:
    """Return a URI as other programs take it: a plain path where it is on this machine."""
    return str(local_path(uri)) if is_local(uri) else uri


def base_folder(model: Artifact | None) -> RemoteFolder | None:
    """Return where a staged base model is; ``None`` for a preset."""
    if model is None:
        return None
    uri = join(model.uri, model.manifest.writer, model.manifest.extra["folder"])
    return RemoteFolder(uri, model.fingerprint)


@dataclass(frozen=True, slots=True)
class WorkerSettings:
    """Everything a training worker needs; plain values, so that it travels to any node.

    ``threads`` is the number of threads a worker computes with on CPU; ``None`` shares the machine's cores
    evenly among its workers. ``elastic`` says that the number of workers may change between attempts.
    ``strikes`` are the faults of a rehearsal; ``command_started_at`` (ISO 8601) is when it all began.
    ``base_folder`` holds the base's weights, where it is no preset; ``merged`` the adapters that belong to
    it, ``tuning`` what is trained beside it, from the adapter in ``tuning_start`` on if there is one.
    ``export_files`` are further files of the export.
    """

    config: TrainConfig
    base: str
    seed: int
    sequence_length: int
    vocabulary_multiple: int
    storage: Storage
    base_folder: RemoteFolder | None
    tokenizer: Artifact
    train_files: tuple[ShardFile, ...]
    validation_files: tuple[ShardFile, ...]
    run_uri: str
    config_fingerprint: str
    dataset_fingerprint: str
    threads: int | None
    elastic: bool
    mlflow_run: StageRun
    system_metrics: bool
    progress: Any
    strikes: StrikePlan | None = None
    rope_scaling: RopeScalingConfig | None = None
    merged: tuple[RemoteFolder, ...] = ()
    tuning: Tuning | None = None
    tuning_start: RemoteFolder | None = None
    export_files: Mapping[str, bytes] = field(default_factory=dict)
    command_started_at: str = field(
        default_factory=lambda: datetime.now(UTC).isoformat(timespec="milliseconds")
    )


def run_workers(recipe: Recipe, settings: WorkerSettings) -> dict[str, Any]:
    """Start the workers, again where they fail or leave, and return the result of training as a dict.

    Raises:
        BaltoroError: what the first failing rank said, where more is told, and the command that resumes.
    """
    # Ray Train chooses its version when it is first imported.
    os.environ.setdefault("RAY_TRAIN_V2_ENABLED", "1")
    from ray.train.v2.api.exceptions import TrainingFailedError

    desk = start_desk(settings.storage, settings.run_uri, workers=recipe.cluster.workers)
    look = DeskView(desk, settings.storage, settings.mlflow_run)
    scratch = Path(tempfile.mkdtemp(prefix="baltoro-train-"))
    starts = 0
    try:
        while True:
            starts += 1
            left = max(settings.config.faults.max_failures - look.own_failures, 0)
            trainer = make_trainer(
                recipe,
                settings,
                desk,
                name=f"{settings.config_fingerprint}-{starts}",
                scratch=scratch,
                max_failures=left,
            )
            try:
                outcome = call_interruptibly(trainer.fit, meanwhile=look)
            except TrainingFailedError as error:
                look()
                raise closing_error(error, look.failures) from error
            look()
            result: dict[str, Any] = outcome.return_value
            if _LEFT not in result:
                return result
            _logger.warning(
                "workers left after step %d, %s, because one is about to be taken away; they are started "
                "again where there is room",
                result[_LEFT],
                "with a checkpoint" if result["saved"] else "without a checkpoint",
            )
    finally:
        shutil.rmtree(scratch, ignore_errors=True)


def make_trainer(
    recipe: Recipe, settings: WorkerSettings, desk: Any, *, name: str, scratch: Path, max_failures: int
) -> Any:
    """Return the Ray Train trainer of a recipe.

    Args:
        recipe: says how many workers on what.
        settings: for the workers.
        desk: where failures are told.
        name: of this start.
        scratch: folder for Ray's own bookkeeping.
        max_failures: times that workers are started again.
    """
    from ray.train import FailureConfig, RunConfig, ScalingConfig
    from ray.train.torch import TorchConfig, TorchTrainer

    from baltoro.jobs.training.callbacks import FailureCallback, LeaveBeforeResize

    cluster, faults = recipe.cluster, settings.config.faults
    callbacks: list[Any] = [FailureCallback(desk)]
    if cluster.elastic:
        callbacks.append(LeaveBeforeResize(desk, faults.preemption_grace_seconds))
    return TorchTrainer(
        train_worker,
        train_loop_config={"settings": settings, "desk": desk},
        torch_config=TorchConfig(
            backend="nccl" if cluster.use_gpu else "gloo",
            timeout_s=process_group_timeout_seconds(faults.hang_seconds),
        ),
        scaling_config=ScalingConfig(
            num_workers=(cluster.least_workers, cluster.workers) if cluster.elastic else cluster.workers,
            use_gpu=cluster.use_gpu,
            elastic_resize_monitor_interval_s=RESIZE_SECONDS,
            resources_per_worker={
                "CPU": cluster.cpus_per_worker,
                **({"GPU": 1} if cluster.use_gpu else {}),
            },
        ),
        run_config=RunConfig(
            name=name,
            # Checkpoints are ours; Ray keeps only its own bookkeeping here.
            storage_path=str(scratch),
            failure_config=FailureConfig(max_failures=max_failures),
            callbacks=callbacks,
        ),
    )


class DeskView:
    """What the driver sees of the desk: each failure is told once and copied to MLflow.

    Args:
        desk: the actor.
        storage: gives access to what the desk wrote.
        run: the stage's MLflow run.
    """

    def __init__(self, desk: Any, storage: Storage, run: StageRun) -> None:
        self._desk = desk
        self._storage = storage
        self._run = run
        self._unstarted_since = time.monotonic()
        self._patience_seconds = _UNSTARTED_SECONDS
        self.failures: list[Failure] = []

    @property
    def own_failures(self) -> int:
        """Failures that count: not those of nodes that were taken away."""
        causes = [failure.error for failure in self.failures]
        return sum(error is None or error.type_name != NODE_TAKEN_AWAY for error in causes)

    def __call__(self) -> None:
        """Look for new failures, and for workers that do not start."""
        import ray
        from ray.exceptions import RayError

        try:
            fresh: list[Failure] = ray.get(self._desk.failures.remote(len(self.failures)))
            running: bool = ray.get(self._desk.running.remote())
        except RayError as error:
            _logger.warning("the desk does not answer: %s", error)
            return
        for failure in fresh:
            self.failures.append(failure)
            _logger.warning("attempt %d failed: %s", failure.attempt, failure.sentence)
            self._copy(failure)
        self._warn_of_waiting(running)

    def _copy(self, failure: Failure) -> None:
        folder = failure.uri.rstrip("/").rsplit("/", 1)[-1]
        try:
            for name in failure.files:
                data = self._storage.read_bytes(join(failure.uri, name))
                self._run.log_bytes(data, f"failures/{folder}/{name}")
        except BaltoroError as error:
            _logger.warning("%s is not copied to MLflow: %s", failure.uri, error.message)

    def _warn_of_waiting(self, running: bool) -> None:
        """Say so when the cluster has no room for the workers: Ray Train waits for it without a word."""
        if running:
            self._unstarted_since = time.monotonic()
            self._patience_seconds = _UNSTARTED_SECONDS
            return
        waited = time.monotonic() - self._unstarted_since
        if waited > self._patience_seconds:
            import ray

            self._patience_seconds = 2 * waited
            resources = {name: ray.cluster_resources().get(name, 0.0) for name in ("CPU", "GPU")}
            _logger.warning(
                "the workers have not started for %.0f s; the cluster has %g CPUs and %g GPUs, in use or "
                "not: wait for nodes, add some, or lower cluster.workers (cluster.min_workers goes on with "
                "fewer)",
                waited,
                resources["CPU"],
                resources["GPU"],
            )


def closing_error(error: BaseException, failures: list[Failure]) -> BaltoroError:
    """Return what the command ends with when Ray Train gives up.

    Args:
        error: Ray Train's.
        failures: as the desk wrote them down.
    """
    own = getattr(error, "controller_failure", None)
    if failures and (own is None or isinstance(own, TrainingError)):
        return failures[-1].closing_error(resume_command())
    cause = unwrap(own) if isinstance(own, BaseException) else error
    return TrainingError(
        f"training stopped: {type(cause).__name__}: {cause}; to resume from the last checkpoint: "
        f"{resume_command()}"
    )


def resume_command() -> str:
    """Return the command line of this process, which resumes what it started."""
    program, *arguments = sys.argv or [""]
    name = Path(program).name
    if name == "baltoro":
        return shlex.join(["baltoro", *arguments])
    if program.endswith("baltoro/cli.py"):
        return shlex.join(["python", "-m", "baltoro.cli", *arguments])
    if Path(program).parent.name == "ray_jobs":
        return shlex.join(["python", f"ray_jobs/{name}", *arguments])
    return "the same command"


def call_interruptibly(
    function: Callable[[], Result], *, meanwhile: Callable[[], None] | None = None
) -> Result:
    """Call a function in a thread of its own and return or raise what it does.

    On the main thread Ray Train would put its own handler in the place of Ctrl-C's, which waits for the
    controller and then leaves the process without a word. Here the interrupt is raised at once, and what
    runs in Ray ends with the connection.

    Args:
        function: to be called.
        meanwhile: called here every few seconds until it is done.
    """
    outcome: Future[Result] = Future()
    done = threading.Event()

    def call() -> None:
        try:
            outcome.set_result(function())
        except BaseException as error:  # noqa: BLE001  (raised again by result())
            outcome.set_exception(error)
        finally:
            done.set()

    threading.Thread(target=call, name="baltoro-trainer", daemon=True).start()
    while not done.wait(_LOOK_SECONDS):
        if meanwhile is not None:
            meanwhile()
    return outcome.result()


class _TellStep(Hook):
    """Tells the line to the desk how far this attempt has come."""

    def __init__(self, line: RankLine) -> None:
        self._line = line

    def step_end(self, record: StepRecord) -> None:
        self._line.step = record.step


def train_worker(loop_config: dict[str, Any]) -> dict[str, Any]:
    """Run on every training worker, inside Ray Train's process group; return the result as a dict."""
    import ray.train
    import torch

    settings: WorkerSettings = loop_config["settings"]
    context = ray.train.get_context()
    device = ray.train.torch.get_device()
    if device.type == "cpu":
        torch.set_num_threads(
            settings.threads or max(1, (os.cpu_count() or 1) // context.get_local_world_size())
        )
    scratch = Path(tempfile.mkdtemp(prefix="baltoro-rank-"))
    stacks_file = scratch / "stacks.txt"
    line = RankLine(
        loop_config["desk"],
        rank=context.get_world_rank(),
        world_size=context.get_world_size(),
        stacks_file=stacks_file,
    )
    hang_seconds = settings.config.faults.hang_seconds
    well = False
    try:
        with contextlib.ExitStack() as stack:
            hooks: list[Hook] = [_TellStep(line)]
            if hang_seconds is not None:
                hooks.append(
                    stack.enter_context(
                        Watchdog(hang_seconds, stacks_file=stacks_file, tell=lambda _: line.report("hung"))
                    )
                )
            result = _train(settings, line, hooks, device=device, scratch=scratch)
        well = True
        return result
    except Preempted as left:
        well = True
        return {_LEFT: left.step, "saved": left.saved}
    except BaseException as error:
        told: BaseException = error
        if is_out_of_memory(error):
            told = explain_out_of_memory(
                error, settings.config, device=device, sequence_length=settings.sequence_length
            )
            told.__cause__ = error
        line.report("raised", told)
        if told is error:
            raise
        raise told from error
    finally:
        line.close(well=well)
        shutil.rmtree(scratch, ignore_errors=True)


class WarningsTeller(logging.Handler):
    """Hands warnings of this process to whoever shows them to people.

    Args:
        put: takes one line.
    """

    def __init__(self, put: Callable[[str], object]) -> None:
        super().__init__(logging.WARNING)
        self._put = put

    def emit(self, record: logging.LogRecord) -> None:
        """Hand over one line."""
        try:
            self._put(f"{record.levelname}: {record.getMessage()}")
        except Exception:  # noqa: BLE001  (the log must not end training; logging has its own way to tell)
            self.handleError(record)


def _train(
    settings: WorkerSettings, line: RankLine, hooks: list[Hook], *, device: torch.device, scratch: Path
) -> dict[str, Any]:
    import ray.train

    from baltoro.checkpoint.head import RunIdentity
    from baltoro.jobs.training.preemption import Notices, listen_for_sigterm, ray_deadline
    from baltoro.train.run import train_model

    context = ray.train.get_context()
    rank = context.get_world_rank()
    grace_seconds = settings.config.faults.preemption_grace_seconds
    listen_for_sigterm(grace_seconds)
    notices = Notices(
        grace_seconds,
        asked_to_leave=line.asked_to_leave.is_set,
        ray_deadline=ray_deadline,
        timeout_seconds=process_group_timeout_seconds(settings.config.faults.hang_seconds),
    )
    tokenizer = load_tokenizer(settings.storage, settings.tokenizer, scratch / "tokenizer")
    plan = plan_of(settings, tokenizer, scratch, context.get_local_rank())
    run = settings.mlflow_run
    if settings.strikes is not None:
        hooks.append(
            StrikeHook(settings.strikes, settings.storage, rank=rank, world_size=context.get_world_size())
        )

    def report(step: int, metrics: Mapping[str, float]) -> None:
        if rank == 0:
            run.log_metrics(metrics, step)
            settings.progress.put((step, dict(metrics)))

    monitor = run.system_metrics() if rank == 0 and settings.system_metrics else None
    teller = WarningsTeller(settings.progress.put)
    if rank == 0:
        # Every rank would say the same; a worker's own output is read by nobody.
        logging.getLogger("baltoro").addHandler(teller)
    try:
        result: TrainResult = train_model(
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
            hooks=hooks,
            elastic=settings.elastic,
            preempted=notices,
            make_feed=feed_of(settings.config),
            command_started_at=settings.command_started_at,
            base_name=settings.base,
            merged_names=tuple(shown_uri(folder.uri) for folder in settings.merged),
            export_files=settings.export_files,
        )
    finally:
        logging.getLogger("baltoro").removeHandler(teller)
        if monitor is not None:
            monitor.finish()
        if rank == 0:
            run.flush()
    return asdict(result)


def feed_of(config: TrainConfig) -> Callable[..., Any]:
    """Return the feed that ``feed.implementation`` names; both are made and used alike."""
    if config.feed.implementation == "ray_data":
        from baltoro.jobs.training.ray_feed import RayDataFeed

        return RayDataFeed
    from baltoro.data.feed import Feed

    return Feed


def plan_of(settings: WorkerSettings, tokenizer: Any, scratch: Path, local_rank: int) -> ModelPlan:
    """Return the plan of the model to train, with everything it is made of on this node; collective.

    Args:
        settings: of the run.
        tokenizer: to train with.
        scratch: a folder of this rank's own.
        local_rank: of this process on its node.

    Raises:
        ConfigError: rows are longer than the base's context, or an adapter cannot train what is new.
    """
    from baltoro.models.load import plan_model

    def local(folder: RemoteFolder) -> Path:
        return local_folder(settings.storage, folder, scratch, local_rank)

    plan = plan_model(
        settings.base if settings.base_folder is None else local(settings.base_folder),
        tokenizer,
        sequence_length=settings.sequence_length,
        vocabulary_multiple=settings.vocabulary_multiple,
        seed=settings.seed,
        rope_scaling=settings.rope_scaling,
    )
    tuning = settings.tuning
    if tuning is not None and settings.tuning_start is not None:
        tuning = replace(tuning, start=local(settings.tuning_start))
    plan = replace(plan, merged=tuple(local(folder) for folder in settings.merged), tuning=tuning)
    refuse_untrained_rows(plan)
    return plan


def local_folder(storage: Storage, folder: RemoteFolder, scratch: Path, local_rank: int) -> Path:
    """Return a folder of storage on this node; collective.

    A local store is read in place. From an object store the first rank of each node downloads; the others
    of the node wait, then read the same files.
    """
    if is_local(folder.uri):
        return Path(local_path(folder.uri))
    import torch.distributed as dist

    shared = Path(tempfile.gettempdir()) / f"baltoro-base-{folder.key}"
    if local_rank == 0 and not (shared / ".complete").exists():
        shutil.rmtree(shared, ignore_errors=True)
        storage.download_folder(folder.uri, scratch / "base")
        shutil.move(scratch / "base", shared)
        (shared / ".complete").touch()
    dist.barrier()
    return shared
