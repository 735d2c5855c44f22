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


def test_every_preset_says_what_it_is():
    assert all(preset.about for preset in PRESETS.values())
