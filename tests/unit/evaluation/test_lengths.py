import pytest

from baltoro.core.errors import ConfigError
from baltoro.evaluation.lengths import choose_lengths
from baltoro.models.rope_scaling import scale_rope
from baltoro.models.rope_scaling_config import RopeScalingConfig
from baltoro.testing.tiny import tiny_plan


def test_lengths_rise_and_stand_once():
    assert choose_lengths([64, 32, 64], {"max_position_embeddings": 64}, setting="lengths") == (32, 64)


def test_a_model_whose_positions_grow_with_the_text_is_checked_over_its_whole_reach():
    stretched = scale_rope(tiny_plan().config, RopeScalingConfig(method="dynamic_ntk", factor=4.0))
    assert stretched["max_position_embeddings"] == 256
    assert choose_lengths([], stretched, setting="lengths") == (256, 512, 1024)
    with pytest.raises(ConfigError, match="1025 tokens are more than the 1024 positions"):
        choose_lengths([1025], stretched, setting="lengths")


def test_a_model_that_does_not_say_what_it_reads_needs_lengths():
    assert choose_lengths([1 << 20], {}, setting="lengths") == (1 << 20,)
    with pytest.raises(ConfigError, match=r"lengths is empty.*set lengths, for example \[2048, 4096\]"):
        choose_lengths([], {}, setting="lengths")
