"""The corpus stage: sources of papers → a corpus artifact with rejects, duplicates and a data card."""

from __future__ import annotations

import hashlib
import logging
import time
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from baltoro.core.artifacts import Artifact, ArtifactWriter
from baltoro.core.config import result_fields
from baltoro.core.errors import InputError
from baltoro.core.storage import digest_of, join
from baltoro.corpus.work import STAGING
from baltoro.jobs.stages import Context, Stage, StageOutput
from baltoro.tracking.mlflow import StageRun, Tracker

if TYPE_CHECKING:
    import pyarrow as pa

    from baltoro.corpus.decontamination.items import EvaluationSet
    from baltoro.papers.metadata import MetadataTable

logger = logging.getLogger(__name__)


def corpus_inputs(context: Context) -> dict[str, Any]:
    """Return what identifies a corpus: its settings, and each source by content."""
    config = context.recipe.corpus
    inputs = result_fields(config, "corpus.")
    for index, listing in enumerate(context.listings):
        inputs[f"corpus.sources.{index}.objects"] = len(listing.objects)
        inputs[f"corpus.sources.{index}.listing"] = listing.digest()
        if listing.source.metadata is not None:
            # The table counts by content, wherever it stands.
            table = context.storage.read_bytes(listing.source.metadata.uri)
            inputs[f"corpus.sources.{index}.metadata.digest"] = hashlib.sha256(table).hexdigest()[:16]
    for index, evaluation in enumerate(config.decontaminate.sets):
        inputs[f"corpus.decontaminate.sets.{index}.content"] = digest_of(context.storage.list(evaluation.uri))
    return inputs


def build_corpus(
    context: Context, parents: Mapping[str, Artifact], writer: ArtifactWriter, run: StageRun
) -> StageOutput:
    """Build the corpus and log its data card.

    Raises:
        InputError: no paper of any source can be used.
    """
    from baltoro.corpus.decontamination.canaries import judge_recall
    from baltoro.corpus.decontamination.matcher import ItemIndex
    from baltoro.corpus.pipeline import build_documents, rejects_of, work_folder
    from baltoro.corpus.report import DataCard, card_files
    from baltoro.corpus.work import parquet_bytes

    del parents
    config = context.recipe.corpus
    started = time.monotonic()
    metadata = load_metadata(context)
    sets = load_evaluation_sets(context)
    items = [item for evaluation in sets for item in evaluation.items]
    index = ItemIndex.build(items, config.decontaminate.match) if items else None
    writer.adopt_folder(work_folder(config), shared=True)
    build = build_documents(config, context.listings, context.storage, metadata, index, writer)
    warning = judge_recall(build.canaries, config.decontaminate.canaries)
    if warning is not None:
        logger.warning("%s", warning)
    rejects = rejects_of(build.records)
    refuse_unusable(build.records, rejects)
    writer.write_file("rejects.parquet", parquet_bytes(rejects), rows=rejects.num_rows)
    writer.write_file("duplicates.parquet", parquet_bytes(build.duplicates), rows=build.duplicates.num_rows)
    card = DataCard.from_build(
        name=context.recipe.name,
        fingerprint=writer.fingerprint,
        records=build.records,
        duplicates=build.duplicates,
        documents_by_split=build.summary.documents_by_split,
        metadata={name: count_metadata(table, name, build.records) for name, table in metadata.items()},
        cleaned=build.cleaned,
        cleaned_papers=build.cleaned_papers,
        evaluation_sets=[describe_set(evaluation) for evaluation in sets],
        items_too_short=len(index.too_short) if index is not None else 0,
        canaries=build.canaries,
    )
    for filename, data in card_files(card).items():
        writer.write_file(f"card/{filename}", data)
        run.log_bytes(data, f"data_card/{filename}")
    summary = build.summary
    run.log_metrics(
        {
            "corpus/papers_read": summary.papers_read,
            "corpus/papers_kept": summary.kept,
            "corpus/papers_rejected": sum(summary.rejected.values()),
            "corpus/duplicates": sum(summary.duplicates.values()),
            "corpus/text_bytes": summary.text_bytes,
            "corpus/build_seconds": time.monotonic() - started,
        }
    )
    figures: dict[str, Any] = {
        "papers_read": summary.papers_read,
        "kept": summary.kept,
        "rejected": summary.rejected,
        "duplicates": summary.duplicates,
        "contaminated": summary.contaminated,
        "documents": summary.kept,
        "bytes": summary.text_bytes,
    }
    if config.trial.enabled:
        figures["trial"] = extrapolate(context, figures, time.monotonic() - started)
    return StageOutput(
        counts={
            "papers_read": summary.papers_read,
            "kept": summary.kept,
            "rejected": sum(summary.rejected.values()),
            "duplicates": sum(summary.duplicates.values()),
            **{f"documents_{split}": count for split, count in sorted(summary.documents_by_split.items())},
        },
        summary=figures,
        extra={"documents_by_split": summary.documents_by_split},
    )


