"""The final example: prompt, truncation, lengths."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from baltoro.instructions.example import Example
from baltoro.instructions.figures import lengths_picture
from baltoro.instructions.reviews.aspects import ASPECTS, from_brackets, merged_review
from baltoro.instructions.reviews.config import LongTailConfig, ReviewsConfig
from baltoro.instructions.reviews.long_tail import Lengths, bounds_of, histogram
from baltoro.instructions.reviews.triples import INSTRUCTION, review_example, review_prompt
from baltoro.papers.renderers import render
from baltoro.papers.schema import Block, Inline, Paper, Reject, Section

MERGED = merged_review({ASPECTS[0]: {"New": "It is new."}})


def count(text):
    return len(text.split())


def _paper(paragraphs=("First one here. Second one here.",), captions=(), abstract="Melt rises."):
    blocks = [Block("paragraph", [Inline("text", text)]) for text in paragraphs]
    blocks += [
        Block("figure", [Inline("text", text)], label=f"Figure {n}") for n, text in enumerate(captions)
    ]
    return Paper(
        paper_id="s/p",
        uri="p.xml",
        title="On melt",
        abstract=[Block("paragraph", [Inline("text", abstract)])] if abstract else [],
        sections=[Section(1, "Methods", None, blocks)] if blocks else [],
    )


def _config(room, **settings):
    """Settings whose papers get ``room`` words."""
    cutoff = room + count(INSTRUCTION) + 256
    return ReviewsConfig.model_construct(
        cutoff_tokens=cutoff, response_room_tokens=256, template_room_tokens=0, **settings
    )


def test_an_example_is_instruction_paper_and_bracketed_review():
    paper = _paper(captions=("A map.",))
    example, prompt, response_tokens = review_example(paper, MERGED, count, ReviewsConfig(papers="p"))
    assert isinstance(example, Example)
    assert (example.example_id, example.task, example.source, example.origin) == (
        "s/p#review",
        "review",
        "reviews",
        "s/p",
    )
    assert [turn.role for turn in example.turns] == ["user", "input", "assistant"]
    assert example.text("input") == render(paper, "review") == prompt.input
    assert from_brackets(example.text("assistant")) == MERGED
    assert response_tokens == count(example.text("assistant"))
    assert all(f"[{aspect}]" in example.text("user") for aspect in ASPECTS)


def test_content_is_cut_at_its_end_after_a_paragraph_and_captions_stay():
    paragraphs = [f"Paragraph {number} has exactly six words." for number in range(200)]
    paper = _paper(paragraphs, captions=("A map of melt.",))
    prompt = review_prompt(paper, _config(100), count)
    assert prompt.cut == "content"
    assert prompt.input_tokens == count(prompt.input) <= 100
    assert render(paper, "review").startswith(prompt.input)
    assert prompt.input.endswith("has exactly six words.")
    assert "A map of melt." in prompt.input
    assert prompt.input_tokens > 100 - 8


def test_a_long_paragraph_is_cut_after_a_sentence():
    text = " ".join(f"Sentence {number} says so." for number in range(100))
    prompt = review_prompt(_paper([text]), _config(60), count)
    assert prompt.input.endswith("says so.")
    assert 56 <= prompt.input_tokens <= 60


def test_tables_formulas_and_headings_are_never_left_half():
    paper = _paper(["Words " * 20])
    table = Block("table", cells=[["a", "b"]] * 40, label="Table 1")
    paper.sections[0].blocks.append(table)
    paper.sections.append(Section(1, "Results", None, [Block("paragraph", [Inline("text", "word " * 400)])]))
    whole = count(render(paper, "review"))
    for room in range(30, whole, 7):
        prompt = review_prompt(paper, _config(room), count)
        assert prompt.input_tokens <= room
        assert prompt.input.count("|a|b|") in (0, 40)
        assert not prompt.input.endswith("Results")


def _parts(prompt):
    """Return the words of captions and of content that a prompt shows."""
    head, _, content = prompt.input.partition("[CONTENT]\n")
    return count(head.partition("[CAPTIONS]\n")[2]), count(content)


def test_captions_give_way_to_content_until_it_has_half_of_the_room():
    captions = [f"Caption {number} tells of melt." for number in range(30)]
    long = [f"Paragraph {number} has exactly six words." for number in range(200)]
    prompt = review_prompt(_paper(long, captions=captions), _config(200), count)
    assert prompt.cut == "captions and content"
    shown_captions, shown_content = _parts(prompt)
    assert 200 // 2 - 8 <= shown_content <= 200 // 2 + 8
    assert shown_captions >= 200 - 2 * 8 - shown_content - count("[TITLE] On melt [ABSTRACT] Melt rises.")
    assert "Caption 0 tells" in prompt.input
    assert "Caption 29 tells" not in prompt.input
    # Content that needs less than its half leaves the rest to captions.
    prompt = review_prompt(_paper(long[:3], captions=captions), _config(120), count)
    assert prompt.cut == "captions"
    assert "Paragraph 2 has exactly six words." in prompt.input
    assert _parts(prompt)[0] > 120 - 40
    # Captions that leave content its half are whole, as they come before it.
    prompt = review_prompt(_paper(long, captions=captions[:3]), _config(200), count)
    assert (prompt.cut, _parts(prompt)[0]) == ("content", count("Caption 0 tells of melt. Figure 1:") * 3)


def test_a_short_room_shows_content_before_captions_and_the_abstract_is_cut_last():
    captions = [f"Caption {number} tells of melt." for number in range(30)]
    long = [f"Paragraph {number} has exactly six words." for number in range(200)]
    prompt = review_prompt(_paper(long, captions=captions), _config(26), count)
    assert "[CAPTIONS]" not in prompt.input
    assert "Paragraph 0 has exactly six words." in prompt.input
    assert not prompt.content_lost
    abstract = " ".join(f"Abstract sentence {number} is in this place here now." for number in range(30))
    prompt = review_prompt(_paper(long, captions=captions, abstract=abstract), _config(60), count)
    assert prompt.cut == "abstract, captions and content"
    assert prompt.input.startswith("[TITLE]\nOn melt\n\n[ABSTRACT]\nAbstract sentence 0")
    assert 60 // 2 - 8 <= _parts(prompt)[1] <= prompt.input_tokens // 2 + 8
    assert prompt.input_tokens <= 60
    # Without content the abstract has all of the room.
    prompt = review_prompt(_paper([], abstract=abstract), _config(60), count)
    assert (prompt.cut, prompt.input_tokens > 50) == ("abstract", True)


def test_a_prompt_says_that_nothing_of_the_content_is_left():
    # One sentence longer than the room is not shown in part.
    prompt = review_prompt(_paper(["word " * 400]), _config(30), count)
    assert (prompt.cut, prompt.content_lost) == ("content", True)
    assert not review_prompt(_paper([]), _config(30), count).content_lost


@settings(max_examples=40)
@given(st.lists(st.integers(1, 60), max_size=12), st.integers(0, 9), st.integers(20, 300))
def test_the_prompt_always_fits_and_its_parts_begin_like_the_papers(lengths, captions, room):
    paper = _paper(
        [" ".join(["Word."] * length) for length in lengths], captions=["A map of the ice."] * captions
    )
    prompt = review_prompt(paper, _config(room), count)
    whole = render(paper, "review")
    assert prompt.input_tokens == count(prompt.input) <= room
    head, mark, content = prompt.input.partition("\n\n[CONTENT]\n")
    assert whole.startswith(head)
    assert whole.partition("\n\n[CONTENT]\n")[2].startswith(content)
    assert (prompt.cut == "") == (prompt.input == whole)
    assert ("content" in prompt.cut) == (mark + content != "".join(whole.partition("\n\n[CONTENT]\n")[1:]))


def test_a_response_is_never_cut_but_rejected():
    long = merged_review({ASPECTS[0]: {"New": "word " * 400}})
    reject = review_example(_paper(["word " * 500]), long, count, _config(100))
    assert isinstance(reject, Reject)
    assert reject.reason == "response_too_long"
    assert "a response is never cut" in reject.detail
    # A short paper leaves its room to the response.
    example, _, tokens = review_example(_paper(), long, count, _config(300))
    assert tokens > 256
    assert example.text("assistant").count("word") == 400


def test_nothing_to_review_and_nothing_said_are_rejects():
    assert review_example(_paper([], abstract=""), MERGED, count, _config(99)).reason == "paper_without_text"
    assert review_example(_paper(), merged_review({}), count, _config(99)).reason == "empty_review"


def _lengths(*pairs):
    return [Lengths(inputs, responses, inputs + responses) for inputs, responses in pairs]


def test_the_long_tail_goes_by_bound_or_quantile_whichever_is_stricter():
    lengths = _lengths(*[(1000 * number, 10 * number) for number in range(1, 11)])
    config = LongTailConfig(
        min_input_tokens=1500, min_response_tokens=None, response_low_quantile=0.2, response_high_quantile=0.9
    )
    bounds = bounds_of(lengths, config)
    assert bounds == bounds_of(lengths[::-1], config)
    assert [bounds.reason(one) and bounds.reason(one)[0] for one in lengths] == [
        "long_tail_short_input", "long_tail_short_response", *[None] * 7, "long_tail_long_response"
    ]  # fmt: skip
    assert bounds_of([], config).min_input_tokens == 1500


def test_the_histogram_counts_every_example_and_is_drawn():
    found = histogram([0, 99, 100, 950, 950], 100)
    assert (dict(found.counts), found.examples, found.quantiles["0.5"]) == ({0: 2, 1: 1, 9: 2}, 5, 100)
    picture = lengths_picture(
        {"whole example": found, "empty": histogram([], 100)}, title="T", cutoffs_tokens=(500,)
    )
    assert picture.startswith(b"\x89PNG")
    assert picture != lengths_picture({"whole example": found}, title="T")
    assert lengths_picture({"empty": histogram([], 100)}, title="T").startswith(b"\x89PNG")


@pytest.mark.parametrize("cutoff", [11_264, 12_288])
def test_real_papers_keep_within_the_cutoff(sample_data, cutoff):
    from baltoro.papers import read

    def characters(text):
        return len(text) // 4 + 1

    config = ReviewsConfig(papers="p", cutoff_tokens=cutoff)
    for paper in read(str(sample_data / "nougat/openreview_cleaned")):
        _, prompt, response_tokens = review_example(paper, MERGED, characters, config)
        total = characters(prompt.instruction) + prompt.input_tokens + response_tokens + 96
        assert total <= cutoff - config.response_room_tokens + response_tokens
