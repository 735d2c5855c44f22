"""The work of a tokens build, task by task, as plain functions over files.

1. ``tokenised``: per part of the corpus, the tokens of its documents, a file for each split, and what is
   known of each document.
2. ``layout``: one task plans all groups from the documents' lengths: which are packed together, and where
   each row goes (:mod:`baltoro.data.plan`).
3. ``packed``: per group its rows, partitioned by where they go.
4. ``exchanged``: only of very large splits, the rows of a few hundred groups again, partitioned by shard.
5. ``shards``: per shard, its rows in order, as the final file.
6. ``papers``: one task writes what a segment's ``paper_index`` names.

A task reads what earlier passes wrote and ends by writing one file of its own pass, so a build that was
killed goes on where it stopped (:mod:`baltoro.corpus.work`). What is staged takes about two to three bytes
for each token and pass. A task holds one group, one shard or a stretch of one part; only ``layout`` holds
something of all documents: about 80 bytes for each, and 32 for each row of the largest block.
"""

from __future__ import annotations

import bisect
import itertools
import json
import os
import tempfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from baltoro.core.artifacts import Artifact
from baltoro.core.errors import ArtifactError
from baltoro.core.storage import Storage, join
from baltoro.corpus.work import PartFile, Task, WorkArea, open_part, read_parquet, regrouped, write_table_file
from baltoro.data.config import DataConfig
from baltoro.data.pack import assemble_rows
from baltoro.data.plan import SPLITS, Documents, Exchange, IntArray, place_rows, plan_blocks, plan_group
from baltoro.data.shards import RowBatch, ShardFile, write_shard
from baltoro.jobs.token_files import (
    READERS,
    TokenFiles,
    batch_file,
    packed_schema,
    read_batch,
    read_placed,
    row_columns,
    uploaded,
)
from baltoro.jobs.tokenizer import load_tokenizer

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast

PAPERS_SCHEMA = pa.schema(
    [
        ("paper_id", pa.string()),
        ("source", pa.string()),
        ("split", pa.string()),
        ("tokens", pa.int64()),
        ("merged", pa.list_(pa.string())),
    ]
)
"""``papers.parquet``: row ``i`` is what ``paper_index`` = ``first_paper + i`` names; ``merged``: copies."""

_RECORD_SCHEMA = pa.schema([PAPERS_SCHEMA.field(name) for name in ("paper_id", "source", "split", "tokens")])
_DOCUMENT_SCHEMA = pa.schema(
    [("part", pa.int32()), ("offset", pa.int64()), ("tokens", pa.int64()), ("paper", pa.int32())]
)
_PLACE_SCHEMA = pa.schema([("place", pa.int64())])

_DOCUMENTS_AT_ONCE = 256
_PAPERS_PER_ROW_GROUP = 1 << 13


@dataclass(frozen=True)
class TokeniseTask(Task):
    """One part of the corpus: the tokens of the documents that may be trained on or validated with.

    Attributes:
        files: where the tokens go.
        storage: opens the parts.
        parts: the corpus' parts.
        tokenizer: loaded once in each process.
        config: for the boundary between documents.
    """

    files: TokenFiles
    storage: Storage
    parts: tuple[PartFile, ...]
    tokenizer: Artifact
    config: DataConfig

    def run(self, index: int) -> None:
        """Tokenise one part, a few hundred documents at a time."""
        from baltoro.data.tokenise import tokenise_documents

        # Ray gave this process one CPU; the library's own threads would take all of them.
        os.environ["TOKENIZERS_PARALLELISM"] = "false"
        tokenizer = tokenizer_of(self.storage, self.tokenizer)
        records = [_RECORD_SCHEMA.empty_table()]
        with tempfile.TemporaryDirectory() as temporary:
            paths = [Path(temporary) / split for split in SPLITS]
            for path in paths:
                path.touch()
            for table in read_documents(self.storage, self.parts[index]):
                documents = table.filter(pc.is_in(table["split"], pa.array(SPLITS)))
                if not documents.num_rows:
                    continue
                tokenised = tokenise_documents(documents, tokenizer, self.config)
                lists = tokenised.column("input_ids").combine_chunks()
                lengths = lists.value_lengths().to_numpy()
                split_of_token = np.repeat(split_codes(documents), lengths)
                for code, path in enumerate(paths):
                    with path.open("ab") as file:
                        self.files.append(file, lists.flatten().to_numpy()[split_of_token == code])
                record = documents.select(["paper_id", "source", "split"])
                records.append(record.append_column("tokens", lists.value_lengths()).cast(_RECORD_SCHEMA))
            for split, path in zip(SPLITS, paths, strict=True):
                self.storage.upload_file(path, self.files.uri(split, index))
        self.files.area.write("tokenised", index, pa.concat_tables(records).combine_chunks())


