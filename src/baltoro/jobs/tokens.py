"""The tokens stage: corpus × tokenizer × sequence length → packed, shuffled shards.

Four steps on Ray, of which only lengths pass through the driver: tokenise each corpus part; plan the rows
of each group of documents from their lengths; hand every row to the shard that its place in the seeded order
belongs to; write the shards. What lies between stays in Ray's object store, which spills to disk.
"""

from __future__ import annotations

import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from baltoro.core.artifacts import Artifact, ArtifactWriter
from baltoro.core.config import result_fields
from baltoro.core.errors import InputError
from baltoro.core.storage import Storage
from baltoro.data.config import DataConfig
from baltoro.data.mixture import copies_of, curriculum_of, passes_of, refuse_unknown_sources
from baltoro.data.pack import PackingPlan, assemble_rows, plan_packing, shuffled_rank
from baltoro.data.shards import RowBatch, ShardFile, shard_ranges, write_shard
from baltoro.jobs.stages import Context, Stage, StageOutput
from baltoro.jobs.tokenizer import corpus_parts, load_tokenizer
from baltoro.tracking.mlflow import StageRun

GROUP_TOKENS = 1 << 27
"""Tokens that are packed together: enough that no padding is lost at the seams, 0.5 GB in one task.

Groups are cut by documents, not by corpus parts: how many files a task reads must not change a row.
"""

SPLITS_WITH_ROWS = ("train", "validation")
"""The test split is never tokenised here: nothing that trains or selects may see it."""

PAPERS_SCHEMA = pa.schema(
    [
        ("paper_id", pa.string()),
        ("source", pa.string()),
        ("split", pa.string()),
        ("tokens", pa.int64()),
        ("merged", pa.list_(pa.string())),
    ]
)
"""``papers.parquet``: row ``i`` is what ``paper_index`` = i names; ``merged`` are its duplicates."""


@dataclass(frozen=True, slots=True)
class TokenisedPart:
    """The documents of one corpus part, tokenised: ``tokens[offsets[i]:offsets[i + 1]]`` is document i."""

    tokens: npt.NDArray[np.int32]
    offsets: npt.NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class PlacedRows:
    """Rows of one shard that one group contributes; ``place`` is each row's index in the shard."""

    rows: RowBatch
    place: npt.NDArray[np.int64]


def tokenise_part(
    uri: str, storage: Storage, tokenizer: Any, config: DataConfig
) -> tuple[pa.Table, TokenisedPart]:
    """Tokenise the documents of one corpus part that may be trained on or validated with.

    Returns:
        One row per document (paper_id, source, split, tokens), and the tokens themselves.
    """
    from baltoro.data.tokenise import tokenise_documents

    with storage.open(uri) as file:
        documents = pq.read_table(file, columns=["paper_id", "source", "split", "text"])
    documents = documents.filter(pc.is_in(documents["split"], pa.array(SPLITS_WITH_ROWS)))
    if not documents.num_rows:
        empty = documents.select(["paper_id", "source", "split"]).append_column(
            "tokens", pa.array([], pa.int64())
        )
        return empty, TokenisedPart(np.empty(0, np.int32), np.zeros(1, np.int64))
    column = tokenise_documents(documents, tokenizer, config).column("input_ids").combine_chunks()
    offsets = column.offsets.to_numpy().astype(np.int64)
    tokens = column.values.to_numpy().astype(np.int32, copy=False)
    lengths = pa.array(np.diff(offsets))
    table = documents.select(["paper_id", "source", "split"]).append_column("tokens", lengths)
    return table, TokenisedPart(tokens[offsets[0] : offsets[-1]], offsets - offsets[0])


