"""Rotary positions stretched to a longer context, saved so that plain ``transformers`` computes the same.

With D rotated dimensions of a head, base b, frequencies θ_i = b^(-2i/D) for i < D/2, original context L, and
s the longer context over L (Peng et al. 2023, YaRN, arXiv:2309.00071, sections 2.2 to 3.4):

* ``linear`` (position interpolation, Chen et al. 2023, arXiv:2306.15595): θ_i / s. From a target, s is
  rounded up to a whole number, as LongLoRA does; the other methods take the ratio as it is.
* ``ntk``: b becomes b · s^(D / (D - 2)). The reach is less than s, so s must be set above what is needed.
* ``dynamic_ntk``: b · (s · n / L - (s - 1))^(D / (D - 2)) for a sequence of n > L tokens, and b up to L.
  ``transformers`` keeps the largest n seen until a sequence is below L again, and n is the longest of a
  micro-batch, so in training a row's positions would depend on its neighbours: it is meant for inference.
* ``ntk_by_parts``: (1 - γ) · θ_i / s + γ · θ_i, where the ramp γ is 0 for dimensions that turn less than
  ``alpha`` times over L tokens, 1 for those that turn more than ``beta`` times, and between them linear in
  the turns or in the index i (:func:`dimension_ramp`).
* ``yarn``: the same, with cosines and sines multiplied by 0.1 · ln s + 1, which divides the softmax's
  temperature by its square.
* ``llama3``: ``ntk_by_parts`` in turns, from ``low_frequency_factor`` to ``high_frequency_factor``.

Where ``transformers`` has no type of that name the same frequencies are said in one that it has: ``ntk`` as
another base, ``ntk_by_parts`` as ``yarn`` without temperature (ramp by dimension) or as ``llama3`` (by
turns), ``yarn`` with the ramp by turns as ``longrope``, whose factors can say anything.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from baltoro.core.errors import ConfigError
from baltoro.models.rope_scaling_config import RopeScalingConfig

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

RECORD = "baltoro_rope_scaling"
"""The entry of ``config.json`` that says what was done, since another base of the powers does not show."""

_ORIGINAL = "original_max_position_embeddings"

_ONLY_LONGROPE = frozenset({"phi3", "phi4_multimodal"})
"""Architectures for which ``transformers`` takes no other type."""


@dataclass(frozen=True, slots=True)
class StretchedPositions:
    """A method with everything it needs of a model.

    Attributes:
        scaling: the settings.
        base: b, of the unstretched model.
        dimensions: D, of a head, that are rotated.
        original_positions: L.
        positions: tokens of the longer context.
        factor: s.
    """

    scaling: RopeScalingConfig
    base: float
    dimensions: int
    original_positions: int
    positions: int
    factor: float


def plan_stretch(
    config: Mapping[str, Any], scaling: RopeScalingConfig, *, base: str = "the base"
) -> StretchedPositions:
    """Return what the settings mean for a model.

    Args:
        config: the model's ``config.json``, or ``to_dict()`` of its configuration.
        scaling: the settings.
        base: the model, as people named it.

    Raises:
        ConfigError: the model has no rotary positions, several sets of them, or positions that are stretched
            already; or the context would not become longer.
    """
    refuse_rope_scaling(config, base)
    if config.get("alibi"):
        raise ConfigError(
            f"model.rope_scaling: {base} biases its attention by distance (alibi) and rotates nothing; leave "
            "model.rope_scaling out, or choose a model.base with rotary positions"
        )
    rotary = _rotary_settings(config)
    nested = sorted(name for name, value in rotary.items() if isinstance(value, Mapping))
    if nested:
        raise ConfigError(
            f"model.rope_scaling: {base} has rotary positions of their own for {' and '.join(nested)} "
            "layers, and to stretch all alike would break those with a window; choose a model.base with one "
            "set"
        )
    _refuse_stretched(config, rotary, base)
    original = _original_positions(config, scaling, base)
    factor, positions = _factor(scaling, original)
    dimensions = _rotated_dimensions(config, rotary)
    if dimensions < 4:
        raise ConfigError(
            f"model.rope_scaling: heads of {base} rotate {dimensions} dimensions, and the formulas need at "
            "least 4; choose another model.base"
        )
    theta = float(rotary.get("rope_theta") or 10_000.0)
    return StretchedPositions(scaling, theta, dimensions, original, positions, factor)


def has_rotary_positions(config: Mapping[str, Any]) -> bool:
    """Return whether a model turns queries and keys by their position, so that positions can be scaled.

    Args:
        config: the model's ``config.json``.
    """
    return any(config.get(name) for name in ("rope_parameters", "rope_theta", "rope_scaling"))


def refuse_rope_scaling(config: Mapping[str, Any], base: str) -> None:
    """Refuse to scale the positions of a model that learned them.

    Args:
        config: the model's ``config.json``.
        base: the model, as people named it.

    Raises:
        ConfigError: the model has no rotary positions.
    """
    if not has_rotary_positions(config):
        raise ConfigError(
            f"model.rope_scaling: {base} has learned positions, which cannot be scaled to longer contexts; "
            "leave model.rope_scaling out, or choose a model.base with rotary positions"
        )


def _rotary_settings(config: Mapping[str, Any]) -> dict[str, Any]:
    """Return a model's rotary settings as version 5 of ``transformers`` has them, whatever wrote them."""
    rotary = dict(config.get("rope_parameters") or config.get("rope_scaling") or {})
    for name in ("rope_theta", "partial_rotary_factor"):
        if rotary.get(name) is None and config.get(name) is not None:
            rotary[name] = config[name]
    if "type" in rotary:
        rotary.setdefault("rope_type", rotary["type"])
        del rotary["type"]
    return rotary


