"""Scores: what they count, and that they hold for any text at all."""

import math
import re
from collections import Counter

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from baltoro.corpus.filters import (
    SCORE_SCHEMA,
    SCORES,
    Facts,
    evidence_of,
    keywords_of,
    language_of,
    measure,
    parts_of,
    score_document,
)
from baltoro.corpus.filters.parts import CITATION, CODE, FORMULA, MARKER, PROSE, REFERENCE, TABLE
from baltoro.corpus.filters.repetition import repetition_of
from baltoro.corpus.filters.word_sets import Lexicon, WordSet
from baltoro.corpus.words import words_of

ENGLISH = Facts(language="en", language_confidence=1.0)
PIECES = st.sampled_from(
    [
        "the ice ",
        "melt ",
        "Ünder ",
        "冰川",
        "ледник ",
        "3.5 ",
        "x=1 ",
        "\n",
        "\n\n",
        "## ",
        "# ",
        "- ",
        "|a|b|\n",
        "\t",
    ]
    + [
        "[START_REF]",
        "[END_REF]",
        "[START_FORMULA]",
        "[END_FORMULA]",
        "[START_TABLE]",
        "[END_TABLE]",
        "[TITLE]",
    ]
    + [
        "\\(",
        "\\)",
        "\\[",
        "\\]",
        "\\",
        "$",
        "$$",
        "```",
        "\n```\n",
        "\\begin{align}",
        "\\end{align}",
        "[1] Lind, K. 1999",
    ]
    + [
        "\ufffd",
        "\ue000",
        "\x00",
        "\x1f",
        "\u00ad",
        "\ud800",
        "\U000e0041",
        "\U00020000",
        "…",
        "...",
        ".",
        "#",
        "Ã©",
    ]
    + ["References\n", "(cid:7)", "https://a.b/c ", "lorem ipsum ", "privacy policy ", "def f(x):\n", "}\n"]
)
TEXTS = st.lists(PIECES | st.text(max_size=8), max_size=40).map("".join)


def kinds(text):
    words = words_of(text)
    parts = parts_of(text, words)
    return [
        (text[start:end], kind)
        for start, end, kind in zip(words.starts, words.ends, parts.kinds.tolist(), strict=True)
    ]


def of_kind(text, kind):
    return [word for word, found in kinds(text) if found == kind]


@given(TEXTS)
def test_any_text_has_every_score_within_its_range(text):
    words = words_of(text)
    parts = parts_of(text, words)
    language = language_of(text, words, parts)
    facts = Facts(language=language.code, language_confidence=language.confidence)
    measurement = measure(text, words, facts, parts=parts, keywords=keywords_of(("melt", "the ice")))
    evidence_of(measurement)
    assert list(measurement.scores) == list(SCORES) == SCORE_SCHEMA.names
    for name, value in measurement.scores.items():
        assert isinstance(value, float)
        assert math.isnan(value) or value == float(np.float32(value))
        if name.endswith("_fraction"):
            assert math.isnan(value) or 0 <= value <= 1, name
        else:
            assert math.isnan(value) or value >= 0, name


@given(TEXTS)
def test_the_same_text_has_the_same_scores(text):
    first, second = (score_document(text, words_of(text), ENGLISH) for _ in range(2))
    assert np.array_equal(list(first.values()), list(second.values()), equal_nan=True)