def read_documents(storage: Storage, part: PartFile) -> Iterator[pa.Table]:
    """Yield what is needed of a corpus part's documents, some hundred at a time.

    Raises:
        ArtifactError: the file was altered since it was written; names it.
    """
    columns = ["paper_id", "source", "split", "text"]
    opened = open_part(storage, part)
    for batch in opened.iter_batches(_DOCUMENTS_AT_ONCE, columns=columns, use_threads=False):
        yield pa.Table.from_batches([batch])


def split_codes(documents: pa.Table) -> npt.NDArray[np.int8]:
    """Return the number of each document's split among those that are laid out."""
    codes = pc.index_in(documents.column("split"), pa.array(SPLITS))
    return np.asarray(codes.to_numpy(), np.int8)


_LOADED: dict[str, Any] = {}


def tokenizer_of(storage: Storage, artifact: Artifact) -> PreTrainedTokenizerFast:
    """Return a tokenizer, which is read when a process first asks for it and kept until another one is."""
    if artifact.uri not in _LOADED:
        _LOADED.clear()
        with tempfile.TemporaryDirectory() as temporary:
            _LOADED[artifact.uri] = load_tokenizer(storage, artifact, Path(temporary))
    tokenizer: PreTrainedTokenizerFast = _LOADED[artifact.uri]
    return tokenizer


@dataclass(frozen=True)
class SplitLayout:
    """The groups of one split.

    Attributes:
        split: its name.
        first_group: number of its first group among those of all splits.
        seeds: of each group, for its plan.
        rows: of all groups.
        tokens: of all groups, padding not counted.
    """

    split: str
    first_group: int
    seeds: tuple[int, ...]
    rows: int
    tokens: int

    def exchange(self, rows_per_shard: int) -> Exchange:
        """Return how the rows come to their shards."""
        return Exchange(len(self.seeds), self.rows, rows_per_shard)


@dataclass(frozen=True)
class Layout:
    """What the layout says beside the groups' documents and places; a few bytes for each group.

    Attributes:
        splits: those that have rows.
        papers: number of documents of the part.
        tokens_by_source: of the training rows, as training reads them.
        sources: names of the sources of the part's documents.
    """

    splits: tuple[SplitLayout, ...]
    papers: int
    tokens_by_source: dict[str, int]
    sources: tuple[str, ...]

    @staticmethod
    def read(area: WorkArea) -> Layout:
        """Return what the task wrote."""
        content = json.loads(area.read("layout", 0).column("layout")[0].as_py())
        splits = tuple(
            SplitLayout(**{**entry, "seeds": tuple(entry["seeds"])}) for entry in content.pop("splits")
        )
        return Layout(splits, content["papers"], content["tokens_by_source"], tuple(content["sources"]))

    @property
    def groups(self) -> int:
        """Groups of all splits."""
        return sum(len(entry.seeds) for entry in self.splits)

    def of_group(self, group: int) -> SplitLayout:
        """Return the split that a group is of."""
        return next(entry for entry in reversed(self.splits) if entry.first_group <= group)


