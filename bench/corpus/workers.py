"""Two Ray workers against one: how much faster corpus and tokens are built.

A worker is one logical CPU of a local Ray (``cluster.local_cpus``), and its libraries get one thread each: a
Rust or Arrow thread pool would otherwise lend the single worker the other's core. Times are those of the
stages, from the command's messages, so Ray's start does not count; that of its workers' imports does.
"""

from __future__ import annotations

from pathlib import Path

from collection_runs import build_tokens, write_papers
from results import Row

LEAST_SPEED_UP = 1.7
ONE_THREAD = {"TOKENIZERS_PARALLELISM": "false", "RAYON_NUM_THREADS": "1", "OMP_NUM_THREADS": "1"}
STAGES = ("corpus", "tokens")


def measure_workers(folder: Path, *, papers: int, words: int) -> list[Row]:
    """Run the command with one worker and with two, on the same collection.

    Args:
        folder: an empty folder to work in.
        papers: how many.
        words: mean words of a paper.
    """
    collection = folder / "papers"
    # More tasks than the smallest collection has: the last one must not leave a worker idle for long.
    size_mb = write_papers(collection, papers, smallest=papers // 4, words=words)
    one, two = (
        build_tokens(
            collection, folder / f"run-{workers}", cpus=workers, environment=ONE_THREAD
        ).stage_seconds
        for workers in (1, 2)
    )

    def row(name: str, stages: tuple[str, ...], bound: float | None = None) -> Row:
        value, baseline = (size_mb / sum(run[stage] for stage in stages) for run in (two, one))
        return Row(name, "MB/s", value, baseline, bound)

    return [
        row("workers/corpus_and_tokens", STAGES, LEAST_SPEED_UP),
        *(row(f"workers/{stage}", (stage,)) for stage in STAGES),
    ]
