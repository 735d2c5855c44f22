"""How fast each reader turns bytes into a paper, against the bare parse of the same bytes.

    python bench/readers/bench_readers.py [--papers FOLDER] [--repetitions N] [--json]

The bare parse is what no reader can avoid: ``lxml.etree.fromstring`` for XML, ``json.loads`` for JSON.
Text formats have no parser to compare with; their bare parse is decoding and splitting into lines,
which does none of a reader's work, so their ratio is printed and not held to a bound. Reader and bare
parse run in one process on one core, in turns, over the same documents; times are CPU seconds, which
other work on the machine disturbs least, and the reported figures are medians over the repetitions.

The folder is ``--papers``, else what ``BALTORO_DATA`` names, else ``examples/papers``. The bounds are for
real papers, so the example papers are measured without any: they are nearly all text, which the bare parse
passes over in no time. ``--json`` prints
``{name: {value, baseline, ratio, bound, passed}}`` with speeds in MB/s (a bound of ``null`` holds
always). Exit code 3: a ratio is below its bound; 2: the folder holds no papers.
"""

from __future__ import annotations

import argparse
import gc
import gzip
import json
import os
import statistics
import sys
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lxml import etree

from baltoro.papers.detect import decode, detect_bytes, detect_object
from baltoro.papers.readers.docling import parse_docling_json, parse_docling_markdown
from baltoro.papers.readers.jats import parse_jats
from baltoro.papers.readers.markdown import parse_markdown
from baltoro.papers.readers.nougat import parse_nougat
from baltoro.papers.readers.plain_text import parse_plain_text
from baltoro.papers.readers.s2orc import parse_s2orc
from baltoro.papers.readers.science_parse import parse_science_parse
from baltoro.papers.readers.sciencebeam import parse_sciencebeam
from baltoro.papers.readers.tei import parse_tei
from baltoro.papers.schema import ReadReject

ROOT = Path(__file__).parents[2]
LEAST_RATIO = 0.3
LEAST_PASS_SECONDS = 0.05
BYTES_PER_MB = 1_000_000


@dataclass(frozen=True)
class Contest:
    """One reader and the bare parse of its format, both of a document's bytes, and the least ratio."""

    read: Callable[[bytes], object]
    bare: Callable[[bytes], object]
    bound: float | None


def of_json(parse: Callable[[dict[str, Any]], object]) -> Contest:
    """Return the contest of a reader that takes a decoded JSON object."""
    return Contest(lambda data: parse(json.loads(data)), json.loads, LEAST_RATIO)


def of_text(parse: Callable[[str], object]) -> Contest:
    """Return the contest of a reader that takes decoded text."""
    return Contest(lambda data: parse(decode(data)), lambda data: decode(data).splitlines(), None)


CONTESTS = {
    "grobid_tei": Contest(parse_tei, etree.fromstring, LEAST_RATIO),
    "jats": Contest(parse_jats, etree.fromstring, LEAST_RATIO),
    "s2orc": of_json(parse_s2orc),
    "science_parse": of_json(parse_science_parse),
    "sciencebeam": of_json(parse_sciencebeam),
    "docling_json": of_json(parse_docling_json),
    "docling_markdown": of_text(parse_docling_markdown),
    "nougat": of_text(parse_nougat),
    "markdown": of_text(parse_markdown),
    "plain_text": of_text(parse_plain_text),
}


def documents(folder: Path) -> dict[str, list[bytes]]:
    """Return the bytes of every readable document below a folder, by format; rejects are left out."""
    found: dict[str, list[bytes]] = defaultdict(list)
    for path in sorted(path for path in folder.rglob("*") if path.is_file()):
        for data in _records(path):
            try:
                name = _format(data, path.name.removesuffix(".gz"))
                CONTESTS[name].read(data)
                CONTESTS[name].bare(data)
            except (ReadReject, KeyError, etree.XMLSyntaxError):
                continue
            found[name].append(data)
    return found


def _records(path: Path) -> Iterator[bytes]:
    data = path.read_bytes()
    name = path.name
    if name.endswith(".gz"):
        data, name = gzip.decompress(data), name.removesuffix(".gz")
    yield from data.splitlines() if name.endswith(".jsonl") else [data]


def _format(data: bytes, name: str) -> str:
    if name.endswith((".json", ".jsonl")):
        document = json.loads(data)
        if isinstance(document, dict):
            return detect_object(document)
    return detect_bytes(data, name)


