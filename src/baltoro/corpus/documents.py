"""One task's work, as a plain function: read some objects, clean, render, judge and name their papers.

The outcome is documents and rejects, and every record read stands in exactly one of them; beside them the
keys by which copies meet, and counts for the data card. Nothing here looks at more than one document.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import pyarrow as pa

from baltoro.core.storage import ObjectInfo, Storage
from baltoro.corpus.cleaning import clean_paper
from baltoro.corpus.config import CorpusConfig, SourceConfig
from baltoro.corpus.decontamination.canaries import CanaryCounts, try_canaries
from baltoro.corpus.decontamination.cut import CONTAMINATED, decontaminate
from baltoro.corpus.decontamination.matcher import ItemIndex
from baltoro.corpus.dedup.exact import content_hash
from baltoro.corpus.dedup.keys import DocumentKeys, document_keys, key_table, signature_table
from baltoro.corpus.filters import (
    FACT_SCHEMA,
    FILTER_REASONS,
    SCORE_SCHEMA,
    Facts,
    decide,
    facts_of,
    keywords_of,
    language_of,
    parts_of,
    score_document,
)
from baltoro.corpus.listing import Chunk
from baltoro.corpus.words import words_of
from baltoro.papers.metadata import ROW_KEY, MetadataTable
from baltoro.papers.reader import read_object, reject_too_large
from baltoro.papers.renderers import render
from baltoro.papers.schema import Paper, Reject

DOCUMENT_SCHEMA = pa.schema(
    [
        ("number", pa.int64()),
        ("paper_id", pa.string()),
        ("source", pa.string()),
        ("uri", pa.string()),
        ("format", pa.string()),
        ("style", pa.string()),
        ("article_type", pa.string()),
        ("title", pa.string()),
        ("year", pa.int32()),
        ("venue", pa.string()),
        ("doi", pa.string()),
        ("license", pa.string()),
        ("language", pa.string()),
        ("language_confidence", pa.float32()),
        ("declared_language", pa.string()),
        ("text", pa.string()),
        ("characters", pa.int64()),
        ("content_hash", pa.string()),
        ("metadata_row", pa.string()),
        ("contaminated", pa.string()),
        ("merged_from", pa.string()),
        ("repeated_bytes_cut", pa.int64()),
        *(SCORE_SCHEMA.field(name) for name in SCORE_SCHEMA.names if name != "characters"),
    ]
)
"""One rendered document per row; the corpus artifact adds the column ``split``.

``number`` is the document's place in the listing (:func:`number_of`). ``language`` is what the prose was
found to be written in, ``declared_language`` what the file says. ``metadata_row`` names the row of the
source's metadata table that was joined; ``contaminated`` says which evaluation item was found and cut, or
only reported; ``merged_from`` names the parses it is made of, the frame first; ``repeated_bytes_cut`` is the
size of passages cut because they stand in earlier documents. All are null where there is nothing to say. Then
come the scores of ``corpus/filters``.
"""

REPEATED = "repeated"

DOCUMENT_REASONS: dict[str, str] = {
    **FILTER_REASONS,
    CONTAMINATED: "holds an item of an evaluation set that must not be learned from",
    REPEATED: "what is left after passages of earlier documents were cut is no document any more",
}
"""Every reason a readable paper can be refused for here, with its meaning."""

RECORD_BITS = 24
"""An object may hold 2^24 records; a document's number has its object's place in the bits above."""


@dataclass(frozen=True, slots=True)
class ChunkOutcome:
    """What became of one chunk.

    Attributes:
        documents: in :data:`DOCUMENT_SCHEMA`, in the order of their numbers.
        rejects: in :data:`REJECTED_SCHEMA`.
        keys: the documents' rows in ``corpus/dedup``'s ``key_schema``.
        signatures: the same, one row per document, in its ``signature_schema``.
        cleaned: effects by cleaning rule, and papers with at least one.
        canaries: how many planted evaluation items were found.
    """

    documents: pa.Table
    rejects: pa.Table
    keys: pa.Table
    signatures: pa.Table
    cleaned: Mapping[str, int]
    cleaned_papers: Mapping[str, int]
    canaries: CanaryCounts


REJECTED_SCHEMA = pa.schema(
    [("number", pa.int64())]
    + [(name, pa.string()) for name in ("paper_id", "uri", "stage", "reason", "detail", "excerpt")]
)
"""A reject with its place in the listing and, where it has text, how that begins."""

_EXCERPT_CHARACTERS = 300


def place_of(number: int) -> tuple[int, int]:
    """Return the place of a document's object, and that of its record: what :func:`number_of` joins."""
    return number >> RECORD_BITS, number & ((1 << RECORD_BITS) - 1)