_BYTES_PER_TOKEN = 4.2


def extrapolate(context: Context, figures: Mapping[str, Any], seconds: float) -> dict[str, Any]:
    """Return what the whole build would give if all files were like those of the trial, by their size.

    Copies are found in proportion only while they are few: in the whole there are more to meet. Tokens are
    reckoned at 4.2 bytes of text each, as a vocabulary of some ten thousand has on English papers.
    """
    read = sum(listing.size_bytes for listing in context.listings)
    whole = sum(listing.size_bytes for listing in context.whole_listings)
    factor = whole / read if read else 0.0
    return {
        "files": sum(len(listing.objects) for listing in context.listings),
        "files_of_whole": sum(len(listing.objects) for listing in context.whole_listings),
        "read_fraction": round(read / whole, 6) if whole else 0.0,
        "whole": {
            "seconds": round(seconds * factor),
            "documents": round(figures["kept"] * factor),
            "bytes": round(figures["bytes"] * factor),
            "tokens": round(figures["bytes"] * factor / _BYTES_PER_TOKEN),
            "rejected": {reason: round(count * factor) for reason, count in figures["rejected"].items()},
        },
    }


def trial_name(context: Context) -> str:
    """Return the name of the corpus: a trial has one of its own."""
    return f"{context.recipe.name}-trial" if context.recipe.corpus.trial.enabled else context.recipe.name


def load_evaluation_sets(context: Context) -> list[EvaluationSet]:
    """Return the evaluation sets that the corpus must not hold.

    Raises:
        InputError: a set cannot be read, lacks a named field, or holds no item.
    """
    from baltoro.corpus.decontamination.items import load_evaluation_set

    storage = context.storage
    return [
        load_evaluation_set(
            evaluation,
            [
                (entry.key, storage.read_bytes(entry.uri, etag=entry.etag))
                for entry in storage.list(evaluation.uri)
            ],
        )
        for evaluation in context.recipe.corpus.decontaminate.sets
    ]


def describe_set(evaluation: EvaluationSet) -> dict[str, Any]:
    """Return what the data card says of an evaluation set."""
    return {
        "name": evaluation.name,
        "records": evaluation.records,
        "items": len(evaluation.items),
        "empty_records": evaluation.empty_records,
    }


def check_inputs(context: Context) -> None:
    """Refuse metadata tables and evaluation sets that cannot be used, before any paper is read."""
    load_metadata(context)
    load_evaluation_sets(context)


def load_metadata(context: Context) -> dict[str, MetadataTable]:
    """Return the metadata table of each source that has one.

    Raises:
        InputError: a table cannot be read, has no key column, or a key twice.
    """
    from baltoro.papers.metadata import MetadataTable

    return {
        source.name: MetadataTable.load(source.metadata, context.storage)
        for source in context.recipe.corpus.sources
        if source.metadata is not None
    }


def count_metadata(table: MetadataTable, source: str, records: pa.Table) -> dict[str, int]:
    """Return how well a metadata table fits the documents of its source."""
    rows = [
        row["metadata_row"]
        for row in records.select(["source", "reason", "metadata_row"]).to_pylist()
        if row["source"] == source and row["reason"] is None
    ]
    matched = {row for row in rows if row is not None}
    return {
        "papers matched": sum(row is not None for row in rows),
        "papers without a row": sum(row is None for row in rows),
        "rows without a paper": len(table.rows.keys() - matched),
    }


def refuse_unusable(records: pa.Table, rejects: pa.Table) -> None:
    """Stop before anything is published when no record of any source can be used.

    Raises:
        InputError: with the counts of the reasons and three examples.
    """
    if rejects.num_rows == records.num_rows:
        counts: dict[str, int] = {}
        for reason in rejects.column("reason").to_pylist():
            counts[reason] = counts.get(reason, 0) + 1
        examples = [
            f"{row['uri']}: {row['reason']} ({row['detail']})" for row in rejects.slice(0, 3).to_pylist()
        ]
        raise InputError(
            f"none of the {records.num_rows} records of corpus.sources can be used: "
            + ", ".join(f"{count} {reason}" for reason, count in sorted(counts.items()))
            + "; for example "
            + "; ".join(examples)
            + ". Check corpus.sources, or look at one file with `baltoro papers show FILE`"
        )


def finish_corpus(
    context: Context, artifact: Artifact, tracker: Tracker, run: StageRun | None
) -> dict[str, Any]:
    """Return where the data card stands; not kept in the manifest, since a root may be copied elsewhere.

    What the passes of the build handed to each other is removed, also if an earlier command could not.
    """
    del tracker, run
    context.storage.delete_folder(join(artifact.uri, artifact.manifest.writer, STAGING))
    return {"data_card": artifact.uri_of("card/index.html")}


CORPUS = Stage(
    name="corpus",
    kind="corpus",
    version=2,
    parents=(),
    inputs=corpus_inputs,
    build=build_corpus,
    finish=finish_corpus,
    check=check_inputs,
    artifact_name=trial_name,
)
