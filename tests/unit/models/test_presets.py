import pytest
import torch
from transformers import AutoModelForCausalLM

from baltoro.models.presets import PRESETS, preset_config


def parameters(name, vocabulary_size):
    config = preset_config(name, vocabulary_size=vocabulary_size, sequence_length=512)
    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(config)
    return sum(parameter.numel() for parameter in model.parameters())


@pytest.mark.parametrize(
    ("name", "vocabulary_size", "expected"),
    [
        ("llama-tiny", 8192, 1_901_696),
        ("llama-7b", 32_000, 6_738_415_616),
        ("llama-13b", 32_000, 13_015_864_320),
        ("llama-1b", 32_000, 1_100_048_384),
        ("llama2-70b", 32_000, 68_976_648_192),
    ],
)
def test_presets_have_the_published_number_of_parameters(name, vocabulary_size, expected):
    assert parameters(name, vocabulary_size) == expected


def test_the_context_grows_with_longer_rows():
    assert (
        preset_config("llama-tiny", vocabulary_size=64, sequence_length=8192).max_position_embeddings == 8192
    )
    assert (
        preset_config("llama-tiny", vocabulary_size=64, sequence_length=128).max_position_embeddings == 2048
    )


@pytest.mark.parametrize(
    ("name", "published"),
    [
        ("galactica-125m", 125e6),
        ("galactica-1.3b", 1.3e9),
        ("galactica-6.7b", 6.7e9),
        ("galactica-30b", 30e9),
        ("galactica-120b", 120e9),
    ],
)
def test_galactica_sizes_have_their_published_number_of_parameters(name, published):
    preset, vocabulary_size = PRESETS[name], 50_000
    # 12 d² a layer, the embedding (tied), and 2,048 learned positions (two spare rows); no bias, no norm.
    expected = 12 * preset.hidden_size**2 * preset.layers + (vocabulary_size + 2050) * preset.hidden_size
    assert parameters(name, vocabulary_size) == expected
    assert expected == pytest.approx(published, rel=0.03)


def test_the_opt_family_is_galacticas():
    config = preset_config("opt-tiny", vocabulary_size=264, sequence_length=64)
    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(config)
    assert not [name for name, _ in model.named_parameters() if name.endswith(".bias")]
    assert config.activation_function == "gelu"
    assert (config.dropout, config.attention_dropout) == (0.1, 0.1)
    assert not any(isinstance(module, torch.nn.Dropout) for module in model.modules())
    assert config.max_position_embeddings == 2048


def test_learned_positions_do_not_grow_with_longer_rows():
    assert preset_config("opt-tiny", vocabulary_size=64, sequence_length=8192).max_position_embeddings == 2048


def test_every_preset_says_what_it_is():
    assert all(preset.about for preset in PRESETS.values())
