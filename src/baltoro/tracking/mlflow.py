"""MLflow runs and registry behind a small surface; the only module that imports mlflow.

The driver prepares the store once (:meth:`Tracker.prepare`) before any other process opens it, since a
fresh SQLite file does not survive several creators. One process at a time writes a run. A store that is
unreachable while a run goes on costs a warning and never the run: what could not be sent is kept in
order and sent with a later call, and at the latest when the run is closed.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import logging
import os
import sqlite3
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import unquote

from baltoro.core.errors import PlatformError

logger = logging.getLogger(__name__)

_PARAM_MAX_CHARACTERS = 6000
_RETRY_AFTER_SECONDS = 30.0
_REGISTERED_TAG = "baltoro.alias_set"
_DATABASE_TAG = "baltoro.database"
_SQLITE = "sqlite:///"


def sqlite_file(uri: str) -> Path | None:
    """Return the database file of a SQLite tracking URI (its path is percent-decoded), else ``None``."""
    if not uri.startswith(_SQLITE):
        return None
    return Path(unquote(uri.removeprefix(_SQLITE).partition("?")[0]))


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
    """

    uri: str
    experiment: str
    _client: Any = field(default=None, repr=False)
    _experiment_id: str = ""

    def prepare(self) -> None:
        """Create or migrate the store and the experiment.

        Raises:
            PlatformError: the store cannot be opened or the server does not answer.
        """
        _settle_mlflow()
        import mlflow
        from mlflow.exceptions import MlflowException
        from sqlalchemy.exc import SQLAlchemyError

        file = sqlite_file(self.uri)
        try:
            with _alone_with(file):
                self._client = mlflow.MlflowClient(tracking_uri=self.uri, registry_uri=self.uri)
                found = self._client.get_experiment_by_name(self.experiment)
                if found is not None and file is not None and self._set_aside_if_moved(found, file):
                    found = None
                if found is None:
                    # Without a server nobody but us decides where files go: beside the database.
                    location = None if file is None else (file.parent.absolute() / "mlflow").as_uri()
                    self._experiment_id = self._create_experiment(location, file)
                else:
                    if found.lifecycle_stage == "deleted":
                        self._client.restore_experiment(found.experiment_id)
                    self._experiment_id = found.experiment_id
        except (MlflowException, SQLAlchemyError, sqlite3.Error, OSError, ImportError) as error:
            raise PlatformError(
                f"tracking.uri: the MLflow store at {self.uri} cannot be used ({_first_line(error)}); "
                "correct tracking.uri or MLFLOW_TRACKING_URI, start the server, or give sqlite:///FILE"
            ) from None

    def _set_aside_if_moved(self, found: Any, file: Path) -> bool:
        """Rename an experiment whose files stand where its database was copied from.

        MLflow keeps absolute places, and new runs would write their files into the old folder.
        """
        made_at = found.tags.get(_DATABASE_TAG)
        if made_at is None or made_at == str(file.absolute()):
            return False
        aside = f"{self.experiment} (of {Path(made_at).parent}, {found.experiment_id})"
        self._client.rename_experiment(found.experiment_id, aside)
        logger.warning(
            "the MLflow database %s was copied or moved from %s; its runs so far are kept as the experiment "
            "%r, whose files stand in %s",
            file,
            made_at,
            aside,
            found.artifact_location,
        )
        return True

    def _create_experiment(self, artifact_location: str | None, file: Path | None) -> str:
        from mlflow.exceptions import MlflowException

        try:
            created = self._client.create_experiment(
                self.experiment,
                artifact_location=artifact_location,
                # Opens the page that compares training runs, instead of the one for prompts and traces.
                tags={
                    "mlflow.experimentKind": "custom_model_development",
                    **({_DATABASE_TAG: str(file.absolute())} if file is not None else {}),
                },
            )
        except MlflowException:
            # Another command may have created it between our look and our try.
            found = self._client.get_experiment_by_name(self.experiment)
            if found is None:
                raise
            created = found.experiment_id
        return str(created)

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
        """Open a run, nested in a parent if given; it ends FINISHED, or FAILED when the block raises.

        Raises:
            PlatformError: the store does not take a new run.
        """
        from mlflow.exceptions import MlflowException
        from sqlalchemy.exc import SQLAlchemyError

        all_tags = {"mlflow.source.name": "baltoro", "mlflow.source.type": "JOB", **(tags or {})}
        if parent_run_id is not None:
            all_tags["mlflow.parentRunId"] = parent_run_id
        try:
            created = self.client.create_run(self._experiment_id, run_name=name, tags=all_tags)
        except (MlflowException, SQLAlchemyError, OSError) as error:
            raise PlatformError(
                f"the MLflow store at {self.uri} takes no new run for {name} ({_first_line(error)}); what is "
                "built is kept, the same command goes on once the store answers"
            ) from None
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

        A folder that is already registered under this name is not registered twice, and once its alias was
        set, that is left where it has been moved to since.

        Raises:
            PlatformError: the registry refused; the export itself is kept.
        """
        from mlflow.exceptions import MlflowException
        from sqlalchemy.exc import SQLAlchemyError

        try:
            with contextlib.suppress(MlflowException):
                self.client.create_registered_model(name)
            known = self.client.search_model_versions(f"name = '{name}'")
            version = next((entry for entry in known if entry.source == source_uri), None)
            if version is None:
                version = self.client.create_model_version(
                    name, source=source_uri, run_id=run_id, tags=dict(tags), description=description
                )
            # The tag comes last, so that an interrupted registration is completed by the next.
            if _REGISTERED_TAG not in version.tags:
                self.client.set_registered_model_alias(name, alias, version.version)
                self.client.set_model_version_tag(name, version.version, _REGISTERED_TAG, alias)
        except (MlflowException, SQLAlchemyError, OSError) as error:
            raise PlatformError(
                f"the MLflow registry at {self.uri} refused {source_uri} as a version of {name!r} "
                f"({_first_line(error)}); the export is kept, run the same command again once mended. "
                "A server accepts no local folder as a source: give storage.root an s3:// URI"
            ) from None
        return RegisteredModel(name, str(version.version))


class StageRun:
    """One MLflow run, written by one process.

    Picklable by (uri, run_id), so that the first training rank can go on writing what the driver opened.
    Every ``log_`` method is safe to call at any time: a failure warns once and the call is kept and
    repeated later, in order. What the store refuses for its content would be refused for ever, so that is
    left out with a warning.
    """

    def __init__(self, uri: str, run_id: str, client: Any = None) -> None:
        self.uri = uri
        self.run_id = run_id
        self._client = client
        self._pending: list[tuple[str, Callable[[], None]]] = []
        self._warned: set[str] = set()
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
        """Start recording CPU, memory and GPU use of this machine into the run.

        Returns:
            A monitor, which ``finish()`` stops; ``None``, after a warning, where it cannot start.
        """
        _settle_mlflow()
        try:
            from mlflow.system_metrics.system_metrics_monitor import SystemMetricsMonitor

            monitor = SystemMetricsMonitor(self.run_id, tracking_uri=self.uri)
            monitor.start()
        except Exception as error:  # noqa: BLE001  (each platform's probes fail in their own way)
            logger.warning("the run goes on without system metrics (%s)", _first_line(error))
            return None
        return monitor

    def flush(self) -> None:
        """Send what is kept, if the store answers again; warn of what it still does not take."""
        self._retry_at = 0.0
        self._drain()
        if self._pending:
            logger.warning(
                "MLflow at %s never took %d records of run %s, beginning with %s; "
                "what was written into storage is not touched by that",
                self.uri,
                len(self._pending),
                self.run_id,
                self._pending[0][0],
            )

    def close(self, status: str) -> None:
        """End the run with MLflow's status word; what is still unsent is tried once more."""
        self._pending.append(("the run's end", lambda: self.client.set_terminated(self.run_id, status)))
        self.flush()

    @property
    def client(self) -> Any:
        """The MLflow client of this process."""
        if self._client is None:
            _settle_mlflow()
            import mlflow

            self._client = mlflow.MlflowClient(tracking_uri=self.uri, registry_uri=self.uri)
        return self._client

    def _send(self, what: str, call: Callable[[], None]) -> None:
        self._pending.append((what, call))
        self._drain()

    def _drain(self) -> None:
        if time.monotonic() < self._retry_at:
            return
        while self._pending:
            what, call = self._pending[0]
            try:
                call()
            except Exception as error:  # noqa: BLE001  (MLflow, SQLAlchemy, requests, boto3 …: none may end a run)
                if not _is_refusal(error):
                    self._retry_at = time.monotonic() + _RETRY_AFTER_SECONDS
                    self._warn_once("late", "did not take", what, error, "going on, it is sent later")
                    return
                self._warn_once(what, "refuses", what, error, "going on without it")
            self._pending.pop(0)

    def _warn_once(self, about: str, verb: str, what: str, error: Exception, outcome: str) -> None:
        if about not in self._warned:
            self._warned.add(about)
            logger.warning("MLflow at %s %s %s (%s); %s", self.uri, verb, what, _first_line(error), outcome)


