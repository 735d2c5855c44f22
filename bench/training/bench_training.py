"""How fast training is, and what it waits for: one table, or with ``--json`` one object.

    python bench/training/bench_training.py [--only PART,…] [--json] …

``overhead``    Baltoro's step against a bare PyTorch loop (:mod:`overhead`), at most 1.03 times the time
``trainer``     against Hugging Face Trainer (:mod:`trainer`): at least as many positions per second, and 1.5
                times as many tokens per second on documents of mixed length
``data``        the wait for rows from shards on disk (:mod:`waits`), at most 0.01 of a step
``checkpoint``  the stall of an asynchronous checkpoint (:mod:`waits`), at most one step
``restart``     new processes to first step (:mod:`restart`), at most 30 s early and late in a run
``command``     `baltoro pretrain` given anew to first step, with Ray's start (:mod:`command`), not judged
``loss``        memory of the chunked loss (:mod:`loss_memory`), the same for four times the tokens

Exit code 3: a bound is missed; 2: the input is wrong. Parts run on GPUs where there are any.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

ROOT = Path(__file__).parents[2]
sys.path.append(str(ROOT / "bench" / "corpus"))

from results import Row, as_json, as_table, exit_code  # noqa: E402  (it stands beside the other benchmark)
from setting import Size  # noqa: E402

from baltoro.core.errors import BaltoroError  # noqa: E402

PARTS = ("overhead", "trainer", "data", "checkpoint", "restart", "command", "loss")


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--only", help=f"parts to measure, with commas (default: {','.join(PARTS)})")
    parser.add_argument("--turns", type=int, default=20, help="turns of each side (default: 20)")
    parser.add_argument("--world-size", type=int, default=2, help="ranks, at most (default: 2)")
    parser.add_argument("--steps", type=int, default=60, help="steps of data and checkpoint (default: 60)")
    parser.add_argument(
        "--restart-steps",
        default="10,1000",
        help="steps after which to resume, multiples of 10 (default: 10,1000)",
    )
    parser.add_argument(
        "--hidden-size", type=int, default=128, help="width of the model, a multiple of 16 (default: 128)"
    )
    parser.add_argument("--layers", type=int, default=4, help="decoder blocks (default: 4)")
    parser.add_argument(
        "--vocabulary", type=int, default=16000, help="rows of the embedding (default: 16000)"
    )
    parser.add_argument("--sequence-length", type=int, default=256, help="tokens of a row (default: 256)")
    parser.add_argument("--rows", type=int, default=4, help="rows of a micro-batch (default: 4)")
    parser.add_argument(
        "--loss-vocabularies", default="32000,128000", help="two of them (default: 32000,128000)"
    )
    parser.add_argument(
        "--loss-tokens", default="1024,4096", help="tokens of a micro-batch, two (default: 1024,4096)"
    )
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    arguments = parser.parse_args()
    arguments.only = tuple((arguments.only or ",".join(PARTS)).split(","))
    unknown = [part for part in arguments.only if part not in PARTS]
    if unknown:
        parser.error(f"--only: there is no part {unknown[0]!r}; choose from {', '.join(PARTS)}")
    for name in ("restart_steps", "loss_vocabularies", "loss_tokens"):
        setattr(arguments, name, _two_numbers(parser, name, getattr(arguments, name)))
    if any(step % 10 for step in arguments.restart_steps):
        parser.error(f"--restart-steps: {arguments.restart_steps} are not multiples of 10")
    if arguments.turns < 3:
        parser.error(f"--turns: {arguments.turns} give no median; at least 3")
    return arguments


def _two_numbers(parser: argparse.ArgumentParser, name: str, text: str) -> tuple[int, int]:
    option = "--" + name.replace("_", "-")
    try:
        small, large = (int(number) for number in text.split(","))
    except ValueError:
        parser.error(f"{option}: {text!r} is not two numbers with a comma")
    if not 0 < small < large:
        parser.error(f"{option}: {small} and {large}: the larger one comes last")
    return small, large


def main() -> int:
    arguments = parse_arguments()
    rows: list[Row] = []
    with tempfile.TemporaryDirectory(prefix="bench-training-") as temporary:
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
    import torch

    only = arguments.only
    gpus = torch.cuda.device_count()
    world_size = min(arguments.world_size, gpus) if gpus else arguments.world_size
    size = Size(
        hidden_size=arguments.hidden_size,
        layers=arguments.layers,
        vocabulary=arguments.vocabulary,
        sequence_length=arguments.sequence_length,
        rows=arguments.rows,
        accumulation=1,
    )
    device = torch.cuda.get_device_name() if gpus else f"CPU, one thread a rank, {os.cpu_count()} cores"
    yield (
        [],
        f"{device}; load average {os.getloadavg()[0]:.1f} (above the idle cores, ratios of wall times err)",
    )
    if "overhead" in only:
        from overhead import measure_overhead

        halved = replace(size, rows=max(size.rows // 2, 1), accumulation=2)
        yield measure_overhead(tuple(sorted({1, world_size})), turns=arguments.turns, size=halved), ""
    if "trainer" in only:
        from trainer import measure_trainer

        yield measure_trainer(world_size=world_size, turns=arguments.turns, size=size)
    if "data" in only:
        from waits import measure_data

        yield measure_data(folder / "data", world_size=world_size, steps=arguments.steps, size=size), ""
    if "checkpoint" in only:
        from waits import measure_checkpoint

        yield (
            measure_checkpoint(
                folder / "checkpoint",
                world_size=world_size,
                steps=arguments.steps,
                every_steps=10,
                size=size,
            ),
            "",
        )
    if "restart" in only:
        from restart import measure_restart

        steps = arguments.restart_steps
        yield measure_restart(folder / "restart", world_size=world_size, steps=steps), ""
    if "command" in only:
        from command import measure_command

        yield measure_command(folder / "command"), ""
    if "loss" in only:
        from loss_memory import measure_loss

        yield measure_loss(vocabularies=arguments.loss_vocabularies, tokens=arguments.loss_tokens), ""


if __name__ == "__main__":
    sys.exit(main())
