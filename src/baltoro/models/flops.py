"""What a training step computes, and what a device can compute: the two halves of MFU.

Counted are the operations that the mathematics of the model needs, not those that a kernel or activation
checkpointing happens to do (model FLOPs, not hardware FLOPs; Chowdhery et al. 2022, arXiv:2204.02311,
appendix B). A multiplication and an addition are two. The backward pass of a matrix product is two products
of the same size, so training costs three times the forward pass.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from baltoro.models.load import ModelPlan, build_model

if TYPE_CHECKING:
    from transformers import PreTrainedModel

_TERA = 1e12


def parameter_count(config: Mapping[str, Any]) -> int:
    """Return how many parameters a model has, tied ones once.

    Args:
        config: the model's ``config.json``.
    """
    return sum(parameter.numel() for parameter in build_model(ModelPlan(config)).parameters())


def training_flops_per_token(config: Mapping[str, Any], sequence_length: int) -> float:
    """Return the operations of a forward and backward pass per position of a row.

    * Matrices: 6 for each weight that a position is multiplied with: projections, feed-forward layers, and
      the output projection, tied or not. Looking up an embedding is no arithmetic. Of a mixture of experts,
      those count that one position is routed to.
    * Attention: scores and weighted values are 2 · 2 · width for each key a query sees, three times over.
      Only keys that the mask leaves are counted: position ``t`` of a row sees ``t + 1`` keys, on average
      ``(sequence_length + 1) / 2``, half of what counts of full attention give; a sliding window cuts that.
      A row counts as one segment: packed rows of short ones attend to less, and their MFU is flattered by it.
    * Norms, activations, rotations, softmax and dropout, below one percent together, are left out as usual.

    Args:
        config: the model's ``config.json``.
        sequence_length: positions of a row.
    """
    model = build_model(ModelPlan(config))
    widths = _attention_widths(config)
    windows = _windows(config, len(widths))
    attention = sum(
        12.0 * width * _mean_keys(sequence_length, window)
        for width, window in zip(widths, windows, strict=True)
    )
    return 6.0 * _multiplied_weights(model, config) + attention


def _multiplied_weights(model: PreTrainedModel, config: Mapping[str, Any]) -> float:
    """Return how many weights a position is multiplied with."""
    from torch import nn

    looked_up = {id(module.weight) for module in model.modules() if isinstance(module, nn.Embedding)}
    experts = config.get("num_local_experts") or config.get("num_experts") or config.get("n_routed_experts")
    active_share = (config.get("num_experts_per_tok") or 1) / experts if experts else 1.0
    total = 0.0
    for parameter in model.parameters():
        if parameter.dim() < 2 or id(parameter) in looked_up:
            continue
        routed = parameter.dim() == 3 and parameter.shape[0] == experts
        total += parameter.numel() * (active_share if routed else 1.0)
    projection = model.get_output_embeddings()
    if projection is not None and id(projection.weight) in looked_up:
        total += projection.weight.numel()
    return total


def _attention_widths(config: Mapping[str, Any]) -> list[float]:
    """Return the width of the queries of each layer."""
    heads = config["num_attention_heads"]
    head_size = config.get("head_dim") or config["hidden_size"] // heads
    return [float(heads * head_size)] * int(config["num_hidden_layers"])


def _windows(config: Mapping[str, Any], layers: int) -> list[int | None]:
    """Return the sliding window of each layer, ``None`` where a layer sees everything before."""
    window = config.get("sliding_window") if config.get("use_sliding_window", True) else None
    kinds = config.get("layer_types") or ["sliding_attention"] * layers
    return [window if kind == "sliding_attention" else None for kind in kinds]


def _mean_keys(tokens: int, window: int | None) -> float:
    if window is None or window >= tokens:
        return (tokens + 1) / 2
    # The first `window` positions see 1, 2 … window keys, all later ones `window`.
    return (window * (window + 1) / 2 + (tokens - window) * window) / tokens


_PEAKS: tuple[tuple[str, float, float, float], ...] = (
    # words of the name, float32 (no tensor cores), bfloat16, float16; TFLOP/s, dense, float32 accumulation
    ("gb200", 80.0, 2500.0, 2500.0),  # NVIDIA GB200 NVL72 page (per GPU, half of the sparse figure)
    ("b200", 75.0, 2250.0, 2250.0),  # NVIDIA HGX B200 page (an eighth of the board, half of sparse)
    ("h200 nvl", 60.0, 835.5, 835.5),  # NVIDIA H200 datasheet
    ("h200", 67.0, 989.5, 989.5),  # NVIDIA H200 datasheet
    ("gh200", 67.0, 989.5, 989.5),  # NVIDIA GH200 datasheet
    ("h100 pcie", 51.0, 756.5, 756.5),  # NVIDIA H100 datasheet
    ("h100 nvl", 60.0, 835.5, 835.5),  # NVIDIA H100 datasheet
    ("h100", 67.0, 989.5, 989.5),  # NVIDIA H100 datasheet, SXM5 ("NVIDIA H100 80GB HBM3")
    ("a100", 19.5, 312.0, 312.0),  # NVIDIA A100 datasheet, PCIe and SXM alike
    ("a800", 19.5, 312.0, 312.0),  # as A100; its links are slower
    ("a40", 37.4, 149.7, 149.7),  # NVIDIA A40 datasheet
    ("a30", 10.3, 165.0, 165.0),  # NVIDIA A30 datasheet
    ("a10", 31.2, 125.0, 125.0),  # NVIDIA A10 datasheet
    ("a10g", 35.0, 70.0, 70.0),  # NVIDIA A10G datasheet
    ("l40s", 91.6, 362.0, 362.0),  # NVIDIA L40S datasheet
    ("l40", 90.5, 181.0, 181.0),  # NVIDIA L40 datasheet
    ("l4", 30.3, 121.0, 121.0),  # NVIDIA L4 datasheet
    ("v100 pcie", 14.0, 0.0, 112.0),  # NVIDIA V100 datasheet; no bfloat16
    ("v100", 15.7, 0.0, 125.0),  # NVIDIA V100 datasheet, SXM2
    ("t4", 8.1, 0.0, 65.0),  # NVIDIA T4 datasheet
    ("rtx 6000 ada", 91.1, 364.2, 364.2),  # NVIDIA Ada architecture whitepaper, appendix
    ("rtx a6000", 38.7, 154.8, 154.8),  # NVIDIA GA102 whitepaper, appendix
    ("rtx 5090", 104.8, 209.5, 209.5),  # NVIDIA Blackwell GPU architecture whitepaper, appendix
    ("rtx 4090", 82.6, 165.2, 165.2),  # NVIDIA Ada architecture whitepaper, appendix
    ("rtx 3090", 35.6, 71.0, 71.0),  # NVIDIA GA102 whitepaper, appendix
    ("mi325x", 163.4, 1307.4, 1307.4),  # AMD Instinct MI325X datasheet
    ("mi300x", 163.4, 1307.4, 1307.4),  # AMD Instinct MI300X datasheet
    ("mi250x", 47.9, 383.0, 383.0),  # AMD Instinct MI250X datasheet, both of its dies
)


def peak_flops(device_name: str, precision: str) -> float | None:
    """Return what a GPU computes at most, in FLOP/s: the maker's figure for dense matrices.

    Never the doubled figure for sparse matrices, and for float32 that of plain cores: tensor cores would
    round to TF32 first, which torch does not do unless told.

    Args:
        device_name: as ``torch.cuda.get_device_name`` gives it.
        precision: ``float32``, ``bfloat16`` or ``float16``.

    Returns:
        ``None`` for a device that is not in the table, a slice of one (MIG), or a dtype it lacks.
    """
    words = set(re.split(r"[^a-z0-9.]+", device_name.lower()))
    # A slice, a laptop's chip and the D model have less than the device that their name begins with.
    if words & {"mig", "laptop", "d"}:
        return None
    for name, *peaks in _PEAKS:
        if set(name.split()) <= words:
            peak = peaks[("float32", "bfloat16", "float16").index(precision)]
            return peak * _TERA if peak else None
    return None
