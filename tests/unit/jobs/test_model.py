"""A base model is staged once, named after itself, known by its content, and refused clearly when missing."""

import os
import shutil
import subprocess
import sys

import pytest

from baltoro.core.errors import InputError
from baltoro.core.storage import Storage
from baltoro.jobs.model import MODEL_FOLDER, artifact_name, content_inputs, import_model
from baltoro.jobs.runner import plan
from baltoro.jobs.stages import Context
from baltoro.testing.hub import running_hub


@pytest.mark.parametrize(
    ("base", "name"),
    [
        ("owner/Model-1.5b", "owner-Model-1.5b"),
        ("gpt2", "gpt2"),
        ("/data/models/SmolLM2-135M", "SmolLM2-135M"),
        ("/data/models/SmolLM2-135M/", "SmolLM2-135M"),
        ("s3://bucket/models/base", "base"),
        ("/data/my model (v2).gguf", "my-model-v2-.gguf"),
        ("/data/_hidden", "hidden"),
        ("/data/…", "model"),
        ("/data/" + "x" * 300, "x" * 100),
    ],
)
def test_the_artifact_is_named_after_the_base(base, name):
    assert artifact_name(base) == name


def test_the_name_is_one_that_a_store_takes(load, base_model, workplace):
    weird = workplace / "_ x #1"
    shutil.copytree(base_model, weird)
    (entry,) = plan(Context(load(f"model.base='{weird}'")), "model")
    assert entry.status == "new"


def test_a_folder_is_known_by_its_content_wherever_it_stands(base_model, tmp_path):
    shutil.copytree(base_model, tmp_path / "copy")
    first = content_inputs(str(base_model), Storage())
    assert content_inputs(str(tmp_path / "copy"), Storage()) == first
    assert content_inputs(str(base_model), Storage()) == first
    with (tmp_path / "copy" / "config.json").open("a") as file:
        file.write("\n")
    assert content_inputs(str(tmp_path / "copy"), Storage()) != first
    assert list(first) == ["model.content"]


@pytest.mark.parametrize("base", ["./nowhere", "/no/such/folder"])
def test_a_place_that_holds_nothing_is_refused_without_sending_people_in_circles(load, base):
    with pytest.raises(InputError) as caught:
        plan(Context(load(f"model.base={base}")), "pretrain")
    assert "does not exist or is empty; give a Hugging Face model folder" in caught.value.message
    assert "model import" not in caught.value.message


def test_a_preset_cannot_be_imported(tmp_path):
    with pytest.raises(InputError, match="llama-tiny: is a preset, trained from random weights"):
        import_model(Storage(), str(tmp_path), "llama-tiny", say=print)


def test_a_hub_id_that_was_not_imported_is_refused_before_anything_is_built(load):
    with pytest.raises(InputError, match="run `baltoro model import owner/base` first"):
        plan(Context(load("model.base=owner/base")), "pretrain")


def import_from(hub, workplace, *, offline=False, token="hf_right"):
    """Run the command as people do: the hub's library reads its environment when it is imported."""
    environment = {
        **os.environ,
        "HF_ENDPOINT": hub.endpoint,
        "HF_HOME": str(workplace / "hf"),
        "HF_TOKEN": token,
        "HF_HUB_OFFLINE": "1" if offline else "0",
    }
    return subprocess.run(
        [sys.executable, "-m", "baltoro.cli", "model", "import", "owner/base", "--json"],
        env=environment,
        cwd=workplace,
        capture_output=True,
        text=True,
        check=False,
    )


def test_a_hub_model_is_downloaded_once_and_known_by_its_content(load, base_model, workplace):
    with running_hub("owner/base", base_model, token="hf_right") as hub:
        refused = import_from(hub, workplace, token="hf_wrong")
        assert (refused.returncode, refused.stdout) == (2, "")
        assert "model.base=owner/base: cannot be downloaded (" in refused.stderr
        assert "set HF_TOKEN for a gated model" in refused.stderr
        first = import_from(hub, workplace)
        assert first.returncode == 0, first.stderr
    store = Context(load()).store
    (staged,) = store.list("model", "owner-base")
    store.verify(staged)
    again = import_model(Storage(), store.root_uri, "owner/base", say=print)
    assert again == staged, "the hub is gone by now, and not asked again"
    assert staged.manifest.inputs["model.hub_id"] == "owner/base"
    assert staged.manifest.inputs["model.content"] == staged.manifest.extra["digest"][:16]
    assert staged.manifest.extra["summary"]["source"] == f"owner/base@{hub.commit}"
    (entry,) = plan(Context(load("model.base=owner/base")), "model")
    assert (entry.status, entry.artifact) == ("done", staged)


def test_two_contents_under_one_hub_id_are_two_models(load, base_model, workplace):
    fingerprints = []
    for root, note in (("one", ""), ("two", "\n")):
        with (base_model / "generation_config.json").open("a", encoding="utf-8") as file:
            file.write(note)
        with running_hub("owner/base", base_model) as hub:
            (workplace / root).mkdir()
            done = import_from(hub, workplace / root)
            assert done.returncode == 0, done.stderr
        context = Context(load("model.base=owner/base", f"storage.root={root}/workspace"))
        planned = plan(context, "pretrain")
        fingerprints.append({entry.stage.name: entry.fingerprint for entry in planned})
    one, two = fingerprints
    assert one["corpus"] == two["corpus"]
    assert one["model"] != two["model"]
    assert one["pretrain"] != two["pretrain"]


def test_offline_the_cache_of_the_hub_library_is_used(base_model, workplace):
    with running_hub("owner/base", base_model) as hub:
        assert import_from(hub, workplace).returncode == 0
    shutil.rmtree(workplace / "workspace")
    again = import_from(hub, workplace, offline=True)
    assert again.returncode == 0, again.stderr


def test_a_base_is_staged_once_and_the_recipe_finds_it(load, base_model, workplace):
    told = []
    root = str(workplace / "workspace")
    first = import_model(Storage(), root, str(base_model), say=told.append)
    second = import_model(Storage(), root, str(base_model), say=told.append)
    assert first == second
    assert told == [f"staging {base_model} under {root}", f"{base_model} is already staged"]
    assert first.manifest.extra["summary"]["architecture"] == "LlamaForCausalLM"
    assert first.manifest.counts["parameters"] == first.manifest.extra["summary"]["parameters"] > 10_000
    names = {file.name for file in first.files(f"{MODEL_FOLDER}/")}
    assert {f"{MODEL_FOLDER}/model.safetensors", f"{MODEL_FOLDER}/config.json"} <= names
    Context(load()).store.verify(first)
    (entry,) = plan(Context(load(f"model.base={base_model}")), "model")
    assert (entry.status, entry.artifact) == ("done", first)


def test_a_home_relative_base_is_found(load, base_model, monkeypatch):
    monkeypatch.setenv("HOME", str(base_model.parent))
    (entry,) = plan(Context(load("model.base='~/tiny-base'")), "model")
    assert entry.inputs["model.content"] == content_inputs(str(base_model), Storage())["model.content"]
