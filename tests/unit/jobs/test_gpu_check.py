"""The frame of gpu-check: processes, report, scrubbing, command line; what checks check stands beside."""

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from datetime import UTC, datetime
from pathlib import Path

import pytest
import torch
from click.testing import CliRunner

from baltoro.cli import main
from baltoro.core.errors import ConfigError, InputError, PlatformError
from baltoro.jobs.gpu_check import command, report, runner, scrub
from baltoro.jobs.gpu_check.checks import CHECKS, Check, chosen_checks
from baltoro.jobs.gpu_check.findings import (
    Finding,
    at_least,
    at_most,
    attempted,
    deviation,
    holds,
    measured,
    not_available,
)
from baltoro.jobs.gpu_check.runner import Outcome, state_of

HOME_OF_ROOT = "/" + "root"
CPU = torch.device("cpu")
GOOD = at_most("sums", 1e-7, 1e-5, details="float64 beside float32")
BAD = at_most("sums", 0.25, 1e-5, unit="nats/token", details="float64 beside float32")

BROKEN_CHECKS = """
import os, signal, socket, subprocess, sys, time
from pathlib import Path
from baltoro.jobs.gpu_check.findings import at_most

def good(device):
    return [at_most("sums", 1e-7, 1e-5)]

def bad(device):
    return [at_most("sums", 0.25, 1e-5)]

def raises(device):
    user, host = os.environ["USER"], socket.gethostname()
    raise RuntimeError(f"CUDA error in {Path.home()}/models of {user} on {host} at 10.1.2.3:29500")

def dies(device):
    print("last words", flush=True)
    os.kill(os.getpid(), signal.SIGSEGV)

def vanishes(device):
    os._exit(7)

def hangs_in_a_kernel(device):
    worker = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
    Path(os.environ["WORKER_FILE"]).write_text(str(worker.pid))
    time.sleep(600)
"""


def check(name, function="good", seconds=60.0):
    return Check(name, f"what {name} tries", f"broken_checks:{function}", seconds, f"mend {name}")


def outcome(name, state, *findings, trouble="", seconds=1.0):
    return Outcome(check(name), state, seconds, findings, trouble)


@pytest.fixture
def broken_checks(tmp_path, monkeypatch):
    """A module of checks that the processes can import."""
    folder = tmp_path / "modules"
    folder.mkdir()
    (folder / "broken_checks.py").write_text(BROKEN_CHECKS)
    monkeypatch.setenv("PYTHONPATH", str(folder))
    monkeypatch.setenv("WORKER_FILE", str(tmp_path / "worker"))
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def quick(tmp_path, monkeypatch):
    """No processes: every check passes at once, but for those whose state is named."""
    states = {}

    def run(one, device, *, seconds):
        if states.get(one.name) is KeyboardInterrupt:
            raise KeyboardInterrupt
        return Outcome(one, states.get(one.name, "passed"), 1.0, (BAD if one.name in states else GOOD,))

    monkeypatch.setattr(command, "run_check", run)
    monkeypatch.setattr(command, "_environment", lambda device, patience: [("torch", "2.13.0")])
    monkeypatch.chdir(tmp_path)
    return states


# --------------------------------------------------------------------------------------------------
# Findings


@pytest.mark.parametrize("value", [float("nan"), float("inf"), 1.1e-5])
def test_a_value_beyond_its_bound_or_no_number_fails(value):
    assert at_most("x", value, 1e-5).verdict == "failed"
    assert at_most("x", 1e-5, 1e-5).verdict == "passed"


def test_a_least_value_is_held_from_below():
    assert at_least("x", 1.0, 1.0).passed
    assert not at_least("x", float("nan"), 1.0).passed
    assert not at_least("x", 0.5, 1.0).passed


def test_deviation_is_a_share_of_the_largest_value_and_infinite_for_what_is_lost():
    expected = torch.tensor([4.0, -2.0])
    assert deviation(torch.tensor([4.0, -1.0]), expected) == 0.25
    assert deviation(None, expected) == float("inf")
    assert deviation(torch.tensor([float("nan"), 0.0]), expected) == float("inf")
    with pytest.raises(ValueError, match="zero everywhere"):
        deviation(expected, torch.zeros(2))
    with pytest.raises(ValueError, match="shape"):
        deviation(torch.ones(1), expected)


