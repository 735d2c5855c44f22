"""MLflow runs and registry behind a small surface; the only module that imports mlflow.

The driver prepares the store once (:meth:`Tracker.prepare`) before any other process opens it, since a
fresh SQLite file does not survive several creators. One process at a time writes a run. A store that is
unreachable while a run goes on costs a warning and never the run: what could not be sent is kept in
order and sent with the next call, and at the latest when the run is closed.
"""

from __future__ import annotations

import contextlib
import hashlib
import logging
import os
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from baltoro.core.errors import PlatformError

logger = logging.getLogger(__name__)

_PARAM_MAX_CHARACTERS = 6000


@dataclass(frozen=True, slots=True)
class RegisteredModel:
    """A model version in the registry."""

    name: str
    version: str


@dataclass
class Tracker:
    """Opens the recipe's experiment; cheap to make, connects at :meth:`prepare`.

    Args:
        uri: MLflow tracking URI.
        experiment: experiment name.
        artifact_root: where a new experiment keeps its artifacts when the store is a local SQLite file;
            a server decides itself.
    """

    uri: str
    experiment: str
    artifact_root: str | None = None
    _client: Any = field(default=None, repr=False)
    _experiment_id: str = ""

    def prepare(self) -> None:
        """Create or migrate the store and the experiment.

        Raises:
            PlatformError: the store cannot be opened or the server does not answer.
        """
        os.environ.setdefault("GIT_PYTHON_REFRESH", "quiet")
        os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "3")
        logging.getLogger("alembic").setLevel(logging.WARNING)
        logging.getLogger("mlflow.store.db.utils").setLevel(logging.WARNING)
        import mlflow
        from mlflow.exceptions import MlflowException
        from sqlalchemy.exc import SQLAlchemyError

        if self.uri.startswith("sqlite:///"):
            Path(self.uri.removeprefix("sqlite:///")).parent.mkdir(parents=True, exist_ok=True)
        try:
            self._client = mlflow.MlflowClient(tracking_uri=self.uri, registry_uri=self.uri)
            found = self._client.get_experiment_by_name(self.experiment)
            if found is None:
                location = self.artifact_root if self.uri.startswith("sqlite:") else None
                self._experiment_id = self._client.create_experiment(self.experiment, artifact_location=location)
            elif found.lifecycle_stage == "deleted":
                self._client.restore_experiment(found.experiment_id)
                self._experiment_id = found.experiment_id
            else:
                self._experiment_id = found.experiment_id
        except (MlflowException, SQLAlchemyError, OSError) as error:
            raise PlatformError(
                f"tracking.uri: the MLflow store at {self.uri} cannot be used "
                f"({str(error).splitlines()[0][:200]}); correct tracking.uri or MLFLOW_TRACKING_URI, start the server, "
                "or give sqlite:///FILE"
            ) from None

    @property
    def client(self) -> Any:
        """The MLflow client; :meth:`prepare` has run."""
        if self._client is None:
            self.prepare()
        return self._client

    @contextlib.contextmanager
    def run(
        self, name: str, *, parent_run_id: str | None = None, tags: Mapping[str, str] | None = None
    ) -> Iterator[StageRun]:
        """Open a run, nested in a parent if given; it ends FINISHED, or FAILED when the block raises."""
        all_tags = {"mlflow.source.name": "baltoro", "mlflow.source.type": "JOB", **(tags or {})}
        if parent_run_id is not None:
            all_tags["mlflow.parentRunId"] = parent_run_id
        created = self.client.create_run(self._experiment_id, run_name=name, tags=all_tags)
        run = StageRun(self.uri, created.info.run_id, self._client)
        try:
            yield run
        except KeyboardInterrupt:
            run.close("KILLED")
            raise
        except BaseException:
            run.close("FAILED")
            raise
        else:
            run.close("FINISHED")

    def register_model(
        self,
        name: str,
        source_uri: str,
        run_id: str | None,
        *,
        description: str,
        tags: Mapping[str, str],
        alias: str,
    ) -> RegisteredModel:
        """Register an exported model folder as a new version and point ``alias`` at it.

        A folder that is already registered under this name is not registered twice, and its alias is left
        where it has been moved to since.

        Raises:
            PlatformError: the registry refused; the export itself is kept.
        """
        from mlflow.exceptions import MlflowException
        from sqlalchemy.exc import SQLAlchemyError

        try:
            with contextlib.suppress(MlflowException):
                self.client.create_registered_model(name)
            for known in self.client.search_model_versions(f"name = '{name}'"):
                if known.source == source_uri:
                    return RegisteredModel(name, str(known.version))
            version = self.client.create_model_version(
                name, source=source_uri, run_id=run_id, tags=dict(tags), description=description
            )
            self.client.set_registered_model_alias(name, alias, version.version)
        except (MlflowException, SQLAlchemyError) as error:
            raise PlatformError(
                f"the MLflow registry at {self.uri} refused {source_uri} as a version of {name!r} "
                f"({str(error).splitlines()[0][:200]}); the export is kept, run the same command again once mended. "
                "A server accepts no local folder as a source: give storage.root an s3:// URI"
            ) from None
        return RegisteredModel(name, str(version.version))


