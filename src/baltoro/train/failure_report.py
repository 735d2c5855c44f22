"""What one rank can tell when a run fails: its last log lines, its stacks, its error, what it waits in.

Nothing here talks to other ranks or to storage: a rank that fails may be able to do neither. All of it is
plain values, which the driver's side gathers and writes.
"""

from __future__ import annotations

import logging
import os
import platform
import re
import sys
import threading
import time
import traceback
from collections import deque
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from baltoro.core.errors import BaltoroError, TrainingError
from baltoro.core.memory import peak_resident_bytes

if TYPE_CHECKING:
    import torch

    from baltoro.train.config import TrainConfig

KEPT_LINES = 200
"""Last log lines of a rank that a report holds."""

Kind = Literal["raised", "hung", "ended", "asked"]
"""How a rank came to report: it raised, its watchdog ended it, it died (told by others), or it was asked."""

_GIB = 1 << 30
_PEER_LOST = re.compile(
    r"gloo/transport|connection closed by peer|pair closure|ncclRemoteError|remote process exited|"
    r"NCCL communicator was aborted|collective operation timeout|monitoredBarrier|recvValue failed|"
    r"Timed out waiting \d+ms for (recv|send) operation",
    re.IGNORECASE,
)
_CONNECTION_LOST = re.compile(
    r"connection (was )?(reset|refused|closed|aborted)|broken pipe|socket timeout", re.IGNORECASE
)
_OF_ANOTHER_RANK = re.compile(r"rank (\d+) failed: ")
_TRIED = re.compile(r"tried to allocate ([\d.]+ ?[KMGT]?i?B(?:ytes)?)", re.IGNORECASE)
_UNABLE = re.compile(r"unable to allocate ([\d.]+ ?[KMGT]?i?B)", re.IGNORECASE)
_NOT_THE_PLACE = ("wrapper", "_fn", "inner")
_COLLECTIVES = (
    "torch/distributed/distributed_c10d.py",
    "torch/distributed/_functional_collectives.py",
    "torch/distributed/fsdp/_fully_shard/_fsdp_collectives.py",
    "torch/distributed/fsdp/_fully_shard/_fsdp_param_group.py",
)
_COLLECTIVE_DEPTH = 4


@dataclass(frozen=True, slots=True)
class Place:
    """What a thread is in.

    Attributes:
        text: one line for people.
        in_collective: it waits for other ranks.
    """

    text: str
    in_collective: bool


@dataclass(frozen=True, slots=True)
class ErrorReport:
    """An error as it was raised on a rank.

    Attributes:
        type_name: of the exception.
        message: its text.
        traceback: whole, with the errors it was raised from.
        expected: one of :mod:`baltoro.core.errors`, whose text says what to do.
        collateral: it tells only that another rank was lost or failed.
        out_of_memory: of a device or of the host.
    """

    type_name: str
    message: str
    traceback: str
    expected: bool
    collateral: bool
    out_of_memory: bool


@dataclass(frozen=True, slots=True)
class RankReport:
    """What one rank tells of a failure.

    Attributes:
        rank: in the process group.
        kind: how it came to report.
        at: Unix time.
        host: name of its machine.
        process: its id there.
        step: steps done, as far as the rank knows; ``None`` before its first.
        error: what it raised, if it did.
        place: what its training thread was in.
        stacks: of all its threads.
        lines: its last log lines.
    """

    rank: int
    kind: Kind
    at: float
    host: str = ""
    process: int = 0
    step: int | None = None
    error: ErrorReport | None = None
    place: Place | None = None
    stacks: str = ""
    lines: tuple[str, ...] = ()


class RecentLines(logging.Handler):
    """Keeps the last log lines of this process.

    Args:
        lines: how many.
    """

    def __init__(self, lines: int = KEPT_LINES) -> None:
        super().__init__()
        self.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(name)s: %(message)s"))
        self._lines: deque[str] = deque(maxlen=lines)
        self._fresh: deque[str] = deque(maxlen=lines)

    def emit(self, record: logging.LogRecord) -> None:
        """Keep a record."""
        line = self.format(record)
        self._lines.append(line)
        self._fresh.append(line)

    @property
    def lines(self) -> tuple[str, ...]:
        """The lines kept, oldest first."""
        return tuple(self._lines)

    def take_fresh(self) -> list[str]:
        """Return the lines since the last call."""
        taken = []
        while self._fresh:
            taken.append(self._fresh.popleft())
        return taken