def test_a_part_that_raises_is_a_failed_finding_with_its_traceback():
    (finding,) = attempted("flex", lambda: 1 / 0)
    assert (finding.name, finding.verdict) == ("flex", "failed")
    assert "ZeroDivisionError" in finding.details
    assert "Traceback" in finding.details


@pytest.mark.parametrize(
    ("findings", "state"),
    [
        ([GOOD, BAD], "failed"),
        ([GOOD, not_available("flex", "no GPU")], "passed"),
        ([not_available("flex", "no GPU")], "not available"),
        ([measured("copy", 3.0)], "passed"),
        ([Finding("product", "warning"), GOOD], "warning"),
        ([], "failed"),
    ],
)
def test_the_state_of_a_check_is_the_worst_of_its_findings(findings, state):
    assert state_of(tuple(findings)) == state


# --------------------------------------------------------------------------------------------------
# Which checks


def test_checks_are_chosen_by_name_and_run_in_their_own_order():
    assert [one.name for one in chosen_checks("nf4, attention")] == ["attention", "nf4"]
    assert chosen_checks(None) == CHECKS


@pytest.mark.parametrize(
    ("only", "text"),
    [
        ("attention,nf5", "no check nf5; did you mean nf4?"),
        ("zzz", "there are attention, loss"),
        (",", "no check"),
    ],
)
def test_unknown_names_are_refused_with_those_there_are(only, text):
    with pytest.raises(ConfigError, match=text.replace("?", r"\?")):
        chosen_checks(only)


def test_every_check_can_be_found_and_all_fit_into_ten_minutes_or_nearly():
    import importlib

    for one in CHECKS:
        module, _, name = one.function.partition(":")
        assert callable(getattr(importlib.import_module(module), name))
        assert 0 < one.seconds <= command.BUDGET_SECONDS / 2
    assert command.BUDGET_SECONDS == 600


# --------------------------------------------------------------------------------------------------
# Processes


def test_a_check_answers_from_a_process_of_its_own(broken_checks):
    done = runner.run_check(check("one"), "cpu", seconds=120)
    assert (done.state, done.findings) == ("passed", (at_most("sums", 1e-7, 1e-5),))
    assert not done.trouble


def test_an_error_is_a_crash_with_its_traceback(broken_checks, monkeypatch):
    monkeypatch.setenv("USER", "mira")
    done = runner.run_check(check("one", "raises"), "cpu", seconds=120)
    assert done.state == "crashed"
    assert not done.passed
    assert 'broken_checks.py", line' in done.trouble
    assert "RuntimeError: CUDA error" in done.trouble


def test_a_process_that_dies_leaves_its_signal_its_stack_and_its_last_lines(broken_checks):
    done = runner.run_check(check("one", "dies"), "cpu", seconds=120)
    assert done.state == "crashed"
    assert "ended by SIGSEGV" in done.trouble
    assert "last words" in done.trouble
    assert "in dies" in done.trouble


def test_a_process_that_leaves_without_an_answer_is_a_crash(broken_checks):
    done = runner.run_check(check("one", "vanishes"), "cpu", seconds=120)
    assert (done.state, done.trouble) == ("crashed", "Its process ended with exit code 7 and no answer.")


def test_a_check_that_takes_too_long_is_ended(broken_checks):
    began = time.monotonic()
    done = runner.run_check(check("one", "hangs_in_a_kernel"), "cpu", seconds=0.5)
    assert done.state == "timed out"
    assert "ended after 0 seconds" in done.trouble
    assert time.monotonic() - began < 60


def alive(pid):
    try:
        return "Z" not in Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except FileNotFoundError:
        return False


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="looks at processes in /proc")
def test_what_hangs_is_ended_with_all_it_started_and_its_stack_is_kept(broken_checks):
    done = runner.run_check(check("one", "hangs_in_a_kernel"), "cpu", seconds=25)
    assert done.state == "timed out"
    assert "in hangs_in_a_kernel" in done.trouble
    worker = int((broken_checks / "worker").read_text())
    deadline = time.monotonic() + 10
    while alive(worker) and time.monotonic() < deadline:
        time.sleep(0.1)
    assert not alive(worker)


