"""Settings that make no sense are refused with the path, the value and what to do."""

import pytest

from baltoro.core.config import decode, result_fields
from baltoro.core.errors import ConfigError
from baltoro.corpus.dedup.config import DedupConfig, KeepConfig, NearDuplicateConfig, VersionConfig


@pytest.mark.parametrize(
    ("model", "settings", "message"),
    [
        (NearDuplicateConfig, {"bands": 30}, r"30 bands of 4 rows make 120 bins; .*a power of two .*64 × 4"),
        (NearDuplicateConfig, {"bands": 512, "rows": 64}, r"make 32768 bins"),
        (
            NearDuplicateConfig,
            {"bands": 8, "rows": 32},
            r"near\.rows: with 8 bands of 32 rows only 0% of the pairs at threshold 0\.45 would meet",
        ),
        (
            VersionConfig,
            {"doi": False, "title_and_first_author": False, "file_stem": False},
            r"no version can be found; switch one on or set enabled to false",
        ),
        (KeepConfig, {"formats": ("jats", "tei", "jats")}, r"keep\.formats: 'jats' stands twice"),
        (KeepConfig, {"order": ("length", "length")}, r"keep\.order: 'length' stands twice"),
        (KeepConfig, {"formats": ("jats", "tei")}, r"keep\.formats: 'tei' is no input format"),
        (NearDuplicateConfig, {"threshold": 0.0}, "greater than 0"),
        (DedupConfig, {"exakt": True}, "exakt"),
    ],
)
def test_settings_that_find_nothing_or_contradict_each_other_are_refused(model, settings, message):
    with pytest.raises(ValueError, match=message):
        model(**settings)


def test_every_setting_changes_the_result_and_has_a_sentence():
    fields = result_fields(DedupConfig())
    assert fields["exact"] is True
    assert fields["near.bands"] * fields["near.rows"] == 256
    assert fields["versions.metadata_key"] is None
    for model in (DedupConfig, KeepConfig, NearDuplicateConfig, VersionConfig):
        assert all(field.description for field in model.model_fields.values())


def test_a_near_search_that_is_off_needs_no_working_bands():
    assert NearDuplicateConfig(enabled=False, bands=1, rows=64).bins == 64


def test_a_wrong_name_is_answered_with_its_path():
    with pytest.raises(ConfigError, match=r"near\.treshold"):
        decode(DedupConfig, {"near": {"treshold": 0.5}}, "recipe.yaml")


def test_versions_that_are_not_found_cannot_be_merged():
    with pytest.raises(ValueError, match=r"corpus\.dedup\.versions\.merge: true, but .*enabled is false"):
        DedupConfig(versions={"enabled": False, "merge": True})


def test_a_preferred_format_must_be_one():
    with pytest.raises(
        ValueError, match=r"corpus\.dedup\.keep\.formats: 'tei' is no input format; they are .*jats"
    ):
        DedupConfig(keep={"formats": ["tei"]})