def _refuse_stretched(config: Mapping[str, Any], rotary: Mapping[str, Any], base: str) -> None:
    record = config.get(RECORD)
    kind = rotary.get("rope_type", "default")
    if record:
        done = f"{record['method']}, factor {record['factor']:g}"
    elif kind != "default":
        done = str(kind) + (f", factor {rotary['factor']:g}" if rotary.get("factor") else "")
    else:
        return
    raise ConfigError(
        f"model.rope_scaling: the positions of {base} are stretched already ({done}), and stretching them "
        "again would be neither method; leave model.rope_scaling out, or choose as model.base what it was "
        "made from"
    )


def _original_positions(config: Mapping[str, Any], scaling: RopeScalingConfig, base: str) -> int:
    described = config.get(_ORIGINAL) or config.get("max_position_embeddings")
    if scaling.original_positions is None:
        if described is None:
            raise ConfigError(
                f"model.rope_scaling.original_positions: {base} does not say what context it was trained "
                "with; set it"
            )
        return int(described)
    if described is not None and scaling.original_positions > described:
        raise ConfigError(
            f"model.rope_scaling.original_positions={scaling.original_positions}: {base} has {described} "
            f"positions; set at most {described}, or null to use them"
        )
    return scaling.original_positions


def _factor(scaling: RopeScalingConfig, original: int) -> tuple[float, int]:
    """Return s and the tokens of the longer context."""
    if scaling.factor is not None:
        return scaling.factor, math.floor(scaling.factor * original)
    target = scaling.target_positions
    assert target is not None
    if target <= original:
        raise ConfigError(
            f"model.rope_scaling.target_positions={target} is no longer than the original context of "
            f"{original} tokens; raise it, or leave model.rope_scaling out"
        )
    if scaling.method == "linear":
        return float(-(-target // original)), target
    return target / original, target


def _rotated_dimensions(config: Mapping[str, Any], rotary: Mapping[str, Any]) -> int:
    head_size = config.get("head_dim") or config["hidden_size"] // config["num_attention_heads"]
    return int(head_size * (rotary.get("partial_rotary_factor") or 1.0))


# --------------------------------------------------------------------------------------------------
# Closed forms


def inverse_frequencies(stretched: StretchedPositions, tokens: int | None = None) -> NDArray[np.float64]:
    """Return by how much each pair of dimensions turns from one token to the next, in radians.

    Args:
        stretched: method and model.
        tokens: length of the sequence, on which ``dynamic_ntk`` alone depends; ``None``: up to the original
            context.

    Returns:
        float64 [D / 2].
    """
    import numpy as np

    scaling, factor = stretched.scaling, stretched.factor
    theta = _powers(stretched.base, stretched.dimensions)
    if scaling.method == "linear":
        return theta / factor
    if scaling.method == "ntk":
        return _powers(ntk_base(stretched.base, factor, stretched.dimensions), stretched.dimensions)
    if scaling.method == "dynamic_ntk":
        original = stretched.original_positions
        growth = factor * max(tokens or 0, original) / original - (factor - 1)
        return _powers(ntk_base(stretched.base, growth, stretched.dimensions), stretched.dimensions)
    alpha, beta = _bounds(scaling)
    if scaling.method != "llama3" and scaling.ramp == "dimension":
        low, high = dimension_ramp(
            stretched.dimensions, stretched.base, stretched.original_positions, alpha=alpha, beta=beta
        )
        # As the released code does where both ends fall on one dimension.
        width = (high - low) or 0.001
        kept = 1 - np.clip((np.arange(len(theta)) - low) / width, 0, 1)
    else:
        turns = stretched.original_positions * theta / (2 * math.pi)
        kept = np.clip((turns - alpha) / (beta - alpha), 0, 1)
    blended: NDArray[np.float64] = (1 - kept) * theta / factor + kept * theta
    return blended


def attention_scale(stretched: StretchedPositions) -> float:
    """Return what cosines and sines are multiplied with: 1 but for ``yarn``."""
    if stretched.scaling.method != "yarn":
        return 1.0
    if stretched.scaling.attention_factor is not None:
        return stretched.scaling.attention_factor
    return 0.1 * math.log(stretched.factor) + 1.0


def ntk_base(base: float, factor: float, dimensions: int) -> float:
    """Return the base b · s^(D / (D - 2)), whose slowest pair of dimensions turns s times slower."""
    return float(base * factor ** (dimensions / (dimensions - 2)))


def dimension_ramp(
    dimensions: int, base: float, original_positions: int, *, alpha: float, beta: float
) -> tuple[int, int]:
    """Return the pairs of dimensions between which the released code's ramp falls.

    A pair of index c(r) = D · ln(L / (2πr)) / (2 · ln b) turns r times over L tokens. Below floor(c(beta))
    pairs are left alone, above ceil(c(alpha)) they are stretched whole.

    Args:
        dimensions: D.
        base: b.
        original_positions: L; never an already stretched context.
        alpha: turns below which all is stretched.
        beta: turns above which nothing is.
    """

    def index(turns: float) -> float:
        return dimensions * math.log(original_positions / (2 * math.pi * turns)) / (2 * math.log(base))

    return max(math.floor(index(beta)), 0), min(math.ceil(index(alpha)), dimensions - 1)


def _bounds(scaling: RopeScalingConfig) -> tuple[float, float]:
    if scaling.method == "llama3":
        return scaling.low_frequency_factor, scaling.high_frequency_factor
    return scaling.alpha, scaling.beta


def _powers(base: float, dimensions: int) -> NDArray[np.float64]:
    import numpy as np

    powers: NDArray[np.float64] = base ** (-np.arange(0, dimensions, 2, dtype=np.float64) / dimensions)
    return powers


# --------------------------------------------------------------------------------------------------
# As transformers reads it


def scale_rope(
    config: Mapping[str, Any], scaling: RopeScalingConfig, *, base: str = "the base"
) -> dict[str, Any]:
    """Return a model's configuration with stretched positions; plain ``transformers`` 5 loads what it means.

    ``max_position_embeddings`` becomes the longer context, but for ``dynamic_ntk``, for which it must stay
    the original one: growth begins there (:func:`context_positions` tells the reach of either).

    Args:
        config: the model's ``config.json``, or ``to_dict()`` of its configuration; left as it is.
        scaling: the settings.
        base: the model, as people named it.

    Raises:
        ConfigError: as :func:`plan_stretch`, or the architecture cannot do the method.
    """
    stretched = plan_stretch(config, scaling, base=base)
    rotary = _rotary_settings(config)
    only_longrope = config.get("model_type") in _ONLY_LONGROPE
    if only_longrope and scaling.method == "dynamic_ntk":
        raise ConfigError(
            f"model.rope_scaling.method=dynamic_ntk: {config['model_type']} models cannot grow with the "
            "sequence; choose another method"
        )
    rotary |= {"rope_theta": stretched.base, **_rotary_type(stretched, only_longrope=only_longrope)}
    scaled = {name: value for name, value in config.items() if name != "rope_scaling"}
    scaled["rope_parameters"] = rotary
    if "rope_theta" in config:
        scaled["rope_theta"] = rotary["rope_theta"]
    if config.get("head_dim", 0) is None:
        # transformers reads an empty head_dim as it is for the types yarn, longrope and dynamic.
        scaled["head_dim"] = config["hidden_size"] // config["num_attention_heads"]
    if _ORIGINAL in config:
        scaled[_ORIGINAL] = stretched.original_positions
    grows_itself = scaling.method == "dynamic_ntk"
    scaled["max_position_embeddings"] = stretched.original_positions if grows_itself else stretched.positions
    scaled[RECORD] = {
        "method": scaling.method,
        "factor": stretched.factor,
        "original_positions": stretched.original_positions,
        "positions": stretched.positions,
    }
    return scaled


def context_positions(config: Mapping[str, Any]) -> int | None:
    """Return how many positions a model reads, stretched here or not; ``None`` where it does not say.

    Args:
        config: the model's ``config.json``.
    """
    record = config.get(RECORD)
    positions = record["positions"] if record else config.get("max_position_embeddings")
    return None if positions is None else int(positions)


def _rotary_type(stretched: StretchedPositions, *, only_longrope: bool) -> dict[str, Any]:
    """Return the entries of ``rope_parameters`` that say the method."""
    scaling, factor = stretched.scaling, stretched.factor
    method = scaling.method
    original = {_ORIGINAL: stretched.original_positions}
    if method == "ntk":
        theta = ntk_base(stretched.base, factor, stretched.dimensions)
        return {"rope_type": "default", "rope_theta": theta}
    if method == "dynamic_ntk":
        return {"rope_type": "dynamic", "factor": factor}
    if only_longrope or (method == "yarn" and scaling.ramp == "rotations"):
        stretch = (_powers(stretched.base, stretched.dimensions) / inverse_frequencies(stretched)).tolist()
        return {
            "rope_type": "longrope",
            "factor": factor,
            "attention_factor": attention_scale(stretched),
            "short_factor": stretch,
            "long_factor": stretch,
            **original,
        }
    if method == "linear":
        return {"rope_type": "linear", "factor": factor}
    alpha, beta = _bounds(scaling)
    if method == "llama3" or scaling.ramp == "rotations":
        return {
            "rope_type": "llama3",
            "factor": factor,
            "low_freq_factor": alpha,
            "high_freq_factor": beta,
            **original,
        }
    return {
        "rope_type": "yarn",
        "factor": factor,
        "attention_factor": attention_scale(stretched),
        "beta_fast": beta,
        "beta_slow": alpha,
        **original,
    }
