"""Checks that train: each passes on this CPU, and fails when what it checks is broken."""

import importlib.util
from pathlib import Path

import pytest
import torch

from baltoro.jobs.gpu_check import memory, runs, speed, training
from baltoro.jobs.gpu_check.runs import STEPS, one_rank

pytestmark = pytest.mark.distributed

CPU = torch.device("cpu")


@pytest.fixture(autouse=True)
def one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture
def few_steps(monkeypatch):
    """Enough steps to see that something is wrong."""
    for module in (runs, training):
        monkeypatch.setattr(module, "STEPS", 4)
    monkeypatch.setattr(training, "CHECKPOINT_EVERY", 2)
    monkeypatch.setattr(training, "INTERRUPT_AT", 3)


def verdicts(findings):
    return {one.name: one.verdict for one in findings}


def all_pass(findings):
    assert {one.verdict for one in findings} <= {"passed", "measured"}, findings


def resumed(strategy="fsdp2"):
    with one_rank(CPU):
        return training._check_resume(strategy, CPU)


# --------------------------------------------------------------------------------------------------
# Resume


def test_a_resumed_run_gives_the_bits_of_an_uninterrupted_one(few_steps):
    findings = resumed()
    all_pass(findings)
    assert [one.value for one in findings if one.unit] == [0.0]


@pytest.mark.slow
@pytest.mark.skipif(importlib.util.find_spec("deepspeed") is None, reason="deepspeed is not installed")
def test_a_resumed_run_of_zero_2_gives_the_bits_of_an_uninterrupted_one(few_steps):
    all_pass(resumed("deepspeed"))


def test_without_deepspeed_its_part_is_not_available(monkeypatch):
    monkeypatch.setattr(training.importlib.util, "find_spec", lambda name: None)
    monkeypatch.setattr(training, "_check_resume", lambda strategy, device: [])
    (finding,) = training.check_resume(CPU)
    assert (finding.name, finding.verdict) == ("deepspeed", "not available")


@pytest.mark.parametrize("moment", ["exp_avg", "exp_avg_sq"])
def test_resume_fails_when_a_moment_is_not_restored(few_steps, moment, monkeypatch):
    from baltoro.parallel.data_parallel import DataParallel

    original = DataParallel.load_state_dict

    def forgetful(self, state):
        for entry in state["optimizer"]["state"].values():
            entry[moment].zero_()
        original(self, state)

    monkeypatch.setattr(DataParallel, "load_state_dict", forgetful)
    found = verdicts(resumed())
    assert found["fsdp2: resumed from its checkpoint"] == "passed"
    assert found["fsdp2: losses of 4 steps"] == "failed"
    assert found["fsdp2: exported weights"] == "failed"


def test_resume_fails_when_masters_lose_their_last_bits(few_steps, monkeypatch):
    from baltoro.parallel.data_parallel import DataParallel

    original = DataParallel.load_state_dict

    def rounding(self, state):
        for weight in state["model"].values():
            weight.copy_(weight.bfloat16())
        original(self, state)

    monkeypatch.setattr(DataParallel, "load_state_dict", rounding)
    assert verdicts(resumed())["fsdp2: exported weights"] == "failed"


def test_resume_fails_when_it_begins_anew_though_losses_are_the_same(few_steps, monkeypatch):
    from baltoro.checkpoint.checkpointer import Checkpointer

    monkeypatch.setattr(Checkpointer, "restore", lambda *_, **__: None)
    found = verdicts(resumed())
    assert found["fsdp2: resumed from its checkpoint"] == "failed"
    assert found["fsdp2: losses of 4 steps"] == "passed"


def test_without_deterministic_kernels_losses_are_compared_loosely_and_that_is_a_warning(
    few_steps, monkeypatch
):
    original = training.train_small

    def picky(*arguments, **settings):
        if torch.are_deterministic_algorithms_enabled():
            raise RuntimeError("scatter_cuda does not have a deterministic implementation, but you set it")
        return original(*arguments, **settings)

    monkeypatch.setattr(training, "train_small", picky)
    findings = resumed()
    assert verdicts(findings)["fsdp2: deterministic algorithms"] == "warning"
    (losses,) = [one for one in findings if "losses of" in one.name]
    assert (losses.verdict, losses.bound) == ("passed", training.FLOAT32_BOUND)
    assert not torch.are_deterministic_algorithms_enabled()


# --------------------------------------------------------------------------------------------------
# Compile


def in_place_of_compiling(monkeypatch, change):
    from baltoro.parallel import data_parallel

    monkeypatch.setattr(data_parallel, "compile_blocks", change)


