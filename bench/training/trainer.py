"""Baltoro against Hugging Face Trainer: same model, rows a step, optimizer, clipping, ranks and threads.

``raw``     both get full rows: positions per second, Trainer's without a mask, Baltoro's packed rows of
            several segments each with theirs.
``useful``  both get the same documents of mixed length. Trainer's are padded to the longest of their batch,
            and batches are made of documents of similar length; Baltoro's are packed. Tokens that are no
            padding, per second over a whole pass.

Both sides run in the same processes and take turns between two of Trainer's steps. On CPUs both copy the
model to every rank (DDP over gloo); on GPUs both shard it (FSDP2).
"""

from __future__ import annotations

import os
import statistics
import sys
import tempfile
import time
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
from documents import mixed_documents, pack
from results import Row
from setting import LEARNING_RATE, BaltoroLoop, Size, packed_rows, settled, this_device

from baltoro.testing.distributed import run_distributed

if TYPE_CHECKING:
    import torch

LEAST_RAW, LEAST_USEFUL = 1.0, 1.5
STEPS_PER_TURN = 4
_IGNORED_TURNS = 1


@dataclass(frozen=True, slots=True)
class Speeds:
    """Positions or tokens per second of both sides, and what share of Trainer's positions was padding."""

    baltoro: float
    trainer: float
    trainer_padding: float


def measure_trainer(*, world_size: int, turns: int, size: Size) -> tuple[list[Row], str]:
    """Measure both comparisons.

    Args:
        world_size: ranks of both sides.
        turns: of each side, the first of which is not counted.
        size: of the model and its batches; accumulation is left out, as each of Trainer's steps is one batch.

    Returns:
        The rows, and a line about them.
    """
    alone = replace(size, accumulation=1)
    speeds = {}
    for kind in ("raw", "useful"):
        with tempfile.TemporaryDirectory(prefix="bench-trainer-") as folder:
            arguments = (alone, turns, kind == "useful", folder)
            speeds[kind] = run_distributed(speeds_of, world_size, *arguments, timeout_seconds=1800.0)[0]
    bounds = {"raw": LEAST_RAW, "useful": LEAST_USEFUL}
    rows = [
        Row(f"trainer/{kind}", "tok/s", found.baltoro, found.trainer, bounds[kind])
        for kind, found in speeds.items()
    ]
    padding = speeds["useful"].trainer_padding
    return rows, (
        f"trainer: {world_size} ranks, {alone.rows} rows of at most {alone.sequence_length} tokens each; "
        f"{padding:.1%} of Trainer's positions were padding on mixed lengths"
    )


def speeds_of(size: Size, turns: int, mixed: bool, folder: str) -> Speeds:
    """Return the speeds over all ranks, measured on this one."""
    import torch.distributed as dist

    # Libraries that accelerate looks for greet on standard output, which is the table's.
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())
    device = this_device(folder)
    world_size = dist.get_world_size()
    count = turns * STEPS_PER_TURN * size.rows * world_size
    if mixed:
        documents = mixed_documents(count, sequence_length=size.sequence_length, vocabulary=size.vocabulary)
        rows = pack(documents, size.sequence_length)
    else:
        rows = packed_rows(count, size)
        documents = list(rows.input_ids)
    loop = BaltoroLoop(size, rows, device, "fsdp2" if device.type == "cuda" else "ddp")
    _announce_ranks()
    trainer, turn_taker = build_trainer(size, documents, loop, device, folder, grouped=mixed)
    trainer.train()
    baltoro_seconds, trainer_seconds = turn_taker.seconds()
    positions = size.rows * size.sequence_length * world_size * STEPS_PER_TURN
    if not mixed:
        return Speeds(
            positions / statistics.median(baltoro_seconds),
            positions / statistics.median(trainer_seconds),
            0.0,
        )
    # Trainer's batches differ in length, so only the sum over the whole pass says how fast either is.
    filled = sum(int(ends[-1]) for ends in rows.segment_ends) / (len(rows) * size.sequence_length)
    tokens, padded = turn_taker.tokens()
    return Speeds(
        positions * filled * len(baltoro_seconds) / sum(baltoro_seconds),
        tokens / sum(trainer_seconds),
        1 - tokens / padded,
    )


