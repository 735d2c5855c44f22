"""How fast papers become packed rows, against the bare batch encode of the tokenizer.

    python bench/corpus/bench_corpus.py [--papers FOLDER] [--documents N] [--repetitions N] [--json]

All figures are MB of rendered text per CPU second of one core, of the same documents in one process; the
whole path and the bare encode take turns, and the median of the repetitions is reported.

``without_minhash``  parse, clean, render, filter, exact copies and versions, tokenise, pack; bound 0.6
``with_minhash``     the same with near-duplicate signatures; bound 0.5
``chain``            filters, signatures, tokenise and pack of texts that are rendered already (no bound here:
                     it is to be compared with other libraries' chains on the same documents)

The papers are those of ``--papers``; without it, generated S2ORC papers. ``--json`` prints
``{name: {value, baseline, ratio, bound, passed}}``. Exit code 3: a ratio is below its bound; 2: the folder
holds no papers.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

os.environ["TOKENIZERS_PARALLELISM"] = "false"

import numpy as np

from baltoro.core.errors import InputError
from baltoro.core.storage import Storage
from baltoro.corpus.config import CorpusConfig, SourceConfig
from baltoro.corpus.dedup.minhash import signature_of
from baltoro.corpus.documents import process_chunk
from baltoro.corpus.filters import decide, facts_of, language_of, parts_of, score_document
from baltoro.corpus.listing import Chunk, list_source
from baltoro.corpus.words import words_of
from baltoro.data.config import DataConfig, TokenizerConfig
from baltoro.data.pack import plan_packing
from baltoro.data.tokenise import tokenise_documents
from baltoro.data.tokenizer import text_only, train_tokenizer
from baltoro.papers.schema import Paper
from baltoro.testing.collections import Plan, write_collection

BYTES_PER_MB = 1_000_000
VOCABULARY = 16_000


def cpu_seconds(work: Callable[[], object]) -> float:
    started = time.process_time()
    work()
    return time.process_time() - started


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--papers", type=Path, help="a folder of parsed papers (default: generated ones)")
    parser.add_argument("--documents", type=int, default=600, help="generated papers (default: 600)")
    parser.add_argument("--repetitions", type=int, default=3, help="turns of each (default: 3)")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        folder = arguments.papers
        if folder is None:
            folder = Path(temporary)
            write_collection(folder, Plan(arguments.documents, words=3000))
        try:
            results = measure(folder, arguments.repetitions)
        except InputError as error:
            print(f"error: {error.message}", file=sys.stderr)
            return 2
    if arguments.json:
        print(json.dumps(results, indent=2))
    else:
        print(f"{'':18}{'MB/s':>8}{'encode':>8}{'ratio':>8}{'bound':>8}")
        for name, row in results.items():
            bound = "" if row["bound"] is None else f"{row['bound']:.2f}"
            mark = "" if row["passed"] else "  BELOW"
            print(f"{name:18}{row['value']:8.2f}{row['baseline']:8.2f}{row['ratio']:8.2f}{bound:>8}{mark}")
    return 0 if all(row["passed"] for row in results.values()) else 3


def measure(folder: Path, repetitions: int) -> dict[str, dict[str, Any]]:
    """Return value, baseline, ratio, bound and passed by name."""
    source = SourceConfig(name="s", uri=str(folder))
    with_near = CorpusConfig(sources=(source,))
    without = CorpusConfig.model_validate(
        {"sources": [source.model_dump()], "dedup": {"near": {"enabled": False}}}
    )
    data = DataConfig()
    storage = Storage()
    chunk = Chunk(0, 0, list_source(0, source, storage).objects)
    documents = process_chunk(chunk, with_near, storage, {}).documents
    texts = documents.column("text").to_pylist()
    size_mb = sum(len(text.encode()) for text in texts) / BYTES_PER_MB
    tokenizer = train_tokenizer(iter(texts), TokenizerConfig(vocab_size=VOCABULARY), [])

    def encode() -> None:
        with text_only(tokenizer) as backend:
            backend.encode_batch_fast(texts)

    def pack(table: Any) -> None:
        column = tokenise_documents(table, tokenizer, data).column("input_ids").combine_chunks()
        lengths = np.diff(column.offsets.to_numpy()).astype(np.int64)
        plan_packing(lengths, data.sequence_length, data.max_padding_fraction, 0)

    def whole(config: CorpusConfig) -> None:
        pack(process_chunk(chunk, config, storage, {}).documents)

    def chain() -> None:
        for text in texts:
            words = words_of(text)
            parts = parts_of(text, words)
            facts = facts_of(Paper(), language_of(text, words, parts))
            decide(score_document(text, words, facts, parts=parts), facts, with_near.filters)
            signature_of(words, with_near.dedup.near)
        pack(documents)

    paths: dict[str, tuple[Callable[[], object], float | None]] = {
        "without_minhash": (lambda: whole(without), 0.6),
        "with_minhash": (lambda: whole(with_near), 0.5),
        "chain": (chain, None),
    }
    bare: list[float] = []
    spent: dict[str, list[float]] = {name: [] for name in paths}
    for _ in range(repetitions):
        bare.append(cpu_seconds(encode))
        for name, (work, _bound) in paths.items():
            spent[name].append(cpu_seconds(work))
    baseline = size_mb / statistics.median(bare)
    results = {}
    for name, (_work, bound) in paths.items():
        value = size_mb / statistics.median(spent[name])
        ratio = value / baseline
        results[name] = {
            "value": round(value, 3),
            "baseline": round(baseline, 3),
            "ratio": round(ratio, 3),
            "bound": bound,
            "passed": bound is None or ratio >= bound,
        }
    return results


if __name__ == "__main__":
    sys.exit(main())
