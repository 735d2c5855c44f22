"""A whole training run of a tiny model on this rank, as parity tests compare them."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from baltoro.checkpoint.config import CheckpointConfig
from baltoro.checkpoint.head import RunIdentity
from baltoro.core.storage import Storage
from baltoro.data.feed import RowsInMemory
from baltoro.data.shards import RowBatch
from baltoro.models.load import ModelPlan
from baltoro.optim.config import OptimizerConfig
from baltoro.testing.tiny import byte_tokenizer, tiny_plan, tiny_rows
from baltoro.train.config import TrainConfig
from baltoro.train.hooks import Hook
from baltoro.train.metrics import StepRecord
from baltoro.train.run import TrainResult, train_model

SEQUENCE_LENGTH = 32
ROWS_PER_STEP = 8
STEPS = 10


class SimulatedCrashError(Exception):
    """Raised by a hook in place of a crash."""


@dataclass(frozen=True)
class TinyRun:
    """What to run; every field has a default fit for a quick test.

    Attributes:
        run_uri: where the run lives.
        scratch: folder for files on their way there.
        config: settings; batch and length fit :func:`tiny_rows`.
        plan: the model.
        rows: the training rows.
        interrupt_at: after this many steps the run dies, before that step's checkpoint is taken.
        dataset_parts: fingerprints of the dataset.
    """

    run_uri: str
    scratch: str
    config: TrainConfig
    plan: ModelPlan
    rows: RowBatch
    interrupt_at: int | None = None
    dataset_parts: tuple[str, ...] = ("rows",)


def tiny_run(run_uri: str | Path, **settings: Any) -> TinyRun:
    """Return a run of ten float32 steps; ``settings`` replace fields of its :class:`TrainConfig`."""
    defaults: dict[str, Any] = {
        "global_batch_tokens": ROWS_PER_STEP * SEQUENCE_LENGTH,
        "steps": STEPS,
        "precision": "float32",
        "micro_batch": 2,
        "optimizer": OptimizerConfig(learning_rate=1e-2),
        "checkpoint": CheckpointConfig(every_steps=4),
    }
    return TinyRun(
        run_uri=str(run_uri),
        scratch=f"{run_uri}-scratch",
        config=TrainConfig(**{**defaults, **settings}),
        plan=tiny_plan(),
        rows=tiny_rows(STEPS * ROWS_PER_STEP, SEQUENCE_LENGTH),
    )


def execute(run: TinyRun) -> tuple[dict[int, float], TrainResult | None]:
    """Train on this rank of the initialised process group.

    Returns:
        ``{step: loss}`` of this attempt, and the result; ``None`` if it was interrupted.
    """
    import torch

    torch.set_num_threads(1)
    losses: dict[int, float] = {}

    class Watch(Hook):
        def step_end(self, record: StepRecord) -> None:
            losses[record.step] = record.loss
            if record.step == run.interrupt_at:
                raise SimulatedCrashError

    try:
        result = train_model(
            config=run.config,
            plan=run.plan,
            tokenizer=byte_tokenizer(),
            dataset=RowsInMemory(run.rows),  # type: ignore[arg-type]
            validation=RowsInMemory(tiny_rows(5, SEQUENCE_LENGTH, seed=9)),  # type: ignore[arg-type]
            storage=Storage(),
            run_uri=run.run_uri,
            identity=RunIdentity("settings", run.dataset_parts),
            device=torch.device("cpu"),
            scratch=Path(run.scratch),
            hooks=[Watch()],
        )
    except SimulatedCrashError:
        return losses, None
    return losses, result


def execute_all(runs: list[TinyRun]) -> list[tuple[dict[int, float], TrainResult | None]]:
    """Train several runs one after the other in one process group."""
    return [execute(run) for run in runs]


def interrupted(run: TinyRun, at: int) -> TinyRun:
    """Return the same run, dying after ``at`` steps."""
    return replace(run, interrupt_at=at)