def _settle_mlflow() -> None:
    """Make MLflow quiet and quick to give up, unless the environment says otherwise."""
    defaults = {
        "GIT_PYTHON_REFRESH": "quiet",
        # A server that is away must not hold training for the minutes that MLflow would try.
        "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "3",
        "MLFLOW_HTTP_REQUEST_TIMEOUT": "30",
        # Standard output belongs to `--json`.
        "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT": "true",
    }
    for name, value in defaults.items():
        os.environ.setdefault(name, value)
    logging.getLogger("alembic").setLevel(logging.WARNING)
    # Each retry would be a line of its own before the one that says what happened.
    logging.getLogger("urllib3.connectionpool").setLevel(logging.ERROR)
    # It prints tracebacks of what is told in one line here.
    logging.getLogger("mlflow.store.db.utils").setLevel(logging.CRITICAL)


@contextlib.contextmanager
def _alone_with(file: Path | None) -> Iterator[None]:
    """Hold a SQLite file, if it is one, against other commands; MLflow makes and migrates tables unguarded.

    The file is proved writable first: MLflow itself tries for 100 seconds before it says that it is not.

    Raises:
        sqlite3.Error: it is no database, read-only, or cannot be opened.
        OSError: its folder cannot be made.
    """
    if file is None:
        yield
        return
    file.parent.mkdir(parents=True, exist_ok=True)
    with (file.parent / f".{file.name}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        with contextlib.closing(sqlite3.connect(file, timeout=30)) as connection:
            connection.execute("BEGIN IMMEDIATE")
            connection.rollback()
        yield


def _is_refusal(error: Exception) -> bool:
    from mlflow.exceptions import MlflowException

    return isinstance(error, MlflowException) and error.error_code == "INVALID_PARAMETER_VALUE"


def _first_line(error: Exception) -> str:
    text = str(error).strip() or type(error).__name__
    return text.splitlines()[0][:200]
