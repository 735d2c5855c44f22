"""How much memory one device needs to train a model on long rows: counted on the meta device.

Nothing is sharded or offloaded, decoder blocks are checkpointed (each keeps its input only), and the loss is
computed in chunks. With ``c`` bytes for a value of the forward pass (2 in bfloat16, 4 in float32):

* frozen: the bytes of the base where it is not trained, as the model on the meta device holds them: ``c`` a
  weight, or 4 bits and the blocks' scales (NF4 with double quantisation: 0.516 bytes a weight)
* trained: 4 bytes a parameter (master weights) and ``c`` for the copy to compute with, if ``c < 4``
* gradients: 4, and moments: 8 bytes a trained parameter
* checkpoints: the input of every block
* block: what one block keeps when it is computed again (its input is among the checkpoints already), and
  the gradients that go back through it, most in the feed-forward layer: of the block's output, and of both
  factors of the product inside, less what is let go by then: ``T · (width + 2 · inner width) · c``; a 4-bit
  base has its largest weight expanded
* loss: a chunk's logits in float32, and in ``c`` if that is less, the gradient of the hidden states, and what
  is kept outside the blocks (last norm), which is let go before the last block is computed again

Block and loss are not there together, so the larger of them counts. What a kernel, NCCL or the allocator's
gaps need comes on top. Shifted sparse attention keeps what a fused kernel of full attention keeps: it saves
time, not memory.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from results import Row

from baltoro.jobs.layout_probe import count_activations
from baltoro.models.adapters import Tuning
from baltoro.models.config import AdapterConfig, QuantizationConfig
from baltoro.models.load import ModelPlan, build_model
from baltoro.models.presets import preset_config

METHODS = ("full", "lora", "qlora", "longqlora")
TOKENS_7B = (8192, 12_288, 32_768)
CHUNK_TOKENS = 512
"""Positions whose logits exist at one time."""

LEAST, MOST = 0.9, 1.15
"""What a prediction over a measured peak must lie between."""

_BYTES = {"float32": 4, "bfloat16": 2}
_MASTER, _GRADIENT, _MOMENTS = 4, 4, 8
_ADAPTER_7B = AdapterConfig(rank=64, alpha=16)
_GIB, _MB = 2**30, 1_000_000


@dataclass(frozen=True, slots=True)
class Need:
    """Bytes of one device, by what they are for; see the module."""

    frozen: int
    trained: int
    gradients: int
    moments: int
    checkpoints: int
    block: int
    loss: int

    @property
    def total(self) -> int:
        """Bytes at the peak."""
        states = self.frozen + self.trained + self.gradients + self.moments
        return states + self.checkpoints + max(self.block, self.loss)


def tuning_of(method: str, adapter: AdapterConfig, precision: str) -> Tuning | None:
    """Return what a method trains; ``None`` trains everything."""
    if method == "full":
        return None
    return Tuning(adapter, None if method == "lora" else QuantizationConfig(), frozen_dtype=precision)


def need_of(
    config: Mapping[str, Any], method: str, *, tokens: int, precision: str, adapter: AdapterConfig
) -> Need:
    """Return what one row of training needs.

    Args:
        config: the model's ``config.json``.
        method: of :data:`METHODS`.
        tokens: of the row.
        precision: dtype of the forward pass and of what is frozen.
        adapter: of all methods but ``full``.
    """
    compute = _BYTES[precision]
    model = build_model(ModelPlan(config, tuning=tuning_of(method, adapter, precision)))
    trained = sum(parameter.numel() for parameter in model.parameters() if parameter.requires_grad)
    frozen = sum(parameter.nbytes for parameter in model.parameters() if not parameter.requires_grad)
    frozen += sum(buffer.nbytes for buffer in model.buffers())
    # A 4-bit layer keeps its packed weight for the backward pass, which is there in any case: what is kept
    # beside it is what a plain frozen layer keeps.
    like = "full" if method == "full" else "lora"
    counted = build_model(ModelPlan(config, tuning=tuning_of(like, adapter, precision)))
    # Of a frozen embedding the first block's input needs no gradient; that of all others does.
    counted.enable_input_require_grads()
    kept = count_activations(counted, sequence_length=tokens, precision=precision)
    row = tokens * config["hidden_size"] * compute
    gradients = row + 2 * tokens * config["intermediate_size"] * compute
    block = kept["block"] - kept["block_input"] + gradients
    if method in ("qlora", "longqlora"):
        block += config["hidden_size"] * config["intermediate_size"] * compute
    logits = CHUNK_TOKENS * config["vocab_size"] * (4 + (compute if compute < 4 else 0))
    return Need(
        frozen=frozen,
        trained=trained * (_MASTER + (compute if compute < _MASTER else 0)),
        gradients=trained * _GRADIENT,
        moments=trained * _MOMENTS,
        checkpoints=config["num_hidden_layers"] * kept["block_input"],
        block=block,
        loss=logits + row + kept["outside"],
    )


def measure_memory(*, tokens_7b: tuple[int, ...] = TOKENS_7B) -> tuple[list[Row], str]:
    """Return what a 7B needs by method and length in GiB, beside training it whole, and the parts as text."""
    rows, lines = [], [f"{'GiB':>18}" + "".join(f"{name:>12}" for name in (*Need.__slots__, "total"))]
    for tokens in tokens_7b:
        config = preset_config("llama-7b", vocabulary_size=32_000, sequence_length=tokens).to_dict()
        needs = {
            method: need_of(config, method, tokens=tokens, precision="bfloat16", adapter=_ADAPTER_7B)
            for method in METHODS
        }
        for method, need in needs.items():
            name = f"memory/7b/{tokens}/{method}"
            rows.append(Row(name, "GiB", need.total / _GIB, needs["full"].total / _GIB))
            parts = (*(getattr(need, part) for part in Need.__slots__), need.total)
            lines.append(f"{tokens:>8}{method:>10}" + "".join(f"{part / _GIB:>12.2f}" for part in parts))
    return rows, "\n".join(lines)


# --------------------------------------------------------------------------------------------------
# Against measured peaks


@dataclass(frozen=True, slots=True)
class CheckSize:
    """A model small enough to train here, large enough that its memory stands out from the process's own.

    Attributes:
        hidden_size: width.
        layers: decoder blocks.
        vocabulary: rows of the embedding.
        tokens: of a row, the shorter and the longer.
    """

    hidden_size: int = 256
    layers: int = 4
    vocabulary: int = 2048
    tokens: tuple[int, int] = (512, 2048)

    def config(self) -> dict[str, Any]:
        """Return the model's configuration: the proportions of a LLaMA 7B, heads of 64."""
        from transformers import LlamaConfig

        config: dict[str, Any] = LlamaConfig(
            vocab_size=self.vocabulary,
            hidden_size=self.hidden_size,
            intermediate_size=self.hidden_size * 11008 // 4096,
            num_hidden_layers=self.layers,
            num_attention_heads=self.hidden_size // 64,
            max_position_embeddings=self.tokens[1],
            tie_word_embeddings=False,
            architectures=["LlamaForCausalLM"],
        ).to_dict()
        return config


