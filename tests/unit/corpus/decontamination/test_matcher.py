"""Items are found in every dress a copy may wear, and ordinary text is left alone."""

import os
import pickle
import subprocess
import sys

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from baltoro.corpus.decontamination.config import MatchConfig
from baltoro.corpus.decontamination.items import EvaluationItem
from baltoro.corpus.decontamination.matcher import ITEM_CLASSES, ItemIndex
from baltoro.corpus.words import words_of

STEM = "Which process carries sand grains along a desert floor in short hops?"
OPTIONS = ("creep", "saltation", "suspension in air")
BEFORE = "Dunes move with the wind. We measured them for a year. "
AFTER = " The results were compared with those of the earlier campaign in the north."


def question(text=STEM, options=OPTIONS, kind="question"):
    return EvaluationItem("exam", "exam.json#1", text, kind, tuple(options))


def find(items, text, config=None):
    return ItemIndex.build(items, config).find(words_of(text), text)


def class_of(item):
    return ITEM_CLASSES[ItemIndex.build([item]).classes[0]]


@pytest.mark.parametrize(
    "copy",
    [
        STEM,
        "WHICH PROCESS CARRIES SAND GRAINS ALONG A DESERT FLOOR IN SHORT HOPS",
        "Which process\ncarries sand grains\n\n   along a desert\nfloor in short hops",
        "Which process carries sand gra-\nins along a desert floor in short hops?",
        "which process “carries” sand-grains, along a desert floor—in short hops ...",
        "Whichprocess carries sand grains along a desert floor in shorthops?",
        "Q7. Which process carries sand grains along a desert floor, in short hops? (c) creep (a) saltation",
        "Which process carries the sand grains along a desert floor in short hops?",
        "Which proccss carries sand grains along a dessert floor in short hops?",
    ],
)
def test_a_stem_of_twelve_words_is_found_however_it_is_printed(copy):
    text = BEFORE + copy + AFTER
    (match,) = find([question()], text)
    assert match.covered_fraction > 0.9
    found = words_of(text[match.start : match.end])
    assert len(found) >= 10
    assert BEFORE.strip() not in text[match.start : match.end]
    assert "results" not in text[match.start : match.end]


def test_the_options_beside_a_stem_belong_to_the_match_in_any_order_under_any_label():
    copy = f"{STEM}\n(i) suspension in air\n(ii) creep\n(iii) saltation"
    text = BEFORE + copy + AFTER
    (match,) = find([question()], text)
    assert text[match.start : match.end] == copy
    assert match.options_found == 3


@pytest.mark.parametrize(
    "text",
    [
        "Which process carries sand grains up a river bed in long hops?",
        "Sand grains move along a desert floor. Which process carries them in short hops is unknown.",
        "The wind carries sand grains along a desert floor.",
        "In short hops, desert floor along grains sand carries process which.",
        "Which process carries dust plumes across a desert basin in short order?",
    ],
)
def test_text_that_only_resembles_a_stem_is_left_alone(text):
    assert find([question()], BEFORE + text + AFTER) == []


def test_another_statement_in_nearly_the_same_words_is_another_statement():
    item = question("Physical weathering does not change the chemical composition of rocks", ())
    assert find([item], "Chemical weathering does change the chemical composition of rocks, as shown.") == []
    assert (
        len(find([item], "Physical weathering does not change the chemical composition of the rocks.")) == 1
    )


@pytest.mark.parametrize(
    ("beside", "found"),
    [
        ("\nA. halite\nB. obsidian glass\nC. calcite", True),
        (" (calcite, halite or native gold)", True),
        ("", False),
        (" We asked this of halite only.", False),
        (" " + "word " * 80 + "halite calcite", False),
    ],
)
def test_a_short_or_empty_question_needs_its_options_nearby(beside, found):
    item = question(
        "Which of the following is not a mineral?", ("halite", "obsidian glass", "calcite", "native gold")
    )
    assert class_of(item) == "short"
    text = f"{BEFORE}Which of the following is not a mineral?{beside}{AFTER}"
    assert bool(find([item], text)) is found


def test_a_short_question_must_be_there_whole():
    item = question("Loess is deposited mainly by", ("rivers", "wind", "ice sheets", "waves"))
    assert len(find([item], "Loess is deposited mainly by: wind, rivers, waves")) == 1
    assert find([item], "Loess was deposited by wind, and mainly not by rivers or waves") == []