@pytest.mark.parametrize(
    ("text", "kind", "expected"),
    [
        (r"where [START_FORMULA]\alpha_{i}[END_FORMULA] holds", FORMULA, ["alpha", "i"]),
        ("as [START_REF]Ice flow[END_REF] says", CITATION, ["Ice", "flow"]),
        ("as [START_REF]Ice flow[END_REF] says", MARKER, ["START", "REF", "END", "REF"]),
        ("[TITLE]\nMelt\n\n[CONTENT]\nMelt rises", MARKER, ["TITLE", "CONTENT"]),
        (r"where \(a_i\) and \[b\] hold", FORMULA, ["a", "i", "b"]),
        ("where $a_i$ and $$b c$$ hold", FORMULA, ["a", "i", "b", "c"]),
        ("it costs $5 or $6 today", FORMULA, []),
        ("it costs US$20–US$30 today", FORMULA, []),
        (r"\begin{align*}a&b\end{align*} holds", FORMULA, ["begin", "align", "a", "b", "end", "align"]),
        (r"so \mathbf{x}^{(t)} and E = 3.14 hold", FORMULA, ["mathbf", "x", "t", "E", "3", "14"]),
        ("∂u/∂t = 0 there", FORMULA, ["u", "t", "0"]),
        ("the X-ray of mRNA and 3 mice", FORMULA, []),
        ("слово = слово", FORMULA, []),
        ("Rates.\n\n|a|b|\n|-|-|\n|1|2|\n\nEnd", TABLE, ["a", "b", "1", "2"]),
        ("a\tb\n1\t2\n\nEnd", TABLE, ["a", "b", "1", "2"]),
        (
            r"\begin{tabular}{l}a b\end{tabular} c",
            TABLE,
            ["begin", "tabular", "l", "a", "b", "end", "tabular"],
        ),
        ("x\n\n```\nice = 3\n```\n\ny", CODE, ["ice", "3"]),
        ("an unclosed ``` fence", CODE, []),
        ("an unclosed [START_FORMULA] here", FORMULA, []),
    ],
)
def test_words_are_told_apart_by_what_they_belong_to(text, kind, expected):
    assert of_kind(text, kind) == expected


@pytest.mark.parametrize(
    "entry",
    [
        "[{n}] Haller, B., Ostrow, M. Dye below ice. J. Ice, 2001.",
        "{n}. Haller B, Ostrow M (2001) Dye below ice. J Ice 3:1-9",
        "* Haller et al. (2001) B. Haller and M. Ostrow. Dye below ice. 2001.",
        "Haller, B. 2001a. Dye below ice. Journal of Ice {n}, 1-9.",
        "B. Haller, M. Ostrow. Dye below ice, 2001.",
    ],
)
def test_entries_of_a_reference_list_are_no_prose(entry):
    listed = "\n".join(entry.format(n=n) for n in range(1, 9))
    text = f"The tongue was 40 m thick in 2001.\n\n{listed}\n\nThe snout was 30 m thick in 2003."
    assert len(of_kind(text, REFERENCE)) == len(words_of(listed))
    assert len(of_kind(text, PROSE)) == len(words_of(text)) - len(words_of(listed))


def test_paragraphs_with_years_are_no_reference_list(prose):
    dated = prose.replace("the ice", "the ice of 1998")
    assert of_kind(dated, REFERENCE) == []


def test_a_heading_alone_makes_no_reference_list(prose):
    assert of_kind(f"## References\n\n{prose}", REFERENCE) == []


def test_the_repetition_of_n_grams_is_what_counting_them_one_by_one_gives():
    draw = np.random.default_rng(5)
    words_in_text = [f"w{number}" for number in draw.integers(0, 12, 400)] + ["x"] * 12
    text = " ".join(words_in_text)
    words = words_of(text)
    scores = repetition_of(words, parts_of(text, words)).scores
    total = sum(map(len, words_in_text))
    for n in (2, 3, 4):
        counts = Counter(tuple(words_in_text[i : i + n]) for i in range(len(words_in_text) - n + 1))
        heaviest = max(count * sum(map(len, ngram)) for ngram, count in counts.items() if count > 1)
        assert scores[f"top_{n}gram_fraction"] == pytest.approx(heaviest / total)
    for n in (5, 6, 7, 8, 9, 10):
        seen, covered = set(), set()
        for i in range(len(words_in_text) - n + 1):
            ngram = tuple(words_in_text[i : i + n])
            if ngram in seen:
                covered.update(range(i, i + n))
            seen.add(ngram)
        expected = sum(len(words_in_text[i]) for i in covered) / total
        assert scores[f"dup_{n}gram_fraction"] == pytest.approx(expected)