def test_compile_fails_when_nothing_is_compiled(few_steps, monkeypatch):
    in_place_of_compiling(monkeypatch, lambda blocks: None)
    found = verdicts(training.check_compile(CPU))
    assert found["float32: losses of 4 steps"] == "passed"
    assert found["float32: graphs that were compiled"] == "failed"


def test_compile_fails_when_compiled_blocks_compute_something_else(few_steps, monkeypatch):
    def louder(forward):
        return lambda *inputs, **settings: 1.1 * forward(*inputs, **settings)

    def wrong(blocks):
        for block in blocks:
            block.forward = louder(block.forward)

    in_place_of_compiling(monkeypatch, wrong)
    assert verdicts(training.check_compile(CPU))["float32: losses of 4 steps"] == "failed"


def test_compile_without_a_compiler_is_not_available(monkeypatch):
    monkeypatch.setattr(training.shutil, "which", lambda name: None)
    (finding,) = training.check_compile(CPU)
    assert finding.verdict == "not available"
    assert "install g++" in finding.details


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_compile_passes_and_tells_how_long_it_took(few_steps):
    findings = training.check_compile(CPU)
    all_pass(findings)
    (seconds,) = [one for one in findings if one.unit == "s"]
    assert seconds.value > 0.5


# --------------------------------------------------------------------------------------------------
# Precision


def test_precisions_pass_and_each_differs_from_float32():
    findings = training.check_precision(CPU)
    all_pass(findings)
    assert verdicts(findings)[f"float16: losses of {STEPS} steps"] == "passed"
    assert all(one.value > 0 for one in findings if "losses of" in one.name)


def test_precision_fails_when_it_is_not_used(few_steps, monkeypatch):
    from baltoro.parallel import fsdp2

    monkeypatch.setattr(fsdp2, "compute_dtype", lambda precision: torch.float32)
    found = verdicts(training.check_precision(CPU))
    assert found["bfloat16: is really used"] == found["float16: is really used"] == "failed"


def test_precision_fails_when_its_curve_is_another_one(few_steps, monkeypatch):
    from baltoro.parallel.data_parallel import DataParallel

    original = DataParallel.clip_and_step

    def hasty(self, learning_rate):
        return original(self, learning_rate * (3.0 if self._precision == "bfloat16" else 1.0))

    monkeypatch.setattr(DataParallel, "clip_and_step", hasty)
    found = verdicts(training.check_precision(CPU))
    assert found["bfloat16: losses of 4 steps"] == "failed"
    assert found["float16: losses of 4 steps"] == "passed"


def test_precision_fails_when_the_loss_scale_never_lets_a_step_through(few_steps, monkeypatch):
    from baltoro.parallel import loss_scale

    monkeypatch.setattr(loss_scale, "INITIAL_SCALE", 2.0**60)
    found = verdicts(training.check_precision(CPU))
    assert found["float16: steps that the loss scale left out"] == "failed"


# --------------------------------------------------------------------------------------------------
# Memory


def test_out_of_memory_is_recognised_told_and_survived(few_steps):
    findings = memory.check_memory(CPU)
    all_pass(findings)
    assert len(findings) == 4


def test_memory_fails_when_it_is_not_recognised(few_steps, monkeypatch):
    monkeypatch.setattr(memory.failure_report, "is_out_of_memory", lambda error: False)
    assert verdicts(memory.check_memory(CPU))["recognised as out of memory"] == "failed"


def test_memory_fails_when_no_setting_is_named(few_steps, monkeypatch):
    monkeypatch.setattr(memory.failure_report, "_memory_settings", lambda *_: ["a larger GPU"])
    findings = memory.check_memory(CPU)
    (finding,) = [one for one in findings if one.verdict == "failed"]
    assert finding.name == "names the settings that need less"
    assert "not named: micro_batch=" in finding.details


def test_memory_fails_when_anything_is_granted(few_steps, monkeypatch):
    monkeypatch.setattr(memory, "_HOST_BYTES", 1)
    (finding,) = memory.check_memory(CPU)
    assert finding.verdict == "failed"
    assert "were granted" in finding.details


# --------------------------------------------------------------------------------------------------
# Speed, and what the checks leave behind


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_training_speed_is_measured_and_utilisation_needs_a_known_device():
    findings = speed._measure_training(CPU)
    values = {one.name: one.value for one in findings}
    assert values["training"] > 0
    assert values["training, arithmetic"] > 0
    assert verdicts(findings)["training, MFU"] == "not available"
    assert "110 M parameters" in findings[0].details


def test_checks_leave_no_process_group_and_no_files_behind(few_steps, tmp_path, monkeypatch):
    import tempfile

    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    memory.check_memory(CPU)
    resumed()
    assert not torch.distributed.is_initialized()
    assert [path for path in Path(tmp_path).iterdir() if path.name.startswith("baltoro-gpu-check")] == []
