"""What S3 and boto3 refuse, said in one sentence: the URI, what was said, and what to do."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from baltoro.core.errors import InputError, StorageError
from baltoro.core.storage.base import MissingError, StorageProfile, missing
from baltoro.core.storage.uris import S3_SCHEME, split_s3


@contextmanager
def explained(profile: StorageProfile, endpoint: Callable[[], str], uri: str, action: str) -> Iterator[None]:
    """Turn what boto3 raises into one sentence: the URI, what was said, and what to do."""
    from boto3.exceptions import Boto3Error
    from botocore.exceptions import BotoCoreError, ClientError

    try:
        yield
    except Boto3Error as error:
        # Transfers of files wrap what happened, each in its own way.
        cause = getattr(error, "last_exception", None) or error.__context__ or error
        if isinstance(cause, ClientError):
            raise _refusal(profile, endpoint, uri, action, cause) from error
        raise _failure(profile, endpoint, uri, action, cause) from error
    except ClientError as error:
        raise _refusal(profile, endpoint, uri, action, error) from error
    except BotoCoreError as error:
        raise _failure(profile, endpoint, uri, action, error) from error


def _who(profile: StorageProfile) -> str:
    name = profile.credentials_profile
    if name:
        return f"credentials profile {name!r}"
    if os.environ.get("AWS_PROFILE"):
        return f"credentials profile {os.environ['AWS_PROFILE']!r} (AWS_PROFILE)"
    if os.environ.get("AWS_ACCESS_KEY_ID"):
        return "the credentials in AWS_ACCESS_KEY_ID"
    return "the default AWS credentials"


def _refusal(
    profile: StorageProfile, endpoint: Callable[[], str], uri: str, action: str, error: Any
) -> Exception:
    """Explain an answer of the server."""
    code, status = error_code(error)
    message = error.response.get("Error", {}).get("Message") or "no message"
    bucket = split_s3(uri)[0]
    reading = action in ("read", "list")
    kind = InputError if reading else StorageError
    said = f"cannot {action} {uri}: the server at {endpoint()} said {code}: {message}"
    if code == "NoSuchBucket" or (status == 404 and uri == f"{S3_SCHEME}{bucket}"):
        return MissingError(
            f"cannot {action} {uri}: bucket {bucket!r} does not exist at {endpoint()}; create it, "
            "correct the URI, or set endpoint_url in storage.profiles if it is elsewhere"
        )
    if status == 404:
        return missing(uri)
    if code in ("InvalidAccessKeyId", "SignatureDoesNotMatch", "AuthFailure", "InvalidClientTokenId"):
        return kind(
            f"{said}; {_who(profile)} are not known there: correct them or name others in storage.profiles"
        )
    if code in ("ExpiredToken", "InvalidToken", "TokenRefreshRequired", "ExpiredTokenException"):
        return kind(f"{said}; {_who(profile)} have expired: renew them (for example `aws sso login`)")
    if code == "RequestTimeTooSkewed":
        return kind(f"{said}; set this machine's clock (for example with NTP)")
    if code in ("PermanentRedirect", "AuthorizationHeaderMalformed", "301") or status == 301:
        return kind(f"{said}; set the bucket's region in storage.profiles or AWS_DEFAULT_REGION")
    if status == 403:
        right = {"read": "s3:GetObject", "list": "s3:ListBucket", "delete": "s3:DeleteObject"}.get(
            action, "s3:PutObject"
        )
        return kind(
            f"{said}; access is denied to {_who(profile)}: allow them {right} (and s3:ListBucket, without "
            "which a missing object looks the same) or name others in storage.profiles"
        )
    if code in ("QuotaExceeded", "XMinioStorageFull", "InsufficientStorage") or status == 507:
        return StorageError(f"{said}; the store is full: free some space or set storage.root elsewhere")
    if code in ("InvalidBucketName", "KeyTooLongError", "InvalidURI"):
        return InputError(f"{said}; correct the URI")
    if code in ("NotImplemented", "MethodNotAllowed") or status == 501:
        return StorageError(f"{said}; this store lacks what publishing relies on: use another one")
    if code in ("SlowDown", "Throttling", "RequestLimitExceeded", "TooManyRequests") or (status or 0) >= 500:
        return StorageError(
            f"{said}, {profile.max_attempts} times; run the command again later, or raise max_attempts in "
            "storage.profiles"
        )
    return kind(f"{said}; check the URI, the credentials and endpoint_url")


def _failure(
    profile: StorageProfile, endpoint: Callable[[], str], uri: str, action: str, error: Exception
) -> Exception:
    """Explain a failure on this side of the connection."""
    from botocore import exceptions as boto

    reading = action in ("read", "list")
    kind = InputError if reading else StorageError
    said = f"cannot {action} {uri}: {' '.join(str(error).split())}"
    if isinstance(error, (boto.NoCredentialsError, boto.PartialCredentialsError)):
        return kind(
            f"{said}; set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, run `aws configure`, or name a "
            "credentials_profile in storage.profiles"
        )
    if isinstance(
        error,
        (
            boto.CredentialRetrievalError,
            boto.SSOError,
            boto.TokenRetrievalError,
            boto.UnauthorizedSSOTokenError,
            boto.MetadataRetrievalError,
        ),
    ):
        return kind(f"{said}; renew {_who(profile)} (for example `aws sso login`)")
    if isinstance(error, boto.SSLError):
        return kind(
            f"{said}; the certificate of {endpoint()} is not trusted: set ca_bundle in "
            "storage.profiles (or AWS_CA_BUNDLE) to the PEM file of the authority that signed it"
        )
    if isinstance(error, (boto.IncompleteReadError, boto.ResponseStreamingError)):
        return StorageError(
            f"{said}; the answer ended early and is not used: check the network and {endpoint()}, raise "
            "max_attempts in storage.profiles, or run the command again later"
        )
    if isinstance(error, boto.ReadTimeoutError):
        return kind(
            f"{said}; {endpoint()} was silent for {profile.read_timeout_seconds:g} s, so it is not reached "
            "or is overloaded: check the network, raise read_timeout_seconds or max_attempts in "
            "storage.profiles, or run the command again later"
        )
    if isinstance(error, (boto.HTTPClientError, boto.ConnectionError)):
        return kind(
            f"{said}; {endpoint()} cannot be reached ({profile.max_attempts} tries): check "
            "endpoint_url in storage.profiles, the network and HTTPS_PROXY, or raise max_attempts there"
        )
    if isinstance(error, boto.ParamValidationError):
        return InputError(f"{said}; correct the URI")
    return kind(f"{said}; check storage.profiles and the AWS configuration")


def error_code(error: Any) -> tuple[str, int | None]:
    """Return the server's error code and HTTP status."""
    return (
        str(error.response.get("Error", {}).get("Code", "")),
        error.response.get("ResponseMetadata", {}).get("HTTPStatusCode"),
    )
