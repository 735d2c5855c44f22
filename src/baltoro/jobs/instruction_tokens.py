"""The rows of a finetune stage: examples, tokeniser and format → a token dataset with loss masks."""

from __future__ import annotations

import tempfile
from collections import Counter
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from baltoro.core.artifacts import Artifact, ArtifactWriter
from baltoro.core.config import result_fields
from baltoro.core.errors import InputError
from baltoro.core.storage import Storage
from baltoro.corpus.work import parquet_bytes
from baltoro.data.plan import SPLITS
from baltoro.data.shards import RowBatch, write_shard
from baltoro.jobs.finetune import tokens_stage_name
from baltoro.jobs.instructions import read_set
from baltoro.jobs.recipe import FinetuneDataConfig, FinetuneStageConfig, Recipe
from baltoro.jobs.stages import Context, Stage, StageOutput
from baltoro.jobs.token_passes import PAPERS_SCHEMA, tokenizer_of
from baltoro.jobs.tokens import build_tokens_of, finish_tokens, tokens_inputs_of
from baltoro.papers.schema import Reject, count_reasons, rejects_to_table
from baltoro.tracking.mlflow import StageRun

REJECTS_FILE = "rejects.parquet"


def inputs_of_stage(context: Context, index: int) -> dict[str, Any]:
    """Return what identifies a stage's rows beyond examples and tokenizer."""
    stage = context.recipe.finetune.stages[index]
    if stage.data.of_corpus:
        return tokens_inputs_of(stage.data, stage.epochs)
    names = ("from", "sequence_length", "shuffle_seed")
    fields = result_fields(stage.data)
    kept = {name: fields[name] for name in names} | result_fields(stage.data.format, "format.")
    return {f"finetune.data.{name}": value for name, value in kept.items()} | {
        "finetune.epochs": stage.epochs
    }


def build_rows(
    context: Context, parents: Mapping[str, Artifact], writer: ArtifactWriter, run: StageRun, index: int
) -> StageOutput:
    """Write the rows of every split.

    Raises:
        InputError: not one example can be trained on.
        ConfigError: the tokenizer does not have what the format needs.
    """
    stage = context.recipe.finetune.stages[index]
    if stage.data.of_corpus:
        return build_tokens_of(context, stage.data, stage.epochs, parents, writer, run)
    tokenizer = parents["tokenizer"]
    table = read_set(context.storage, parents["instructions"], parts_of_sources(stage.data))
    return write_rows(context.storage, writer, run, table, tokenizer, stage)


def parts_of_sources(config: FinetuneDataConfig) -> list[str] | None:
    """Return the parts of an instruction set that a stage trains on; ``None`` for all."""
    if "instructions" in config.sources:
        return None
    return [source.removeprefix("instructions.") for source in config.sources]


def write_rows(  # noqa: PLR0917  (each is a thing of its own that the caller has at hand)
    storage: Storage,
    writer: ArtifactWriter,
    run: StageRun,
    table: pa.Table,
    tokenizer: Artifact,
    stage: FinetuneStageConfig,
) -> StageOutput:
    """Encode, pack, shuffle and write examples; ``papers.parquet`` says what ``paper_index`` names."""
    from baltoro.data.tokenizer import padding_id

    loaded = tokenizer_of(storage, tokenizer)
    fingerprint = str(tokenizer.manifest.extra["tokenizer_fingerprint"])
    sequences: dict[str, int] = {}
    tokens: dict[str, int] = {}
    footers: dict[str, str] = {}
    rejects: list[Reject] = []
    by_task: Counter[str] = Counter()
    learned = cut = 0
    lengths = np.zeros(table.num_rows, np.int64)
    for split in SPLITS:
        chosen = np.flatnonzero(table["split"].to_numpy(zero_copy_only=False) == split)
        if not len(chosen):
            continue
        rows, encoded_lengths, refused, found = rows_of_split(
            table.take(pa.array(chosen)), chosen, loaded, padding_id(loaded), stage, split
        )
        rejects += refused
        lengths[chosen] = encoded_lengths
        if rows is None:
            continue
        sequences[split], tokens[split] = len(rows), found["tokens"]
        if split == "train":
            learned, cut = found["learned"], found["cut"]
            names = np.array(table["task"].to_pylist(), dtype=object)[chosen]
            for name, count in zip(names, encoded_lengths.tolist(), strict=True):
                by_task[name] += count
        for name, record in write_shards(rows, split, stage.data, writer, fingerprint).items():
            footers[name] = record
    if "train" not in sequences:
        reasons = ", ".join(f"{count} {reason}" for reason, count in count_reasons(rejects).most_common(3))
        raise InputError(
            f"finetune.stages ({stage.name}): there is no example to train on "
            f"({reasons or 'the set is empty'}); raise "
            "data.sequence_length, set data.format.overlong=cut_input, or add examples"
        )
    write_tables(writer, table, lengths, rejects)
    width = stage.data.sequence_length
    padding_fraction = 1 - tokens["train"] / (sequences["train"] * width)
    run.log_metrics(
        {
            "tokens/train_tokens": tokens["train"],
            "tokens/train_sequences": sequences["train"],
            "tokens/learned_tokens": learned,
            "tokens/padding_fraction": padding_fraction,
        }
    )
    return StageOutput(
        counts={"sequences": sequences["train"], "tokens": tokens["train"], "learned_tokens": learned},
        summary={
            "sequences": sequences["train"],
            "tokens": tokens["train"],
            "learned_tokens": learned,
            "padding_fraction": round(padding_fraction, 6),
            "tokens_by_task": dict(sorted(by_task.items())),
            "inputs_cut": cut,
            "rejected": dict(count_reasons(rejects).most_common()),
        },
        extra={
            "sequence_length": width,
            "splits": sorted(sequences),
            "sources": list(stage.data.sources),
            "parts": [{"tokens": None, "sequences": sequences, "tokens_count": tokens}],
            "first_paper": 0,
            "footers": footers,
        },
    )


