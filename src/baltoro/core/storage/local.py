"""Files and folders of this machine, with the guarantees of an object store.

A file appears whole or not at all (written beside its place, then linked or renamed), and conditional writes
have exactly one winner between threads, processes and, on a shared file system that locks, machines. Names
starting with ``.baltoro-tmp-`` and ``.baltoro-lock-`` belong to this module and are never listed.
"""

from __future__ import annotations

import errno
import fcntl
import hashlib
import os
import secrets
import shutil
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO

from baltoro.core.errors import InputError, StorageError
from baltoro.core.storage.base import (
    ObjectInfo,
    already_exists,
    changed,
    check_range,
    missing,
    outside,
    replaced,
)
from baltoro.core.storage.uris import local_path

TEMPORARY_PREFIX = ".baltoro-tmp-"
LOCK_PREFIX = ".baltoro-lock-"
_CHUNK_BYTES = 1 << 20
# Locks of the file system may be per process (NFS); this one holds the threads of a process apart.
# Kept by process id, because a fork may copy a lock that another thread of the parent holds.
_thread_locks: dict[int, threading.Lock] = {}


class LocalStore:
    """Local files behind the interface of :class:`baltoro.core.storage.Storage`."""

    def read_bytes(self, uri: str, *, etag: str | None = None) -> bytes:
        """Return the whole file, if it has the content of ``etag``."""
        with _explained(uri, "read"):
            data = local_path(uri).read_bytes()
        if etag is not None and _md5(data) != etag:
            raise replaced(uri)
        return data

    def read_range(self, uri: str, start: int, length: int) -> bytes:
        """Return exactly ``length`` bytes from ``start``."""
        check_range(uri, start, length)
        with _explained(uri, "read"), local_path(uri).open("rb") as file:
            file.seek(start)
            data = file.read(length)
        if len(data) < length:
            raise outside(uri, start, length, len(data))
        return data

    def open(self, uri: str) -> BinaryIO:
        """Open the file for reading."""
        with _explained(uri, "read"):
            return local_path(uri).open("rb")

    def write_bytes(self, uri: str, data: bytes) -> str:
        """Write the file whole, over an older one."""
        target = _target(uri)
        with _explained(uri, "write"), _temporary(target, lambda file: _write_all(file, data)) as temporary:
            temporary.replace(target)
            _sync_folder(target.parent)
        return _md5(data)

    def create(self, uri: str, data: bytes) -> str:
        """Write the file if there is none of that name."""
        target = _target(uri)
        with _explained(uri, "write"):
            if os.path.lexists(target):
                raise already_exists(uri)
            with _temporary(target, lambda file: _write_all(file, data)) as temporary:
                try:
                    os.link(temporary, target)
                except FileExistsError:
                    raise already_exists(uri) from None
                except OSError as error:
                    if error.errno not in (
                        errno.EPERM,
                        errno.ENOTSUP,
                        errno.EOPNOTSUPP,
                        errno.ENOSYS,
                        errno.EMLINK,
                    ):
                        raise
                    # exFAT and some network file systems have no hard links: the lock decides instead.
                    with _locked(target):
                        if os.path.lexists(target):
                            raise already_exists(uri) from None
                        temporary.replace(target)
            _sync_folder(target.parent)
        return _md5(data)

    def replace(self, uri: str, data: bytes, *, etag: str) -> str:
        """Write the file if its content still has that etag."""
        target = _target(uri)
        with _explained(uri, "write"):
            if not target.is_file():
                raise changed(uri)
            with _temporary(target, lambda file: _write_all(file, data)) as temporary, _locked(target):
                try:
                    found = _md5_of_file(target)
                except FileNotFoundError:
                    raise changed(uri) from None
                if found != etag:
                    raise changed(uri)
                temporary.replace(target)
                _sync_folder(target.parent)
        return _md5(data)

    def upload_file(self, local_path: Path, uri: str) -> None:
        """Copy a file of this machine into the store."""
        self._copy(local_path, _target(uri), durable=True)

    def download_file(self, uri: str, local_path: Path) -> None:
        """Copy a stored file to a path of this machine."""
        self._copy(_path(uri), local_path, durable=False)

    def list(self, uri: str, *, with_etag: bool) -> Iterator[ObjectInfo]:
        """Yield the files below, in the order of their keys."""
        root = _path(uri)
        with _explained(uri, "list"):
            if root.is_file():
                yield _info(root, root.name, with_etag)
                return
            if not root.exists():
                return
        for path, key in _walk(root, "", frozenset()):
            with _explained(str(path), "read"):
                info = _info(path, key, with_etag)
            yield info

    def list_folders(self, uri: str) -> tuple[str, ...]:
        """Return the names of the folders directly below."""
        with _explained(uri, "list"):
            path = _path(uri)
            if not path.is_dir():
                return ()
            return tuple(sorted(entry.name for entry in os.scandir(path) if entry.is_dir()))

    def stat(self, uri: str, *, with_etag: bool) -> ObjectInfo | None:
        """Describe one file; ``None`` if there is none."""
        path = _path(uri)
        with _explained(uri, "read"):
            try:
                return _info(path, path.name, with_etag) if path.is_file() else None
            except FileNotFoundError:
                return None

    def delete(self, uri: str) -> None:
        """Remove one file, if it is there."""
        with _explained(uri, "delete"):
            _path(uri).unlink(missing_ok=True)

    def delete_folder(self, uri: str) -> None:
        """Remove a folder with all it holds, if it is there; others may be removing it, too."""
        path = _path(uri)
        with _explained(uri, "delete"):
            if path.is_dir():
                shutil.rmtree(path, onerror=_unless_gone)

    def _copy(self, source: Path, target: Path, *, durable: bool) -> None:
        def fill(file: BinaryIO) -> None:
            with _explained(str(source), "read"):
                opened = source.open("rb")
            with opened:
                shutil.copyfileobj(opened, file, _CHUNK_BYTES)

        with _explained(str(target), "write"), _temporary(target, fill, durable=durable) as temporary:
            temporary.replace(target)
            if durable:
                _sync_folder(target.parent)


