"""The corpus stage: sources of papers → a corpus artifact with rejects, duplicates and a data card."""

from __future__ import annotations

import hashlib
import logging
import time
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from baltoro.core.artifacts import Artifact, ArtifactWriter
from baltoro.core.errors import InputError
from baltoro.corpus.decontamination.cut import CONTAMINATED
from baltoro.corpus.dedup.clusters import LEVELS
from baltoro.jobs.extend import CORPUS_VERSION, corpus_settings
from baltoro.jobs.stages import Context, Stage, StageOutput, remove_staging
from baltoro.tracking.mlflow import StageRun, Tracker

if TYPE_CHECKING:
    from baltoro.corpus.decontamination.canaries import CanaryCounts
    from baltoro.corpus.decontamination.items import EvaluationSet
    from baltoro.corpus.figures import Figures
    from baltoro.papers.metadata import MetadataTable

logger = logging.getLogger(__name__)


def corpus_inputs(context: Context) -> dict[str, Any]:
    """Return what identifies a corpus: its settings, and each source by the content that is read."""
    inputs = corpus_settings(context.recipe.corpus, context.storage)
    for index, listing in enumerate(context.listings):
        inputs[f"corpus.sources.{index}.objects"] = len(listing.objects)
        inputs[f"corpus.sources.{index}.listing"] = listing.digest()
        if listing.source.metadata is not None:
            # The table counts by content, wherever it stands.
            table = metadata_bytes(context, index)
            inputs[f"corpus.sources.{index}.metadata.digest"] = hashlib.sha256(table).hexdigest()[:16]
    return inputs


def build_corpus(
    context: Context, parents: Mapping[str, Artifact], writer: ArtifactWriter, run: StageRun
) -> StageOutput:
    """Build the corpus, or the part that a snapshot adds to another one, and log its data card.

    Raises:
        InputError: no paper of any source can be used.
    """
    from baltoro.corpus.card import DataCard, card_files
    from baltoro.corpus.decontamination.canaries import judge_recall
    from baltoro.corpus.decontamination.matcher import ItemIndex
    from baltoro.corpus.pipeline import build_documents, work_folder

    del parents
    config = context.recipe.corpus
    extension = context.extension
    started = time.monotonic()
    metadata = load_metadata(context)
    sets = load_evaluation_sets(context)
    items = [item for evaluation in sets for item in evaluation.items]
    index = ItemIndex.build(items, config.decontaminate.match) if items else None
    writer.adopt_folder(work_folder(config), shared=True)
    totals = build_documents(
        config,
        context.listings,
        context.storage,
        metadata,
        index,
        writer,
        extension.earlier if extension is not None else None,
    )
    figures = totals.figures
    canaries = canary_counts(totals.canaries)
    warning = judge_recall(canaries, config.decontaminate.canaries)
    if warning is not None:
        logger.warning("%s", warning)
    refuse_unusable(figures)
    if totals.ranks_better:
        logger.warning("%s", older_versions_message(totals.ranks_better))
    extends = None
    if extension is not None:
        extends = {**extension.figures(), "older_versions_kept": totals.ranks_better}
    card = DataCard.from_figures(
        name=context.recipe.name,
        fingerprint=writer.fingerprint,
        figures=figures,
        cleaned=totals.cleaned,
        cleaned_papers=totals.cleaned_papers,
        evaluation_sets=[describe_set(evaluation) for evaluation in sets],
        items_too_short=len(index.too_short) if index is not None else 0,
        canaries=canaries,
        clusters=totals.clusters,
        cluster_sizes={int(size): count for size, count in totals.cluster_sizes.items()},
        metadata_rows={name: len(table.rows) for name, table in metadata.items()},
        extends=extends,
        merged=totals.merged if config.dedup.versions.merge else None,
        cut=(totals.cut_documents, totals.cut_bytes) if config.dedup.repeated_spans.enabled else None,
    )
    for filename, data in card_files(card).items():
        writer.write_file(f"card/{filename}", data)
        run.log_bytes(data, f"data_card/{filename}")
    rejected, duplicates = dict(sorted(figures.rejected.items())), figures.duplicates
    run.log_metrics(
        {
            "corpus/papers_read": figures.papers_read,
            "corpus/papers_kept": figures.kept,
            "corpus/papers_rejected": sum(rejected.values()),
            "corpus/duplicates": sum(duplicates.values()),
            "corpus/text_bytes": figures.text_bytes,
            "corpus/build_seconds": time.monotonic() - started,
        }
    )
    summary: dict[str, Any] = {
        "papers_read": figures.papers_read,
        "kept": figures.kept,
        "rejected": rejected,
        "duplicates": {kind: duplicates.get(kind, 0) for kind in LEVELS},
        "contaminated": rejected.get(CONTAMINATED, 0),
        "documents": figures.kept,
        "bytes": figures.text_bytes,
    }
    if config.dedup.versions.merge:
        summary["merged"] = totals.merged
    if config.dedup.repeated_spans.enabled:
        summary["repeated_bytes_cut"] = totals.cut_bytes
        summary["documents_cut"] = totals.cut_documents
    if extends is not None:
        summary["extends"] = extends
        summary["documents"] = figures.kept + extends["documents"]
    if config.trial.enabled:
        summary["trial"] = extrapolate(context, summary, time.monotonic() - started)
    return StageOutput(
        counts={
            "papers_read": figures.papers_read,
            "kept": figures.kept,
            "rejected": sum(rejected.values()),
            "duplicates": sum(duplicates.values()),
            **{f"documents_{split}": count for split, count in sorted(figures.splits.items())},
        },
        summary=summary,
        extra={
            "documents_by_split": dict(sorted(figures.splits.items())),
            "merged": totals.merged,
            "repeated_bytes_cut": totals.cut_bytes,
        },
    )


