"""One clean progress line for people, fed by the first training rank wherever it runs."""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from tqdm import tqdm

_POLL_SECONDS = 0.5


@dataclass(slots=True)
class TrainingProgress:
    """What a training run tells while it goes on.

    ``queue`` is an actor, so it reaches workers on any node; rank 0 puts ``(step, {metric: value})`` into it.
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
        with tqdm(total=total_steps, desc="starting workers", unit="step", leave=False) as bar:
            ended = False
            while not ended:
                ended = stop.is_set()
                while True:
                    try:
                        step, metrics = progress.queue.get_nowait()
                    except Empty:
                        break
                    progress.history.append((step, metrics))
                    _update(bar, step, metrics)
                stop.wait(_POLL_SECONDS)

    thread = threading.Thread(target=show, name="baltoro-progress", daemon=True)
    thread.start()
    try:
        yield progress
    finally:
        stop.set()
        thread.join()
        progress.queue.shutdown()


def _update(bar: tqdm[Any], step: int, metrics: Mapping[str, float]) -> None:
    shown = {"train/loss_nats_per_token": "loss", "throughput/tokens_per_second": "tokens/s"}
    values = {short: metrics[name] for name, short in shown.items() if name in metrics}
    if values:
        if bar.n == 0:
            # Starting workers takes long on some machines; it is no part of the rate.
            bar.set_description("training", refresh=False)
            bar.initial = step
            bar.start_t = bar.last_print_t = time.time()
        bar.n = step
        bar.set_postfix(
            {key: f"{value:,.3f}" if key == "loss" else f"{value:,.0f}" for key, value in values.items()}
        )
