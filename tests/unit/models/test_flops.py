import time

import pytest
from transformers import LlamaConfig, MistralConfig, MixtralConfig

from baltoro.models.flops import parameter_count, peak_flops, training_flops_per_token
from baltoro.models.presets import preset_config
from baltoro.testing.tiny import tiny_plan


def test_a_tiny_model_by_hand():
    # d 32, two layers, 4 query heads of 8, 2 key-value heads, gated feed-forward of 64, 264 tokens.
    layer = 32 * 32 + 2 * 32 * 16 + 32 * 32 + 3 * 32 * 64
    head = 264 * 32
    for tied in (True, False):
        config = tiny_plan(tied=tied).config
        # Five norms of 32 (two a layer, one at the end); the embedding once more where it is not tied.
        assert parameter_count(config) == 2 * layer + head * (1 if tied else 2) + 5 * 32
        # Positions of a row of 10 see 5.5 keys on average.
        expected = 6 * (2 * layer + head) + 2 * 12 * 32 * 5.5
        assert training_flops_per_token(config, 10) == expected


def test_llama_7b_at_2048_tokens_by_hand():
    config = preset_config("llama-7b", vocabulary_size=32_000, sequence_length=2048).to_dict()
    layer = 4 * 4096**2 + 3 * 4096 * 11008
    expected = 6 * (32 * layer + 32_000 * 4096) + 32 * 12 * 4096 * 2049 / 2
    assert training_flops_per_token(config, 2048) == expected
    assert expected == pytest.approx(4.126e10, rel=1e-3)


def test_learned_positions_and_embeddings_are_looked_up_and_not_multiplied():
    config = preset_config("opt-tiny", vocabulary_size=264, sequence_length=64).to_dict()
    assert training_flops_per_token(config, 1) == 6 * (4 * 12 * 128**2 + 264 * 128) + 4 * 12 * 128


def test_keys_outside_a_sliding_window_are_not_counted():
    shape = {
        "vocab_size": 64,
        "hidden_size": 32,
        "intermediate_size": 64,
        "num_hidden_layers": 1,
        "num_attention_heads": 4,
        "num_key_value_heads": 4,
    }
    whole = training_flops_per_token(MistralConfig(**shape, sliding_window=None).to_dict(), 4)
    window = training_flops_per_token(MistralConfig(**shape, sliding_window=2).to_dict(), 4)
    # 1 + 2 + 3 + 4 keys against 1 + 2 + 2 + 2.
    assert whole - window == 12 * 32 * (10 - 7) / 4


def test_of_experts_those_count_that_a_position_is_routed_to():
    shape = {
        "vocab_size": 64,
        "hidden_size": 32,
        "intermediate_size": 48,
        "num_hidden_layers": 1,
        "num_attention_heads": 4,
        "num_key_value_heads": 4,
        "head_dim": 8,
        "sliding_window": None,
    }
    mixture = MixtralConfig(**shape, num_local_experts=4, num_experts_per_tok=2).to_dict()
    dense = LlamaConfig(**{**shape, "intermediate_size": 2 * 48}).to_dict()
    router = 4 * 32
    assert training_flops_per_token(mixture, 8) == training_flops_per_token(dense, 8) + 6 * router


def test_seventy_billion_parameters_are_counted_without_holding_them():
    config = preset_config("llama2-70b", vocabulary_size=32_000, sequence_length=4096).to_dict()
    began = time.process_time()
    assert training_flops_per_token(config, 4096) == pytest.approx(
        6 * 68.7e9 + 80 * 12 * 8192 * 2048.5, rel=1e-3
    )
    assert time.process_time() - began < 30


@pytest.mark.parametrize(
    ("name", "precision", "tera"),
    [
        ("NVIDIA H100 80GB HBM3", "bfloat16", 989.5),
        ("NVIDIA H100 PCIe", "bfloat16", 756.5),
        ("NVIDIA H100 NVL", "float16", 835.5),
        ("NVIDIA H200", "bfloat16", 989.5),
        ("NVIDIA A100-SXM4-80GB", "bfloat16", 312.0),
        ("NVIDIA A100 80GB PCIe", "float32", 19.5),
        ("NVIDIA A10G", "bfloat16", 70.0),
        ("NVIDIA L40S", "bfloat16", 362.0),
        ("NVIDIA L4", "bfloat16", 121.0),
        ("Tesla V100-SXM2-16GB", "float16", 125.0),
        ("Tesla V100-PCIE-16GB", "float16", 112.0),
        ("NVIDIA GeForce RTX 4090", "bfloat16", 165.2),
        ("NVIDIA RTX 6000 Ada Generation", "bfloat16", 364.2),
        ("NVIDIA B200", "bfloat16", 2250.0),
        ("AMD Instinct MI300X", "bfloat16", 1307.4),
    ],
)
def test_devices_are_known_by_the_name_that_torch_gives(name, precision, tera):
    assert peak_flops(name, precision) == tera * 1e12


@pytest.mark.parametrize(
    ("name", "precision"),
    [
        ("Tesla V100-SXM2-16GB", "bfloat16"),
        ("NVIDIA A100-SXM4-40GB MIG 1g.5gb", "bfloat16"),
        ("NVIDIA GeForce RTX 4090 Laptop GPU", "bfloat16"),
        ("NVIDIA GeForce RTX 4090 D", "bfloat16"),
        ("Some CPU", "float32"),
    ],
)
def test_a_device_that_is_not_in_the_table_has_no_peak(name, precision):
    assert peak_flops(name, precision) is None