def rows_of_split(  # noqa: PLR0917  (each is a thing of its own that the caller has at hand)
    table: pa.Table,
    numbers: np.ndarray[Any, np.dtype[np.int64]],
    tokenizer: Any,
    padding_id: int,
    stage: FinetuneStageConfig,
    split: str,
) -> tuple[RowBatch | None, np.ndarray[Any, np.dtype[np.int64]], list[Reject], dict[str, int]]:
    """Return a split's rows, epoch after epoch, the length of each example in tokens, rejects and figures.

    Args:
        table: the examples.
        numbers: of each among those of the whole set; what ``paper_index`` will name.
        tokenizer: to encode with.
        padding_id: the token after the last segment.
        stage: format, row length, seed and epochs.
        split: only training has several epochs.
    """
    from dataclasses import replace

    from baltoro.instructions.tokens import encode_examples, pack_examples

    config = stage.data
    encoded = encode_examples(table, config.format, tokenizer, sequence_length=config.sequence_length)
    lengths = np.zeros(table.num_rows, np.int64)
    lengths[encoded.example_index] = np.diff(encoded.offsets)
    if not len(encoded.example_index):
        return None, lengths, list(encoded.rejects), {}
    named = replace(encoded, example_index=numbers[encoded.example_index].astype(np.int32))
    epochs = stage.epochs if split == "train" else 1
    parts = [
        pack_examples(named, config.sequence_length, seed=config.shuffle_seed + epoch, padding_id=padding_id)
        for epoch in range(epochs)
    ]
    figures = {
        "tokens": len(encoded.input_ids) * epochs,
        "learned": int(encoded.loss_mask.sum()) * epochs,
        "cut": encoded.inputs_cut,
    }
    return RowBatch.concatenate(parts), lengths, list(encoded.rejects), figures


def write_shards(
    rows: RowBatch, split: str, config: FinetuneDataConfig, writer: ArtifactWriter, tokenizer_fingerprint: str
) -> dict[str, str]:
    """Write rows as shards, name them in the artifact, and return the checksum of each one's footer."""
    footers = {}
    with tempfile.TemporaryDirectory() as temporary:
        path = Path(temporary) / "shard.parquet"
        for number, start in enumerate(range(0, len(rows), config.rows_per_shard)):
            name = f"{split}/shard-{number:06d}.parquet"
            file = write_shard(
                rows.slice(start, min(start + config.rows_per_shard, len(rows))),
                path,
                uri=writer.uri_for(name),
                rows_per_row_group=config.rows_per_row_group,
                tokenizer_fingerprint=tokenizer_fingerprint,
                origin=f"{writer.fingerprint} {name}",
            )
            writer.upload_file(name, path, rows=file.rows)
            footers[name] = file.footer_sha256
    return footers


def write_tables(
    writer: ArtifactWriter,
    table: pa.Table,
    lengths: np.ndarray[Any, np.dtype[np.int64]],
    rejects: list[Reject],
) -> None:
    """Write what ``paper_index`` names, and what could not be trained on."""
    columns = {
        "paper_id": table["example_id"],
        "source": table["source"],
        "split": table["split"],
        "tokens": pa.array(lengths),
        "merged": pa.array([[]] * table.num_rows, pa.list_(pa.string())),
    }
    papers = pa.table(columns).cast(PAPERS_SCHEMA)
    writer.write_file("papers.parquet", parquet_bytes(papers), rows=papers.num_rows)
    refused = rejects_to_table(rejects)
    writer.write_file(REJECTS_FILE, parquet_bytes(refused), rows=refused.num_rows)


def rows_stage(recipe: Recipe, index: int) -> Stage:
    """Return the stage that makes a finetune stage's rows, for the plan."""
    config = recipe.finetune.stages[index]
    return Stage(
        name=tokens_stage_name(config),
        kind="tokens",
        version=1,
        parents=("corpus" if config.data.of_corpus else "instructions", "tokenizer"),
        inputs=partial(inputs_of_stage, index=index),
        build=partial(build_rows, index=index),
        needs_ray=config.data.of_corpus,
        artifact_name=lambda context: f"{context.recipe.name}-{config.name}",
        finish=finish_tokens,
    )
