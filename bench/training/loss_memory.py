"""Memory of the chunked loss against all logits at once, forward and backward.

A model of one narrow block, so that nearly all memory beyond its weights is the loss's. Peaks are those of
the process above what it held before the step (the kernel's own high-water mark, which is set back before
each); weights, their gradient and hidden states are in both. Four times the tokens and four times the
vocabulary must not need four times the memory: nothing may grow with their product.
"""

from __future__ import annotations

import multiprocessing
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Literal

from results import Row

MOST_GROWTH_WITH_TOKENS = 1.25
CHUNK_TOKENS = 256
_HIDDEN_SIZE, _SEQUENCE_LENGTH = 32, 256
_MB = 1_000_000


def measure_loss(*, vocabularies: tuple[int, int], tokens: tuple[int, int]) -> list[Row]:
    """Measure both implementations at both sizes; megabytes.

    Args:
        vocabularies: the smaller and the larger.
        tokens: of a micro-batch, the smaller and the larger.
    """
    peaks = {
        (name, vocabulary, count): peak_in_new_process(name, vocabulary, count)
        for name in ("chunked", "full")
        for vocabulary in vocabularies
        for count in tokens
        # All logits of the largest would be the largest thing on the machine.
        if name == "chunked" or (vocabulary, count) != (vocabularies[1], tokens[1])
    }
    few, many = tokens
    rows = []
    for vocabulary in vocabularies:
        name = f"loss/chunked/{many // few}x_tokens_at_{vocabulary}"
        value, baseline = peaks["chunked", vocabulary, many], peaks["chunked", vocabulary, few]
        rows.append(Row(name, "MB", value, baseline, MOST_GROWTH_WITH_TOKENS, at_most=True))
    small, _ = vocabularies
    rows.append(Row("loss/full/same_growth", "MB", peaks["full", small, many], peaks["full", small, few]))
    rows.append(
        Row("loss/chunked_against_full", "MB", peaks["chunked", small, many], peaks["full", small, many])
    )
    return rows


def peak_in_new_process(name: str, vocabulary: int, tokens: int) -> float:
    """Return the peak of a new process, in megabytes."""
    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as pool:
        return pool.submit(peak_of_step, name, vocabulary, tokens).result() / _MB


def peak_of_step(name: Literal["chunked", "full"], vocabulary: int, tokens: int) -> int:
    """Return the bytes that a forward and backward pass took at its peak beyond what was there before."""
    import torch
    from setting import Size, packed_rows

    from baltoro.data.collate import collate
    from baltoro.models.attention import Attention
    from baltoro.models.load import build_model, copy_whole, load_weights
    from baltoro.train.config import LossConfig
    from baltoro.train.loss import make_loss_sum

    torch.set_num_threads(1)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    size = Size(_HIDDEN_SIZE, 1, 2, vocabulary, _SEQUENCE_LENGTH, tokens // _SEQUENCE_LENGTH, 1)
    plan, attention = size.plan(), Attention("sdpa")
    model = build_model(plan, attention)
    model.to_empty(device=device)
    load_weights(model, plan, copy_whole)
    inputs = collate(packed_rows(size.rows, size)).to(device)
    few = collate(packed_rows(1, size)).to(device)
    loss_sum = make_loss_sum(LossConfig(implementation=name, chunk_tokens=CHUNK_TOKENS), attention, device)
    # Kernels and buffers that every step uses are there after a first one.
    loss_sum(model, few).backward()
    model.zero_grad(set_to_none=True)
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        loss_sum(model, inputs).backward()
        return torch.cuda.max_memory_allocated() - before
    Path("/proc/self/clear_refs").write_text("5", encoding="ascii")
    before = _status_bytes("VmRSS")
    loss_sum(model, inputs).backward()
    return _status_bytes("VmHWM") - before


def _status_bytes(field: str) -> int:
    lines = Path("/proc/self/status").read_text(encoding="ascii").splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(f"{field}:"))
