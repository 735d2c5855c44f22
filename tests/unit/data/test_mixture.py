"""A mixture holds what the recipe asks for, to within half a document a source, or is refused."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from baltoro.core.errors import ConfigError
from baltoro.data.mixture import (
    MixtureConfig,
    ShareConfig,
    copies_of,
    curriculum_of,
    passes_of,
    refuse_shares_of_whole,
    refuse_unknown_sources,
)

AVAILABLE = {"code": 1_000, "papers": 8_000, "wiki": 4_000}


def mixture(**sources):
    return MixtureConfig(sources={name: ShareConfig(**share) for name, share in sources.items()})


def test_without_a_word_every_source_is_taken_once():
    assert passes_of(MixtureConfig(), AVAILABLE) == {"code": 1.0, "papers": 1.0, "wiki": 1.0}


def test_passes_and_token_budgets_are_taken_as_given():
    config = mixture(code={"epochs": 2.5}, papers={"tokens": 2_000}, wiki={"epochs": 0})
    assert passes_of(config, AVAILABLE) == {"code": 2.5, "papers": 0.25, "wiki": 0.0}


def test_weights_without_a_total_repeat_nothing():
    weights = mixture(code={"weight": 1}, papers={"weight": 8}, wiki={"weight": 1})
    passes = passes_of(weights, AVAILABLE)
    tokens = {name: passes[name] * AVAILABLE[name] for name in AVAILABLE}
    assert max(passes.values()) == 1.0
    assert tokens == {"code": 1_000.0, "papers": 8_000.0, "wiki": 1_000.0}


def test_weights_with_a_total_repeat_what_is_short():
    weights = mixture(code={"weight": 1}, papers={"weight": 1}, wiki={"weight": 0})
    config = weights.model_copy(update={"tokens": 8_000})
    assert passes_of(config, AVAILABLE) == {"code": 4.0, "papers": 0.5, "wiki": 0.0}


@pytest.mark.parametrize(
    ("settings", "complaint"),
    [
        (
            {"sources": {"a": {"weight": 0}, "b": {"weight": 0}}},
            "all weights are 0, so nothing would be left",
        ),
        (
            {"sources": {"a": {"weight": 1}, "b": {"epochs": 2}}},
            "sources.b: has no weight while another source",
        ),
        ({"sources": {"a": {"weight": 1, "tokens": 5}}}, "tokens and weight are both given; keep one"),
        ({"tokens": 5}, "is for weights, and no source has one"),
        ({"curriculum": (("a",), ("b", "a"))}, "'a' stands twice"),
        ({"sources": {"a": {"weight": -1}}}, "greater than or equal to 0"),
    ],
)
def test_a_mixture_that_makes_no_sense_is_refused(settings, complaint):
    with pytest.raises(ValueError, match=complaint):
        MixtureConfig.model_validate(settings)


@pytest.mark.parametrize(
    ("config", "complaint"),
    [
        (
            mixture(paper={"epochs": 2}),
            "sources: there is no source 'paper', did you mean papers[?] the corpus has",
        ),
        (mixture(papers={"weight": 1}), "sources: code is not named; name every source of the corpus"),
        (MixtureConfig(curriculum=(("wiki",), ("papers",))), "curriculum: code is not named"),
        (MixtureConfig(curriculum=(("x",),)), "curriculum: there is no source 'x'"),
    ],
)
def test_a_mixture_that_does_not_fit_the_sources_is_refused(config, complaint):
    with pytest.raises(ConfigError, match=rf"pretrain.data.mixture.{complaint}"):
        refuse_unknown_sources(config, AVAILABLE)


def test_a_source_that_lost_all_its_papers_cannot_be_asked_for():
    with pytest.raises(ConfigError, match=r"mixture.sources.code: no training document of this source"):
        passes_of(mixture(code={"tokens": 5}), {**AVAILABLE, "code": 0})
    assert passes_of(MixtureConfig(), {**AVAILABLE, "code": 0})["code"] == 1.0


@given(
    st.lists(st.integers(1, 500), min_size=1, max_size=40), st.floats(0, 4), st.randoms(use_true_random=False)
)
def test_the_tokens_taken_come_within_half_a_document(lengths, passes, random):
    lengths = np.array(lengths)
    order = list(range(len(lengths)))
    random.shuffle(order)
    copies = copies_of(lengths, passes, np.array(order))
    assert abs((copies * lengths).sum() - passes * lengths.sum()) <= lengths.max() / 2 + 1e-6
    assert copies.max() - copies.min() <= 1
    assert copies.min() >= int(passes)


def test_more_of_a_source_holds_what_less_of_it_held():
    lengths, order = np.full(10, 7), np.arange(10)[::-1]
    less, more = (copies_of(lengths, passes, order) for passes in (0.3, 0.6))
    assert (more >= less).all()
    assert less.sum() == 3


def test_a_curriculum_is_groups_in_order():
    assert curriculum_of(MixtureConfig(), ["b", "a", "b"]) == [["a", "b"]]
    config = MixtureConfig(curriculum=(("wiki", "code"), ("papers",)))
    assert curriculum_of(config, list(AVAILABLE)) == [["wiki", "code"], ["papers"]]


@pytest.mark.parametrize(
    ("sources", "named"),
    [
        ({"a": {"epochs": 1}, "b": {"tokens": 5}}, r"sources\.b\.tokens=5"),
        ({"a": {"weight": 0.5}, "b": {"weight": 1}}, r"sources\.a\.weight=0\.5"),
    ],
)
def test_shares_of_the_whole_do_not_fit_documents_that_are_added(sources, named):
    config = MixtureConfig.model_validate({"sources": sources})
    with pytest.raises(ConfigError, match=rf"mixture\.{named} is about the whole dataset.* give epochs"):
        refuse_shares_of_whole(config)
    refuse_shares_of_whole(MixtureConfig.model_validate({"sources": {"a": {"epochs": 0.5}}}))
