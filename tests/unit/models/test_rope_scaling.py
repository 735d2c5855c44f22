import json
import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    FalconConfig,
    Gemma3TextConfig,
    GPTNeoXConfig,
    LlamaConfig,
    MixtralConfig,
    OPTConfig,
    Phi3Config,
)

from baltoro.core.config import decode, result_fields
from baltoro.core.errors import ConfigError
from baltoro.models.load import ModelPlan, build_model, load_weights
from baltoro.models.rope_scaling import (
    StretchedPositions,
    attention_scale,
    context_positions,
    dimension_ramp,
    inverse_frequencies,
    ntk_base,
    plan_stretch,
    scale_rope,
)
from baltoro.models.rope_scaling_config import RopeScalingConfig

SHAPE = {
    "vocab_size": 32,
    "hidden_size": 256,
    "intermediate_size": 32,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
}
LLAMA = LlamaConfig(**SHAPE, num_key_value_heads=1, max_position_embeddings=4096).to_dict()
METHODS = [
    {"method": "linear"},
    {"method": "ntk"},
    {"method": "dynamic_ntk"},
    {"method": "ntk_by_parts"},
    {"method": "ntk_by_parts", "ramp": "rotations", "alpha": 2.0, "beta": 16.0},
    {"method": "yarn"},
    {"method": "yarn", "alpha": 2.0, "beta": 24.0, "attention_factor": 1.25},
    {"method": "yarn", "ramp": "rotations"},
    {"method": "llama3"},
    {"method": "llama3", "low_frequency_factor": 2.0, "high_frequency_factor": 8.0},
]


def names(scaling):
    return "-".join(str(value) for value in scaling.values())


def stretched(method="linear", factor=4.0, **others):
    return plan_stretch(LLAMA, RopeScalingConfig(method=method, factor=factor, **others))


def expected_tables(plan, positions, tokens=None):
    angles = positions[:, None] * inverse_frequencies(plan, tokens)
    angles = np.concatenate([angles, angles], axis=1)
    return np.cos(angles) * attention_scale(plan), np.sin(angles) * attention_scale(plan)


# What plain transformers makes of it ----------------------------------------------------------------------


def saved_rotary(config, folder):
    """The rotary embedding of a tiny model that was saved and loaded again without Baltoro's help."""
    settings = dict(config)
    model_config = AutoConfig.for_model(settings.pop("model_type"), **settings)
    torch.manual_seed(0)
    AutoModelForCausalLM.from_config(model_config).save_pretrained(folder)
    model = AutoModelForCausalLM.from_pretrained(folder)
    return next(module for name, module in model.named_modules() if name.endswith("rotary_emb")), model.config


@pytest.mark.parametrize("scaling", METHODS, ids=names)
def test_a_saved_model_turns_as_the_closed_form_says(scaling, tmp_path):
    config = RopeScalingConfig(**scaling, factor=4.0)
    plan = plan_stretch(LLAMA, config)
    rotary, reloaded = saved_rotary(scale_rope(LLAMA, config), tmp_path)
    np.testing.assert_allclose(rotary.inv_freq.double().numpy(), inverse_frequencies(plan), rtol=3e-6)
    assert rotary.attention_scaling == pytest.approx(attention_scale(plan))
    positions = np.array([0, 1, 2, 63, 500, 4095])
    cosines, sines = rotary(torch.zeros(1, dtype=torch.float32), torch.from_numpy(positions)[None])
    expected = expected_tables(plan, positions)
    # Positions up to 4095 times a float32 frequency are angles good to 4095 · 2⁻²⁴.
    np.testing.assert_allclose(cosines[0].numpy(), expected[0], atol=2e-3)
    np.testing.assert_allclose(sines[0].numpy(), expected[1], atol=2e-3)
    assert context_positions(reloaded.to_dict()) == plan.positions

    tokens = plan.positions
    last = np.arange(tokens - 3, tokens)
    cosines, _ = rotary(torch.zeros(1, dtype=torch.float32), torch.from_numpy(last)[None])
    np.testing.assert_allclose(rotary.inv_freq.double().numpy(), inverse_frequencies(plan, tokens), rtol=3e-6)
    np.testing.assert_allclose(cosines[0].numpy(), expected_tables(plan, last, tokens)[0], atol=1e-2)


