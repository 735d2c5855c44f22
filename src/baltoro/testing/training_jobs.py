"""Tiny training jobs on a real Ray, with faults at chosen places, without the stages before training."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

from baltoro.core.artifacts import Artifact, ArtifactStore, fingerprint_of
from baltoro.core.storage import Storage, StorageProfile, local_path
from baltoro.data.shards import ShardFile, write_shard
from baltoro.data.tokenizer import save_tokenizer, tokenizer_fingerprint
from baltoro.jobs.recipe import Recipe
from baltoro.jobs.tokenizer import TOKENIZER_FOLDER
from baltoro.jobs.training.workers import WorkerSettings
from baltoro.testing.tiny import byte_tokenizer, tiny_rows
from baltoro.tracking.mlflow import StageRun

LENGTH, ROWS_PER_STEP, STEPS_PER_SHARD = 32, 8, 4


@dataclass(frozen=True)
class Fault:
    """Something that goes wrong once, when a rank opens a shard.

    Attributes:
        shard: number of the shard; it holds the rows of steps ``4 · shard`` to ``4 · shard + 3``.
        rank: whose process it happens to.
        what: ``kill`` (SIGKILL), ``terminate`` (SIGTERM), ``hang``, ``raise`` (ValueError), ``memory``
            (MemoryError), ``damage`` (the shard is cut off).
        marker: file that says that it has happened.
        often: it happens each time.
    """

    shard: int
    rank: int
    what: str
    marker: str
    often: bool = False


class FaultyStorage(Storage):
    """A storage at which a fault waits for whoever opens a shard."""

    def __init__(self, fault: Fault | None, profiles: Mapping[str, StorageProfile] | None = None) -> None:
        super().__init__(profiles or {})
        self._fault = fault

    def __reduce__(self) -> tuple[Any, ...]:
        return FaultyStorage, (self._fault,)

    def open(self, uri: str) -> BinaryIO:
        """Open an object, unless the fault is to happen."""
        fault = self._fault
        if fault is not None and uri.endswith(_shard_name(fault.shard)):
            _happen(fault, uri)
        return super().open(uri)


def _happen(fault: Fault, uri: str) -> None:
    import torch.distributed as dist

    marker = Path(fault.marker)
    if not dist.is_initialized() or dist.get_rank() != fault.rank or (marker.exists() and not fault.often):
        return
    marker.touch()
    if fault.what == "kill":
        os.kill(os.getpid(), signal.SIGKILL)
    elif fault.what == "terminate":
        os.kill(os.getpid(), signal.SIGTERM)
    elif fault.what == "hang":
        time.sleep(3600)
    elif fault.what == "damage":
        path = local_path(uri)
        # Another rank that has it open keeps the whole one.
        damaged = path.with_suffix(".damaged")
        damaged.write_bytes(path.read_bytes()[:60])
        damaged.replace(path)
    elif fault.what == "memory":
        raise MemoryError("Unable to allocate 8.00 TiB for an array with shape (1, 2, 3)")
    else:
        raise ValueError("the fault that was asked for")


def _shard_name(number: int) -> str:
    return f"shard-{number:03d}.parquet"


@dataclass
class Notes:
    """Takes the place of the progress queue: each ``(step, metrics)`` is a line of a file.

    Attributes:
        file: where rank 0 writes; all ranks are on this machine.
        pause_seconds: after each step, so that a test can do something meanwhile.
    """

    file: str
    pause_seconds: float = 0.0

    def put(self, item: tuple[int, Mapping[str, float]] | str) -> None:
        """Write a line; warnings are left out."""
        if isinstance(item, str):
            return
        step, metrics = item
        loss = metrics.get("train/loss_nats_per_token")
        if loss is not None:
            with Path(self.file).open("a", encoding="utf-8") as file:
                file.write(f"{step} {loss!r} {os.getpid()}\n")
            time.sleep(self.pause_seconds)

    def read(self) -> list[tuple[int, float]]:
        """Return ``(step, loss)`` as they were written, replayed steps more than once."""
        path = Path(self.file)
        lines = path.read_text(encoding="utf-8").splitlines() if path.exists() else []
        return [(int(line.split()[0]), float(line.split()[1])) for line in lines]

    def losses(self) -> dict[int, float]:
        """Return the loss of each step as it was seen last."""
        return dict(self.read())


def write_rows(folder: Path, steps: int) -> tuple[ShardFile, ...]:
    """Write the rows of so many steps, four steps a shard."""
    folder.mkdir(parents=True, exist_ok=True)
    rows = tiny_rows(steps * ROWS_PER_STEP, LENGTH)
    files = []
    for number, start in enumerate(range(0, len(rows), STEPS_PER_SHARD * ROWS_PER_STEP)):
        path = folder / _shard_name(number)
        stop = min(start + STEPS_PER_SHARD * ROWS_PER_STEP, len(rows))
        files.append(
            write_shard(
                rows.slice(start, stop),
                path,
                uri=str(path),
                rows_per_row_group=ROWS_PER_STEP,
                tokenizer_fingerprint=tokenizer_fingerprint(byte_tokenizer()),
                origin=f"test {number}",
            )
        )
    return tuple(files)


def write_tokenizer(root: str) -> Artifact:
    """Publish the byte tokenizer as an artifact."""
    inputs = {"stage.version": 1, "tokenizer": "bytes"}
    store = ArtifactStore(Storage(), root)
    found = store.find("tokenizer", "bytes", fingerprint_of(inputs))
    if found is not None:
        return found
    folder = local_path(root) / "byte-tokenizer"
    tokenizer = byte_tokenizer()
    save_tokenizer(tokenizer, folder)
    with store.begin("tokenizer", "bytes", fingerprint_of(inputs)) as writer:
        for path in sorted(folder.iterdir()):
            writer.write_file(f"{TOKENIZER_FOLDER}/{path.name}", path.read_bytes())
        return writer.publish(
            inputs=inputs,
            stage_version=1,
            extra={
                "folder": TOKENIZER_FOLDER,
                "tokenizer_fingerprint": tokenizer_fingerprint(tokenizer),
            },
        )


def tiny_recipe(root: str, *, workers: int = 2, steps: int = 16, **settings: Any) -> Recipe:
    """Return a recipe of a tiny model; ``settings`` are overrides like ``{"pretrain": {…}}``, one level deep.

    Args:
        root: a local folder.
        workers: training processes.
        steps: of the run.
        **settings: sections whose fields replace the ones here.
    """
    sections: dict[str, dict[str, Any]] = {
        "storage": {"root": root},
        "cluster": {"workers": workers},
        "corpus": {"sources": [{"name": "papers", "uri": root}]},
        "model": {"base": "llama-tiny"},
        "pretrain": {
            "data": {"sequence_length": LENGTH},
            "steps": steps,
            "precision": "float32",
            "global_batch_tokens": ROWS_PER_STEP * LENGTH,
            "micro_batch": 2,
            "checkpoint": {"every_steps": 4},
        },
    }
    for name, values in settings.items():
        sections[name] = {**sections.get(name, {}), **values}
    return Recipe.model_validate({"name": "tiny", **sections})


def tiny_settings(recipe: Recipe, name: str, run: StageRun, *, fault: Fault | None = None) -> WorkerSettings:
    """Return what the workers of a run need; its rows and tokenizer are written if they are not there.

    Args:
        recipe: of :func:`tiny_recipe`.
        name: of the run, whose folder is ``{root}/run/{name}``.
        run: where it is tracked.
        fault: happens in it.
    """
    root = recipe.storage.root
    steps = recipe.pretrain.steps
    assert steps is not None
    folder = local_path(root) / f"rows-{steps}"
    run_uri = local_path(root) / "run" / name
    run_uri.mkdir(parents=True, exist_ok=True)
    return WorkerSettings(
        config=recipe.pretrain,
        base=recipe.model.base,
        seed=0,
        sequence_length=LENGTH,
        vocabulary_multiple=8,
        storage=FaultyStorage(fault),
        base_folder=None,
        tokenizer=write_tokenizer(root),
        train_files=write_rows(folder, steps),
        validation_files=(),
        run_uri=str(run_uri),
        config_fingerprint="f" * 16,
        dataset_fingerprint="d" * 16,
        threads=1,
        elastic=recipe.cluster.elastic,
        mlflow_run=run,
        system_metrics=False,
        progress=Notes(str(run_uri / "notes.txt")),
    )
