import json

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM, AutoTokenizer, LlamaConfig

from baltoro.core.errors import InputError
from baltoro.core.storage import Storage
from baltoro.models.import_base import base_kind, import_base_model
from baltoro.models.weights import combined_digest, digest_folder
from baltoro.testing.tiny import byte_tokenizer, tiny_plan


@pytest.fixture
def base(tmp_path):
    torch.manual_seed(3)
    model = AutoModelForCausalLM.from_config(LlamaConfig(**{**dict(tiny_plan().config), "vocab_size": 259}))
    model.save_pretrained(tmp_path / "base")
    byte_tokenizer().save_pretrained(tmp_path / "base")
    return tmp_path / "base"


def imported(source, tmp_path, **settings):
    return import_base_model(
        str(source), tmp_path / "imported", storage=Storage(), scratch=tmp_path / "scratch", **settings
    )


def test_a_hugging_face_folder_is_copied_with_checksums(base, tmp_path):
    (base / "training_args.bin").write_bytes(b"pickle")
    result = imported(base, tmp_path)
    assert result.architecture == "LlamaForCausalLM"
    assert result.parameters == 26_880
    assert {"config.json", "model.safetensors", "tokenizer.json"} <= set(result.files)
    assert "training_args.bin" not in result.files
    assert result.digest == combined_digest(digest_folder(tmp_path / "imported"))
    assert (tmp_path / "imported/model.safetensors").read_bytes() == (base / "model.safetensors").read_bytes()


def test_the_digest_does_not_depend_on_where_the_folder_stands(base, tmp_path):
    first = imported(base, tmp_path)
    second = import_base_model(str(base), tmp_path / "other", storage=Storage(), scratch=tmp_path)
    assert first.digest == second.digest


def test_pickled_weights_are_rewritten_as_safetensors(base, tmp_path):
    weights = load_file(base / "model.safetensors")
    torch.save(weights, base / "pytorch_model.bin")
    (base / "model.safetensors").unlink()
    result = imported(base, tmp_path)
    assert "pytorch_model.bin" not in result.files
    found = load_file(tmp_path / "imported/model.safetensors")
    assert found.keys() == weights.keys()
    assert all(torch.equal(found[name], weights[name]) for name in weights)


def test_weights_under_older_names_are_rewritten_under_the_model_names(base, tmp_path):
    weights = load_file(base / "model.safetensors")
    save_file(
        {name.removeprefix("model."): value for name, value in weights.items()},
        base / "model.safetensors",
        metadata={"format": "pt"},
    )
    imported(base, tmp_path)
    found = load_file(tmp_path / "imported/model.safetensors")
    assert all(torch.equal(found[name], weights[name]) for name in weights)


def test_quantised_weights_are_refused(base, tmp_path):
    config = json.loads((base / "config.json").read_text())
    config["quantization_config"] = {"quant_method": "gptq"}
    (base / "config.json").write_text(json.dumps(config))
    with pytest.raises(
        InputError, match=r"the weights are quantised \(gptq\), which cannot be trained further"
    ):
        imported(base, tmp_path)


def test_an_encoder_is_refused(base, tmp_path):
    config = json.loads((base / "config.json").read_text())
    (base / "config.json").write_text(json.dumps({**config, "model_type": "vit"}))
    with pytest.raises(InputError, match="model_type=vit is no causal language model"):
        imported(base, tmp_path)


def test_a_damaged_weight_file_is_refused(base, tmp_path):
    path = base / "model.safetensors"
    path.write_bytes(path.read_bytes()[:1000])
    with pytest.raises(InputError, match="the weights cannot be read"):
        imported(base, tmp_path)


def test_a_folder_that_holds_no_model_is_refused(tmp_path):
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputError, match=r"has neither a config\.json nor one \.gguf file"):
        imported(tmp_path / "empty", tmp_path)


def test_a_missing_folder_is_refused(tmp_path):
    with pytest.raises(InputError, match="nowhere: does not exist"):
        imported(tmp_path / "nowhere", tmp_path)


def test_a_damaged_gguf_file_is_refused(tmp_path):
    (tmp_path / "m.gguf").write_bytes(b"GGUF" + bytes(20))
    with pytest.raises(InputError, match=r"m\.gguf: the GGUF file cannot be read"):
        imported(tmp_path / "m.gguf", tmp_path)


def test_two_gguf_files_must_be_told_apart(tmp_path):
    (tmp_path / "g").mkdir()
    for name in ("a.gguf", "b.gguf"):
        (tmp_path / "g" / name).write_bytes(b"GGUF")
    with pytest.raises(InputError, match=r"holds 2 GGUF files \(a\.gguf, b\.gguf"):
        imported(tmp_path / "g", tmp_path)


