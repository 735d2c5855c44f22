"""The measured bounds, on the real sample papers and the GeoBench sample."""

import random

import pytest

from baltoro.corpus.decontamination.canaries import (
    choose_canaries,
    disguise,
    plant,
    try_canaries,
)
from baltoro.corpus.decontamination.config import CanaryConfig, EvaluationSetConfig
from baltoro.corpus.decontamination.items import load_evaluation_set
from baltoro.corpus.decontamination.matcher import ItemIndex
from baltoro.corpus.words import ngram_hashes, words_of
from baltoro.papers import read
from baltoro.papers.renderers import render
from baltoro.papers.schema import Paper

FOLDERS = (
    "jats/climate",
    "jats/pmc",
    "jats/elife",
    "grobid_tei",
    "nougat/openreview",
    "s2orc_json",
    "replay",
)


@pytest.fixture(scope="module")
def texts(sample_data):
    papers = [paper for folder in FOLDERS for paper in read(str(sample_data / folder), source="s")]
    return {paper.uri: render(paper, "k2") for paper in papers if isinstance(paper, Paper)}


@pytest.fixture(scope="module")
def geobench(sample_data):
    names = ("geobench_npee.json", "geobench_apstudy.json")
    config = EvaluationSetConfig(name="geobench", uri="geobench")
    files = [(name, (sample_data / "geobench" / name).read_bytes()) for name in names]
    return ItemIndex.build(load_evaluation_set(config, files).items)


def test_no_clean_paper_is_taken_for_contaminated(texts, geobench):
    assert len(texts) > 50
    hits = [match for text in texts.values() for match in geobench.find(words_of(text), text)]
    assert hits == []


def test_planted_items_of_eight_or_more_words_are_found(texts, geobench):
    short = [text for text in texts.values() if len(text) < 60_000]
    config = CanaryConfig(number=200)
    counts = try_canaries(geobench, choose_canaries(geobench, config), short, config)
    assert sum(counts.planted.values()) == 200
    assert counts.recall() >= 0.98, counts.missed
    assert counts.recall("words_4_to_7") >= 0.9, counts.missed


def shares_thirteen_words(text, item):
    """The usual test, paragraph by paragraph: any run of 13 words in common."""
    known = set(ngram_hashes(words_of(item).hashes, 13).tolist())
    return any(
        known & set(ngram_hashes(words_of(paragraph).hashes, 13).tolist()) for paragraph in text.split("\n\n")
    )


def test_a_thirteen_gram_test_is_blind_to_the_short_items_found_here(texts, geobench):
    document = min((text for text in texts.values() if len(text) > 5_000), key=len)
    config = CanaryConfig(number=100_000)
    short = [n for n in choose_canaries(geobench, config) if geobench.word_count(n) < 13][:80]
    draw = random.Random(5)
    usual = 0
    for number in short:
        item = geobench.items[number]
        text, _ = plant(disguise(item, draw, options_always=True), document, draw)
        usual += shares_thirteen_words(text, item.text)
    assert usual == 0
    counts = try_canaries(geobench, short, [document], config)
    assert sum(counts.found.values()) >= 0.97 * len(short)