CHECK_ADAPTER = AdapterConfig(rank=8, alpha=16)


def check_memory(size: CheckSize) -> list[Row]:
    """Compare predictions with peaks of new processes, float32 on the CPU; megabytes.

    ``whole`` is all that the longer row takes, ``growth`` what it takes beyond the shorter one: activations
    alone.
    """
    rows = []
    config = size.config()
    for method in METHODS:
        predicted = [
            need_of(config, method, tokens=tokens, precision="float32", adapter=CHECK_ADAPTER).total / _MB
            for tokens in size.tokens
        ]
        measured = [peak_in_new_process(config, method, tokens) / _MB for tokens in size.tokens]
        for name, value, baseline in (
            ("whole", predicted[1], measured[1]),
            ("growth", predicted[1] - predicted[0], measured[1] - measured[0]),
        ):
            rows.append(Row(f"memory/check/{method}/{name}", "MB", value, baseline, LEAST))
            rows.append(
                Row(f"memory/check/{method}/{name}_not_above", "MB", value, baseline, MOST, at_most=True)
            )
    return rows


def peak_in_new_process(config: Mapping[str, Any], method: str, tokens: int) -> int:
    """Return the bytes that training took at its peak in a process of its own."""
    request = json.dumps({"config": config, "method": method, "tokens": tokens})
    child = subprocess.run(
        [sys.executable, Path(__file__).with_name("memory_step.py")],
        input=request,
        # What is freed goes back to the system at once; otherwise holes in the heap would be measured.
        env={**os.environ, "MALLOC_MMAP_THRESHOLD_": "65536", "MALLOC_ARENA_MAX": "1"},
        stdout=subprocess.PIPE,
        text=True,
        check=True,
    )
    return int(json.loads(child.stdout.splitlines()[-1])["peak_bytes"])
