"""Takes out of a report who made it and where: it is to be attached to a public bug."""

from __future__ import annotations

import getpass
import platform
import re
import socket
import sys
import sysconfig
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path

import baltoro

Scrub = Callable[[str], str]

_OF_ANYONE = {"root", "user", "ubuntu", "admin", "runner", "nobody", "localhost"}
_HOMES = re.compile(r"/(?:home|Users)/[^/\s:\"'|`]+|/root(?=[/\s:\"'|`]|$)")
_ADDRESS = re.compile(r"(?<![\w.])(?:\d{1,3}\.){3}\d{1,3}(?![\w.])")
_SECRET_NAME = re.compile(r"TOKEN|SECRET|PASSWORD|CREDENTIAL|API_?KEY", re.IGNORECASE)

SHOWN_VARIABLES = ("CUDA_", "NCCL_", "TORCH", "PYTORCH_", "NVIDIA_TF32", "OMP_NUM_THREADS", "TRITON_", "DS_")
"""How the names of variables begin that change how a device computes."""


def make_scrub(
    *, home: str | None = None, user: str | None = None, hosts: Sequence[str] | None = None
) -> Scrub:
    """Return a function that takes user, hosts and places out of a text.

    Args:
        home: folder of the user; this process' by default.
        user: name of the user; this process' by default.
        hosts: names of this machine; all that are known by default.
    """
    places = _places(home)
    # The short name is a part of the long one, so that goes first.
    names = sorted({name for name in (_hosts() if hosts is None else hosts) if _tells(name)}, key=len)[::-1]
    users = [name for name in [_user() if user is None else user] if _tells(name)]

    def scrub(text: str) -> str:
        for place, shown in places:
            text = re.sub(re.escape(place) + r"(?![\w.-])", shown.replace("\\", r"\\"), text)
        text = _HOMES.sub("~", text)
        for name in names:
            text = re.sub(rf"(?<![\w-]){re.escape(name)}(?![\w-])", "[host]", text, flags=re.IGNORECASE)
        for name in users:
            text = re.sub(rf"(?<![A-Za-z0-9]){re.escape(name)}(?![A-Za-z0-9])", "[user]", text)
        return text

    return scrub


def without_addresses(text: str) -> str:
    """Return a text without IPv4 addresses; not for versions, which look like them."""
    return _ADDRESS.sub("[address]", text)


def shown_variables(environment: dict[str, str]) -> list[tuple[str, str]]:
    """Return the variables that matter, by name, without addresses and secrets.

    Args:
        environment: of the process.
    """
    return [
        (name, "[hidden]" if _SECRET_NAME.search(name) else without_addresses(value))
        for name, value in sorted(environment.items())
        if name.startswith(SHOWN_VARIABLES)
    ]


def _tells(name: str) -> bool:
    """Return whether a name says anything of somebody."""
    return len(name) > 1 and name.lower() not in _OF_ANYONE


def _places(home: str | None) -> list[tuple[str, str]]:
    """Return folders and what stands for them, the longest first."""
    found = [
        (str(Path(baltoro.__file__).parent), "baltoro"),
        (sysconfig.get_path("purelib"), "site-packages"),
        (sysconfig.get_path("stdlib"), "python"),
        (sys.prefix, "$VENV"),
        (sys.base_prefix, "$PYTHON"),
        (str(Path.cwd()), "."),
        (tempfile.gettempdir(), "$TMPDIR"),
        (home or str(Path.home()), "~"),
    ]
    both = [(place, shown) for path, shown in found for place in {path, str(Path(path).resolve())}]
    # "/usr" and "/tmp" tell nothing, but "/" would be everywhere.
    return sorted({pair for pair in both if len(pair[0]) > 1}, key=lambda pair: -len(pair[0]))


def _hosts() -> list[str]:
    names = [platform.node(), socket.gethostname(), socket.getfqdn()]
    return [part for name in names for part in (name, name.partition(".")[0])]


def _user() -> str:
    try:
        return getpass.getuser()
    except (KeyError, OSError):
        # A container may run under a number that no user database knows.
        return ""
