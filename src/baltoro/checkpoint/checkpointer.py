"""Taking, publishing and restoring checkpoints of a sharded model.

Saving, on every rank: copy the shards to host memory (training waits for this only), write them with
``torch.distributed.checkpoint`` into a local folder, hash and upload this rank's files, gather the names on
rank 0, which writes ``checkpoint.json`` and then names it in the run's head. A failure on any rank reaches
all of them, at the latest with the next save.
"""

from __future__ import annotations

import hashlib
import io
import json
import logging
import shutil
import threading
from collections.abc import Callable, Mapping
from concurrent.futures import Future
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from baltoro.checkpoint.config import CheckpointConfig
from baltoro.checkpoint.head import Claim, Head, PublishedCheckpoint
from baltoro.checkpoint.state import TrainState, random_state, seed_rank, set_random_state
from baltoro.core.errors import ArtifactError, BaltoroError, StorageError
from baltoro.core.storage import Storage, join
from baltoro.parallel.ranks import Ranks
from baltoro.parallel.strategy import Strategy

if TYPE_CHECKING:
    import torch

MARKER_FILE = "checkpoint.json"
SCHEMA_VERSION = 1
_CLOSE_SECONDS = 60.0
_HASH_CHUNK_BYTES = 1 << 22

_logger = logging.getLogger(__name__)


class Checkpointer:
    """Saves and restores one run; every method is collective.

    Args:
        config: how many are kept, and whether training waits.
        claim: the right to publish.
        device: whose random state is saved.
        scratch: a folder on this machine for files on their way to storage.
    """

    def __init__(
        self, config: CheckpointConfig, *, claim: Claim, device: torch.device, scratch: Path
    ) -> None:
        self._config = config
        self._claim = claim
        self._device = device
        self._scratch = scratch
        # The background thread talks on a channel of its own, and never while another save is in flight.
        self._ranks = Ranks()
        self._pending: Future[None] | None = None
        self._thread: threading.Thread | None = None

    def save(self, strategy: Strategy, state: TrainState) -> None:
        """Take a checkpoint after ``state.step`` steps; waits for an earlier one to be published first.

        Raises:
            StorageError: this or the earlier one could not be written on some rank.
            TrainingError: a newer attempt has claimed the run.
        """
        from torch.distributed.checkpoint.staging import BlockingAsyncStager

        self.wait()
        content = BlockingAsyncStager().stage(strategy.state_dict())
        generators = random_state(self._device)
        pending: Future[None] = Future()

        def run() -> None:
            try:
                self._publish(state, content, generators)
            except BaseException as error:  # noqa: BLE001  (wait() raises it in the training thread)
                pending.set_exception(error)
            else:
                pending.set_result(None)

        # A daemon: a process that is to die must not wait for ranks that are dead already.
        self._thread = threading.Thread(target=run, name="baltoro-checkpoint", daemon=True)
        self._pending = pending
        self._thread.start()
        if not self._config.asynchronous:
            self.wait()

    def wait(self) -> None:
        """Wait until nothing is in flight.

        Raises:
            StorageError: the checkpoint in flight could not be written on some rank.
            TrainingError: a newer attempt has claimed the run.
        """
        if self._pending is not None:
            pending, self._pending = self._pending, None
            pending.result()

    def close(self) -> None:
        """After an error: give a checkpoint in flight a minute; its outcome is not looked at."""
        if self._thread is not None:
            self._thread.join(_CLOSE_SECONDS)

    def _publish(
        self, state: TrainState, content: dict[str, Any], generators: dict[str, torch.Tensor]
    ) -> None:
        folder = f"checkpoints/step-{state.step:08d}-attempt-{self._claim.attempt:04d}"
        folder_uri = join(self._claim.run_uri, folder)
        storage = self._claim.storage
        local = self._scratch / f"step-{state.step:08d}-rank-{self._ranks.rank:05d}"

        def prepare() -> None:
            shutil.rmtree(local, ignore_errors=True)
            try:
                local.mkdir(parents=True)
            except OSError as error:
                raise _unwritable(local, state.step, error) from error

        def write_and_upload() -> dict[str, dict[str, Any]]:
            import torch
            from torch.distributed.checkpoint.api import CheckpointException
            from torch.distributed.checkpoint.filesystem import FileSystemWriter
            from torch.distributed.checkpoint.state_dict_saver import save

            try:
                # What is written here is uploaded from here, so it need not survive a crash: no fsync.
                writer = FileSystemWriter(local, sync_files=False)
                save(content, storage_writer=writer, process_group=self._ranks.group)
                torch.save(generators, local / _random_file(self._ranks.rank))
            except (OSError, RuntimeError, CheckpointException) as error:
                raise _unwritable(local, state.step, error) from error
            files = {path.name: _describe(path) for path in sorted(local.iterdir())}
            storage.upload_folder(local, folder_uri)
            shutil.rmtree(local, ignore_errors=True)
            return files

        self._ranks.each(prepare)
        files: dict[str, dict[str, Any]] = {}
        for share in self._ranks.each(write_and_upload):
            files |= share
        self._ranks.first(lambda: self._name_in_head(state, folder, files))

    def _name_in_head(self, state: TrainState, folder: str, files: Mapping[str, Any]) -> None:
        storage, run_uri = self._claim.storage, self._claim.run_uri
        marker = {
            "schema_version": SCHEMA_VERSION,
            "state": asdict(state),
            "attempt": self._claim.attempt,
            "world_size": self._ranks.world_size,
            "files": dict(sorted(files.items())),
        }
        data = (json.dumps(marker, indent=1, sort_keys=True) + "\n").encode()
        storage.create(join(run_uri, folder, MARKER_FILE), data)
        dropped = self._claim.publish_checkpoint(
            PublishedCheckpoint(
                step=state.step,
                tokens_seen=state.tokens_seen,
                attempt=self._claim.attempt,
                folder=folder,
                sha256=hashlib.sha256(data).hexdigest(),
            ),
            keep_last=self._config.keep_last,
        )
        for checkpoint in dropped:
            _remove(storage, join(run_uri, checkpoint.folder))

    def restore(self, strategy: Strategy, head: Head, *, seed: int) -> TrainState | None:
        """Load the newest published checkpoint, on any world size.

        Args:
            strategy: already set up; its weights and moments are overwritten.
            head: as the claim returned it.
            seed: for random generators on another world size, which get fresh streams.

        Returns:
            Where the run stands; ``None`` if it has no checkpoint.

        Raises:
            ArtifactError: a file of the checkpoint is missing or damaged; names it.
        """
        if not head.checkpoints:
            return None
        from torch.distributed.checkpoint.api import CheckpointException
        from torch.distributed.checkpoint.state_dict_loader import load

        from baltoro.checkpoint.shards import StoredShards

        checkpoint = head.checkpoints[-1]
        folder_uri = join(self._claim.run_uri, checkpoint.folder)
        marker = self._ranks.first(lambda: _read_marker(self._claim.storage, folder_uri, checkpoint.sha256))
        self._ranks.each(self._verifier(folder_uri, marker["files"]))
        content = strategy.state_dict()
        reader = StoredShards(self._claim.storage, folder_uri)
        try:
            load(content, storage_reader=reader, process_group=self._ranks.group)
        except CheckpointException as error:
            raise ArtifactError(
                f"{folder_uri}: cannot be loaded into this model ({_reason(error)}); the recipe's "
                "model must be the one the run was started with"
            ) from error
        strategy.load_state_dict(content)
        state = TrainState(**marker["state"])
        if marker["world_size"] == self._ranks.world_size:
            import torch

            data = self._claim.storage.read_bytes(join(folder_uri, _random_file(self._ranks.rank)))
            set_random_state(torch.load(io.BytesIO(data), weights_only=True), self._device)
        else:
            seed_rank(seed, step=state.step, rank=self._ranks.rank)
        return state

    def _verifier(self, folder_uri: str, files: Mapping[str, Any]) -> Callable[[], None]:
        """Return this rank's share of the check that every file is what the marker says."""
        storage = self._claim.storage

        def verify() -> None:
            for name in sorted(files)[self._ranks.rank :: self._ranks.world_size]:
                uri = join(folder_uri, name)
                info = storage.stat(uri, with_etag=False)
                found = None if info is None else _describe_stored(storage, uri)
                if found != files[name]:
                    state = "missing" if found is None else "damaged"
                    raise ArtifactError(
                        f"{uri}: is {state}; restore the file, or remove this checkpoint from "
                        f"{self._claim.run_uri}/head.json to resume from an older one"
                    )

        return verify