def pack_group(  # noqa: PLR0917  (the parts must be arguments of their own for Ray to fetch them)
    plan: PackingPlan,
    documents: Sequence[npt.NDArray[np.int64]],
    paper_index: npt.NDArray[np.int32],
    places: npt.NDArray[np.int64],
    rows_per_shard: int,
    shards: int,
    padding_id: int,
    *parts: TokenisedPart,
) -> list[PlacedRows]:
    """Fill a group's planned rows with tokens and sort them by destination shard.

    Args:
        plan: rows of pieces; its document ``d`` is the ``d``-th of all chosen documents of the group.
        documents: per part, the indices of its documents that are packed here.
        paper_index: per document of the plan, its row in ``papers.parquet``.
        places: per planned row, its index in the whole dataset.
        rows_per_shard: rows of a full shard.
        shards: number of shards; one list entry is returned for each.
        padding_id: the token after the last segment of a row.
        *parts: the tokenised corpus parts of the group.
    """
    pieces = [
        part.tokens[part.offsets[index] : part.offsets[index + 1]]
        for part, chosen in zip(parts, documents, strict=True)
        for index in chosen.tolist()
    ]
    tokens = np.concatenate(pieces) if pieces else np.empty(0, np.int32)
    offsets = np.concatenate([[0], np.cumsum([len(piece) for piece in pieces])]).astype(np.int64)
    batch = assemble_rows(
        plan,
        range(plan.rows),
        tokens=tokens,
        offsets=offsets,
        paper_index=paper_index,
        padding_id=padding_id,
    )
    placed = []
    for shard in range(shards):
        mine = np.flatnonzero(places // rows_per_shard == shard)
        placed.append(PlacedRows(take_rows(batch, mine), places[mine] - shard * rows_per_shard))
    return placed


def take_rows(batch: RowBatch, rows: npt.NDArray[np.int64]) -> RowBatch:
    """Return the rows at the given indices, in that order."""
    return RowBatch(
        batch.input_ids[rows],
        [batch.segment_ends[row] for row in rows.tolist()],
        [batch.paper_index[row] for row in rows.tolist()],
        None if batch.loss_mask is None else batch.loss_mask[rows],
    )


def join_shard(*placed: PlacedRows) -> RowBatch:
    """Return a shard's rows in their order, from what each group contributes."""
    present = [entry for entry in placed if len(entry.place)]
    order = np.argsort(np.concatenate([entry.place for entry in present]))
    return take_rows(RowBatch.concatenate([entry.rows for entry in present]), order)


def save_shard(
    uri: str, storage: Storage, config: DataConfig, tokenizer_fingerprint: str, *placed: PlacedRows
) -> ShardFile:
    """Write one shard from the groups' contributions."""
    with tempfile.TemporaryDirectory() as temporary:
        path = Path(temporary) / "shard.parquet"
        written = write_shard(
            join_shard(*placed),
            path,
            uri=uri,
            rows_per_row_group=config.rows_per_row_group,
            tokenizer_fingerprint=tokenizer_fingerprint,
        )
        storage.upload_file(path, uri)
    return written


@dataclass(frozen=True, slots=True)
class Group:
    """Consecutive documents packed together in one epoch: the parts they lie in, and the plan of rows.

    Attributes:
        parts: the parts that hold at least one of the documents.
        documents: per entry of ``parts``, the indices of its documents that are packed here.
        paper_index: per document, its row in ``papers.parquet``.
        plan: its document ``d`` is the ``d``-th of all documents of the group.
    """

    parts: list[int]
    documents: list[npt.NDArray[np.int64]]
    paper_index: npt.NDArray[np.int32]
    plan: PackingPlan


def plan_groups(
    documents: Sequence[pa.Table], split: str, config: DataConfig, epoch: int
) -> list[list[Group]]:
    """Plan one epoch of one split: which documents are packed together, and how.

    A document belongs to the group in whose stretch of ``GROUP_TOKENS`` its first token falls, counted over
    its block in the order of the corpus, so that any cut of the corpus into parts gives the same rows.

    Args:
        documents: per corpus part, its documents with source, split and tokens, in ``papers.parquet`` order.
        split: ``train`` or ``validation``; the mixture is that of training.
        config: sequence length, bound on padding, seed, mixture.
        epoch: from 0; documents of equal length meet others in every epoch.

    Returns:
        The groups of each block of the curriculum; rows are shuffled within a block.
    """
    papers = pa.concat_tables(documents)
    lengths = papers.column("tokens").to_numpy()
    in_split = pc.equal(papers.column("split"), split).to_numpy()
    first_paper = np.cumsum([0, *(table.num_rows for table in documents)])
    seed = config.shuffle_seed + epoch
    blocks = []
    for copies in mixed_copies(papers, in_split, lengths, config, split, seed):
        paper_index = np.repeat(np.arange(len(copies)), copies)
        blocks.append(_block_groups(paper_index, lengths[paper_index], first_paper, config, seed))
    return blocks


def mixed_copies(  # noqa: PLR0917  (columns of one table, and what is chosen from it)
    papers: pa.Table,
    in_split: npt.NDArray[np.bool_],
    lengths: npt.NDArray[np.int64],
    config: DataConfig,
    split: str,
    seed: int,
) -> list[npt.NDArray[np.int64]]:
    """Return, for each block of the curriculum, how often every paper is taken in one epoch."""
    if split != "train" or not in_split.any():
        return [in_split.astype(np.int64)]
    source_of = np.asarray(papers.column("source").to_pylist(), dtype=object)
    names = sorted(set(source_of.tolist()))
    mine = {name: np.flatnonzero(in_split & (source_of == name)) for name in names}
    available = {name: int(lengths[index].sum()) for name, index in mine.items()}
    passes = passes_of(config.mixture, available)
    blocks = []
    for group in curriculum_of(config.mixture, names):
        copies = np.zeros(len(lengths), np.int64)
        for name in group:
            order = np.argsort(shuffled_rank(len(mine[name]), seed))
            copies[mine[name]] = copies_of(lengths[mine[name]], passes[name], order)
        blocks.append(copies)
    return blocks


def _block_groups(
    paper_index: npt.NDArray[np.int64],
    lengths: npt.NDArray[np.int64],
    first_paper: npt.NDArray[np.int64],
    config: DataConfig,
    seed: int,
) -> list[Group]:
    part_of = np.searchsorted(first_paper, paper_index, side="right") - 1
    group_of = (np.cumsum(lengths) - lengths) // GROUP_TOKENS
    groups: list[Group] = []
    for group in np.unique(group_of).tolist():
        mine = np.flatnonzero(group_of == group)
        # Packing goes by length alone; documents of one length take turns, so that their company changes.
        turns = np.argsort(shuffled_rank(len(mine), seed))
        plan = plan_packing(lengths[mine[turns]], config.sequence_length, config.max_padding_fraction, seed)
        plan = replace(plan, document=turns[plan.document])
        parts = np.unique(part_of[mine]).tolist()
        chosen = [paper_index[mine[part_of[mine] == part]] - first_paper[part] for part in parts]
        groups.append(Group(parts, chosen, paper_index[mine].astype(np.int32), plan))
    return groups


def place_rows(groups_by_block: Sequence[Sequence[Group]], seed: int) -> list[list[npt.NDArray[np.int64]]]:
    """Return each planned row's index in the dataset: blocks in order, rows of a block shuffled by seed.

    Args:
        groups_by_block: the groups of each block, epoch by epoch.
        seed: the rows of block ``i`` are shuffled by ``seed + i``.
    """
    places: list[list[npt.NDArray[np.int64]]] = []
    first_row = 0
    for block, groups in enumerate(groups_by_block):
        rows = sum(group.plan.rows for group in groups)
        order = shuffled_rank(rows, seed + block) + first_row
        bounds = np.cumsum([group.plan.rows for group in groups], dtype=np.int64)
        places.append(np.split(order, bounds)[: len(groups)])
        first_row += rows
    return places


def check_mixture(context: Context) -> None:
    """Refuse a mixture of sources that the recipe does not have; a pinned corpus is looked at when built."""
    if context.recipe.pins.corpus is None:
        refuse_unknown_sources(
            context.recipe.pretrain.data.mixture, [source.name for source in context.recipe.corpus.sources]
        )


def tokens_inputs(context: Context) -> dict[str, Any]:
    """Return what identifies a token dataset beyond corpus and tokenizer."""
    return {
        **result_fields(context.recipe.pretrain.data, "pretrain.data."),
        "pretrain.epochs": context.recipe.pretrain.epochs,
    }


def build_tokens(
    context: Context, parents: Mapping[str, Artifact], writer: ArtifactWriter, run: StageRun
) -> StageOutput:
    """Tokenise, pack, shuffle and write the shards of every split.

    Raises:
        InputError: the corpus has no training document.
    """
    import ray
    from tqdm import tqdm

    from baltoro.data.tokenizer import padding_id

    config = context.recipe.pretrain.data
    storage = context.storage
    by_source: dict[str, int] = {}
    with tempfile.TemporaryDirectory() as temporary:
        tokenizer = load_tokenizer(storage, parents["tokenizer"], Path(temporary))
    tokenizer_fingerprint = str(parents["tokenizer"].manifest.extra["tokenizer_fingerprint"])
    shared = [ray.put(value) for value in (storage, tokenizer, config)]
    tokenise = ray.remote(num_cpus=1, num_returns=2)(tokenise_part)
    references = [tokenise.remote(uri, *shared) for uri in corpus_parts(parents["corpus"])]
    documents = [ray.get(table) for table, _ in tqdm(references, desc="tokenising", unit="part", leave=False)]
    parts = [part for _, part in references]

    shards: dict[str, list[ShardFile]] = {}
    figures: dict[str, dict[str, float]] = {}
    for split in SPLITS_WITH_ROWS:
        epochs = context.recipe.pretrain.epochs if split == "train" else 1
        by_block = [
            groups for epoch in range(epochs) for groups in plan_groups(documents, split, config, epoch)
        ]
        places = place_rows(by_block, config.shuffle_seed)
        total_rows = sum(group.plan.rows for groups in by_block for group in groups)
        if not total_rows:
            continue
        names = [
            f"{split}/shard-{index:05d}.parquet"
            for index, _ in enumerate(shard_ranges(total_rows, config.rows_per_shard))
        ]
        pack = ray.remote(num_cpus=1, num_returns=len(names))(
            pack_group if len(names) > 1 else _pack_into_one
        )
        packed = [
            pack.remote(
                group.plan,
                group.documents,
                group.paper_index,
                place,
                config.rows_per_shard,
                len(names),
                padding_id(tokenizer),
                *[parts[index] for index in group.parts],
            )
            for groups, block_places in zip(by_block, places, strict=True)
            for group, place in zip(groups, block_places, strict=True)
        ]
        by_shard = [[entry] for entry in packed] if len(names) == 1 else [list(entry) for entry in packed]
        save = ray.remote(num_cpus=1)(save_shard)
        saved = [
            save.remote(
                writer.uri_for(name),
                storage,
                config,
                tokenizer_fingerprint,
                *[contribution[index] for contribution in by_shard],
            )
            for index, name in enumerate(names)
        ]
        shards[split] = [
            ray.get(reference)
            for reference in tqdm(saved, desc=f"writing {split}", unit="shard", leave=False)
        ]
        for name, file in zip(names, shards[split], strict=True):
            writer.add_file(name, rows=file.rows, size_bytes=file.size_bytes, sha256=file.sha256)
        figures[split] = {
            "sequences": total_rows,
            "tokens": sum(group.plan.tokens for groups in by_block for group in groups),
        }
        if split == "train":
            by_source = tokens_by_source(documents, by_block)
    if "train" not in figures:
        raise InputError(
            "the corpus has no document in the train split, so there is nothing to train on; add papers, or "
            "lower corpus.splits.validation_fraction and corpus.splits.test_fraction"
        )
    write_papers(documents, parents["corpus"], storage, writer)
    return tokens_output(config, by_source, figures, run)


def tokens_by_source(
    documents: Sequence[pa.Table], groups_by_block: Sequence[Sequence[Group]]
) -> dict[str, int]:
    """Return the tokens that the planned rows hold of each source."""
    papers = pa.concat_tables(documents)
    lengths = papers.column("tokens").to_numpy()
    sources = np.asarray(papers.column("source").to_pylist(), dtype=object)
    taken = np.zeros(len(lengths), np.int64)
    for groups in groups_by_block:
        for group in groups:
            np.add.at(taken, group.paper_index, 1)
    return {
        name: int((taken * lengths)[sources == name].sum())
        for name in sorted(set(sources[taken > 0].tolist()))
    }


def _pack_into_one(*arguments: Any) -> PlacedRows:
    # Ray returns a list as it is when a task has one return value.
    return pack_group(*arguments)[0]


def write_papers(
    documents: Sequence[pa.Table], corpus: Artifact, storage: Storage, writer: ArtifactWriter
) -> None:
    """Write ``papers.parquet``: what each ``paper_index`` names, with the copies merged into it."""
    merged: dict[str, list[str]] = {}
    with storage.open(corpus.uri_of("duplicates.parquet")) as file:
        for row in pq.read_table(file).to_pylist():
            merged.setdefault(row["kept_paper_id"], []).append(row["paper_id"])
    papers = pa.concat_tables(documents)
    papers = papers.append_column(
        "merged",
        pa.array(
            [merged.get(paper_id, []) for paper_id in papers.column("paper_id").to_pylist()],
            pa.list_(pa.string()),
        ),
    ).cast(PAPERS_SCHEMA)
    sink = pa.BufferOutputStream()
    pq.write_table(papers, sink, compression="zstd")
    writer.write_file("papers.parquet", bytes(sink.getvalue()), rows=papers.num_rows)


def tokens_output(
    config: DataConfig,
    by_source: Mapping[str, int],
    figures: Mapping[str, Mapping[str, float]],
    run: StageRun,
) -> StageOutput:
    """Return the figures of a finished build, and log them."""
    train = figures["train"]
    sequences, tokens = int(train["sequences"]), int(train["tokens"])
    padding_fraction = 1 - tokens / (sequences * config.sequence_length)
    run.log_metrics(
        {
            "tokens/train_tokens": tokens,
            "tokens/train_sequences": sequences,
            "tokens/padding_fraction": padding_fraction,
            "tokens/validation_tokens": figures.get("validation", {}).get("tokens", 0),
        }
    )
    return StageOutput(
        counts={
            "sequences": sequences,
            "tokens": tokens,
            **{f"sequences_{split}": int(entry["sequences"]) for split, entry in figures.items()},
            **{f"tokens_{split}": int(entry["tokens"]) for split, entry in figures.items()},
        },
        summary={
            "sequences": sequences,
            "tokens": tokens,
            "padding_fraction": round(padding_fraction, 6),
            "tokens_by_source": dict(by_source),
        },
        extra={
            "sequence_length": config.sequence_length,
            "splits": sorted(figures),
        },
    )


def split_files(tokens: Artifact, split: str) -> list[ShardFile]:
    """Return the shards of one split of a token dataset artifact, in order; empty if it has none."""
    return [
        ShardFile(tokens.uri_of(entry), entry.rows, entry.bytes, entry.sha256)
        for entry in tokens.files(f"{split}/shard-")
    ]


TOKENS = Stage(
    name="tokens",
    kind="tokens",
    version=2,
    parents=("corpus", "tokenizer"),
    inputs=tokens_inputs,
    build=build_tokens,
    check=check_mixture,
)
