"""Decisions: the first broken rule, the same for a document as for its row in a table."""

import math

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from baltoro.core.config import result_fields
from baltoro.corpus.filters import (
    FACT_SCHEMA,
    FILTER_REASONS,
    SCORE_SCHEMA,
    SCORES,
    VERDICT_SCHEMA,
    Facts,
    FilterConfig,
    decide,
    decide_table,
    explain,
)
from baltoro.corpus.filters.config import QualityConfig, RepetitionConfig
from baltoro.corpus.filters.rules import rules_of
from baltoro.papers.schema import Paper

EVERYTHING_ON = FilterConfig(
    max_characters=400,
    language={"allow": ["en", "de"]},
    quality={"from_words": 3, "max_words": 90, "max_formula_fraction": 0.5, "max_table_fraction": 0.5},
    repetition={"from_words": 2},
    garble={"from_words": 1},
    years={"first": 1990, "last": 2010, "keep_unknown": False},
    venues={"allow": ["PLoS *", "unknown"], "deny": ["*corrections*"]},
    keywords={"any_of": ["ice"]},
    licenses={"allow": ["CC-BY-4.0", "unknown"]},
)

SOUND = dict.fromkeys(SCORES, 0.0) | {
    **{
        "characters": 5000.0,
        "words": 900.0,
        "prose_words": 800.0,
        "mean_word_characters": 5.0,
        "stop_words": 30.0,
    },
    **{"alphabetic_word_fraction": 0.95, "stop_word_fraction": 0.4, "sentence_fraction": 0.9},
    "keyword_hits_per_1000_words": 5.0,
}

BOUNDS = sorted({float(rule.bound) for rule in rules_of(EVERYTHING_ON) if hasattr(rule, "score")})
VALUES = st.one_of(
    st.floats(0, 1, width=32),
    st.sampled_from([*BOUNDS, math.nan, 0.0, 0.5, 2.0, 50.0, 300.0, 5000.0]),
).map(lambda value: float(np.float32(value)))
SCORE_ROWS = st.fixed_dictionaries({}, optional=dict.fromkeys(SCORES, VALUES)).map(
    lambda changed: SOUND | changed
)
FACTS = st.builds(
    Facts,
    language=st.sampled_from(["en", "de", "fr", "und"]),
    language_confidence=st.sampled_from([0.0, 0.5, float(np.float32(0.8)), 0.799, 1.0]),
    declared_language=st.sampled_from([None, "en"]),
    license=st.sampled_from(["CC-BY-4.0", "CC-BY", "unknown", "All rights reserved"]),
    year=st.sampled_from([None, 1989, 1990, 2010, 2011]),
    venue=st.sampled_from([None, "", "PLoS ONE", "plos  one", "PLoS corrections", "Annals of Ice"]),
)


def table_of(rows):
    schema = pa.schema([*SCORE_SCHEMA, *FACT_SCHEMA])
    return pa.Table.from_pylist(
        [scores | {name: getattr(facts, name) for name in FACT_SCHEMA.names} for scores, facts in rows],
        schema,
    )


@settings(max_examples=50)
@given(st.lists(st.tuples(SCORE_ROWS, FACTS), max_size=3), st.sampled_from([EVERYTHING_ON, FilterConfig()]))
def test_a_table_decides_as_each_document_did(rows, config):
    decided = decide_table(table_of(rows), config)
    one_by_one = [decide(scores, facts, config) for scores, facts in rows]
    assert decided.schema == VERDICT_SCHEMA
    assert decided.column("reason").to_pylist() == [verdict and verdict.reason for verdict in one_by_one]
    assert decided.column("detail").to_pylist() == [verdict and verdict.detail for verdict in one_by_one]


@settings(max_examples=50)
@given(SCORE_ROWS, FACTS, st.sampled_from([EVERYTHING_ON, FilterConfig()]))
def test_a_verdict_is_the_first_rule_that_is_explained_as_broken(scores, facts, config):
    broken = [rule for rule in explain(scores, facts, config) if not rule.passed]
    verdict = decide(scores, facts, config)
    assert (verdict is None) == (not broken)
    if verdict:
        assert (verdict.reason, verdict.detail) == (broken[0].reason, broken[0].detail)
        assert verdict.reason in FILTER_REASONS