def report_of_rank(
    rank: int,
    kind: Kind,
    *,
    step: int | None,
    thread: int | None,
    error: BaseException | None = None,
    lines: tuple[str, ...] = (),
) -> RankReport:
    """Return what this process can tell now.

    Args:
        rank: of this process.
        kind: why it reports.
        step: steps done.
        thread: identifier of the training thread.
        error: what was raised.
        lines: last log lines.
    """
    return RankReport(
        rank=rank,
        kind=kind,
        at=time.time(),
        host=platform.node(),
        process=os.getpid(),
        step=step,
        error=None if error is None else describe_error(error, rank=rank),
        place=None if error is not None or thread is None else place_of(thread),
        stacks=dump_stacks(),
        lines=lines,
    )


def dump_stacks() -> str:
    """Return the stacks of all threads of this process, as Python sees them."""
    names = {thread.ident: thread.name for thread in threading.enumerate()}
    own = threading.get_ident()
    parts = []
    for identifier, frame in sorted(sys._current_frames().items()):
        if identifier != own:
            stack = "".join(traceback.format_stack(frame))
            parts.append(f"Thread {names.get(identifier, 'unknown to Python')} ({identifier}):\n{stack}")
    return "\n".join(parts)


def place_of(thread: int) -> Place | None:
    """Return what a thread is in: the collective it waits in, or the innermost call, and who called it."""
    frame = sys._current_frames().get(thread)
    if frame is None:
        return None
    stack = traceback.extract_stack(frame)
    ours = next((entry for entry in reversed(stack) if "/baltoro/" in entry.filename), stack[-1])
    collective = next(
        (
            entry
            for entry in reversed(stack[-_COLLECTIVE_DEPTH:])
            if entry.filename.endswith(_COLLECTIVES) and entry.name not in _NOT_THE_PLACE
        ),
        None,
    )
    inner = collective or stack[-1]
    text = f"{inner.name} ({_short(inner.filename)}:{inner.lineno})"
    if inner is not ours:
        text += f", called from {ours.name} ({_short(ours.filename)}:{ours.lineno})"
    return Place(text, collective is not None)


def _short(filename: str) -> str:
    """Return the end of a path that tells a module apart."""
    for package in ("/baltoro/", "/torch/"):
        head, found, tail = filename.rpartition(package)
        if found:
            return package[1:] + tail if head else filename
    return "/".join(Path(filename).parts[-2:])


def describe_error(error: BaseException, *, rank: int) -> ErrorReport:
    """Return an error as plain values.

    Args:
        error: as raised.
        rank: that raised it.
    """
    message = str(error).strip() or type(error).__name__
    return ErrorReport(
        type_name=type(error).__name__,
        message=message,
        traceback="".join(traceback.format_exception(error)),
        expected=isinstance(error, BaltoroError),
        collateral=is_collateral(error, rank=rank),
        out_of_memory=is_out_of_memory(error),
    )


def is_collateral(error: BaseException, *, rank: int) -> bool:
    """Return whether an error tells only that another rank was lost or failed."""
    text = str(error)
    if _PEER_LOST.search(text):
        return True
    if isinstance(error, BaltoroError):
        # How Ranks hands on what another rank raised.
        echo = _OF_ANOTHER_RANK.match(text)
        return echo is not None and int(echo[1]) != rank
    return bool(_CONNECTION_LOST.search(text))


def is_out_of_memory(error: BaseException) -> bool:
    """Return whether a device or the host had no memory left for something."""
    if isinstance(error, MemoryError):
        return True
    torch = sys.modules.get("torch")
    if torch is not None and isinstance(error, torch.OutOfMemoryError):
        return True
    # The CPU allocator raises a plain RuntimeError.
    if isinstance(error, RuntimeError) and "DefaultCPUAllocator" in str(error):
        return True
    return (
        isinstance(error, TrainingError) and error.__cause__ is not None and is_out_of_memory(error.__cause__)
    )


def explain_out_of_memory(
    error: BaseException, config: TrainConfig, *, device: torch.device, sequence_length: int
) -> TrainingError:
    """Return the error that names what was allocated and the settings that would reduce it.

    Args:
        error: one of which :func:`is_out_of_memory` holds.
        config: of the run; only settings that can still give something are named.
        device: that the rank trains on.
        sequence_length: tokens of a row.
    """
    text = " ".join(str(error).split())
    wanted = _TRIED.search(text) or _UNABLE.search(text)
    asked = f"while it asked for {_readable(wanted[1])}" if wanted else "while it asked for more"
    return TrainingError(
        f"out of memory on {device} {asked}; {_held(device)}; what needs less: "
        f"{'; '.join(_memory_settings(config, device, sequence_length))} ({text[:300]})"
    )


def _readable(size: str) -> str:
    number = size.removesuffix("bytes").strip()
    return f"{int(number) / _GIB:.2f} GiB" if number.isdigit() else size


