import json
import subprocess
import sys

import pytest
import torch
import yaml
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM, AutoTokenizer

from baltoro.core.errors import InputError, StorageError
from baltoro.models.export import write_hf_folder
from baltoro.models.load import build_model, load_weights, plan_model
from baltoro.models.weights import digest_folder, weight_files, write_weights
from baltoro.testing.tiny import byte_tokenizer, tiny_plan


def trained(plan):
    model = build_model(plan)
    model.to_empty(device="cpu")
    load_weights(model, plan)
    return model.eval()


def export(folder, *, dtype="float32", **settings):
    plan = tiny_plan(**settings)
    model = trained(plan)
    write_hf_folder(
        folder,
        plan=plan,
        parameters=iter(list(model.named_parameters())),
        save_tokenizer=byte_tokenizer().save_pretrained,
        dtype=dtype,
    )
    return model


def test_tensors_are_written_in_numbered_parts_with_an_index(tmp_path):
    tensors = {f"t{index}": torch.full((10,), float(index)) for index in range(5)}
    write_weights(tmp_path, tensors.items(), dict.fromkeys(tensors, 40), max_file_bytes=100)
    names = weight_files(tmp_path)
    assert set(names.values()) == {f"model-0000{part}-of-00003.safetensors" for part in (1, 2, 3)}
    assert torch.equal(load_file(tmp_path / names["t4"])["t4"], tensors["t4"])


def test_an_index_that_names_a_missing_file_is_refused(tmp_path):
    tensors = {f"t{index}": torch.zeros(10) for index in range(3)}
    write_weights(tmp_path, tensors.items(), dict.fromkeys(tensors, 40), max_file_bytes=50)
    (tmp_path / "model-00002-of-00003.safetensors").unlink()
    with pytest.raises(InputError, match=r"names model-00002-of-00003\.safetensors, which is not there"):
        weight_files(tmp_path)


def test_a_folder_that_cannot_be_written_is_a_storage_error(tmp_path):
    with pytest.raises(StorageError, match="the model cannot be written"):
        write_weights(tmp_path / "absent", [("a", torch.zeros(2))], {"a": 8})


@pytest.mark.parametrize("tied", [True, False])
def test_the_export_gives_the_trained_logits(tmp_path, tied):
    model = export(tmp_path / "export", tied=tied)
    loaded = AutoModelForCausalLM.from_pretrained(tmp_path / "export", dtype=torch.float32).eval()
    ids = torch.randint(0, 259, (2, 12), generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        assert torch.equal(loaded(input_ids=ids).logits, model(input_ids=ids).logits)


def test_the_opt_family_gives_its_trained_logits_after_the_export(tmp_path):
    plan = plan_model("opt-tiny", byte_tokenizer(), sequence_length=64, vocabulary_multiple=8)
    model = trained(plan)
    write_hf_folder(
        tmp_path,
        plan=plan,
        parameters=iter(list(model.named_parameters())),
        save_tokenizer=byte_tokenizer().save_pretrained,
        dtype="float32",
    )
    loaded = AutoModelForCausalLM.from_pretrained(tmp_path, dtype=torch.float32).eval()
    ids = torch.randint(0, 259, (2, 12), generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        assert torch.equal(loaded(input_ids=ids).logits, model(input_ids=ids).logits)
    imported = plan_model(tmp_path, byte_tokenizer(), sequence_length=64, vocabulary_multiple=8)
    assert torch.equal(trained(imported).lm_head.weight, model.lm_head.weight)


@pytest.mark.slow
def test_the_export_loads_and_generates_where_baltoro_is_not_importable(tmp_path):
    export(tmp_path / "export")
    code = (
        "import sys; sys.modules['baltoro'] = None\n"
        "from transformers import AutoModelForCausalLM, AutoTokenizer\n"
        "model = AutoModelForCausalLM.from_pretrained(sys.argv[1])\n"
        "tokenizer = AutoTokenizer.from_pretrained(sys.argv[1])\n"
        "ids = tokenizer('basalt', return_tensors='pt').input_ids\n"
        "assert ids.shape == (1, 6)\n"
        "print(model.generate(ids, max_new_tokens=3, do_sample=False, eos_token_id=None).shape[1])\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path / "export")], capture_output=True, text=True, check=False
    )
    assert done.stdout.strip() == "9", done.stderr


def test_the_export_in_bfloat16_says_so(tmp_path):
    export(tmp_path / "export", dtype="bfloat16")
    assert json.loads((tmp_path / "export/config.json").read_text())["dtype"] == "bfloat16"
    weights = load_file(tmp_path / "export/model.safetensors")
    assert {value.dtype for value in weights.values()} == {torch.bfloat16}


def test_the_same_weights_give_the_same_folder(tmp_path):
    export(tmp_path / "a")
    export(tmp_path / "b")
    assert digest_folder(tmp_path / "a") == digest_folder(tmp_path / "b")


def test_the_rotary_base_stands_where_older_readers_look_for_it(tmp_path):
    export(tmp_path / "export")
    config = json.loads((tmp_path / "export/config.json").read_text())
    assert config["rope_theta"] == config["rope_parameters"]["rope_theta"] == 10000.0


def test_mlflow_finds_model_and_tokenizer_by_the_mlmodel_file(tmp_path):
    export(tmp_path / "export")
    document = yaml.safe_load((tmp_path / "export/MLmodel").read_text())
    flavor = document["flavors"]["transformers"]
    assert (tmp_path / "export" / flavor["model_binary"] / "config.json").exists()
    assert flavor["pipeline_model_type"] == "LlamaForCausalLM"
    tokenizer = AutoTokenizer.from_pretrained(tmp_path / "export/components/tokenizer")
    assert len(tokenizer) == 259


def test_a_rank_without_a_folder_takes_part_in_every_gather():
    seen = []

    def parameters():
        for index in range(3):
            seen.append(index)
            yield f"p{index}", torch.zeros(1)

    write_hf_folder(
        None, plan=tiny_plan(), parameters=parameters(), save_tokenizer=lambda folder: None, dtype="float32"
    )
    assert seen == [0, 1, 2]