def test_in_chinese_an_n_gram_has_twice_as_many_characters():
    # 9 characters repeated: four and a half words; the 5-gram of the table, 10 characters, does not repeat.
    nine, ten = "冰川内部的融水储存", "冰川内部的融水储存在"
    between = ["山谷", "湖泊", "河流", "岩石"]

    def dup(phrase):
        text = "".join(f"{phrase}{other}" for other in between)
        words = words_of(text)
        return repetition_of(words, parts_of(text, words)).scores["dup_5gram_fraction"]

    assert dup(nine) == 0
    assert dup(ten) > 0.5


def test_line_and_paragraph_repeats_are_counted_after_the_first():
    text = "The ice moves slowly.\n\nThe melt runs off.\n\nthe ICE moves, slowly\n\nNothing else moves here."
    scores = score_document(text, words_of(text), ENGLISH)
    assert scores["dup_line_fraction"] == scores["dup_paragraph_fraction"] == 0.25
    assert scores["dup_line_character_fraction"] == pytest.approx(17 / (17 + 14 + 17 + 20))


@pytest.mark.parametrize(
    ("score", "text", "expected"),
    [
        ("characters", "Ice melts.", 10),
        ("words", "[START_REF]Ice[END_REF] melts 3", 3),
        ("prose_words", "[START_REF]Ice[END_REF] melts 3", 2),
        ("mean_word_characters", "Ice melts 1998", 4),
        ("mean_word_characters", "冰川内部的融水", math.nan),
        ("alphabetic_word_fraction", "Ice melts 1998 12", 0.5),
        ("symbols_per_word", "# Ice melts\n\n#ice … melts ... now", 0.6),
        ("bullet_line_fraction", "- Ice\n• melts\nnow\n–never", 0.5),
        ("ellipsis_line_fraction", "Ice…\nmelts...\nnow.\nhere", 0.5),
        ("stop_words", "the ice of the melt is on it", 5),
        ("stop_word_fraction", "the ice of the melt", 0.6),
        ("sentence_fraction", "Ice melts.\n\nNothing", 8 / 15),
        ("sentence_fraction", "Ice obeys\n\n[START_FORMULA]E=m[END_FORMULA]\n\nNothing", 8 / 15),
        ("citation_fraction", "Ice [START_REF]Ice[END_REF]", 0.5),
        ("lorem_ipsum_fraction", "lorem ipsum is filler", 0.5),
        ("web_notice_line_fraction", "Our privacy policy\n\nThe policy of ice.", 0.5),
        ("garble_glyph_fraction", "f\ufffdow o\ue000f ice is quick and it is slow", 2 / 11),
    ],
)
def test_a_score_counts_what_it_says(score, text, expected):
    assert score_document(text, words_of(text), ENGLISH)[score] == pytest.approx(expected, nan_ok=True)


def test_stop_words_are_not_scored_where_the_language_has_no_list():
    scores = score_document("the ice of the melt", words_of("the ice of the melt"), Facts(language="cy"))
    assert math.isnan(scores["stop_words"])
    assert math.isnan(scores["stop_word_fraction"])


def test_keywords_are_found_as_words_are_compared_and_only_in_prose():
    text = (
        "Melt-water rose. MELTWATER fell. Melt water [START_REF]melt water[END_REF] ran. 冰川. Remelt water"
    )
    words = words_of(text)
    keywords = keywords_of(("melt water", "冰川"))
    hits = score_document(text, words, ENGLISH, keywords=keywords)["keyword_hits_per_1000_words"]
    prose_words = np.count_nonzero(parts_of(text, words).prose)
    assert hits == pytest.approx(1000 * 3 / prose_words)
    assert keywords_of(()) is None
    assert math.isnan(score_document(text, words, ENGLISH)["keyword_hits_per_1000_words"])


