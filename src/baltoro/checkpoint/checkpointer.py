"""Taking, publishing and restoring checkpoints of a sharded model.

Saving, on every rank: copy the shards to host memory (training waits for this only), write them straight to
storage with their checksums, gather the names on rank 0, which writes ``checkpoint.json`` and then names it,
and the ledger up to it, in the run's head. A failure on any rank reaches all of them, at the latest with the
next save.
"""

from __future__ import annotations

import hashlib
import io
import logging
import math
import threading
import time
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from baltoro.checkpoint.config import CheckpointConfig
from baltoro.checkpoint.head import Claim, Head, PublishedCheckpoint
from baltoro.checkpoint.ledger import FOLDER as LEDGER_FOLDER
from baltoro.checkpoint.ledger import Ledger, PendingSegment, is_open_journal
from baltoro.checkpoint.marker import MARKER_FILE, DamagedError, FileRecord, Marker, find_damage, read_marker
from baltoro.checkpoint.state import TrainState, random_state, seed_rank, set_random_state
from baltoro.core.errors import ArtifactError, BaltoroError, StorageError
from baltoro.core.storage import join
from baltoro.parallel.ranks import Ranks
from baltoro.parallel.strategy import Strategy

if TYPE_CHECKING:
    import torch
    from torch.distributed.checkpoint.api import CheckpointException

    from baltoro.checkpoint.staging import StagedPlanner

_CLOSE_SECONDS = 60.0
_REMEMBERED_SAVES = 5
_LONG_WAIT_SECONDS = 1.0

_logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class SaveTimes:
    """How long one save took.

    Attributes:
        step: steps done.
        waited_seconds: training waited for the save before it.
        staged_seconds: training waited for the copy to host memory.
        written_seconds: from then until the head named the checkpoint.
    """

    step: int
    waited_seconds: float
    staged_seconds: float
    written_seconds: float


@dataclass(slots=True)
class _Save:
    """A save under way."""

    state: TrainState
    validation_loss: float | None
    planner: StagedPlanner
    generators: dict[str, torch.Tensor]
    segment: PendingSegment | None
    began: float
    waited_seconds: float
    staged_seconds: float
    done: Future[None]