def collect_abandoned(claim: Claim, head: Head) -> list[str]:
    """Remove checkpoint folders that no head names, left behind by attempts before the claimed one.

    They can no longer be published, since every publish needs the claim. One process calls this.

    Returns:
        The folders removed.
    """
    root = join(claim.run_uri, "checkpoints")
    named = {checkpoint.folder for checkpoint in head.checkpoints}
    removed = []
    for name in claim.storage.list_folders(root):
        if f"checkpoints/{name}" not in named and not name.endswith(f"attempt-{claim.attempt:04d}"):
            _remove(claim.storage, join(root, name))
            removed.append(f"checkpoints/{name}")
    return removed


def _read_marker(storage: Storage, folder_uri: str, sha256: str) -> dict[str, Any]:
    uri = join(folder_uri, MARKER_FILE)
    data = storage.read_bytes(uri)
    if hashlib.sha256(data).hexdigest() != sha256:
        raise ArtifactError(f"{uri}: is not the file that the run's head names; restore it from a backup")
    marker: dict[str, Any] = json.loads(data)
    if marker["schema_version"] != SCHEMA_VERSION:
        raise ArtifactError(
            f"{uri}: has schema version {marker['schema_version']}, this Baltoro reads {SCHEMA_VERSION}; "
            "use the version that wrote it"
        )
    return marker


def _random_file(rank: int) -> str:
    return f"random-{rank:05d}.pt"


def _describe(path: Path) -> dict[str, Any]:
    with path.open("rb") as stream:
        return _describe_stream(stream)


def _describe_stored(storage: Storage, uri: str) -> dict[str, Any]:
    with storage.open(uri) as stream:
        return _describe_stream(stream)


def _describe_stream(stream: Any) -> dict[str, Any]:
    digest, size_bytes = hashlib.sha256(), 0
    while chunk := stream.read(_HASH_CHUNK_BYTES):
        digest.update(chunk)
        size_bytes += len(chunk)
    return {"bytes": size_bytes, "sha256": digest.hexdigest()}


def _remove(storage: Storage, folder_uri: str) -> None:
    try:
        storage.delete_folder(folder_uri)
    except BaltoroError as error:
        # Space that is not freed is no reason to stop a training run.
        _logger.warning("%s: an old checkpoint could not be removed: %s", folder_uri, error.message)


def _unwritable(local: Path, step: int, error: BaseException) -> StorageError:
    return StorageError(
        f"{local}: the checkpoint of step {step} cannot be written ({_reason(error)}); free disk space there"
    )


def _reason(error: BaseException) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[-1]
