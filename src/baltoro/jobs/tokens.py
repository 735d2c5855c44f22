"""The tokens stage: corpus × tokenizer × sequence length → packed, shuffled shards.

The tasks of each pass run on Ray and hand over by files (:mod:`baltoro.jobs.token_passes`), so a killed build
goes on where it stopped. A dataset is a list of parts: that of a corpus which extends another holds the rows
of the added documents and names the artifacts whose rows come before them.
"""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from typing import Any

import pyarrow as pa

from baltoro.core.artifacts import Artifact, ArtifactWriter
from baltoro.core.config import result_fields
from baltoro.core.errors import ArtifactError, InputError
from baltoro.core.storage import Storage, join
from baltoro.corpus.work import STAGING, Task, WorkArea
from baltoro.data.config import DataConfig
from baltoro.data.mixture import refuse_shares_of_whole, refuse_unknown_sources
from baltoro.data.shards import ShardFile
from baltoro.jobs.extend import BASE
from baltoro.jobs.stages import Context, Stage, StageOutput, remove_staging
from baltoro.jobs.token_files import TokenFiles
from baltoro.jobs.token_passes import (
    ExchangeTask,
    Layout,
    LayoutTask,
    PackTask,
    PapersTask,
    ShardTask,
    SplitTasks,
    TokeniseTask,
    read_written,
    tokenizer_of,
)
from baltoro.jobs.tokenizer import corpus_parts
from baltoro.tracking.mlflow import StageRun, Tracker

_DATA_FIELDS = frozenset(DataConfig.model_fields) - {"mixture"}


def check_mixture(context: Context) -> None:
    """Refuse a mixture of sources that the recipe does not have, or that added papers cannot keep.

    A pinned corpus is looked at when its tokens are built.
    """
    if context.recipe.pins.corpus is None and context.extension is not None:
        refuse_shares_of_whole(context.recipe.pretrain.data.mixture)
    if context.recipe.pins.corpus is None:
        refuse_unknown_sources(
            context.recipe.pretrain.data.mixture, [source.name for source in context.recipe.corpus.sources]
        )


def tokens_inputs(context: Context) -> dict[str, Any]:
    """Return what identifies a token dataset beyond corpus and tokenizer."""
    return tokens_inputs_of(context.recipe.pretrain.data, context.recipe.pretrain.epochs)


def tokens_inputs_of(config: DataConfig, epochs: int) -> dict[str, Any]:
    """Return what identifies rows of documents; who trains on them makes no difference."""
    fields = {name: value for name, value in result_fields(config).items() if name in _DATA_FIELDS}
    return {
        **{f"pretrain.data.{name}": value for name, value in fields.items()},
        **result_fields(config.mixture, "pretrain.data.mixture."),
        "pretrain.epochs": epochs,
    }


def build_tokens(
    context: Context, parents: Mapping[str, Artifact], writer: ArtifactWriter, run: StageRun
) -> StageOutput:
    """Tokenise, pack, shuffle and write the shards of every split.

    Args:
        context: the recipe and its storage.
        parents: ``corpus`` and ``tokenizer``; where the corpus extends another one, also ``base``, the token
            dataset that was made of that one in the same way.
        writer: takes the shards and ``papers.parquet``.
        run: figures are logged there.

    Raises:
        InputError: the corpus has no training document.
        ConfigError: the mixture cannot be kept when documents are added.
        ArtifactError: the base was made in another way.
    """
    config = context.recipe.pretrain
    return build_tokens_of(context, config.data, config.epochs, parents, writer, run)


def build_tokens_of(  # noqa: PLR0917  (each is a thing of its own that the caller has at hand)
    context: Context,
    config: DataConfig,
    epochs: int,
    parents: Mapping[str, Artifact],
    writer: ArtifactWriter,
    run: StageRun,
) -> StageOutput:
    """Build as :func:`build_tokens` does, with the settings of whoever trains on the rows.

    Raises:
        InputError: the corpus has no training document.
        ConfigError: the mixture cannot be kept when documents are added.
        ArtifactError: the base was made in another way.
    """
    corpus, tokenizer, base = parents["corpus"], parents["tokenizer"], parents.get(BASE)
    if base is not None:
        check_base(base, tokenizer, config)
    writer.adopt_folder(work_folder(config, corpus), shared=True)
    part = build_part(context.storage, writer, config, corpus, tokenizer, base, epochs)
    return tokens_output(config, part, base, run)


