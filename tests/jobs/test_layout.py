"""The layouts of all large recipes at their real world sizes, and the command that shows them."""

import json
import re
import subprocess
import sys

import pytest

from baltoro.jobs.layout import dry_run_layout
from baltoro.jobs.layout_report import describe_layout
from baltoro.jobs.recipe import load_recipe, packaged_recipes

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]

GIB = 1 << 30

# Published counts; Galactica's with the 50,048 rows that a trained vocabulary of 50,000 is padded to.
LAYOUTS = {
    "domain-7b": (8, 1, 80, 8_190_735_360),
    "k2-7b": (4, 1, 80, 6_738_415_616),
    "geogalactica-30b": (2048, 32, 32, 29_968_103_424),
    "academicgpt-70b": (192, 1, 40, 68_976_648_192),
    "galactica": (128, 2, 80, 6_655_844_352),
    "galactica:125m": (8, 2, 80, 124_945_920),
    "galactica:1.3b": (32, 2, 80, 1_314_656_256),
    "galactica:30b": (512, 8, 80, 29_968_447_488),
    "galactica:120b": (1024, 8, 80, 121_329_438_720),
}


def overrides(size):
    """The line of overrides for a size in the comments of galactica.yaml."""
    text = packaged_recipes()["galactica"].read_text(encoding="utf-8")
    return re.search(rf"^# {re.escape(size)}: (.*)$", text, re.MULTILINE)[1].split()


@pytest.mark.slow
@pytest.mark.parametrize("name", LAYOUTS)
def test_each_recipe_stands_at_its_real_world_size(monkeypatch, tmp_path, name):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    workers, replicas, device_gib, parameters = LAYOUTS[name]
    recipe_name, _, size = name.partition(":")
    recipe = load_recipe(recipe_name, overrides(size) if size else [], {})
    found = dry_run_layout(recipe, device_memory_gib=device_gib)
    assert (found.workers, found.dp_replicate, found.dp_shard) == (workers, replicas, workers // replicas)
    assert found.parameters == parameters
    assert found.proved
    assert list(found.memory) == [0, workers - 1]
    # The mean lies between the shares, which the dry run has added up to the whole.
    assert found.smallest_share <= found.parameters / found.dp_shard <= found.largest_share
    assert found.memory[0].parameters == found.largest_share
    assert found.memory[workers - 1].parameters == found.smallest_share
    assert found.fits, describe_layout(found)
    assert found.probe_peak_memory_bytes < 4 * GIB
    assert found.probe_cpu_seconds < 60
    # Six operations per weight and token, and attention on top.
    assert 6 * 0.85 < found.flops_per_token / found.parameters < 6 * 1.25


@pytest.mark.slow
def test_the_command_prints_one_object_without_ray_or_network(command, tmp_path):
    process = command(
        *("layout", "k2-7b", "--workers", "8", "--device-memory-gib", "80", "--device", "A100", "--json"),
        environment={
            "HF_HOME": str(tmp_path),
            "HF_ENDPOINT": "http://127.0.0.1:9",
            "RAY_ADDRESS": "127.0.0.1:9",
        },
    )
    output, errors = process.communicate(timeout=280)
    assert process.returncode == 0, errors
    found = json.loads(output)
    assert (found["workers"], found["batch"]["accumulation"], found["fits"]) == (8, 8, True)
    assert found["run_seconds"] > 0
    assert set(found["memory"]) == {"0", "7"}


@pytest.mark.slow
def test_the_command_ends_with_3_where_the_recipe_does_not_fit(command):
    process = command("layout", "demo", "--device-memory-gib", "0.001")
    output, errors = process.communicate(timeout=280)
    assert process.returncode == 3, errors
    assert "the recipe does not fit into 0.001 GiB" in output


def test_the_command_refuses_what_cannot_be_divided(command):
    process = command("layout", "k2-7b", "--workers", "5")
    _, errors = process.communicate(timeout=120)
    assert process.returncode == 2
    assert "128 rows of 1024 tokens, which 5 data ranks × micro_batch 2 = 10 rows do not divide" in errors


def test_a_layout_needs_neither_ray_nor_mlflow():
    code = "import sys, baltoro.jobs.layout; print(sorted({'ray', 'mlflow', 'torch'} & sys.modules.keys()))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