def number_of(object_place: int, record: int) -> int:
    """Return a document's number: ascending in the listing's order, whatever the cut into tasks.

    Args:
        object_place: place of its object among all objects of the listing, from 0.
        record: place of its record in the object, from 0.
    """
    return (object_place << RECORD_BITS) | record


@dataclass(frozen=True, slots=True)
class Judged:
    """What became of one paper: a document with its keys, or a reject.

    Attributes:
        number: its place in the listing.
        effects: what cleaning did, by rule.
        text: the rendered document; empty for a record that could not be read.
        document: a row of :data:`DOCUMENT_SCHEMA`.
        keys: by which its copies are found.
        reject: why it is not used.
    """

    number: int
    effects: Mapping[str, int] = field(default_factory=dict)
    text: str = ""
    document: dict[str, Any] | None = None
    keys: DocumentKeys | None = None
    reject: Reject | None = None


def process_chunk(
    chunk: Chunk,
    config: CorpusConfig,
    storage: Storage,
    metadata: Mapping[str, MetadataTable],
    *,
    index: ItemIndex | None = None,
    canaries: Sequence[int] = (),
) -> ChunkOutcome:
    """Turn the objects of a chunk into documents and rejects.

    Args:
        chunk: the objects, all of one source.
        config: the recipe's corpus section.
        storage: opens the objects.
        metadata: metadata table by source name, where the source has one.
        index: the evaluation items that must not be learned from, if any.
        canaries: those of them that are planted in copies of this chunk's documents, to measure recall.

    Raises:
        BaltoroError: an object that was listed cannot be read any more, or was replaced; the build stops,
            since a paper would otherwise vanish, or another stand under the listed fingerprint.
    """
    source = config.sources[chunk.source_index]
    judged: list[Judged] = []
    for place, entry in enumerate(chunk.objects, chunk.first_object):
        for position, record in enumerate(read_records(entry, source, config, storage, metadata)):
            number = number_of(place, position)
            judged.append(
                Judged(number, reject=record)
                if isinstance(record, Reject)
                else judge_paper(record, number, source.style, config, index)
            )
    documents = [entry.document for entry in judged if entry.document is not None]
    keys = [entry.keys for entry in judged if entry.keys is not None]
    found = CanaryCounts()
    if index is not None:
        texts = [document["text"] for document in documents]
        found = try_canaries(index, canaries, texts, config.decontaminate.canaries)
    return ChunkOutcome(
        documents=pa.Table.from_pylist(documents, schema=DOCUMENT_SCHEMA),
        rejects=pa.Table.from_pylist(
            [_reject_row(entry, entry.reject) for entry in judged if entry.reject is not None],
            schema=REJECTED_SCHEMA,
        ),
        keys=key_table(keys, config.dedup),
        signatures=signature_table(keys, [document["paper_id"] for document in documents], config.dedup),
        cleaned=_sum(entry.effects for entry in judged),
        cleaned_papers=Counter(rule for entry in judged for rule in entry.effects),
        canaries=found,
    )


def read_records(
    entry: ObjectInfo,
    source: SourceConfig,
    config: CorpusConfig,
    storage: Storage,
    metadata: Mapping[str, MetadataTable],
) -> Sequence[Paper | Reject]:
    """Return the records of one object; one too large is a reject.

    Raises:
        BaltoroError: it cannot be read any more, or was replaced since it was listed.
    """
    if entry.size_bytes > config.limits.max_object_bytes:
        return [
            reject_too_large(
                entry.size_bytes, key=entry.key, uri=entry.uri, source=source.name, limits=config.limits
            )
        ]
    return read_object(
        storage.read_bytes(entry.uri, etag=entry.etag),
        key=entry.key,
        uri=entry.uri,
        etag=entry.etag,
        source=source.name,
        format=source.format,
        text_column=source.text_column,
        metadata=metadata.get(source.name),
        limits=config.limits,
    )


