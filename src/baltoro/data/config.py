"""The recipe sections of tokenizer and token dataset."""

from __future__ import annotations

from typing import Literal, Self

from pydantic import model_validator

from baltoro.core.config import StrictModel, execution, result, section
from baltoro.data.mixture import MixtureConfig

DocumentBoundary = Literal["append_eos", "galactica_start", "none"]


class TokenizerConfig(StrictModel):
    """Where the tokenizer comes from, and what is added to it."""

    origin: Literal["train", "base"] = result(
        "train",
        "train: a byte-level BPE of this corpus; base: the tokenizer of the base model",
        alias="from",
    )
    vocab_size: int = result(
        16_000, "entries of a trained vocabulary, special tokens included", ge=320, le=1_000_000
    )
    sample_fraction: float = result(
        0.02, "share of the training documents that a trained tokenizer sees", gt=0.0, le=1.0
    )
    sample_min_characters: int = result(
        10_000_000,
        "the sample grows beyond sample_fraction until it holds this much text, in characters",
        ge=0,
    )
    split_digits: bool = result(True, "every digit is a token of its own in a trained tokenizer")
    add_tokens: Literal["renderer", "none"] = result(
        "renderer", "renderer: the markers of the rendering style become single tokens; none: the K2 way"
    )
    pad_vocab_to_multiple: int = result(
        64, "the model's embedding has a multiple of this many rows", ge=1, le=4096
    )
    seed: int = result(0, "chooses the sample of documents", ge=0)


class DataConfig(StrictModel):
    """How documents become packed rows."""

    sequence_length: int = result(2048, "tokens of a row", ge=8, le=4_194_304)
    document_boundary: DocumentBoundary = result(
        "append_eos",
        "append_eos: what the tokenizer itself adds, then the end token; galactica_start: the end token "
        "stands before each document; none: only what the tokenizer itself adds (K2)",
    )
    pack: Literal["best_fit"] = result(
        "best_fit", "best_fit: whole documents where they fit, long ones split"
    )
    max_padding_fraction: float = result(
        0.01, "share of padding above which documents are split to fill gaps", ge=0.0, lt=1.0
    )
    shuffle_seed: int = result(0, "orders the rows of a part", ge=0)
    mixture: MixtureConfig = section(MixtureConfig, "how much of each source an epoch holds")
    rows_per_row_group: int = execution(256, "rows of a Parquet row group, the unit of reading", ge=1)
    rows_per_shard: int = execution(8192, "rows of a shard file, a multiple of rows_per_row_group", ge=1)

    @model_validator(mode="after")
    def _whole_row_groups(self) -> Self:
        if self.rows_per_shard % self.rows_per_row_group:
            lower = self.rows_per_shard // self.rows_per_row_group * self.rows_per_row_group
            allowed = [value for value in (lower, lower + self.rows_per_row_group) if value]
            raise ValueError(
                f"rows_per_shard={self.rows_per_shard} is not a multiple of "
                f"rows_per_row_group={self.rows_per_row_group}; "
                f"use {' or '.join(map(str, allowed))}"
            )
        return self
