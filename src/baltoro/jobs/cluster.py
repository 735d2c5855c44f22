"""Connect to Ray: a given cluster, or a local one with enough logical CPUs; too few is refused."""

from __future__ import annotations

import contextlib
import logging
import os
import socket
from collections.abc import Iterator

from baltoro.core.errors import BaltoroError, ConfigError, PlatformError
from baltoro.core.storage import is_local
from baltoro.jobs.recipe import Recipe

logger = logging.getLogger(__name__)

_LOCAL_START_ATTEMPTS = 3
_KNOCK_SECONDS = 10.0
_FEW_WORKERS = 8

SPARE_CPUS = 2
"""Logical CPUs beyond the training workers': one for data tasks, one for the trainer's controller.

With none to spare, Ray Data and Ray Train wait for each other for ever, without a word.
"""


def required_cpus(recipe: Recipe, *, training: bool = True) -> int:
    """Return the logical CPUs a run needs: those of its training processes and two more, or one."""
    if not training:
        return 1
    return recipe.cluster.workers * recipe.cluster.cpus_per_worker + SPARE_CPUS


def given_address(recipe: Recipe) -> str | None:
    """Return the address of the cluster to join, or ``None`` for a local Ray, started for the run."""
    return recipe.cluster.address or os.environ.get("RAY_ADDRESS")


def local_cpus(recipe: Recipe, *, training: bool = True) -> int:
    """Return the logical CPUs that a local Ray gets; for training they may exceed the real ones.

    Raises:
        ConfigError: ``cluster.local_cpus`` is below what the workers need, or there are far more workers
            than this machine has CPUs.
    """
    needed = required_cpus(recipe, training=training)
    real = os.cpu_count() or 1
    cpus = recipe.cluster.local_cpus or max(real, needed)
    if training and not recipe.cluster.local_cpus and recipe.cluster.workers > max(_FEW_WORKERS, 2 * real):
        raise ConfigError(
            f"cluster.workers: {recipe.cluster.workers} processes are too many for the {real} CPUs of this "
            f"machine; lower it to at most {max(_FEW_WORKERS, 2 * real)}, give the address of a cluster as "
            f"cluster.address, or set cluster.local_cpus={needed} if it is meant"
        )
    if cpus < needed:
        raise ConfigError(
            f"cluster.local_cpus: {cpus} is too few for cluster.workers={recipe.cluster.workers}: training "
            f"and data tasks would wait for each other for ever; give at least {needed}, or leave it empty"
        )
    return cpus


@contextlib.contextmanager
def connected(recipe: Recipe, *, training: bool = True) -> Iterator[None]:
    """Connect to Ray for the duration of a ``with`` block.

    A cluster that was already there (``cluster.address``, RAY_ADDRESS, or this process runs inside a Ray
    job) is left running; a local one is shut down at the end. Without ``training`` one CPU is enough and no
    GPU is asked for.

    Raises:
        ConfigError: ``cluster.local_cpus`` is below what the workers need.
        PlatformError: the cluster cannot be reached, has too few CPUs or GPUs, or several nodes while
            the storage root is a folder of one machine.
    """
    import ray

    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
    # Workers must not each print what the driver already says.
    os.environ.setdefault("RAY_DEDUP_LOGS", "1")
    os.environ.setdefault("RAY_TRAIN_V2_ENABLED", "1")
    os.environ.setdefault("RAY_DATA_DISABLE_PROGRESS_BARS", "1")
    if ray.is_initialized():
        check_resources(recipe, training=training)
        with _own_errors():
            yield
        return
    address = given_address(recipe)
    settings: dict[str, object] = {
        "log_to_driver": False,
        "logging_level": logging.ERROR,
        "configure_logging": True,
    }
    if address:
        try:
            _knock(address)
            ray.init(address=address, **settings)
        except (OSError, RuntimeError, ValueError) as error:
            raise PlatformError(
                f"the Ray cluster at {address} cannot be reached ({_first_line(error)}); start one with "
                "`ray start --head`, correct cluster.address or RAY_ADDRESS, or unset both to use a local Ray"
            ) from None
    else:
        start_local(recipe, settings, training=training)
    try:
        check_resources(recipe, training=training)
        with _own_errors():
            yield
    finally:
        ray.shutdown()


