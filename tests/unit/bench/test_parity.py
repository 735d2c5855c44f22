"""What others rely on in the parity table: its text, its exit code, and that a wrong run does not pass."""

import importlib
import importlib.util
import json
import sys
from pathlib import Path

import pytest

TRAINING = Path(__file__).parents[3] / "bench" / "training"


@pytest.fixture
def parity(monkeypatch):
    monkeypatch.syspath_prepend(str(TRAINING))
    yield importlib.import_module("parity")
    sys.modules.pop("parity", None)


def command(parity, monkeypatch, capsys, *arguments):
    monkeypatch.setattr(sys, "argv", ["parity.py", *arguments])
    try:
        code = parity.main()
    except SystemExit as stopped:
        code = stopped.code
    return code, capsys.readouterr()


def rows_of(parity, deviation=2e-6, *, norm=3e-5, same_rows=True):
    spreads = [parity.REFERENCE, parity.Spread("hybrid", 4, 1, {}, "2×2")]
    reference = parity.Row(spreads[0], "float32", 2.5, 0.0, 0.0, same_rows=True, is_reference=True)
    return [reference, parity.Row(spreads[1], "float32", 2.500002, deviation, norm, same_rows=same_rows)]


def test_the_table_names_what_was_run_how_far_it_is_and_the_verdict(parity):
    rows = rows_of(parity)
    rows.append(parity.Row(parity.REFERENCE, "bfloat16", 2.51, 3e-2, 0.0, same_rows=True))
    assert parity.as_table(rows, steps=30).splitlines() == [
        "Losses in nats per token over 30 steps of 8 rows; deviations are the largest of any step from fsdp2 "
        "on one rank.",
        "",
        "float32     ranks  micro-batch ×  final loss  max |Δloss|  max |Δnorm|  verdict",
        "                   accumulation                   ≤ 1e-04      ≤ 1e-04",
        "fsdp2           1  8 × 1            2.500000      0.0e+00      0.0e+00  reference",
        "hybrid 2×2      4  1 × 2            2.500002      2.0e-06      3.0e-05  equal",
        "",
        "bfloat16    ranks  micro-batch ×  final loss  max |Δloss|  max |Δnorm|  verdict",
        "                   accumulation                   ≤ 2e-02      ≤ 2e-02",
        "fsdp2           1  8 × 1            2.510000      3.0e-02      0.0e+00  DIFFERS",
        "",
        "1 of 3 runs DIFFER",
    ]
    assert parity.as_table(rows[:2], steps=30).endswith("\n\nall 2 runs are equal")


@pytest.mark.parametrize(
    ("found", "code", "verdict"),
    [
        ({}, 0, "equal"),
        ({"deviation": 1.1e-4}, 1, "DIFFERS"),
        ({"deviation": float("nan")}, 1, "DIFFERS"),
        ({"norm": 1.1e-4}, 1, "DIFFERS"),
        ({"norm": float("nan")}, 1, "DIFFERS"),
        ({"same_rows": False}, 1, "OTHER ROWS"),
    ],
)
def test_a_run_beyond_a_bound_is_exit_code_1(parity, monkeypatch, capsys, found, code, verdict):
    rows = rows_of(parity, **found)
    monkeypatch.setattr(parity, "compare", lambda *_, **__: rows)
    found_code, output = command(parity, monkeypatch, capsys, "--only", "fsdp2,hybrid")
    assert found_code == code
    assert output.out.splitlines()[5].endswith(f"  {verdict}")
    assert command(parity, monkeypatch, capsys, "--only", "fsdp2,hybrid", "--json")[0] == code


def test_json_has_each_run_with_its_bounds(parity, monkeypatch, capsys):
    rows = rows_of(parity)
    monkeypatch.setattr(parity, "compare", lambda *_, **__: rows)
    _, output = command(parity, monkeypatch, capsys, "--only", "fsdp2,hybrid", "--json")
    found = json.loads(output.out)
    assert list(found) == ["float32/fsdp2/world_1/8x1", "float32/hybrid/world_4/1x2"]
    assert found["float32/hybrid/world_4/1x2"] == {
        "final_loss": 2.500002,
        "loss_deviation": 2e-6,
        "norm_deviation": 3e-5,
        "bound": 1e-4,
        "same_rows": True,
        "passed": True,
    }


def test_every_strategy_runs_on_two_ranks_and_two_of_them_with_another_accumulation_at_each_number(parity):
    spreads = parity.spreads()
    assert len({spread.key for spread in spreads}) == len(spreads)
    assert {spread.strategy for spread in spreads if spread.world_size == 2} == set(parity.STRATEGIES)
    for strategy in ("fsdp2", "ZeRO-3"):
        found = {
            spread.world_size: spread.accumulation
            for spread in spreads
            if spread.strategy == strategy and (spread.world_size, spread.micro_batch) != (2, 2)
        }
        assert found == {1: 1, 2: 4, 4: 2}
    for spread in spreads:
        assert spread.world_size * spread.micro_batch * spread.accumulation == parity.ROWS_PER_STEP


def test_arguments_choose_strategies_and_precisions(parity, monkeypatch, capsys):
    asked = []
    monkeypatch.setattr(
        parity, "compare", lambda chosen, precisions, **how: asked.append((chosen, precisions, how)) or []
    )
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: object())
    command(parity, monkeypatch, capsys)
    command(parity, monkeypatch, capsys, "--only", "zero-3,DDP", "--precision", "bfloat16", "--steps", "40")
    (everything, both, _), (some, one, how) = asked
    assert (everything, both) == (parity.spreads(), ["float32", "bfloat16"])
    assert {spread.strategy for spread in some} == {"ZeRO-3", "ddp"}
    assert (one, how["steps"]) == (["bfloat16"], 40)


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        (["--only", "zero3"], "there is no strategy 'zero3'; choose from ddp, fsdp2, hybrid, ZeRO-1,"),
        (["--steps", "5"], "--steps: 5 show little; at least 20"),
        (["--precision", "float16"], "invalid choice: 'float16'"),
        ([], "or leave it out with --only ddp,fsdp2,hybrid"),
    ],
)
def test_wrong_arguments_are_named(parity, monkeypatch, capsys, arguments, text):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    code, output = command(parity, monkeypatch, capsys, *arguments)
    assert code == 2
    assert text in output.err


@pytest.mark.slow
@pytest.mark.distributed
def test_a_run_with_another_learning_rate_does_not_pass(parity, monkeypatch, capsys):
    from baltoro.optim.config import OptimizerConfig

    wrong = parity.Spread(
        "fsdp2", 1, 4, {"optimizer": OptimizerConfig(learning_rate=1.01 * parity.LEARNING_RATE)}
    )
    monkeypatch.setattr(parity, "spreads", lambda: [parity.REFERENCE, parity.Spread("fsdp2", 2, 2), wrong])
    code, output = command(
        parity, monkeypatch, capsys, "--only", "fsdp2", "--precision", "float32", "--steps", "20"
    )
    assert code == 1
    assert [line.split()[-1] for line in output.out.splitlines()[4:7]] == ["reference", "equal", "DIFFERS"]
    assert output.out.splitlines()[-1] == "1 of 3 runs DIFFER"
