"""What others rely on in the training benchmark: JSON, exit codes, and that both sides do their work."""

import importlib
import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from baltoro.core.errors import TrainingError

ROOT = Path(__file__).parents[3]
TRAINING = ROOT / "bench" / "training"
SHARED = ROOT / "bench" / "corpus"


@pytest.fixture
def module(monkeypatch):
    """Import a module of the benchmark, which runs as a script beside its modules."""
    monkeypatch.syspath_prepend(str(SHARED))
    monkeypatch.syspath_prepend(str(TRAINING))
    monkeypatch.setenv("PYTHONPATH", os.environ.get("PYTHONPATH", ""))
    yield importlib.import_module
    for path in [*TRAINING.glob("*.py"), *SHARED.glob("*.py")]:
        sys.modules.pop(path.stem, None)


def run(module, monkeypatch, capsys, *arguments):
    monkeypatch.setattr(sys, "argv", ["bench_training.py", *map(str, arguments)])
    try:
        code = module("bench_training").main()
    except SystemExit as stopped:
        code = stopped.code
    return code, capsys.readouterr()


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        (["--only", "speed"], "there is no part 'speed'; choose from overhead, trainer,"),
        (["--restart-steps", "10,15"], "(10, 15) are not multiples of 10"),
        (["--loss-tokens", "1024"], "'1024' is not two numbers with a comma"),
        (["--loss-vocabularies", "9,8"], "9 and 8: the larger one comes last"),
        (["--turns", "2"], "2 give no median"),
    ],
)
def test_wrong_arguments_are_named(module, monkeypatch, capsys, arguments, text):
    code, output = run(module, monkeypatch, capsys, *arguments)
    assert code == 2
    assert text in output.err


@pytest.mark.parametrize(("baltoro", "code"), [(1.02, 0), (1.04, 3)])
def test_a_missed_bound_is_exit_code_3(module, monkeypatch, capsys, baltoro, code):
    row = module("results").Row("overhead/world_1/wall", "ms", baltoro, 1.0, 1.03, at_most=True)
    monkeypatch.setattr(module("overhead"), "measure_overhead", lambda *_, **__: [row])
    found, output = run(module, monkeypatch, capsys, "--only", "overhead", "--json")
    assert found == code
    assert json.loads(output.out) == {
        "overhead/world_1/wall": {
            "value": baltoro,
            "baseline": 1.0,
            "ratio": baltoro,
            "bound": 1.03,
            "passed": code == 0,
        }
    }
    assert "load average" in output.err


def test_sides_take_turns_and_each_goes_first_as_often(module):
    calls = []
    sides = {"b": lambda: calls.append("b"), "a": lambda: calls.append("a")}
    times = module("setting").in_turns(sides, 4)
    assert "".join(calls) == "abbaabba"
    assert [len(times[name].wall) for name in "ab"] == [len(times[name].cpu) for name in "ab"] == [4, 4]


def test_documents_are_of_mixed_length_and_packing_keeps_every_token(module):
    documents = module("documents").mixed_documents(400, sequence_length=256, vocabulary=100, seed=1)
    lengths = np.array([len(document) for document in documents])
    assert lengths.max() == 256
    assert np.median(lengths) < 128
    assert min(document.min() for document in documents) >= 3
    rows = module("documents").pack(documents, 256)
    assert sum(int(ends[-1]) for ends in rows.segment_ends) == lengths.sum()
    assert lengths.sum() / rows.input_ids.size > 0.98
    counted = np.bincount(rows.input_ids.ravel(), minlength=100)[3:]
    assert (counted == np.bincount(np.concatenate(documents), minlength=100)[3:]).all()


def test_packed_rows_are_full_and_of_several_segments(module):
    setting = module("setting")
    rows = setting.packed_rows(50, setting.Size(sequence_length=64))
    assert {int(ends[-1]) for ends in rows.segment_ends} == {64}
    assert max(len(ends) for ends in rows.segment_ends) > 1
    assert all((np.diff(ends) > 0).all() for ends in rows.segment_ends)


def test_the_chunked_loss_needs_less_memory_than_all_logits(module):
    memory = module("loss_memory")
    full, chunked = (memory.peak_in_new_process(name, 16_000, 2048) for name in ("full", "chunked"))
    # 2048 positions × 16,000 logits of 4 bytes are 131 MB, which the full loss holds more than once.
    assert full > 200
    assert chunked < 0.5 * full


@pytest.mark.slow
@pytest.mark.distributed
def test_both_sides_of_overhead_are_measured_on_every_rank(module):
    setting, overhead = module("setting"), module("overhead")
    size = setting.Size(hidden_size=16, layers=1, vocabulary=64, sequence_length=16, rows=1, accumulation=2)
    rows = overhead.measure_overhead((2,), turns=3, size=size)
    assert [row.name for row in rows] == ["overhead/world_2/wall", "overhead/world_2/cpu"]
    assert all(row.value > 0 and row.baseline > 0 for row in rows)


@pytest.mark.slow
@pytest.mark.distributed
def test_waits_are_measured_from_shards_on_disk(module, tmp_path):
    setting, waits = module("setting"), module("waits")
    size = setting.Size(hidden_size=16, layers=1, vocabulary=300, sequence_length=16, rows=2, accumulation=1)
    (row,) = waits.measure_data(tmp_path / "data", world_size=1, steps=6, size=size)
    assert 0 < row.value < row.baseline
    stall, beside = waits.measure_checkpoint(
        tmp_path / "checkpoint", world_size=1, steps=12, every_steps=3, size=size
    )
    assert (stall.name, stall.bound) == ("checkpoint/stall", 1.0)
    assert stall.value > 0
    assert beside.baseline == stall.baseline > 0


@pytest.mark.slow
@pytest.mark.distributed
def test_a_restart_resumes_where_the_run_was_left(module, tmp_path):
    restart = module("restart")
    rows = restart.measure_restart(tmp_path / "run", world_size=1, steps=(10, 20))
    assert [row.name for row in rows][:2] == ["restart/after_10", "restart/after_20"]
    with pytest.raises(TrainingError, match="the ranks ended with exit codes"):
        restart.run(_broken(tmp_path), 1, stop_after=11)


def _broken(folder):
    broken = folder / "broken"
    (broken / "run").mkdir(parents=True)
    (broken / "run" / "head.json").write_text("{}", encoding="utf-8")
    return broken


@pytest.mark.slow
@pytest.mark.distributed
def test_trainer_is_compared_by_the_command():
    small = {"hidden-size": 16, "layers": 1, "vocabulary": 300, "sequence-length": 32, "rows": 2, "turns": 6}
    tiny = [f"--{name}={value}" for name, value in small.items()]
    command = [sys.executable, str(TRAINING / "bench_training.py"), "--only", "trainer", "--json", *tiny]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode in {0, 3}, done.stderr
    rows = json.loads(done.stdout)
    assert {name: row["bound"] for name, row in rows.items()} == {"trainer/raw": 1.0, "trainer/useful": 1.5}
    assert all(row["value"] > 0 and row["baseline"] > 0 for row in rows.values())
    assert "of Trainer's positions were padding on mixed lengths" in done.stderr
