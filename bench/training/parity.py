"""Whether every strategy trains alike: one table, or with ``--json`` one object.

    python bench/training/parity.py [--precision float32|bfloat16] [--only NAME,…] [--steps N] [--json]

The same tiny model is trained on the same rows by the real ``pretrain`` in real processes, and each run is
held, step by step, to that of fsdp2 on one rank. Losses, gradient norms and digests of the rows that were fed
are those of the runs' own ledgers.

Exit code 1: a run is beyond a bound, or was fed something else; 2: the input is wrong.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, get_args

from baltoro.checkpoint.config import CheckpointConfig
from baltoro.checkpoint.ledger import LedgerRecord, accepted, read_ledger
from baltoro.core.storage import Storage
from baltoro.optim.config import OptimizerConfig
from baltoro.parallel.config import DeepSpeedConfig, ParallelConfig
from baltoro.parallel.strategy import Precision
from baltoro.testing.distributed import run_distributed
from baltoro.testing.runs import ROWS_PER_STEP, SEQUENCE_LENGTH, TinyRun, execute_all, tiny_run
from baltoro.testing.tiny import tiny_rows

PRECISIONS = ("float32", "bfloat16")
STRATEGIES = ("ddp", "fsdp2", "hybrid", "ZeRO-1", "ZeRO-2", "ZeRO-3")

BOUND = {"float32": 1e-4, "bfloat16": 2e-2}
"""At any step: of the loss in nats per token, and of the gradient's norm as a share of it."""

LEARNING_RATE = 5e-3
"""Twice as much and the tiny model overshoots at the end, where rounding alone moves the norm by a tenth."""

_WHOLE_ELEMENTS = 100
_TIMEOUT_SECONDS = 1800.0


@dataclass(frozen=True)
class Spread:
    """How a run is spread.

    Attributes:
        strategy: as ``--only`` names it.
        world_size: ranks.
        micro_batch: rows of a forward pass.
        settings: of the training's configuration.
        note: more about it, for people.
    """

    strategy: str
    world_size: int
    micro_batch: int
    settings: Mapping[str, Any] = field(default_factory=dict)
    note: str = ""

    @property
    def accumulation(self) -> int:
        """Micro-batches of a rank in each step."""
        return ROWS_PER_STEP // self.world_size // self.micro_batch

    @property
    def name(self) -> str:
        """What the spread is called in the table."""
        return f"{self.strategy} {self.note}".rstrip()

    @property
    def key(self) -> str:
        """What it is called in JSON, apart from all others."""
        return f"{self.strategy}/world_{self.world_size}/{self.micro_batch}x{self.accumulation}"


@dataclass(frozen=True)
class Curve:
    """What the ledger says of a run, step by step."""

    losses: list[float]
    norms: list[float]
    digests: list[str]

    @classmethod
    def of(cls, records: Sequence[LedgerRecord]) -> Curve:
        """Return the curve of a ledger's accepted records."""
        return cls(
            [record.loss for record in records],
            [record.gradient_norm for record in records],
            [record.digest for record in records],
        )


@dataclass(frozen=True)
class Row:
    """A run beside the reference.

    Attributes:
        spread: how it was spread.
        precision: dtype of its passes.
        final_loss: of the last step, nats per token.
        loss_deviation: largest difference of a step's loss, nats per token.
        norm_deviation: largest difference of a step's gradient norm, as a share of the reference's.
        same_rows: every step was fed what the reference's was.
        is_reference: it is what the others are held to.
    """

    spread: Spread
    precision: Precision
    final_loss: float
    loss_deviation: float
    norm_deviation: float
    same_rows: bool
    is_reference: bool = False

    @property
    def passed(self) -> bool:
        """Whether both deviations stay within the bound; what is not a number does not."""
        return (
            self.same_rows
            and self.loss_deviation <= BOUND[self.precision]
            and self.norm_deviation <= BOUND[self.precision]
        )

    @property
    def verdict(self) -> str:
        """One or two words on it."""
        if self.is_reference:
            return "reference"
        if self.passed:
            return "equal"
        return "DIFFERS" if self.same_rows else "OTHER ROWS"


