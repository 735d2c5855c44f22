"""S3 and what speaks its protocol, through boto3.

Requests are retried by botocore (``standard`` mode: throttling, 5xx and lost connections, exponential
back-off with jitter); what it cannot know is added here: a body that ends early, or is another range than was
asked for, is fetched again, a conditional write whose answer was lost is recognised as the own one, and every
refusal becomes one sentence with a remedy. All of it is bounded by ``max_attempts``, but for a server that is
gone after it has answered: that is waited for as long as ``patience_seconds`` says.
"""

from __future__ import annotations

import io
import os
import random
import re
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any, BinaryIO, cast

from baltoro.core.errors import InputError, StorageError
from baltoro.core.storage.base import (
    MissingError,
    ObjectInfo,
    StorageProfile,
    already_exists,
    changed,
    check_range,
    missing,
    outside,
    replaced,
)
from baltoro.core.storage.local import replacing
from baltoro.core.storage.s3_errors import error_code, explained
from baltoro.core.storage.uris import S3_SCHEME, expand_user, split_s3

MULTIPART_THRESHOLD_BYTES = 64 << 20
_PART_BYTES = 16 << 20
_TRANSFER_THREADS = 4
_READ_AHEAD_BYTES = 1 << 20
_LONGEST_WAIT_SECONDS = 20.0
_PATIENT_WAIT_SECONDS = (0.5, 3.0)

# One client per process, profile and credentials: making one costs 50 ms, and sharing one is thread-safe.
_clients: dict[tuple[Any, ...], Any] = {}
_clients_locks: dict[int, threading.Lock] = {}


