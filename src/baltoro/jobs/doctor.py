"""`baltoro doctor`: what this machine and a recipe's places can do, with a remedy beside every problem."""

from __future__ import annotations

import importlib.util
import logging
import os
import platform
import shutil
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from baltoro.core.errors import BaltoroError
from baltoro.core.storage import Storage, is_local, local_path
from baltoro.jobs.recipe import Recipe

_GIB = 1 << 30
_MIN_DISK_BYTES = 5 * _GIB
_MIN_SHARED_MEMORY_BYTES = 2 * _GIB

Status = Literal["ok", "note", "problem"]


@dataclass(frozen=True, slots=True)
class Check:
    """One line of the report. A ``note`` limits what can be run, a ``problem`` must be mended first."""

    name: str
    status: Status
    found: str
    remedy: str = ""


def check_machine(recipe: Recipe | None) -> list[Check]:
    """Run every check; with a recipe also those of its storage, tracking and cluster."""
    results = [check_python(), check_torch()]
    if results[-1].status == "ok":
        results.extend([check_devices(), check_bf16(), check_nf4()])
    results.extend([check_compiler(), check_shared_memory(), check_ray()])
    folder = Path.cwd()
    if recipe is not None and is_local(recipe.storage.root):
        folder = local_path(recipe.storage.root)
    results.append(check_disk("disk", folder))
    results.append(check_disk("temporary disk", Path(tempfile.gettempdir())))
    if recipe is not None:
        results.extend(check_recipe(recipe))
    return results


def describe_checks(checks: list[Check]) -> str:
    """Return the report for people."""
    marks = {"ok": "ok     ", "note": "note   ", "problem": "PROBLEM"}
    lines = []
    for check in checks:
        lines.append(f"{marks[check.status]}  {check.name:<16} {check.found}")
        if check.remedy:
            lines.append(f"{'':27}→ {check.remedy}")
    problems = sum(check.status == "problem" for check in checks)
    lines.append(f"{problems} problem{'s' * (problems != 1)} to mend." if problems else "Ready.")
    return "\n".join(lines)


def check_python() -> Check:
    """Python within the supported range, on a supported system."""
    version, system = platform.python_version(), platform.system()
    found = f"{version} on {system} {platform.machine()}"
    if system == "Windows":
        return Check("python", "problem", found, "Ray and FSDP need Linux or macOS; use WSL2 on Windows")
    if not (3, 11) <= sys.version_info[:2] <= (3, 13):
        return Check("python", "problem", found, "install Python 3.11, 3.12 or 3.13 and run make setup again")
    return Check("python", "ok", found)


def check_torch() -> Check:
    """PyTorch imports and has FSDP2 and gloo."""
    try:
        import torch
        import torch.distributed as dist
    except (ImportError, OSError) as error:
        return Check("torch", "problem", f"does not import: {error}", "run make setup again")
    if not dist.is_available() or not dist.is_gloo_available():
        return Check(
            "torch", "problem", f"{torch.__version__} without gloo", "install the PyTorch of the lock file"
        )
    return Check("torch", "ok", f"{torch.__version__}, {torch.get_num_threads()} threads")


def check_devices() -> Check:
    """GPUs that PyTorch sees."""
    import torch

    if torch.cuda.is_available():
        names = [torch.cuda.get_device_name(index) for index in range(torch.cuda.device_count())]
        return Check("devices", "ok", f"{len(names)} GPU: {', '.join(names)}")
    remedy = "set cluster.use_gpu=false, start with llama-tiny; larger models need a machine with NVIDIA GPUs"
    return Check("devices", "note", f"no GPU, {os.cpu_count()} CPUs", remedy)


def check_bf16() -> Check:
    """A bf16 matrix product is right, and the device has hardware for it."""
    import torch

    device = "cuda" if torch.cuda.is_available() else "cpu"
    try:
        a = torch.full((16, 16), 0.5, dtype=torch.bfloat16, device=device)
        right = bool(((a @ a) == 4).all())
    except RuntimeError as error:
        return Check("bf16", "note", f"fails on {device}: {error}", "set pretrain.precision=float32")
    if not right:
        return Check(
            "bf16", "problem", f"wrong result on {device}", "set pretrain.precision=float32 and report this"
        )
    if device == "cuda" and not torch.cuda.is_bf16_supported(including_emulation=False):
        return Check("bf16", "note", "emulated by this GPU, slow", "set pretrain.precision=float32")
    return Check("bf16", "ok", f"works on {device}")


def check_nf4() -> Check:
    """4-bit NF4 quantisation round-trips (bitsandbytes, an optional extra)."""
    if importlib.util.find_spec("bitsandbytes") is None:
        return Check(
            "nf4", "note", "bitsandbytes is not installed", "pip install 'baltoro[nf4]' to load 4-bit bases"
        )
    # It warns about kernels that only a GPU would use.
    logging.getLogger("bitsandbytes").setLevel(logging.ERROR)
    try:
        import bitsandbytes.functional as quantisation
        import torch

        device = "cuda" if torch.cuda.is_available() else "cpu"
        weights = torch.linspace(-1, 1, 4096, device=device).reshape(64, 64)
        packed, state = quantisation.quantize_4bit(weights, quant_type="nf4")
        error = float((quantisation.dequantize_4bit(packed, state) - weights).abs().mean())
    except (ImportError, OSError, RuntimeError, NotImplementedError) as failure:
        return Check(
            "nf4",
            "note",
            f"does not work here: {failure}",
            "use full-precision bases, or reinstall bitsandbytes",
        )
    if error > 0.1:
        return Check("nf4", "problem", f"mean error {error:.3f} after a round trip", "reinstall bitsandbytes")
    return Check("nf4", "ok", f"works on {device}, mean error {error:.3f}")


