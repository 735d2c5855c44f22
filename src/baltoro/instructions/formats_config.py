"""Settings of how examples are written for a model, and of instruction sets that are read from files."""

from __future__ import annotations

from typing import Literal

from baltoro.core.config import StrictModel, execution, result

FormatName = Literal["alpaca", "alpaca_legacy", "vicuna", "llama2", "chat", "react"]
"""How a dialogue is written; :mod:`baltoro.instructions.formats` shows each."""

FileFormat = Literal["auto", "alpaca", "messages", "sharegpt", "react", "baltoro"]
"""How records of an instruction file are laid out; ``auto`` looks at each record's keys."""


class FormatConfig(StrictModel):
    """How an example becomes the text and the tokens that a model sees, and what of it is learned."""

    format: FormatName = result(
        "alpaca",
        "alpaca: with a line break after the last head (K2); alpaca_legacy: without (Stanford, LongLoRA); "
        "vicuna: USER and ASSISTANT (LongQLoRA); llama2: [INST]; chat: the tokenizer's own chat template; "
        "react: Question, Thought, Action … Final Answer",
    )
    learn: Literal["responses", "everything"] = result(
        "responses",
        "responses: loss on what the model says, never on observations; everything: on the prompt too (K2)",
    )
    eos: bool = result(
        True,
        "the end token stands, and is learned, after each turn of the model; chat templates have their own",
    )
    bos: bool = result(
        True,
        "what the tokenizer itself puts before a text (LLaMA: a begin token) is put there; LongQLoRA's "
        "vicuna has none; chat templates have their own",
    )
    system: str | None = result(
        None, "system text of examples that have none; empty is the format's own", min_length=1
    )
    overlong: Literal["reject", "cut_input"] = result(
        "reject",
        "what becomes of an example longer than a row: reject it, or cut the end of its input; a response is "
        "never cut",
    )


class FilesSource(StrictModel):
    """An instruction set that is read from files."""

    name: str = result(
        ..., "short name of the source; first part of every origin", pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]*$"
    )
    uri: str = execution(
        ..., "JSONL, JSON or Parquet file, or a folder: a path, file:// or s3://", min_length=1
    )
    format: FileFormat = result("auto", "how records are laid out; auto looks at each record's keys")
