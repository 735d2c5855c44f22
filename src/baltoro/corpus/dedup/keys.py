"""The rows that documents exchange to find their copies: one per key, with all that a verdict needs.

Rows are partitioned by ``key``; a partition needs nothing else (:mod:`~baltoro.corpus.dedup.clusters`).
With the default settings a document has about 68 rows of 166 bytes: 64 bands, its text's hash, and up to
five version keys.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import get_args

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from baltoro.corpus.dedup.config import DedupConfig
from baltoro.corpus.dedup.minhash import Sketch, containment, signature_of, similarity
from baltoro.corpus.dedup.versions import (
    NO_TITLE,
    KeyKind,
    keep_rank,
    missing_structure,
    title_key,
    version_keys,
    version_names,
)
from baltoro.corpus.words import Hashes, Words
from baltoro.papers.config import InputFormat
from baltoro.papers.schema import Paper

_FORMAT_CODES = {name: code for code, name in enumerate(sorted(get_args(InputFormat)))}
_UNKNOWN_FORMAT = 255


def key_schema(config: DedupConfig) -> pa.Schema:
    """Return the schema of exchanged rows: one per document and key.

    ``kind`` is a :class:`~baltoro.corpus.dedup.versions.KeyKind`; ``rank`` sorts the better copy first;
    ``title`` is equal where titles agree and 0 where there is none; ``sketch`` estimates similarity.
    """
    return pa.schema(
        [
            ("key", pa.uint64()),
            ("kind", pa.uint8()),
            ("document", pa.int64()),
            ("rank", pa.uint64()),
            ("title", pa.uint64()),
            ("shingles", pa.int32()),
            ("format", pa.uint8()),
            ("sketch", pa.binary(config.near.bins // 2)),
        ]
    )


@dataclass(frozen=True, slots=True)
class DocumentKeys:
    """All keys of one document; the other values are the same in each of its rows."""

    document: int
    keys: Hashes
    kinds: npt.NDArray[np.uint8]
    rank: int
    title: int
    shingles: int
    format: int
    sketch: Sketch


def document_keys(
    paper: Paper,
    words: Words,
    *,
    document: int,
    content_hash: str,
    characters: int,
    config: DedupConfig,
) -> DocumentKeys:
    """Return the keys by which a document meets its copies.

    Args:
        paper: the cleaned paper. words: the words of its rendered text. document: a number of its own from
        0 to 2^63 - 1. Of copies equal in rank the smallest number stays and
            names the cluster, so number documents in the order of their paper_id.
        content_hash: hash of the rendered text, at least 16 hexadecimal digits.
        characters: length of the rendered text.
        config: which keys are made.
    """
    signature = signature_of(words, config.near)
    named = [(int(kind), key) for kind, key in version_keys(paper, config.versions)]
    if config.exact:
        named.append((int(KeyKind.EXACT), int(content_hash[:16], 16)))
    bands = signature.band_keys if config.near.enabled else signature.band_keys[:0]
    return DocumentKeys(
        document=document,
        keys=np.concatenate([np.array([key for _, key in named], np.uint64), bands]),
        kinds=np.concatenate(
            [
                np.array([kind for kind, _ in named], np.uint8),
                np.full(len(bands), int(KeyKind.NEAR), np.uint8),
            ]
        ),
        rank=keep_rank(paper, characters, config.keep).packed(config.keep),
        title=title_key(paper, config.versions),
        shingles=signature.shingles,
        format=_FORMAT_CODES.get(paper.format, _UNKNOWN_FORMAT),
        sketch=signature.sketch,
    )


def key_table(documents: Sequence[DocumentKeys], config: DedupConfig) -> pa.Table:
    """Return the rows of some documents in :func:`key_schema`, ready to be partitioned by ``key``."""
    schema = key_schema(config)
    if not documents:
        return schema.empty_table()
    counts = np.array([len(entry.keys) for entry in documents])
    width = config.near.bins // 2

    def repeated(name: str, dtype: npt.DTypeLike) -> npt.NDArray[np.generic]:
        return np.repeat(np.array([getattr(entry, name) for entry in documents], dtype), counts)

    sketches = np.repeat(np.stack([entry.sketch for entry in documents]), counts, axis=0)
    return pa.table(
        [
            np.concatenate([entry.keys for entry in documents]),
            np.concatenate([entry.kinds for entry in documents]),
            repeated("document", np.int64),
            repeated("rank", np.uint64),
            repeated("title", np.uint64),
            repeated("shingles", np.int32),
            repeated("format", np.uint8),
            pa.FixedSizeBinaryArray.from_buffers(
                pa.binary(width), len(sketches), [None, pa.py_buffer(sketches.tobytes())]
            ),
        ],
        schema=schema,
    )


def partition_of(keys: Hashes, partitions: int) -> npt.NDArray[np.int64]:
    """Return the partition of each key, from 0 to ``partitions`` - 1; keys are hashes, so it is even."""
    return (keys % np.uint64(partitions)).astype(np.int64)


def explain_document(paper: Paper, words: Words, characters: int, config: DedupConfig) -> dict[str, str]:
    """Return what deduplication knows of one document, in words: its names, its rank, its signature."""
    signature = signature_of(words, config.near)
    rank = keep_rank(paper, characters, config.keep)
    names = {
        f"key {kind.name.lower()}": " / ".join(part for part in parts if part)
        for kind, parts in version_names(paper, config.versions)
    }
    return {
        **names,
        "rank": ", ".join(f"{name}={value}" for name, value in rank._asdict().items()),
        "rank order": ", ".join(config.keep.order),
        "structure missing": ", ".join(missing_structure(paper)) or "nothing",
        "shingles": str(signature.shingles),
        "bands": str(len(signature.band_keys) if config.near.enabled else 0),
    }


def explain_pair(one: DocumentKeys, other: DocumentKeys) -> dict[str, str]:
    """Return why two documents are, or are not, copies: shared keys, similarity, and which is better."""
    shared = {
        kind.name.lower(): len(np.intersect1d(one.keys[one.kinds == kind], other.keys[other.kinds == kind]))
        for kind in KeyKind
    }
    alike = similarity(one.sketch, other.sketch)
    held = containment(alike, np.array(one.shingles), np.array(other.shingles))
    return {
        "shared keys": ", ".join(f"{name} {count}" for name, count in shared.items() if count) or "none",
        "estimated similarity": f"{float(alike):.2f}",
        "estimated part of the shorter in the longer": f"{float(held):.2f}",
        "titles agree": "yes" if one.title == other.title != NO_TITLE else "no",
        "better by rank": "neither" if one.rank == other.rank else str(min(one, other, key=_rank).document),
    }


def _rank(entry: DocumentKeys) -> int:
    return entry.rank