def _unless_gone(_function: object, _path: object, failure: tuple[Any, BaseException, Any]) -> None:
    """Let a removal go on where somebody else was quicker; called by ``shutil.rmtree``."""
    if not isinstance(failure[1], FileNotFoundError):
        raise failure[1]


@contextmanager
def replacing(target: Path) -> Iterator[Path]:
    """Give a path to write beside ``target`` and move it there if the block succeeds, else remove it.

    Raises:
        StorageError: if the file system refuses, in one sentence.
    """
    with _explained(str(target), "write"), _temporary(target, lambda _: None, durable=False) as temporary:
        yield temporary
        temporary.replace(target)


def _path(uri: str) -> Path:
    return Path(os.path.abspath(local_path(uri)))  # noqa: PTH100 - resolve() would follow links


def _target(uri: str) -> Path:
    path = _path(uri)
    if path.name.startswith((TEMPORARY_PREFIX, LOCK_PREFIX)):
        raise InputError(
            f"{uri}: names starting with {TEMPORARY_PREFIX} and {LOCK_PREFIX} are reserved; rename it"
        )
    return path


def _walk(folder: Path, prefix: str, above: frozenset[tuple[int, int]]) -> Iterator[tuple[Path, str]]:
    """Yield files depth first; a folder sorts as its name with ``/``, so that keys come in order."""
    with _explained(str(folder), "list"):
        status = folder.stat()
        identity = (status.st_dev, status.st_ino)
        if identity in above:
            raise InputError(
                f"{folder} is a link to a folder above itself, so it has no end; remove the link"
            )
        # Only names are held: a folder may have millions of files.
        names = []
        with os.scandir(folder) as scanned:
            for entry in scanned:
                _check_encodable(entry)
                if entry.name.startswith((TEMPORARY_PREFIX, LOCK_PREFIX)):
                    continue
                if entry.is_dir():
                    names.append(entry.name + "/")
                elif entry.is_file():
                    names.append(entry.name)
                elif entry.is_symlink():
                    target = os.readlink(entry.path)  # noqa: PTH115
                    raise InputError(
                        f"{entry.path} is a link to {target}, which does not exist; repair or remove it"
                    )
    names.sort()
    for name in names:
        if name.endswith("/"):
            yield from _walk(folder / name, prefix + name, above | {identity})
        else:
            yield folder / name, prefix + name