@pytest.mark.parametrize(
    "rule", [rule for rule in rules_of(EVERYTHING_ON) if hasattr(rule, "score")], ids=str
)
def test_a_value_at_its_bound_passes_and_one_beyond_does_not(rule):
    at = float(np.float32(rule.bound))
    beyond = float(np.nextafter(np.float32(at), np.float32(-np.inf if rule.sense == "min" else np.inf)))
    alone = [
        r for r in explain(SOUND | {rule.score: at}, Facts(), EVERYTHING_ON) if r.setting == rule.setting
    ]
    broken = [
        r for r in explain(SOUND | {rule.score: beyond}, Facts(), EVERYTHING_ON) if r.setting == rule.setting
    ]
    assert all(r.passed for r in alone if r.bound == rule.bound)
    assert not any(r.passed for r in broken if r.bound == rule.bound)


def test_every_reason_has_a_rule_and_every_score_rule_a_score():
    rules = rules_of(EVERYTHING_ON)
    assert {rule.reason for rule in rules} == set(FILTER_REASONS)
    assert {rule.score for rule in rules if hasattr(rule, "score")} <= set(SCORES)


@pytest.mark.parametrize("section", [QualityConfig, RepetitionConfig])
def test_every_bound_of_a_section_is_applied_and_can_be_switched_off(section):
    name = "quality" if section is QualityConfig else "repetition"
    bounds = [field for field in section.model_fields if field.startswith(("min_", "max_"))]
    settings = {rule.setting for rule in rules_of(EVERYTHING_ON)}
    assert {f"{name}.{bound}" for bound in bounds} <= settings
    off = FilterConfig(**{name: dict.fromkeys(bounds)})
    assert not [rule for rule in rules_of(off) if rule.setting.startswith(name)]
    assert not [
        rule for rule in rules_of(FilterConfig(**{name: {"enabled": False}})) if rule.setting.startswith(name)
    ]


@pytest.mark.parametrize(
    ("changed", "detail"),
    [
        ({"characters": 120}, "characters 120 < 200"),
        ({"garble_fraction": 0.41}, "garble_fraction 0.41 > 0.08"),
        ({"dup_5gram_fraction": 0.4500001}, "dup_5gram_fraction 0.4500001 > 0.45"),
        ({"mean_word_characters": 11.25}, "mean_word_characters 11.25 > 10"),
        ({"stop_words": 1}, "stop_words 1 < 2"),
    ],
)
def test_the_detail_gives_value_and_bound_with_the_digits_that_tell_them_apart(changed, detail):
    scores = SOUND | {name: float(np.float32(value)) for name, value in changed.items()}
    assert decide(scores, Facts(), FilterConfig()).detail == detail


@pytest.mark.parametrize(
    ("changed", "facts", "reason", "detail"),
    [
        ({"licenses": {"allow": ["CC0-1.0"]}}, {}, "license", "licence unknown, allowed: CC0-1.0"),
        ({"licenses": {"allow": ["unknown"]}}, {}, None, None),
        (
            {"licenses": {"allow": ["CC-BY-4.0"]}},
            {"license": "CC-BY-NC-4.0"},
            "license",
            "licence CC-BY-NC-4.0, allowed: CC-BY-4.0",
        ),
        ({"years": {"first": 2000}}, {"year": 1999}, "year", "year 1999, allowed: 2000 on"),
        ({"years": {"last": 2000}}, {"year": 2001}, "year", "year 2001, allowed: up to 2000"),
        (
            {"years": {"first": 2000, "last": 2005}},
            {"year": 1999},
            "year",
            "year 1999, allowed: 2000 to 2005",
        ),
        ({"years": {"first": 2000}}, {}, None, None),
        ({"years": {"first": 2000, "keep_unknown": False}}, {}, "year", "year unknown, allowed: 2000 on"),
        ({"venues": {"allow": ["plos *"]}}, {"venue": "PLoS  ONE"}, None, None),
        ({"venues": {"allow": ["plos *"]}}, {}, "venue", "venue unknown, allowed: plos *"),
        (
            {"venues": {"deny": ["PLOS ONE"]}},
            {"venue": "PLoS ONE"},
            "venue",
            "venue PLoS ONE, denied: PLOS ONE",
        ),
        ({"venues": {"deny": ["unknown"]}}, {}, "venue", "venue unknown, denied: unknown"),
        (
            {"language": {"allow": ["en"]}},
            {"language": "fr", "language_confidence": 0.97},
            "language",
            "language fr, confidence 0.97, allowed: en",
        ),
        ({"language": {"allow": ["en"]}}, {"language": "fr", "language_confidence": 0.5}, None, None),
        ({"language": {"allow": ["en"]}}, {}, None, None),
    ],
)
def test_what_a_paper_says_of_itself_is_judged_by_the_lists(changed, facts, reason, detail):
    verdict = decide(SOUND, Facts(**facts), FilterConfig(**changed))
    assert (verdict and verdict.reason, verdict and verdict.detail) == (reason, detail)