REFERENCE = Spread("fsdp2", 1, ROWS_PER_STEP)


def spreads() -> list[Spread]:
    """Return all that are compared: every strategy on two ranks, then two of them on one, two and four."""
    hybrid = {"parallel": ParallelConfig(dp_replicate=2)}
    zero = {
        f"ZeRO-{stage}": {
            "strategy": "deepspeed",
            "parallel": ParallelConfig(deepspeed=DeepSpeedConfig(zero_stage=stage)),
        }
        for stage in (1, 2, 3)
    }
    return [
        Spread("ddp", 2, 2, {"strategy": "ddp"}),
        Spread("fsdp2", 2, 2),
        Spread("hybrid", 2, 2, hybrid, "2×1"),
        *(Spread(name, 2, 2, settings) for name, settings in zero.items()),
        REFERENCE,
        Spread("fsdp2", 2, 1),
        Spread("fsdp2", 4, 1),
        Spread("hybrid", 4, 1, hybrid, "2×2"),
        *(Spread("ZeRO-3", world, micro, zero["ZeRO-3"]) for world, micro in ((1, 8), (2, 1), (4, 1))),
    ]


def train(runs: list[TinyRun]) -> None:
    """Train several runs on this rank, one after the other."""
    if any(run.config.strategy == "deepspeed" for run in runs):
        from baltoro.parallel import deepspeed

        # By default matrices as small as these would stay whole on every rank under ZeRO-3.
        deepspeed.PERSISTENT_ELEMENTS = _WHOLE_ELEMENTS
    execute_all(runs)


def compare(
    chosen: Sequence[Spread], precisions: Sequence[Precision], *, steps: int, folder: Path
) -> list[Row]:
    """Train every spread in every precision and hold it to the reference.

    Args:
        chosen: what to compare; the reference is trained whether it is among them or not.
        precisions: each with a reference of its own.
        steps: of every run.
        folder: for the runs; it must be empty.
    """
    wanted = {spread.key: spread for spread in (REFERENCE, *chosen)}
    curves: dict[tuple[str, str], Curve] = {}
    for world_size in sorted({spread.world_size for spread in wanted.values()}):
        runs = {
            (precision, key): _run(spread, precision, steps, folder)
            for key, spread in wanted.items()
            if spread.world_size == world_size
            for precision in precisions
        }
        # One process group trains them one after the other: DeepSpeed replaces functions of torch for good.
        ordered = sorted(runs.values(), key=lambda run: run.config.strategy == "deepspeed")
        run_distributed(train, world_size, ordered, timeout_seconds=_TIMEOUT_SECONDS)
        for name, run in runs.items():
            curves[name] = Curve.of(accepted(read_ledger(Storage(), run.run_uri)))
    return [
        _row(spread, precision, curves[precision, spread.key], curves[precision, REFERENCE.key])
        for precision in precisions
        for spread in chosen
    ]


def _run(spread: Spread, precision: Precision, steps: int, folder: Path) -> TinyRun:
    run = tiny_run(
        folder / precision / spread.key.replace("/", "-"),
        **{
            "precision": precision,
            "steps": steps,
            "micro_batch": spread.micro_batch,
            "optimizer": OptimizerConfig(learning_rate=LEARNING_RATE),
            "checkpoint": CheckpointConfig(every_steps=steps),
            **spread.settings,
        },
    )
    return replace(run, rows=tiny_rows(steps * ROWS_PER_STEP, SEQUENCE_LENGTH))


def _row(spread: Spread, precision: Precision, found: Curve, expected: Curve) -> Row:
    import numpy as np

    losses, norms = np.array(found.losses), np.array(found.norms)
    same_length = len(found.losses) == len(expected.losses)
    return Row(
        spread,
        precision,
        final_loss=float(losses[-1]),
        loss_deviation=float(np.abs(losses - expected.losses).max()) if same_length else float("nan"),
        norm_deviation=float(np.abs(norms / expected.norms - 1).max()) if same_length else float("nan"),
        same_rows=found.digests == expected.digests,
        is_reference=spread.key == REFERENCE.key,
    )


