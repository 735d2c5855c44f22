"""One check in a process of its own: ``python -m baltoro.jobs.gpu_check.child FUNCTION DEVICE FILE``."""

from __future__ import annotations

import faulthandler
import importlib
import json
import os
import sys
import threading
import traceback
from dataclasses import asdict
from pathlib import Path

from baltoro.jobs.gpu_check.findings import Finding


def main(function: str, device: str, file: str) -> None:
    """Run a function and write what it returns, or the traceback of what it raises; never returns.

    Args:
        function: ``module:function``, which takes a device; findings, or plain values.
        device: as ``torch.device`` takes it.
        file: that the answer is written to, whole or not at all.
    """
    # What a crash of a driver or a signal from outside leaves: the stacks of all threads.
    faulthandler.enable()
    threading.Thread(target=_end_with_parent, daemon=True).start()
    answer: dict[str, object]
    try:
        import torch

        module, _, name = function.partition(":")
        returned = getattr(importlib.import_module(module), name)(torch.device(device))
        answer = {"result": [asdict(one) if isinstance(one, Finding) else one for one in returned]}
    except BaseException:  # noqa: BLE001  (the process that started this one reports it)
        answer = {"error": traceback.format_exc()}
    target = Path(file)
    part = target.with_suffix(".part")
    part.write_text(json.dumps(answer), encoding="utf-8")
    part.replace(target)
    sys.stdout.flush()
    sys.stderr.flush()
    # The answer is there; what libraries do while they are taken down could only hang or crash.
    os._exit(0 if "result" in answer else 1)


def _end_with_parent() -> None:
    """End this process when the one that started it is gone: its end of standard input closes."""
    sys.stdin.buffer.read()
    os._exit(70)


if __name__ == "__main__":
    main(*sys.argv[1:])