def _sum(counts: Iterable[Mapping[str, int]]) -> Counter[str]:
    total: Counter[str] = Counter()
    for entry in counts:
        total.update(entry)
    return total


def _reject_row(judged: Judged, reject: Reject) -> dict[str, Any]:
    row = {name: getattr(reject, name) for name in ("paper_id", "uri", "stage", "reason", "detail")}
    return {"number": judged.number, **row, "excerpt": judged.text[:_EXCERPT_CHARACTERS] or None}


def judge_paper(
    paper: Paper, number: int, style: str, config: CorpusConfig, index: ItemIndex | None = None
) -> Judged:
    """Clean a paper in place, render it, and say whether it becomes a document.

    Args:
        paper: as read.
        number: its place in the listing, from :func:`number_of`.
        style: how it is rendered.
        config: the recipe's corpus section.
        index: the evaluation items that must not be learned from, if any.
    """
    effects = clean_paper(paper, config.clean)
    text = render(paper, style)
    words = words_of(text)

    def refused(stage: str, reason: str, detail: str) -> Judged:
        reject = Reject(paper_id=paper.paper_id, uri=paper.uri, stage=stage, reason=reason, detail=detail)
        return Judged(number, effects, text, reject=reject)

    contaminated = None
    if index is not None and (found := index.find(words, text)):
        outcome = decontaminate(text, found, config.decontaminate)
        if outcome.text is None:
            return refused("decontaminate", CONTAMINATED, outcome.detail)
        contaminated = f"{outcome.done}: {outcome.detail}"
        text, words = outcome.text, words_of(outcome.text)
    parts = parts_of(text, words)
    facts = facts_of(paper, language_of(text, words, parts))
    keywords = keywords_of(config.filters.keywords.any_of)
    scores = score_document(text, words, facts, parts=parts, keywords=keywords)
    verdict = decide(scores, facts, config.filters)
    if verdict is not None:
        return refused("filter", verdict.reason, verdict.detail)
    hashed = content_hash(text)
    keys = document_keys(
        paper, words, document=number, content_hash=hashed, characters=len(text), config=config.dedup
    )
    document = {
        **scores,
        "number": number,
        "paper_id": paper.paper_id,
        "source": paper.source,
        "uri": paper.uri,
        "format": paper.format,
        "style": style,
        "article_type": paper.article_type,
        "title": paper.title,
        "year": paper.year,
        "venue": paper.venue,
        "doi": paper.doi,
        "license": paper.license,
        "language": facts.language,
        "language_confidence": facts.language_confidence,
        "declared_language": paper.language,
        "text": text,
        "characters": len(text),
        "content_hash": hashed,
        "metadata_row": paper.extra.get(ROW_KEY),
        "contaminated": contaminated,
    }
    return Judged(number, effects, text, document, keys)


def judge_again(document: Mapping[str, Any], text: str, config: CorpusConfig) -> dict[str, Any] | Reject:
    """Return a document as it is after a part of its text was cut, or why it is not used any more.

    Its language and what the paper says of itself stay; scores, length and hash are those of the new text.

    Args:
        document: a row of :data:`DOCUMENT_SCHEMA`.
        text: what is left; may be empty.
        config: the recipe's corpus section.
    """

    def refused(detail: str) -> Reject:
        return Reject(
            paper_id=document["paper_id"], uri=document["uri"], stage="dedup", reason=REPEATED, detail=detail
        )

    if not text.strip():
        return refused("all of its text stands in earlier documents")
    words = words_of(text)
    parts = parts_of(text, words)
    facts = Facts(**{name: document[name] for name in FACT_SCHEMA.names})
    keywords = keywords_of(config.filters.keywords.any_of)
    scores = score_document(text, words, facts, parts=parts, keywords=keywords)
    verdict = decide(scores, facts, config.filters)
    if verdict is not None:
        return refused(f"without passages of earlier documents it is refused: {verdict.detail}")
    changed = {"text": text, "characters": len(text), "content_hash": content_hash(text)}
    return {**document, **scores, **changed}
