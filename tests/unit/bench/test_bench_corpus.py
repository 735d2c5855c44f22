"""What others rely on in the corpus benchmark: its JSON and exit codes, and that both sides do their work."""

import importlib
import json
import os
import re
import sys
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from baltoro.core.errors import InputError, PlatformError
from baltoro.corpus.config import CorpusConfig
from baltoro.jobs.recipe import load_recipe
from baltoro.testing.collections import Plan, write_collection

ROOT = Path(__file__).parents[3]
CORPUS = ROOT / "bench" / "corpus"
KEYS = {"value", "baseline", "ratio", "bound", "passed"}

FAKE_DATATROVE = """
import json, sys
texts, tokenizer, eos_token, folder = sys.argv[1:]
count = len(open(texts).read().splitlines())
for _ in sys.stdin:
    seconds = {"filter": 2.0, "minhash": 1.0, "tokenise": 1.0}
    print(json.dumps({"size_mb": 4.0, "seconds": seconds, "kept": count, "tokens": 5}), flush=True)
"""

FAKE_COMMAND = """
import subprocess, sys, time
sleeper = "import time; block = bytearray(80_000_000); time.sleep(1.2)"
child = subprocess.Popen([sys.executable, "-c", sleeper, "ray/dashboard/dashboard.py"])
print("corpus: building 0123", file=sys.stderr)
print("\\rreading: 50%|####", end="", file=sys.stderr, flush=True)
child.wait()
print("\\rcorpus: done in 1 s (file:///x)\\ntokens: building 4567", file=sys.stderr)
print("tokens: done in 0 s (file:///y)", file=sys.stderr)
print("{}")
sys.exit(int(sys.argv[1]))
"""


@pytest.fixture
def module(monkeypatch):
    """Import a module of the benchmark, which runs as a script beside its modules."""
    monkeypatch.syspath_prepend(str(CORPUS))
    # Restored at the end: the script sets both for itself.
    monkeypatch.setenv("TOKENIZERS_PARALLELISM", "false")
    monkeypatch.setenv("RAYON_NUM_THREADS", "1")
    monkeypatch.delenv("BALTORO_DATA", raising=False)
    yield importlib.import_module
    for path in CORPUS.glob("*.py"):
        sys.modules.pop(path.stem, None)


def run(module, monkeypatch, capsys, *arguments):
    monkeypatch.setattr(sys, "argv", ["bench_corpus.py", *map(str, arguments)])
    try:
        code = module("bench_corpus").main()
    except SystemExit as stopped:
        code = stopped.code
    return code, capsys.readouterr()


# --- results -----------------------------------------------------------------------------------------


def test_speeds_must_reach_their_bound_and_times_must_not_exceed_it(module):
    row = module("results").Row
    assert row("speed", "MB/s", 6, 1, 5.0).passed
    assert not row("speed", "MB/s", 4, 1, 5.0).passed
    assert row("time", "s", 4, 1, 5.0, at_most=True).passed
    assert not row("time", "s", 6, 1, 5.0, at_most=True).passed
    assert row("information", "s", 0, 1).passed


def test_a_baseline_of_nothing_holds_no_bound(module):
    results = module("results")
    rows = [results.Row("beyond", "s", 1, -0.5, 10.5, at_most=True)]
    assert results.exit_code(rows) == 3
    assert json.loads(results.as_json(rows))["beyond"]["ratio"] is None
    assert "MISSED" in results.as_table(rows)