def check_base(base: Artifact, tokenizer: Artifact, config: DataConfig) -> None:
    """Refuse to add rows to a dataset that was made in another way, or a mixture that cannot be kept so.

    Raises:
        ArtifactError: another tokenizer or sequence length made the base.
        ConfigError: the mixture is about the whole dataset.
    """
    refuse_shares_of_whole(config.mixture)
    here = (tokenizer.relative_path, config.sequence_length)
    there = (base.manifest.parents["tokenizer"], base.manifest.extra["sequence_length"])
    if here != there:
        raise ArtifactError(
            f"{base.uri} has rows of {there[1]} tokens by {there[0]}, and rows of {here[1]} tokens by "
            f"{here[0]} cannot be added to it; use the same tokenizer and pretrain.data.sequence_length, or "
            "build the corpus anew without corpus.extends"
        )


def work_folder(config: DataConfig, corpus: Artifact) -> str:
    """Return the name of the folder that builds of one dataset share.

    They write the same bytes if the corpus is cut into the same files and their shards into the same rows,
    with the same versions of Baltoro and of what writes the files.
    """
    cut = [
        [file.name, file.rows, file.sha256]
        for file in (*corpus.files("documents/part-"), *corpus.files("dup"))
    ]
    shape = [config.rows_per_row_group, config.rows_per_shard, version("baltoro"), pa.__version__]
    return f"b-{hashlib.sha256(json.dumps([cut, shape]).encode()).hexdigest()[:16]}"


@dataclass(frozen=True)
class BuiltPart:
    """The rows that a build adds: all of a first build, or those of the documents that were added.

    Attributes:
        layout: groups and figures.
        footers: checksum of each shard's footer, by file name.
        first_paper: the ``paper_index`` of the first row of ``papers.parquet``.
        sequences: rows by split.
        tokens: tokens by split, padding not counted.
    """

    layout: Layout
    footers: dict[str, str]
    first_paper: int
    sequences: dict[str, int]
    tokens: dict[str, int]


def build_part(  # noqa: PLR0917  (each is a thing of its own that the caller has at hand)
    storage: Storage,
    writer: ArtifactWriter,
    config: DataConfig,
    corpus: Artifact,
    tokenizer: Artifact,
    base: Artifact | None,
    epochs: int,
) -> BuiltPart:
    """Run all passes, as far as they are not finished, and name the written files in the artifact's writer.

    Raises:
        InputError: the corpus has no training document, and there are no rows to add to.
    """
    from baltoro.data.tokenizer import padding_id

    area = WorkArea(storage, writer.uri_for(STAGING))
    loaded = tokenizer_of(storage, tokenizer)
    parts = tuple(corpus_parts(corpus))
    # Ids of added tokens may leave gaps, so that the highest one is beyond their number.
    files = TokenFiles(area, 1 + max(loaded.get_vocab().values()))
    first_paper = papers_of(base) if base is not None else 0
    known = tuple(base.manifest.extra["sources"]) if base is not None else ()

    tokenise = TokeniseTask(files, storage, parts, tokenizer, config)
    run_tasks(area, "tokenised", tokenise, len(parts), what="tokenising")
    lay_out = LayoutTask(area, len(parts), config, epochs, first_paper, known)
    run_tasks(area, "layout", lay_out, 1, what="planning rows")
    layout = Layout.read(area)
    if base is None and "train" not in {entry.split for entry in layout.splits}:
        raise InputError(
            "the corpus has no document in the train split, so there is nothing to train on; add papers, or "
            "lower corpus.splits.validation_fraction and corpus.splits.test_fraction"
        )
    pack = PackTask(files, layout, config, padding_id(loaded))
    run_tasks(area, "packed", pack, layout.groups, what="packing")
    shards = run_exchange(area, storage, writer, config, layout, tokenizer)
    papers_uri = writer.uri_for("papers.parquet")
    papers = PapersTask(area, storage, len(parts), corpus.uri_of("duplicates.parquet"), papers_uri)
    run_tasks(area, "papers", papers, 1, what="listing papers")

    written = read_written(area, shards)
    for file in written:
        writer.add_file(file.uri, rows=file.rows, size_bytes=file.size_bytes, sha256=file.sha256)
    record = area.read("papers", 0).to_pylist()[0]
    writer.add_file("papers.parquet", **record)
    return BuiltPart(
        layout=layout,
        footers={file.uri: file.footer_sha256 for file in written},
        first_paper=first_paper,
        sequences={entry.split: entry.rows for entry in layout.splits},
        tokens={entry.split: entry.tokens for entry in layout.splits},
    )


