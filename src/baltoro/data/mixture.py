"""How much of each source a token dataset holds: passes, token budgets or weights, exact and reproducible.

A mixture is laid out anew in every epoch (``pretrain.epochs``), so its proportions hold all the way through
training. A source may be passed over several times, or in part: whole passes take every document, what is
left takes documents in a seeded order until the tokens asked for are reached, to within half a document.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Mapping, Sequence
from typing import Self

import numpy as np
import numpy.typing as npt
from pydantic import model_validator

from baltoro.core.config import StrictModel, result, section
from baltoro.core.errors import ConfigError

Numbers = npt.NDArray[np.int64]


class ShareConfig(StrictModel):
    """How much of one source; at most one of the three."""

    epochs: float | None = result(None, "passes over the source per epoch; 0.5 is half of it", ge=0)
    tokens: int | None = result(None, "tokens of the source per epoch, repeated where it has fewer", ge=0)
    weight: float | None = result(None, "share of the mixture's tokens, relative to other weights", ge=0)

    @model_validator(mode="after")
    def _one_measure(self) -> Self:
        given = [name for name in ("epochs", "tokens", "weight") if getattr(self, name) is not None]
        if len(given) > 1:
            raise ValueError(f"{' and '.join(given)} are both given; keep one, each says how much on its own")
        return self


class MixtureConfig(StrictModel):
    """What share each source has; a source that is not named is taken once per epoch."""

    sources: dict[str, ShareConfig] = section(dict, "share by source name")
    tokens: int | None = result(
        None,
        "tokens of the whole mixture per epoch where weights are given; without, as many as the weights "
        "allow without repeating a document",
        ge=1,
    )
    curriculum: tuple[tuple[str, ...], ...] = result(
        (), "groups of source names whose rows come one after the other within an epoch; empty mixes all"
    )

    @property
    def weighted(self) -> bool:
        """Whether shares are given as weights."""
        return any(share.weight is not None for share in self.sources.values())

    @model_validator(mode="after")
    def _weights_make_sense(self) -> Self:
        if self.weighted:
            others = sorted(name for name, share in self.sources.items() if share.weight is None)
            if others:
                raise ValueError(
                    f"mixture.sources.{others[0]}: has no weight while another source has one; give all "
                    "sources weights, or all passes or tokens"
                )
            if not any(share.weight for share in self.sources.values()):
                raise ValueError("mixture.sources: all weights are 0, so nothing would be left; raise one")
        elif self.tokens is not None:
            raise ValueError(
                f"mixture.tokens: {self.tokens} is for weights, and no source has one; give weights, or "
                "tokens to each source"
            )
        named = [name for group in self.curriculum for name in group]
        twice = sorted({name for name in named if named.count(name) > 1})
        if twice:
            raise ValueError(f"mixture.curriculum: {twice[0]!r} stands twice; name each source once")
        return self


def refuse_unknown_sources(config: MixtureConfig, known: Iterable[str]) -> None:
    """Refuse a mixture that does not fit the sources of a corpus.

    Raises:
        ConfigError: it names a source that is not there, or leaves one out of weights or curriculum.
    """
    names = sorted(set(known))
    for place, given in (
        ("sources", list(config.sources)),
        ("curriculum", [name for group in config.curriculum for name in group]),
    ):
        for name in given:
            if name not in names:
                nearest = difflib.get_close_matches(name, names, n=1)
                hint = f", did you mean {nearest[0]}?" if nearest else ";"
                raise ConfigError(
                    f"pretrain.data.mixture.{place}: there is no source {name!r}{hint} the corpus has "
                    f"{', '.join(names)}"
                )
        left_out = [name for name in names if name not in given]
        all_needed = config.weighted if place == "sources" else bool(config.curriculum)
        if left_out and all_needed:
            raise ConfigError(
                f"pretrain.data.mixture.{place}: {left_out[0]} is not named; name every source of the corpus "
                "(weight 0 leaves one out)"
            )


def refuse_shares_of_whole(config: MixtureConfig) -> None:
    """Refuse what cannot hold for documents that are added to a dataset whose rows stand already.

    Raises:
        ConfigError: a source has a weight or a budget in tokens.
    """
    for name, share in sorted(config.sources.items()):
        measure = "weight" if share.weight is not None else "tokens" if share.tokens is not None else None
        if measure is not None:
            raise ConfigError(
                f"pretrain.data.mixture.sources.{name}.{measure}={getattr(share, measure)} is about the "
                "whole dataset, and a corpus that extends another only adds rows to those that stand: give "
                "epochs, which hold for the added documents, or build the corpus anew without corpus.extends"
            )


def passes_of(config: MixtureConfig, available_tokens: Mapping[str, int]) -> dict[str, float]:
    """Return how often each source is passed over in one epoch.

    Args:
        config: the recipe's mixture.
        available_tokens: training tokens by source, each document once.

    Raises:
        ConfigError: a source of which tokens are wanted has none, or the names do not fit.
    """
    refuse_unknown_sources(config, available_tokens)
    shares = {name: config.sources.get(name, ShareConfig()) for name in sorted(available_tokens)}
    for name, share in shares.items():
        if not available_tokens[name] and (share.tokens or share.weight):
            raise ConfigError(
                f"pretrain.data.mixture.sources.{name}: no training document of this source is in the "
                "corpus; set its share to 0 or look at its rejects on the data card"
            )
    if config.weighted:
        total_weight = sum(share.weight or 0.0 for share in shares.values())
        parts = {name: (share.weight or 0.0) / total_weight for name, share in shares.items()}
        largest = min(available_tokens[name] / part for name, part in parts.items() if part)
        total = config.tokens if config.tokens is not None else largest
        return {name: part and total * part / available_tokens[name] for name, part in parts.items()}
    passes = {}
    for name, share in shares.items():
        if share.tokens is not None:
            passes[name] = share.tokens / available_tokens[name] if share.tokens else 0.0
        else:
            passes[name] = share.epochs if share.epochs is not None else 1.0
    return passes


def copies_of(lengths: Numbers, passes: float, order: Numbers) -> Numbers:
    """Return how often each document of one source is taken.

    Args:
        lengths: tokens per document.
        passes: how often the source is passed over.
        order: a permutation of the documents; the last, partial pass takes them in it.

    Returns:
        int64 per document; the tokens taken differ from ``passes`` times all by half a document at most.
    """
    whole = int(passes)
    copies = np.full(len(lengths), whole, np.int64)
    wanted = (passes - whole) * int(lengths.sum())
    reached = np.cumsum(lengths[order])
    count = int(np.searchsorted(reached, wanted))
    if count < len(order):
        # The document that crosses the mark is taken if that comes nearer.
        below = int(reached[count - 1]) if count else 0
        count += wanted - below > int(reached[count]) - wanted
    copies[order[:count]] += 1
    return copies


def curriculum_of(config: MixtureConfig, sources: Sequence[str]) -> list[list[str]]:
    """Return the sources in groups whose rows follow each other."""
    if not config.curriculum:
        return [sorted(set(sources))]
    return [list(group) for group in config.curriculum]
