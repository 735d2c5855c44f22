"""What is left of a chunk once copies gave way: its documents, some of them merged from two parses."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pyarrow as pa

from baltoro.corpus.cleaning import clean_paper
from baltoro.corpus.dedup.merge import merge_parses
from baltoro.corpus.documents import DOCUMENT_SCHEMA, judge_paper, place_of, read_records
from baltoro.corpus.passes.build import Build
from baltoro.corpus.passes.copies import decisions_between
from baltoro.corpus.passes.read import EXCERPT_CHARACTERS, complete
from baltoro.papers.schema import Paper, Reject


@dataclass(frozen=True)
class KeptChunk:
    """A chunk after the decisions.

    Attributes:
        documents: in ``DOCUMENT_SCHEMA``, in the order of their numbers.
        gone: the decisions about its documents that gave way.
        refused: records, in ``RECORD_SCHEMA``, of those that became none only now.
        merged: documents made of two parses.
    """

    documents: pa.Table
    gone: pa.Table
    refused: pa.Table
    merged: int = 0


def kept_chunk(build: Build, index: int) -> KeptChunk:
    """Leave out what gave way, and merge what is to be merged."""
    staged = build.area.read("documents", index)
    decisions = decisions_between(build, *build.cut.numbers_of(index))
    gone = decisions.filter(pa.compute.not_equal(decisions.column("kind"), "kept"))
    mask = np.isin(staged.column("number").to_numpy(), gone.column("number").to_numpy(), invert=True)
    documents = staged.filter(pa.array(mask))
    to_merge = decisions.filter(pa.compute.is_valid(decisions.column("donor")))
    if not to_merge.num_rows:
        return KeptChunk(documents, gone, refused_records([]))
    pairs = {row["number"]: (row["frame"], row["donor"]) for row in to_merge.to_pylist()}
    rows: list[dict[str, Any]] = []
    refused: list[dict[str, Any]] = []
    merged = 0
    for row in documents.to_pylist():
        outcome = _merged(build, row, *pairs[row["number"]]) if row["number"] in pairs else row
        if isinstance(outcome, Reject):
            refused.append(reject_record(outcome, row))
        else:
            merged += outcome is not row
            rows.append(outcome)
    table = pa.Table.from_pylist(rows, schema=DOCUMENT_SCHEMA)
    return KeptChunk(table, gone, refused_records(refused), merged)


def refused_records(rows: list[dict[str, Any]]) -> pa.Table:
    """Return rows of :func:`reject_record` as a table in ``RECORD_SCHEMA``."""
    return complete(pa.Table.from_pylist(rows) if rows else pa.table({}))


def reject_record(reject: Reject, document: Mapping[str, Any]) -> dict[str, Any]:
    """Return the record of a document that is refused after all."""
    named = {name: getattr(reject, name) for name in ("paper_id", "uri", "stage", "reason", "detail")}
    excerpt = document["text"][:EXCERPT_CHARACTERS]
    return {"number": document["number"], "source": document["source"], "excerpt": excerpt, **named}


def _merged(build: Build, document: Mapping[str, Any], frame: int, donor: int) -> dict[str, Any] | Reject:
    """Return a document made of two parses of it, under the number and name of the one that stays."""
    base, other = _read_again(build, frame), _read_again(build, donor)
    # Cleaned first, as deduplication saw them; what cleaning does to the result is then nothing.
    clean_paper(base, build.config.clean)
    clean_paper(other, build.config.clean)
    paper, _ = merge_parses(base, other)
    paper = replace(paper, paper_id=document["paper_id"], uri=document["uri"], source=document["source"])
    judged = judge_paper(paper, document["number"], document["style"], build.config, build.index)
    if judged.document is None:
        assert judged.reject is not None, "a paper becomes a document or a reject"
        return judged.reject
    # The format is what was read under its name; what else is in it is said beside it.
    merged_from = f"{base.paper_id}, {other.paper_id}"
    return {**judged.document, "format": document["format"], "merged_from": merged_from}


def _read_again(build: Build, number: int) -> Paper:
    """Return the paper of a number, as it was read."""
    place, position = place_of(number)
    source = build.config.sources[int(build.cut.source_index[build.cut.chunk_of(place)])]
    (entry,) = build.objects(place, place + 1)
    record = read_records(entry, source, build.config, build.storage, build.metadata)[position]
    assert isinstance(record, Paper), "what became a document can be read"
    return record
