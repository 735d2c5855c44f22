"""How fast, how large and how parallel the corpus stage is: one table, or with ``--json`` one object.

    python bench/corpus/bench_corpus.py [--only PART,…] [--papers FOLDER] [--json] …

``chain``    filter, MinHash, tokenise and pack against datatrove (:mod:`chain`), at least 5 times as fast
``whole``    papers to shards against the bare batch encode (:mod:`whole`), at least 0.6 of its speed without
             MinHash and 0.5 with it
``scale``    ten times the papers (:mod:`scale`): at most 10.5 times the time, 1.1 times the memory
``workers``  two Ray workers against one (:mod:`workers`), at least 1.7 times as fast

``chain`` and ``whole`` measure generated papers, and real ones where ``--papers`` or ``BALTORO_DATA`` names
a folder. Exit code 3: a bound is missed; 2: the input is wrong.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

from results import Row, as_json, as_table, exit_code

from baltoro.core.errors import BaltoroError

PARTS = ("chain", "whole", "scale", "workers")
ROOT = Path(__file__).parents[2]


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--only", help=f"parts to measure, with commas (default: {','.join(PARTS)})")
    parser.add_argument("--papers", type=Path, help="a folder of parsed papers (default: BALTORO_DATA)")
    parser.add_argument("--documents", type=int, default=300, help="generated papers (default: 300)")
    parser.add_argument("--repetitions", type=int, default=3, help="turns of each side (default: 3)")
    parser.add_argument(
        "--chain-megabytes", type=float, default=2.0, help="text for the chain, in MB (default: 2)"
    )
    parser.add_argument(
        "--datatrove-python",
        type=Path,
        default=ROOT / "build" / "datatrove" / "bin" / "python",
        help="the interpreter that has datatrove (default: that of `make bench-corpus`)",
    )
    parser.add_argument(
        "--scale-documents",
        default="2000,20000",
        help="papers of the two collections (default: 2000,20000; the bounds are meant for 10000,100000)",
    )
    parser.add_argument(
        "--workers-documents",
        type=int,
        default=40_000,
        help="papers for the workers; fewer measure how they start (default: 40000)",
    )
    parser.add_argument(
        "--words", type=int, default=700, help="words of a paper of scale and workers (default: 700)"
    )
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    arguments = parser.parse_args()
    arguments.only = tuple((arguments.only or ",".join(PARTS)).split(","))
    unknown = [part for part in arguments.only if part not in PARTS]
    if unknown:
        parser.error(f"--only: there is no part {unknown[0]!r}; choose from {', '.join(PARTS)}")
    try:
        small, large = (int(size) for size in arguments.scale_documents.split(","))
    except ValueError:
        parser.error(f"--scale-documents: {arguments.scale_documents!r} is not two numbers with a comma")
    if not 100 <= small < large:
        parser.error(f"--scale-documents: {small} and {large}: give at least 100, and the larger one last")
    arguments.scale_documents = small, large
    if arguments.papers is None and os.environ.get("BALTORO_DATA"):
        arguments.papers = Path(os.environ["BALTORO_DATA"])
    return arguments


def main() -> int:
    arguments = parse_arguments()
    rows: list[Row] = []
    with tempfile.TemporaryDirectory(prefix="bench-corpus-") as temporary:
        try:
            for part_rows, note in measure(arguments, Path(temporary)):
                rows += part_rows
                if note:
                    print(note, file=sys.stderr)
        except BaltoroError as error:
            print(f"error: {error.message}", file=sys.stderr)
            return 2
    print(as_json(rows) if arguments.json else as_table(rows))
    return exit_code(rows)


def measure(arguments: argparse.Namespace, folder: Path) -> Iterator[tuple[list[Row], str]]:
    """Yield the rows of each part as they are measured, with a line for the reader."""
    only = arguments.only
    if "chain" in only or "whole" in only:
        yield from measure_texts(arguments, folder / "texts")
    if "scale" in only:
        from scale import measure_scale

        yield measure_scale(folder / "scale", sizes=arguments.scale_documents, words=arguments.words)
    if "workers" in only:
        from workers import measure_workers

        rows = measure_workers(folder / "workers", papers=arguments.workers_documents, words=arguments.words)
        yield rows, f"workers: {arguments.workers_documents:,} papers, stage times without Ray's start"


def measure_texts(arguments: argparse.Namespace, folder: Path) -> Iterator[tuple[list[Row], str]]:
    """Yield what is measured in this process: the chain and the whole path, for each kind of papers."""
    # Before the tokenizers library starts its threads; datatrove's process inherits it.
    os.environ.update({"TOKENIZERS_PARALLELISM": "false", "RAYON_NUM_THREADS": "1"})
    from chain import measure_chain, require_datatrove
    from fresh import in_new_process
    from material import prepare
    from whole import measure_whole

    from baltoro.testing.collections import Plan, write_collection

    if "chain" in arguments.only:
        require_datatrove(arguments.datatrove_python)
    generated = folder / "generated"
    write_collection(generated, Plan(arguments.documents, words=3000), papers_per_file=50)
    kinds = {"generated": generated}
    if arguments.papers is not None:
        kinds["papers"] = arguments.papers
    # All before the first measurement: a wrong folder is said at once.
    materials = [
        in_new_process(prepare, name, papers, folder / f"material-{name}") for name, papers in kinds.items()
    ]
    for material in materials:
        name = material.name
        yield [], material.description
        work = folder / f"work-{name}"
        work.mkdir()
        if "chain" in arguments.only:
            yield measure_chain(
                material,
                work,
                python=arguments.datatrove_python,
                size_mb=arguments.chain_megabytes,
                repetitions=arguments.repetitions,
            )
        if "whole" in arguments.only:
            yield measure_whole(material, work, arguments.repetitions), ""


if __name__ == "__main__":
    sys.exit(main())
