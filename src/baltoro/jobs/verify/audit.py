"""The audit of a run from its own ledger: what it says it was fed is recomputed from the token dataset."""

from __future__ import annotations

from collections.abc import Sequence

from baltoro.checkpoint.audit import audit_ledger
from baltoro.checkpoint.head import Head, read_head
from baltoro.checkpoint.ledger import LedgerRecord, accepted, read_ledger
from baltoro.checkpoint.marker import DamagedError, find_damage, read_marker
from baltoro.core.artifacts import Artifact, ArtifactStore
from baltoro.core.errors import ArtifactError, InputError
from baltoro.core.storage import Storage, join
from baltoro.data.collate import collate
from baltoro.data.digest import digest_rows, digest_text
from baltoro.data.order import StepOrder
from baltoro.data.shards import TokenDataset
from baltoro.jobs.extend import part_chain
from baltoro.jobs.stages import Context
from baltoro.jobs.tokens import split_files
from baltoro.jobs.verify.certificate import Certificate, RunVerdict


def audit(context: Context, run: str) -> tuple[Certificate, dict[str, Artifact]]:
    """Audit a run, finished or not.

    Args:
        context: gives the storage root.
        run: a run's name under that root (its newest one is meant), or the URI of its folder.

    Returns:
        The certificate, and the artifacts it is about by role.

    Raises:
        InputError: there is no such run.
        ArtifactError: head, ledger or token dataset cannot be read.
    """
    store = context.store
    uri = find_run(store, run)
    tokens = tokens_of(store, _head(store.storage, uri), uri)
    verdict = audit_run(store, uri, name=run)
    records = accepted(read_ledger(store.storage, uri))
    certificate = Certificate(
        about=run,
        kind="audit",
        settings={"run": uri, "tokens": tokens.uri},
        verdicts=(verdict,),
        not_done=(),
        losses={run: [(record.step, record.loss) for record in records]},
    )
    return certificate, {"tokens": tokens}


def audit_run(store: ArtifactStore, run_uri: str, *, name: str) -> RunVerdict:
    """Return what the ledger of one run proves.

    Args:
        store: has the run's token dataset.
        run_uri: folder of the run.
        name: how people know it.

    Raises:
        ArtifactError: head, ledger or token dataset cannot be read.
    """
    head = _head(store.storage, run_uri)
    records = read_ledger(store.storage, run_uri)
    parts = part_chain(store, tokens_of(store, head, run_uri))
    with TokenDataset.open(tuple(split_files(parts, "train")), store.storage) as dataset:
        order = _order(records, dataset, run_uri)

        def expected_digest(step: int) -> str:
            rows = order.rows_of_step(step)
            return digest_text(digest_rows(rows, collate(dataset.read_rows(rows.start, rows.stop))))

        found = audit_ledger(
            records, head, expected_digest=expected_digest, rows_per_step=order.rows_per_step
        )
    return RunVerdict(
        name=name,
        steps=found.steps,
        rows_once=found.rows_once,
        order_equal=found.order_equal,
        attempts=len(head.attempts),
        world_sizes=tuple(attempt.world_size for attempt in head.attempts),
        findings=(*found.findings, *find_lost_files(store.storage, run_uri, head)),
        notes=tuple(notes_on(head, records)),
    )


def notes_on(head: Head, records: Sequence[LedgerRecord]) -> list[str]:
    """Return a sentence on each thing about a run that is right and should be known.

    Args:
        head: of the run.
        records: all of its ledger.
    """
    notes = []
    if head.finished is None:
        last = max((record.step for record in accepted(records)), default=-1)
        notes.append(
            f"the run is unfinished: this is about its first {last + 1} steps; audit it again when it is done"
        )
    notes += [
        f"attempt {over.attempt} resumed from an older checkpoint, since that of step {over.checkpoint.step} "
        f"was damaged: {'; '.join(over.damage)}"
        for over in head.passed_over
    ]
    return notes


def find_lost_files(storage: Storage, run_uri: str, head: Head) -> list[str]:
    """Return a sentence on each thing that the run would resume or be used from and that is not whole.

    The newest checkpoint is read as resuming reads it, each file against its checksum; older ones are kept
    for people and not looked at. Of a finished run the export must be there.

    Args:
        storage: gives access to the run.
        run_uri: folder of the run.
        head: of the run.

    Raises:
        ArtifactError: another version of Baltoro wrote the checkpoint.
    """
    lost = []
    if head.checkpoints:
        newest = head.checkpoints[-1]
        folder = join(run_uri, newest.folder)
        try:
            lost += find_damage(storage, folder, read_marker(storage, folder, newest.sha256).files)
        except DamagedError as error:
            lost.append(error.message)
    if head.finished is not None:
        export = join(run_uri, head.finished.export)
        if not any(True for _ in storage.list(export, with_etag=False)):
            lost.append(f"{export}: is missing; the head names it as the finished export")
    return lost


def find_run(store: ArtifactStore, run: str) -> str:
    """Return the folder of a run given by name or URI.

    Raises:
        InputError: nothing was ever trained there.
    """
    if "/" in run:
        if read_head(store.storage, run) is None:
            raise InputError(
                f"--run {run}: there is no head.json, so nothing was ever trained there; give the folder "
                "RUN/NAME/FINGERPRINT of a run, or its name"
            )
        return run
    folder = join(store.root_uri, "run", run)
    heads = {
        uri: head
        for uri in (join(folder, name) for name in store.storage.list_folders(folder))
        if (head := read_head(store.storage, uri)) is not None
    }
    if not heads:
        names = ", ".join(store.storage.list_folders(join(store.root_uri, "run"))) or "none at all"
        raise InputError(f"--run {run}: {store.root_uri} has no run of that name; it has {names}")
    return max(heads, key=lambda uri: heads[uri].attempt.started_at)


def tokens_of(store: ArtifactStore, head: Head, run_uri: str) -> Artifact:
    """Return the token dataset a run was trained on: the newest part of it.

    Raises:
        ArtifactError: it is not under the storage root.
    """
    fingerprint = head.identity.dataset_parts[-1]
    for name in store.storage.list_folders(join(store.root_uri, "tokens")):
        if (artifact := store.find("tokens", name, fingerprint)) is not None:
            return artifact
    raise ArtifactError(
        f"{run_uri}: was trained on the token dataset {fingerprint}, which is not under {store.root_uri}; "
        "without it nobody can tell what the run was fed: bring it back, or audit where it is"
    )


def _head(storage: Storage, run_uri: str) -> Head:
    head = read_head(storage, run_uri)
    if head is None:
        raise ArtifactError(f"{run_uri}: the head of the run has vanished; restore it from a backup")
    return head


def _order(records: list[LedgerRecord], dataset: TokenDataset, run_uri: str) -> StepOrder:
    if not records:
        raise InputError(
            f"{run_uri}: its ledger is empty: no step was recorded yet; audit it after its first checkpoint"
        )
    first, stop = records[0].rows
    return StepOrder(len(dataset), dataset.sequence_length, (stop - first) * dataset.sequence_length)
