"""Settings of the long-context checks."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from baltoro.core.config import StrictModel, result, section
from baltoro.evaluation.perplexity import Protocol

_Length = Annotated[int, Field(ge=2)]
_Fraction = Annotated[float, Field(ge=0, le=1)]

_OWN_LENGTHS = "empty: a quarter, a half and the whole of what the model reads"


class PerplexityConfig(StrictModel):
    """Perplexity of held-out texts at several lengths."""

    protocols: tuple[Protocol, ...] = result(
        ("yarn_truncated",),
        "longlora: windows of a stream, every 256 tokens; longqlora: windows that do not overlap; yarn: "
        "windows within a text that score only new tokens; yarn_truncated: the beginning of each text; their "
        "numbers cannot be compared with each other",
        min_length=1,
    )
    lengths: tuple[_Length, ...] = result((), f"tokens of a window; {_OWN_LENGTHS}")
    max_documents: int | None = result(
        50, "at most so many documents, the first that are long enough; null takes all", ge=1
    )
    same_documents: bool = result(
        True, "at every length only documents that reach the longest one; otherwise all that reach each"
    )


class PositionsConfig(StrictModel):
    """Loss of held-out texts by position."""

    length: _Length | None = result(None, "tokens of each document to read; null: what the model reads")
    buckets_per_doubling: int = result(1, "buckets between a position and twice that", ge=1, le=16)
    max_documents: int | None = result(
        50, "at most so many documents, the first that are long enough; null takes all", ge=1
    )


class PasskeyConfig(StrictModel):
    """Finding a number that was said once in a long text."""

    lengths: tuple[_Length, ...] = result((), f"tokens of prompt and answer; {_OWN_LENGTHS}")
    depths: tuple[_Fraction, ...] = result(
        (0.0, 0.25, 0.5, 0.75, 1.0), "parts of the filler that stand before the key", min_length=1
    )
    trials: int = result(10, "keys for each length and depth", ge=1)
    seed: int = result(0, "another seed draws other keys", ge=0)


class LongContextConfig(StrictModel):
    """Whether a model makes use of the context that it reads."""

    tasks: tuple[Literal["perplexity", "positions", "passkey"], ...] = result(
        ("perplexity", "positions", "passkey"), "the checks to run", min_length=1
    )
    perplexity: PerplexityConfig = section(PerplexityConfig, "perplexity at lengths")
    positions: PositionsConfig = section(PositionsConfig, "loss by position")
    passkey: PasskeyConfig = section(PasskeyConfig, "passkey retrieval")
