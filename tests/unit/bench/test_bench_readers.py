"""What others rely on in the readers' benchmark: the shape of its JSON, its exit codes, when bounds apply."""

import importlib.util
import json
import sys
from dataclasses import replace
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parents[3] / "bench" / "readers" / "bench_readers.py"
KEYS = {"value", "baseline", "ratio", "bound", "passed"}


@pytest.fixture
def bench(monkeypatch):
    specification = importlib.util.spec_from_file_location("bench_readers", SCRIPT)
    module = importlib.util.module_from_spec(specification)
    # A dataclass looks its module up by name while it is made.
    monkeypatch.setitem(sys.modules, "bench_readers", module)
    specification.loader.exec_module(module)
    monkeypatch.setattr(module, "LEAST_PASS_SECONDS", 0.002)
    monkeypatch.delenv("BALTORO_DATA", raising=False)
    return module


@pytest.fixture
def papers(tmp_path):
    folder = tmp_path / "examples" / "papers"
    folder.mkdir(parents=True)
    paper = {"paper_id": "1", "title": "Melt", "body_text": [{"text": "It rises.", "section": "Results"}]}
    (folder / "melt.json").write_text(json.dumps(paper))
    (folder / "note.txt").write_text("A note on melt.\n\nIt rises through the crust, slowly.\n")
    (folder / "broken.xml").write_text("<article><front>")
    return folder


def run(bench, monkeypatch, capsys, *arguments):
    monkeypatch.setattr(sys, "argv", ["bench_readers.py", "--repetitions", "1", *map(str, arguments)])
    return bench.main(), capsys.readouterr()


def set_bound(bench, monkeypatch, bound):
    monkeypatch.setitem(bench.CONTESTS, "s2orc", replace(bench.CONTESTS["s2orc"], bound=bound))


def test_json_is_one_object_with_the_five_keys_for_each_format_found(bench, papers, monkeypatch, capsys):
    set_bound(bench, monkeypatch, 1e-9)
    code, printed = run(bench, monkeypatch, capsys, "--json", "--papers", papers)
    report = json.loads(printed.out)
    assert (code, set(report)) == (0, {"readers/s2orc", "readers/plain_text"})
    assert all(set(result) == KEYS for result in report.values())
    measured = report["readers/s2orc"]
    assert min(measured["value"], measured["baseline"], measured["ratio"]) > 0
    assert (measured["bound"], measured["passed"]) == (1e-9, True)
    assert report["readers/plain_text"]["bound"] is None


def test_a_ratio_below_its_bound_ends_with_3(bench, papers, monkeypatch, capsys):
    set_bound(bench, monkeypatch, 1e9)
    code, printed = run(bench, monkeypatch, capsys, "--json", "--papers", papers)
    assert (code, json.loads(printed.out)["readers/s2orc"]["passed"]) == (3, False)
    code, printed = run(bench, monkeypatch, capsys, "--papers", papers)
    assert code == 3
    assert "below its bound" in printed.out


def test_bounds_hold_for_papers_that_were_named_and_not_for_the_examples(bench, papers, monkeypatch, capsys):
    set_bound(bench, monkeypatch, 1e9)
    monkeypatch.setattr(bench, "ROOT", papers.parents[1])
    code, printed = run(bench, monkeypatch, capsys, "--json")
    assert (code, json.loads(printed.out)["readers/s2orc"]["bound"]) == (0, None)
    monkeypatch.setenv("BALTORO_DATA", str(papers))
    code, printed = run(bench, monkeypatch, capsys, "--json")
    assert (code, json.loads(printed.out)["readers/s2orc"]["bound"]) == (3, 1e9)


def test_a_folder_without_papers_ends_with_2_and_says_what_to_do(bench, tmp_path, monkeypatch, capsys):
    code, printed = run(bench, monkeypatch, capsys, "--papers", tmp_path)
    assert (code, printed.out) == (2, "")
    assert "no readable paper; give a folder of parsed papers with --papers" in printed.err


def test_the_formats_of_xml_and_json_are_held_to_the_bound(bench):
    bounded = {name for name, contest in bench.CONTESTS.items() if contest.bound == bench.LEAST_RATIO}
    assert bounded == {"grobid_tei", "jats", "s2orc", "science_parse", "sciencebeam", "docling_json"}