def test_dynamic_ntk_grows_with_the_sequence_and_shrinks_below_the_original_context(tmp_path):
    plan = stretched("dynamic_ntk", factor=2.0)
    rotary, _ = saved_rotary(scale_rope(LLAMA, plan.scaling), tmp_path)

    def frequencies_after(tokens):
        rotary(torch.zeros(1), torch.arange(tokens)[None])
        return rotary.inv_freq.double().numpy()

    for tokens in (100, 4096, 5000, 8192):
        np.testing.assert_allclose(
            frequencies_after(tokens), inverse_frequencies(plan, tokens), rtol=3e-6, err_msg=str(tokens)
        )
    np.testing.assert_allclose(frequencies_after(6000), inverse_frequencies(plan, 8192), rtol=3e-6)
    np.testing.assert_allclose(frequencies_after(4095), inverse_frequencies(plan), rtol=3e-6)
    assert (inverse_frequencies(plan, 8192)[1:] < inverse_frequencies(plan)[1:]).all()


@pytest.mark.parametrize("scaling", METHODS, ids=names)
def test_a_model_built_for_training_turns_as_the_closed_form_says(scaling):
    config = RopeScalingConfig(**scaling, factor=4.0)
    plan = ModelPlan(scale_rope(LLAMA, config))
    model = build_model(plan).to_empty(device="cpu")
    load_weights(model, plan)
    np.testing.assert_allclose(
        model.model.rotary_emb.inv_freq.double().numpy(),
        inverse_frequencies(plan_stretch(LLAMA, config)),
        rtol=3e-6,
    )


@pytest.mark.parametrize("method", ["yarn", "llama3", "linear", "dynamic_ntk"])
@pytest.mark.parametrize(
    "base",
    [
        GPTNeoXConfig(**SHAPE, rotary_pct=0.25, max_position_embeddings=2048),
        MixtralConfig(
            **SHAPE, num_key_value_heads=1, num_local_experts=2, max_position_embeddings=2048, head_dim=None
        ),
        Phi3Config(**{**SHAPE, "pad_token_id": 0}, num_key_value_heads=1, max_position_embeddings=4096),
    ],
    ids=lambda base: base.model_type,
)
def test_other_architectures_turn_as_the_closed_form_says(base, method, tmp_path):
    config = RopeScalingConfig(method=method, factor=2.0)
    plan = plan_stretch(base.to_dict(), config)
    assert plan.dimensions == (32 if base.model_type == "gpt_neox" else 128)
    if base.model_type == "phi3" and method == "dynamic_ntk":
        with pytest.raises(ConfigError, match="method=dynamic_ntk: phi3 models cannot grow"):
            scale_rope(base.to_dict(), config)
        return
    rotary, _ = saved_rotary(scale_rope(base.to_dict(), config), tmp_path)
    np.testing.assert_allclose(rotary.inv_freq.double().numpy(), inverse_frequencies(plan), rtol=3e-6)


@pytest.mark.filterwarnings("error")
def test_transformers_finds_nothing_to_complain_about(tmp_path, caplog):
    for index, scaling in enumerate(METHODS):
        settings = scale_rope(LLAMA, RopeScalingConfig(**scaling, factor=4.0))
        config = AutoConfig.for_model(settings.pop("model_type"), **settings)
        config.save_pretrained(tmp_path / str(index))
        AutoConfig.from_pretrained(tmp_path / str(index))
    assert [record.message for record in caplog.records if record.name.startswith("transformers")] == []


def test_a_config_of_version_4_gives_the_same():
    old = {name: value for name, value in LLAMA.items() if name != "rope_parameters"}
    old |= {"rope_theta": 10_000.0, "rope_scaling": None}
    for scaling in METHODS:
        config = RopeScalingConfig(**scaling, factor=2.0)
        new = scale_rope(LLAMA, config)
        assert scale_rope(old, config)["rope_parameters"] == new["rope_parameters"]
    assert "rope_scaling" not in scale_rope(old, config)
    assert scale_rope(old, RopeScalingConfig(method="ntk", factor=2.0))["rope_theta"] == pytest.approx(
        20_221, abs=1
    )


# Closed forms ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("factor", "base"), [(2, 20_221), (4, 40_890), (8, 82_685), (16, 167_199), (32, 338_097)]
)
def test_ntk_bases_of_llama_are_the_known_ones(factor, base):
    assert round(ntk_base(10_000.0, factor, 128)) == base
    scaled = scale_rope(LLAMA, RopeScalingConfig(method="ntk", factor=factor))
    assert round(scaled["rope_parameters"]["rope_theta"]) == base


