"""The ledger and the fence, with real processes that are killed or live too long."""

import json
import signal
import subprocess
import sys
import textwrap
from dataclasses import replace

import numpy as np
import pytest

from baltoro.checkpoint.audit import audit_ledger
from baltoro.checkpoint.checkpointer import collect_abandoned
from baltoro.checkpoint.head import RunIdentity, claim_attempt, read_head
from baltoro.checkpoint.ledger import Ledger, accepted, read_ledger
from baltoro.core.storage import Storage
from baltoro.data.collate import collate
from baltoro.data.digest import digest_rows, digest_text
from baltoro.testing.distributed import run_distributed, single_process_group
from baltoro.testing.runs import ROWS_PER_STEP, STEPS, execute, interrupted, tiny_run

pytestmark = pytest.mark.distributed

ATTEMPT = textwrap.dedent(
    """
    import json, sys, time
    import torch
    from baltoro.checkpoint.checkpointer import Checkpointer
    from baltoro.checkpoint.config import CheckpointConfig
    from baltoro.checkpoint.head import Finished, RunIdentity, claim_attempt
    from baltoro.checkpoint.ledger import Ledger, LedgerRecord
    from baltoro.checkpoint.state import TrainState
    from baltoro.core.errors import TrainingError
    from baltoro.core.storage import Storage
    from baltoro.testing.distributed import single_process_group


    class OneParameter:
        value = torch.arange(6.0)

        def state_dict(self):
            return {"model": {"weight": self.value}}

        def load_state_dict(self, state):
            self.value = state["model"]["weight"]


    def told(word):
        print(word, flush=True)
        return sys.stdin.readline().strip()


    def digest(step):
        return f"digest-{step}"


    class Run:
        def __init__(self, uri, ledger_seconds=0.0):
            identity = RunIdentity("c", ("d",))
            self.claim, head = claim_attempt(Storage(), uri, identity, world_size=1)
            self.ledger = Ledger(self.claim, head, journal_seconds=ledger_seconds)
            self.saver = Checkpointer(
                CheckpointConfig(keep_last=9),
                claim=self.claim,
                device=torch.device("cpu"),
                ledger=self.ledger,
            )
            self.state = self.saver.restore(OneParameter(), head, seed=0) or TrainState()

        def train(self, steps):
            for step in range(self.state.step, self.state.step + steps):
                self.ledger.append(
                    LedgerRecord(
                        step=step, rows=(step * 4, step * 4 + 4), digest=digest(step), tokens=10,
                        valid_tokens=8, loss=1.0, gradient_norm=float("nan"), learning_rate=0.1, world_size=1,
                        attempt=self.claim.attempt, status="done", seconds=0.1, phase_seconds={},
                        ended_at=time.time(),
                    )
                )
                self.state = self.state.advanced(tokens=10, loss=1.0, learned=True)

        def until_noted(self, records):
            journal = self.claim.run_uri + "/ledger/open-attempt-0001.jsonl"
            while Storage().stat(journal) is None or Storage().read_bytes(journal).count(b"\\n") != records:
                time.sleep(0.01)

        def save(self):
            self.saver.save(OneParameter(), self.state)
            self.saver.wait()
    """
)

OUTLIVES = ATTEMPT + textwrap.dedent(
    """
    with single_process_group():
        told("imported")
        run = Run(sys.argv[1])
        run.train(4)
        run.save()
        run.train(3)
        run.until_noted(3)
        told("claimed")
        said = []
        for publish in (
            run.save,
            lambda: run.claim.publish_segment(run.ledger.segment_for_checkpoint().segment),
            lambda: run.claim.publish_finished(Finished(7, "export-attempt-0001", "digest")),
        ):
            try:
                publish()
            except TrainingError as error:
                said.append(error.message)
        run.ledger.close()
        print(json.dumps(said), flush=True)
    """
)

SUCCEEDS = ATTEMPT + textwrap.dedent(
    """
    with single_process_group():
        told("imported")
        run = Run(sys.argv[1])
        run.train(2)
        run.save()
        run.ledger.close()
        print(json.dumps([run.claim.attempt, run.state.step]), flush=True)
    """
)

CRASHES = ATTEMPT + textwrap.dedent(
    """
    with single_process_group():
        run = Run(sys.argv[1])
        run.train(4)
        run.save()
        run.train(3)
        run.until_noted(3)
        told("training")
    """
)


class Process:
    """A process that stops wherever it tells something, until it is told to go on."""

    def __init__(self, script, uri):
        self.popen = subprocess.Popen(
            [sys.executable, "-c", script, uri], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )

    def until(self, word):
        assert self.popen.stdout.readline().strip() == word, "the process failed; its error is above"

    def go_on(self):
        self.popen.stdin.write("go\n")
        self.popen.stdin.flush()

    def answer(self):
        return json.loads(self.popen.stdout.readline())


@pytest.fixture
def start():
    """Start a process that does not outlive the test."""
    processes = []

    def started(script, uri):
        processes.append(Process(script, uri))
        return processes[-1]

    yield started
    for process in processes:
        process.popen.kill()
        process.popen.communicate()


