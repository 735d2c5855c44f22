"""Attention within packed rows, by every kernel there is, against each segment alone.

The reference is written out (scores, causal mask, softmax, weighted sum, in float32) and runs on one segment
at a time, so it cannot leak between segments. Its inputs are the kernel's, already rounded to its dtype.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

from baltoro.core.errors import ConfigError
from baltoro.jobs.gpu_check.findings import Finding, at_most, attempted, deviation, not_available
from baltoro.models.attention import KERNELS, SDPA, Attention, KernelName, choose_attention
from baltoro.parallel.build import refuse_missing_dtype
from baltoro.parallel.data_parallel import compute_dtype
from baltoro.parallel.strategy import Precision

if TYPE_CHECKING:
    import torch
    from torch import nn

    from baltoro.models.load import ModelPlan

PRECISIONS: tuple[Precision, ...] = ("bfloat16", "float32")

BOUNDS: dict[Precision, tuple[float, str]] = {
    "float32": (1e-4, "sums in another order differ by some 1e-6; a wrong scale or a leak is off by 1e-2 up"),
    "bfloat16": (2e-2, "bfloat16 rounds to 1 in 256, and kernels round the weights of values to it, too"),
}


@dataclass(frozen=True, slots=True)
class Case:
    """Shapes of one comparison.

    Attributes:
        query_heads: of the queries.
        key_value_heads: of keys and values; each serves a group of query heads.
        head_size: values of a head.
        rows: lengths of each row's segments; what remains of ``tokens`` is padding.
        tokens: of a row.
        only_gpu: too slow for a CPU.
    """

    query_heads: int
    key_value_heads: int
    head_size: int
    rows: tuple[tuple[int, ...], ...]
    tokens: int
    only_gpu: bool = False

    @property
    def name(self) -> str:
        """Grouping, head size and length, for people."""
        groups = self.query_heads // self.key_value_heads
        return f"GQA {groups}, head {self.head_size}, {self.tokens} tokens"


_UNEVEN = ((1, 37, 128, 70), (200, 3, 40), (256,))
_LONG = ((4096, 1, 1500, 2048, 300),)

CASES: dict[Precision, tuple[Case, ...]] = {
    # Between the two, every grouping meets every head size; FlexAttention compiles each anew, so not twice.
    "bfloat16": (
        Case(8, 8, 64, _UNEVEN, 256),
        Case(8, 2, 128, _UNEVEN, 256),
        Case(8, 1, 64, _UNEVEN, 256),
        Case(4, 1, 128, _LONG, 8192, only_gpu=True),
    ),
    "float32": (
        Case(8, 8, 128, _UNEVEN, 256),
        Case(8, 2, 64, _UNEVEN, 256),
        Case(8, 1, 128, _UNEVEN, 256),
        Case(4, 1, 64, _LONG, 8192, only_gpu=True),
    ),
}


def check_attention(device: torch.device) -> list[Finding]:
    """Compare outputs and gradients of every kernel with each segment alone.

    Args:
        device: to run on.
    """
    findings = []
    for kernel in KERNELS:
        for precision in PRECISIONS:
            findings += attempted(f"{kernel} {precision}", partial(_check_kernel, kernel, precision, device))
    return findings


def _check_kernel(kernel: KernelName, precision: Precision, device: torch.device) -> list[Finding]:
    from baltoro.jobs.gpu_check.runs import small_plan

    label = f"{kernel} {precision}"
    try:
        refuse_missing_dtype(precision, device)
        attention = choose_attention(kernel, device=device, precision=precision, config=small_plan().config)
    except ConfigError as error:
        return [not_available(label, error.message)]
    findings = []
    for case in CASES[precision]:
        name = f"{label}: {case.name}"
        if case.only_gpu and device.type != "cuda":
            findings.append(not_available(name, f"a row this long is for a GPU, not for {device.type}"))
        else:
            findings += attempted(name, partial(_check_case, name, attention, precision, case, device))
    name = f"{label}: a small model"
    return findings + attempted(name, partial(_check_model, name, attention, precision, device))


def _check_case(
    name: str, attention: Attention, precision: Precision, case: Case, device: torch.device
) -> list[Finding]:
    """Compare the kernel as ``transformers`` calls it in a layer."""
    import torch
    from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

    # Kernels that are compiled give up after some shapes and would run another way.
    torch.compiler.reset()
    generator = torch.Generator().manual_seed(0)
    rows = len(case.rows)

    def random(heads: int) -> torch.Tensor:
        values = torch.randn(rows, heads, case.tokens, case.head_size, generator=generator)
        return values.to(device, compute_dtype(precision))

    inputs = [random(heads).requires_grad_() for heads in (case.query_heads, *[case.key_value_heads] * 2)]
    segment_ids = _segment_ids(case, device)
    # What comes out at padding is no one's target.
    wanted = random(case.query_heads) * (segment_ids != 0)[:, None, :, None]
    layer = SimpleNamespace(
        num_key_value_groups=case.query_heads // case.key_value_heads,
        is_causal=True,
        training=True,
        layer_idx=0,
    )
    scaling = case.head_size**-0.5
    arguments = attention.arguments(segment_ids)
    mask = arguments.pop("attention_mask")
    run = ALL_ATTENTION_FUNCTIONS[attention.implementation()]
    output = run(layer, *inputs, mask, dropout=0.0, scaling=scaling, **arguments)[0].transpose(1, 2)
    found = [output, *torch.autograd.grad(output, inputs, wanted)]

    expected = [torch.zeros_like(tensor, dtype=torch.float32) for tensor in found]
    for row, lengths in enumerate(case.rows):
        start = 0
        for length in lengths:
            place = (row, slice(None), slice(start, start + length))
            leaves = [tensor.detach()[place].float().requires_grad_() for tensor in inputs]
            alone = _attend_alone(*leaves, scaling=scaling)
            parts = [alone.detach(), *torch.autograd.grad(alone, leaves, wanted[place].float())]
            for whole, part in zip(expected, parts, strict=True):
                whole[place] = part
            start += length
    is_padding = (segment_ids == 0)[:, None, :, None]
    # Padding may hold any output, but a number, or it would spread to weights through zero gradients.
    padding_is_finite = bool(torch.isfinite(found[0]).all())
    found[0] = found[0].masked_fill(is_padding, 0.0) if padding_is_finite else found[0]
    parts_of = ("output", "gradient of queries", "of keys", "of values")
    shares = [deviation(one, other) for one, other in zip(found, expected, strict=True)]
    bound, why = BOUNDS[precision]
    told = ", ".join(f"{part} {share:.1e}" for part, share in zip(parts_of, shares, strict=True))
    return [at_most(name, max(shares), bound, details=f"{told}; {why}")]


def _segment_ids(case: Case, device: torch.device) -> torch.Tensor:
    """Return int32 [rows, tokens]: 1, 2 … for a row's segments, 0 for padding."""
    import torch

    segment_ids = torch.zeros(len(case.rows), case.tokens, dtype=torch.int32)
    for row, lengths in enumerate(case.rows):
        start = 0
        for number, length in enumerate(lengths, start=1):
            segment_ids[row, start : start + length] = number
            start += length
    return segment_ids.to(device)


