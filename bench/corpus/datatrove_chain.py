"""datatrove's filters, MinHash signatures and tokenisation, measured. Runs where datatrove is installed.

    python datatrove_chain.py TEXTS.jsonl TOKENIZER.json EOS_TOKEN FOLDER

For every line on standard input the chain runs once, and one line of JSON says how many CPU seconds each
step took, of this process and its children. The steps are datatrove's own blocks with their default
settings, each in a ``LocalPipelineExecutor`` with one task and one worker, which runs it in this process:

filter     ``GopherQualityFilter``, ``GopherRepetitionFilter``, English: spaCy's blank tokenizer, which is
           datatrove's default for English and needs no data; both filters share the words of a text
minhash    ``MinhashDedupSignature``: 5-grams, 14 buckets of 8 hashes, xxhash of 64 bits
tokenise   ``DocumentTokenizer``: batches of 10,000 documents, end token, documents shuffled, index

Texts come from memory, and every step gets all of them. What does not depend on the number of documents
(starting the executor, sorting what is nearly empty, logging) is taken out: each step runs over the first
tenth and over all of the documents, after a warm-up, and the difference is reported with its size.
"""

import json
import os
import resource
import shutil
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

os.environ["TOKENIZERS_PARALLELISM"] = "false"

from datatrove.data import Document
from datatrove.executor import LocalPipelineExecutor
from datatrove.pipeline.base import PipelineStep
from datatrove.pipeline.dedup import MinhashDedupSignature
from datatrove.pipeline.filters import GopherQualityFilter, GopherRepetitionFilter
from datatrove.pipeline.tokens import DocumentTokenizer

BYTES_PER_MB = 1_000_000
WARM_UP_DOCUMENTS = 10


def main() -> None:
    texts_path, tokenizer, eos_token, folder = sys.argv[1:]
    texts = [json.loads(line) for line in Path(texts_path).read_text().splitlines()]
    results = os.fdopen(os.dup(1), "w")
    # datatrove may print; standard output holds results alone.
    os.dup2(2, 1)

    def filters(_: Path) -> list[PipelineStep]:
        return [GopherQualityFilter(), GopherRepetitionFilter()]

    def minhash(out: Path) -> list[PipelineStep]:
        return [MinhashDedupSignature(str(out / "signatures"))]

    def tokenise(out: Path) -> list[PipelineStep]:
        return [DocumentTokenizer(str(out / "tokens"), tokenizer, eos_token=eos_token, seed=0)]

    steps = {"filter": filters, "minhash": minhash, "tokenise": tokenise}
    part = texts[: max(1, len(texts) // 10)]
    for steps_of in steps.values():
        run(steps_of, texts[:WARM_UP_DOCUMENTS], Path(folder))
    for _ in sys.stdin:
        seconds = {}
        outcome: dict[str, int] = {}
        for name, steps_of in steps.items():
            first, _ignored = run(steps_of, part, Path(folder))
            whole, outcome[name] = run(steps_of, texts, Path(folder))
            seconds[name] = whole - first
        size_mb = (size(texts) - size(part)) / BYTES_PER_MB
        answer = {
            "size_mb": size_mb,
            "seconds": seconds,
            "kept": outcome["filter"],
            "tokens": outcome["tokenise"],
        }
        results.write(json.dumps(answer) + "\n")
        results.flush()


def run(steps_of: Callable[[Path], list[PipelineStep]], texts: list[str], folder: Path) -> tuple[float, int]:
    """Run blocks over texts; returns CPU seconds, and what the last block counted: tokens, or documents."""
    shutil.rmtree(folder, ignore_errors=True)
    documents = [Document(text=text, id=str(number)) for number, text in enumerate(texts)]

    def read(_data: Any, _rank: int, _world_size: int) -> Iterator[Document]:
        return iter(documents)

    executor = LocalPipelineExecutor(
        [read, *steps_of(folder)], tasks=1, workers=1, logging_dir=str(folder / "logs")
    )
    started = used()
    stats = executor.run()
    seconds = used() - started
    last = stats.stats[-1].stats
    counted = last["tokens"] if "tokens" in last else last.get("forwarded", last.get("total"))
    return seconds, int(counted.total)


def used() -> float:
    """Return the CPU seconds used so far, children that have ended included."""
    own, children = (resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    return own.ru_utime + own.ru_stime + children.ru_utime + children.ru_stime


def size(texts: list[str]) -> int:
    """Return the bytes of texts in UTF-8."""
    return sum(len(text.encode()) for text in texts)


if __name__ == "__main__":
    main()