def run_exchange(  # noqa: PLR0917  (each is a thing of its own that the caller has at hand)
    area: WorkArea,
    storage: Storage,
    writer: ArtifactWriter,
    config: DataConfig,
    layout: Layout,
    tokenizer: Artifact,
) -> int:
    """Bring the packed rows to their shards, and return how many shards there are."""
    fingerprint = str(tokenizer.manifest.extra["tokenizer_fingerprint"])
    exchange_tasks: list[Task] = []
    shard_tasks: list[Task] = []
    first_exchanges: list[int] = []
    first_shards: list[int] = []
    exchanges = shards = 0
    for entry in layout.splits:
        exchange = entry.exchange(config.rows_per_shard)
        first_exchanges.append(exchanges)
        first_shards.append(shards)
        exchange_tasks.append(ExchangeTask(area, entry, exchanges, config))
        shard_tasks.append(
            ShardTask(
                area,
                storage,
                entry,
                shards,
                exchanges,
                config,
                join(writer.artifact_uri, writer.folder),
                writer.fingerprint,
                fingerprint,
            )
        )
        exchanges += exchange.buckets * exchange.runs
        shards += exchange.shards
    exchange_pass = SplitTasks(tuple(first_exchanges), tuple(exchange_tasks))
    run_tasks(area, "exchanged", exchange_pass, exchanges, what="exchanging rows")
    shard_pass = SplitTasks(tuple(first_shards), tuple(shard_tasks))
    run_tasks(area, "shards", shard_pass, shards, what="writing shards")
    return shards


def run_tasks(area: WorkArea, name: str, task: Task, count: int, *, what: str) -> None:
    """Run the tasks of a pass whose file is not there yet, on the cluster."""
    if not count:
        return
    # Ray Data takes seconds to import, and a plan needs this module.
    from baltoro.corpus.pipeline import run_pass

    run_pass(area, name, task, count, what=what)


def papers_of(tokens: Artifact) -> int:
    """Return how many papers a token dataset has, those of the parts before its own included."""
    (file,) = tokens.files("papers.parquet")
    return int(tokens.manifest.extra["first_paper"]) + file.rows


def tokens_output(config: DataConfig, part: BuiltPart, base: Artifact | None, run: StageRun) -> StageOutput:
    """Return the figures of a finished build, and log them.

    Counts and summary are of the whole dataset, which is what training reads; those of the part that was
    built stand in ``extra["parts"]``, last.
    """
    before = parts_of(base) if base is not None else []
    own = {"tokens": None, "sequences": part.sequences, "tokens_count": part.tokens}
    parts = [*before, own]
    sequences = _total(parts, "sequences")
    tokens = _total(parts, "tokens_count")
    by_source = Counter(part.layout.tokens_by_source)
    if base is not None:
        by_source.update(base.manifest.extra["summary"]["tokens_by_source"])
    sources = {*part.layout.sources, *(base.manifest.extra["sources"] if base is not None else ())}
    padding_fraction = 1 - tokens["train"] / (sequences["train"] * config.sequence_length)
    run.log_metrics(
        {
            "tokens/train_tokens": tokens["train"],
            "tokens/train_sequences": sequences["train"],
            "tokens/padding_fraction": padding_fraction,
            "tokens/validation_tokens": tokens.get("validation", 0),
        }
    )
    added = {}
    if base is not None:
        added = {
            "added": {"sequences": part.sequences.get("train", 0), "tokens": part.tokens.get("train", 0)}
        }
    return StageOutput(
        counts={
            "sequences": sequences["train"],
            "tokens": tokens["train"],
            **{f"sequences_{split}": count for split, count in sequences.items()},
            **{f"tokens_{split}": count for split, count in tokens.items()},
        },
        summary={
            "sequences": sequences["train"],
            "tokens": tokens["train"],
            "padding_fraction": round(padding_fraction, 6),
            "tokens_by_source": dict(sorted(by_source.items())),
            **added,
        },
        extra={
            "sequence_length": config.sequence_length,
            "splits": sorted(sequences),
            "sources": sorted(sources),
            "parts": parts,
            "first_paper": part.first_paper,
            "footers": part.footers,
        },
    )


