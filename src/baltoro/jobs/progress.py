"""One clean progress line for people, fed by the first training rank wherever it runs."""

from __future__ import annotations

import contextlib
import sys
import threading
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from tqdm import tqdm

from baltoro.train.metrics import DATA_WAIT, LOSS, TOKENS_PER_SECOND
from baltoro.train.throughput import MFU

_POLL_SECONDS = 0.5
_UNWATCHED_SECONDS = 30.0
_FORMAT = "{desc}: {n:,}/{total:,} steps |{bar:20}| {percentage:3.0f}%{postfix}, {remaining} left"


@dataclass(slots=True)
class TrainingProgress:
    """What a training run tells while it goes on.

    ``queue`` is an actor, so it reaches workers on any node; rank 0 puts ``(step, {metric: value})`` into it,
    and as text what people are to be warned of.
    ``history`` is what has come out of it, complete once the run's block is left.
    """

    queue: Any
    history: list[tuple[int, Mapping[str, float]]] = field(default_factory=list)


@contextlib.contextmanager
def training_progress(total_steps: int) -> Iterator[TrainingProgress]:
    """Show a bar over the steps while the block runs."""
    from ray.util.queue import Empty, Queue

    progress = TrainingProgress(Queue(actor_options={"num_cpus": 0}))
    stop = threading.Event()

    def show() -> None:
        # Where no one watches, a line now and then instead of one that is rewritten.
        watched = sys.stderr.isatty()
        with tqdm(
            total=total_steps,
            desc="starting workers",
            bar_format=_FORMAT,
            leave=False,
            mininterval=0.1 if watched else _UNWATCHED_SECONDS,
        ) as bar:
            ended = False
            while not ended:
                ended = stop.is_set()
                while True:
                    try:
                        item = progress.queue.get_nowait()
                    except Empty:
                        break
                    if isinstance(item, str):
                        bar.write(item, file=sys.stderr)
                        continue
                    step, metrics = item
                    progress.history.append((step, metrics))
                    update_bar(bar, step, metrics)
                stop.wait(_POLL_SECONDS)

    thread = threading.Thread(target=show, name="baltoro-progress", daemon=True)
    thread.start()
    try:
        yield progress
    finally:
        stop.set()
        thread.join()
        progress.queue.shutdown()


def update_bar(bar: tqdm[Any], step: int, metrics: Mapping[str, float]) -> None:
    """Show a step's metrics on the bar; those of a validation alone do not move it."""
    if LOSS not in metrics:
        return
    if bar.n == 0 or step <= bar.n:
        # Starting workers takes long on some machines, and a run that failed goes back: no part of the rate.
        bar.set_description_str("training", refresh=False)
        bar.initial = bar.n = step
        bar.start_t = bar.last_print_t = time.time()
        bar.last_print_n = step
        # Where no one watches, the first line would else come half a minute after the first step.
        bar.set_postfix_str(describe(metrics), refresh=True)
        return
    bar.set_postfix_str(describe(metrics), refresh=False)
    bar.update(step - bar.n)


def describe(metrics: Mapping[str, float]) -> str:
    """Return a step's metrics in a few words: loss, tokens/s, and where they are known, MFU and data wait."""
    words = [
        text.format(metrics[name])
        for name, text in (
            (LOSS, "loss {:.3f}"),
            (TOKENS_PER_SECOND, "{:,.0f} tokens/s"),
            (MFU, "MFU {:.0%}"),
            (DATA_WAIT, "data wait {:.1%}"),
        )
        if name in metrics
    ]
    return ", ".join(words)