class StageRun:
    """One MLflow run, written by one process.

    Picklable by (uri, run_id), so that the first training rank can go on writing what the driver opened.
    Every ``log_`` method is safe to call at any time: a failure warns once and the call is kept and
    repeated later, in order.
    """

    def __init__(self, uri: str, run_id: str, client: Any = None) -> None:
        self.uri = uri
        self.run_id = run_id
        self._client = client
        self._pending: list[tuple[str, Callable[[], None]]] = []
        self._warned = False
        self._retry_at = 0.0

    def __reduce__(self) -> tuple[type[StageRun], tuple[str, str]]:
        return StageRun, (self.uri, self.run_id)

    def log_params(self, params: Mapping[str, Any]) -> None:
        """Record settings; long values are cut at MLflow's limit."""
        entries = {key: str(value)[:_PARAM_MAX_CHARACTERS] for key, value in params.items()}

        def send() -> None:
            from mlflow.entities import Param

            items = [Param(key, value) for key, value in entries.items()]
            for start in range(0, len(items), 100):
                self.client.log_batch(self.run_id, params=items[start : start + 100])

        self._send("parameters", send)

    def log_metrics(self, metrics: Mapping[str, float], step: int = 0) -> None:
        """Record numbers at a step, with the time of this call."""
        stamp = int(time.time() * 1000)
        entries = {key: float(value) for key, value in metrics.items()}

        def send() -> None:
            from mlflow.entities import Metric

            self.client.log_batch(
                self.run_id, metrics=[Metric(key, value, stamp, step) for key, value in entries.items()]
            )

        self._send("metrics", send)

    def set_tags(self, tags: Mapping[str, str]) -> None:
        """Set or change tags."""
        entries = dict(tags)

        def send() -> None:
            for key, value in entries.items():
                self.client.set_tag(self.run_id, key, value)

        self._send("tags", send)

    def log_bytes(self, data: bytes, path: str) -> None:
        """Store a small file (a card, a picture, a recipe) among the run's artifacts under ``path``."""

        def send() -> None:
            folder, _, filename = path.rpartition("/")
            with tempfile.TemporaryDirectory() as temporary:
                file = Path(temporary) / filename
                file.write_bytes(data)
                self.client.log_artifact(self.run_id, str(file), folder or None)

        self._send(f"the file {path}", send)

    def log_dataset(self, name: str, uri: str, digest: str, context: str, profile: Mapping[str, Any]) -> None:
        """Record an input dataset by name, place and digest."""
        import json

        def send() -> None:
            from mlflow.entities import Dataset, DatasetInput, InputTag

            dataset = Dataset(
                name=name,
                digest=hashlib.sha256(digest.encode()).hexdigest()[:8] if len(digest) > 36 else digest,
                source_type="baltoro",
                source=json.dumps({"uri": uri}),
                profile=json.dumps(dict(profile)),
            )
            self.client.log_inputs(
                self.run_id, [DatasetInput(dataset, [InputTag("mlflow.data.context", context)])]
            )

        self._send(f"the dataset {name}", send)

    def system_metrics(self) -> Any:
        """Start recording CPU, memory and GPU use of this machine into the run; ``finish()`` stops it."""
        from mlflow.system_metrics.system_metrics_monitor import SystemMetricsMonitor

        # The monitor takes no store of its own: it writes where this process tracks.
        import mlflow

        mlflow.set_tracking_uri(self.uri)
        monitor = SystemMetricsMonitor(self.run_id)
        monitor.start()
        return monitor

    def flush(self) -> None:
        """Send what is kept, if the store answers again."""
        self._retry_at = 0.0
        self._drain()

    def close(self, status: str) -> None:
        """End the run with MLflow's status word; what is still unsent is tried once more."""
        self._retry_at = 0.0
        self._send("the run's end", lambda: self.client.set_terminated(self.run_id, status))
        if self._pending:
            logger.warning(
                "MLflow at %s never accepted %d records of run %s, beginning with %s; the artifacts are complete",
                self.uri,
                len(self._pending),
                self.run_id,
                self._pending[0][0],
            )

    @property
    def client(self) -> Any:
        """The MLflow client of this process."""
        if self._client is None:
            import mlflow

            self._client = mlflow.MlflowClient(tracking_uri=self.uri, registry_uri=self.uri)
        return self._client

    def _send(self, what: str, call: Callable[[], None]) -> None:
        self._pending.append((what, call))
        self._drain()

    def _drain(self) -> None:
        if time.monotonic() < self._retry_at:
            return
        from mlflow.exceptions import MlflowException
        from sqlalchemy.exc import SQLAlchemyError

        while self._pending:
            try:
                self._pending[0][1]()
            except (MlflowException, SQLAlchemyError, OSError) as error:
                self._retry_at = time.monotonic() + 30
                if not self._warned:
                    self._warned = True
                    logger.warning(
                        "MLflow at %s did not take %s (%s); going on, it is sent later",
                        self.uri,
                        self._pending[0][0],
                        str(error).splitlines()[0][:200],
                    )
                return
            self._pending.pop(0)
