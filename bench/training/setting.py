"""What every part of the training benchmark shares: the model, the rows, and how two sides take turns."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np

from baltoro.data.shards import RowBatch
from baltoro.models.load import ModelPlan

if TYPE_CHECKING:
    import torch

    from baltoro.parallel.config import StrategyName

LEARNING_RATE = 1e-4


@dataclass(frozen=True, slots=True)
class Size:
    """How large a model and its batches are.

    Attributes:
        vocabulary: rows of the embedding.
        sequence_length: tokens of a row.
        rows: of a micro-batch, on each rank.
        accumulation: micro-batches of each rank per step.
    """

    hidden_size: int = 128
    layers: int = 4
    heads: int = 4
    vocabulary: int = 16_000
    sequence_length: int = 256
    rows: int = 2
    accumulation: int = 2

    def plan(self) -> ModelPlan:
        """Return the plan of a LLaMA of this size with random weights."""
        from transformers import LlamaConfig

        config = LlamaConfig(
            vocab_size=self.vocabulary,
            hidden_size=self.hidden_size,
            intermediate_size=3 * self.hidden_size,
            num_hidden_layers=self.layers,
            num_attention_heads=self.heads,
            num_key_value_heads=self.heads,
            max_position_embeddings=self.sequence_length,
            tie_word_embeddings=True,
            bos_token_id=0,
            eos_token_id=0,
            pad_token_id=0,
            architectures=["LlamaForCausalLM"],
        )
        return ModelPlan(config.to_dict(), seed=0)

    def global_batch_tokens(self, world_size: int) -> int:
        """Return the tokens of one step over all ranks."""
        return self.sequence_length * self.rows * self.accumulation * world_size


def packed_rows(count: int, size: Size, *, seed: int = 0) -> RowBatch:
    """Return full rows of one to four segments each; ids are Zipf-like, as words are."""
    random = np.random.default_rng(seed)
    shape = (count, size.sequence_length)
    input_ids = np.minimum(random.zipf(1.3, shape), size.vocabulary - 1).astype(np.int32)
    ends = [
        np.array(
            sorted(
                {*random.integers(1, size.sequence_length, random.integers(0, 4)).tolist()}
                | {size.sequence_length}
            ),
            dtype=np.int32,
        )
        for _ in range(count)
    ]
    return RowBatch(input_ids, ends, [np.zeros(len(part), dtype=np.int32) for part in ends])


@dataclass(frozen=True, slots=True)
class Times:
    """Seconds of every turn of one side, on one rank: by the clock, and of the CPU it kept busy."""

    wall: list[float] = field(default_factory=list)
    cpu: list[float] = field(default_factory=list)


def in_turns(sides: Mapping[str, Callable[[], object]], turns: int) -> dict[str, Times]:
    """Run every side once per turn, in alternating order (A B, B A, …), and return the times of each.

    Two sides that take turns meet the same neighbours on the machine; changing who goes first keeps one from
    always finding the caches as the other left them. CPU seconds bear a busy machine better, but do not see
    waiting.
    """
    times = {name: Times() for name in sides}
    for turn in range(turns):
        for name in sorted(sides, reverse=turn % 2 == 1):
            wall, cpu = time.perf_counter(), time.process_time()
            sides[name]()
            times[name].cpu.append(time.process_time() - cpu)
            times[name].wall.append(time.perf_counter() - wall)
    return times


def this_device(folder: str) -> torch.device:
    """Return where this rank computes: its GPU if there is one, else the CPU.

    Ranks start with a gloo process group; on GPUs it is replaced by one that speaks NCCL.

    Args:
        folder: empty, seen by all ranks; where they find each other.
    """
    import torch
    import torch.distributed as dist

    if not torch.cuda.is_available():
        return torch.device("cpu")
    rank, world_size = dist.get_rank(), dist.get_world_size()
    dist.destroy_process_group()
    torch.cuda.set_device(rank)
    dist.init_process_group(
        "cpu:gloo,cuda:nccl", init_method=f"file://{folder}/nccl", rank=rank, world_size=world_size
    )
    return torch.device("cuda", rank)


def settled(device: torch.device) -> None:
    """Wait until the device has done what it was told, and until every rank is here."""
    import torch
    import torch.distributed as dist

    if device.type == "cuda":
        torch.cuda.synchronize(device)
    dist.barrier()


class BaltoroLoop:
    """Baltoro's loop over rows in memory, from the first step on for as long as it is asked.

    Args:
        size: of the model and its batches.
        rows: of whole steps; begun anew when they are used up.
        device: where the model is.
        strategy: how it is spread over the ranks.
    """

    def __init__(self, size: Size, rows: RowBatch, device: torch.device, strategy: StrategyName) -> None:
        from baltoro.checkpoint.state import TrainState
        from baltoro.data.feed import RowsInMemory
        from baltoro.data.order import StepOrder
        from baltoro.models.attention import choose_attention
        from baltoro.models.load import build_model, decoder_blocks, load_weights
        from baltoro.optim.config import OptimizerConfig, ScheduleConfig
        from baltoro.optim.optimizer import build_optimizer
        from baltoro.optim.schedule import build_schedule
        from baltoro.parallel.build import build_strategy
        from baltoro.parallel.config import ParallelConfig
        from baltoro.parallel.ranks import Ranks
        from baltoro.parallel.timing import PhaseTimer
        from baltoro.train.bad_steps import BadSteps
        from baltoro.train.config import FaultConfig, LossConfig
        from baltoro.train.loss import make_loss_sum

        plan, optimizer = size.plan(), OptimizerConfig(learning_rate=LEARNING_RATE)
        self._device, self._ranks, self._timer = device, Ranks(), PhaseTimer(device)
        self._strategy = build_strategy(
            strategy,
            ParallelConfig(),
            device=device,
            precision="float32",
            max_gradient_norm=1.0,
            timer=self._timer,
        )
        attention = choose_attention("auto", device=device, precision="float32", config=plan.config)
        model = build_model(plan, attention)
        self._strategy.setup(
            model,
            blocks=decoder_blocks(model),
            load=lambda sharded, assign: load_weights(sharded, plan, assign),
            build_optimizer=lambda sharded: build_optimizer(sharded, optimizer),
            loss_sum=make_loss_sum(LossConfig(), attention, device),
        )
        batch_tokens = size.global_batch_tokens(self._ranks.world_size)
        self._dataset = RowsInMemory(rows)
        self._order = StepOrder(len(rows), size.sequence_length, batch_tokens)
        self._split = self._order.split(self._ranks.world_size, size.rows)
        self._schedule = build_schedule(
            ScheduleConfig(shape="constant", warmup_tokens=0),
            learning_rate=optimizer.learning_rate,
            steps=1 << 30,
            global_batch_tokens=batch_tokens,
        )
        self._bad_steps = BadSteps(FaultConfig())
        self._state = TrainState()

    def train(self, steps: int) -> None:
        """Take so many steps, reporting each."""
        from baltoro.data.feed import read_step
        from baltoro.train.hooks import ReportHook
        from baltoro.train.loop import train_steps
        from baltoro.train.throughput import Throughput

        first = self._state.step
        feed = (
            read_step(self._dataset, self._order, self._split, step % self._order.steps, self._ranks.rank)
            for step in range(first, first + steps)
        )
        reported: list[object] = []
        self._state = train_steps(
            self._strategy,
            feed,
            schedule=self._schedule,
            state=self._state,
            ranks=self._ranks,
            device=self._device,
            timer=self._timer,
            bad_steps=self._bad_steps,
            hooks=[
                ReportHook(
                    lambda _, metrics: reported.append(metrics),
                    Throughput(self._device).metrics,
                    every_steps=1,
                    total_steps=first + steps,
                )
            ],
        )
