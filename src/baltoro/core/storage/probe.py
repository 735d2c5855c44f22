"""Proof, before anything is published, that a store keeps what publishing relies on.

Amazon S3 keeps all of it. Some servers that speak its protocol ignore the headers of conditional writes, and
some look first and write later; either would let two writers overwrite each other without a word. So each
promise is tried on a few small objects under the root, which are removed again.
"""

from __future__ import annotations

import secrets
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC
from email.utils import parsedate_to_datetime
from typing import TYPE_CHECKING

from baltoro.core.errors import BaltoroError, StorageError
from baltoro.core.storage.base import AlreadyExistsError, ChangedError, already_exists, changed
from baltoro.core.storage.s3 import S3Store
from baltoro.core.storage.uris import is_local, join, local_path, split_s3

if TYPE_CHECKING:
    from baltoro.core.storage import Storage

LARGEST_CLOCK_SKEW_SECONDS = 300.0
CONDITIONAL_CHECKS = (
    "create_once",
    "replace_unchanged_only",
    "replace_never_creates",
    "create_one_winner",
    "replace_one_winner",
)
_RACERS = 8
_RACES = tuple(f"race-{number}" for number in range(6))
_OBJECTS = ("object", "absent", "in-parts", *_RACES)


@dataclass(frozen=True, slots=True)
class ProbeCheck:
    """One promise and whether the store kept it; ``detail`` says what was seen."""

    name: str
    passed: bool
    detail: str


@dataclass(frozen=True, slots=True)
class ProbeReport:
    """What a store was seen to do.

    Attributes:
        root_uri: the probed root.
        checks: one entry per promise, in the order tried.
        single_writer: conditional writes are replaced by a look-up before the write, because the profile says
            so.
        clock_skew_seconds: the store's clock minus this machine's.
        duration_seconds: what the probe took.
    """

    root_uri: str
    checks: tuple[ProbeCheck, ...]
    single_writer: bool
    clock_skew_seconds: float
    duration_seconds: float

    @property
    def conditional_writes(self) -> bool:
        """Whether two writers can be told apart by the store."""
        return all(check.passed for check in self.checks if check.name in CONDITIONAL_CHECKS)

    @property
    def refused(self) -> tuple[ProbeCheck, ...]:
        """The failed checks for which this root may not be used."""
        return tuple(
            check
            for check in self.checks
            if not check.passed and not (self.single_writer and check.name in CONDITIONAL_CHECKS)
        )

    def summary(self) -> str:
        """Return the outcome in one line, for people."""
        if self.refused:
            failed = "; ".join(f"{check.name}: {check.detail}" for check in self.refused)
            return f"{self.root_uri} cannot be published to: {failed}"
        if self.single_writer:
            support = "has" if self.conditional_writes else "has no"
            return (
                f"{self.root_uri} is used by a single writer, as its storage profile declares (the store "
                f"{support} conditional writes)"
            )
        return f"{self.root_uri} keeps what publishing relies on"


def inspect(storage: Storage, root_uri: str) -> ProbeReport:
    """Try every promise under ``root_uri`` and report; nothing is left behind.

    Raises:
        StorageError: if the root cannot be written at all.
        InputError: if it cannot be reached or read.
    """
    started = time.monotonic()
    folder = join(root_uri, f".baltoro-probe-{secrets.token_hex(8)}")
    try:
        if is_local(root_uri):
            single_writer = False
            checks, skew = _inspect_local(storage, folder)
        else:
            store = storage.s3_store(root_uri)
            single_writer = store.profile.single_writer
            checks, skew = _inspect_s3(storage, store, folder)
    except BaltoroError:
        # What went wrong first is what a person needs to read.
        with suppress(BaltoroError):
            _remove(storage, folder)
        raise
    _remove(storage, folder)
    return ProbeReport(
        root_uri=root_uri,
        checks=(*checks, _clock_check(skew)),
        single_writer=single_writer,
        clock_skew_seconds=skew,
        duration_seconds=time.monotonic() - started,
    )


