"""Markers of missing pages and loops."""

from baltoro.corpus.cleaning import CleanConfig, clean_paper

LOOP = "The melt rises to the surface again. " * 20


def test_what_the_reader_removed_is_counted_and_not_done_again(make_paper, printed):
    paper = make_paper(LOOP, format="nougat")
    paper.extra = {"missing_pages": "2", "repetition_characters_cut": "4096"}
    assert clean_paper(paper, CleanConfig()) == {"missing_pages": 2, "repetitions": 4096}
    assert printed(paper) == [LOOP]
    assert clean_paper(paper, CleanConfig(decoder_failures=False)) == {}


def test_markers_are_removed_from_any_format_and_sentences_stay_apart(make_paper, printed):
    paper = make_paper(
        "It rises[MISSING_PAGE_FAIL:3]to the top.",
        "[MISSING_PAGE_EMPTY:23]",
        "[MISSING_PAGE_POST] End.",
        format="markdown",
    )
    assert clean_paper(paper, CleanConfig()) == {"missing_pages": 3, "empty_blocks": 1}
    assert printed(paper) == ["It rises to the top.", "  End."]


def test_loops_of_vision_models_are_cut_at_their_start(make_paper, printed):
    paper = make_paper(
        "Before. " + LOOP, *["One line again and again, for ever."] * 9, "After.", format="markdown"
    )
    counts = clean_paper(paper, CleanConfig())
    assert printed(paper)[1:] == ["One line again and again, for ever.", "After."]
    assert printed(paper)[0].count("rises") == 1
    assert counts["repetitions"] > 800


def test_repetition_in_formats_without_decoder_stays(make_paper, printed):
    paper = make_paper(LOOP, LOOP, LOOP, LOOP, format="jats")
    assert clean_paper(paper, CleanConfig()) == {}
