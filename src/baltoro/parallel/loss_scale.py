"""Dynamic loss scaling: keeps float16 gradients within the range of float16.

The loss of every micro-batch is multiplied by a power of two before the backward pass, so that small
gradients do not become zero, and the gradients are divided by it again before they are clipped. A gradient
that overflows costs one step and halves the scale; many good steps in a row double it (Micikevicius et al.
2018, arXiv:1710.03740, section 3.2).
"""

from __future__ import annotations

from typing import Any

from baltoro.parallel.strategy import Update

INITIAL_SCALE = 2.0**16
"""Where a run starts; too high costs a few left-out steps, too low loses small gradients for long."""

GROWTH_STEPS = 2000
"""Steps without an overflow after which a higher scale is tried."""

_LARGEST_SCALE = 2.0**24


class DynamicLossScale:
    """The scale and the number of good steps since it last changed; the same on every rank.

    Every rank calls :meth:`good_step` or :meth:`overflow` once a step, on a gradient norm that all share.
    """

    def __init__(self) -> None:
        self.scale = INITIAL_SCALE
        self.good_steps = 0

    def good_step(self) -> None:
        """Count a step whose gradient was finite; the last of :data:`GROWTH_STEPS` doubles the scale."""
        self.good_steps += 1
        if self.good_steps >= GROWTH_STEPS:
            # Beyond the largest scale nothing is gained: even a gradient of 2⁻²⁴ · 2⁻²⁴ is then kept.
            self.scale = min(self.scale * 2.0, _LARGEST_SCALE)
            self.good_steps = 0

    def overflow(self) -> None:
        """Halve the scale: the gradient was not finite."""
        self.scale /= 2.0
        self.good_steps = 0

    def state_dict(self) -> dict[str, Any]:
        """Return ``{"scale", "good_steps"}`` as tensors of one number, which a checkpoint fills in place."""
        import torch

        return {
            "scale": torch.tensor(self.scale, dtype=torch.float32),
            "good_steps": torch.tensor(self.good_steps, dtype=torch.int64),
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Take over what :meth:`state_dict` gave."""
        self.scale = float(state["scale"])
        self.good_steps = int(state["good_steps"])


def settle(loss_scale: DynamicLossScale | None, gradient_norm: float, *, stepped: bool) -> Update:
    """Return what became of a step, and have the loss scale learn of it.

    Args:
        loss_scale: that the loss was multiplied by; ``None`` where there is none.
        gradient_norm: global, before clipping, without the scale.
        stepped: weights were updated; with a scale it is to blame if they were not.
    """
    if loss_scale is None:
        return Update(gradient_norm, stepped)
    if stepped:
        loss_scale.good_step()
    else:
        loss_scale.overflow()
    return Update(gradient_norm, stepped, overflowed=not stepped)
