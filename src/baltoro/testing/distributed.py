"""Run a function on several real processes that form a gloo process group.

Processes are forked from a server that has imported torch and transformers once, so the second group
starts in well under a second. A function is found again by file and name, so it may stand in a test module.
"""

from __future__ import annotations

import importlib.util
import multiprocessing
import pickle
import sys
import tempfile
import time
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from multiprocessing.context import ForkServerContext
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

_POLL_SECONDS = 0.05
_GRACE_SECONDS = 5.0
_PRELOADED = [
    "torch",
    "torch.distributed.fsdp",
    "torch.distributed.checkpoint",
    "transformers.models.llama.modeling_llama",
]


class RankFailedError(AssertionError):
    """A rank raised, died or was too slow; the message holds the first failing rank's traceback."""


def run_distributed(
    function: Callable[..., Any], world_size: int, *arguments: Any, timeout_seconds: float = 240.0
) -> list[Any]:
    """Run ``function(*arguments)`` on every rank of a gloo process group; return the results in rank order.

    Args:
        function: a top-level function of an importable module or a test file.
        world_size: number of processes.
        *arguments: picklable; the same for every rank.
        timeout_seconds: for the whole run; every process is killed after it.

    Raises:
        RankFailedError: a rank raised (its traceback is in the message), died, or did not finish in time.
    """
    with started_ranks(function, world_size, *arguments, timeout_seconds=timeout_seconds) as ranks:
        return ranks.results()


class StartedRanks:
    """Ranks that run in processes of their own.

    Attributes:
        processes: in rank order.
    """

    def __init__(self, processes: list[BaseProcess], folder: Path, timeout_seconds: float) -> None:
        self.processes = processes
        self._folder = folder
        self._timeout_seconds = timeout_seconds
        self._deadline = time.monotonic() + timeout_seconds

    @property
    def running(self) -> bool:
        """Whether one of them has not ended."""
        return any(process.is_alive() for process in self.processes)

    def results(self) -> list[Any]:
        """Wait for all of them; return what they returned, in rank order.

        Raises:
            RankFailedError: as :func:`run_distributed`.
        """
        _wait(self.processes, self._folder, self._deadline, self._timeout_seconds)
        return [
            pickle.loads((self._folder / f"result-{rank}.pickle").read_bytes())
            for rank in range(len(self.processes))
        ]


@contextmanager
def started_ranks(
    function: Callable[..., Any], world_size: int, *arguments: Any, timeout_seconds: float = 240.0
) -> Iterator[StartedRanks]:
    """Start ``function(*arguments)`` as :func:`run_distributed` does; whatever runs in the end is killed."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(_PRELOADED)
    with tempfile.TemporaryDirectory(prefix="baltoro-ranks-") as name:
        folder = Path(name)
        target = (function.__code__.co_filename, function.__module__, function.__qualname__)
        (folder / "call.pickle").write_bytes(pickle.dumps((target, arguments)))
        processes = _start(context, folder, world_size, timeout_seconds)
        try:
            yield StartedRanks(processes, folder, timeout_seconds)
        finally:
            for process in processes:
                if process.is_alive():
                    process.kill()
                process.join()


@contextmanager
def single_process_group() -> Iterator[None]:
    """Make this process the only rank of a gloo process group."""
    import torch.distributed as dist
    from torch._C._distributed_c10d import HashStore

    dist.init_process_group("gloo", store=HashStore(), rank=0, world_size=1)
    try:
        yield
    finally:
        dist.destroy_process_group()


def _start(
    context: ForkServerContext, folder: Path, world_size: int, timeout_seconds: float
) -> list[BaseProcess]:
    processes: list[BaseProcess] = [
        context.Process(target=_run_rank, args=(str(folder), rank, world_size, timeout_seconds))
        for rank in range(world_size)
    ]
    for process in processes:
        process.start()
    return processes


def _wait(processes: list[BaseProcess], folder: Path, deadline: float, timeout_seconds: float) -> None:
    """Return when all ranks are done; raise with what failed first."""
    while True:
        failed = any(process.exitcode not in (None, 0) for process in processes)
        if failed:
            _raise_first_failure(processes, folder)
        if all(process.exitcode == 0 for process in processes):
            return
        if time.monotonic() > deadline:
            running = [rank for rank, process in enumerate(processes) if process.exitcode is None]
            raise RankFailedError(f"ranks {running} did not finish within {timeout_seconds:.0f} seconds")
        time.sleep(_POLL_SECONDS)


def _raise_first_failure(processes: list[BaseProcess], folder: Path) -> None:
    # A rank that others wait for makes them fail too, a moment later: the oldest report is the cause.
    for process in processes:
        process.join(_GRACE_SECONDS)
    reports = sorted(folder.glob("error-*.txt"), key=lambda path: path.stat().st_mtime_ns)
    if reports:
        rank = reports[0].stem.removeprefix("error-")
        raise RankFailedError(
            f"rank {rank} of {len(processes)} failed:\n{reports[0].read_text(encoding='utf-8')}"
        )
    codes = {
        rank: process.exitcode for rank, process in enumerate(processes) if process.exitcode not in (None, 0)
    }
    raise RankFailedError(f"ranks died without a report; exit codes {codes}")


def _run_rank(folder_name: str, rank: int, world_size: int, timeout_seconds: float) -> None:
    import torch
    import torch.distributed as dist

    folder = Path(folder_name)
    torch.set_num_threads(1)
    try:
        (file_name, module_name, name), arguments = pickle.loads((folder / "call.pickle").read_bytes())
        dist.init_process_group(
            "gloo",
            init_method=f"file://{folder}/store",
            rank=rank,
            world_size=world_size,
            timeout=timedelta(seconds=timeout_seconds),
        )
        result = _load_function(file_name, module_name, name)(*arguments)
        (folder / f"result-{rank}.pickle").write_bytes(pickle.dumps(result))
        dist.barrier()
        dist.destroy_process_group()
    except BaseException:  # noqa: BLE001  (the parent raises it with this traceback)
        (folder / f"error-{rank}.txt").write_text(traceback.format_exc(), encoding="utf-8")
        sys.exit(1)


def _load_function(file_name: str, module_name: str, name: str) -> Callable[..., Any]:
    # A script's module must not run as one again in every rank.
    module_name = module_name.replace("__main__", "_distributed_main")
    specification = importlib.util.spec_from_file_location(module_name, file_name)
    assert specification is not None
    assert specification.loader is not None
    module = importlib.util.module_from_spec(specification)
    sys.modules[module_name] = module
    specification.loader.exec_module(module)
    function: Callable[..., Any] = getattr(module, name)
    return function