class S3Store:
    """One S3 endpoint behind the interface of :class:`baltoro.core.storage.Storage`."""

    def __init__(self, profile: StorageProfile) -> None:
        self.profile = profile

    @property
    def client(self) -> Any:
        """The boto3 client of this process."""
        return _client(self.profile)

    def read_bytes(self, uri: str, *, etag: str | None = None) -> bytes:
        """Return the whole object, if it has the content of ``etag``."""
        return self._get(uri, etag=etag)

    def read_range(self, uri: str, start: int, length: int) -> bytes:
        """Return exactly ``length`` bytes from ``start``."""
        check_range(uri, start, length)
        if length == 0:
            return b""
        data = self._get(uri, start, length)
        if len(data) < length:
            raise outside(uri, start, length, len(data))
        return data

    def open(self, uri: str) -> BinaryIO:
        """Open the object for reading at any position; every read is of the same version."""
        info = self.stat(uri, with_etag=True)
        if info is None:
            raise missing(uri)
        return cast(BinaryIO, io.BufferedReader(_RangeReader(self, info), _READ_AHEAD_BYTES))

    def write_bytes(self, uri: str, data: bytes) -> str:
        """Write the object whole, over an older one."""
        bucket, key = _object(uri)
        with self.explained(uri, "write"):
            if len(data) <= MULTIPART_THRESHOLD_BYTES:
                return _etag(self.client.put_object(Bucket=bucket, Key=key, Body=data))
            self.client.upload_fileobj(io.BytesIO(data), bucket, key, Config=_transfer_config())
            return _etag(self.client.head_object(Bucket=bucket, Key=key))

    def create(self, uri: str, data: bytes) -> str:
        """Write the object if there is none of that key."""
        if self.profile.single_writer:
            if self.stat(uri, with_etag=False) is not None:
                raise already_exists(uri)
            return self.write_bytes(uri, data)
        return self.put_if(uri, data, already_exists(uri), IfNoneMatch="*")

    def replace(self, uri: str, data: bytes, *, etag: str) -> str:
        """Write the object if its content still has that etag."""
        if self.profile.single_writer:
            found = self.stat(uri, with_etag=True)
            if found is None or found.etag != etag:
                raise changed(uri)
            return self.write_bytes(uri, data)
        return self.put_if(uri, data, changed(uri), IfMatch=f'"{etag}"')

    def put_if(self, uri: str, data: bytes, lost: StorageError, **condition: str) -> str:
        """Write the object under a condition that the server checks; raise ``lost`` if it does not hold."""
        from botocore.exceptions import ClientError

        bucket, key = _object(uri)
        with self.explained(uri, "write"):
            for attempt in range(self.profile.max_attempts):
                try:
                    return _etag(self.client.put_object(Bucket=bucket, Key=key, Body=data, **condition))
                except ClientError as error:
                    code, status = error_code(error)
                    if code in ("ConditionalRequestConflict", "OperationAborted") and status == 409:
                        if attempt + 1 == self.profile.max_attempts:
                            raise
                        _wait(attempt)
                        continue
                    if status != 412 and not ("IfMatch" in condition and code == "NoSuchKey"):
                        raise
                    # A retry may be refused by what its own first try wrote before the answer was lost.
                    retried = error.response.get("ResponseMetadata", {}).get("RetryAttempts", 0) > 0
                    own = self._etag_if_content_is(uri, data) if retried else None
                    if own is None:
                        raise lost from None
                    return own
        raise AssertionError("unreachable: the loop returns or raises")

    def upload_file(self, local_path: Path, uri: str) -> None:
        """Upload a file of this machine, in parts if it is large."""
        bucket, key = _object(uri)
        if not local_path.is_file():
            raise InputError(f"{local_path} is not a file, so it cannot be uploaded to {uri}; check the path")
        with self.explained(uri, "write"):
            self.client.upload_file(str(local_path), bucket, key, Config=_transfer_config())

    def download_file(self, uri: str, local_path: Path) -> None:
        """Download to a path of this machine; the file appears there whole."""
        info = self.stat(uri, with_etag=True)
        if info is None:
            raise missing(uri)

        def part(start: int) -> bytes:
            return self.get_part(uri, start, min(_PART_BYTES, info.size_bytes - start), etag=info.etag)

        starts = range(0, info.size_bytes, _PART_BYTES)
        with (
            replacing(local_path) as temporary,
            temporary.open("wb") as file,
            ThreadPoolExecutor(_TRANSFER_THREADS) as pool,
        ):
            # A few parts at a time: those that wait to be written are held in memory.
            for first in range(0, len(starts), _TRANSFER_THREADS):
                file.writelines(pool.map(part, starts[first : first + _TRANSFER_THREADS]))

    def list(self, uri: str, *, with_etag: bool) -> Iterator[ObjectInfo]:  # noqa: ARG002 - a listing has them
        """Yield the objects below, in the order of their keys."""
        bucket, key = split_s3(uri)
        prefix = key.rstrip("/") + "/" if key.strip("/") else ""
        last = ""
        found = False
        for entry in self._pages(uri, "Contents", Bucket=bucket, Prefix=prefix):
            found = True
            if entry["Key"].endswith("/") and entry["Size"] == 0:
                continue  # a folder that a console drew
            if entry["Key"].encode() < last.encode():
                raise StorageError(
                    f"{uri}: the store lists {entry['Key']!r} after {last!r}, not in the order of keys (as "
                    "an S3 directory bucket does), so sources cannot be compared; use a general-purpose "
                    "bucket"
                )
            last = entry["Key"]
            yield ObjectInfo(
                uri=f"{S3_SCHEME}{bucket}/{last}",
                key=last[len(prefix) :],
                size_bytes=entry["Size"],
                etag=entry["ETag"].strip('"'),
            )
        if not found and prefix:
            info = self.stat(uri, with_etag=True)
            if info is not None:
                yield info

    def list_folders(self, uri: str) -> tuple[str, ...]:
        """Return the names of the folders directly below."""
        bucket, key = split_s3(uri)
        prefix = key.rstrip("/") + "/" if key.strip("/") else ""
        pages = self._pages(uri, "CommonPrefixes", Bucket=bucket, Prefix=prefix, Delimiter="/")
        return tuple(sorted(entry["Prefix"][len(prefix) : -1] for entry in pages))

    def stat(self, uri: str, *, with_etag: bool) -> ObjectInfo | None:  # noqa: ARG002 - the answer has it
        """Describe one object; ``None`` if there is none."""
        from botocore.exceptions import ClientError

        bucket, key = split_s3(uri)
        if not key.rstrip("/"):
            return None
        try:
            with self.explained(uri, "read"):
                head = self.client.head_object(Bucket=bucket, Key=key)
        except MissingError:
            # The answer to HEAD has no body, so only the bucket itself tells which of the two is missing.
            with self.explained(f"{S3_SCHEME}{bucket}", "read"):
                try:
                    self.client.head_bucket(Bucket=bucket)
                except ClientError as error:
                    if error_code(error)[1] != 403:
                        raise
            return None
        return ObjectInfo(
            uri=uri, key=key.rpartition("/")[2], size_bytes=head["ContentLength"], etag=_etag(head)
        )

    def delete(self, uri: str) -> None:
        """Remove one object, if it is there."""
        bucket, key = _object(uri)
        with self.explained(uri, "delete"):
            self.client.delete_object(Bucket=bucket, Key=key)

    def delete_folder(self, uri: str) -> None:
        """Remove all objects below."""
        bucket, key = split_s3(uri)
        if not key.strip("/"):
            raise InputError(f"{uri} is a whole bucket and is never deleted from here; name a folder in it")
        prefix = key.rstrip("/") + "/"
        keys = [entry["Key"] for entry in self._pages(uri, "Contents", Bucket=bucket, Prefix=prefix)]
        for start in range(0, len(keys), 1000):
            batch = [{"Key": name} for name in keys[start : start + 1000]]
            with self.explained(uri, "delete"):
                answer = self.client.delete_objects(Bucket=bucket, Delete={"Objects": batch, "Quiet": True})
            for refused in answer.get("Errors", []):
                raise StorageError(
                    f"cannot delete {S3_SCHEME}{bucket}/{refused['Key']}: {refused.get('Code')}: "
                    f"{refused.get('Message')}; allow s3:DeleteObject there"
                )

    def get_part(self, uri: str, start: int, length: int, *, etag: str) -> bytes:
        """Return exactly a range of the version that has that etag."""
        data = self._get(uri, start, length, etag=etag)
        if len(data) < length:
            raise outside(uri, start, length, len(data))
        return data

    def _get(self, uri: str, start: int = 0, length: int | None = None, *, etag: str | None = None) -> bytes:
        """Return the object, or as much of a range as it has."""
        from botocore.exceptions import (
            ClientError,
            IncompleteReadError,
            ReadTimeoutError,
            ResponseStreamingError,
        )

        bucket, key = _object(uri)
        options = {} if length is None else {"Range": f"bytes={start}-{start + length - 1}"}
        if etag is not None:
            options["IfMatch"] = f'"{etag}"'
        reason = ""
        for attempt in range(self.profile.max_attempts):
            with self.explained(uri, "read"):
                try:
                    answer = self.client.get_object(Bucket=bucket, Key=key, **options)
                except ClientError as error:
                    code, status = error_code(error)
                    if code == "InvalidRange" or status == 416:
                        return b""
                    if status == 412:
                        raise replaced(uri) from None
                    raise
                try:
                    data = cast(bytes, answer["Body"].read())
                except (IncompleteReadError, ResponseStreamingError, ReadTimeoutError) as error:
                    reason = f"the body ended early ({error})"
                else:
                    if len(data) != answer.get("ContentLength", len(data)):
                        reason = f"the body ended early ({len(data)} of {answer['ContentLength']} bytes)"
                    elif length is None:
                        return data
                    else:
                        wanted = _range_of(data, answer.get("ContentRange"), start, length)
                        if wanted is not None:
                            return wanted
                        reason = f"{options['Range']} came as {answer['ContentRange']!r}"
            if attempt + 1 < self.profile.max_attempts:
                _wait(attempt)
        raise StorageError(
            f"{uri}: {reason}, {self.profile.max_attempts} times; the object is not used: check the network "
            f"and {self._endpoint()}, raise max_attempts in storage.profiles, or run the command again later"
        )

    def _etag_if_content_is(self, uri: str, data: bytes) -> str | None:
        try:
            info = self.stat(uri, with_etag=True)
            if info is None or info.size_bytes != len(data) or self._get(uri) != data:
                return None
        except MissingError:
            return None
        return info.etag

    def _pages(self, uri: str, field: str, **options: str) -> Iterator[dict[str, Any]]:
        with self.explained(uri, "list"):
            pages = iter(self.client.get_paginator("list_objects_v2").paginate(**options))
        while True:
            with self.explained(uri, "list"):
                page = next(pages, None)
            if page is None:
                return
            yield from page.get(field, [])

    def _endpoint(self) -> str:
        return str(self.client.meta.endpoint_url)

    def explained(self, uri: str, action: str) -> AbstractContextManager[None]:
        """Turn what boto3 raises within the block into one sentence."""
        return explained(self.profile, self._endpoint, uri, action)


