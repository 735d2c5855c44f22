"""A process that trains a small model for three steps and says how much memory the last one took.

Run as a script: a request as JSON on standard input (``config``, ``method``, ``tokens``), the answer as JSON
on standard output. The peak is the kernel's own high-water mark, set back before the last step, above what
the process held before the model was there. A smaller model was trained before that, so that libraries have
set up what they keep.
"""

from __future__ import annotations

import gc
import json
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]
sys.path.append(str(ROOT / "bench" / "corpus"))

import numpy as np  # noqa: E402
import torch  # noqa: E402
from memory_model import CHECK_ADAPTER, CHUNK_TOKENS, tuning_of  # noqa: E402

from baltoro.core.memory import peak_resident_bytes  # noqa: E402
from baltoro.data.collate import ModelInputs, collate  # noqa: E402
from baltoro.data.shards import RowBatch  # noqa: E402
from baltoro.models.attention import Attention  # noqa: E402
from baltoro.models.load import ModelPlan, build_model, decoder_blocks, load_weights  # noqa: E402
from baltoro.models.shifted_sparse_attention import ShiftedSparseAttention, choose_group_len  # noqa: E402
from baltoro.parallel.activation_checkpoint import checkpoint_blocks  # noqa: E402
from baltoro.train.config import LossConfig  # noqa: E402
from baltoro.train.loss import make_loss_sum  # noqa: E402


class OneSegment(Attention):
    """Full attention of rows that are one segment: causal without a mask, as the kernels of GPUs do it."""

    def arguments(self, segment_ids: torch.Tensor) -> dict[str, Any]:
        del segment_ids
        return {"attention_mask": None}


class Training:
    """A model, its optimizer and one row."""

    def __init__(self, config: Mapping[str, Any], method: str, tokens: int) -> None:
        long = method == "longqlora"
        group_len = choose_group_len(tokens)
        attention = ShiftedSparseAttention("sdpa", group_len=group_len) if long else OneSegment("sdpa")
        plan = ModelPlan(config, tuning=tuning_of(method, CHECK_ADAPTER, "float32"))
        self._model = build_model(plan, attention)
        self._model.to_empty(device="cpu")
        load_weights(self._model, plan)
        checkpoint_blocks(decoder_blocks(self._model), "full")
        self._model.train()
        trained = [parameter for parameter in self._model.parameters() if parameter.requires_grad]
        self._optimizer = torch.optim.AdamW(trained, lr=1e-4, fused=True)
        loss = LossConfig(implementation="chunked", chunk_tokens=CHUNK_TOKENS)
        self._loss_sum = make_loss_sum(loss, attention, torch.device("cpu"))
        ids = np.random.default_rng(0).integers(3, 264, (1, tokens), dtype=np.int32)
        end, paper = np.array([tokens], dtype=np.int32), np.zeros(1, dtype=np.int32)
        self._inputs: ModelInputs = collate(RowBatch(ids, [end], [paper]))

    def step(self) -> None:
        self._loss_sum(self._model, self._inputs).backward()
        self._optimizer.step()
        self._optimizer.zero_grad(set_to_none=True)


def main() -> None:
    request = json.load(sys.stdin)
    torch.set_num_threads(1)
    small = {**request["config"], "hidden_size": 64, "intermediate_size": 64, "num_attention_heads": 1}
    small |= {"num_key_value_heads": 1, "vocab_size": 264, "num_hidden_layers": 1}
    warm_up = Training(small, request["method"], 64)
    warm_up.step()
    del warm_up
    gc.collect()
    before = resident_bytes()
    training = Training(**request)
    for _ in range(2):
        training.step()
    gc.collect()
    Path("/proc/self/clear_refs").write_text("5", encoding="ascii")
    training.step()
    print(json.dumps({"peak_bytes": peak_resident_bytes() - before}))


def resident_bytes() -> int:
    lines = Path("/proc/self/status").read_text(encoding="ascii").splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("VmRSS:"))


if __name__ == "__main__":
    main()