def test_the_discipline_is_known_by_its_words(judge, prose):
    geology = FilterConfig(
        keywords={"any_of": ["glacier", "glaciers", "Melt water"], "min_hits_per_1000_words": 4}
    )
    chemistry = FilterConfig(keywords={"any_of": ["enzyme", "reaction rate"]})
    assert judge(prose, geology).verdict is None
    judged = judge(prose, chemistry, Paper(title="Meltwater"))
    assert (judged.reason, judged.verdict.detail) == ("discipline", "keyword_hits_per_1000_words 0 < 1")


def test_a_small_document_is_not_judged_by_shares():
    small = SOUND | {
        "prose_words": 49.0,
        "garble_fraction": 1.0,
        "stop_word_fraction": 0.0,
        "dup_5gram_fraction": 1.0,
    }
    assert decide(small, Facts(), FilterConfig()) is None
    assert not [rule for rule in explain(small, Facts(), FilterConfig()) if rule.applies and not rule.passed]


def test_a_score_table_without_a_column_is_refused_by_its_name():
    with pytest.raises(
        ValueError, match="a score table without the column 'garble_fraction'; score the documents"
    ):
        decide_table(table_of([(SOUND, Facts())]).drop_columns(["garble_fraction"]), FilterConfig())


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        (
            {"min_characters": 9, "max_characters": 8},
            "corpus.filters.max_characters: 8 is below min_characters 9; no document could pass",
        ),
        (
            {"language": {"allow": ["eng"]}},
            "corpus.filters.language.allow: 'eng' is no language .* did you mean 'en'?",
        ),
        ({"language": {"allow": ["English"]}}, "did you mean 'en'?"),
        (
            {"quality": {"min_words": 9, "max_words": 8}},
            "corpus.filters.quality.min_words: 9 is above max_words 8; no document could pass, so lower it",
        ),
        (
            {"quality": {"min_mean_word_characters": 9, "max_mean_word_characters": 8}},
            "corpus.filters.quality.min_mean_word_characters: 9.0 is above max_mean_word_characters 8.0",
        ),
        ({"years": {"first": 2001, "last": 2000}}, "corpus.filters.years.first: 2001 is above last 2000"),
        (
            {"licenses": {"allow": ["cc by 4.0"]}},
            "'cc by 4.0' is not how .* are written here; write 'CC-BY-4.0'",
        ),
        (
            {"licenses": {"allow": ["All rights reserved"]}},
            "'All rights reserved' is no SPDX id; write ids such as",
        ),
        (
            {"venues": {"allow": [" "]}},
            "corpus.filters.venues: ' ' is no pattern; write a name such as 'PLoS ONE'",
        ),
        ({"keywords": {"any_of": ["…"]}}, "corpus.filters.keywords.any_of: '…' holds no word"),
        ({"keywords": {"any_of": ["geolog*"]}}, "'geolog\\*' is a pattern; only whole words are compared"),
        ({"garble": {"max_fraction": 1.5}}, "garble.max_fraction"),
        ({"repetition": {"max_dup_4gram_fraction": 0.5}}, "repetition.max_dup_4gram_fraction"),
    ],
)
def test_settings_that_make_no_sense_are_refused_with_what_to_do(changed, message):
    with pytest.raises(ValidationError, match=message):
        FilterConfig(**changed)


def test_every_setting_enters_the_fingerprint():
    fields = result_fields(FilterConfig())
    assert fields["min_characters"] == 200
    assert fields["repetition.max_dup_10gram_fraction"] == 0.3
    assert fields["licenses.allow"] == []