class Checkpointer:
    """Saves and restores one run; every method is collective.

    Args:
        config: which are kept, whether training waits, and what happens to a damaged one.
        claim: the right to publish.
        device: where the model is, and whose random state is saved.
        ledger: published with each checkpoint; rank 0's, the others have none.
        timeout_seconds: that ranks wait for each other; PyTorch's default if not given.

    Attributes:
        last_save: how long the newest published one took.
    """

    def __init__(
        self,
        config: CheckpointConfig,
        *,
        claim: Claim,
        device: torch.device,
        ledger: Ledger | None = None,
        timeout_seconds: float | None = None,
    ) -> None:
        from baltoro.checkpoint.staging import HostCopies

        self._config = config
        self._claim = claim
        self._device = device
        self._ledger = ledger
        # The background thread talks on a channel of its own, and never while another save is in flight.
        self._ranks = Ranks(timeout_seconds)
        self._training_ranks = Ranks(timeout_seconds)
        self._copies = HostCopies(device)
        self._saving: _Save | None = None
        self._thread: threading.Thread | None = None
        self._saved_step: int | None = None
        self._seconds: deque[float] = deque(maxlen=_REMEMBERED_SAVES)
        self.last_save: SaveTimes | None = None

    @property
    def save_takes_seconds(self) -> float | None:
        """How long a save takes until it is published: the longest of the last few, restored one included."""
        return max(self._seconds, default=None)

    def save(self, strategy: Strategy, state: TrainState, *, validation_loss: float | None = None) -> None:
        """Take a checkpoint after ``state.step`` steps; waits for an earlier one to be published first.

        A step that is saved already, or being saved, is not saved again.

        Args:
            strategy: whose weights and moments are saved.
            state: where the run stands.
            validation_loss: the newest one, nats per token; retention by validation loss goes by it.

        Raises:
            StorageError: this or the earlier one could not be written on some rank.
            TrainingError: a newer attempt has claimed the run.
        """
        if state.step == self._saved_step:
            return
        asked = time.monotonic()
        self.wait()
        began = time.monotonic()
        planner = self._copies.take(strategy.state_dict(), self._training_ranks)
        save = _Save(
            state=state,
            validation_loss=_finite(validation_loss),
            planner=planner,
            generators=random_state(self._device),
            segment=self._ledger.segment_for_checkpoint() if self._ledger is not None else None,
            began=began,
            waited_seconds=began - asked,
            staged_seconds=time.monotonic() - began,
            done=Future(),
        )
        if save.waited_seconds > _LONG_WAIT_SECONDS:
            _logger.warning(
                "step %d: training waited %.1f s for the checkpoint before to be published; a larger "
                "checkpoint.every_steps avoids that",
                state.step,
                save.waited_seconds,
            )

        def run() -> None:
            try:
                self._publish(save)
            except BaseException as error:  # noqa: BLE001  (wait() raises it in the training thread)
                save.done.set_exception(error)
            else:
                save.done.set_result(None)

        # A daemon: a process that is to die must not wait for ranks that are dead already.
        self._thread = threading.Thread(target=run, name="baltoro-checkpoint", daemon=True)
        self._saving, self._saved_step = save, state.step
        self._thread.start()
        if not self._config.asynchronous:
            self.wait()

    def save_if_it_fits(
        self,
        strategy: Strategy,
        state: TrainState,
        grace_seconds: float,
        *,
        validation_loss: float | None = None,
    ) -> bool:
        """Save and wait until it is published, unless that takes longer than there is time.

        What it takes is judged by earlier saves; where there is none yet, nothing speaks against trying. All
        ranks decide alike, by the longest estimate and the shortest time among them.

        Args:
            strategy: whose weights and moments are saved.
            state: where the run stands.
            grace_seconds: time left on this rank.
            validation_loss: as for :meth:`save`.

        Returns:
            Whether a checkpoint of this step is published.

        Raises:
            StorageError: it could not be written on some rank.
            TrainingError: a newer attempt has claimed the run.
        """
        takes_seconds = self.save_takes_seconds or 0.0
        needed_seconds = 0.0 if state.step == self._saved_step else takes_seconds
        if self._saving is not None and not self._saving.done.done():
            needed_seconds += max(takes_seconds - (time.monotonic() - self._saving.began), 0.0)
        shares = self._training_ranks.each(lambda: (needed_seconds, grace_seconds))
        needed_seconds, grace_seconds = max(n for n, _ in shares), min(g for _, g in shares)
        if needed_seconds > grace_seconds:
            _logger.warning(
                "step %d: no checkpoint is begun: saves have taken %.1f s, %.1f s are left",
                state.step,
                needed_seconds,
                grace_seconds,
            )
            return False
        self.save(strategy, state, validation_loss=validation_loss)
        self.wait()
        return True

    def wait(self) -> None:
        """Wait until nothing is in flight.

        Raises:
            StorageError: the checkpoint in flight could not be written on some rank.
            TrainingError: a newer attempt has claimed the run.
        """
        if self._saving is not None:
            save, self._saving = self._saving, None
            try:
                save.done.result()
            except BaseException:
                self._saved_step = None
                raise

    def close(self) -> None:
        """After an error: give a checkpoint in flight a minute; its outcome is not looked at."""
        if self._thread is not None:
            self._thread.join(_CLOSE_SECONDS)

    def _publish(self, save: _Save) -> None:
        from torch.distributed.checkpoint.api import CheckpointException
        from torch.distributed.checkpoint.state_dict_saver import save as save_shards

        from baltoro.checkpoint.shards import ShardWriter

        step = save.state.step
        folder = f"checkpoints/step-{step:08d}-attempt-{self._claim.attempt:04d}"
        writer = ShardWriter(self._claim.storage, join(self._claim.run_uri, folder))
        try:
            save_shards({}, storage_writer=writer, planner=save.planner, process_group=self._ranks.group)
        except CheckpointException as error:
            raise _cause(error, f"the checkpoint of step {step} cannot be written") from error

        def finish_share() -> dict[str, FileRecord]:
            writer.write_file(_random_file(self._ranks.rank), _saved(save.generators))
            return writer.files

        files: dict[str, FileRecord] = {}
        for share in self._ranks.each(finish_share):
            files |= share
        self._ranks.first(lambda: self._name_in_head(save, folder, files))
        now = time.monotonic()
        self._seconds.append(now - save.began)
        self.last_save = SaveTimes(
            step=step,
            waited_seconds=save.waited_seconds,
            staged_seconds=save.staged_seconds,
            written_seconds=now - save.began - save.staged_seconds,
        )

    def _name_in_head(self, save: _Save, folder: str, files: dict[str, FileRecord]) -> None:
        storage, run_uri, state = self._claim.storage, self._claim.run_uri, save.state
        data = Marker(
            state=state,
            attempt=self._claim.attempt,
            world_size=self._ranks.world_size,
            validation_loss=save.validation_loss,
            save_seconds=time.monotonic() - save.began,
            files=files,
        ).encode()
        storage.create(join(run_uri, folder, MARKER_FILE), data)
        segment = None
        if save.segment is not None:
            segment = save.segment.segment
            storage.write_bytes(join(run_uri, segment.name), save.segment.data)
        dropped = self._claim.publish_checkpoint(
            PublishedCheckpoint(
                step=state.step,
                tokens_seen=state.tokens_seen,
                attempt=self._claim.attempt,
                folder=folder,
                sha256=hashlib.sha256(data).hexdigest(),
                validation_loss=save.validation_loss,
            ),
            retention=self._config,
            segment=segment,
        )
        if self._ledger is not None and segment is not None:
            self._ledger.published(segment)
        for checkpoint in dropped:
            _remove(storage.delete_folder, join(run_uri, checkpoint.folder))

    def restore(self, strategy: Strategy, head: Head, *, seed: int) -> TrainState | None:
        """Load the newest published checkpoint, on any world size.

        Every file is held against its checksum first, each rank a share of them. With ``on_damage: previous``
        a damaged checkpoint is passed over, which the head then says.

        Args:
            strategy: already set up; its weights and moments are overwritten.
            head: as the claim returned it, or read since.
            seed: for random generators on another world size, which get fresh streams.

        Returns:
            Where the run stands; ``None`` if it has no checkpoint.

        Raises:
            ArtifactError: a file of the checkpoint is missing or damaged; names it.
        """
        self.wait()
        self._saved_step = None
        if not head.checkpoints:
            return None
        checkpoint, marker = self._intact(head)
        folder_uri = join(self._claim.run_uri, checkpoint.folder)
        self._load(strategy, folder_uri)
        self._seconds.append(marker.save_seconds)
        if marker.world_size == self._ranks.world_size:
            import torch

            data = self._claim.storage.read_bytes(join(folder_uri, _random_file(self._ranks.rank)))
            set_random_state(torch.load(io.BytesIO(data), weights_only=True), self._device)
        else:
            seed_rank(seed, step=marker.state.step, rank=self._ranks.rank)
        return marker.state

    def _intact(self, head: Head) -> tuple[PublishedCheckpoint, Marker]:
        """Return the newest checkpoint that may be resumed from."""
        checkpoint = head.checkpoints[-1]
        for before in reversed((None, *head.checkpoints[:-1])):
            marker, damage = self._examine(checkpoint)
            if marker is not None:
                return checkpoint, marker
            self._pass_over(checkpoint, before, damage)
            assert before is not None
            checkpoint = before
        raise AssertionError("unreachable: passing over the oldest raises")

    def _examine(self, checkpoint: PublishedCheckpoint) -> tuple[Marker | None, list[str]]:
        """Return the marker of a checkpoint, or what is wrong with its files; the same on every rank."""
        storage, folder_uri = self._claim.storage, join(self._claim.run_uri, checkpoint.folder)

        def read() -> Marker | str:
            try:
                return read_marker(storage, folder_uri, checkpoint.sha256)
            except DamagedError as error:
                return error.message

        marker = self._ranks.first(read)
        if isinstance(marker, str):
            return None, [marker]
        files = marker.files
        mine = sorted(files)[self._ranks.rank :: self._ranks.world_size]
        found = self._ranks.each(
            lambda: find_damage(storage, folder_uri, {name: files[name] for name in mine})
        )
        damage = sorted(sentence for share in found for sentence in share)
        return (None, damage) if damage else (marker, [])

    def _pass_over(
        self, checkpoint: PublishedCheckpoint, before: PublishedCheckpoint | None, damage: list[str]
    ) -> None:
        said = "; ".join(damage)
        if self._config.on_damage == "stop" or before is None:
            way = (
                f"set pretrain.checkpoint.on_damage=previous to resume from step {before.step} instead"
                if before is not None
                else "there is no older checkpoint: remove the run folder to train anew"
            )
            raise ArtifactError(f"{said}; restore from a backup what is damaged, or {way}")
        self._ranks.first(lambda: self._claim.publish_passed_over(checkpoint, damage))
        if self._ranks.rank == 0:
            _logger.error(
                "THE CHECKPOINT OF STEP %d IS DAMAGED (%s) and is passed over: training goes on from step "
                "%d, and steps %d to %d are done again; its files are left as they are",
                checkpoint.step,
                said,
                before.step,
                before.step + 1,
                checkpoint.step,
            )

    def _load(self, strategy: Strategy, folder_uri: str) -> None:
        from torch.distributed.checkpoint.api import CheckpointException
        from torch.distributed.checkpoint.state_dict_loader import load

        from baltoro.checkpoint.shards import StoredShards
        from baltoro.checkpoint.staging import ShardLoadPlanner

        content = strategy.state_dict()
        reader = StoredShards(self._claim.storage, folder_uri)
        try:
            load(content, storage_reader=reader, planner=ShardLoadPlanner(), process_group=self._ranks.group)
        except CheckpointException as error:
            failure = _first_failure(error)
            if isinstance(failure, BaltoroError):
                raise failure from error
            raise ArtifactError(
                f"{folder_uri}: cannot be loaded into this model ({_reason(failure)}); the recipe's "
                "model must be the one the run was started with"
            ) from error
        strategy.load_state_dict(content)


