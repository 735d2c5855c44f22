"""Settings that stretch rotary positions to a longer context."""

from __future__ import annotations

from typing import Literal, Self

from pydantic import model_validator

from baltoro.core.config import StrictModel, result

RopeScalingMethod = Literal["linear", "ntk", "dynamic_ntk", "ntk_by_parts", "yarn", "llama3"]

RampName = Literal["dimension", "rotations"]

_OWN_SETTINGS: dict[str, tuple[str, ...]] = {
    "alpha": ("ntk_by_parts", "yarn"),
    "beta": ("ntk_by_parts", "yarn"),
    "ramp": ("ntk_by_parts", "yarn"),
    "attention_factor": ("yarn",),
    "low_frequency_factor": ("llama3",),
    "high_frequency_factor": ("llama3",),
}
"""Settings that not every method has, and the methods that do."""


class RopeScalingConfig(StrictModel):
    """How rotary positions are stretched (formulas: :mod:`baltoro.models.rope_scaling`).

    The ramp of ``ntk_by_parts`` and ``yarn`` is linear in the index of the dimension, as in YaRN's released
    models and code, or in the rotations that a dimension makes over the original context, as in its paper
    (arXiv:2309.00071, equation 18). The default is the released one: its checkpoints were trained with it,
    and it is what ``transformers`` and the servers that follow it compute for rope type ``yarn``.
    """

    method: RopeScalingMethod = result(
        ...,
        "linear (position interpolation), ntk, dynamic_ntk (grows with the sequence, for inference), "
        "ntk_by_parts, yarn, or llama3",
    )
    factor: float | None = result(
        None, "longer context over original context; or give target_positions", gt=1
    )
    target_positions: int | None = result(
        None, "tokens of the longer context; linear rounds the factor up to a whole number", ge=1
    )
    original_positions: int | None = result(
        None, "tokens of the context that the base was trained with; null reads the base's config.json", ge=1
    )
    ramp: RampName = result("dimension", "ntk_by_parts and yarn: what the blend is linear in")
    alpha: float = result(
        1.0, "ntk_by_parts and yarn: dimensions of fewer rotations are stretched whole", gt=0
    )
    beta: float = result(32.0, "ntk_by_parts and yarn: dimensions of more rotations are left alone", gt=0)
    attention_factor: float | None = result(
        None, "yarn: what cosines and sines are multiplied with; null is 0.1 · ln(factor) + 1", gt=0
    )
    low_frequency_factor: float = result(
        1.0, "llama3: dimensions of fewer rotations are stretched whole", gt=0
    )
    high_frequency_factor: float = result(4.0, "llama3: dimensions of more rotations are left alone", gt=0)

    @model_validator(mode="after")
    def _one_length(self) -> Self:
        if (self.factor is None) == (self.target_positions is None):
            given = "neither is" if self.factor is None else "both are"
            raise ValueError(
                f"factor and target_positions both say how far to stretch, and {given} given; give one"
            )
        return self

    @model_validator(mode="after")
    def _settings_of_the_method(self) -> Self:
        for name, methods in _OWN_SETTINGS.items():
            default = type(self).model_fields[name].default
            if self.method not in methods and getattr(self, name) != default:
                raise ValueError(
                    f"{name}={getattr(self, name)} belongs to {' and '.join(methods)}, not to {self.method}; "
                    "leave it out"
                )
        for low, high in (("alpha", "beta"), ("low_frequency_factor", "high_frequency_factor")):
            if getattr(self, low) >= getattr(self, high):
                raise ValueError(
                    f"{low}={getattr(self, low)} must be below {high}={getattr(self, high)}; lower {low} or "
                    f"raise {high}"
                )
        return self