def _held(device: torch.device) -> str:
    if device.type == "cuda":
        import torch

        total = torch.cuda.get_device_properties(device).total_memory
        held, most = torch.cuda.memory_allocated(device), torch.cuda.max_memory_allocated(device)
        return (
            f"tensors held {held / _GIB:.2f} GiB (at most {most / _GIB:.2f}) of the device's "
            f"{total / _GIB:.2f} GiB"
        )
    return f"the process had held at most {peak_resident_bytes() / _GIB:.2f} GiB of the host's memory"


def _memory_settings(config: TrainConfig, device: torch.device, sequence_length: int) -> list[str]:
    """Return the settings that can still reduce memory, those that cost least first."""
    parallel = config.parallel
    settings = []
    if config.micro_batch > 1:
        settings.append(f"micro_batch={config.micro_batch} (1 is the least)")
    if config.loss.implementation == "full":
        settings.append("loss.implementation=full (chunked keeps few logits)")
    elif config.loss.implementation != "liger" and config.loss.chunk_tokens > 256:
        settings.append(f"loss.chunk_tokens={config.loss.chunk_tokens} (256 keeps fewer logits)")
    if parallel.activation_checkpointing != "full":
        settings.append(
            f"parallel.activation_checkpointing={parallel.activation_checkpointing} (full keeps least)"
        )
    if config.strategy == "ddp":
        settings.append("strategy=ddp (fsdp2 shards weights, gradients and moments)")
    elif config.strategy == "fsdp2":
        if parallel.dp_replicate > 1:
            settings.append(
                f"parallel.dp_replicate={parallel.dp_replicate} (1 shards over all workers, so that dp_shard "
                "is greatest)"
            )
        else:
            settings.append("cluster.workers (more of them raise dp_shard: smaller shards)")
        if not parallel.fsdp2.reshard_after_forward:
            settings.append("parallel.fsdp2.reshard_after_forward=false (true frees gathered weights)")
        if device.type == "cuda" and not parallel.fsdp2.cpu_offload:
            settings.append("parallel.fsdp2.cpu_offload=false (true keeps shards in host memory)")
    else:
        if parallel.deepspeed.zero_stage < 3:
            settings.append(
                f"parallel.deepspeed.zero_stage={parallel.deepspeed.zero_stage} (3 shards weights as well)"
            )
        if device.type == "cuda" and not parallel.deepspeed.offload_optimizer:
            settings.append("parallel.deepspeed.offload_optimizer=false (true keeps moments in host memory)")
    if config.optimizer.name == "adamw":
        settings.append("optimizer.name=adamw (adamw_8bit keeps moments in a quarter; another run)")
    settings.append(f"data.sequence_length={sequence_length} (shorter rows; another dataset and run)")
    return settings


@dataclass(frozen=True, slots=True)
class Cause:
    """The report that tells why a run failed, and how sure that is.

    Attributes:
        report: of the rank to blame.
        waited_for_it: ranks that were found waiting in a collective.
    """

    report: RankReport
    waited_for_it: tuple[int, ...]

    def sentence(self) -> str:
        """Return the cause in one sentence, with its rank."""
        report = self.report
        where = f"rank {report.rank}" + (f" on {report.host}" if report.host else "")
        if report.error is not None:
            text = report.error.message
            return f"{where}: {text if report.error.expected else f'{report.error.type_name}: {text}'}"
        if report.kind == "ended":
            return f"{where}: its process ended without a word"
        place = "somewhere" if report.place is None else report.place.text
        if report.place is not None and report.place.in_collective:
            return f"{where}: no progress; it waited for other ranks in {place}"
        waiting = ", ".join(map(str, self.waited_for_it))
        behind = f", while rank{'s' * (len(self.waited_for_it) > 1)} {waiting} waited" if waiting else ""
        return f"{where}: no progress in {place}{behind}"


def find_cause(reports: list[RankReport]) -> Cause | None:
    """Return the first failing rank's report, never one that only tells of the loss of another rank.

    A rank that raised an error of its own comes before one that stands still outside a collective, before
    one whose process ended, before one that waits in a collective, before one that lost a peer; among equals
    the earliest, then the lowest rank.
    """
    failed = [report for report in reports if report.kind != "asked"]
    hung = any(report.kind == "hung" for report in failed)
    if hung:
        # Of ranks that stand still, the one to blame may not have noticed yet.
        failed = reports
    if not failed:
        return None
    waiting = tuple(sorted(one.rank for one in reports if one.place is not None and one.place.in_collective))

    def order(report: RankReport) -> tuple[int, float, int]:
        return _suspicion(report), report.at, report.rank

    worst = min(failed, key=order)
    return Cause(worst, tuple(rank for rank in waiting if rank != worst.rank))


def _suspicion(report: RankReport) -> int:
    if report.error is not None and report.kind == "raised":
        return 4 if report.error.collateral else 0
    if report.kind == "ended":
        return 2
    if report.place is not None and not report.place.in_collective:
        return 1
    return 3
