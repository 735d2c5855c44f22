"""Runs of ``baltoro tokens build`` on generated collections: what scaling and workers are measured by.

The recipe's settings are the defaults except for those that keep a small collection from being one task, and
the tokenizer's sample from growing with the corpus: a tokenizer is trained on a bounded sample in any case.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

from watched_command import WatchedRun, run_watched

from baltoro.testing.collections import Plan, write_collection

RECIPE = "recipe.yaml"
TASKS = 10
"""Read tasks that the smaller collection is cut into; the larger one gets tasks of the same size."""

FILES_PER_TASK = 4
SAMPLE_CHARACTERS = 2_000_000
"""Size of the tokenizer's sample, in characters; the smallest collection should have more."""

COMMAND = Path(sys.executable).with_name("baltoro")


def write_papers(folder: Path, papers: int, *, smallest: int, words: int) -> float:
    """Write a collection as S2ORC JSON lines; returns its size in MB of text.

    Args:
        folder: where.
        papers: how many.
        smallest: papers of the smallest collection that this one is compared with.
        words: mean words of a paper.
    """
    per_file = max(1, smallest // (TASKS * FILES_PER_TASK))
    written = write_collection(folder, Plan(papers, words=words), papers_per_file=per_file)
    return written.text_bytes / 1e6


def build_tokens(
    papers: Path, folder: Path, *, cpus: int | None = None, environment: dict[str, str] | None = None
) -> WatchedRun:
    """Build corpus, tokenizer and tokens of a collection in a new workspace, with the command itself.

    Args:
        papers: the collection.
        folder: an empty folder for recipe and workspace.
        cpus: logical CPUs of the local Ray; by default what the command takes itself.
        environment: further variables.
    """
    folder.mkdir(parents=True)
    (folder / RECIPE).write_text(recipe_text(papers, folder / "workspace"))
    overrides = () if cpus is None else (f"cluster.local_cpus={cpus}",)
    arguments: list[str | Path] = [COMMAND, "tokens", "build", folder / RECIPE, *overrides, "--json"]
    return run_watched(arguments, environment or {}, folder / "messages.log", closely=cpus is None)


def recipe_text(papers: Path, workspace: Path) -> str:
    """Return the recipe of a run as YAML."""
    settings = {
        "name": "benchmark",
        "storage": {"root": str(workspace)},
        "corpus": {
            "sources": [{"name": "generated", "uri": str(papers), "format": "s2orc"}],
            "objects_per_task": FILES_PER_TASK,
        },
        "tokenizer": {
            "vocab_size": 16_000,
            "sample_fraction": 1e-6,
            "sample_min_characters": SAMPLE_CHARACTERS,
        },
        "model": {"base": "llama-tiny"},
        # The smaller collection fills a shard, so that both write shards of full size.
        "pretrain": {"data": {"rows_per_shard": 512}},
    }
    return json.dumps(settings, indent=2)