class _RangeReader(io.RawIOBase):
    """A seekable view of one version of an object; each read is one range request."""

    def __init__(self, store: S3Store, info: ObjectInfo) -> None:
        super().__init__()
        self._store = store
        self._info = info
        self._position = 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._position

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        base = {io.SEEK_SET: 0, io.SEEK_CUR: self._position, io.SEEK_END: self._info.size_bytes}[whence]
        if base + offset < 0:
            raise ValueError(f"{self._info.uri}: cannot seek before the first byte (to {base + offset})")
        self._position = base + offset
        return self._position

    def readinto(self, buffer: Any) -> int:
        length = min(len(buffer), self._info.size_bytes - self._position)
        if length <= 0:
            return 0
        buffer[:length] = self._store.get_part(self._info.uri, self._position, length, etag=self._info.etag)
        self._position += length
        return length


def _range_of(data: bytes, content_range: str | None, start: int, length: int) -> bytes | None:
    """Return the wanted range from an answer's body, ``None`` if it is not what the answer should hold.

    Args:
        data: the body.
        content_range: its ``Content-Range`` (RFC 9110, section 14.4); none if the server ignored the range
            and sent the whole object, as it may.
        start: the first byte that was asked for.
        length: how many were asked for.
    """
    if content_range is None:
        return data[start : start + length]
    match = re.fullmatch(r"bytes (\d+)-(\d+)/(\d+|\*)", content_range)
    if match is None:
        return None
    first, last = int(match[1]), int(match[2])
    wanted_last = start + length - 1
    if match[3] != "*":
        wanted_last = min(wanted_last, int(match[3]) - 1)
    return data if (first, last, len(data)) == (start, wanted_last, wanted_last - start + 1) else None


