"""Learning rate as a pure function of the step, measured in tokens.

The position of step ``s`` (0-based) is the middle of its token interval, ``(s + ½) · B`` with
``B = global_batch_tokens``: neither the first nor the last step is wasted at rate zero, and another batch
size samples the same curve. ``B`` counts row positions, padding included, so the curve ends exactly with
the last step, and nothing needs to be saved: a resumed run, on any number of ranks, asks with its step.

With peak ``η``, warm-up ``w``, total ``T``, final share ``f`` and position ``x``, all in tokens:

* ``x < w``: ``η · x / w``
* cosine: ``η · (f + (1 − f) · ½ (1 + cos(π (x − w) / (T − w))))`` (Loshchilov and Hutter 2017,
  arXiv:1608.03983, one cycle)
* linear: ``η · (1 − (1 − f) · (x − w) / (T − w))``
* wsd, with decay over the last ``d = decay_fraction · T``: ``η`` until ``T − d``, then
  ``η · (1 − (1 − f) · (x − (T − d)) / d)`` (Hu et al. 2024, arXiv:2404.06395, with linear decay)
* constant: ``η``
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

from baltoro.core.errors import ConfigError
from baltoro.optim.config import ScheduleConfig

DEFAULT_WARMUP_FRACTION = 0.02


@dataclass(frozen=True, slots=True)
class Schedule:
    """The learning rate of every step of one run.

    Attributes:
        peak: learning rate after the warm-up.
        multiplier: share of the peak at a position in tokens, 0 ≤ position ≤ total.
        global_batch_tokens: tokens of a step, padding included.
        steps: steps of the run.
    """

    peak: float
    multiplier: Callable[[float], float]
    global_batch_tokens: int
    steps: int

    def learning_rate(self, step: int) -> float:
        """Return the learning rate of the 0-based ``step``."""
        return self.peak * self.multiplier((step + 0.5) * self.global_batch_tokens)


def build_schedule(
    config: ScheduleConfig, *, learning_rate: float, steps: int, global_batch_tokens: int
) -> Schedule:
    """Return the schedule of a run.

    Args:
        config: shape and lengths.
        learning_rate: the peak.
        steps: optimizer steps of the whole run (not what remains of it).
        global_batch_tokens: tokens of a step, padding included.

    Raises:
        ConfigError: warm-up (and decay) do not fit into the run.
    """
    total = float(steps * global_batch_tokens)
    if config.warmup_tokens is not None:
        warmup, setting = float(config.warmup_tokens), f"warmup_tokens={config.warmup_tokens:,}"
    else:
        fraction = DEFAULT_WARMUP_FRACTION if config.warmup_fraction is None else config.warmup_fraction
        warmup, setting = fraction * total, f"warmup_fraction={fraction}"
    decay = config.decay_fraction * total if config.shape == "wsd" else 0.0
    # A relative tolerance: 0.2 and 0.8 of the run fit together, whatever the last bit says.
    if warmup >= total or warmup + decay > total * (1 + 1e-9):
        also = f" and decay_fraction={config.decay_fraction}" if decay else ""
        raise ConfigError(
            f"schedule.{setting}{also} do not fit into the run of {int(total):,} tokens "
            f"({steps:,} steps of {global_batch_tokens:,}); shorten them, or train longer"
        )
    final = config.final_fraction

    def after_warmup(position: float) -> float:
        if config.shape == "constant":
            return 1.0
        start = total - decay if config.shape == "wsd" else warmup
        progress = min(max((position - start) / (total - start), 0.0), 1.0)
        remaining = 0.5 * (1.0 + math.cos(math.pi * progress)) if config.shape == "cosine" else 1.0 - progress
        return final + (1.0 - final) * remaining

    def multiplier(position: float) -> float:
        return position / warmup if position < warmup else after_warmup(position)

    return Schedule(learning_rate, multiplier, global_batch_tokens, steps)
