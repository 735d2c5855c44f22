"""4-bit NF4 weights with double quantisation, as bitsandbytes computes with them.

The reference unpacks the stored bytes by the format's definition (Dettmers et al. 2023, arXiv:2305.14314):
16 quantiles of the normal distribution times a scale per block of 64 weights, the scales themselves in 8
bits. The layer is put into a model the way ``transformers`` does it.
"""

from __future__ import annotations

import importlib.util
import logging
import warnings
from functools import partial
from typing import TYPE_CHECKING, Any

from baltoro.core.errors import ConfigError
from baltoro.jobs.gpu_check.findings import (
    Finding,
    at_least,
    at_most,
    attempted,
    deviation,
    holds,
    measured,
    not_available,
)
from baltoro.parallel.build import refuse_missing_dtype
from baltoro.parallel.data_parallel import compute_dtype
from baltoro.parallel.strategy import Precision

if TYPE_CHECKING:
    import torch

# arXiv:2305.14314, appendix E.
QUANTILES = (
    -1.0,
    -0.6961928009986877,
    -0.5250730514526367,
    -0.39491748809814453,
    -0.28444138169288635,
    -0.18477343022823334,
    -0.09105003625154495,
    0.0,
    0.07958029955625534,
    0.16093020141124725,
    0.24611230194568634,
    0.33791524171829224,
    0.44070982933044434,
    0.5626170039176941,
    0.7229568362236023,
    1.0,
)

BLOCK_WEIGHTS = 64
OUTPUTS, INPUTS, ROWS = 384, 512, 16
_DEVIATION = 0.02

EXPECTED_ERROR = (0.070, 0.076)
"""Mean absolute error of NF4 in blocks of 64, as a share of a normal matrix' deviation: 0.0729."""

BOUNDS: dict[Precision, tuple[float, str]] = {
    "float32": (1e-4, "both sides multiply the same unpacked weights"),
    "bfloat16": (2e-2, "weights, inputs and sums are rounded to bfloat16, 1 in 256"),
}


def check_nf4(device: torch.device) -> list[Finding]:
    """Compare a 4-bit layer with the matrix that its bytes stand for.

    Args:
        device: to run on.
    """
    if importlib.util.find_spec("bitsandbytes") is None:
        return [
            not_available(
                "nf4", "bitsandbytes is not installed; `pip install 'baltoro[nf4]'` to have it tried"
            )
        ]
    findings: list[Finding] = []
    precisions: tuple[Precision, ...] = ("bfloat16", "float32")
    for precision in precisions:
        findings += attempted(f"layer {precision}", partial(_check_layer, precision, device))
    return findings


def _check_layer(precision: Precision, device: torch.device) -> list[Finding]:
    import torch

    try:
        refuse_missing_dtype(precision, device)
    except ConfigError as error:
        return [not_available(f"layer {precision}", error.message)]
    generator = torch.Generator().manual_seed(0)
    original = torch.randn(OUTPUTS, INPUTS, generator=generator) * _DEVIATION
    dtype = compute_dtype(precision)
    inputs = torch.randn(ROWS, INPUTS, generator=generator).to(device, dtype)
    wanted = torch.randn(ROWS, OUTPUTS, generator=generator).to(device, dtype)

    layer = four_bit_layer(original, dtype, device)
    if device.type == "cpu":
        # Otherwise an evaluation repacks the weights, after which gradients are wrong (see below).
        layer.support_avx512bf16_for_cpu = False
    matrix = unpacked(layer.weight)
    bound, why = BOUNDS[precision]
    before = _input_gradient(layer, inputs, wanted)
    output = layer(inputs)
    _evaluate(layer, inputs)
    after = _input_gradient(layer, inputs, wanted)
    same = before is not None and after is not None and torch.equal(before, after)
    findings = [
        at_most(f"forward {precision}", deviation(output, inputs.double() @ matrix.T), bound, details=why),
        at_most(
            f"input gradient {precision}", deviation(before, wanted.double() @ matrix), bound, details=why
        ),
        holds(
            f"gradient after an evaluation {precision}",
            same,
            "must be the very one from before the evaluation: "
            f"it is {deviation(after, wanted.double() @ matrix):.1e} off the reference",
        ),
    ]
    if precision == "bfloat16":
        findings += _check_error(original.to(device), matrix)
    if device.type == "cpu":
        findings.append(_as_it_comes(original, precision, inputs, wanted))
    return findings


