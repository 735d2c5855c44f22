"""Memory of the chunked loss against all logits at once, forward and backward.

The loss alone, of narrow hidden states: attention would need more for more tokens too. Peaks are those of the
process above what it held before the step (the kernel's own high-water mark, which is set back before each);
the gradient of the weights and the hidden states are in both. Four times the tokens must not need four times
the memory, whatever the vocabulary: nothing may grow with their product.
"""

from __future__ import annotations

import multiprocessing
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Literal

from results import Row

MOST_GROWTH_WITH_TOKENS = 1.25
# A chunk's logits are then beyond what malloc ever takes from its heap, whose holes would count as growth.
CHUNK_TOKENS = 512
_HIDDEN_SIZE = 32
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
    from torch.nn.functional import cross_entropy, linear

    from baltoro.train.chunked_loss import chunked_cross_entropy_sum

    torch.set_num_threads(1)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    weight = torch.randn(vocabulary, _HIDDEN_SIZE, device=device, requires_grad=True)

    def step(count: int) -> None:
        hidden = torch.randn(count, _HIDDEN_SIZE, device=device, requires_grad=True)
        labels = torch.randint(vocabulary, (count,), device=device)
        if name == "chunked":
            loss = chunked_cross_entropy_sum(hidden, weight, None, labels, chunk_tokens=CHUNK_TOKENS)
        else:
            loss = cross_entropy(linear(hidden, weight), labels, reduction="sum")
        loss.backward()
        weight.grad = None

    # Kernels and buffers that every step uses are there after a first one.
    step(1)
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        step(tokens)
        return torch.cuda.max_memory_allocated() - before
    Path("/proc/self/clear_refs").write_text("5", encoding="ascii")
    before = _status_bytes("VmRSS")
    step(tokens)
    return _status_bytes("VmHWM") - before


def _status_bytes(field: str) -> int:
    lines = Path("/proc/self/status").read_text(encoding="ascii").splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(f"{field}:"))