def test_json_is_one_object_with_the_five_keys_and_the_exit_code_tells_of_the_bounds(
    module, monkeypatch, capsys
):
    row = module("results").Row
    script = module("bench_corpus")
    for value, expected in ((6, 0), (4, 3)):
        rows = [row("chain/generated", "MB/s", value, 1, 5.0), row("information", "s", 1, 2)]
        monkeypatch.setattr(script, "measure", lambda *_, rows=rows: iter([(rows, "a note")]))
        code, printed = run(module, monkeypatch, capsys, "--json")
        report = json.loads(printed.out)
        assert code == expected
        assert {name: set(entry) for name, entry in report.items()} == {
            "chain/generated": KEYS,
            "information": KEYS,
        }
        assert report["chain/generated"]["passed"] is (expected == 0)
        assert "a note" in printed.err


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (("--only", "chain,speed"), "there is no part 'speed'; choose from chain, whole, scale, workers"),
        (("--scale-documents", "many"), "'many' is not two numbers with a comma"),
        (("--scale-documents", "2000,200"), "give at least 100, and the larger one last"),
    ],
)
def test_options_that_mean_nothing_are_refused_with_2(module, monkeypatch, capsys, arguments, complaint):
    code, printed = run(module, monkeypatch, capsys, *arguments)
    assert code == 2
    assert complaint in printed.err


def test_a_folder_without_papers_ends_with_2(module, monkeypatch, capsys, tmp_path):
    (tmp_path / "papers").mkdir()
    (tmp_path / "papers" / "empty.txt").write_text("")
    options = ("--only", "whole", "--documents", 3, "--repetitions", 1, "--papers", tmp_path / "papers")
    code, printed = run(module, monkeypatch, capsys, *options)
    assert (code, printed.out) == (2, "")
    assert "no paper there becomes a document; give another folder with --papers" in printed.err


def test_a_missing_environment_of_datatrove_is_named_with_what_makes_it(
    module, monkeypatch, capsys, tmp_path
):
    python = tmp_path / "absent" / "python"
    options = ("--only", "chain", "--documents", 3, "--repetitions", 1, "--datatrove-python", python)
    code, printed = run(module, monkeypatch, capsys, *options)
    assert code == 2
    assert f"{python}: the chain is compared with datatrove" in printed.err
    assert "make bench-corpus" in printed.err


# --- chain and whole ---------------------------------------------------------------------------------


@pytest.fixture
def material(module, tmp_path):
    write_collection(tmp_path / "papers", Plan(12, words=400, exact_fraction=0.3), papers_per_file=4)
    return module("material").prepare("generated", tmp_path / "papers", tmp_path / "material")


@pytest.fixture
def same_process(module, monkeypatch):
    """Start no processes of their own: it is not the figures that are looked at."""
    monkeypatch.setattr(
        module("fresh"), "in_new_process", lambda function, *a, **named: function(*a, **named)
    )


def test_every_measurement_has_a_process_that_has_seen_nothing(module):
    pids = {module("fresh").in_new_process(os.getpid) for _ in range(2)}
    assert len(pids | {os.getpid()}) == 3


def test_the_whole_path_ends_in_a_shard_with_every_token_of_the_documents_that_stay(
    module, material, tmp_path
):
    config = CorpusConfig(sources=(material.source,))
    tokenizer = material.tokenizer()
    tokens = module("whole").papers_to_shard(material.chunk(), config, tokenizer, tmp_path)
    shard = pq.read_table(tmp_path / "shard.parquet")
    assert sum(ends[-1] for ends in shard.column("segment_ends").to_pylist()) == tokens
    texts = pq.read_table(tmp_path / "documents.parquet").column("text").to_pylist()
    assert len(set(texts)) == len(texts) < len(material.texts())
    encoded = [tokenizer.backend_tokenizer.encode(text).ids for text in texts]
    assert tokens == sum(len(ids) + (ids[-1] != tokenizer.eos_token_id) for ids in encoded)


@pytest.mark.usefixtures("same_process")
def test_the_whole_path_is_measured_against_the_bare_encode_with_both_bounds(module, material, tmp_path):
    rows = module("whole").measure_whole(material, tmp_path, 1)
    assert [(row.name, row.bound) for row in rows] == [
        ("whole/generated/without_minhash", 0.6),
        ("whole/generated/with_minhash", 0.5),
    ]
    assert all(row.value > 0 and row.baseline > 0 for row in rows)