@pytest.mark.parametrize(("factor", "scale"), [(4, 1.1386), (8, 1.2079), (16, 1.2773), (32, 1.3466)])
def test_yarns_temperature_is_the_known_one(factor, scale):
    assert attention_scale(stretched("yarn", factor=factor)) == pytest.approx(scale, abs=5e-5)
    assert attention_scale(stretched("ntk_by_parts", factor=factor)) == 1.0
    assert attention_scale(stretched("yarn", factor=factor, attention_factor=1.5)) == 1.5


@pytest.mark.parametrize(("original", "ramp"), [(2048, (16, 41)), (4096, (20, 46)), (8192, (25, 50))])
def test_the_released_ramp_of_llama_is_the_known_one(original, ramp):
    assert dimension_ramp(128, 10_000.0, original, alpha=1.0, beta=32.0) == ramp
    plan = stretched("yarn", original_positions=min(original, 4096))
    if original <= 4096:
        kept, whole = inverse_frequencies(plan), inverse_frequencies(stretched("linear"))
        low, high = ramp
        full = whole * 4
        assert np.array_equal(kept[: low + 1], full[: low + 1])
        assert (kept[low + 1 : high] < full[low + 1 : high]).all()
        assert (kept[low + 1 : high] > whole[low + 1 : high]).all()
        np.testing.assert_allclose(kept[high:], whole[high:], rtol=1e-15)


def test_the_ramps_of_code_and_paper_differ_by_up_to_0_37():
    full, whole = (inverse_frequencies(stretched("linear", factor=4.0)) * scale for scale in (4, 1))
    blends = [
        (inverse_frequencies(stretched("ntk_by_parts", ramp=ramp)) - whole) / (full - whole)
        for ramp in ("dimension", "rotations")
    ]
    assert np.abs(blends[0] - blends[1]).max() == pytest.approx(0.37, abs=0.01)


def test_a_dimension_of_known_rotations_is_blended_as_equation_18_says():
    plan = StretchedPositions(
        RopeScalingConfig(method="ntk_by_parts", factor=4.0, ramp="rotations"),
        base=10_000.0,
        dimensions=128,
        original_positions=4096,
        positions=16_384,
        factor=4.0,
    )
    theta = 10_000.0 ** (-2 * 30 / 128)
    turns = 4096 * theta / (2 * math.pi)
    kept = (turns - 1) / 31
    assert 0 < kept < 1
    assert inverse_frequencies(plan)[30] == pytest.approx((1 - kept) * theta / 4 + kept * theta)


@settings(max_examples=30, deadline=None)
@given(
    st.sampled_from(METHODS),
    st.floats(1.01, 64),
    st.integers(1, 100).map(lambda half: 4 * half),
    st.sampled_from([1e4, 5e5, 1e6]),
)
def test_every_method_lies_between_no_stretch_and_interpolation(scaling, factor, dimensions, base):
    config = RopeScalingConfig(**scaling, factor=factor)
    plan = StretchedPositions(config, base, dimensions, 4096, math.floor(4096 * factor), factor)
    unscaled = base ** (-np.arange(0, dimensions, 2) / dimensions)
    # Dynamic NTK reaches further than the ratio of the contexts: its growth is s · n/L - (s - 1).
    slowest = factor * (factor if scaling["method"] == "dynamic_ntk" else 1)
    found = inverse_frequencies(plan, plan.positions)
    assert found.dtype == np.float64
    assert (found <= unscaled * (1 + 1e-12)).all()
    assert (found >= unscaled / slowest * (1 - 1e-12)).all()
    assert (np.diff(found) < 0).all()


# Lengths --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("length", "method", "factor", "positions"),
    [
        ({"target_positions": 11_264}, "linear", 3.0, 11_264),
        ({"target_positions": 12_288}, "linear", 3.0, 12_288),
        ({"target_positions": 12_289}, "linear", 4.0, 12_289),
        ({"target_positions": 11_264}, "yarn", 2.75, 11_264),
        ({"factor": 2.5}, "linear", 2.5, 10_240),
        ({"factor": 4.0, "original_positions": 2048}, "llama3", 4.0, 8192),
    ],
)
def test_lengths_give_factors(length, method, factor, positions):
    scaled = scale_rope(LLAMA, RopeScalingConfig(method=method, **length))
    assert scaled["rope_parameters"]["factor"] == factor
    assert scaled["max_position_embeddings"] == positions == context_positions(scaled)


def test_dynamic_ntk_keeps_the_original_context_where_growth_begins():
    scaled = scale_rope(LLAMA, RopeScalingConfig(method="dynamic_ntk", factor=2.0))
    assert scaled["max_position_embeddings"] == 4096
    assert context_positions(scaled) == 8192