def audited(uri):
    storage = Storage()
    return audit_ledger(
        read_ledger(storage, uri),
        read_head(storage, uri),
        expected_digest=lambda step: f"digest-{step}",
        rows_per_step=4,
    )


def test_an_attempt_that_outlives_its_successor_publishes_nothing(start, root):
    old, new = start(OUTLIVES, root), start(SUCCEEDS, root)
    old.until("imported")
    new.until("imported")
    old.go_on()
    old.until("claimed")
    new.go_on()
    assert new.answer() == [2, 6]
    before = Storage().read_bytes(f"{root}/head.json")

    old.go_on()
    said = old.answer()
    assert len(said) == 3
    assert all("attempt 1 was superseded by attempt 2" in message for message in said)
    assert [message.rpartition("; ")[2].partition(" and ")[0] for message in said] == [
        "its checkpoint at step 7 is not published",
        "its ledger ledger/step-00000007-attempt-0001.jsonl is not published",
        "its export is not published",
    ]
    assert Storage().read_bytes(f"{root}/head.json") == before
    found = audited(root)
    assert found.findings == ()
    assert (found.steps, found.abandoned, found.attempts) == (6, 3, (1, 2))

    # The next attempt clears away what the old one could only write.
    claim, head = claim_attempt(Storage(), root, RunIdentity("c", ("d",)), world_size=1)
    Ledger(claim, head).close()
    assert collect_abandoned(claim, head) == [
        "checkpoints/step-00000007-attempt-0001",
        "ledger/step-00000007-attempt-0001.jsonl",
    ]
    assert read_head(Storage(), root).ledger == head.ledger


def test_steps_of_a_killed_process_stay_on_record_and_are_done_again(start, tmp_path):
    uri = str(tmp_path / "run")
    killed = start(CRASHES, uri)
    killed.until("training")
    killed.popen.send_signal(signal.SIGKILL)
    killed.popen.wait()
    after = start(SUCCEEDS, uri)
    after.until("imported")
    after.go_on()
    assert after.answer() == [2, 6]
    records = read_ledger(Storage(), uri)
    assert [(record.step, record.attempt) for record in records if record.abandoned] == [
        (4, 1),
        (5, 1),
        (6, 1),
    ]
    assert [(record.step, record.attempt) for record in accepted(records)] == [
        *((step, 1) for step in range(4)),
        (4, 2),
        (5, 2),
    ]
    found = audited(uri)
    assert found.findings == ()
    assert found.abandoned == 3


def fed_with(run, order):
    """The run, fed other rows than the dataset has at their places."""
    rows = np.arange(STEPS * ROWS_PER_STEP)
    rows[list(order)] = list(order.values())
    return replace(run, rows=run.rows.take(rows))


def audit_against(run, rows):
    """Audit a run against the rows that it should have been fed."""

    def digest(step):
        numbers = range(step * ROWS_PER_STEP, (step + 1) * ROWS_PER_STEP)
        return digest_text(digest_rows(numbers, collate(rows.slice(numbers.start, numbers.stop))))

    return audit_ledger(
        read_ledger(Storage(), run.run_uri),
        read_head(Storage(), run.run_uri),
        expected_digest=digest,
        rows_per_step=ROWS_PER_STEP,
    )


def execute_one(run):
    """Train on every rank; losses of this attempt."""
    return execute(run)[0]


def test_a_run_over_several_attempts_and_world_sizes_passes_its_audit(tmp_path):
    run = tiny_run(tmp_path / "run")
    run_distributed(execute_one, 2, interrupted(run, 6))
    run_distributed(execute_one, 1, run)
    found = audit_against(run, run.rows)
    assert found.findings == ()
    assert (found.steps, found.rows, found.attempts, found.world_sizes) == (10, 80, (1, 2), (2, 1))
    # Step 5 was lost to the interruption, which the next attempt puts on record.
    assert [r.step for r in read_ledger(Storage(), run.run_uri) if r.abandoned] == [4]
    assert not list((tmp_path / "run/ledger").glob("open-*"))


@pytest.mark.parametrize(
    ("order", "steps"),
    [
        pytest.param({17: 42, 42: 17}, ["step 3 ", "step 6 "], id="swapped rows"),
        pytest.param({17: 18, 18: 17}, ["step 3 "], id="rows swapped within a step"),
        pytest.param({24: 16, 25: 17}, ["step 4 "], id="a repeated slice"),
    ],
)
def test_a_run_that_was_fed_other_rows_fails_its_audit(tmp_path, order, steps):
    run = tiny_run(tmp_path / "run")
    with single_process_group():
        execute(fed_with(run, order))
    found = audit_against(run, run.rows)
    assert found.chain_intact
    assert not found.order_equal
    assert [finding[: len(step)] for finding, step in zip(found.findings, steps, strict=True)] == steps
    assert all("other rows, or rows of another content, were fed" in finding for finding in found.findings)
