"""Plain text: wrapped books, verse, one paragraph a line, chapter heads."""

from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from baltoro.papers.readers.plain_text import parse_plain_text
from baltoro.papers.schema import Paper, ReadReject

WRAPPED = (
    "The tide was low when they reached the ridge, and nobody had thought of\n"
    "bringing a lamp. It was the second evening without wind, and the water lay\n"
    "so still that every star above the harbour could be counted twice, once in\n"
    "the sky and once below.\n"
)


def words(paper: Paper) -> list[str]:
    parts = [paper.title]
    for section in paper.sections:
        parts += [section.heading, *[block.printed() for block in section.blocks]]
    return " ".join(parts).split()


def paragraphs(text: str) -> list[str]:
    return [block.printed() for block in parse_plain_text(text).blocks()]


def test_wrapped_lines_are_joined_and_empty_lines_separate():
    assert paragraphs(WRAPPED + "\n" + WRAPPED) == [" ".join(WRAPPED.split())] * 2


def test_verse_between_wrapped_paragraphs_keeps_its_lines():
    verse = "Bright is the sea,\nAnd brighter the shore,\nThe tide comes free\nAnd the boats come no more.\n"
    assert paragraphs(f"{WRAPPED}\n{verse}\n{WRAPPED}")[1:-1] == verse.strip().split("\n")


def test_one_paragraph_a_line_stays_one_paragraph_a_line():
    lines = ["A ridge is long. " * 20 + "It ends.", "A second one is short.", "Third. " * 30]
    assert paragraphs("\n".join(lines)) == [line.strip() for line in lines]


def test_line_that_goes_on_in_lower_case_is_joined():
    assert paragraphs("The melt of the ridge\nrises to the sea.\nThen it stops.") == [
        "The melt of the ridge rises to the sea.",
        "Then it stops.",
    ]


def test_italics_marks_are_kept():
    assert paragraphs("She _was_ there.") == ["She _was_ there."]


def test_compound_broken_at_its_hyphen_keeps_it_and_suspended_hyphens_keep_their_space():
    assert paragraphs("They saw a rose-\nbush there, in pre-\nand post-war days.") == [
        "They saw a rose-bush there, in pre- and post-war days."
    ]


@pytest.mark.parametrize(
    ("head", "level", "heading"),
    [
        ("CHAPTER 1", 1, "CHAPTER 1"),
        ("Chapter IV. The Storm", 1, "Chapter IV. The Storm"),
        ("CHAPTER II.\nThe Harbour", 1, "CHAPTER II. The Harbour"),
        ("VOLUME II", 1, "VOLUME II"),
        ("Preface", 1, "Preface"),
        ("== History ==", 1, "History"),
        ("=== Early days ===", 2, "Early days"),
    ],
)
def test_chapter_heads_open_sections(head, level, heading):
    section = parse_plain_text(f"{WRAPPED}\n\n{head}\n\n\n{WRAPPED}").sections[-1]
    assert (section.level, section.heading, len(section.blocks)) == (level, heading, 1)


def test_chapters_stand_below_volumes():
    paper = parse_plain_text(f"VOLUME I\n\nCHAPTER 1\n\n{WRAPPED}\nVOLUME II\n\nCHAPTER 1\n\n{WRAPPED}")
    assert [(s.level, s.heading) for s in paper.sections] == [
        (1, "VOLUME I"),
        (2, "CHAPTER 1"),
        (1, "VOLUME II"),
        (2, "CHAPTER 1"),
    ]


@pytest.mark.parametrize(
    "line", ["chapter and verse were quoted", "Part of the crew left.", "Book early, they said.", "THE END"]
)
def test_sentences_that_only_start_like_a_head_are_paragraphs(line):
    paper = parse_plain_text(f"{WRAPPED}\n{line}\n\n{WRAPPED}")
    assert [s.heading for s in paper.sections] == [""]
    assert line in [b.printed() for b in paper.blocks()]


@pytest.mark.parametrize(
    ("first", "title"),
    [
        ("THE LOW TIDE", "THE LOW TIDE"),
        ("Mid-ocean ridge", "Mid-ocean ridge"),
        ("It was late.", ""),
        ("lower case line", ""),
        ("CHAPTER 1", ""),
        ("A" + " long" * 40, ""),
    ],
)
def test_first_line_is_the_title_only_if_it_looks_like_one(first, title):
    paper = parse_plain_text(f"{first}\n\n{WRAPPED}")
    assert paper.title == title
    assert words(paper) == [*first.split(), *WRAPPED.split()]


def test_windows_line_ends_and_a_byte_order_mark_change_nothing():
    assert parse_plain_text("\ufeff" + WRAPPED.replace("\n", "\r\n")) == parse_plain_text(WRAPPED)


@pytest.mark.parametrize(
    ("text", "reason"), [("", "empty_file"), ("\n \t\n", "empty_file"), ("1 2 3\n--\n", "no_text")]
)
def test_nothing_to_read_is_rejected(text, reason):
    with pytest.raises(ReadReject) as caught:
        parse_plain_text(text)
    assert caught.value.reason == reason


@given(st.text(st.sampled_from("abcZ .-=\n\r\t_*1#é\u2028\x0c—,"), min_size=1, max_size=400))
@settings(max_examples=300, deadline=None)
def test_no_word_is_ever_lost_or_moved(text):
    try:
        paper = parse_plain_text(text)
    except ReadReject:
        return
    kept = "".join(words(paper)).replace("=", "").replace("-", "").replace("*", "")
    assert kept == "".join(text.split()).replace("=", "").replace("-", "").replace("*", "")


@settings(deadline=None)
@given(
    st.lists(
        st.lists(st.from_regex(r"[a-z]{1,9}", fullmatch=True), min_size=1, max_size=60),
        min_size=1,
        max_size=6,
    )
)
def test_wrapped_paragraphs_come_back_whole(paragraph_words):
    import textwrap

    text = "\n\n".join(
        textwrap.fill("Then " + " ".join(w) + ".", 70, break_long_words=False) for w in paragraph_words
    )
    assert paragraphs(text) == ["Then " + " ".join(w) + "." for w in paragraph_words]


def test_real_book_keeps_every_word_in_order(sample_data: Path):
    text = (sample_data / "replay" / "jane_austen_northangerabbey.txt").read_text(encoding="utf-8")
    paper = parse_plain_text(text)
    assert paper.title == "NORTHANGER ABBEY"
    assert words(paper) == text.split()
    assert [s.heading for s in paper.sections[1:4]] == ["CHAPTER 1", "CHAPTER 2", "CHAPTER 3"]
    assert sum(s.heading.startswith("CHAPTER") for s in paper.sections) == 31
    # Joined paragraphs, not lines: hardly any starts in the middle of a sentence.
    starts = [block.printed()[0] for block in paper.blocks()]
    assert sum(start.islower() for start in starts) <= 0.01 * len(starts)
