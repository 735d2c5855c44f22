"""Recall is measured with copies that look as real copies do, and never reach the corpus."""

import random

import pytest

from baltoro.core.errors import ArtifactError
from baltoro.corpus.decontamination.canaries import (
    LENGTH_CLASSES,
    CanaryCounts,
    MissedCanary,
    canaries_of_chunk,
    choose_canaries,
    disguise,
    judge_recall,
    plant,
    try_canaries,
)
from baltoro.corpus.decontamination.config import CanaryConfig
from baltoro.corpus.decontamination.matcher import ItemIndex


def measured(items, texts, seeds):
    index = ItemIndex.build(items)
    counts = CanaryCounts()
    for seed in range(seeds):
        settings = CanaryConfig(seed=seed, number=1000)
        counts += try_canaries(index, choose_canaries(index, settings), texts, settings)
    return counts


def test_chinese_items_meet_the_recall_of_english_ones(english, chinese, carriers):
    for items in (english, chinese):
        counts = measured(items, carriers, seeds=25)
        assert sum(counts.planted.values()) == 25 * len(items)
        assert counts.recall() >= 0.98, counts.missed
        assert counts.recall("words_4_to_7") in (None, 1.0)


def test_a_matcher_that_finds_nothing_is_seen_to_miss_everything(english, carriers, monkeypatch):
    monkeypatch.setattr(ItemIndex, "find", lambda *_: [])
    counts = measured(english, carriers, seeds=1)
    assert counts.recall() == 0
    assert len(counts.missed) == len(english)
    assert {missed.item_id for missed in counts.missed} == {item.item_id for item in english}
    assert all(missed.planted for missed in counts.missed)


def test_the_same_seed_measures_the_same_and_another_another(english, carriers):
    index = ItemIndex.build(english)
    one, again, other = (CanaryConfig(seed=seed) for seed in (1, 1, 2))
    assert choose_canaries(index, one) == choose_canaries(index, again)
    assert choose_canaries(index, one) != choose_canaries(index, other)
    text = english[0].text
    assert len({disguise(english[0], random.Random(seed)) for seed in range(30)}) > 20
    assert disguise(english[0], random.Random(3)) == disguise(english[0], random.Random(3))
    assert text == english[0].text


def test_the_choice_depends_on_the_items_and_not_on_their_order(english, chinese):
    config = CanaryConfig(number=9)
    chosen = []
    for items in (english + chinese, (english + chinese)[::-1]):
        index = ItemIndex.build(items)
        chosen.append([index.items[number] for number in choose_canaries(index, config)])
    assert chosen[0] == chosen[1]
    assert len(chosen[0]) == 9


def test_every_length_class_is_planted_and_too_short_items_never_are(english):
    from baltoro.corpus.decontamination.items import EvaluationItem

    index = ItemIndex.build([*english, EvaluationItem("exam", "x", "esker", "question")])
    chosen = choose_canaries(index, CanaryConfig(number=4))
    lengths = sorted(index.word_count(number) for number in chosen)
    assert lengths[0] < 8 <= lengths[1] < 13 <= lengths[2] < 32 <= lengths[3]
    assert len(index.items) - 1 not in choose_canaries(index, CanaryConfig(number=1000))


def test_the_shares_of_chunks_make_the_whole_and_their_counts_add_up(english, carriers):
    index = ItemIndex.build(english)
    config = CanaryConfig()
    chosen = choose_canaries(index, config)
    shares = [canaries_of_chunk(chosen, chunk, 3) for chunk in range(3)]
    assert sorted(number for share in shares for number in share) == sorted(chosen)
    parts = [try_canaries(index, share, carriers, config) for share in shares]
    whole = try_canaries(index, chosen, carriers, config)
    assert parts[0] + parts[1] + parts[2] == parts[2] + parts[0] + parts[1]
    assert parts[0] + parts[1] + parts[2] == whole


def test_without_documents_nothing_is_planted_and_nothing_claimed(english):
    index = ItemIndex.build(english)
    counts = try_canaries(index, choose_canaries(index, CanaryConfig()), [], CanaryConfig())
    assert counts == CanaryCounts()
    assert counts.recall() is None
    assert judge_recall(counts, CanaryConfig(on_low_recall="fail")) is None


def test_a_copy_is_planted_between_words_and_its_document_keeps_every_word(carriers):
    for seed in range(50):
        for document in carriers:
            text, start = plant("PLANTED COPY", document, random.Random(seed))
            assert text[start : start + 12] == "PLANTED COPY"
            assert start == 0 or text[start - 1].isspace()
            left = text[:start] + text[start + 12 :]
            assert "".join(left.split()) == "".join(document.split())


def test_disguises_change_marks_order_and_lines_but_keep_the_words(english):
    item = english[0]
    copies = [disguise(item, random.Random(seed), options_always=True) for seed in range(60)]
    assert any("?" not in copy for copy in copies)
    assert any(copy.isupper() for copy in (c.split("\n\n")[0] for c in copies))
    assert any("-\n" in copy for copy in copies)
    orders = {tuple(sorted(item.options, key=lambda o: c.replace("-\n", "").find(o))) for c in copies}
    assert len(orders) > 5


def low_recall(on_low_recall):
    name = LENGTH_CLASSES[1][0]
    missed = MissedCanary("exam", "exam.json#4", name, "Which ice moves")
    short = MissedCanary("exam", "exam.json#1", LENGTH_CLASSES[0][0], "Ice is")
    counts = CanaryCounts({name: 10, LENGTH_CLASSES[0][0]: 1}, {name: 9}, (short, missed))
    return judge_recall(counts, CanaryConfig(on_low_recall=on_low_recall))


def test_low_recall_warns_or_fails_as_the_recipe_says():
    warning = low_recall("warn")
    assert "found 0.900 of the planted evaluation items of 8 or more words" in warning
    assert "min_recall_fraction demands 0.98" in warning
    assert "exam.json#4 of 'exam', planted as 'Which ice moves'" in warning
    with pytest.raises(ArtifactError, match=r"found 0\.900 of the planted"):
        low_recall("fail")


def test_misses_among_shorter_items_alone_are_no_breach():
    name = LENGTH_CLASSES[0][0]
    assert judge_recall(CanaryCounts({name: 10}, {name: 1}), CanaryConfig(on_low_recall="fail")) is None