def test_the_base_is_left_as_it_is():
    before = json.dumps(LLAMA, sort_keys=True, default=str)
    scale_rope(LLAMA, RopeScalingConfig(method="yarn", factor=2.0))
    assert json.dumps(LLAMA, sort_keys=True, default=str) == before
    assert context_positions(LLAMA) == 4096


def test_a_base_that_names_its_original_context_is_stretched_from_there():
    config = {**LLAMA, "original_max_position_embeddings": 2048}
    assert plan_stretch(config, RopeScalingConfig(method="yarn", factor=2.0)).original_positions == 2048


# Refusals -------------------------------------------------------------------------------------------------


def refused(config, **scaling):
    with pytest.raises(ConfigError) as caught:
        scale_rope(config, RopeScalingConfig(**{"method": "yarn", "factor": 2.0, **scaling}), base="mine")
    return caught.value.message


def test_learned_positions_are_refused():
    assert "mine has learned positions" in refused(OPTConfig().to_dict())


def test_distances_in_place_of_rotations_are_refused():
    assert "mine biases its attention by distance" in refused(FalconConfig(alibi=True).to_dict())


@pytest.mark.parametrize("scaling", METHODS, ids=names)
def test_what_was_stretched_here_is_not_stretched_again(scaling):
    once = scale_rope(LLAMA, RopeScalingConfig(**scaling, factor=4.0))
    assert f"stretched already ({scaling['method']}, factor 4)" in refused(once)


@pytest.mark.parametrize("name", ["rope_parameters", "rope_scaling"])
@pytest.mark.parametrize("key", ["rope_type", "type"])
def test_what_others_stretched_is_refused_by_its_name(name, key):
    old = {field: value for field, value in LLAMA.items() if field != "rope_parameters"}
    message = refused({**old, "rope_theta": 1e4, name: {key: "linear", "factor": 8.0}})
    assert "stretched already (linear, factor 8)" in message
    assert "leave model.rope_scaling out" in message


def test_positions_of_their_own_per_kind_of_layer_are_refused():
    config = Gemma3TextConfig(**{**SHAPE, "head_dim": 128, "num_key_value_heads": 1})
    assert "for full_attention and sliding_attention layers" in refused(config.to_dict())


def test_a_target_within_the_original_context_is_refused():
    message = refused(LLAMA, factor=None, target_positions=4096)
    assert "target_positions=4096 is no longer than the original context of 4096 tokens" in message


def test_an_original_context_beyond_the_bases_is_refused():
    message = refused(LLAMA, original_positions=8192)
    assert "original_positions=8192: mine has 4096 positions; set at most 4096" in message


def test_an_unknown_original_context_is_asked_for():
    config = {name: value for name, value in LLAMA.items() if name != "max_position_embeddings"}
    assert "original_positions: mine does not say" in refused(config)
    assert scale_rope(config, RopeScalingConfig(method="yarn", factor=2.0, original_positions=64))


def test_heads_too_small_for_the_formulas_are_refused():
    assert "rotate 2 dimensions" in refused({**LLAMA, "head_dim": 2})


@pytest.mark.parametrize(
    ("settings", "complaint"),
    [
        ({"method": "yarn"}, "neither is given; give one"),
        ({"method": "yarn", "factor": 2.0, "target_positions": 9}, "both are given; give one"),
        ({"method": "yarn", "factor": 1.0}, "greater than 1"),
        ({"method": "linear", "factor": 2.0, "beta": 8.0}, "beta=8.0 belongs to ntk_by_parts and yarn"),
        (
            {"method": "ntk_by_parts", "factor": 2.0, "attention_factor": 1.1},
            "belongs to yarn, not to ntk_by",
        ),
        ({"method": "yarn", "factor": 2.0, "high_frequency_factor": 9.0}, "belongs to llama3, not to yarn"),
        ({"method": "yarn", "factor": 2.0, "alpha": 40.0}, "alpha=40.0 must be below beta=32.0"),
        ({"method": "yarnn", "factor": 2.0}, "yarn"),
    ],
)
def test_settings_that_do_not_fit_are_refused(settings, complaint):
    with pytest.raises(ConfigError, match=complaint):
        decode(RopeScalingConfig, settings, "a recipe")


def test_every_setting_changes_the_result():
    assert set(result_fields(RopeScalingConfig(method="yarn", factor=2.0))) == set(
        RopeScalingConfig.model_fields
    )
