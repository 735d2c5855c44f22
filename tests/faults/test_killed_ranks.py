"""Training whose ranks are killed with SIGKILL at random and started again ends as if nothing had been.

The ranks are real processes over gloo with everything of a run but Ray: head, attempts, checkpoints, ledger,
export. Each run is one test with a seed of its own; ``make test-faults RUNS=50`` runs fifty.
"""

import os
import random
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import pytest

from baltoro.checkpoint.audit import audit_ledger
from baltoro.checkpoint.config import CheckpointConfig
from baltoro.checkpoint.head import read_head
from baltoro.checkpoint.ledger import accepted, read_ledger
from baltoro.core.storage import Storage
from baltoro.data.collate import collate
from baltoro.data.digest import digest_rows, digest_text
from baltoro.parallel.config import DeepSpeedConfig, ParallelConfig
from baltoro.testing.distributed import StartedRanks, run_distributed, started_ranks
from baltoro.testing.runs import ROWS_PER_STEP, SEQUENCE_LENGTH, TinyRun, execute, tiny_run
from baltoro.testing.tiny import tiny_rows

pytestmark = [pytest.mark.distributed, pytest.mark.slow, pytest.mark.timeout(600)]

RUNS = int(os.environ.get("BALTORO_FAULT_RUNS", "6"))
WORLD_SIZE = 2
STEPS, CHECKPOINT_STEPS = 60, 5
MOST_KILLS = 4
STRATEGIES = {
    "fsdp2": {},
    "ddp": {"strategy": "ddp"},
    "ZeRO-2": {"strategy": "deepspeed", "parallel": ParallelConfig(deepspeed=DeepSpeedConfig(zero_stage=2))},
}
COUNTED: Counter[str] = Counter()


@dataclass(frozen=True)
class Ending:
    """How a run ended: to be the same, bit for bit, whatever befell it."""

    losses: tuple[tuple[int, float], ...]
    export_digest: str


def run_of(folder: Path, strategy: str) -> TinyRun:
    run = tiny_run(
        folder / "run",
        steps=STEPS,
        checkpoint=CheckpointConfig(every_steps=CHECKPOINT_STEPS),
        **STRATEGIES[strategy],
    )
    return replace(run, rows=tiny_rows(STEPS * ROWS_PER_STEP, SEQUENCE_LENGTH))


def ending_of(run: TinyRun) -> Ending:
    """The ending, once the ledger is audited."""
    head = read_head(Storage(), run.run_uri)
    assert head is not None
    assert head.finished is not None
    records = read_ledger(Storage(), run.run_uri)

    def expected_digest(step: int) -> str:
        rows = range(step * ROWS_PER_STEP, (step + 1) * ROWS_PER_STEP)
        return digest_text(digest_rows(rows, collate(run.rows.slice(rows.start, rows.stop))))

    audit = audit_ledger(records, head, expected_digest=expected_digest, rows_per_step=ROWS_PER_STEP)
    assert audit.passed, audit.findings
    assert audit.steps == STEPS
    return Ending(tuple((record.step, record.loss) for record in accepted(records)), head.finished.digest)


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> dict[str, tuple[Ending, float]]:
    """What each strategy comes to when nothing befalls it, and how many seconds that takes."""
    found = {}
    for strategy in STRATEGIES:
        run = run_of(tmp_path_factory.mktemp("undisturbed"), strategy)
        began = time.monotonic()
        run_distributed(execute, WORLD_SIZE, run)
        found[strategy] = ending_of(run), time.monotonic() - began
    return found


@pytest.fixture(scope="module", autouse=True)
def summary() -> Iterator[None]:
    """Say in the end how much was killed."""
    yield
    print(f"\n{COUNTED['runs']} runs: {dict(COUNTED)}")


def begun(run: TinyRun) -> int:
    """The newest step with a folder among the checkpoints, published or not."""
    names = (path.name for path in Path(run.run_uri).glob("checkpoints/step-*"))
    return max((int(name.split("-")[1]) for name in names), default=0)


def kill(ranks: StartedRanks, chance: random.Random) -> str:
    """Kill one rank and let the others notice, or all at once; returns what was killed."""
    if chance.random() < 0.5:
        for process in ranks.processes:
            process.kill()
        return "all ranks"
    victim = chance.randrange(WORLD_SIZE)
    ranks.processes[victim].kill()
    # As long as a supervisor takes to end the others, who may still write meanwhile.
    deadline = time.monotonic() + chance.uniform(0, 3)
    while ranks.running and time.monotonic() < deadline:
        time.sleep(0.01)
    return f"rank {victim}"


@pytest.mark.parametrize("seed", range(RUNS))
def test_a_run_killed_at_random_ends_with_the_same_losses_and_weights(undisturbed, tmp_path, seed):
    chance = random.Random(seed)
    strategy = list(STRATEGIES)[seed % len(STRATEGIES)]
    expected, seconds = undisturbed[strategy]
    run = run_of(tmp_path, strategy)
    told = []
    for number in range(chance.randint(1, MOST_KILLS)):
        # Most kills meet the steps and the checkpoints between them, the others any time, such as the start.
        if number == 0 or chance.random() < 0.7:
            wanted, wait_seconds = begun(run) + chance.randrange(1, STEPS // 2), chance.uniform(0, 0.3)
        else:
            wanted, wait_seconds = 0, chance.uniform(0, seconds)
        with started_ranks(execute, WORLD_SIZE, run) as ranks:
            while ranks.running and begun(run) < wanted:
                time.sleep(0.002)
            until = time.monotonic() + wait_seconds
            while ranks.running and time.monotonic() < until:
                time.sleep(0.002)
            if not ranks.running:
                break
            what = kill(ranks, chance)
        told.append(f"{what} at {begun(run)}")
        COUNTED[what] += 1
    run_distributed(execute, WORLD_SIZE, run)
    COUNTED["runs"] += 1
    print(f"\nseed {seed}, {strategy}: {', '.join(told) or 'ended before it could be killed'}")
    assert ending_of(run) == expected