def _check_encodable(entry: os.DirEntry[str]) -> None:
    try:
        entry.name.encode("utf-8")
    except UnicodeEncodeError:
        shown = os.fsencode(entry.path).decode("utf-8", "backslashreplace")
        raise InputError(
            f"the file name {shown} is not valid UTF-8; rename it (for a whole folder: convmv -f latin1 -t "
            "utf8)"
        ) from None


def _info(path: Path, key: str, with_etag: bool) -> ObjectInfo:
    etag = _md5_of_file(path) if with_etag else ""
    return ObjectInfo(uri=str(path), key=key, size_bytes=path.stat().st_size, etag=etag)


def _md5(data: bytes) -> str:
    return hashlib.md5(data, usedforsecurity=False).hexdigest()


def _md5_of_file(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, lambda: hashlib.md5(usedforsecurity=False)).hexdigest()


def _write_all(file: BinaryIO, data: bytes) -> None:
    file.write(data)


@contextmanager
def _temporary(target: Path, fill: Callable[[BinaryIO], None], *, durable: bool = True) -> Iterator[Path]:
    """Give a filled file beside ``target``; whatever is left of it afterwards is removed."""
    temporary = target.parent / (TEMPORARY_PREFIX + secrets.token_hex(8))
    try:
        with os.fdopen(_open_new(temporary), "wb") as file:
            fill(file)
            file.flush()
            if durable:
                os.fsync(file.fileno())
        yield temporary
    finally:
        temporary.unlink(missing_ok=True)


def _open_new(path: Path) -> int:
    for attempt in range(5):
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            return os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY | os.O_CLOEXEC, 0o666)
        except FileNotFoundError:
            # Another process removed the empty folder between the two calls.
            if attempt == 4:
                raise
    raise AssertionError("unreachable: the loop returns or raises")


@contextmanager
def _locked(target: Path) -> Iterator[None]:
    """Hold the lock of ``target`` against threads and processes; a crash releases it."""
    name = LOCK_PREFIX + hashlib.sha256(target.name.encode()).hexdigest()[:16]
    with _thread_locks.setdefault(os.getpid(), threading.Lock()):
        descriptor = os.open(target.parent / name, os.O_CREAT | os.O_RDWR | os.O_CLOEXEC, 0o666)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX)
            yield
        finally:
            os.close(descriptor)


def _sync_folder(folder: Path) -> None:
    """Make a rename survive a power cut, where the file system can sync a folder."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    except OSError as error:
        if error.errno not in (errno.EINVAL, errno.ENOTSUP, errno.EBADF):
            raise
    finally:
        os.close(descriptor)


@contextmanager
def _explained(uri: str, action: str) -> Iterator[None]:
    """Turn what the operating system says into one sentence with a remedy."""
    try:
        yield
    except OSError as error:
        raise _explanation(uri, action, error) from error


def _explanation(uri: str, action: str, error: OSError) -> Exception:
    said = f"cannot {action} {uri}: {error.strerror or error}"
    kind = InputError if action in ("read", "list") else StorageError
    match error.errno:
        case errno.ENOENT if action == "read":
            return missing(uri)
        case errno.ENOSPC | errno.EDQUOT:
            return StorageError(
                f"{said}; the disk or quota is full: free some space or set storage.root elsewhere"
            )
        case errno.EFBIG:
            return StorageError(
                f"{said}; the file system or `ulimit -f` allows no larger file: raise it or set storage.root "
                "elsewhere"
            )
        case errno.EROFS:
            return StorageError(
                f"{said}; it is mounted read-only: set storage.root to a folder you may write to"
            )
        case errno.EACCES | errno.EPERM:
            needed = "read" if kind is InputError else "write"
            return kind(f"{said}; give this user the right to {needed} it, or name another folder")
        case errno.EISDIR:
            return kind(f"{said}; it is a folder where a file is expected: correct the path")
        case errno.ENOTDIR | errno.EEXIST:
            return kind(f"{said}; a part of the path is a file where a folder is expected: correct the path")
        case errno.ENAMETOOLONG:
            return kind(f"{said}; shorten the name")
        case errno.EMFILE | errno.ENFILE:
            return StorageError(f"{said}; raise the limit with `ulimit -n 65536`")
        case _:
            return kind(f"{said}; check the path and the disk")
