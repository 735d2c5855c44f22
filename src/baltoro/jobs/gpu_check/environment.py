"""What a report says of the machine: device, drivers, versions, variables."""

from __future__ import annotations

import contextlib
import os
import platform
import shutil
import subprocess
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING

import baltoro
from baltoro.core.provenance import git_state

if TYPE_CHECKING:
    import torch

# No serial numbers, and none of the processes that nvidia-smi lists with their users and paths.
_NVIDIA_SMI_FIELDS = (
    "name,driver_version,memory.total,memory.used,compute_mode,mig.mode.current,ecc.mode.current,pstate,"
    "clocks.sm,clocks.max.sm,power.draw,power.limit,temperature.gpu,utilization.gpu"
)
_PACKAGES = (
    *("transformers", "deepspeed", "bitsandbytes", "liger-kernel", "flash-attn", "triton", "ray", "numpy"),
)
_GIB = 1 << 30


def collect_environment(device: torch.device) -> list[tuple[str, str]]:
    """Return names and values.

    Args:
        device: that is checked.
    """
    import torch

    commit, dirty = git_state(Path(baltoro.__file__).resolve())
    rows = [
        ("Baltoro", f"{metadata.version('baltoro')}, {_commit(commit, dirty)}"),
        ("device", str(device)),
        *_device_rows(device),
        ("CUDA of torch", torch.version.cuda or "none"),
        ("cuDNN", _cudnn()),
        ("NCCL", _nccl()),
        ("torch", torch.__version__),
        *((package, _version(package)) for package in _PACKAGES),
        ("Python", f"{platform.python_version()} ({platform.python_implementation()})"),
        ("system", _system()),
        ("processor", f"{_processor()}, {os.cpu_count()} logical CPUs"),
        ("compiler", next((name for name in ("g++", "clang++", "gcc") if shutil.which(name)), "none")),
    ]
    return rows + _nvidia_smi()


def _commit(commit: str | None, dirty: bool | None) -> str:
    if commit is None:
        return "installed, from no checkout"
    return f"commit {commit}{' with changes' if dirty else ''}"


def _device_rows(device: torch.device) -> list[tuple[str, str]]:
    import torch

    if device.type != "cuda":
        return [("GPU", "not used")]
    properties = torch.cuda.get_device_properties(device)
    return [
        ("GPU", torch.cuda.get_device_name(device)),
        ("GPUs seen", str(torch.cuda.device_count())),
        ("GPU memory", f"{properties.total_memory / _GIB:.1f} GiB"),
        ("compute capability", ".".join(map(str, torch.cuda.get_device_capability(device)))),
        ("multiprocessors", str(properties.multi_processor_count)),
    ]


def _cudnn() -> str:
    import torch

    return str(torch.backends.cudnn.version() or "none")  # type: ignore[no-untyped-call]


def _nccl() -> str:
    import torch

    if not torch.cuda.is_available():
        return "not used"
    return ".".join(map(str, torch.cuda.nccl.version()))  # type: ignore[no-untyped-call]


def _version(package: str) -> str:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return "not installed"


def _system() -> str:
    names = {}
    with contextlib.suppress(OSError):
        names = platform.freedesktop_os_release()
    distribution = names.get("PRETTY_NAME", "")
    kernel = f"{platform.system()} {platform.release()} {platform.machine()}"
    return f"{distribution}, {kernel}" if distribution else kernel


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return platform.processor() or platform.machine()
    names = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return next(names, platform.machine())


def _nvidia_smi() -> list[tuple[str, str]]:
    """Return what nvidia-smi says of each GPU, a row per figure."""
    if shutil.which("nvidia-smi") is None:
        return [("nvidia-smi", "not there")]
    command = ["nvidia-smi", f"--query-gpu={_NVIDIA_SMI_FIELDS}", "--format=csv,noheader"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=20)
    except (OSError, subprocess.SubprocessError) as error:
        return [("nvidia-smi", f"failed: {error}")]
    rows = []
    for index, line in enumerate(done.stdout.strip().splitlines()):
        values = zip(_NVIDIA_SMI_FIELDS.split(","), line.split(","), strict=False)
        rows += [(f"nvidia-smi, GPU {index}, {name}", value.strip()) for name, value in values]
    return rows