@pytest.mark.parametrize(
    ("item", "expected"),
    [
        (question("esker", ()), "too_short"),
        (question("esker", ("a ridge of sand",)), "too_short"),
        (question("Which of the following is true?", ()), "too_short"),
        (question("Which of the following is not an example of this", ()), "too_short"),
        (question("What is the hardest known mineral", ("2", "A", "both")), "too_short"),
        (question("Loess is deposited mainly by", ("rivers", "wind")), "short"),
        (question(STEM, ()), "question"),
        (question(" ".join([STEM] * 3), ()), "long"),
        (question("冰川", ()), "too_short"),
        (question("下列岩石中属于变质岩的是", ("大理岩", "玄武岩")), "short"),
        (question("芬兰海岸至今仍因末次冰期冰盖消融而抬升", ()), "question"),
    ],
)
def test_items_are_told_by_how_much_they_say(item, expected):
    assert class_of(item) == expected
    assert ItemIndex.build([item]).too_short == ((item,) if expected == "too_short" else ())


def test_what_is_too_short_to_be_told_apart_is_never_found():
    assert (
        find([question("esker", ()), question("Is it true?", ())], "An esker. Is it true? It is true.") == []
    )


def test_questions_that_share_an_opening_are_not_taken_for_each_other():
    stems = [
        f"Which of the following statements about the geology of the {place} basin is correct?"
        for place in ("Vienna", "Permian", "Williston", "Paris", "Tarim")
    ]
    items = [
        EvaluationItem(
            "exam", str(n), stem, "question", (f"it holds {stem[55:58]} oil", f"it is {n} km deep")
        )
        for n, stem in enumerate(stems)
    ]
    text = f"{BEFORE}{stems[2]} It holds oil.{AFTER}"
    assert [match.item.text for match in find(items, text)] == [stems[2]]


def test_windows_that_many_items_share_still_lead_to_an_item_that_has_no_others():
    items = [question()] * 60
    assert len(find(items, BEFORE + STEM + AFTER)) == 60


def test_a_filled_blank_is_no_difference():
    item = question(
        "The ______ is known as the father of modern glaciology in Swiss schools", ("Louis Agassiz",)
    )
    said = "The naturalist Louis Agassiz is known as the father of modern glaciology in Swiss schools"
    text = f"{BEFORE}{said}.{AFTER}"
    (match,) = find([item], text)
    assert text[match.start : match.end] == said
    assert (match.covered_fraction, match.options_found) == (1.0, 1)


LONG = (
    "A mountain stream leaves its narrow valley, spreads over the plain, slows down and drops its gravel "
    "first and its silt last; the cone that grows this way over thousands of floods, on which towns of dry "
    "regions stand because wells find water in it, is what geographers call an alluvial fan."
)