@dataclass(frozen=True)
class Result:
    """Medians of one contest; speeds of the reader and of the bare parse in MB/s."""

    documents: int
    megabytes: float
    documents_per_second: float
    reader: float
    bare: float
    ratio: float
    bound: float | None

    @property
    def passed(self) -> bool:
        return self.bound is None or self.ratio >= self.bound


def measure(contest: Contest, papers: list[bytes], repetitions: int, *, is_bounded: bool) -> Result:
    """Run reader and bare parse in turns over the papers and return the medians.

    Args:
        contest: the reader and the bare parse.
        papers: the documents, uncompressed.
        repetitions: how many turns each gets.
        is_bounded: whether the contest's bound applies to these papers.
    """
    seconds, _ = _pass(contest, papers, rounds=1, reader_first=True)
    rounds = max(1, round(LEAST_PASS_SECONDS / max(seconds, 1e-6)))
    times = [_pass(contest, papers, rounds, reader_first=bool(number % 2)) for number in range(repetitions)]
    reader_seconds = statistics.median(reader for reader, _ in times)
    bare_seconds = statistics.median(bare for _, bare in times)
    megabytes = sum(map(len, papers)) / BYTES_PER_MB
    return Result(
        documents=len(papers),
        megabytes=megabytes,
        documents_per_second=len(papers) / reader_seconds,
        reader=megabytes / reader_seconds,
        bare=megabytes / bare_seconds,
        ratio=statistics.median(bare / reader for reader, bare in times),
        bound=contest.bound if is_bounded else None,
    )


def _pass(contest: Contest, papers: list[bytes], rounds: int, *, reader_first: bool) -> tuple[float, float]:
    """Return the CPU seconds of reader and bare parse for all papers, as means over the rounds.

    They take turns at every paper, and at who comes first, so that neither a processor that changes its speed
    nor what the other left in its caches favours one of them; a paper is not parsed twice in a row, because
    no pipeline does that.
    """
    reader = bare = 0.0
    for _ in range(rounds):
        for data in papers:
            if reader_first:
                reader += _seconds(contest.read, data)
                bare += _seconds(contest.bare, data)
            else:
                bare += _seconds(contest.bare, data)
                reader += _seconds(contest.read, data)
    return reader / rounds, bare / rounds


def _seconds(parse: Callable[[bytes], object], data: bytes) -> float:
    start = time.process_time()
    parse(data)
    return time.process_time() - start


def _print_table(results: dict[str, Result], folder: Path) -> None:
    print(f"Readers on {folder}, one core, medians; ratio = speed of the reader / speed of the bare parse")
    head = ("documents", "MB", "documents/s", "MB/s", "bare MB/s", "ratio", "bound")
    print(f"{'reader':18}" + "".join(f"{title:>13}" for title in head))
    for name, result in results.items():
        numbers = (result.documents_per_second, result.reader, result.bare)
        bound = "-" if result.bound is None else f"{result.bound:.2f}"
        print(
            f"{name:18}{result.documents:13}{result.megabytes:13.3f}"
            + "".join(f"{number:13,.1f}" for number in numbers)
            + f"{result.ratio:13.3f}{bound:>13}"
            + ("" if result.passed else "  below its bound")
        )


def main() -> int:
    """Run the benchmark; returns the exit code."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--papers", type=Path, help="folder of parsed papers")
    parser.add_argument("--repetitions", type=int, default=7, help="turns per reader (default 7)")
    parser.add_argument("--json", action="store_true", help="one JSON object on standard output")
    arguments = parser.parse_args()
    given = arguments.papers or os.environ.get("BALTORO_DATA")
    folder = Path(given or ROOT / "examples" / "papers")
    found = documents(folder)
    if not found:
        print(f"{folder}: no readable paper; give a folder of parsed papers with --papers", file=sys.stderr)
        return 2
    # The collector then looks only at what the turns make, not, at somebody's expense, at all that is loaded.
    gc.collect()
    gc.freeze()
    results = {
        name: measure(contest, found[name], arguments.repetitions, is_bounded=bool(given))
        for name, contest in CONTESTS.items()
        if name in found
    }
    if arguments.json:
        report = {
            f"readers/{name}": {
                "value": result.reader,
                "baseline": result.bare,
                "ratio": result.ratio,
                "bound": result.bound,
                "passed": result.passed,
            }
            for name, result in results.items()
        }
        print(json.dumps(report))
    else:
        _print_table(results, folder)
    return 0 if all(result.passed for result in results.values()) else 3


if __name__ == "__main__":
    sys.exit(main())