def _total(parts: Sequence[Mapping[str, Any]], measure: str) -> dict[str, int]:
    total: Counter[str] = Counter()
    for entry in parts:
        total.update(entry[measure])
    return dict(sorted(total.items()))


# --------------------------------------------------------------------------------------------------
# Reading a dataset of several parts


def parts_of(tokens: Artifact) -> list[dict[str, Any]]:
    """Return the parts of a token dataset, first to last, each named by its artifact's path under the root.

    Raises:
        ArtifactError: it was built before datasets had parts.
    """
    parts = tokens.manifest.extra.get("parts")
    if parts is None:
        raise ArtifactError(
            f"{tokens.uri} was built by an earlier version and does not say what parts it has; build the "
            "token dataset again"
        )
    return [{**entry, "tokens": entry["tokens"] or tokens.relative_path} for entry in parts]


def check_prefix(old: Sequence[Mapping[str, Any]], new: Sequence[Mapping[str, Any]]) -> None:
    """Refuse to go on with a dataset whose first rows are not those that were trained on.

    Args:
        old: parts of the dataset that training began with, as :func:`parts_of` returns them.
        new: those of the dataset it should go on with.

    Raises:
        ArtifactError: names the first part that differs.
    """
    for number, entry in enumerate(old):
        found = new[number]["tokens"] if number < len(new) else "none"
        if found != entry["tokens"]:
            raise ArtifactError(
                f"part {number} of the token dataset that training began with was {entry['tokens']}, and is "
                f"{found} in this one; go on with a dataset that extends the old one (corpus.extends), or "
                "begin a new run"
            )


def split_files(tokens: Artifact | Sequence[Artifact], split: str) -> list[ShardFile]:
    """Return the shards of one split, in the order in which training reads them; empty if it has none.

    Args:
        tokens: what :func:`~baltoro.jobs.extend.part_chain` returns, or a token dataset that has one part.
        split: ``train`` or ``validation``.

    Raises:
        ArtifactError: the chain is not that of its last dataset, or an earlier version built one of them.
    """
    chain = [tokens] if isinstance(tokens, Artifact) else list(tokens)
    expected = [entry["tokens"] for entry in parts_of(chain[-1])]
    if [part.relative_path for part in chain] != expected:
        raise ArtifactError(
            f"{chain[-1].uri} has the parts {', '.join(expected)}; its rows can only be read in that order"
        )
    return [
        ShardFile(
            part.uri_of(entry),
            entry.rows,
            entry.bytes,
            entry.sha256,
            part.manifest.extra["footers"][entry.name],
        )
        for part in chain
        for entry in part.files(f"{split}/shard-")
    ]


def finish_tokens(
    context: Context, artifact: Artifact, tracker: Tracker, run: StageRun | None
) -> dict[str, Any]:
    """Remove what the passes of the build handed to each other, also if an earlier command could not."""
    del tracker, run
    remove_staging(context, artifact)
    return {}


TOKENS = Stage(
    name="tokens",
    kind="tokens",
    version=3,
    parents=("corpus", "tokenizer"),
    inputs=tokens_inputs,
    build=build_tokens,
    finish=finish_tokens,
    check=check_mixture,
)
