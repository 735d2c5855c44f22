import pytest

from baltoro.core.config import decode, result_fields
from baltoro.core.errors import ConfigError
from baltoro.data.config import DataConfig, TokenizerConfig


def test_the_recipe_writes_from_and_the_fingerprint_says_from():
    config = decode(TokenizerConfig, {"from": "base"}, "recipe")
    assert config.origin == "base"
    assert result_fields(config)["from"] == "base"


def test_an_unknown_origin_is_refused_with_its_alternatives():
    with pytest.raises(ConfigError, match=r"from: \"scratch\" is not allowed; it must be 'train' or 'base'"):
        decode(TokenizerConfig, {"from": "scratch"}, "recipe")


def test_shard_layout_is_no_part_of_the_fingerprint():
    small = DataConfig(rows_per_row_group=2, rows_per_shard=4)
    assert result_fields(small) == result_fields(DataConfig())
    assert result_fields(DataConfig(shuffle_seed=1)) != result_fields(DataConfig())


def test_shards_hold_whole_row_groups():
    with pytest.raises(ConfigError, match=r"rows_per_shard=10 is not a multiple.*use 8 or 12"):
        decode(DataConfig, {"rows_per_shard": 10, "rows_per_row_group": 4}, "recipe")
