"""Models in which not every layer sees the whole context."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from typing import Any

from baltoro.core.errors import ConfigError

_OWN_WINDOW = {
    "sliding_attention": "sliding_window",
    "hybrid_sliding": "sliding_window",
    "chunked_attention": "attention_chunk_size",
    "local": "window_size",
}
"""Kinds of layers with a window, and the setting of a configuration that holds its tokens."""

_FULL_LAYERS = frozenset({"full_attention", "global"})


def narrowest_window(config: Mapping[str, Any]) -> int | None:
    """Return the tokens of the narrowest window that a layer of a model has; ``None`` where all see all.

    Args:
        config: the model's ``config.json``.
    """
    windows = (config.get(_OWN_WINDOW.get(kind, "")) for kind in set(_layer_kinds(config)))
    return min((int(window) for window in windows if window is not None), default=None)


def refuse_windowed_layers(config: Mapping[str, Any], *, context_tokens: int, base: str) -> None:
    """Refuse a model in which not every layer sees the whole context.

    Groups and a window would be two restrictions on top of each other, of which only one was trained.

    Args:
        config: the model's ``config.json``.
        context_tokens: tokens of a training row; a window of as many hides nothing.
        base: the model, as people named it.

    Raises:
        ConfigError: names the layers, and what to change.
    """
    kinds = Counter(_layer_kinds(config))
    for kind, layers in kinds.items():
        if kind in _FULL_LAYERS:
            continue
        what = f"{layers} of the {kinds.total()} layers of {base}"
        if kind not in _OWN_WINDOW:
            raise ConfigError(
                f"{what} are of kind {kind!r}, for which shifted sparse attention is not defined; train with "
                "full attention, or choose a model.base whose layers all have full attention"
            )
        name = _OWN_WINDOW[kind]
        window = config.get(name)
        if window is not None and window < context_tokens:
            listed = next((key for key in ("layer_types", "attention_layers") if config.get(key)), None)
            full = "global" if kind == "local" else "full_attention"
            remedy = f"{listed}: {full} for every layer" if listed else f"{name}: null"
            raise ConfigError(
                f"{what} see a window of {window} tokens ({name}), fewer than the {context_tokens} of a row, "
                "and shifted sparse attention must not be mixed with a window; in the config.json of the "
                f"base, widen the window to the context ({name}: {context_tokens}), or give the layers full "
                f"attention ({remedy})"
            )


def _layer_kinds(config: Mapping[str, Any]) -> list[str]:
    """Return the kind of each layer."""
    listed = config.get("layer_types") or config.get("attention_layers")
    if listed:
        return list(listed)
    layers = int(config.get("num_hidden_layers") or config.get("num_layers") or 1)
    if config.get("sliding_window") is not None and config.get("use_sliding_window", True):
        # The window begins at this layer, where a configuration has such a setting.
        full = min(config.get("max_window_layers") or 0, layers)
        return ["full_attention"] * full + ["sliding_attention"] * (layers - full)
    chunked = config.get("attention_chunk_size") is not None
    return ["chunked_attention" if chunked else "full_attention"] * layers