def test_a_saved_tokenizer_that_gives_other_tokens_is_refused(module, material):
    path, tokenizer = material.tokenizer_folder / "tokenizer.json", material.tokenizer()
    saved = json.loads(path.read_text())
    saved["model"]["merges"] = []
    path.write_text(json.dumps(saved))
    with pytest.raises(InputError, match=r"tokenizer\.json gives other tokens than"):
        module("material").check_same_tokens(material, tokenizer)


def test_the_chain_does_every_step_and_counts_what_comes_out(module, material, tmp_path):
    chain = module("chain")
    spent = chain.baltoro_chain(material.texts(), material, tmp_path)
    assert spent.kept == 12
    assert spent.tokens > 12 * 300
    assert all(spent.seconds[step] > 0 for step in chain.STEPS)
    shard = pq.read_table(tmp_path / "shard.parquet")
    assert sum(ends[-1] for ends in shard.column("segment_ends").to_pylist()) == spent.tokens


@pytest.mark.usefixtures("same_process")
def test_the_chain_is_held_against_what_the_other_environment_answers(
    module, material, monkeypatch, tmp_path
):
    chain = module("chain")
    fake = tmp_path / "fake.py"
    fake.write_text(FAKE_DATATROVE)
    monkeypatch.setattr(chain, "SCRIPT", fake)
    python = Path(sys.executable)
    rows, note = chain.measure_chain(material, tmp_path, python=python, size_mb=0.02, repetitions=2)
    assert {row.name: row.baseline for row in rows} == {
        "chain/generated": 1.0,
        "chain/generated/filter": 2.0,
        "chain/generated/minhash": 4.0,
        "chain/generated/tokenise": 4.0,
    }
    assert [row.bound for row in rows] == [5.0, None, None, None]
    count = int(re.search(r"(\d+) documents", note)[1])
    assert 0 < count < 12
    assert f"kept by the filters: Baltoro {count}, datatrove {count}" in note


@pytest.mark.usefixtures("same_process")
def test_what_the_other_environment_dies_of_is_shown(module, material, monkeypatch, tmp_path):
    chain = module("chain")
    fake = tmp_path / "fake.py"
    fake.write_text("raise SystemExit('no spaCy here')")
    monkeypatch.setattr(chain, "SCRIPT", fake)
    with pytest.raises(PlatformError, match="no spaCy here"):
        chain.measure_chain(material, tmp_path, python=Path(sys.executable), size_mb=0.02, repetitions=1)


def test_the_other_library_is_locked_with_hashes_and_shares_its_main_parts_with_baltoro():
    lock = (CORPUS / "datatrove-requirements.lock").read_text()
    blocks = re.split(r"\n(?=\S)", lock)
    pins = [block for block in blocks if "==" in block.splitlines()[0]]
    assert any(pin.startswith("datatrove==0.10.1 ") for pin in pins)
    assert all("--hash=sha256:" in pin for pin in pins)
    assert "://" not in lock
    ours = (ROOT / "requirements.lock").read_text()
    for package in ("numpy", "tokenizers"):
        here = set(re.findall(rf"^{package}==\S+", lock, re.MULTILINE))
        assert here
        assert here == set(re.findall(rf"^{package}==\S+", ours, re.MULTILINE))


# --- commands that are watched -----------------------------------------------------------------------


def test_a_watched_command_tells_its_stages_and_the_peaks_of_its_processes(module, tmp_path):
    script = tmp_path / "command.py"
    script.write_text(FAKE_COMMAND)
    seen = module("watched_command").run_watched([script, "0"], {}, tmp_path / "log")
    assert set(seen.stage_seconds) == {"corpus", "tokens"}
    assert 1.0 < seen.stage_seconds["corpus"] <= seen.seconds
    assert seen.stage_seconds["tokens"] < 0.5
    assert seen.output == "{}\n"
    assert {"command", "dashboard"} <= set(seen.peaks)
    assert 80e6 < seen.peaks["dashboard"].uss_bytes <= seen.peaks["dashboard"].rss_bytes < 200e6
    assert seen.peaks["command"].rss_bytes < 80e6
    assert seen.cpu_seconds > 0
    assert "reading: 50%" in (tmp_path / "log").read_text()


