"""Who and what made an artifact or a run: written beside the result, never part of its fingerprint."""

from __future__ import annotations

import functools
import getpass
import hashlib
import os
import platform
import socket
import subprocess
from importlib import metadata
from pathlib import Path

from pydantic import BaseModel, ConfigDict

UNKNOWN = "unknown"
SUBMITTER_VARIABLE = "BALTORO_SUBMITTED_BY"
IMAGE_VARIABLE = "BALTORO_IMAGE_DIGEST"
_LOCK_FILE = "requirements.lock"
_GIT_TIMEOUT_SECONDS = 20.0


class Provenance(BaseModel):
    """Where a result comes from.

    Attributes:
        submitted_by: ``user@host`` of the submitting command, handed to a cluster as
            ``BALTORO_SUBMITTED_BY``.
        package_version: the version of this package.
        lock_sha256: digest of ``requirements.lock``, which pins every dependency; ``"unknown"`` if not found.
        git_commit: the commit of the checkout the code runs from; ``None`` outside a checkout.
        git_dirty: whether tracked files of that checkout were changed or new ones not ignored; ``None``
            outside.
        image_digest: the container image, from ``BALTORO_IMAGE_DIGEST``; ``None`` outside a container.
        python: the version of the interpreter.
        platform: operating system and processor.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    submitted_by: str
    package_version: str
    lock_sha256: str
    git_commit: str | None
    git_dirty: bool | None
    image_digest: str | None
    python: str
    platform: str


def collect_provenance() -> Provenance:
    """Return the provenance of what this process makes."""
    commit, dirty = git_state(Path(__file__).resolve())
    return Provenance(
        submitted_by=os.environ.get(SUBMITTER_VARIABLE) or f"{_user()}@{socket.gethostname()}",
        package_version=_package_version(),
        lock_sha256=lock_digest([Path(__file__).resolve().parent, Path.cwd()]),
        git_commit=commit,
        git_dirty=dirty,
        image_digest=os.environ.get(IMAGE_VARIABLE) or None,
        python=platform.python_version(),
        platform=f"{platform.system()} {platform.machine()}",
    )


def lock_digest(starts: list[Path]) -> str:
    """Return the SHA-256 of the first ``requirements.lock`` in the folders or above, else ``"unknown"``."""
    for start in starts:
        for folder in (start, *start.parents):
            lock = folder / _LOCK_FILE
            if lock.is_file():
                return hashlib.sha256(lock.read_bytes()).hexdigest()
    return UNKNOWN


def git_state(code_file: Path) -> tuple[str | None, bool | None]:
    """Return commit and dirty flag of the checkout that tracks ``code_file``.

    An installed package may lie inside somebody else's checkout (a virtual environment in a project folder);
    that commit says nothing about this code, so only a checkout that tracks the file counts.

    Returns:
        ``(None, None)`` if the file is tracked by no checkout, or git is not installed.
    """
    folder = code_file.parent
    if _git(folder, "ls-files", "--error-unmatch", "--", code_file.name) is None:
        return None, None
    commit = _git(folder, "rev-parse", "--verify", "HEAD")
    status = _git(folder, "status", "--porcelain")
    return commit, None if status is None else status != ""


def _git(folder: Path, *arguments: str) -> str | None:
    """Return what git prints, or ``None`` if it refuses, hangs or is not there."""
    # Variables such as GIT_DIR, set inside a git hook, would name another repository.
    environment = {name: value for name, value in os.environ.items() if not name.startswith("GIT_")}
    try:
        done = subprocess.run(
            ["git", "-C", str(folder), *arguments],
            capture_output=True,
            text=True,
            check=True,
            timeout=_GIT_TIMEOUT_SECONDS,
            env={**environment, "GIT_OPTIONAL_LOCKS": "0"},
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout.strip()


@functools.cache
def _package_version() -> str:
    try:
        return metadata.version("baltoro")
    except metadata.PackageNotFoundError:
        return UNKNOWN


def _user() -> str:
    try:
        return getpass.getuser()
    except (KeyError, OSError):
        # A container may run under a number that no user database knows.
        return str(os.getuid())
