import json

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM, LlamaConfig, MistralConfig

from baltoro.core.errors import ConfigError, InputError
from baltoro.models.load import (
    ModelPlan,
    build_model,
    decoder_blocks,
    initial_value,
    load_weights,
    plan_model,
    refuse_long_context,
)
from baltoro.models.rope_scaling import refuse_rope_scaling
from baltoro.testing.tiny import byte_tokenizer, tiny_plan


def materialised(plan):
    model = build_model(plan)
    model.to_empty(device="cpu")
    load_weights(model, plan)
    return model.eval()


def saved_base(folder, *, tied=True, dtype=torch.float32, config=None, **settings):
    torch.manual_seed(3)
    config = config or LlamaConfig(**{**dict(tiny_plan(tied=tied).config), "vocab_size": 259})
    model = AutoModelForCausalLM.from_config(config, dtype=dtype)
    model.save_pretrained(folder, **settings)
    byte_tokenizer().save_pretrained(folder)
    return model.eval()


def logits(model, seed=0):
    ids = torch.randint(0, 259, (2, 9), generator=torch.Generator().manual_seed(seed))
    with torch.no_grad():
        return model(input_ids=ids, use_cache=False).logits


def test_random_weights_depend_on_the_seed_and_the_name_only():
    plan = tiny_plan()
    name, shape = "model.layers.0.mlp.up_proj.weight", (64, 32)
    torch.manual_seed(99)
    assert torch.equal(initial_value(name, shape, plan), initial_value(name, shape, plan))
    assert not torch.equal(initial_value(name, shape, plan), initial_value(name, shape, tiny_plan(seed=1)))
    other = "model.layers.1.mlp.up_proj.weight"
    assert not torch.equal(initial_value(name, shape, plan), initial_value(other, shape, plan))


def test_random_weights_have_the_stated_deviation_and_norms_are_one():
    plan = tiny_plan(hidden_size=128)
    model = materialised(plan)
    block = model.model.layers[0]
    assert block.mlp.up_proj.weight.std().item() == pytest.approx(0.02, rel=0.03)
    assert block.mlp.down_proj.weight.std().item() == pytest.approx(0.02 / 2, rel=0.03)
    assert torch.equal(block.input_layernorm.weight, torch.ones(128))


def test_a_model_that_was_built_on_meta_has_the_rotary_frequencies_of_a_normal_one():
    plan = tiny_plan()
    normal = AutoModelForCausalLM.from_config(build_model(plan).config)
    assert torch.equal(materialised(plan).model.rotary_emb.inv_freq, normal.model.rotary_emb.inv_freq)


@pytest.mark.parametrize("tied", [True, False])
def test_tied_weights_stay_one_parameter(tied):
    model = materialised(tiny_plan(tied=tied))
    assert (model.lm_head.weight is model.model.embed_tokens.weight) == tied


@pytest.mark.parametrize("tied", [True, False])
@pytest.mark.parametrize("max_shard_size", ["5GB", "40KB"])
def test_a_folder_gives_the_logits_of_the_model_it_was_saved_from(tmp_path, tied, max_shard_size):
    base = saved_base(tmp_path, tied=tied, max_shard_size=max_shard_size)
    plan = plan_model(tmp_path, byte_tokenizer(), sequence_length=64, vocabulary_multiple=64)
    assert plan.vocabulary is None
    assert torch.equal(logits(materialised(plan)), logits(base))


def test_bfloat16_weights_are_trained_in_float32(tmp_path):
    saved_base(tmp_path, dtype=torch.bfloat16)
    model = materialised(plan_model(tmp_path, byte_tokenizer(), sequence_length=64, vocabulary_multiple=64))
    assert {parameter.dtype for parameter in model.parameters()} == {torch.float32}


@pytest.mark.parametrize("tied", [True, False])
def test_added_tokens_leave_the_old_logits_unchanged(tmp_path, tied):
    base = saved_base(tmp_path, tied=tied)
    tokenizer = byte_tokenizer()
    tokenizer.add_tokens(["[START_REF]"])
    plan = plan_model(tmp_path, tokenizer, sequence_length=64, vocabulary_multiple=64)
    model = materialised(plan)
    assert plan.vocabulary_size == 320
    assert model.config.vocab_size == model.lm_head.weight.shape[0] == 320
    torch.testing.assert_close(logits(model)[..., :259], logits(base))
    pieces = byte_tokenizer().encode("[START_REF]", add_special_tokens=False)
    expected = base.lm_head.weight[pieces].mean(dim=0)
    torch.testing.assert_close(model.lm_head.weight[259], expected)


def test_a_preset_is_padded_to_the_multiple_and_knows_the_control_tokens():
    plan = plan_model("llama-tiny", byte_tokenizer(), sequence_length=64, vocabulary_multiple=128)
    assert plan.vocabulary_size == 384
    assert (plan.config["bos_token_id"], plan.config["pad_token_id"], plan.config["eos_token_id"]) == (
        0,
        1,
        2,
    )


