"""First pass: each chunk of objects to staged documents, records and keys."""

from __future__ import annotations

import json
from dataclasses import dataclass

import pyarrow as pa

from baltoro.corpus.decontamination.canaries import canaries_of_chunk
from baltoro.corpus.documents import DOCUMENT_SCHEMA, ChunkOutcome, process_chunk
from baltoro.corpus.passes.build import Build
from baltoro.corpus.work import Task

_RECORD_COLUMNS = (
    "source",
    "format",
    "license",
    "language",
    "year",
    "venue",
    "characters",
    "text_bytes",
    "content_hash",
    "metadata_row",
    "contaminated",
    "excerpt",
)

RECORD_SCHEMA = pa.schema(
    [("number", pa.int64()), ("paper_id", pa.string()), ("uri", pa.string())]
    + [
        {"text_bytes": pa.field("text_bytes", pa.int64()), "excerpt": pa.field("excerpt", pa.string())}.get(
            name
        )
        or DOCUMENT_SCHEMA.field(name)
        for name in _RECORD_COLUMNS
    ]
    + [("split", pa.string()), ("stage", pa.string()), ("reason", pa.string()), ("detail", pa.string())]
)
"""What a build says of each record. Rejects have ``stage``, ``reason`` and ``detail``, documents a language,
a length and, once they are written, a ``split``; ``excerpt`` is the text's beginning, where there is text."""

EXCERPT_CHARACTERS = 300


@dataclass(frozen=True)
class ReadTask(Task):
    """Process one chunk: stage its documents, signatures and keys, and last its records."""

    build: Build

    def run(self, index: int) -> None:
        """Process the chunk."""
        build = self.build
        chunk = build.chunk(index)
        canaries = canaries_of_chunk(build.canaries, index, len(build.cut))
        outcome = process_chunk(
            chunk, build.config, build.storage, build.metadata, index=build.index, canaries=canaries
        )
        build.area.write("documents", index, outcome.documents)
        build.area.write("signatures", index, outcome.signatures)
        build.area.write_partitions("keys", index, outcome.keys, build.partitions)
        build.area.write("records", index, records_of(outcome, build.config.sources[chunk.source_index].name))


def records_of(outcome: ChunkOutcome, source: str) -> pa.Table:
    """Return a chunk's records in :data:`RECORD_SCHEMA`; its counts stand in the table's metadata."""
    refused = outcome.rejects.append_column(
        "source", pa.array([source] * outcome.rejects.num_rows, pa.string())
    )
    counts = {
        "cleaned": outcome.cleaned,
        "cleaned_papers": outcome.cleaned_papers,
        "canaries": {
            "planted": outcome.canaries.planted,
            "found": outcome.canaries.found,
            "missed": [
                [missed.set_name, missed.item_id, missed.length_class, missed.planted]
                for missed in outcome.canaries.missed
            ],
        },
    }
    table = pa.concat_tables([document_records(outcome.documents), complete(refused)]).sort_by("number")
    return table.replace_schema_metadata({"counts": json.dumps(counts)})


def document_records(documents: pa.Table) -> pa.Table:
    """Return the records of some documents; their ``split`` where they have one."""
    texts = documents.column("text")
    sizes = pa.compute.binary_length(texts.cast(pa.binary())).cast(pa.int64())
    excerpts = pa.compute.utf8_slice_codeunits(texts, 0, EXCERPT_CHARACTERS)
    return complete(documents.append_column("text_bytes", sizes).append_column("excerpt", excerpts))


def complete(table: pa.Table) -> pa.Table:
    """Return a table in :data:`RECORD_SCHEMA`, null where it lacks a column."""
    for entry in RECORD_SCHEMA:
        if entry.name not in table.column_names:
            table = table.append_column(entry, pa.nulls(table.num_rows, entry.type))
    return table.select(RECORD_SCHEMA.names).cast(RECORD_SCHEMA)