def test_a_hub_id_without_permission_to_download_names_the_command(tmp_path):
    with pytest.raises(InputError, match="run `baltoro model import some-org/some-model` first"):
        imported("some-org/some-model", tmp_path, allow_download=False)


def test_a_hub_that_cannot_be_reached_is_an_error_with_remedies(tmp_path, monkeypatch):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    with pytest.raises(InputError, match=r"cannot be downloaded .*HF_TOKEN .*HF_ENDPOINT"):
        imported("some-org/some-model", tmp_path)


def test_a_folder_with_files_in_it_is_not_written_over(base, tmp_path):
    imported(base, tmp_path)
    with pytest.raises(InputError, match="imported: is not empty"):
        imported(base, tmp_path)


@pytest.mark.parametrize(
    ("base_name", "kind"),
    [
        ("llama-7b", "preset"),
        ("./models/x", "path"),
        ("file:///models/x", "path"),
        ("s3://bucket/models/x", "uri"),
        ("org/model-1.0", "hub"),
        ("gpt2", "hub"),
    ],
)
def test_the_kind_of_base_is_told_from_its_form(base_name, kind):
    assert base_kind(base_name) == kind


def test_a_base_of_no_kind_is_refused_with_the_presets():
    with pytest.raises(InputError, match="llama-tiny, llama-125m"):
        base_kind("a/b/c d")


def write_gguf(path, weights, config):
    """Write a LLaMA as llama.cpp does: Q8_0 matrices, query and key rows permuted, byte-level tokens."""
    import gguf

    writer = gguf.GGUFWriter(path, "llama")
    writer.add_name("tiny")
    writer.add_vocab_size(config["vocab_size"])
    writer.add_context_length(config["max_position_embeddings"])
    writer.add_embedding_length(config["hidden_size"])
    writer.add_block_count(config["num_hidden_layers"])
    writer.add_feed_forward_length(config["intermediate_size"])
    writer.add_head_count(config["num_attention_heads"])
    writer.add_head_count_kv(config["num_key_value_heads"])
    writer.add_layer_norm_rms_eps(config["rms_norm_eps"])
    writer.add_rope_freq_base(config["rope_parameters"]["rope_theta"])
    vocabulary = byte_tokenizer().get_vocab()
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("default")
    writer.add_token_list([*sorted(vocabulary, key=vocabulary.get), "ab"])
    writer.add_token_types([3] * 3 + [1] * 257)
    writer.add_token_merges(["a b"])
    writer.add_bos_token_id(0)
    writer.add_eos_token_id(2)
    names = gguf.get_tensor_name_map(gguf.MODEL_ARCH.LLAMA, config["num_hidden_layers"])
    heads = {"q_proj": config["num_attention_heads"], "k_proj": config["num_key_value_heads"]}
    for name, tensor in weights.items():
        value = tensor.detach().float().numpy()
        for kind, count in heads.items():
            if kind in name:
                halves = value.reshape(count, 2, value.shape[0] // count // 2, value.shape[1])
                value = halves.swapaxes(1, 2).reshape(value.shape)
        target = names.get_name(name, try_suffixes=(".weight",))
        kind = gguf.GGMLQuantizationType.Q8_0 if value.ndim == 2 else gguf.GGMLQuantizationType.F32
        writer.add_tensor(target, gguf.quants.quantize(value, kind), raw_dtype=kind)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def test_a_gguf_file_is_dequantised_to_the_model_it_was_made_from(tmp_path):
    torch.manual_seed(3)
    original = AutoModelForCausalLM.from_config(
        LlamaConfig(**{**dict(tiny_plan().config), "vocab_size": 260})
    )
    folder = tmp_path / "package"
    folder.mkdir()
    write_gguf(folder / "tiny.Q8_0.gguf", dict(original.named_parameters()), original.config.to_dict())
    result = imported(folder, tmp_path)
    assert result.parameters == 26_912
    loaded = AutoModelForCausalLM.from_pretrained(result.folder, dtype=torch.float32)
    ids = torch.arange(3, 60)[None]
    with torch.no_grad():
        difference = loaded(input_ids=ids).logits - original(input_ids=ids).logits
        spread = original(input_ids=ids).logits.std()
    assert difference.abs().max() < 0.1 * spread
    assert json.loads((result.folder / "config.json").read_text())["dtype"] == "bfloat16"
    vocabulary = AutoTokenizer.from_pretrained(result.folder).get_vocab()
    assert {**byte_tokenizer().get_vocab(), "ab": 259}.items() <= vocabulary.items()