def test_tables_formulas_and_code_change_no_score_of_the_prose(prose):
    addition = "\n\n|a|b|\n|-|-|\n" + "|1|1|\n" * 40 + "\n[START_FORMULA]a=b[END_FORMULA]\n\n```\nx = 1;\n```"
    before = score_document(prose, words_of(prose), ENGLISH)
    after = score_document(prose + addition, words_of(prose + addition), ENGLISH)
    changed = {name for name in SCORES if before[name] != after[name] and not math.isnan(after[name])}
    assert changed == {"characters", "words", "formula_fraction", "table_fraction", "code_fraction"}


@given(st.lists(st.integers(0, 2**64 - 1), max_size=50), st.lists(st.integers(0, 70_000), max_size=50))
def test_a_word_set_holds_its_members_and_nothing_else(large, small):
    members = np.array([value for value in large + small if value], np.uint64)
    asked = np.array([*large, *small, *range(0, 70_000, 999)], np.uint64)
    assert WordSet.of(members).contains(asked).tolist() == [
        int(value) in set(members.tolist()) for value in asked
    ]


@given(st.text(alphabet="a b\n\t.", max_size=40))
def test_lines_are_those_that_hold_something_without_the_space_around(text):
    lines = parts_of(text, words_of(text)).lines
    found = [text[start:end] for start, end in zip(lines.starts, lines.ends, strict=True)]
    assert found == [line.strip() for line in text.split("\n") if line.strip()]
    paragraphs = len([block for block in re.split(r"\n[ \t]*(?=\n|$)", text) if block.strip()])
    assert len(set(lines.paragraphs.tolist())) == paragraphs


def test_a_lexicon_numbers_the_words_of_its_lists_and_no_others():
    lists = [words_of(text).hashes for text in ("the of and", "", "ice the", "melt")]
    lexicon = Lexicon.of(lists)
    asked = ["the", "ice", "of", "a", "melt", "and", "snow", "the"]
    numbers = lexicon.numbers(words_of(" ".join(asked)).hashes)
    assert (numbers > 0).tolist() == [True, True, True, False, True, True, False, True]
    for member, expected in zip(lexicon.members, ("the of and the", "", "the ice the", "melt"), strict=True):
        found = [
            word
            for word, number in zip(
                ["the", "ice", "of", "a", "melt", "and", "snow", "the"], numbers, strict=True
            )
            if member[number]
        ]
        assert sorted(found) == sorted(expected.split())
    # Words of the last lists, and those alone, are told by their size: "the" is in the third, too.
    last = numbers >= lexicon.first_numbers[2]
    assert last.tolist() == [True, True, False, False, True, False, False, True]


@given(st.lists(st.integers(0, 2**64 - 1), min_size=1, max_size=300))
def test_a_lexicon_of_any_hashes_holds_them(values):
    hashes = np.array(values, np.uint64)
    numbers = Lexicon.of([hashes]).numbers(np.append(hashes, hashes + np.uint64(1)))
    known = set(values)
    expected = [value in known for value in [*values, *(hashes + np.uint64(1)).tolist()]]
    assert (numbers > 0).tolist() == expected


@pytest.mark.parametrize(
    ("text", "spaced"),
    [
        ("m e l t w a t e r", 9),
        ("m e l t [START_REF]x[END_REF] w a t e r", 0),
        ("m e l t, w a t e", 0),
        ("a b c d e ice f g h i j k", 6),
        ("i c e i s", 0),
    ],
)
def test_letters_are_spaced_where_six_follow_each_other(text, spaced):
    words = words_of(text)
    scores = score_document(text, words, ENGLISH)
    prose_words = np.count_nonzero(parts_of(text, words).prose)
    assert scores["garble_spaced_fraction"] == pytest.approx(spaced / prose_words)
