"""Ten times the papers: how much more time, and how much more memory in any process.

The command is run on three collections: twenty papers, which is nearly all start-up (Python, Ray, its
workers' imports, MLflow), a smaller and a larger one. Raw times flatter a short run, since start-up is in
both; ``beyond_start`` takes the first run's time off both and scales to ten times the papers.
"""

from __future__ import annotations

from pathlib import Path

from collection_runs import build_tokens, write_papers
from results import Row
from watched_command import Peak, WatchedRun

START_PAPERS = 20
MOST_TIME_FOR_TEN_TIMES = 10.5
MOST_MEMORY = 1.1
LEAST_LOOKS = 8
"""A process seen less often than that, about two seconds, is a passing helper such as ``git``."""

BYTES_PER_MB = 1_000_000


def measure_scale(folder: Path, *, sizes: tuple[int, int], words: int) -> tuple[list[Row], str]:
    """Run the command on collections of both sizes.

    Args:
        folder: an empty folder to work in.
        sizes: papers of the smaller and of the larger collection.
        words: mean words of a paper.

    Returns:
        The rows, and a line about the runs.
    """
    runs = {}
    texts_mb = {}
    for papers in (START_PAPERS, *sizes):
        collection = folder / f"papers-{papers}"
        texts_mb[papers] = write_papers(collection, papers, smallest=sizes[0], words=words)
        runs[papers] = build_tokens(collection, folder / f"run-{papers}")
    start, small, large = (runs[papers] for papers in (START_PAPERS, *sizes))
    note = (
        f"scale: {sizes[0]:,} and {sizes[1]:,} papers ({texts_mb[sizes[0]]:.0f} and {texts_mb[sizes[1]]:.0f} "
        f"MB of text); {START_PAPERS} papers take {start.seconds:.1f} s; stages of the larger run: "
        + ", ".join(f"{stage} {seconds:.1f} s" for stage, seconds in large.stage_seconds.items())
    )
    return [*time_rows(start, small, large, sizes), *memory_rows(small, large)], note


def time_rows(start: WatchedRun, small: WatchedRun, large: WatchedRun, sizes: tuple[int, int]) -> list[Row]:
    """Return the rows about time; bounds are those for ten times the papers, in proportion."""
    most = MOST_TIME_FOR_TEN_TIMES / 10 * sizes[1] / sizes[0]
    # The start-up run reads papers, too; both sides lose as many.
    proportion = (sizes[1] - START_PAPERS) / (sizes[0] - START_PAPERS)
    most_beyond = MOST_TIME_FOR_TEN_TIMES / 10 * proportion
    beyond = (large.seconds - start.seconds, small.seconds - start.seconds)
    cpu_beyond = (large.cpu_seconds - start.cpu_seconds, small.cpu_seconds - start.cpu_seconds)
    rows = [
        Row("scale/seconds", "s", large.seconds, small.seconds, most, at_most=True),
        Row("scale/seconds/beyond_start", "s", *beyond, most_beyond, at_most=True),
        Row("scale/cpu_seconds", "s", large.cpu_seconds, small.cpu_seconds),
        Row("scale/cpu_seconds/beyond_start", "s", *cpu_beyond),
    ]
    rows += [
        Row(f"scale/seconds/{stage}", "s", large.stage_seconds[stage], small.stage_seconds[stage])
        for stage in large.stage_seconds
    ]
    return rows


def memory_rows(small: WatchedRun, large: WatchedRun) -> list[Row]:
    """Return the rows about memory: per role, the largest peak of any of its processes.

    A role that only the larger run has gets a row whose bound is missed: there is nothing to hold it to.
    """
    rows = []
    lasting = {role: peak for role, peak in large.peaks.items() if peak.looks >= LEAST_LOOKS}
    for role, after in sorted(lasting.items(), key=lambda entry: -entry[1].rss_bytes):
        before = small.peaks.get(role, Peak())
        name = f"scale/memory/{role.replace(' ', '_')}"
        values = (after.rss_bytes / BYTES_PER_MB, before.rss_bytes / BYTES_PER_MB)
        rows.append(Row(f"{name}/rss", "MB", *values, MOST_MEMORY, at_most=True))
        rows.append(Row(f"{name}/uss", "MB", after.uss_bytes / BYTES_PER_MB, before.uss_bytes / BYTES_PER_MB))
    return rows
