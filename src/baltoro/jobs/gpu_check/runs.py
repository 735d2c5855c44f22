"""A small model, rows that can be learned, and real training runs of it on one rank."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from baltoro.checkpoint.config import CheckpointConfig
from baltoro.checkpoint.head import RunIdentity
from baltoro.core.storage import Storage
from baltoro.data.feed import RowsInMemory
from baltoro.data.shards import RowBatch
from baltoro.models.load import ModelPlan
from baltoro.optim.config import OptimizerConfig
from baltoro.train.config import TrainConfig
from baltoro.train.hooks import Hook
from baltoro.train.metrics import StepRecord
from baltoro.train.run import TrainResult, train_model

if TYPE_CHECKING:
    import torch

VOCABULARY = 512
SEQUENCE_LENGTH = 128
ROWS_PER_STEP = 4
STEPS = 12


def small_plan(*, layers: int = 2, vocabulary: int = VOCABULARY, deviation: float = 0.02) -> ModelPlan:
    """Return a LLaMA of some 400,000 parameters whose heads (64 values, grouped by 2) every kernel takes.

    Args:
        layers: decoder blocks; without any there is the embedding, a norm and the output projection.
        vocabulary: rows of the embedding.
        deviation: of the random matrices.
    """
    from transformers import LlamaConfig

    config = LlamaConfig(
        vocab_size=vocabulary,
        hidden_size=128,
        intermediate_size=256,
        num_hidden_layers=layers,
        num_attention_heads=2,
        num_key_value_heads=1,
        max_position_embeddings=SEQUENCE_LENGTH,
        initializer_range=deviation,
        tie_word_embeddings=False,
        bos_token_id=0,
        pad_token_id=1,
        eos_token_id=2,
        architectures=["LlamaForCausalLM"],
    )
    return ModelPlan(config.to_dict())


def small_rows(
    count: int, *, sequence_length: int = SEQUENCE_LENGTH, vocabulary: int = VOCABULARY
) -> RowBatch:
    """Return rows of uneven segments, every third one padded, in which a token hints at the next one.

    Args:
        count: rows.
        sequence_length: tokens of a row.
        vocabulary: ids are below it.
    """
    random = np.random.default_rng(0)
    input_ids = np.full((count, sequence_length), 1, dtype=np.int32)
    ends, papers = [], []
    for row in range(count):
        used = sequence_length - (int(random.integers(1, sequence_length // 4)) if row % 3 == 2 else 0)
        token = int(random.integers(3, vocabulary))
        for position in range(used):
            input_ids[row, position] = token
            token = 3 + (5 * token + int(random.integers(0, 4))) % (vocabulary - 3)
        cuts = sorted({*random.integers(1, used, size=int(random.integers(0, 4))).tolist(), used})
        ends.append(np.array(cuts, dtype=np.int32))
        papers.append(np.zeros(len(cuts), dtype=np.int32))
    return RowBatch(input_ids, ends, papers)


@contextlib.contextmanager
def one_rank(device: torch.device) -> Iterator[None]:
    """Make this process the only rank of a process group that serves a device.

    Args:
        device: a GPU gets NCCL, a CPU gloo.
    """
    import torch
    import torch.distributed as dist

    on_gpu = device.type == "cuda"
    if on_gpu:
        torch.cuda.set_device(device)
    store = dist.TCPStore(  # type: ignore[attr-defined]
        "127.0.0.1", 0, world_size=1, is_master=True
    )
    dist.init_process_group("nccl" if on_gpu else "gloo", store=store, rank=0, world_size=1)
    try:
        yield
    finally:
        dist.destroy_process_group()


def small_config(**settings: Any) -> TrainConfig:
    """Return the settings of a short run; ``settings`` replace fields of its :class:`TrainConfig`."""
    defaults: dict[str, Any] = {
        "global_batch_tokens": ROWS_PER_STEP * SEQUENCE_LENGTH,
        "steps": STEPS,
        "precision": "float32",
        "micro_batch": 2,
        "optimizer": OptimizerConfig(learning_rate=3e-3),
        "checkpoint": CheckpointConfig(every_steps=None),
    }
    return TrainConfig(**{**defaults, **settings})


class InterruptedRunError(Exception):
    """Raised by a hook in place of a crash."""


@dataclass(slots=True)
class Curve:
    """What a run, or an attempt of it, did.

    Attributes:
        losses: by step, counted from 1.
        step_seconds: by step.
        skipped_steps: without an update.
        result: ``None`` if it was interrupted.
    """

    losses: dict[int, float] = field(default_factory=dict)
    step_seconds: dict[int, float] = field(default_factory=dict)
    skipped_steps: int = 0
    result: TrainResult | None = None


class _Watch(Hook):
    def __init__(self, curve: Curve, interrupt_at: int | None) -> None:
        self._curve = curve
        self._interrupt_at = interrupt_at

    def step_end(self, record: StepRecord) -> None:
        """Keep the step's figures, and end the run here if that is wanted."""
        self._curve.losses[record.step] = record.loss
        self._curve.step_seconds[record.step] = record.step_seconds
        self._curve.skipped_steps = record.state.skipped_steps
        if record.step == self._interrupt_at:
            raise InterruptedRunError


def train_small(
    config: TrainConfig,
    device: torch.device,
    folder: Path,
    *,
    interrupt_at: int | None = None,
    hooks: tuple[Hook, ...] = (),
) -> Curve:
    """Train the small model by :func:`~baltoro.train.run.train_model`, as a worker does.

    Args:
        config: from :func:`small_config`.
        device: the process group of :func:`one_rank` must serve it.
        folder: of the run; one that is there already is resumed.
        interrupt_at: the run ends after this many steps, before that step's checkpoint is taken.
        hooks: further hooks.
    """
    curve = Curve()
    steps = config.steps or STEPS
    with contextlib.suppress(InterruptedRunError):
        curve.result = train_model(
            config=config,
            plan=small_plan(),
            tokenizer=_tokenizer(),
            dataset=RowsInMemory(small_rows(steps * ROWS_PER_STEP)),  # type: ignore[arg-type]
            validation=None,
            storage=Storage(),
            run_uri=str(folder),
            identity=RunIdentity("gpu-check", ("rows",)),
            device=device,
            scratch=folder.with_name(f"{folder.name}-scratch"),
            hooks=[_Watch(curve, interrupt_at), *hooks],
        )
    return curve


def _tokenizer() -> Any:
    """Return a tokenizer of as many words as the small model knows."""
    from tokenizers import Tokenizer, models
    from transformers import PreTrainedTokenizerFast

    special = {"<s>": 0, "<pad>": 1, "</s>": 2}
    words = special | {f"w{number}": number for number in range(len(special), VOCABULARY)}
    backend = Tokenizer(models.WordLevel(vocab=words, unk_token="<pad>"))
    return PreTrainedTokenizerFast(
        tokenizer_object=backend, bos_token="<s>", pad_token="<pad>", eos_token="</s>"
    )


def largest_difference(one: dict[int, float], other: dict[int, float]) -> float:
    """Return the largest difference of two loss curves, nats per token; infinite if their steps differ."""
    if one.keys() != other.keys() or not one:
        return float("inf")
    return max(abs(one[step] - other[step]) for step in one)