def older_versions_message(count: int) -> str:
    """Return what people are told when an earlier part keeps versions that a whole build would replace."""
    return (
        f"{count} new papers gave way to an older version of theirs that stands in an earlier part and ranks "
        "lower (ranks_better in duplicates.parquet); to take the newer ones build the whole corpus anew, "
        "with corpus.extends=null"
    )


def canary_counts(plain: Mapping[str, Any]) -> CanaryCounts:
    """Return what the passes counted of planted evaluation items."""
    from baltoro.corpus.decontamination.canaries import CanaryCounts, MissedCanary

    return CanaryCounts(
        plain["planted"], plain["found"], tuple(MissedCanary(*missed) for missed in plain["missed"])
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
        source.name: MetadataTable.from_bytes(source.metadata, metadata_bytes(context, index))
        for index, source in enumerate(context.recipe.corpus.sources)
        if source.metadata is not None
    }


def metadata_bytes(context: Context, index: int) -> bytes:
    """Return the file of a source's metadata table.

    Raises:
        InputError: it cannot be read; names the setting.
    """
    config = context.recipe.corpus.sources[index].metadata
    assert config is not None, "only sources with a table are asked for it"
    try:
        return context.storage.read_bytes(config.uri)
    except InputError as error:
        raise InputError(f"corpus.sources.{index}.metadata.uri: {error.message}") from None


def refuse_unusable(figures: Figures) -> None:
    """Stop before anything is published when no record of any source can be used.

    Raises:
        InputError: with the counts of the reasons and three examples.
    """
    rejected = figures.rejected
    if not figures.papers_read or sum(rejected.values()) < figures.papers_read:
        return
    examples = [
        f"{row['paper_id']}: {row['reason']} ({row['detail']})" for row in figures.sample("rejects")[:3]
    ]
    raise InputError(
        f"none of the {figures.papers_read} records of corpus.sources can be used: "
        + ", ".join(f"{count} {reason}" for reason, count in sorted(rejected.items()))
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
    remove_staging(context, artifact)
    return {"data_card": artifact.uri_of("card/index.html")}


CORPUS = Stage(
    name="corpus",
    kind="corpus",
    version=CORPUS_VERSION,
    parents=(),
    inputs=corpus_inputs,
    build=build_corpus,
    finish=finish_corpus,
    check=check_inputs,
    artifact_name=trial_name,
)