@dataclass(frozen=True)
class LayoutTask(Task):
    """One task: plan every group and place every row.

    Attributes:
        area: the build's folder.
        parts: number of the corpus' parts.
        config: sequence length, bound on padding, seed, mixture.
        epochs: how often training passes over the mixture.
        first_paper: the ``paper_index`` of the part's first document.
        known_sources: sources that the mixture may name though no document here is of them.
    """

    area: WorkArea
    parts: int
    config: DataConfig
    epochs: int
    first_paper: int
    known_sources: tuple[str, ...] = ()

    def run(self, index: int) -> None:
        """Write each group's documents and places, and last what :class:`Layout` holds."""
        documents, part, offset = self._read_documents()
        # Rows of a block are placed once all of its groups are planned, so places lie in a file of their own.
        splits: list[SplitLayout] = []
        by_source = np.zeros(len(documents.sources), np.int64)
        with (
            batch_file(self.area, "layout-documents", index, _DOCUMENT_SCHEMA) as write_documents,
            batch_file(self.area, "layout-places", index, _PLACE_SCHEMA) as write_places,
        ):
            for split in SPLITS:
                seeds: list[int] = []
                rows = tokens = 0
                epochs = self.epochs if split == "train" else 1
                blocks = plan_blocks(documents, split, self.config, epochs)
                for number, block in enumerate(blocks):
                    rows_of_groups = []
                    for group in block:
                        taken = group.documents
                        write_documents(
                            [part[taken], offset[taken], documents.tokens[taken], taken + self.first_paper]
                        )
                        if split == "train":
                            by_source += documents.tokens_by_source(taken)
                        seeds.append(group.seed)
                        rows_of_groups.append(group.plan.rows)
                        tokens += group.plan.tokens
                    for places in place_rows(rows_of_groups, self.config.shuffle_seed + number, rows):
                        write_places([places])
                    rows += sum(rows_of_groups)
                if rows:
                    first_group = sum(len(entry.seeds) for entry in splits)
                    splits.append(SplitLayout(split, first_group, tuple(seeds), rows, tokens))
        counted = zip(documents.sources, by_source.tolist(), strict=True)
        present = set(np.unique(documents.source).tolist())
        layout = Layout(
            tuple(splits),
            len(documents),
            {name: count for name, count in counted if count},
            tuple(name for code, name in enumerate(documents.sources) if code in present),
        )
        self.area.write("layout", index, pa.table({"layout": [json.dumps(asdict(layout))]}))

    def _read_documents(self) -> tuple[Documents, npt.NDArray[np.int32], IntArray]:
        """Return the documents, and for each its part and the place of its tokens in the split's file."""
        lengths, splits, sources, parts, offsets = [], [], [], [], []
        names = {name: code for code, name in enumerate(self.known_sources)}
        for index, table in enumerate(
            self.area.read_all("tokenised", range(self.parts), ["source", "split", "tokens"])
        ):
            tokens = table.column("tokens").to_numpy()
            encoded = table.column("source").combine_chunks().dictionary_encode()
            codes = [names.setdefault(name, len(names)) for name in encoded.dictionary.to_pylist()]
            split = split_codes(table)
            offset = np.zeros(len(tokens), np.int64)
            for code in range(len(SPLITS)):
                mine = split == code
                offset[mine] = np.cumsum(tokens[mine]) - tokens[mine]
            lengths.append(tokens)
            splits.append(split)
            sources.append(np.array(codes, np.int32)[encoded.indices.to_numpy()])
            parts.append(np.full(len(tokens), index, np.int32))
            offsets.append(offset)
        order = sorted(names)
        code_of = np.array([order.index(name) for name in names], np.int32)
        documents = Documents(
            tokens=np.concatenate([np.empty(0, np.int64), *lengths]),
            split=np.concatenate([np.empty(0, np.int8), *splits]),
            source=code_of[np.concatenate([np.empty(0, np.int32), *sources])],
            sources=tuple(order),
        )
        return (
            documents,
            np.concatenate([np.empty(0, np.int32), *parts]),
            np.concatenate([np.empty(0, np.int64), *offsets]),
        )


@dataclass(frozen=True)
class SplitTasks(Task):
    """A pass whose tasks are numbered through all splits.

    Attributes:
        firsts: number of the first task of each entry of ``tasks``.
        tasks: one for each split.
    """

    firsts: tuple[int, ...]
    tasks: tuple[Task, ...]

    def run(self, index: int) -> None:
        """Let the split's task do it."""
        self.tasks[bisect.bisect_right(self.firsts, index) - 1].run(index)