def as_table(rows: Sequence[Row], *, steps: int) -> str:
    """Return the rows as a table for people."""
    lines = [
        f"Losses in nats per token over {steps} steps of {ROWS_PER_STEP} rows; deviations are the largest of "
        f"any step from {REFERENCE.strategy} on one rank."
    ]
    for precision in dict.fromkeys(row.precision for row in rows):
        bound = f"≤ {BOUND[precision]:.0e}"
        lines += [
            "",
            f"{precision:<12}{'ranks':>5}  {'micro-batch ×':<14}{'final loss':>11}{'max |Δloss|':>13}"
            f"{'max |Δnorm|':>13}  verdict",
            f"{'':<12}{'':>5}  {'accumulation':<14}{'':>11}{bound:>13}{bound:>13}",
        ]
        lines += [
            f"{row.spread.name:<12}{row.spread.world_size:>5}  "
            f"{f'{row.spread.micro_batch} × {row.spread.accumulation}':<14}{row.final_loss:>11.6f}"
            f"{row.loss_deviation:>13.1e}{row.norm_deviation:>13.1e}  {row.verdict}"
            for row in rows
            if row.precision == precision
        ]
    missed = sum(not row.passed for row in rows)
    lines += ["", f"{missed} of {len(rows)} runs DIFFER" if missed else f"all {len(rows)} runs are equal"]
    return "\n".join(lines)


def as_json(rows: Sequence[Row]) -> str:
    """Return the rows as one JSON object."""
    return json.dumps(
        {
            f"{row.precision}/{row.spread.key}": {
                "final_loss": row.final_loss,
                "loss_deviation": row.loss_deviation,
                "norm_deviation": row.norm_deviation,
                "bound": BOUND[row.precision],
                "same_rows": row.same_rows,
                "passed": row.passed,
            }
            for row in rows
        },
        indent=2,
    )


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--precision", choices=PRECISIONS, help="one of them (default: both)")
    parser.add_argument("--only", help=f"strategies, with commas (default: {','.join(STRATEGIES)})")
    parser.add_argument("--steps", type=int, default=30, help="of each run, at least 20 (default: 30)")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    arguments = parser.parse_args()
    known = {name.lower(): name for name in STRATEGIES}
    names = [name.strip() for name in (arguments.only or ",".join(STRATEGIES)).split(",")]
    unknown = [name for name in names if name.lower() not in known]
    if unknown:
        parser.error(f"--only: there is no strategy {unknown[0]!r}; choose from {', '.join(STRATEGIES)}")
    arguments.only = [known[name.lower()] for name in names]
    if arguments.steps < 20:
        parser.error(f"--steps: {arguments.steps} show little; at least 20")
    if any(name.startswith("ZeRO") for name in arguments.only) and not importlib.util.find_spec("deepspeed"):
        others = ",".join(name for name in STRATEGIES if not name.startswith("ZeRO"))
        parser.error(
            "DeepSpeed is not installed, so ZeRO cannot be compared; run `pip install 'baltoro[deepspeed]'`, "
            f"or leave it out with --only {others}"
        )
    return arguments


def main() -> int:
    arguments = parse_arguments()
    precisions = [
        name for name in get_args(Precision) if name in PRECISIONS and arguments.precision in (None, name)
    ]
    chosen = [spread for spread in spreads() if spread.strategy in arguments.only]
    with tempfile.TemporaryDirectory(prefix="parity-") as folder:
        rows = compare(chosen, precisions, steps=arguments.steps, folder=Path(folder))
    print(as_json(rows) if arguments.json else as_table(rows, steps=arguments.steps))
    return 0 if all(row.passed for row in rows) else 1


if __name__ == "__main__":
    sys.exit(main())
