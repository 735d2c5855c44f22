"""One rank of the restart measurement, in a process of its own.

    python bench/training/restart_rank.py RANK WORLD_SIZE FOLDER STOP_AFTER

Trains from the run's newest checkpoint on, writes when its first step ended, and stops like a crash after
``STOP_AFTER`` steps.
"""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path

EVERY_STEPS = 10
_ROWS_PER_STEP, _SEQUENCE_LENGTH, _DISTINCT_ROWS = 8, 32, 64


def train(rank: int, world_size: int, folder: Path, stop_after: int) -> None:
    """Train on this rank until the run has ``stop_after`` steps."""
    import torch
    import torch.distributed as dist

    from baltoro.checkpoint.config import CheckpointConfig
    from baltoro.checkpoint.head import RunIdentity
    from baltoro.core.storage import Storage
    from baltoro.data.feed import RowsInMemory
    from baltoro.optim.config import OptimizerConfig
    from baltoro.testing.runs import SimulatedCrashError
    from baltoro.testing.tiny import byte_tokenizer, tiny_plan, tiny_rows
    from baltoro.train.config import TrainConfig
    from baltoro.train.hooks import Hook
    from baltoro.train.metrics import StepRecord
    from baltoro.train.run import train_model

    class Watch(Hook):
        def __init__(self) -> None:
            self._first = rank == 0

        def step_end(self, record: StepRecord) -> None:
            if self._first:
                told = json.dumps({"at": time.time(), "step": record.step})
                (folder / "first-step.json").write_text(told, encoding="utf-8")
                self._first = False
            if record.step == stop_after:
                raise SimulatedCrashError

    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{folder}/store", rank=rank, world_size=world_size)
    rows = tiny_rows(_DISTINCT_ROWS, _SEQUENCE_LENGTH)
    # Longer than any stop: how long a run is belongs to what it is.
    steps = 1 << 16

    class Cycled(RowsInMemory):
        def __len__(self) -> int:
            return steps * _ROWS_PER_STEP

        def read_rows(self, start: int, stop: int) -> object:
            first = start % _DISTINCT_ROWS
            return super().read_rows(first, first + stop - start)

    try:
        train_model(
            config=TrainConfig(
                global_batch_tokens=_ROWS_PER_STEP * _SEQUENCE_LENGTH,
                steps=steps,
                precision="float32",
                micro_batch=2,
                optimizer=OptimizerConfig(learning_rate=1e-3),
                checkpoint=CheckpointConfig(every_steps=EVERY_STEPS),
            ),
            plan=tiny_plan(),
            tokenizer=byte_tokenizer(),
            dataset=Cycled(rows),
            validation=None,
            storage=Storage(),
            run_uri=str(folder / "run"),
            identity=RunIdentity("bench", ("bench",)),
            device=torch.device("cpu"),
            scratch=folder / "scratch",
            hooks=[Watch()],
        )
    except SimulatedCrashError:
        dist.destroy_process_group()


if __name__ == "__main__":
    train(int(sys.argv[1]), int(sys.argv[2]), Path(sys.argv[3]), int(sys.argv[4]))