def _remove(storage: Storage, folder: str) -> None:
    # By name first: a store under suspicion may not list what it holds.
    for name in _OBJECTS:
        storage.delete(join(folder, name))
    storage.delete_folder(folder)


def refuse_unfit(report: ProbeReport) -> None:
    """Raise if the store may not be used.

    Raises:
        StorageError: naming the root, what failed and what to do.
    """
    if not report.refused:
        return
    if all(check.name in CONDITIONAL_CHECKS for check in report.refused):
        remedy = (
            "use a store with conditional writes, or set single_writer: true in storage.profiles if only one "
            "process ever publishes there"
        )
    elif [check.name for check in report.refused] == ["clock"]:
        remedy = "set the clock of this machine or of the store (for example with NTP)"
    else:
        remedy = "set storage.root to another store"
    raise StorageError(f"{report.summary()}; {remedy}")


def _inspect_local(storage: Storage, folder: str) -> tuple[list[ProbeCheck], float]:
    uri = join(folder, "object")
    before = time.time()
    etag = storage.create(uri, b"first")
    # The file's time is the server's on a network file system.
    skew = local_path(uri).stat().st_mtime - (before + time.time()) / 2
    checks = [
        _refused("create_once", AlreadyExistsError, lambda: storage.create(uri, b"second")),
        _replace_check(
            refused=lambda: storage.replace(uri, b"second", etag="0" * 32),
            accepted=lambda: storage.replace(uri, b"third", etag=etag),
        ),
        _refused(
            "replace_never_creates",
            ChangedError,
            lambda: storage.replace(join(folder, "absent"), b"x", etag=etag),
        ),
        _listing_check(storage, folder),
    ]
    return checks, skew


def _inspect_s3(storage: Storage, store: S3Store, folder: str) -> tuple[list[ProbeCheck], float]:
    uri, absent = join(folder, "object"), join(folder, "absent")
    etag = store.write_bytes(uri, b"first")
    skew = _server_skew(store, uri)

    def create(data: bytes) -> str:
        return store.put_if(uri, data, already_exists(uri), IfNoneMatch="*")

    def replace(target: str, data: bytes, expected: str) -> str:
        return store.put_if(target, data, changed(target), IfMatch=f'"{expected}"')

    checks = [
        _refused("create_once", AlreadyExistsError, lambda: create(b"second")),
    ]
    if not checks[0].passed:
        etag = store.write_bytes(uri, b"first")
    checks += [
        _replace_check(
            refused=lambda: replace(uri, b"second", "0" * 32), accepted=lambda: replace(uri, b"third", etag)
        ),
        _refused("replace_never_creates", ChangedError, lambda: replace(absent, b"x", etag)),
    ]
    if all(check.passed for check in checks):
        checks += _race_checks(store, [join(folder, name) for name in _RACES])
    checks += [
        _listing_check(storage, folder),
        _multipart_check(storage, store, join(folder, "in-parts")),
    ]
    return checks, skew


def _refused(name: str, expected: type[StorageError], action: Callable[[], str]) -> ProbeCheck:
    """Check that the store refuses an action, and refuses it for the right reason."""
    try:
        action()
    except expected:
        return ProbeCheck(name, True, "refused as it must be")
    except StorageError as error:
        return ProbeCheck(name, False, f"the store answered otherwise ({error.message})")
    wrong = {
        "create_once": "an existing object was overwritten by a create (If-None-Match: * is ignored)",
        "replace_never_creates": "a missing object was created by a replace (If-Match is ignored)",
    }[name]
    return ProbeCheck(name, False, wrong)


def _replace_check(*, refused: Callable[[], str], accepted: Callable[[], str]) -> ProbeCheck:
    name = "replace_unchanged_only"
    try:
        refused()
    except ChangedError:
        pass
    except StorageError as error:
        return ProbeCheck(name, False, f"the store answered otherwise ({error.message})")
    else:
        return ProbeCheck(name, False, "an object that had changed was replaced (If-Match is ignored)")
    try:
        accepted()
    except StorageError as error:
        return ProbeCheck(name, False, f"an unchanged object could not be replaced ({error.message})")
    return ProbeCheck(name, True, "refused for another content, done for the same")


