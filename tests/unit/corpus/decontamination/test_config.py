"""Settings that make no sense are refused with their path, value and what to do."""

import pytest

from baltoro.core.config import decode, result_fields
from baltoro.core.errors import ConfigError
from baltoro.corpus.decontamination.config import DecontaminateConfig

SET = {"name": "exam", "uri": "exam.json"}


def test_no_sets_switch_decontamination_off():
    assert not DecontaminateConfig().enabled
    assert decode(DecontaminateConfig, {"sets": [SET]}, "recipe.yaml").enabled


@pytest.mark.parametrize(
    ("data", "said"),
    [
        ({"sets": [SET, SET]}, "the name 'exam' stands twice"),
        (
            {"sets": [{**SET, "fields": {"options": ["choices"]}}]},
            "fields.options: choices without fields.stems",
        ),
        (
            {"sets": [{**SET, "format": "lines", "fields": {"stems": ["question"]}}]},
            "the format 'lines' has no fields to choose",
        ),
        ({"sets": [{**SET, "name": "two words"}]}, "name"),
        (
            {"match": {"stem_fraction": 0.8, "stem_with_options_fraction": 0.9}},
            "0.9 is above stem_fraction 0.8",
        ),
        ({"match": {"stem_words": 40}}, "long_item_words: 32 is not above stem_words 40"),
        ({"match": {"short_window_words": 5}}, "more than half of stem_words 8"),
        ({"action": "delete"}, "action"),
        ({"canaries": {"min_recall_fraction": 1.5}}, "min_recall_fraction"),
    ],
)
def test_settings_without_sense_are_refused(data, said):
    with pytest.raises(ConfigError) as caught:
        decode(DecontaminateConfig, data, "recipe.yaml")
    assert said in str(caught.value)


def test_the_place_of_a_set_is_not_fingerprinted_and_what_is_found_is():
    config = decode(DecontaminateConfig, {"sets": [SET]}, "recipe.yaml")
    fields = result_fields(config)
    assert "sets.0.uri" not in fields
    assert fields["sets.0.name"] == "exam"
    assert fields["match.stem_words"] == 8
    assert fields["canaries.seed"] == 0