def test_a_watched_command_that_fails_is_quoted(module, tmp_path):
    script = tmp_path / "command.py"
    script.write_text("import sys; sys.exit('error: nothing there')")
    with pytest.raises(PlatformError, match="ended with 1:\nerror: nothing there"):
        module("watched_command").run_watched([script], {}, tmp_path / "log")


@pytest.mark.parametrize(
    ("name", "line", "role"),
    [
        ("raylet", ["/x/raylet", "--agent=/x/dashboard/agent.py", "/x/default_worker.py"], "raylet"),
        ("gcs_server", ["/x/gcs_server", "--a"], "gcs_server"),
        ("ray::tokenise", ["ray::tokenise_part"], "worker"),
        ("ray::Dashboa", ["ray::DashboardAgent"], "dashboard agent"),
        ("python", ["python", "-u", "/x/ray/dashboard/agent.py"], "dashboard agent"),
        ("python", ["python", "/x/_private/workers/default_worker.py"], "worker"),
        ("git", ["git", "status"], "git"),
    ],
)
def test_processes_of_ray_are_told_apart(module, name, line, role):
    assert module("watched_command").role_of(name, line) == role


def watched(module, seconds, rss_bytes, looks=100):
    watching = module("watched_command")
    peaks = {"command": watching.Peak(rss_bytes, rss_bytes // 2, looks)}
    return watching.WatchedRun(seconds, {"corpus": seconds / 2}, peaks)


def test_start_up_does_not_hide_a_path_that_slows_down_with_size(module):
    scale = module("scale")
    sizes = (1020, 10_020)
    start = watched(module, 30, 1)
    linear = scale.time_rows(start, watched(module, 40, 1), watched(module, 130, 1), sizes)
    assert all(row.passed for row in linear)
    slowing = scale.time_rows(start, watched(module, 40, 1), watched(module, 150, 1), sizes)
    assert [row.name for row in slowing if not row.passed] == ["scale/seconds/beyond_start"]


def test_a_process_that_grows_with_the_corpus_misses_its_bound_and_passing_helpers_do_not_count(module):
    scale = module("scale")
    small, large = watched(module, 1, 100_000_000), watched(module, 10, 112_000_000)
    helper = module("watched_command").Peak(9_000_000, 9_000_000, 2)
    large.peaks["git"] = helper
    rows = {row.name: row for row in scale.memory_rows(small, large)}
    assert set(rows) == {"scale/memory/command/rss", "scale/memory/command/uss"}
    assert not rows["scale/memory/command/rss"].passed
    large.peaks["command"].rss_bytes = 109_000_000
    assert scale.memory_rows(small, large)[0].passed
    large.peaks["new process"] = module("watched_command").Peak(9_000_000, 9_000_000, 100)
    assert not {row.name: row for row in scale.memory_rows(small, large)}[
        "scale/memory/new_process/rss"
    ].passed


def test_the_recipe_of_a_run_is_valid_and_its_sample_does_not_grow(module, tmp_path):
    runs = module("collection_runs")
    (tmp_path / "recipe.yaml").write_text(runs.recipe_text(tmp_path / "papers", tmp_path / "workspace"))
    recipe = load_recipe(str(tmp_path / "recipe.yaml"))
    assert recipe.corpus.objects_per_task == runs.FILES_PER_TASK
    assert recipe.tokenizer.sample_fraction * 1e6 <= 1
    assert recipe.tokenizer.sample_min_characters == runs.SAMPLE_CHARACTERS


def test_collections_of_two_sizes_are_cut_into_tasks_of_one_size(module, tmp_path):
    runs = module("collection_runs")
    for papers in (80, 160):
        runs.write_papers(tmp_path / str(papers), papers, smallest=80, words=50)
        files = sorted((tmp_path / str(papers)).iterdir())
        assert len(files) == runs.TASKS * runs.FILES_PER_TASK * papers / 80
        assert {len(file.read_text().splitlines()) for file in files} == {2}