def _object(uri: str) -> tuple[str, str]:
    bucket, key = split_s3(uri)
    if not key or key.endswith("/"):
        raise InputError(
            f"{uri} names a {'folder' if key else 'bucket'}, not an object; write s3://bucket/key"
        )
    return bucket, key


def _etag(answer: dict[str, Any]) -> str:
    return str(answer["ETag"]).strip('"')


def _wait(attempt: int) -> None:
    """Sleep a random part of an exponentially growing time, so that many workers do not come back at once."""
    time.sleep(random.uniform(0, min(_LONGEST_WAIT_SECONDS, 0.5 * 2**attempt)))


def _transfer_config() -> Any:
    from boto3.s3.transfer import TransferConfig

    return TransferConfig(
        multipart_threshold=MULTIPART_THRESHOLD_BYTES,
        multipart_chunksize=_PART_BYTES,
        max_concurrency=_TRANSFER_THREADS,
    )


def _client(profile: StorageProfile) -> Any:
    environment = tuple(
        sorted((name, value) for name, value in os.environ.items() if name.startswith("AWS_"))
    )
    identity = (os.getpid(), profile, environment)
    with _clients_locks.setdefault(os.getpid(), threading.Lock()):
        if identity not in _clients:
            _clients[identity] = _new_client(profile)
        return _clients[identity]


def _new_client(profile: StorageProfile) -> Any:
    import boto3
    from botocore.config import Config
    from botocore.exceptions import BotoCoreError, ProfileNotFound

    bundle = expand_user(Path(profile.ca_bundle)) if profile.ca_bundle else None
    if bundle is not None and not bundle.is_file():
        raise InputError(f"ca_bundle in storage.profiles: {profile.ca_bundle} is not a file; name a PEM file")
    own_endpoint = (
        profile.endpoint_url
        or os.environ.get("AWS_ENDPOINT_URL_S3")
        or os.environ.get("AWS_ENDPOINT_URL")
        or ""
    )
    config = Config(
        retries={"mode": "standard", "total_max_attempts": profile.max_attempts},
        connect_timeout=profile.connect_timeout_seconds,
        read_timeout=profile.read_timeout_seconds,
        max_pool_connections=64,
        # Stores other than Amazon's seldom have a DNS name per bucket.
        s3={"addressing_style": "path" if own_endpoint and "amazonaws.com" not in own_endpoint else "auto"},
        user_agent_extra="baltoro",
    )
    try:
        session = boto3.Session(profile_name=profile.credentials_profile, region_name=profile.region)
        client = session.client(
            "s3",
            endpoint_url=profile.endpoint_url,
            verify=str(bundle) if bundle else None,
            config=config,
        )
    except ProfileNotFound as error:
        raise InputError(
            f"{error}; name an existing profile as credentials_profile in storage.profiles or run `aws "
            f"configure --profile {profile.credentials_profile}`"
        ) from error
    except (BotoCoreError, ValueError) as error:
        raise InputError(
            f"the storage client cannot be made: {error}; check storage.profiles and AWS_*"
        ) from error
    # The last handler is asked only where botocore would give up.
    client.meta.events.register_last("needs-retry.s3", _Patience(profile.patience_seconds))
    return client


class _Patience:
    """Has a request tried again while a server is gone that has answered this client before.

    A server that never answered is more likely a mistake in the settings, which is told at once.

    Args:
        seconds: since the request first found nobody, after which it fails.
    """

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        self._has_answered = False

    def __call__(
        self,
        response: Any = None,
        caught_exception: BaseException | None = None,
        request_dict: dict[str, Any] | None = None,
        **_others: Any,
    ) -> float | None:
        """Return the seconds to wait before the next try; ``None`` gives up."""
        from botocore.exceptions import ConnectTimeoutError, EndpointConnectionError

        if response is not None:
            self._has_answered = True
        gone = isinstance(caught_exception, (EndpointConnectionError, ConnectTimeoutError))
        if not (gone and self._has_answered) or request_dict is None:
            return None
        since = request_dict.setdefault("context", {}).setdefault("baltoro_gone_since", time.monotonic())
        if time.monotonic() - since >= self._seconds:
            return None
        return random.uniform(*_PATIENT_WAIT_SECONDS)