@dataclass(frozen=True)
class PackTask(Task):
    """One group: fill its planned rows with tokens, sorted by where they go.

    Attributes:
        files: the tokens.
        layout: the groups.
        config: as the layout was made with.
        padding_id: the token after the last segment of a row.
    """

    files: TokenFiles
    layout: Layout
    config: DataConfig
    padding_id: int

    def run(self, index: int) -> None:
        """Pack one group; places are handed on counted from the first of their bucket."""
        area, layout = self.files.area, self.layout.of_group(index)
        documents = read_batch(area, "layout-documents", 0, index)
        part, offset, lengths, papers = (documents.column(name).to_numpy() for name in _DOCUMENT_SCHEMA.names)
        places = read_batch(area, "layout-places", 0, index).column("place").to_numpy()
        tokens = self.files.read(layout.split, part, offset, lengths)
        plan = plan_group(lengths, self.config, layout.seeds[index - layout.first_group])
        offsets = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64)
        exchange = layout.exchange(self.config.rows_per_shard)
        order = np.argsort(places)
        firsts = np.arange(exchange.buckets + 1) * exchange.rows_per_bucket
        bounds = np.searchsorted(places[order], firsts)
        schema = packed_schema(self.config.sequence_length)
        with batch_file(area, "packed", index, schema) as write:
            for bucket, (start, end) in enumerate(itertools.pairwise(bounds.tolist())):
                rows = order[start:end]
                batch = assemble_rows(
                    plan, rows, tokens=tokens, offsets=offsets, paper_index=papers, padding_id=self.padding_id
                )
                write([places[rows] - firsts[bucket], *row_columns(batch)])


