"""Filter, MinHash, tokenise and pack rendered texts, against datatrove doing the equivalent steps.

Both work on the same texts with the same ``tokenizer.json``, in one process with one thread, texts in memory
at the start and files at the end; CPU seconds, in turns, without what is spent once. What each side does:

=========  ===================================================  ==============================================
step       Baltoro                                              datatrove (:mod:`datatrove_chain`)
=========  ===================================================  ==============================================
filter     words, language, parts, all scores, decision         Gopher quality, Gopher repetition
minhash    exact hash, signature (256 bins), bands, rows to a   stage 1: 5-grams, 14 × 8 = 112 hashes of 64
           file by partition                                    bits, 14 sorted bucket files
tokenise   batch encode, end token, best-fit packing into rows  DocumentTokenizer: batch encode, end token,
           of 2048, one compressed shard                        token file, documents shuffled, index
=========  ===================================================  ==============================================

Baltoro's words are made once and serve filter and MinHash (counted under filter). Every step of both gets
every document, whatever the filters say of it. Reading and writing JSON lines between datatrove's steps, as
its examples do, is left out.
"""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import time
from dataclasses import dataclass, field
from pathlib import Path

import fresh
import pyarrow as pa
from material import BYTES_PER_MB, Material, cpu_seconds, tokenise_and_pack, warm_up
from results import Row

from baltoro.core.errors import PlatformError
from baltoro.core.storage import Storage
from baltoro.corpus.config import CorpusConfig
from baltoro.corpus.dedup.exact import content_hash
from baltoro.corpus.dedup.keys import document_keys, key_table
from baltoro.corpus.filters import decide, facts_of, language_of, parts_of, score_document
from baltoro.corpus.words import words_of
from baltoro.corpus.work import WorkArea
from baltoro.papers.schema import Paper

BOUND = 5.0
STEPS = ("filter", "minhash", "tokenise")
SCRIPT = Path(__file__).with_name("datatrove_chain.py")
_PARTITIONS = 8


@dataclass(slots=True)
class Spent:
    """CPU seconds of each step, and what came out, so that the reader can compare the two sides' work."""

    size_mb: float
    seconds: dict[str, float] = field(default_factory=dict)
    kept: int = 0
    tokens: int = 0

    @property
    def speed(self) -> dict[str, float]:
        """MB per CPU second of each step, and of all together as ``chain``."""
        total = sum(self.seconds[step] for step in STEPS)
        return {step: self.size_mb / self.seconds[step] for step in STEPS} | {"chain": self.size_mb / total}


def measure_chain(
    material: Material, folder: Path, *, python: Path, size_mb: float, repetitions: int
) -> tuple[list[Row], str]:
    """Measure both sides in turns.

    Args:
        material: whose first texts are used.
        folder: where files are written.
        python: the interpreter of the environment that has datatrove.
        size_mb: how much text, in MB.
        repetitions: turns of each side; the medians count.

    Returns:
        The rows, and a line about what the two sides made of the documents.
    """
    texts = first_texts(material.texts(), size_mb)
    lines = folder / "texts.jsonl"
    lines.write_text("".join(json.dumps(text) + "\n" for text in texts))
    ours: list[Spent] = []
    theirs: list[Spent] = []
    with Datatrove(python, lines, material, folder) as datatrove:
        for _ in range(repetitions):
            ours.append(fresh.in_new_process(baltoro_chain, texts, material, folder))
            theirs.append(datatrove.measure())
    rows = [
        Row(
            f"chain/{material.name}" + ("" if step == "chain" else f"/{step}"),
            "MB/s",
            statistics.median(spent.speed[step] for spent in ours),
            statistics.median(spent.speed[step] for spent in theirs),
            BOUND if step == "chain" else None,
        )
        for step in ("chain", *STEPS)
    ]
    note = (
        f"chain/{material.name}: {len(texts)} documents; kept by the filters: Baltoro {ours[0].kept}, "
        f"datatrove {theirs[0].kept}; tokens written: Baltoro {ours[0].tokens:,}, "
        f"datatrove {theirs[0].tokens:,}"
    )
    return rows, note


def require_datatrove(python: Path) -> None:
    """Refuse to start without datatrove's environment.

    Raises:
        PlatformError: its interpreter is not there.
    """
    if not python.exists():
        raise PlatformError(
            f"{python}: the chain is compared with datatrove, which has an environment of its own that is "
            "not there; make it with `make bench-corpus`, name it with --datatrove-python, or leave the "
            "comparison out with --only whole,scale,workers"
        )


def first_texts(texts: list[str], size_mb: float) -> list[str]:
    """Return the first texts that hold so many MB, or all."""
    chosen: list[str] = []
    size = 0
    for text in texts:
        if size >= size_mb * BYTES_PER_MB:
            break
        chosen.append(text)
        size += len(text.encode())
    return chosen


def baltoro_chain(texts: list[str], material: Material, folder: Path) -> Spent:
    """Run Baltoro's steps over texts that are rendered already."""
    config, tokenizer = CorpusConfig(), material.tokenizer()
    documents = pa.table({"paper_id": [str(number) for number in range(len(texts))], "text": texts})
    warm_up(tokenizer)
    spent = Spent(sum(len(text.encode()) for text in texts) / BYTES_PER_MB)
    filtered = hashed = 0.0
    rows = []
    for number, text in enumerate(texts):
        started = time.process_time()
        words = words_of(text)
        parts = parts_of(text, words)
        facts = facts_of(Paper(), language_of(text, words, parts))
        verdict = decide(score_document(text, words, facts, parts=parts), facts, config.filters)
        filter_ended = time.process_time()
        rows.append(
            document_keys(
                Paper(),
                words,
                document=number,
                content_hash=content_hash(text),
                characters=len(text),
                config=config.dedup,
            )
        )
        hashed += time.process_time() - filter_ended
        filtered += filter_ended - started
        spent.kept += verdict is None
    area = WorkArea(Storage(), str(folder / "work"))
    hashed += cpu_seconds(
        lambda: area.write_partitions("keys", 0, key_table(rows, config.dedup), _PARTITIONS)
    )
    started = time.process_time()
    spent.tokens = tokenise_and_pack(documents, tokenizer, folder / "shard.parquet")
    spent.seconds = {"filter": filtered, "minhash": hashed, "tokenise": time.process_time() - started}
    return spent


class Datatrove:
    """A process of datatrove's environment that measures once per request; it imports before the first."""

    def __init__(self, python: Path, lines: Path, material: Material, folder: Path) -> None:
        self._log_path = folder / "datatrove.log"
        saved = material.tokenizer_folder / "tokenizer.json"
        eos_token = material.tokenizer().eos_token
        with self._log_path.open("w") as log:
            self._process = subprocess.Popen(
                [python, SCRIPT, lines, saved, eos_token, folder / "datatrove"],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=log,
                text=True,
                # Nothing of this process' Python may reach the other environment.
                env={key: value for key, value in os.environ.items() if not key.startswith("PYTHON")},
            )

    def __enter__(self) -> Datatrove:
        return self

    def __exit__(self, *exception: object) -> None:
        # It ends with its input.
        self._process.communicate()

    def measure(self) -> Spent:
        """Run its chain once more."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        try:
            self._process.stdin.write("\n")
            self._process.stdin.flush()
            answer = self._process.stdout.readline()
        except BrokenPipeError:
            answer = ""
        if not answer:
            raise PlatformError(f"datatrove's chain failed:\n{self._log_path.read_text()[-2000:]}")
        return Spent(**json.loads(answer))