def check_compiler() -> Check:
    """A C++ compiler and ninja, which torch.compile and DeepSpeed use at run time."""
    compiler = shutil.which("g++") or shutil.which("clang++")
    missing = [name for name, path in (("g++", compiler), ("ninja", shutil.which("ninja"))) if path is None]
    if missing:
        remedy = "only needed for torch.compile and DeepSpeed: install " + " and ".join(missing)
        return Check("compiler", "note", f"no {', no '.join(missing)}", remedy)
    return Check("compiler", "ok", str(compiler))


def check_shared_memory() -> Check:
    """Room in /dev/shm for Ray's object store."""
    folder = Path("/dev/shm")
    if not folder.is_dir():
        return Check("shared memory", "ok", "no /dev/shm on this system; Ray uses its temporary folder")
    total = shutil.disk_usage(folder).total
    found = f"/dev/shm of {total / _GIB:.1f} GiB"
    if total < _MIN_SHARED_MEMORY_BYTES:
        return Check(
            "shared memory", "note", found, "Ray falls back to disk; give the container --shm-size=4g or more"
        )
    return Check("shared memory", "ok", found)


def check_ray() -> Check:
    """Ray imports with what data, training and jobs need."""
    try:
        import ray
        import ray.data
        import ray.train
    except (ImportError, OSError) as error:
        return Check("ray", "problem", f"does not import: {error}", "run make setup again")
    address = os.environ.get("RAY_ADDRESS")
    return Check("ray", "ok", f"{ray.__version__}, " + (f"cluster {address}" if address else "local"))


def check_disk(name: str, folder: Path) -> Check:
    """Free space where artifacts go, or what is worked on for a while."""
    while not folder.exists() and folder != folder.parent:
        folder = folder.parent
    free = shutil.disk_usage(folder).free
    found = f"{free / _GIB:.1f} GiB free at {folder}"
    if free < _MIN_DISK_BYTES:
        setting = "TMPDIR" if name == "temporary disk" else "storage.root"
        return Check(name, "note", found, f"free some space, or point {setting} at a larger disk")
    return Check(name, "ok", found)


def check_places(recipe: Recipe) -> Iterator[Check]:
    """Rights on the recipe's storage, its sources, tracking store and cluster's size."""
    from baltoro.corpus.listing import list_source
    from baltoro.jobs.cluster import local_cpus, required_cpus
    from baltoro.jobs.runner import make_tracker

    storage = Storage(recipe.storage.profiles)
    try:
        report = storage.probe(recipe.storage.root)
        yield Check("storage.root", "ok", report.summary())
    except BaltoroError as error:
        yield Check("storage.root", "problem", recipe.storage.root, error.message)
    for index, source in enumerate(recipe.corpus.sources):
        name = f"source {source.name}"
        try:
            listing = list_source(index, source, storage, recipe.storage.root)
            yield Check(
                name, "ok", f"{len(listing.objects)} files, {listing.size_bytes / 1e6:.1f} MB at {source.uri}"
            )
        except BaltoroError as error:
            yield Check(name, "problem", source.uri, error.message)
    tracker = make_tracker(recipe)
    try:
        tracker.prepare()
        yield Check("mlflow", "ok", tracker.uri)
    except BaltoroError as error:
        yield Check("mlflow", "problem", tracker.uri, error.message)
    found = f"{recipe.cluster.workers} workers, needs {required_cpus(recipe)} logical CPUs"
    try:
        local_cpus(recipe)
        yield Check("cluster", "ok", found)
    except BaltoroError as error:
        yield Check("cluster", "problem", found, error.message)


def check_recipe(recipe: Recipe) -> Iterator[Check]:
    """What the recipe needs: its places, its plan (which only says what these have not said), GPUs."""
    from baltoro.jobs.runner import last_stage, plan
    from baltoro.jobs.stages import Context

    places = list(check_places(recipe))
    yield from places
    if all(check.status == "ok" for check in places):
        try:
            planned = plan(Context(recipe), last_stage(recipe))
            done = sum(entry.artifact is not None for entry in planned)
            yield Check("plan", "ok", f"{len(planned)} stages, {done} of them done")
        except BaltoroError as error:
            yield Check("plan", "problem", f"{recipe.name} up to its last stage", error.message)
    if recipe.cluster.use_gpu:
        import torch

        if not torch.cuda.is_available() and not (recipe.cluster.address or os.environ.get("RAY_ADDRESS")):
            yield Check(
                "cluster.use_gpu",
                "problem",
                "no GPU on this machine",
                "set cluster.use_gpu=false, or cluster.address to a cluster with GPUs",
            )
