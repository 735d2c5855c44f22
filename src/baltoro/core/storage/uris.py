"""URIs of stored objects: a path, ``file://…`` or ``s3://bucket/key``.

A path is taken as written, so spaces, ``#`` and ``%`` mean themselves; so is the key of an ``s3://`` URI.
Only ``file://`` is percent-decoded, as its standard says, and becomes a plain path on the way in.
"""

from __future__ import annotations

import os
import re
from pathlib import Path
from urllib.parse import unquote

from baltoro.core.errors import InputError

S3_SCHEME = "s3://"
_SCHEME = re.compile(r"^([A-Za-z][A-Za-z0-9+.-]*)://")
_FILE_SCHEME = "file://"
_ALLOWED = "use a path, file:///path or s3://bucket/key"


def is_local(uri: str | Path) -> bool:
    """Return whether the URI names a file or folder of this machine (or mounted on it).

    Raises:
        InputError: if the scheme is none that Baltoro knows.
    """
    text = str(uri)
    if not text:
        raise InputError(f"an empty URI names nothing; {_ALLOWED}")
    match = _SCHEME.match(text)
    if match is None:
        return True
    scheme = match.group(1).lower()
    if scheme == "file":
        return True
    if scheme == "s3":
        return False
    raise InputError(f"{text}: the scheme {scheme}:// is not supported; {_ALLOWED}")


def local_path(uri: str | Path) -> Path:
    """Return the path that a local URI names.

    Raises:
        InputError: if the URI is not local, or names another host or a NUL byte.
    """
    if not is_local(uri):
        raise InputError(f"{uri} is not a local path; give a path or file:///path here")
    text = str(uri)
    if _SCHEME.match(text):
        host, slash, rest = text[len(_FILE_SCHEME) :].partition("/")
        if host not in ("", "localhost") or not slash:
            raise InputError(
                f"{text}: a file:// URI must be absolute and on this machine; write file:///path or a path"
            )
        text = unquote("/" + rest)
    if "\0" in text:
        raise InputError(f"{text!r}: a path cannot contain a NUL byte; correct the URI")
    return Path(text)


def expand_user(path: Path) -> Path:
    """Return a path with ``~`` or ``~user`` at its start replaced by that home.

    Raises:
        InputError: there is no such user.
    """
    try:
        return path.expanduser()
    except RuntimeError:
        raise InputError(
            f"{path}: there is no user {path.parts[0].removeprefix('~')!r} here; write the whole path, or "
            f"./{path} for a folder of that name"
        ) from None


def absolute_uri(path_or_uri: str | Path, base: str | Path | None = None) -> str:
    """Return the one form of a URI that means the same everywhere: an absolute path or ``s3://bucket/key``.

    Args:
        path_or_uri: what a person wrote; ``~`` is expanded.
        base: what a relative path is relative to (a folder or an ``s3://`` prefix); the current folder by
            default.
    """
    if not is_local(path_or_uri):
        bucket, key = split_s3(str(path_or_uri))
        return S3_SCHEME + bucket + ("/" + key.rstrip("/") if key.strip("/") else "")
    path = expand_user(local_path(path_or_uri))
    if not path.is_absolute() and base is not None:
        if not is_local(base):
            return join(str(base), *path.parts) if path.parts else absolute_uri(base)
        path = expand_user(local_path(base)) / path
    # Not Path.resolve(): following links would rename what the person named.
    return os.path.abspath(path)  # noqa: PTH100


def join(uri: str | Path, *parts: str) -> str:
    """Return the URI of ``parts`` (keys, which may hold ``/``) under ``uri``.

    Raises:
        InputError: if a part is empty, starts with ``/`` or steps out of the folder with ``.`` or ``..``.
    """
    for part in parts:
        check_key(part, under=str(uri))
    base = str(uri) if not is_local(uri) else str(local_path(uri))
    stripped = base.rstrip("/")
    if not stripped and base:
        return "/" + "/".join(parts)
    return "/".join([stripped, *parts])


def check_key(key: str, *, under: str) -> None:
    """Refuse a key that would leave its folder or that no file system can hold.

    Raises:
        InputError: naming the key and the folder.
    """
    segments = key.split("/")
    if any(segment in ("", ".", "..") for segment in segments) or "\0" in key:
        raise InputError(
            f"the name {key!r} under {under} is refused: a name cannot be empty, start or end with '/', or "
            "have '.' or '..' as a part; rename it"
        )


def split_s3(uri: str) -> tuple[str, str]:
    """Return bucket and key (maybe empty) of an ``s3://`` URI.

    Raises:
        InputError: if there is no bucket or the key has ``.`` or ``..`` as a part.
    """
    bucket, _, key = uri[len(S3_SCHEME) :].partition("/")
    if not bucket:
        raise InputError(f"{uri} names no bucket; write s3://bucket/key")
    if any(segment in (".", "..") for segment in key.split("/")) or "\0" in key:
        raise InputError(f"{uri} is refused: a key cannot have '.' or '..' as a part; correct the URI")
    return bucket, key
