"""How much memory this process has taken."""

from __future__ import annotations

import resource
import sys
from pathlib import Path

_STATUS = Path("/proc/self/status")


def peak_resident_bytes() -> int:
    """Return the most memory that this process has had resident so far, in bytes.

    Linux tells it as ``VmHWM`` (proc_pid_status(5)). ``getrusage(2)``, asked elsewhere, does not start anew
    with ``exec``: there, a child of a large process is taken to be as large.
    """
    if _STATUS.exists():
        for line in _STATUS.read_text().splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) * 1024
    # Linux counts in KiB, macOS in bytes.
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)