def _check_error(original: torch.Tensor, matrix: torch.Tensor) -> list[Finding]:
    share = float((matrix - original.double()).abs().mean()) / _DEVIATION
    least, most = EXPECTED_ERROR
    why = (
        "mean absolute error of a normal matrix over its deviation; 0.0729 is what 16 quantiles and blocks "
        f"of {BLOCK_WEIGHTS} give"
    )
    return [
        at_most("quantisation error", share, most, details=why),
        at_least("quantisation error, from below", share, least, details=why),
    ]


def _as_it_comes(
    original: torch.Tensor, precision: Precision, inputs: torch.Tensor, wanted: torch.Tensor
) -> Finding:
    """Tell whether this CPU has the trap that Baltoro's setting avoids."""
    layer = four_bit_layer(original, inputs.dtype, inputs.device)
    matrix = unpacked(layer.weight)
    _evaluate(layer, inputs)
    share = deviation(_input_gradient(layer, inputs, wanted), wanted.double() @ matrix)
    return measured(
        f"gradient after an evaluation {precision}, as bitsandbytes comes",
        share,
        details="not judged: on CPUs with AVX512-BF16 bitsandbytes repacks weights in an evaluation, and "
        "gradients are lost, unless support_avx512bf16_for_cpu is false on each layer",
    )


def four_bit_layer(weight: torch.Tensor, dtype: torch.dtype, device: torch.device) -> Any:
    """Return bitsandbytes' layer without bias that holds a matrix in NF4, double quantised.

    Args:
        weight: float32 [outputs, inputs].
        dtype: that it computes in.
        device: where it is to be.
    """
    from torch import nn

    # It warns about kernels that are fetched for other uses.
    logging.getLogger("bitsandbytes").setLevel(logging.ERROR)
    from transformers import BitsAndBytesConfig
    from transformers.integrations.bitsandbytes import replace_with_bnb_linear

    holder = nn.Sequential(nn.Linear(weight.shape[1], weight.shape[0], bias=False))
    config = BitsAndBytesConfig(
        load_in_4bit=True,
        bnb_4bit_quant_type="nf4",
        bnb_4bit_use_double_quant=True,
        bnb_4bit_compute_dtype=dtype,
    )
    layer: Any = replace_with_bnb_linear(holder, quantization_config=config)[0]
    empty = layer.weight
    layer.weight = type(empty)(weight.clone(), requires_grad=False, **empty.__dict__).to(device)
    return layer.train()


def unpacked(weight: Any) -> torch.Tensor:
    """Return the float64 matrix that a 4-bit weight's bytes stand for, by the definition of the format.

    Args:
        weight: a ``Params4bit`` in NF4, double quantised.
    """
    import torch

    state = weight.quant_state
    packed = weight.data.view(torch.uint8).flatten()
    codes = torch.stack([packed >> 4, packed & 0x0F], dim=1).flatten().long()
    outer = state.state2
    outer_scales = outer.absmax.double().repeat_interleave(outer.blocksize)[: state.absmax.numel()]
    scales = outer.code.double()[state.absmax.long()] * outer_scales + state.offset.double()
    quantiles = torch.tensor(QUANTILES, dtype=torch.float64, device=packed.device)
    matrix: torch.Tensor = quantiles[codes].view(-1, BLOCK_WEIGHTS) * scales[:, None]
    return matrix.view(tuple(state.shape))


def _input_gradient(layer: Any, inputs: torch.Tensor, wanted: torch.Tensor) -> torch.Tensor | None:
    layer.train()
    leaf = inputs.clone().requires_grad_()
    with warnings.catch_warnings():
        # A missing gradient is the finding; torch's warning would only repeat it.
        warnings.simplefilter("ignore", UserWarning)
        layer(leaf).backward(wanted)
    return leaf.grad


def _evaluate(layer: Any, inputs: torch.Tensor) -> None:
    import torch

    layer.eval()
    with torch.no_grad():
        layer(inputs)
    layer.train()
