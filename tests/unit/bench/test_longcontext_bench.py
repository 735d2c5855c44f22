"""What others rely on in the long-context benchmark: JSON, exit codes, figures that follow their formulas."""

import importlib
import json
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[3]
LONGCONTEXT = ROOT / "bench" / "longcontext"
SHARED = ROOT / "bench" / "corpus"


@pytest.fixture
def module(monkeypatch):
    """Import a module of the benchmark, which runs as a script beside its modules."""
    monkeypatch.syspath_prepend(str(SHARED))
    monkeypatch.syspath_prepend(str(LONGCONTEXT))
    monkeypatch.delenv("BALTORO_DATA", raising=False)
    yield importlib.import_module
    for path in [*LONGCONTEXT.glob("*.py"), *SHARED.glob("*.py")]:
        sys.modules.pop(path.stem, None)


def run(module, monkeypatch, capsys, *arguments):
    monkeypatch.setattr(sys, "argv", ["bench_longcontext.py", *map(str, arguments)])
    try:
        code = module("bench_longcontext").main()
    except SystemExit as stopped:
        code = stopped.code
    return code, capsys.readouterr()


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        (["--only", "speed"], "there is no part 'speed'; choose from attention, memory, check, instructions"),
        (["--turns", "2"], "2 give no median"),
        (["--repetitions", "0"], "0 measure nothing"),
        (["--tokens", "64,many"], "'64,many' is not numbers with commas"),
        (["--tokens", "64,32"], "(64, 32) do not rise from at least 4"),
        (["--only", "instructions", "--papers", "nowhere"], "nowhere: is no folder"),
    ],
)
def test_wrong_arguments_are_named(module, monkeypatch, capsys, arguments, text):
    code, output = run(module, monkeypatch, capsys, *arguments)
    assert code == 2
    assert text in output.err


def test_attention_is_one_json_object_and_a_missed_bound_is_exit_code_3(module, monkeypatch, capsys):
    monkeypatch.setattr(module("attention_cost"), "LEAST_AT_LONGEST", 1e9)
    arguments = ("--only", "attention", "--tokens", "16,37", "--turns", "3", "--json")
    code, output = run(module, monkeypatch, capsys, *arguments)
    rows = json.loads(output.out)
    assert code == 3
    assert rows["attention/16"]["bound"] is None
    assert not rows["attention/37"]["passed"]
    assert "S² with groups of a quarter" in output.err


def test_a_step_of_a_7b_gains_what_attention_s_part_of_its_operations_allows(module):
    row = module("attention_cost")._gain_of_7b(8192)
    # 6 for each weight that a token meets, and 12 · 4096 for each of 32 layers and each key it sees.
    matrices = 6 * 6_607_077_376 * 8192
    per_key = 12 * 4096 * 32
    groups, shifted = 4 * 2048 * 2049 / 2, 3 * 2048 * 2049 / 2 + 2 * 1024 * 1025 / 2
    full = matrices + per_key * 8192 * 8193 / 2
    sparse = matrices + per_key * (groups + shifted) / 2
    assert row.value * 1e12 == pytest.approx(full, rel=1e-3)
    assert row.baseline * 1e12 == pytest.approx(sparse, rel=1e-3)


@pytest.mark.parametrize(
    ("ratios", "found"), [([0.5, 1.5, 2.0], 2), ([1.5, 0.9, 2.0], 3), ([2.0, 1.5, 1.0], None)]
)
def test_it_pays_from_where_it_is_never_slower_again(module, ratios, found):
    assert module("attention_cost").pays_from((1, 2, 3), ratios) == found


def test_memory_by_method_is_what_is_held_of_each_parameter(module):
    memory = module("memory_model")
    size = memory.CheckSize()

    def need(method, precision, tokens=512):
        return memory.need_of(
            size.config(), method, tokens=tokens, precision=precision, adapter=memory.CHECK_ADAPTER
        )

    parameters = 2 * 2048 * 256 + 4 * (4 * 256**2 + 3 * 256 * 688 + 2 * 256) + 256
    full = need("full", "bfloat16")
    assert full.trained == 6 * parameters
    # Rotary frequencies are all that is not trained.
    assert full.frozen == 2 * 32 * 4
    assert (full.gradients, full.moments) == (4 * parameters, 8 * parameters)
    needs = {method: need(method, "bfloat16") for method in ("lora", "qlora", "longqlora")}
    adapter = 8 * 4 * (4 * 2 * 256 + 3 * (256 + 688))
    assert all(found.moments == 8 * adapter for found in needs.values())
    assert needs["lora"].frozen == pytest.approx(2 * parameters, rel=1e-4)
    linear = 4 * (4 * 256**2 + 3 * 256 * 688)
    four_bits = linear * (0.5 + 1 / 64 + 4 / (64 * 256)) + 2 * (parameters - linear)
    assert needs["qlora"].frozen == pytest.approx(four_bits, rel=1e-3)
    assert needs["longqlora"] == needs["qlora"]
    # Everything that grows, grows with the row; the rest stays.
    longer = need("qlora", "bfloat16", tokens=1024)
    assert longer.checkpoints == pytest.approx(2 * needs["qlora"].checkpoints, rel=1e-6)
    assert longer.frozen == needs["qlora"].frozen
    assert (
        full.total
        == full.frozen + full.trained + full.gradients + full.moments + full.checkpoints + full.block
    )


def test_instructions_are_built_of_generated_papers(module, monkeypatch, capsys):
    rate = module("instruction_rate")
    monkeypatch.setattr(rate, "_GENERATED", 4)
    monkeypatch.setattr(rate, "EXAMPLES_PER_SECOND", 1.0)
    code, output = run(module, monkeypatch, capsys, "--only", "instructions", "--repetitions", 1, "--json")
    row = json.loads(output.out)["instructions/generated"]
    assert code == 0
    assert row["value"] > 1.0
    assert "generated: 4 papers give" in output.err
