"""A base model is staged once, named after itself, known by its content, and refused clearly when missing."""

import shutil

import pytest

from baltoro.core.errors import InputError
from baltoro.core.storage import Storage
from baltoro.jobs.model import MODEL_FOLDER, artifact_name, base_inputs, import_model
from baltoro.jobs.runner import plan
from baltoro.jobs.stages import Context


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
    first = base_inputs(str(base_model), Storage())
    assert base_inputs(str(tmp_path / "copy"), Storage()) == first
    assert base_inputs(str(base_model), Storage()) == first
    with (tmp_path / "copy" / "config.json").open("a") as file:
        file.write("\n")
    assert base_inputs(str(tmp_path / "copy"), Storage()) != first
    assert list(first) == ["model.content"]


def test_a_hub_id_is_known_by_its_id():
    assert base_inputs("owner/base", Storage()) == {"model.hub_id": "owner/base"}


@pytest.mark.parametrize("base", ["./nowhere", "/no/such/folder"])
def test_a_place_that_holds_nothing_is_refused_without_sending_people_in_circles(load, base):
    with pytest.raises(InputError) as caught:
        plan(Context(load(f"model.base={base}")), "pretrain")
    assert "does not exist or is empty; give a Hugging Face model folder" in caught.value.message
    assert "model import" not in caught.value.message


def test_a_preset_cannot_be_imported(tmp_path):
    with pytest.raises(InputError, match="llama-tiny: is a preset, trained from random weights"):
        import_model(Storage(), str(tmp_path), "llama-tiny", say=print)


def test_a_hub_id_that_was_not_imported_is_refused_with_the_command(load):
    from baltoro.jobs.model import build_model_stage

    context = Context(load("model.base=owner/base"))
    (entry,) = plan(context, "model")
    with (
        context.store.begin("model", "owner-base", entry.fingerprint) as writer,
        pytest.raises(InputError, match="run `baltoro model import owner/base` first"),
    ):
        build_model_stage(context, {}, writer, None)


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
    assert entry.inputs["model.content"] == base_inputs(str(base_model), Storage())["model.content"]
