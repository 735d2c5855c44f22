"""A whole training run on every rank, step by step on the record."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from setting import LEARNING_RATE, Size, packed_rows, this_device

from baltoro.core.storage import Storage
from baltoro.data.shards import ShardFile, TokenDataset, write_shard
from baltoro.testing.distributed import run_distributed

_ROWS_PER_ROW_GROUP = 64


@dataclass(frozen=True, slots=True)
class WatchedStep:
    """One step on the first rank: its own seconds, and those of its phases and of the hooks before it."""

    step: int
    seconds: float
    phase_seconds: Mapping[str, float]


@dataclass(frozen=True, slots=True)
class Training:
    """What to train.

    Attributes:
        folder: where the run stands.
        size: of the model and its batches.
        files: the shards.
        steps: how many.
        checkpoint: settings of checkpoints.
    """

    folder: str
    size: Size
    files: tuple[ShardFile, ...]
    steps: int
    checkpoint: Mapping[str, Any] = field(default_factory=dict)


def write_shards(folder: Path, size: Size, rows: int, *, shards: int) -> tuple[ShardFile, ...]:
    """Write packed rows as shards and return them."""
    folder.mkdir(parents=True)
    files = []
    for index in range(shards):
        path = folder / f"shard-{index:05d}.parquet"
        files.append(
            write_shard(
                packed_rows(rows // shards, size, seed=index),
                path,
                uri=str(path),
                rows_per_row_group=_ROWS_PER_ROW_GROUP,
                tokenizer_fingerprint="bench",
                origin=f"bench/{path.name}",
            )
        )
    return tuple(files)


def train(training: Training, world_size: int) -> list[WatchedStep]:
    """Run the training and return what the first rank saw of every step."""
    with tempfile.TemporaryDirectory(prefix="bench-ranks-") as folder:
        found: list[WatchedStep] = run_distributed(
            train_on_rank, world_size, training, folder, timeout_seconds=1800.0
        )[0]
    return found


def train_on_rank(training: Training, folder: str) -> list[WatchedStep]:
    """Train on this rank of the process group."""
    import torch.distributed as dist

    from baltoro.checkpoint.config import CheckpointConfig
    from baltoro.checkpoint.head import RunIdentity
    from baltoro.optim.config import OptimizerConfig
    from baltoro.testing.tiny import byte_tokenizer
    from baltoro.train.config import TrainConfig
    from baltoro.train.hooks import Hook
    from baltoro.train.metrics import StepRecord
    from baltoro.train.run import train_model

    watched: list[WatchedStep] = []

    class Watch(Hook):
        def step_end(self, record: StepRecord) -> None:
            watched.append(WatchedStep(record.step, record.step_seconds, dict(record.phase_seconds)))

    size = training.size
    train_model(
        config=TrainConfig(
            global_batch_tokens=size.global_batch_tokens(dist.get_world_size()),
            steps=training.steps,
            precision="float32",
            micro_batch=size.rows,
            optimizer=OptimizerConfig(learning_rate=LEARNING_RATE),
            checkpoint=CheckpointConfig(**training.checkpoint),
        ),
        plan=size.plan(),
        tokenizer=byte_tokenizer(),
        dataset=TokenDataset.open(training.files, Storage()),
        validation=None,
        storage=Storage(),
        run_uri=f"{training.folder}/run",
        identity=RunIdentity("bench", ("bench",)),
        device=this_device(folder),
        scratch=Path(training.folder) / "scratch",
        hooks=[Watch()],
    )
    return watched
