"""How many instruction examples are made of papers in a second of one core, without an endpoint.

The work is that of :func:`baltoro.instructions.signals.build.paper_examples` with default settings: finding
what each task can ask of a paper, checking it, and wording it, until the paper has given what it may. Papers
are read before. Seconds are CPU seconds of the process, the median over repetitions; a first repetition,
which fills caches of templates and patterns, is not counted.
"""

from __future__ import annotations

import statistics
import time
from pathlib import Path
from typing import TYPE_CHECKING

from results import Row

from baltoro.core.errors import InputError
from baltoro.testing.collections import Plan, write_collection

if TYPE_CHECKING:
    from baltoro.papers.schema import Paper

EXAMPLES_PER_SECOND = 2000.0
"""What building must reach."""

_GENERATED = 200


def measure_instructions(
    folder: Path, *, papers: Path | None, repetitions: int
) -> tuple[list[Row], list[str]]:
    """Measure over generated papers, and over those of a folder where one is given.

    Args:
        folder: a new one to write generated papers into.
        papers: real ones; ``None`` if there are none.
        repetitions: of all papers.

    Returns:
        The rows, and a line for the reader about each kind of papers.
    """
    write_collection(folder, Plan(_GENERATED, words=3000))
    kinds = {"generated": folder} | ({"papers": papers} if papers is not None else {})
    measured = [_measure(name, place, repetitions) for name, place in kinds.items()]
    return [row for row, _ in measured], [note for _, note in measured]


def _measure(name: str, folder: Path, repetitions: int) -> tuple[Row, str]:
    from baltoro.instructions.signals.build import paper_examples
    from baltoro.instructions.signals.config import SignalsConfig

    papers = read_papers(folder)
    config = SignalsConfig()
    rates, examples, rejects = [], 0, 0
    for repetition in range(repetitions + 1):
        began = time.process_time()
        made = [paper_examples(paper, config) for paper in papers]
        seconds = time.process_time() - began
        examples, rejects = (sum(len(part[index]) for part in made) for index in (0, 1))
        if repetition:
            rates.append(examples / seconds)
    if not examples:
        raise InputError(
            f"{folder}: no example can be made of its {len(papers)} papers; give another --papers"
        )
    row = Row(f"instructions/{name}", "1/s", statistics.median(rates), EXAMPLES_PER_SECOND, 1.0)
    note = f"{name}: {len(papers)} papers give {examples:,} examples; {rejects:,} candidates are left out"
    return row, note


def read_papers(folder: Path) -> list[Paper]:
    """Return all papers of a folder that can be read, in their order.

    Raises:
        InputError: there are none.
    """
    from baltoro.papers import read
    from baltoro.papers.schema import Paper

    return [record for record in read(str(folder)) if isinstance(record, Paper)]