def collect_abandoned(claim: Claim, head: Head) -> list[str]:
    """Remove checkpoints and ledger segments that no head names, left by attempts before the claimed one.

    They can no longer be published, since every publish needs the claim. One process calls this.

    Returns:
        The folders and segments removed.
    """
    storage = claim.storage
    own = f"-{claim.attempt:04d}"
    named = {checkpoint.folder for checkpoint in head.checkpoints}
    # A person may still want to repair a damaged one.
    named |= {passed.checkpoint.folder for passed in head.passed_over}
    named |= {segment.name for segment in head.ledger}
    removed = []
    for name in storage.list_folders(join(claim.run_uri, "checkpoints")):
        folder = f"checkpoints/{name}"
        if folder not in named and not name.endswith(own):
            _remove(storage.delete_folder, join(claim.run_uri, folder))
            removed.append(folder)
    for info in list(storage.list(join(claim.run_uri, LEDGER_FOLDER), with_etag=False)):
        segment = f"{LEDGER_FOLDER}/{info.key}"
        if not (segment in named or is_open_journal(info.key) or segment.endswith(f"{own}.jsonl")):
            _remove(storage.delete, info.uri)
            removed.append(segment)
    return removed


def _random_file(rank: int) -> str:
    return f"random-{rank:05d}.pt"


def _saved(value: Any) -> bytes:
    import torch

    content = io.BytesIO()
    torch.save(value, content)
    return content.getvalue()


def _remove(delete: Callable[[str], None], uri: str) -> None:
    try:
        delete(uri)
    except BaltoroError as error:
        # Space that is not freed is no reason to stop a training run.
        _logger.warning("%s: is no longer needed, but could not be removed: %s", uri, error.message)


def _finite(loss: float | None) -> float | None:
    return loss if loss is not None and math.isfinite(loss) else None


def _cause(error: CheckpointException, said: str) -> BaseException:
    """Return what the first failing rank raised, as an error that a person can read."""
    failure = _first_failure(error)
    return failure if isinstance(failure, BaltoroError) else StorageError(f"{said} ({_reason(failure)})")


def _first_failure(error: CheckpointException) -> BaseException:
    failure, _ = error.failures[min(error.failures)]
    return failure


def _reason(error: BaseException) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[-1]