def _announce_ranks() -> None:
    """Tell accelerate of the process group that there is already."""
    import torch
    import torch.distributed as dist

    os.environ.update(
        RANK=str(dist.get_rank()),
        LOCAL_RANK=str(dist.get_rank()),
        WORLD_SIZE=str(dist.get_world_size()),
        LOCAL_WORLD_SIZE=str(dist.get_world_size()),
        MASTER_ADDR="127.0.0.1",
        MASTER_PORT="29500",
        OMP_NUM_THREADS=str(torch.get_num_threads()),
    )


def build_trainer(
    size: Size, documents: list[Any], loop: BaltoroLoop, device: torch.device, folder: str, *, grouped: bool
) -> tuple[Any, Any]:
    """Return a Trainer over the documents, and the callback by which Baltoro takes its turns."""
    import torch
    from transformers import (
        AutoConfig,
        AutoModelForCausalLM,
        PrinterCallback,
        Trainer,
        TrainerCallback,
        TrainingArguments,
    )
    from transformers.data import DataCollatorForLanguageModeling

    from baltoro.testing.tiny import byte_tokenizer

    shapes: list[tuple[int, int]] = []
    collator = DataCollatorForLanguageModeling(byte_tokenizer(), mlm=False)

    def collate(features: list[dict[str, Any]]) -> Any:
        batch = collator(features)
        tokens = sum(len(feature["input_ids"]) for feature in features)
        shapes.append((tokens, batch["input_ids"].numel()))
        return batch

    class TurnTaker(TrainerCallback):
        """After every few of Trainer's steps, as many of Baltoro's."""

        def __init__(self) -> None:
            self._baltoro: list[float] = []
            self._trainer: list[float] = []
            self._began = 0.0

        def on_step_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:  # noqa: ARG002
            if state.global_step == 0:
                settled(device)
                self._began = time.perf_counter()

        def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:  # noqa: ARG002
            if state.global_step % STEPS_PER_TURN:
                return
            settled(device)
            now = time.perf_counter()
            self._trainer.append(now - self._began)
            loop.train(STEPS_PER_TURN)
            settled(device)
            self._began = time.perf_counter()
            self._baltoro.append(self._began - now)

        def seconds(self) -> tuple[list[float], list[float]]:
            return self._baltoro[_IGNORED_TURNS:], self._trainer[_IGNORED_TURNS:]

        def tokens(self) -> tuple[int, int]:
            """Tokens and positions of the turns that count, over all ranks."""
            import torch.distributed as dist

            counted = np.array(shapes[_IGNORED_TURNS * STEPS_PER_TURN : len(self._trainer) * STEPS_PER_TURN])
            total = torch.tensor(counted.sum(axis=0), device=device)
            dist.all_reduce(total)
            tokens, positions = total.tolist()
            return tokens, positions

    settings = dict(size.plan().config)
    model = AutoModelForCausalLM.from_config(
        AutoConfig.for_model(settings.pop("model_type"), **settings), dtype=torch.float32
    )
    arguments = TrainingArguments(
        output_dir=folder,
        per_device_train_batch_size=size.rows,
        num_train_epochs=1,
        learning_rate=LEARNING_RATE,
        weight_decay=0.1,
        max_grad_norm=1.0,
        lr_scheduler_type="constant",
        train_sampling_strategy="group_by_length" if grouped else "random",
        save_strategy="no",
        logging_strategy="no",
        disable_tqdm=True,
        report_to="none",
        use_cpu=device.type == "cpu",
        ddp_find_unused_parameters=False if device.type == "cpu" else None,
        fsdp=device.type == "cuda",
    )
    turn_taker = TurnTaker()
    # A list of dicts is what Trainer looks lengths up in.
    features = [{"input_ids": document.tolist()} for document in documents]
    trainer = Trainer(
        model=model,
        args=arguments,
        train_dataset=features,
        data_collator=collate,
        callbacks=[turn_taker],
    )
    trainer.remove_callback(PrinterCallback)  # it would write to standard output
    return trainer, turn_taker