def _attend_alone(
    query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, *, scaling: float
) -> torch.Tensor:
    """Return causal attention of one sequence, as the formula says: [heads, length, head size]."""
    import torch

    groups = len(query) // len(key)
    scores = query @ key.repeat_interleave(groups, dim=0).transpose(1, 2) * scaling
    length = query.shape[1]
    future = torch.ones(length, length, dtype=torch.bool, device=query.device).triu(1)
    weights = scores.masked_fill(future, -torch.inf).softmax(dim=-1)
    return weights @ value.repeat_interleave(groups, dim=0)


def _check_model(
    name: str, attention: Attention, precision: Precision, device: torch.device
) -> list[Finding]:
    """Compare a whole model on packed rows: positions and boundaries must reach the kernel, too."""
    import torch

    from baltoro.data.collate import collate
    from baltoro.jobs.gpu_check.runs import small_plan, small_rows

    torch.compiler.reset()
    plan = small_plan()
    packed = model_on(device, plan, attention).to(compute_dtype(precision))
    reference: Any = model_on(device, plan, SDPA)
    reference.load_state_dict(packed.state_dict())
    # Products and softmax one by one: no kernel is compared with itself.
    reference.set_attn_implementation("eager")
    rows = small_rows(3)
    inputs = collate(rows).to(device)
    logits = packed(
        input_ids=inputs.input_ids,
        position_ids=inputs.position_ids,
        use_cache=False,
        **attention.arguments(inputs.segment_ids),
    ).logits
    generator = torch.Generator().manual_seed(0)
    weights = torch.randn(logits.shape, generator=generator).to(device, logits.dtype)
    weights *= (inputs.segment_ids != 0)[:, :, None]
    logits.backward(weights)

    alone = torch.zeros_like(logits, dtype=torch.float32)
    for row, ends in enumerate(rows.segment_ends):
        start = 0
        for end in ends.tolist():
            piece = reference(input_ids=inputs.input_ids[row : row + 1, start:end], use_cache=False).logits
            piece.backward(weights[row : row + 1, start:end].float())
            alone[row, start:end] = piece.detach()[0]
            start = end
    counted = inputs.segment_ids != 0
    expected = dict(reference.named_parameters())
    gradients = max(
        deviation(parameter.grad, _gradient(expected[key])) for key, parameter in packed.named_parameters()
    )
    outputs = deviation(logits[counted], alone[counted])
    bound, why = BOUNDS[precision]
    told = f"logits {outputs:.1e}, gradients of weights {gradients:.1e}; {why}"
    return [at_most(name, max(outputs, gradients), bound, details=told)]


def model_on(device: torch.device, plan: ModelPlan, attention: Attention) -> nn.Module:
    """Return a model in float32 with its values, ready to train."""
    from baltoro.models.load import build_model, load_weights

    model: nn.Module = build_model(plan, attention)
    model.to_empty(device=device)
    load_weights(model, plan)
    model.train()
    return model


def _gradient(parameter: torch.Tensor) -> torch.Tensor:
    assert parameter.grad is not None
    return parameter.grad
