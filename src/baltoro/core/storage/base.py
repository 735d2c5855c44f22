"""What local and S3 storage have in common: profiles, object descriptions and errors."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable
from dataclasses import dataclass
from urllib.parse import urlsplit

from pydantic import BaseModel, ConfigDict, Field, field_validator

from baltoro.core.errors import InputError, StorageError


class MissingError(InputError):
    """The object, folder or bucket does not exist."""


class AlreadyExistsError(StorageError):
    """A conditional create found an object of that name."""


class ChangedError(StorageError):
    """A conditional replace found another content than the caller had read, or none."""


@dataclass(frozen=True, slots=True)
class ObjectInfo:
    """One stored object.

    Attributes:
        uri: where it is.
        key: its name relative to the listed prefix, ``/``-separated (the last part of the URI for one
            object).
        size_bytes: its length.
        etag: changes when the content changes; ``""`` if not asked for. The MD5 of the content for local
            files, as S3 has it for objects that were not uploaded in parts, so a copied source keeps its
            fingerprint.
    """

    uri: str
    key: str
    size_bytes: int
    etag: str


class StorageProfile(BaseModel):
    """How to reach one object store; secrets stay outside (environment, AWS files, instance roles).

    Attributes:
        endpoint_url: the S3 service; Amazon's (or ``AWS_ENDPOINT_URL``) when not given.
        region: the region to sign for.
        ca_bundle: a PEM file of certificate authorities to trust instead of the system's.
        credentials_profile: the *name* of a profile in the AWS credentials or config file.
        single_writer: declares that only one process ever publishes here, which allows a store without
            conditional writes: the existence of an object is then looked up before it is written.
        max_attempts: how often one request is tried, the first time included.
        connect_timeout_seconds: how long one connection may take to be made.
        read_timeout_seconds: how long the server may stay silent within one request.
        patience_seconds: how long a request is tried again when a server that has answered before is gone
            (it refuses connections): days of training should outlast its restart.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", hide_input_in_errors=True)

    endpoint_url: str | None = None
    region: str | None = None
    ca_bundle: str | None = None
    credentials_profile: str | None = None
    single_writer: bool = False
    max_attempts: int = Field(default=6, ge=1, le=20)
    connect_timeout_seconds: float = Field(default=10.0, gt=0, le=300)
    read_timeout_seconds: float = Field(default=60.0, gt=0, le=3600)
    patience_seconds: float = Field(default=120.0, ge=0, le=3600)

    @field_validator("endpoint_url")
    @classmethod
    def _endpoint_without_secrets(cls, value: str | None) -> str | None:
        if value is None:
            return None
        parts = urlsplit(value)
        if "@" in parts.netloc:
            raise ValueError(
                "must not carry a user or password; put them in the AWS credentials file and name the "
                "profile in credentials_profile"
            )
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise ValueError("must be http://host[:port] or https://host[:port]")
        if parts.query or parts.fragment:
            raise ValueError("must not have a query or fragment")
        return value

    @field_validator("credentials_profile")
    @classmethod
    def _a_name_not_a_key(cls, value: str | None) -> str | None:
        if value is not None and re.fullmatch(r"(AKIA|ASIA)[A-Z0-9]{12,}.*|.*:.*", value):
            raise ValueError(
                "must be the name of a profile in the AWS credentials file, never a key; run `aws configure "
                "--profile NAME` and write NAME here"
            )
        return value


def digest_of(objects: Iterable[ObjectInfo]) -> str:
    """Return 16 hexadecimal digits that name objects by key, size and content, wherever they stand.

    Args:
        objects: in the order of their keys, listed with their etags.
    """
    hasher = hashlib.sha256()
    for entry in objects:
        hasher.update(f"{entry.key}\0{entry.size_bytes}\0{entry.etag}\n".encode())
    return hasher.hexdigest()[:16]


def missing(uri: str) -> MissingError:
    """Return the error for an object that is not there."""
    return MissingError(f"{uri} does not exist; check the URI")


def already_exists(uri: str) -> AlreadyExistsError:
    """Return the error of a lost conditional create."""
    return AlreadyExistsError(
        f"{uri} already exists and is never overwritten; read it instead of creating it"
    )


def changed(uri: str) -> ChangedError:
    """Return the error of a lost conditional replace."""
    return ChangedError(f"{uri} was changed or removed by another writer; read it again before replacing it")


def replaced(uri: str) -> ChangedError:
    """Return the error of reading another content than was listed or opened."""
    return ChangedError(f"{uri} was replaced since it was listed or opened; run the command again")


def check_range(uri: str, start: int, length: int) -> None:
    """Refuse a range no object can have.

    Raises:
        InputError: if start or length is negative.
    """
    if start < 0 or length < 0:
        raise InputError(f"{uri}: cannot read {length} bytes from byte {start}; both must be 0 or more")


def outside(uri: str, start: int, length: int, found: int) -> InputError:
    """Return the error of a range that the object does not cover."""
    return InputError(
        f"{uri} has only {found} of the {length} bytes asked for from byte {start}; the object is shorter "
        "than its reader expects (truncated, or replaced by another one)"
    )