def test_a_check_ends_with_the_command_that_started_it(broken_checks):
    child = subprocess.Popen(
        [
            *(sys.executable, "-P", "-m", "baltoro.jobs.gpu_check.child"),
            *("broken_checks:hangs_in_a_kernel", "cpu", str(broken_checks / "answer.json")),
        ],
        stdin=subprocess.PIPE,
        start_new_session=True,
    )
    try:
        child.stdin.close()
        assert child.wait(timeout=120) == 70
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(child.pid, signal.SIGKILL)
        child.wait()


# --------------------------------------------------------------------------------------------------
# The report


def rendered(*outcomes, environment=(("torch", "2.13.0"),)):
    return report.render_report(
        outcomes, environment, device="cpu", at=datetime(2026, 11, 22, 12, tzinfo=UTC), seconds=61.0
    )


def test_the_report_begins_with_the_verdict_and_ends_with_what_to_do():
    text = rendered(outcome("loss", "passed", GOOD), outcome("resume", "failed", GOOD, BAD))
    first, _, sentence = text.splitlines()[:3]
    assert first == "# Baltoro gpu-check: failed"
    assert sentence.startswith("1 of 2 checks passed; failed: resume.")
    headings = [line for line in text.splitlines() if line.startswith("## ")]
    assert headings == [
        "## Checks",
        "## What is wrong",
        "## Everything that was looked at",
        "## Environment",
        "## What to do next",
    ]
    assert "**sums** (failed): 0.25 nats/token, must be ≤ 1.0e-05 nats/token" in text
    assert "- resume: mend resume." in text
    assert "`baltoro gpu-check --only resume`" in text
    assert "| torch | 2.13.0 |" in text


def test_a_report_in_which_all_is_well_says_so_and_shows_no_trouble():
    text = rendered(outcome("loss", "passed", GOOD))
    assert text.startswith("# Baltoro gpu-check: passed\n")
    assert "What is wrong" not in text
    assert "Nothing must be done" in text


def test_what_cannot_be_tried_is_never_passed_in_silence():
    missing = not_available("flash_varlen float32", "it needs a GPU, not cpu")
    text = rendered(outcome("attention", "passed", GOOD, missing), outcome("nf4", "not available", missing))
    assert "1 of 2 checks passed; not available: nf4; 2 parts of them cannot be tried here." in text
    assert "| flash_varlen float32 | not available |  |  | it needs a GPU, not cpu |" in text
    assert (
        "## What could not be tried\n\n- attention: flash_varlen float32: it needs a GPU, not cpu\n" in text
    )
    assert "is not known to work" in text


@pytest.mark.parametrize(
    ("states", "word"),
    [
        (["passed", "not available"], "passed"),
        (["warning"], "passed"),
        (["not available"], "nothing could be tried"),
        (["passed", "crashed"], "failed"),
        (["passed", "timed out"], "failed"),
        (["passed", "not run"], "failed"),
    ],
)
def test_the_verdict_is_passed_only_if_something_ran_and_all_that_ran_passed(states, word):
    outcomes = [outcome(f"c{index}", state, GOOD) for index, state in enumerate(states)]
    assert report.verdict_word(outcomes) == word
    assert report.passed(outcomes) == (word == "passed")


def test_text_from_outside_cannot_break_the_report():
    nasty = "a | b\n```\n<script>\n````\n# not a heading"
    failing = holds("x|y", False, nasty)
    text = rendered(outcome("loss", "failed", failing, trouble=nasty), environment=[("a|b", "<c>|\n")])
    assert "| a\\|b | &lt;c>\\| |" in text
    assert text.count("`````text") == 2
    outside = text.split("`````")[::2]
    assert not any("\n# not a heading" in part for part in outside)


def test_a_report_fits_into_an_issue_whatever_failed():
    huge = "\n".join(["a line of a stack"] * 5_000)
    failing = [holds(f"part {index}", False, huge) for index in range(8)]
    many = [at_most(f"sum {index}", 1.0, 2.0, details="d" * 300) for index in range(300)]
    text = rendered(outcome("loss", "failed", *failing), outcome("resume", "passed", *many))
    assert len(text) < 65_536
    assert "[…]" in text
    assert "would not fit into an issue" in text
    assert "## What to do next" in text