def _knock(address: str) -> None:
    """Check that somebody listens at ``host:port``; Ray itself would try for many minutes.

    Raises:
        OSError: nobody does.
    """
    host, _, port = address.removeprefix("ray://").rpartition(":")
    if host and port.isdigit():
        with socket.create_connection((host.strip("[]"), int(port)), timeout=_KNOCK_SECONDS):
            pass


def _first_line(error: Exception) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0]


@contextlib.contextmanager
def _own_errors() -> Iterator[None]:
    """Raise the error that one of our functions raised in a task, without Ray's wrapper around it."""
    from ray.exceptions import RayTaskError

    try:
        yield
    except RayTaskError as error:
        cause = error.cause
        while isinstance(cause, RayTaskError):
            cause = cause.cause
        if isinstance(cause, BaltoroError):
            raise cause from None
        raise


def start_local(recipe: Recipe, settings: dict[str, object], *, training: bool = True) -> None:
    """Start a Ray on this machine with enough logical CPUs."""
    import ray

    cpus = local_cpus(recipe, training=training)
    for attempt in range(1, _LOCAL_START_ATTEMPTS + 1):
        try:
            # Without an address Ray would join whatever `ray start` last started on this machine.
            ray.init(address="local", num_cpus=cpus, include_dashboard=False, **settings)
        except Exception as error:
            # Ray gives its node 30 seconds to start and raises a bare Exception; a busy machine needs more.
            if "timed out during startup" not in str(error):
                raise
            ray.shutdown()
            logger.warning("Ray did not start in time (try %d of %d)", attempt, _LOCAL_START_ATTEMPTS)
        else:
            return
    raise PlatformError(
        f"a local Ray did not start within {_LOCAL_START_ATTEMPTS} tries of 30 seconds; this machine is too "
        "busy or too small: stop other work, or start Ray yourself with `ray start --head` and set "
        "cluster.address=auto"
    )


def check_resources(recipe: Recipe, *, training: bool = True) -> None:
    """Refuse a cluster that cannot hold the run, or whose nodes cannot see the storage root.

    Raises:
        PlatformError: with what there is, what is needed, and what to change.
    """
    import ray

    resources = ray.cluster_resources()
    cpus, gpus = int(resources.get("CPU", 0)), int(resources.get("GPU", 0))
    setting = "workers" if recipe.cluster.min_workers is None else "min_workers"
    least = recipe.cluster.least_workers
    needed = least * recipe.cluster.cpus_per_worker + SPARE_CPUS if training else 1
    if cpus < needed:
        raise PlatformError(
            f"the Ray cluster has {cpus} logical CPUs, cluster.{setting}={least} needs "
            f"{needed} (workers + {SPARE_CPUS}); lower cluster.{setting}, add nodes, or start Ray with "
            f"--num-cpus={needed}"
        )
    if training and recipe.cluster.use_gpu and gpus < least:
        raise PlatformError(
            f"cluster.use_gpu is set and cluster.{setting}={least}, but the Ray cluster has "
            f"{gpus} GPUs; lower cluster.{setting}, add GPU nodes, or set cluster.use_gpu=false"
        )
    nodes = [node for node in ray.nodes() if node["Alive"]]
    if len(nodes) > 1 and not recipe.storage.shared:
        local = {"storage.root": recipe.storage.root} | {
            f"corpus.sources.{index}.uri": source.uri for index, source in enumerate(recipe.corpus.sources)
        }
        for key, uri in local.items():
            if is_local(uri):
                raise PlatformError(
                    f"{key}: {uri} is a folder of one machine and the Ray cluster has {len(nodes)} nodes; "
                    "use s3://, or set storage.shared=true if every node mounts it"
                )
        if (recipe.tracking.uri or "").startswith("sqlite:"):
            raise PlatformError(
                f"tracking.uri: {recipe.tracking.uri} is a file of one machine and the Ray cluster has "
                f"{len(nodes)} nodes; give the URL of an MLflow server, or set storage.shared=true"
            )