@dataclass(frozen=True)
class ExchangeTask(Task):
    """One bucket of a run of groups: sort its rows by shard."""

    area: WorkArea
    layout: SplitLayout
    first_task: int
    config: DataConfig

    def run(self, index: int) -> None:
        """Read the bucket from each group and write one batch for each shard."""
        exchange = self.layout.exchange(self.config.rows_per_shard)
        bucket, run = divmod(index - self.first_task, exchange.runs)
        groups = [self.layout.first_group + group for group in exchange.groups_of(run)]
        placed = list(read_placed(self.area, "packed", groups, bucket))
        none = RowBatch(np.empty((0, self.config.sequence_length), np.int32), [], [])
        width = self.config.rows_per_shard
        with batch_file(self.area, "exchanged", index, packed_schema(self.config.sequence_length)) as write:
            for shard in range(exchange.shards_per_bucket):
                mine = [(entry, np.flatnonzero(entry.place // width == shard)) for entry in placed]
                rows = RowBatch.concatenate([none, *(entry.rows.take(chosen) for entry, chosen in mine)])
                places = np.concatenate(
                    [np.empty(0, np.int64), *(entry.place[chosen] for entry, chosen in mine)]
                )
                write([places - shard * width, *row_columns(rows)])


@dataclass(frozen=True)
class ShardTask(Task):
    """One shard of one split: gather its rows and write the final file.

    Attributes:
        area: the build's folder.
        storage: takes the final file.
        layout: of the split.
        first_shard: number of the split's first shard among those of all splits.
        first_exchange: number of the split's first task of the pass ``exchanged``.
        config: rows of row groups and shards.
        folder_uri: where the final files stand.
        dataset: fingerprint of the dataset, which the file keeps.
        tokenizer_fingerprint: the file keeps it, too.
    """

    area: WorkArea
    storage: Storage
    layout: SplitLayout
    first_shard: int
    first_exchange: int
    config: DataConfig
    folder_uri: str
    dataset: str
    tokenizer_fingerprint: str

    def run(self, index: int) -> None:
        """Write one shard, and last its checksums."""
        shard = index - self.first_shard
        name = shard_name(self.layout.split, shard)
        with uploaded(self.storage, join(self.folder_uri, name)) as path:
            written = write_shard(
                self.rows(shard),
                path,
                uri=name,
                rows_per_row_group=self.config.rows_per_row_group,
                tokenizer_fingerprint=self.tokenizer_fingerprint,
                origin=f"{self.dataset}/{name}",
            )
        self.area.write("shards", index, pa.Table.from_pylist([asdict(written)]))

    def rows(self, shard: int) -> RowBatch:
        """Return the rows of a shard in their order.

        Raises:
            ArtifactError: a place of the shard is not filled.
        """
        exchange = self.layout.exchange(self.config.rows_per_shard)
        bucket, partition = divmod(shard, exchange.shards_per_bucket)
        if exchange.in_two_steps:
            first = self.first_exchange + bucket * exchange.runs
            name, tasks = "exchanged", range(first, first + exchange.runs)
        else:
            first = self.layout.first_group
            name, tasks, partition = "packed", range(first, first + exchange.groups), shard
        count = exchange.rows_of(shard)
        input_ids = np.empty((count, self.config.sequence_length), np.int32)
        none = np.empty(0, np.int32)
        ends, papers = [none] * count, [none] * count
        filled = np.zeros(count, np.int64)
        for placed in read_placed(self.area, name, tasks, partition):
            input_ids[placed.place] = placed.rows.input_ids
            filled[placed.place] += 1
            for place, row_ends, row_papers in zip(
                placed.place.tolist(), placed.rows.segment_ends, placed.rows.paper_index, strict=True
            ):
                ends[place], papers[place] = row_ends, row_papers
        if not (filled == 1).all():
            raise ArtifactError(
                f"{self.area.uri}: row {int((filled != 1).argmax())} of "
                f"{shard_name(self.layout.split, shard)} is not there exactly once; the staged files "
                "were damaged: delete that folder and build again"
            )
        return RowBatch(input_ids, ends, papers)


def shard_name(split: str, shard: int) -> str:
    """Return the file name of a shard."""
    return f"{split}/shard-{shard:05d}.parquet"


def read_written(area: WorkArea, shards: int) -> list[ShardFile]:
    """Return what the shards' tasks wrote, in order; ``uri`` is the name in the artifact."""

    def read(index: int) -> ShardFile:
        return ShardFile(**area.read("shards", index).to_pylist()[0])

    with ThreadPoolExecutor(READERS) as pool:
        return list(pool.map(read, range(shards)))


@dataclass(frozen=True)
class PapersTask(Task):
    """One task: write ``papers.parquet``, part by part.

    Attributes:
        area: the build's folder.
        storage: opens the list of copies and takes the final file.
        parts: number of the corpus' parts.
        duplicates_uri: the corpus' list of copies. A copy whose kept paper is not of this part is left out:
            the table that names that paper stands.
        papers_uri: where the final file goes.
    """

    area: WorkArea
    storage: Storage
    parts: int
    duplicates_uri: str
    papers_uri: str

    def run(self, index: int) -> None:
        """Write the table, and last its checksum; of all papers only the copies are held at once."""
        duplicates = read_parquet(self.storage, self.duplicates_uri, ["kept_paper_id", "paper_id"])
        place = pa.array(np.arange(duplicates.num_rows))
        duplicates = duplicates.append_column("place", place).sort_by(
            [("kept_paper_id", "ascending"), ("place", "ascending")]
        )
        tables = self.area.read_all("tokenised", range(self.parts), _RECORD_SCHEMA.names)
        papers = (
            with_merged(table, duplicates)
            for table in regrouped(tables, _PAPERS_PER_ROW_GROUP, _RECORD_SCHEMA)
        )
        record = write_table_file(self.storage, self.papers_uri, papers, PAPERS_SCHEMA, _PAPERS_PER_ROW_GROUP)
        self.area.write("papers", index, pa.Table.from_pylist([record]))


def with_merged(papers: pa.Table, duplicates: pa.Table) -> pa.Table:
    """Return papers in :data:`PAPERS_SCHEMA`, each with the copies merged into it.

    Args:
        papers: paper_id, source, split, tokens.
        duplicates: kept_paper_id and paper_id, sorted by the first. Papers are listed by their keys, so those
            given here are near each other in it, and the rest is not looked at.
    """
    ids = papers.column("paper_id").combine_chunks()
    kept = duplicates.column("kept_paper_id")
    first, last = pc.min(ids).as_py(), pc.max(ids).as_py()

    def kept_at(row: int) -> Any:
        return kept[row].as_py()

    rows = range(duplicates.num_rows)
    start = bisect.bisect_left(rows, first, key=kept_at)
    duplicates = duplicates.slice(start, bisect.bisect_right(rows, last, key=kept_at) - start)
    row = pc.index_in(duplicates.column("kept_paper_id"), ids)
    mine = duplicates.column("paper_id").filter(pc.is_valid(row)).combine_chunks()
    row_of = pc.drop_null(row).to_numpy()
    order = np.argsort(row_of, kind="stable")
    offsets = np.searchsorted(row_of[order], np.arange(papers.num_rows + 1)).astype(np.int32)
    merged = pa.ListArray.from_arrays(pa.array(offsets), mine.take(pa.array(order)))
    return papers.append_column("merged", merged).cast(PAPERS_SCHEMA)