def test_values_are_shown_so_that_a_person_can_read_them():
    shown = [report.shown_value(measured("x", value, unit="s")) for value in (0.0, 1e-7, 0.25, 12345.6)]
    assert shown == ["0 s", "1.0e-07 s", "0.25 s", "12,346 s"]
    assert report.shown_value(measured("x", float("inf"))) == "∞"
    assert report.shown_value(measured("x", float("nan"))) == "not a number"


# --------------------------------------------------------------------------------------------------
# Who and where


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("/home/mira/models/a.py", "~/models/a.py"),
        ("/data/mira_2/x", "/data/[user]_2/x"),
        ("/data/mira/x of mira.", "/data/[user]/x of [user]."),
        ("admiral", "admiral"),
        ("on k2-login.cluster.example and K2-LOGIN", "on [host] and [host]"),
        ("k2-login2", "k2-login2"),
        ("/home/paul/.cache and /Users/paul", "~/.cache and ~"),
        (f"{HOME_OF_ROOT}/.triton and {HOME_OF_ROOT}less", f"~/.triton and {HOME_OF_ROOT}less"),
    ],
)
def test_names_of_user_and_machine_and_home_folders_are_taken_out(text, expected):
    clean = scrub.make_scrub(home="/home/mira", user="mira", hosts=["k2-login.cluster.example", "k2-login"])
    assert clean(text) == expected


def test_names_that_tell_nothing_stay():
    clean = scrub.make_scrub(home=HOME_OF_ROOT, user="root", hosts=["localhost"])
    assert clean("the root unit on localhost") == "the root unit on localhost"


def test_places_of_the_installation_are_shortened():
    clean = scrub.make_scrub(home="/home/mira", user="mira", hosts=[])
    text = f'File "{report.__file__}" and "{torch.__file__}"'
    assert clean(text) == 'File "baltoro/jobs/gpu_check/report.py" and "site-packages/torch/__init__.py"'


def test_addresses_are_taken_out_and_versions_are_not():
    text = "connect to 10.1.2.3:29500 failed, cuDNN 9.13.0, torch 2.13.0+cu130"
    assert (
        scrub.without_addresses(text) == "connect to [address]:29500 failed, cuDNN 9.13.0, torch 2.13.0+cu130"
    )


def test_only_variables_that_matter_are_shown_and_no_secret_is():
    shown = scrub.shown_variables(
        {
            "CUDA_VISIBLE_DEVICES": "1",
            "NCCL_COMM_ID": "10.1.2.3:5",
            "HF_TOKEN": "abc",
            "TORCH_HUB_TOKEN": "abc",
            "PYTORCH_ALLOC_CONF": "expandable_segments:True",
            "SSH_CLIENT": "10.9.9.9",
        }
    )
    assert shown == [
        ("CUDA_VISIBLE_DEVICES", "1"),
        ("NCCL_COMM_ID", "[address]:5"),
        ("PYTORCH_ALLOC_CONF", "expandable_segments:True"),
        ("TORCH_HUB_TOKEN", "[hidden]"),
    ]


# --------------------------------------------------------------------------------------------------
# The command


