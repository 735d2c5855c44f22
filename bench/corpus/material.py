"""What is measured: papers, the texts they become, their tokenizer, and the last steps to a shard.

Two kinds of papers: generated ones (:mod:`baltoro.testing.collections`, always there, the same on every
machine), and a folder of real ones. Each kind gets a tokenizer of its own, byte-level BPE trained on its own
texts with the markers of the rendering style, of 32,000 entries or as many as the texts give.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from baltoro.core.errors import InputError
from baltoro.core.storage import Storage
from baltoro.corpus.config import CorpusConfig, SourceConfig
from baltoro.corpus.documents import process_chunk
from baltoro.corpus.listing import Chunk, list_source
from baltoro.data.config import DataConfig, TokenizerConfig
from baltoro.data.pack import assemble_rows, plan_packing
from baltoro.data.shards import write_shard
from baltoro.data.tokenise import tokenise_documents
from baltoro.data.tokenizer import (
    load_tokenizer,
    padding_id,
    save_tokenizer,
    text_only,
    tokenizer_fingerprint,
    train_tokenizer,
)
from baltoro.papers.renderers import special_tokens
from baltoro.testing.collections import Plan, write_collection

BYTES_PER_MB = 1_000_000
VOCABULARY_TOKENS = 32_000

_WARM_UP = Plan(4, words=400, seed=1)
_CHECKED_TEXTS = 20


@dataclass(frozen=True)
class Material:
    """Papers to measure with, as files that a new process can read.

    Attributes:
        name: of the kind of papers, in row names.
        source: where they are, and how they are rendered.
        documents_path: what becomes of them with default settings; copies are still among it.
        tokenizer_folder: the tokenizer that was trained on the documents' texts.
        description: a line about it for the reader of the table.
    """

    name: str
    source: SourceConfig
    documents_path: Path
    tokenizer_folder: Path
    description: str

    def chunk(self) -> Chunk:
        """Return all papers as one task of the corpus stage gets them."""
        return chunk_of(self.source)

    def texts(self) -> list[str]:
        """Return the documents' texts."""
        texts: list[str] = pq.read_table(self.documents_path, columns=["text"]).column("text").to_pylist()
        return texts

    def tokenizer(self) -> Any:
        """Load the tokenizer."""
        return load_tokenizer(self.tokenizer_folder)

    def bare_tokenizer(self) -> Any:
        """Load the tokenizer with the tokenizers library alone, from its ``tokenizer.json``."""
        from tokenizers import Tokenizer

        return Tokenizer.from_file(str(self.tokenizer_folder / "tokenizer.json"))


def prepare(name: str, papers: Path, folder: Path) -> Material:
    """Read papers and train their tokenizer.

    Args:
        name: of the kind of papers.
        papers: their folder.
        folder: a new folder to write into.

    Raises:
        InputError: no paper there can be used, or the saved tokenizer gives other tokens.
    """
    source = SourceConfig(name=name, uri=str(papers))
    chunk = chunk_of(source)
    documents = process_chunk(chunk, CorpusConfig(sources=(source,)), Storage(), {}).documents
    if not documents.num_rows:
        raise InputError(f"{papers}: no paper there becomes a document; give another folder with --papers")
    texts = documents.column("text").to_pylist()
    config = TokenizerConfig(vocab_size=VOCABULARY_TOKENS)
    tokenizer = train_tokenizer(iter(texts), config, special_tokens(source.style))
    folder.mkdir(parents=True)
    pq.write_table(documents, folder / "documents.parquet")
    save_tokenizer(tokenizer, folder / "tokenizer")
    material = Material(
        name,
        source,
        folder / "documents.parquet",
        folder / "tokenizer",
        f"{name}: {len(chunk.objects)} files of {papers}, {len(texts)} documents, {megabytes(texts):.1f} MB "
        f"of text; tokenizer of {len(tokenizer):,} tokens",
    )
    check_same_tokens(material, tokenizer)
    return material


def chunk_of(source: SourceConfig) -> Chunk:
    """Return all objects of a source as one chunk."""
    return Chunk(0, 0, list_source(0, source, Storage()).objects)


def check_same_tokens(material: Material, tokenizer: Any) -> None:
    """Refuse a saved tokenizer with which the two sides would do different work.

    Args:
        material: whose ``tokenizer.json`` the other side reads.
        tokenizer: Baltoro's.

    Raises:
        InputError: the two disagree on a document.
    """
    bare = material.bare_tokenizer()
    with text_only(tokenizer) as backend:
        for text in material.texts()[:_CHECKED_TEXTS]:
            if bare.encode(text).ids != backend.encode(text).ids:
                raise InputError(
                    f"{material.tokenizer_folder}: tokenizer.json gives other tokens than the tokenizer that "
                    "was saved there, so the two sides would not do the same work; please report this"
                )


def warm_up(tokenizer: Any) -> None:
    """Take a few other papers all the way, so that what is loaded once is loaded."""
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        write_collection(folder / "papers", _WARM_UP)
        source = SourceConfig(name="warm-up", uri=str(folder / "papers"))
        outcome = process_chunk(chunk_of(source), CorpusConfig(sources=(source,)), Storage(), {})
        tokenise_and_pack(outcome.documents, tokenizer, folder / "shard.parquet")


def megabytes(texts: list[str]) -> float:
    """Return the size of texts in MB of UTF-8."""
    return sum(len(text.encode()) for text in texts) / BYTES_PER_MB


def cpu_seconds(work: Callable[[], object]) -> float:
    """Return the CPU seconds of this process, all its threads together, that some work takes."""
    started = time.process_time()
    work()
    return time.process_time() - started


def tokenise_and_pack(documents: pa.Table, tokenizer: Any, path: Path) -> int:
    """Tokenise documents, pack them with default settings, write one shard; returns the number of tokens."""
    config = DataConfig()
    column = tokenise_documents(documents, tokenizer, config).column("input_ids").combine_chunks()
    offsets = column.offsets.to_numpy().astype(np.int64)
    plan = plan_packing(np.diff(offsets), config.sequence_length, config.max_padding_fraction, 0)
    rows = assemble_rows(
        plan,
        range(plan.rows),
        tokens=column.values.to_numpy(),
        offsets=offsets,
        paper_index=np.arange(len(offsets) - 1, dtype=np.int32),
        padding_id=padding_id(tokenizer),
    )
    write_shard(
        rows,
        path,
        uri=path.as_uri(),
        rows_per_row_group=config.rows_per_row_group,
        tokenizer_fingerprint=tokenizer_fingerprint(tokenizer),
        origin="benchmark",
    )
    return int(offsets[-1])
