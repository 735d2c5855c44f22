"""Papers to written shards, against nothing but the batch encode of the same texts.

The baseline is the tokenizers library's ``encode_batch_fast`` of the rendered texts, one thread: what any
pipeline on that library spends at the least. The whole path runs without Ray, with each hand-over of the real
stages: parse, clean, render, filter, keys of copies; documents and keys to files; pairs and clusters of
copies; final documents to a file and back; tokenise, pack, write the shard.
"""

from __future__ import annotations

import statistics
from pathlib import Path

import fresh
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from material import Material, cpu_seconds, megabytes, tokenise_and_pack, warm_up
from results import Row

from baltoro.core.storage import Storage
from baltoro.corpus.config import CorpusConfig
from baltoro.corpus.dedup.clusters import KEPT, clusters_of, find_edges
from baltoro.corpus.documents import process_chunk
from baltoro.corpus.listing import Chunk
from baltoro.corpus.work import parquet_bytes

BOUNDS = {"without_minhash": 0.6, "with_minhash": 0.5}


def measure_whole(material: Material, folder: Path, repetitions: int) -> list[Row]:
    """Measure the bare encode and both paths in turns; medians of CPU seconds.

    Args:
        material: the papers.
        folder: where files are written.
        repetitions: turns of each.
    """
    spent: dict[str, list[float]] = {name: [] for name in ("encode", *BOUNDS)}
    for _ in range(repetitions):
        spent["encode"].append(fresh.in_new_process(seconds_of_encode, material))
        for name in BOUNDS:
            near = name == "with_minhash"
            spent[name].append(fresh.in_new_process(seconds_of_path, material, folder, near=near))
    size_mb = megabytes(material.texts())
    speed = {name: size_mb / statistics.median(seconds) for name, seconds in spent.items()}
    return [
        Row(f"whole/{material.name}/{name}", "MB/s", speed[name], speed["encode"], bound)
        for name, bound in BOUNDS.items()
    ]


def seconds_of_encode(material: Material) -> float:
    """Return the CPU seconds of the bare encode of all texts."""
    tokenizer, texts = material.bare_tokenizer(), material.texts()
    tokenizer.encode_batch_fast(["Something else, to begin with."])
    return cpu_seconds(lambda: tokenizer.encode_batch_fast(texts))


def seconds_of_path(material: Material, folder: Path, *, near: bool) -> float:
    """Return the CPU seconds of the whole path, with or without near-duplicate signatures."""
    settings = {"sources": [material.source.model_dump()], "dedup": {"near": {"enabled": near}}}
    config = CorpusConfig.model_validate(settings)
    tokenizer, chunk = material.tokenizer(), material.chunk()
    warm_up(tokenizer)
    return cpu_seconds(lambda: papers_to_shard(chunk, config, tokenizer, folder))


def papers_to_shard(chunk: Chunk, config: CorpusConfig, tokenizer: object, folder: Path) -> int:
    """Take papers to one written shard; returns its number of tokens."""
    outcome = process_chunk(chunk, config, Storage(), {})
    staged, keys = folder / "staged.parquet", folder / "keys.parquet"
    staged.write_bytes(parquet_bytes(outcome.documents))
    keys.write_bytes(parquet_bytes(outcome.keys))
    clusters = clusters_of(find_edges(pq.read_table(keys), config.dedup))
    documents = pq.read_table(staged)
    gone = clusters.documents[clusters.levels != KEPT]
    kept = documents.filter(pa.array(np.isin(documents.column("number").to_numpy(), gone, invert=True)))
    final = folder / "documents.parquet"
    final.write_bytes(parquet_bytes(kept))
    texts = pq.read_table(final, columns=["paper_id", "text"])
    return tokenise_and_pack(texts, tokenizer, folder / "shard.parquet")