def test_a_missing_gpu_is_one_clear_refusal(tmp_path, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.chdir(tmp_path)
    result = CliRunner().invoke(main, ["gpu-check"])
    assert result.exit_code == 2
    (line,) = result.stderr.strip().splitlines()
    assert "needs a GPU, and there is none" in line
    assert "`--device cpu`" in line
    assert list(tmp_path.iterdir()) == []
    with pytest.raises(PlatformError):
        command.refuse_missing_gpu("cuda")


def test_an_unknown_check_is_refused_before_anything_runs(quick, tmp_path):
    result = CliRunner().invoke(main, ["gpu-check", "--device", "cpu", "--only", "nf4,atention"])
    assert result.exit_code == 2
    assert "there is no check atention; did you mean attention?" in result.stderr
    assert list(tmp_path.iterdir()) == []


def test_a_report_that_cannot_be_written_is_refused_before_anything_runs(quick, tmp_path):
    with pytest.raises(InputError, match="does not exist; make it"):
        command.gpu_check("cpu", None, tmp_path / "none" / "report.md", say=lambda _: None)


def test_all_checks_pass_with_progress_a_dated_report_and_exit_code_0(quick, tmp_path):
    result = CliRunner().invoke(main, ["gpu-check", "--device", "cpu"])
    assert result.exit_code == 0
    (file,) = tmp_path.iterdir()
    assert file.name.startswith(f"gpu-check-REPORT-{datetime.now(UTC):%Y%m}")
    assert file.suffix == ".md"
    assert str(file) in result.stdout
    for number, one in enumerate(CHECKS, start=1):
        assert f"{number}/{len(CHECKS)} {one.name}" in result.stderr
    assert file.read_text().startswith("# Baltoro gpu-check: passed\n")


def test_one_failed_check_is_exit_code_3_and_the_others_run_all_the_same(quick, tmp_path):
    quick["nf4"] = "failed"
    result = CliRunner().invoke(main, ["gpu-check", "--device", "cpu", "--output", str(tmp_path / "r.md")])
    assert result.exit_code == 3
    assert f"{len(CHECKS) - 1} of {len(CHECKS)} checks passed; failed: nf4." in result.stdout
    assert "- nf4: do not train on 4-bit bases here" in (tmp_path / "r.md").read_text()


def test_as_json_it_prints_one_object(quick, tmp_path):
    quick["loss"] = "crashed"
    result = CliRunner().invoke(
        main, ["gpu-check", "--device", "cpu", "--only", "loss,nf4", "--output", str(tmp_path), "--json"]
    )
    assert result.exit_code == 3
    found = json.loads(result.stdout)
    assert found["passed"] is False
    assert Path(found["report"]).is_file()
    assert {name: one["state"] for name, one in found["checks"].items()} == {
        "loss": "crashed",
        "nf4": "passed",
    }
    assert found["checks"]["nf4"]["findings"][0]["value"] == 1e-7


def test_infinite_values_are_valid_json(quick):
    plain = command._plain(at_most("x", float("inf"), 1.0))
    assert json.loads(json.dumps(plain, allow_nan=False))["value"] == "inf"


def test_an_interrupted_command_leaves_the_report_of_what_was_done(quick, tmp_path):
    quick["nf4"] = KeyboardInterrupt
    result = CliRunner().invoke(main, ["gpu-check", "--device", "cpu", "--output", str(tmp_path / "r.md")])
    assert result.exit_code == 1
    text = (tmp_path / "r.md").read_text()
    assert "2 of 9 checks passed; not run: nf4, optimizers" in text


def test_what_does_not_fit_into_the_time_is_not_run_and_not_passed(quick, tmp_path):
    found = command.gpu_check("cpu", None, tmp_path, say=lambda _: None, budget_seconds=0.0)
    assert not found.passed
    assert {one.state for one in found.outcomes} == {"not run"}
    assert "minutes for all checks were over" in found.report.read_text()


def test_the_report_is_written_when_checks_crash_and_tells_of_nobody(broken_checks, monkeypatch):
    monkeypatch.setenv("HOME", "/home/mira")
    for name in ("LOGNAME", "USER", "LNAME", "USERNAME"):
        monkeypatch.setenv(name, "mira")
    monkeypatch.setenv("NCCL_SOCKET_IFNAME", "eth-of-mira")
    said = []
    checks = [check("one", "raises"), check("two")]
    found = command.gpu_check("cpu", None, broken_checks / "r.md", say=said.append, checks=checks)
    assert [one.state for one in found.outcomes] == ["crashed", "passed"]
    text = found.report.read_text()
    assert "RuntimeError: CUDA error in ~/models of [user] on [host] at [address]:29500" in text
    assert "| variable NCCL_SOCKET_IFNAME | eth-of-[user] |" in text
    assert "| torch | " in text
    for everything in (text, "\n".join(said), json.dumps(found.to_json()["checks"])):
        assert "mira" not in everything
        assert os.uname().nodename not in everything
        assert str(Path(torch.__file__).parents[1]) not in everything
        assert "/home/" not in everything


def test_help_names_every_check_in_its_order():
    told = CliRunner().invoke(main, ["gpu-check", "--help"]).stdout
    places = [told.index(f"\n      {one.name} ") for one in CHECKS]
    assert places == sorted(places)
    assert "exit code is 0 only if all that ran passed" in " ".join(told.split())


def test_make_has_the_target():
    makefile = (Path(__file__).parents[3] / "Makefile").read_text()
    assert "\ngpu-check: setup ## " in makefile
    assert "\n\t$(BIN)/baltoro gpu-check --device $(DEVICE) $(if $(ONLY),--only $(ONLY))\n" in makefile