def test_half_of_a_long_item_in_one_place_is_enough_and_a_third_is_not():
    words = LONG.split()
    item = question(LONG, (), "answer")
    half, third = " ".join(words[: len(words) * 6 // 10]), " ".join(words[: len(words) // 3])
    (match,) = find([item], f"{BEFORE}{half}.{AFTER}")
    assert 0.5 <= match.covered_fraction < 0.7
    assert find([item], f"{BEFORE}{third}.{AFTER}") == []


def test_pieces_of_a_long_item_all_over_a_document_do_not_add_up():
    words = LONG.split()
    pieces = [" ".join(words[at : at + 12]) for at in range(0, len(words), 12)]
    filling = " ".join(f"filler{n}" for n in range(200))
    assert find([question(LONG, (), "answer")], f" {filling} ".join(reversed(pieces))) == []


def test_a_hundred_words_of_a_very_long_item_are_enough():
    text = " ".join(f"term{n} of{n} art{n}" for n in range(400))
    item = question(text, (), "passage")
    (match,) = find([item], BEFORE + " ".join(text.split()[300:420]) + AFTER)
    assert match.covered_fraction == pytest.approx(0.1, abs=0.01)


def test_a_list_that_repeats_itself_is_not_found_in_one_such_entry():
    names = "; ".join(["Ek et al. 2010"] * 8 + ["Holm et al. 2012"] * 4)
    item = question(f"Many have tried this before us with sand and gravel, among them {names}", (), "line")
    assert find([item], f"{BEFORE}So did Ek et al. 2010; Ek et al. 2010; Ek et al. 2010.{AFTER}") == []


def test_every_copy_in_a_document_is_found():
    text = f"{BEFORE}{STEM}{AFTER * 20}{STEM}{AFTER}"
    assert [text[m.start : m.end] for m in find([question()], text)] == [STEM.rstrip("?")] * 2


def test_chinese_stems_are_found_by_their_characters():
    item = question("下列哪一种作用使沙粒在荒漠地表跳跃前进？", ("蠕移作用", "跃移作用", "悬移作用"))
    copy = "下列哪一种作用\n使沙粒在荒漠\n地表跳跃前进\n①悬移作用 ②跃移作用"
    text = f"风沙运动的研究由来已久。{copy} 实验在风洞中进行。"
    (match,) = find([item], text)
    assert text[match.start : match.end] == copy
    assert find([item], "风沙运动的作用使沙粒在荒漠地表移动，跳跃前进的沙粒最多。") == []


def test_a_document_that_repeats_itself_thousands_of_times_is_searched_in_little_time():
    import time

    items = [question(), question(LONG, (), "answer"), question("sand grains along a desert floor " * 3, ())]
    text = "sand grains along a desert floor in " * 20_000
    words = words_of(text)
    index = ItemIndex.build(items)
    begun = time.process_time()
    index.find(words, text)
    assert time.process_time() - begun < 5


def test_an_index_of_nothing_and_a_document_of_nothing_find_nothing():
    assert find([], BEFORE) == []
    assert find([question()], "") == []
    assert find([question()], "one two three") == []


def test_an_index_survives_pickling_and_finds_the_same():
    index = ItemIndex.build([question(), question(LONG, ())])
    again = pickle.loads(pickle.dumps(index))
    text = BEFORE + STEM + AFTER + LONG
    assert again.find(words_of(text), text) == index.find(words_of(text), text) != []


def test_the_order_of_items_does_not_matter(english, chinese, carriers):
    items = english + chinese
    text = "\n\n".join([carriers[0], *(item.text for item in items), carriers[1]])
    assert find(items, text) == find(items[::-1], text)


SCRIPT = """
from baltoro.corpus.decontamination.matcher import ItemIndex
from baltoro.corpus.decontamination.items import EvaluationItem
from baltoro.corpus.words import words_of

stem = "Which process carries sand grains along a desert floor in short hops?"
text = "Dunes. Which process carries sand gra-\\nins along the desert floor in short hops? Creep."
items = [EvaluationItem("e", str(n), stem, "question", ("creep", "ice flow")) for n in range(3)]
found = repr(ItemIndex.build(items).find(words_of(text), text))
"""


def test_results_do_not_depend_on_process_or_hash_seed():
    here = {}
    exec(SCRIPT, here)
    there = subprocess.run(
        [sys.executable, "-c", f"{SCRIPT}print(found)"],
        env={**os.environ, "PYTHONHASHSEED": "1"},
        capture_output=True,
        text=True,
        check=True,
    )
    assert there.stdout.strip() == here["found"]
    assert here["found"].count("covered_fraction") == 3


WORDS = st.sampled_from(
    ["sand", "grains", "along", "a", "desert", "floor", "in", "short", "hops", "冰", "-\n", "x", ","]
)


@settings(max_examples=150)
@given(st.lists(WORDS, max_size=60).map(" ".join))
def test_matches_lie_inside_the_document_and_reach_what_is_demanded(text):
    config = MatchConfig()
    for match in find([question("sand grains along a desert floor in short hops", ("冰 x",))], text, config):
        assert 0 <= match.start < match.end <= len(text)
        assert config.stem_with_options_fraction <= match.covered_fraction <= 1


@settings(max_examples=60)
@given(st.data())
def test_an_item_copied_word_for_word_is_found_in_any_text(data):
    filler = st.lists(st.sampled_from(["ice", "sand", "the", "of", "river", "山", "12"]), max_size=40).map(
        " ".join
    )
    text = f"{data.draw(filler)}. {STEM} {data.draw(filler)}"
    assert any(match.covered_fraction == 1 for match in find([question()], text))
