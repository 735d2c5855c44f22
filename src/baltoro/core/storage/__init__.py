"""Reading and publishing objects by URI, on local disks and S3 alike.

>>> import tempfile
>>> storage, root = Storage(), tempfile.mkdtemp()
>>> etag = storage.create(join(root, "head.json"), b"1")
>>> storage.replace(join(root, "head.json"), b"2", etag=etag) != etag
True
>>> [info.key for info in storage.list(root)]
['head.json']
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from pathlib import Path
from types import MappingProxyType
from typing import Any, BinaryIO

from baltoro.core.errors import InputError
from baltoro.core.storage.base import (
    AlreadyExistsError,
    ChangedError,
    MissingError,
    ObjectInfo,
    StorageProfile,
    digest_of,
)
from baltoro.core.storage.local import LocalStore
from baltoro.core.storage.objects import ObjectDifference, ObjectTable, difference
from baltoro.core.storage.probe import ProbeCheck, ProbeReport, inspect, refuse_unfit
from baltoro.core.storage.s3 import S3Store
from baltoro.core.storage.uris import absolute_uri, check_key, expand_user, is_local, join, local_path

__all__ = [
    "AlreadyExistsError",
    "ChangedError",
    "MissingError",
    "ObjectDifference",
    "ObjectInfo",
    "ObjectTable",
    "ProbeCheck",
    "ProbeReport",
    "Storage",
    "StorageProfile",
    "absolute_uri",
    "difference",
    "digest_of",
    "expand_user",
    "is_local",
    "join",
    "local_path",
]

_FOLDER_THREADS = 8
_NO_PROFILES: Mapping[str, StorageProfile] = MappingProxyType({})
_DEFAULT_PROFILE = StorageProfile()
_probed: dict[tuple[int, str, StorageProfile], ProbeReport] = {}


class Storage:
    """Objects by URI. Cheap to make, safe to share between threads and to pickle to other processes.

    Args:
        profiles: how to reach a store, by URI prefix (``s3://papers``, ``s3://papers/2024``, ``s3://`` for
            all); the longest prefix that covers a URI rules, and covering ends at a ``/``.
    """

    def __init__(self, profiles: Mapping[str, StorageProfile] = _NO_PROFILES) -> None:
        for prefix in profiles:
            if is_local(prefix):
                raise InputError(
                    f"storage.profiles.{prefix}: a profile is for an s3:// prefix, a local path needs none; "
                    "remove it"
                )
        self.profiles: dict[str, StorageProfile] = dict(profiles)
        self._local = LocalStore()

    def __reduce__(self) -> tuple[Any, ...]:
        return Storage, (self.profiles,)

    def profile_of(self, uri: str) -> StorageProfile:
        """Return the profile that rules a URI; the default one if none covers it."""
        covering = [prefix for prefix in self.profiles if _covers(prefix, uri)]
        return self.profiles[max(covering, key=len)] if covering else _DEFAULT_PROFILE

    def s3_store(self, uri: str) -> S3Store:
        """Return the S3 side of a URI, for what only S3 has.

        Raises:
            InputError: if the URI is local.
        """
        if is_local(uri):
            raise InputError(f"{uri} is a local path; an s3:// URI is needed here")
        return S3Store(self.profile_of(uri))

    def _store(self, uri: str) -> LocalStore | S3Store:
        return self._local if is_local(uri) else self.s3_store(uri)

    def read_bytes(self, uri: str, *, etag: str | None = None) -> bytes:
        """Return a whole object; a body that ended early is fetched again, never returned.

        Args:
            uri: the object.
            etag: the content that is meant, as a listing gave it; any if not given.

        Raises:
            ChangedError: if it has another content than ``etag`` names.
            MissingError: if it does not exist (an ``InputError``).
            InputError: if it may not be read or cannot be reached.
            StorageError: if it could not be read whole within the retries.
        """
        return self._store(uri).read_bytes(uri, etag=etag)

    def read_range(self, uri: str, start: int, length: int) -> bytes:
        """Return exactly ``length`` bytes from byte ``start``.

        Raises:
            InputError: if the object ends before that, is missing or may not be read.
        """
        return self._store(uri).read_range(uri, start, length)

    def open(self, uri: str) -> BinaryIO:
        """Open an object for reading at any position, as pyarrow does; on S3 by range requests of one
        version.

        Raises:
            InputError: if it is missing or may not be read.
            ChangedError: from a read, if the object was replaced meanwhile.
        """
        return self._store(uri).open(uri)

    def write_bytes(self, uri: str, data: bytes) -> str:
        """Write an object, over an older one, and return its etag; readers see the old or the new one whole.

        Raises:
            StorageError: if the store refuses or is full.
        """
        return self._store(uri).write_bytes(uri, data)

    def create(self, uri: str, data: bytes) -> str:
        """Write an object only if there is none, and return its etag; of several callers exactly one
        succeeds.

        On S3 a lost answer is retried, and the object of the first try is recognised by its content: put
        something unique into it where it matters who created it.

        Raises:
            AlreadyExistsError: if there is one.
            StorageError: if the store refuses or is full.
        """
        return self._store(uri).create(uri, data)

    def replace(self, uri: str, data: bytes, *, etag: str) -> str:
        """Write an object only if it still has the content of ``etag``, and return its new etag.

        Exclusive among callers of :meth:`create` and :meth:`replace`; an unconditional write is not held
        back.

        Raises:
            ChangedError: if it has another content or is gone.
            StorageError: if the store refuses or is full.
        """
        return self._store(uri).replace(uri, data, etag=etag)

    def upload_file(self, local_path: str | Path, uri: str) -> None:
        """Copy a file of this machine to a URI, over an older object; in parts if it is large.

        Raises:
            InputError: if the file cannot be read.
            StorageError: if the store refuses or is full.
        """
        self._store(uri).upload_file(Path(local_path), uri)

    def download_file(self, uri: str, local_path: str | Path) -> None:
        """Copy an object to a path of this machine, where it appears whole; folders are made.

        Raises:
            InputError: if it is missing or may not be read.
            StorageError: if it did not arrive whole, or the disk is full.
        """
        self._store(uri).download_file(uri, Path(local_path))

    def upload_folder(self, local_path: str | Path, uri: str) -> None:
        """Copy all files of a local folder below a URI, several at a time.

        Raises:
            InputError: if the folder does not exist or a file cannot be read.
            StorageError: if the store refuses or is full.
        """
        folder = Path(local_path)
        if not folder.is_dir():
            raise InputError(f"{folder} is not a folder, so it cannot be uploaded to {uri}; check the path")
        files = self._local.list(str(folder), with_etag=False)
        _in_threads(lambda info: self.upload_file(info.uri, join(uri, info.key)), files)

    def download_folder(self, uri: str, local_path: str | Path) -> None:
        """Copy all objects below a URI into a local folder, several at a time.

        Raises:
            InputError: if there is nothing below the URI, or a key would leave the folder.
            StorageError: if one did not arrive whole, or the disk is full.
        """
        folder = Path(local_path)

        def download(info: ObjectInfo) -> None:
            check_key(info.key, under=uri)
            self.download_file(info.uri, folder / info.key)

        if _in_threads(download, self.list(uri, with_etag=False)) == 0:
            raise MissingError(f"there is nothing to download under {uri}; check the URI")

    def list(self, uri: str, *, with_etag: bool = True) -> Iterator[ObjectInfo]:
        """Yield every object below a URI (or the one it names), in the order of the keys' UTF-8 bytes.

        What does not exist yields nothing, as a prefix exists in S3 only by its objects.

        Args:
            uri: a folder, prefix, bucket or single object.
            with_etag: on local disks the etag is a hash of the content; leave it out where it is not needed.

        Raises:
            InputError: if the bucket is missing, or something may not be listed or read.
        """
        return self._store(uri).list(uri, with_etag=with_etag)

    def list_folders(self, uri: str) -> tuple[str, ...]:
        """Return the sorted names of the folders directly below a URI."""
        return self._store(uri).list_folders(uri)

    def stat(self, uri: str, *, with_etag: bool = True) -> ObjectInfo | None:
        """Describe one object; ``None`` if there is none (a folder is none).

        Raises:
            InputError: if the bucket is missing, or the object may not be read.
        """
        return self._store(uri).stat(uri, with_etag=with_etag)

    def delete(self, uri: str) -> None:
        """Remove one object; nothing happens if it is not there."""
        self._store(uri).delete(uri)

    def delete_folder(self, uri: str) -> None:
        """Remove everything below a URI; nothing happens if there is nothing."""
        self._store(uri).delete_folder(uri)

    def inspect(self, root_uri: str) -> ProbeReport:
        """Try what publishing relies on and report what was seen, without refusing; nothing is left behind.

        Raises:
            InputError: if the root cannot be reached or read.
            StorageError: if it cannot be written at all.
        """
        return inspect(self, root_uri)

    def probe(self, root_uri: str) -> ProbeReport:
        """Prove at first use that a root keeps what publishing relies on; later calls of this process are
        free.

        Raises:
            InputError: if the root cannot be reached or read.
            StorageError: if it cannot be written, or fails a check that its profile does not excuse.
        """
        identity = (os.getpid(), absolute_uri(root_uri), self.profile_of(root_uri))
        if identity not in _probed:
            report = inspect(self, root_uri)
            refuse_unfit(report)
            _probed[identity] = report
        return _probed[identity]


def _covers(prefix: str, uri: str) -> bool:
    return uri == prefix or uri.startswith(prefix if prefix.endswith("/") else prefix + "/")


def _in_threads(action: Callable[[ObjectInfo], None], items: Iterator[ObjectInfo]) -> int:
    """Run ``action`` on every item, a few at a time, and return their number; the first failure ends it."""
    count = 0
    pending: set[Future[None]] = set()
    with ThreadPoolExecutor(_FOLDER_THREADS, thread_name_prefix="baltoro-storage") as pool:
        try:
            for item in items:
                pending.add(pool.submit(action, item))
                count += 1
                if len(pending) >= 4 * _FOLDER_THREADS:
                    done, pending = wait(pending, return_when=FIRST_COMPLETED)
                    for future in done:
                        future.result()
            for future in pending:
                future.result()
        except BaseException:
            for future in pending:
                future.cancel()
            raise
    return count
