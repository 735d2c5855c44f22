"""Which lengths a model is checked at."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from baltoro.core.errors import ConfigError
from baltoro.models.rope_scaling import context_positions

_FRACTIONS = (4, 2, 1)


def choose_lengths(lengths: Sequence[int], config: Mapping[str, Any], *, setting: str) -> tuple[int, ...]:
    """Return the lengths to check at, rising.

    Args:
        lengths: as set, in tokens; empty: a quarter, a half and the whole of what the model reads.
        config: the model's ``config.json``.
        setting: what people call the setting, for messages.

    Raises:
        ConfigError: a length is beyond the model's positions, or nothing is set and the model does not say
            how much it reads.
    """
    positions = context_positions(config)
    if not lengths:
        if positions is None:
            raise ConfigError(
                f"{setting} is empty, and the model's config.json has no max_position_embeddings to take "
                f"lengths from; set {setting}, for example [2048, 4096]"
            )
        return tuple(sorted({max(positions // part, 2) for part in _FRACTIONS}))
    longest = max(lengths)
    if positions is not None and longest > positions:
        raise ConfigError(
            f"{setting}: {longest} tokens are more than the {positions} positions that the model reads; "
            f"lower it to at most {positions}, or choose a model whose positions were stretched "
            "(model.rope_scaling)"
        )
    return tuple(sorted(set(lengths)))
