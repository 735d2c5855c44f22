"""What long rows cost, in time and memory, and how fast instructions are built: one table, or one object.

    python bench/longcontext/bench_longcontext.py [--only PART,…] [--papers FOLDER] [--json] …

``attention``     full against shifted sparse attention over the length of a row (:mod:`attention_cost`): at
                  the longest, S² must be twice as fast
``memory``        what a 7B needs on one device by method and length (:mod:`memory_model`), not judged
``check``         the same predictions for small models against measured peaks: 0.9 to 1.15 times as much
``instructions``  examples per second of one core (:mod:`instruction_rate`), at least 2,000

Exit code 3: a bound is missed; 2: the input is wrong. Attention is measured on a GPU where there is one.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parents[2]
sys.path.append(str(ROOT / "bench" / "corpus"))

from results import Row, as_json, as_table, exit_code  # noqa: E402  (it stands beside another benchmark)

from baltoro.core.errors import BaltoroError, InputError  # noqa: E402

PARTS = ("attention", "memory", "check", "instructions")


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--only", help=f"parts to measure, with commas (default: {','.join(PARTS)})")
    parser.add_argument("--turns", type=int, default=5, help="turns of each side of attention (default: 5)")
    parser.add_argument(
        "--tokens",
        help="lengths of attention's rows, with commas (default: 256 to 8192, on a GPU 1024 to 65536)",
    )
    parser.add_argument("--heads", type=int, help="of attention (default: 4, on a GPU 32)")
    parser.add_argument("--head-size", type=int, help="of attention (default: 64, on a GPU 128)")
    parser.add_argument(
        "--threads", type=int, default=1, help="of the CPU that attention may use (default: 1)"
    )
    parser.add_argument("--repetitions", type=int, default=5, help="of instructions (default: 5)")
    parser.add_argument("--papers", type=Path, help="folder of real papers (default: BALTORO_DATA)")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    arguments = parser.parse_args()
    arguments.only = tuple((arguments.only or ",".join(PARTS)).split(","))
    unknown = [part for part in arguments.only if part not in PARTS]
    if unknown:
        parser.error(f"--only: there is no part {unknown[0]!r}; choose from {', '.join(PARTS)}")
    if arguments.turns < 3:
        parser.error(f"--turns: {arguments.turns} give no median; at least 3")
    if arguments.repetitions < 1:
        parser.error(f"--repetitions: {arguments.repetitions} measure nothing; at least 1")
    if arguments.tokens is not None:
        try:
            arguments.tokens = tuple(int(number) for number in arguments.tokens.split(","))
        except ValueError:
            parser.error(f"--tokens: {arguments.tokens!r} is not numbers with commas")
        if arguments.tokens[0] < 4 or sorted(set(arguments.tokens)) != list(arguments.tokens):
            parser.error(f"--tokens: {arguments.tokens} do not rise from at least 4")
    if arguments.papers is None and os.environ.get("BALTORO_DATA"):
        arguments.papers = Path(os.environ["BALTORO_DATA"])
    return arguments


def main() -> int:
    arguments = parse_arguments()
    rows: list[Row] = []
    with tempfile.TemporaryDirectory(prefix="bench-longcontext-") as temporary:
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
    """Yield the rows of each part as they are measured, with a note for the reader."""
    if arguments.papers is not None and not arguments.papers.is_dir():
        raise InputError(f"{arguments.papers}: is no folder; give --papers a folder of parsed papers")
    if "attention" in arguments.only:
        yield from _attention(arguments)
    if "memory" in arguments.only:
        from memory_model import measure_memory

        yield measure_memory()
    if "check" in arguments.only:
        from memory_model import CheckSize, check_memory

        yield check_memory(CheckSize()), ""
    if "instructions" in arguments.only:
        from instruction_rate import measure_instructions

        rows, notes = measure_instructions(
            folder / "papers", papers=arguments.papers, repetitions=arguments.repetitions
        )
        yield rows, "\n".join(notes)


def _attention(arguments: argparse.Namespace) -> Iterator[tuple[list[Row], str]]:
    import torch
    from attention_cost import measure_attention

    gpu = torch.cuda.is_available()
    torch.set_num_threads(arguments.threads)
    device = torch.device("cuda" if gpu else "cpu")
    name = torch.cuda.get_device_name() if gpu else f"CPU, {arguments.threads} threads"
    yield [], f"attention on {name}; load average {os.getloadavg()[0]:.1f} of {os.cpu_count()} cores"
    shortest, doublings = (10, 7) if gpu else (8, 6)
    yield measure_attention(
        tokens=arguments.tokens or tuple(1 << power for power in range(shortest, shortest + doublings)),
        heads=arguments.heads or (32 if gpu else 4),
        head_size=arguments.head_size or (128 if gpu else 64),
        turns=arguments.turns,
        device=device,
    )


if __name__ == "__main__":
    sys.exit(main())
