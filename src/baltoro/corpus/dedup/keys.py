"""The rows that documents exchange to find their copies: one per key, with all that a verdict needs.

Rows are partitioned by ``key``; a partition needs nothing else (:mod:`~baltoro.corpus.dedup.clusters`).
With the default settings a document has about 68 rows of 166 bytes: 64 bands, its text's hash, and up to
five version keys.

A corpus keeps the same in 0.8 kB per document (:func:`signature_schema`), so that papers that arrive later
can be held against it without its texts: :func:`settled_rows` makes rows again of those whose keys occur
among the new ones (:class:`KeyFilter`).
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import get_args

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from baltoro.corpus.dedup.config import DedupConfig
from baltoro.corpus.dedup.minhash import Sketch, containment, signature_of, similarity
from baltoro.corpus.dedup.versions import (
    NO_TITLE,
    SETTLED_RANK,
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


def signature_schema(config: DedupConfig) -> pa.Schema:
    """Return the schema of what a corpus keeps of each document to find its later copies.

    ``kept`` is the number of the document that stands for it in the corpus (its own, if it stayed); ``rank``
    is its own. ``keys`` and ``kinds`` are parallel lists.
    """
    return pa.schema(
        [
            ("number", pa.int64()),
            ("kept", pa.int64()),
            ("paper_id", pa.string()),
            ("rank", pa.uint64()),
            ("title", pa.uint64()),
            ("shingles", pa.int32()),
            ("format", pa.uint8()),
            ("sketch", pa.binary(config.near.bins // 2)),
            ("keys", pa.list_(pa.uint64())),
            ("kinds", pa.list_(pa.uint8())),
        ]
    )


def signature_table(
    documents: Sequence[DocumentKeys], paper_ids: Sequence[str], config: DedupConfig
) -> pa.Table:
    """Return what is kept of some documents in :func:`signature_schema`; each stands for itself so far."""
    schema = signature_schema(config)
    numbers = pa.array([entry.document for entry in documents], pa.int64())
    sketches = [entry.sketch.tobytes() for entry in documents]
    return pa.table(
        [
            numbers,
            numbers,
            pa.array(list(paper_ids), pa.string()),
            *(
                pa.array([getattr(entry, name) for entry in documents], schema.field(name).type)
                for name in ("rank", "title", "shingles", "format")
            ),
            pa.array(sketches, schema.field("sketch").type),
            pa.array([entry.keys for entry in documents], schema.field("keys").type),
            pa.array([entry.kinds for entry in documents], schema.field("kinds").type),
        ],
        schema=schema,
    )


@dataclass(frozen=True, slots=True)
class KeyFilter:
    """Says of a key whether it may occur in a set: never wrongly no, wrongly yes for few.

    One bit per key of the set and 15 more (at most 64 MiB in all), chosen by the key's low bits: 6 % of other
    keys pass up to 30 million keys, a quarter at 150 million. What passes wrongly costs time, not results.
    """

    bits: Hashes

    @classmethod
    def of(cls, batches: Iterable[Hashes], keys: int) -> KeyFilter:
        """Return the filter of some batches of keys, ``keys`` in all."""
        size_bits = min(max(keys * 16, 1 << 16), 1 << 29)
        bits = np.zeros((1 << (size_bits - 1).bit_length()) // 64, np.uint64)
        for batch in batches:
            np.bitwise_or.at(bits, *_bit_of(batch, len(bits)))
        return cls(bits)

    def may_hold(self, keys: Hashes) -> npt.NDArray[np.bool_]:
        """Return for each key whether it may be in the set."""
        word, bit = _bit_of(keys, len(self.bits))
        held: npt.NDArray[np.bool_] = (self.bits[word] & bit) != 0
        return held


def _bit_of(keys: Hashes, words: int) -> tuple[npt.NDArray[np.int64], Hashes]:
    place = keys & np.uint64(words * 64 - 1)
    return (place >> np.uint64(6)).astype(np.int64), np.uint64(1) << (place & np.uint64(63))


def flat_keys(signatures: pa.Table) -> Hashes:
    """Return all keys of some signatures, document by document."""
    values: Hashes = signatures.column("keys").combine_chunks().flatten().to_numpy()
    return values


def settled_rows(signatures: pa.Table, wanted: KeyFilter, config: DedupConfig) -> pa.Table:
    """Return the rows, in :func:`key_schema`, by which new documents meet those of an earlier part.

    They rank before all new ones, under the number of the document that stands for them, and only those
    whose keys may occur among the new ones are made.
    """
    lists = signatures.column("keys").combine_chunks()
    counts = np.diff(lists.offsets.to_numpy())
    keys = lists.flatten().to_numpy()
    chosen = np.flatnonzero(wanted.may_hold(keys))
    owner = pa.array(np.repeat(np.arange(len(counts)), counts)[chosen])
    of_owner = signatures.select(["kept", "title", "shingles", "format", "sketch"]).take(owner)
    columns = {
        "key": pa.array(keys[chosen]),
        "kind": signatures.column("kinds").combine_chunks().flatten().take(pa.array(chosen)),
        "document": of_owner.column("kept"),
        "rank": pa.array(np.full(len(chosen), SETTLED_RANK, np.uint64)),
        **{name: of_owner.column(name) for name in ("title", "shingles", "format", "sketch")},
    }
    schema = key_schema(config)
    return pa.table([columns[name] for name in schema.names], schema=schema)


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