def _race_checks(store: S3Store, uris: list[str]) -> list[ProbeCheck]:
    """Check that of simultaneous conditional writes one wins: a store may look first and write later.

    Such a store passes every check made in turn, and sometimes this one: six rounds of eight writers found
    a gateway over a POSIX folder out in 36 of 40 probes.
    """
    with ThreadPoolExecutor(_RACERS, thread_name_prefix="baltoro-probe") as pool:

        def winners(uri: str, lost: StorageError, **condition: str) -> int:
            line = threading.Barrier(_RACERS)

            def run(number: int) -> int:
                line.wait()
                try:
                    store.put_if(uri, f"racer {number}".encode(), lost, **condition)
                except (AlreadyExistsError, ChangedError):
                    return 0
                return 1

            return sum(pool.map(run, range(_RACERS)))

        created = [winners(uri, already_exists(uri), IfNoneMatch="*") for uri in uris]
        etags = [store.write_bytes(uri, b"to be replaced") for uri in uris]
        replaced = [
            winners(uri, changed(uri), IfMatch=f'"{etag}"') for uri, etag in zip(uris, etags, strict=True)
        ]
    return [
        _race_check("create_one_winner", created, "created the same object"),
        _race_check("replace_one_winner", replaced, "replaced the same content"),
    ]


def _race_check(name: str, winners: list[int], did: str) -> ProbeCheck:
    wrong = [number for number in winners if number != 1]
    if not wrong:
        return ProbeCheck(name, True, f"one of {_RACERS} simultaneous writers won, {len(winners)} times")
    return ProbeCheck(name, False, f"{wrong[0]} of {_RACERS} simultaneous writers {did}, only one may")


def _listing_check(storage: Storage, folder: str) -> ProbeCheck:
    listed = [info.key for info in storage.list(folder, with_etag=False)]
    if "object" in listed:
        return ProbeCheck("list_after_write", True, "a written object is listed at once")
    return ProbeCheck("list_after_write", False, "an object was not in the listing made after it was written")


def _multipart_check(storage: Storage, store: S3Store, uri: str) -> ProbeCheck:
    bucket, key = split_s3(uri)
    content = b"one part is enough, being the last"
    where = {"Bucket": bucket, "Key": key}
    try:
        with store.explained(uri, "write"):
            upload = store.client.create_multipart_upload(**where)["UploadId"]
            try:
                part = store.client.upload_part(**where, UploadId=upload, PartNumber=1, Body=content)
                parts = [{"PartNumber": 1, "ETag": part["ETag"]}]
                store.client.complete_multipart_upload(
                    **where, UploadId=upload, MultipartUpload={"Parts": parts}
                )
            except BaseException:
                store.client.abort_multipart_upload(**where, UploadId=upload)
                raise
    except StorageError as error:
        return ProbeCheck("multipart_upload", False, error.message)
    if storage.read_bytes(uri) != content:
        return ProbeCheck("multipart_upload", False, "what was uploaded in parts was read back differently")
    return ProbeCheck("multipart_upload", True, "uploaded in parts and read back")


def _server_skew(store: S3Store, uri: str) -> float:
    bucket, key = split_s3(uri)
    before = time.time()
    with store.explained(uri, "read"):
        answer = store.client.head_object(Bucket=bucket, Key=key)
    after = time.time()
    date = answer["ResponseMetadata"]["HTTPHeaders"].get("date")
    if date is None:
        return 0.0
    return parsedate_to_datetime(date).replace(tzinfo=UTC).timestamp() - (before + after) / 2


def _clock_check(skew: float) -> ProbeCheck:
    seen = f"the store's clock is {abs(skew):.0f} s {'ahead of' if skew > 0 else 'behind'} this machine's"
    return ProbeCheck("clock", abs(skew) <= LARGEST_CLOCK_SKEW_SECONDS, seen)
