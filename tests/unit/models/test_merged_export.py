"""A base with its adapters and stretched positions, written as plain transformers loads it."""

import json
from dataclasses import replace

import pytest
import torch
from transformers import AutoModelForCausalLM

from baltoro.core.errors import ConfigError, InputError
from baltoro.models.adapters import Tuning, linear_layers, read_adapter, target_layers
from baltoro.models.config import AdapterConfig, QuantizationConfig
from baltoro.models.export import write_merged_folder
from baltoro.models.load import build_model, load_weights, refuse_untrained_rows
from baltoro.models.nf4 import Nf4Linear
from baltoro.models.rope_scaling import scale_rope
from baltoro.models.rope_scaling_config import RopeScalingConfig
from baltoro.testing.tiny import tiny_plan

IDS = torch.arange(60)[None] % 200


def filled(plan):
    model = build_model(plan)
    model.to_empty(device="cpu")
    load_weights(model, plan)
    return model.eval()


def no_tokenizer(folder):
    (folder / "tokenizer_config.json").write_text('{"tokenizer_class": "none"}')


@pytest.mark.parametrize(
    "settings",
    [
        {"method": "linear", "factor": 2.0},
        {"method": "ntk", "factor": 2.0},
        {"method": "dynamic_ntk", "factor": 2.0},
        {"method": "ntk_by_parts", "factor": 2.0, "ramp": "rotations"},
        {"method": "yarn", "factor": 4.0},
        {"method": "yarn", "factor": 2.0, "ramp": "rotations"},
        {"method": "llama3", "factor": 8.0},
    ],
    ids=lambda settings: "-".join(map(str, settings.values())),
)
def test_positions_are_read_alike_by_old_and_new_keys(tmp_path, settings):
    plan = tiny_plan()
    plan = replace(plan, config=scale_rope(plan.config, RopeScalingConfig(**settings)))
    folder = tmp_path / "model"
    write_merged_folder(folder, plan=plan, save_tokenizer=no_tokenizer, dtype="float32")
    config = json.loads((folder / "config.json").read_text())
    assert config["rope_theta"] == config["rope_parameters"]["rope_theta"]
    stretched = config["rope_parameters"]["rope_type"] != "default"
    assert config.get("rope_scaling") == (config["rope_parameters"] if stretched else None)
    loaded = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
    with torch.no_grad():
        assert torch.equal(loaded(IDS).logits, filled(plan)(IDS).logits)


@pytest.mark.parametrize("double", [True, False])
def test_four_bit_layers_compute_with_what_they_expand_to_before_and_after_evaluation(double):
    torch.manual_seed(0)
    linear = torch.nn.Linear(96, 40)
    layer = Nf4Linear(linear, double_quantization=double)
    layer.fill(linear.weight)
    assert float((layer.weight - linear.weight).abs().mean()) < 0.1 * float(linear.weight.abs().mean())
    inputs = torch.randn(3, 5, 96, requires_grad=True)

    def gradient():
        inputs.grad = None
        layer.train()(inputs).square().sum().backward()
        return inputs.grad.clone()

    before = gradient()
    with torch.no_grad():
        layer.eval()(inputs)
        layer(inputs[0])
    assert torch.equal(gradient(), before)
    plain = inputs.detach().clone().requires_grad_()
    torch.nn.functional.linear(plain, layer.weight, linear.bias).square().sum().backward()
    assert torch.allclose(before, plain.grad, atol=1e-5)
    assert torch.equal(layer.expanded(torch.bfloat16), layer.weight.to(torch.bfloat16))


def test_targets_are_found_by_the_ends_of_their_names_or_refused():
    model = build_model(tiny_plan())
    every = linear_layers(model)
    assert len(every) == 14
    assert not any("lm_head" in name for name in every)
    some = target_layers(model, AdapterConfig(targets=("v_proj", "q_proj")))
    assert some == [name for name in every if name.endswith(("q_proj", "v_proj"))]
    with pytest.raises(ConfigError, match=r"'query' matches no linear layer; this model has down_proj, gate"):
        target_layers(model, AdapterConfig(targets=("query",)))
    with pytest.raises(ConfigError, match="the output projection takes no adapter"):
        target_layers(model, AdapterConfig(targets=("lm_head",)))


def test_only_the_adapter_and_what_is_named_is_trained():
    tuning = Tuning(AdapterConfig(rank=2, train=("norms",)), QuantizationConfig(), "bfloat16")
    model = build_model(replace(tiny_plan(), tuning=tuning))
    for name, parameter in model.named_parameters():
        trained = "lora_" in name or "norm" in name
        assert parameter.requires_grad is trained, name
        assert parameter.dtype == (torch.float32 if trained else torch.bfloat16), name


def test_new_tokens_under_an_adapter_need_a_trained_embedding():
    class Grown:
        grows = True

    plan = replace(tiny_plan(), vocabulary=Grown(), tuning=Tuning(AdapterConfig()))
    with pytest.raises(ConfigError, match=r"set adapter.train=\[embeddings\], tokenizer.add_tokens=none or"):
        refuse_untrained_rows(plan)
    refuse_untrained_rows(replace(plan, tuning=Tuning(AdapterConfig(train=("embeddings",)))))


def test_a_folder_that_is_no_adapter_is_refused(tmp_path):
    with pytest.raises(InputError, match=r"is no adapter that can be read .*baltoro_adapter.json"):
        read_adapter(tmp_path)