def test_rows_longer_than_the_base_was_trained_for_are_refused(tmp_path):
    saved_base(tmp_path)
    with pytest.raises(ConfigError, match="sequence_length=512 is longer than the 256 positions"):
        plan_model(tmp_path, byte_tokenizer(), sequence_length=512, vocabulary_multiple=64)


def test_a_window_that_no_layer_uses_hides_nothing():
    config = {"num_hidden_layers": 2, "max_position_embeddings": 512, "sliding_window": 32}
    refuse_long_context({**config, "layer_types": ["full_attention"] * 2}, 512, "base")
    refuse_long_context({**config, "use_sliding_window": False}, 512, "base")
    with pytest.raises(ConfigError, match=r"the attention window of 32 tokens .* or widen the window"):
        refuse_long_context({**config, "layer_types": ["full_attention", "sliding_attention"]}, 512, "base")


def test_rows_longer_than_a_sliding_window_are_refused(tmp_path):
    settings = {**dict(tiny_plan().config), "vocab_size": 259, "sliding_window": 32}
    settings.pop("model_type")
    saved_base(tmp_path, config=MistralConfig(**settings))
    with pytest.raises(ConfigError, match="longer than the attention window of 32 tokens"):
        plan_model(tmp_path, byte_tokenizer(), sequence_length=64, vocabulary_multiple=64)


def test_a_folder_that_lacks_a_tensor_is_refused_by_name(tmp_path):
    saved_base(tmp_path)
    weights = load_file(tmp_path / "model.safetensors")
    del weights["model.norm.weight"]
    save_file(weights, tmp_path / "model.safetensors")
    plan = plan_model(tmp_path, byte_tokenizer(), sequence_length=64, vocabulary_multiple=64)
    with pytest.raises(InputError, match=r"lacks model\.norm\.weight .*baltoro model import"):
        materialised(plan)


def test_a_folder_whose_shapes_contradict_its_config_is_refused(tmp_path):
    saved_base(tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())
    config["intermediate_size"] = 128
    (tmp_path / "config.json").write_text(json.dumps(config))
    plan = plan_model(tmp_path, byte_tokenizer(), sequence_length=64, vocabulary_multiple=64)
    with pytest.raises(InputError, match=r"mlp.*has shape .* its config\.json means"):
        materialised(plan)


def test_a_folder_without_safetensors_names_the_command(tmp_path):
    with pytest.raises(
        InputError, match=f"holds no model.safetensors; run `baltoro model import {tmp_path}`"
    ):
        plan_model(tmp_path, byte_tokenizer(), sequence_length=64, vocabulary_multiple=64)


def test_decoder_blocks_are_the_layers_in_order():
    model = build_model(tiny_plan(layers=3))
    assert decoder_blocks(model) == list(model.model.layers)


def opt_plan(sequence_length=64, **settings):
    plan = plan_model("opt-tiny", byte_tokenizer(), sequence_length=sequence_length, vocabulary_multiple=8)
    return ModelPlan({**plan.config, **settings})


def test_a_preset_of_learned_positions_refuses_rows_beyond_them():
    with pytest.raises(
        ConfigError, match=r"sequence_length=4096 is longer than the 2048 learned positions of opt-tiny"
    ):
        opt_plan(4096)
    assert opt_plan(2048).config["max_position_embeddings"] == 2048


def test_rope_scaling_is_refused_for_learned_positions_and_allowed_for_rotary_ones():
    with pytest.raises(ConfigError, match=r"model\.rope_scaling: opt-tiny has learned positions"):
        refuse_rope_scaling(opt_plan().config, "opt-tiny")
    refuse_rope_scaling(tiny_plan().config, "tiny")
    refuse_rope_scaling({"rope_theta": 1e6}, "an older config.json")


def test_random_weights_of_the_opt_family_have_its_deviation():
    model = materialised(opt_plan(init_std=0.006))
    block = model.model.decoder.layers[0]
    assert block.fc1.weight.std().item() == pytest.approx(0.006, rel=0.03)
    assert model.model.decoder.embed_positions.weight.std().item() == pytest.approx(0.006, rel=0.03)
    for matrix in (block.fc2.weight, block.self_attn.out_proj.weight):
        assert matrix.std().item() == pytest.approx(0.006 / 8**0.5, rel=0.03)
    assert len(decoder_blocks(model)) == 4


def test_an_architecture_without_the_kernel_is_refused_by_name():
    settings = {**tiny_plan().config, "model_type": "gemma2", "head_dim": 8}
    with pytest.raises(
        InputError, match="the gemma2 architecture does not run with the attention kernel sdpa"
    ):
        build_model(ModelPlan(settings))
