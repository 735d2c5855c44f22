"""One task's work, as a plain function: read some objects, clean, render and filter their papers.

The outcome is two Arrow tables, documents and rejects; every record read stands in exactly one of them.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import pyarrow as pa

from baltoro.core.storage import Storage
from baltoro.corpus.clean import clean_paper
from baltoro.corpus.config import CorpusConfig, FilterConfig
from baltoro.corpus.exact_dedup import content_hash
from baltoro.corpus.listing import Chunk
from baltoro.papers.metadata import ROW_KEY, MetadataTable
from baltoro.papers.reader import read_object, reject_too_large
from baltoro.papers.renderers import render
from baltoro.papers.schema import REJECT_SCHEMA, Paper, Reject

DOCUMENT_SCHEMA = pa.schema(
    [
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
        ("text", pa.string()),
        ("characters", pa.int64()),
        ("content_hash", pa.string()),
        ("metadata_row", pa.string()),
    ]
)
"""One rendered document per row; the corpus artifact adds the column ``split``.

``metadata_row`` names the row of the source's metadata table that was joined, null where there is none.
"""

FILTER_REASONS: dict[str, str] = {
    "empty_document": "nothing is left after cleaning and rendering",
    "too_short": "fewer characters than corpus.filters.min_characters",
    "too_long": "more characters than corpus.filters.max_characters",
}
"""Every reason a readable paper can be refused for here, with its meaning."""


@dataclass(frozen=True, slots=True)
class ChunkOutcome:
    """What became of one chunk: ``documents`` in :data:`DOCUMENT_SCHEMA`, ``rejects`` in REJECT_SCHEMA.

    ``formats`` counts the papers that were read, by input format.
    """

    documents: pa.Table
    rejects: pa.Table
    formats: dict[str, int]


def process_chunk(
    chunk: Chunk,
    config: CorpusConfig,
    storage: Storage,
    metadata: Mapping[str, MetadataTable],
) -> ChunkOutcome:
    """Turn the objects of a chunk into documents and rejects.

    Args:
        chunk: the objects, all of one source.
        config: the recipe's corpus section.
        storage: opens the objects.
        metadata: metadata table by source name, where the source has one.

    Raises:
        BaltoroError: an object that was listed cannot be read any more, or was replaced; the build stops,
            since a paper would otherwise vanish, or another stand under the listed fingerprint.
    """
    source = config.sources[chunk.source_index]
    documents: list[dict[str, Any]] = []
    rejects: list[Reject] = []
    formats: dict[str, int] = {}
    for entry in chunk.objects:
        if entry.size_bytes > config.limits.max_object_bytes:
            rejects.append(
                reject_too_large(
                    entry.size_bytes, key=entry.key, uri=entry.uri, source=source.name, limits=config.limits
                )
            )
            continue
        records = read_object(
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
        for record in records:
            if isinstance(record, Reject):
                rejects.append(record)
                continue
            formats[record.format] = formats.get(record.format, 0) + 1
            outcome = make_document(clean_paper(record, config.clean), source.style, config.filters)
            if isinstance(outcome, Reject):
                rejects.append(outcome)
            else:
                documents.append(outcome)
    return ChunkOutcome(
        documents=pa.Table.from_pylist(documents, schema=DOCUMENT_SCHEMA),
        rejects=pa.Table.from_pylist(
            [{name: getattr(reject, name) for name in REJECT_SCHEMA.names} for reject in rejects],
            schema=REJECT_SCHEMA,
        ),
        formats=formats,
    )


def make_document(paper: Paper, style: str, filters: FilterConfig) -> dict[str, Any] | Reject:
    """Render a paper and apply the filters; return a row of :data:`DOCUMENT_SCHEMA`, or why not."""
    text = render(paper, style)
    length = len(text)
    if not text.strip():
        return _refuse(paper, "empty_document", f"format {paper.format}")
    if length < filters.min_characters:
        return _refuse(paper, "too_short", f"{length} characters, at least {filters.min_characters} wanted")
    if filters.max_characters is not None and length > filters.max_characters:
        return _refuse(paper, "too_long", f"{length} characters, at most {filters.max_characters} wanted")
    return {
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
        "language": paper.language,
        "text": text,
        "characters": length,
        "content_hash": content_hash(text),
        "metadata_row": paper.extra.get(ROW_KEY),
    }


def _refuse(paper: Paper, reason: str, detail: str) -> Reject:
    return Reject(paper_id=paper.paper_id, uri=paper.uri, stage="filter", reason=reason, detail=detail)
