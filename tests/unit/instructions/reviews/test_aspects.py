"""The four-aspect review: bracketed text and back without loss, and the schema of answers."""

import json

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from baltoro.instructions.reviews.aspects import (
    ASPECTS,
    AspectsError,
    from_brackets,
    from_json,
    merged_review,
    read_generated,
    to_brackets,
)

_TEXT = st.text(alphabet=st.sampled_from("ab <>[]\n\r\\ \t()é"), max_size=12) | st.text(max_size=20)
_REVIEW = st.fixed_dictionaries(
    {aspect: st.dictionaries(_TEXT, _TEXT, max_size=3) for aspect in ASPECTS}
).map(merged_review)


@settings(max_examples=100)
@given(_REVIEW)
@example(merged_review({ASPECTS[0]: {"a>": ">b", ">": "", "": " ", "x\n[y]": "\n\n<z> \n  two"}}))
@example(merged_review({ASPECTS[3]: {f"[{ASPECTS[0]}]": f"[{ASPECTS[1]}]\n[{ASPECTS[2]}]\n"}}))
def test_any_gist_and_detail_survive_brackets_and_json(review):
    assert from_brackets(to_brackets(review)) == review


def test_points_without_marks_are_written_as_they_are():
    review = merged_review({ASPECTS[0]: {"New task": r"It sets \(x > 0\) [1]."}})
    assert to_brackets(review).split("\n")[:3] == [
        "[Significance and novelty]",
        r"<New task> It sets \(x > 0\) [1].",
        "[Potential reasons for acceptance]",
    ]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            lambda text: text.replace("[Suggestions for improvement]\n", ""),
            r"\[Suggestions for improvement\]",
        ),
        (lambda text: text + "\nno mark", "line 6: 'no mark' is no heading"),
        (lambda text: text + "\n<never closed", "line 6: '<never closed'"),
        (lambda text: text + "\n<a> one\n<a> two", "line 7: '<a> two'"),
        (lambda text: "Sure:\n" + text, "line 1: 'Sure:'"),
    ],
)
def test_text_of_another_form_is_refused_with_its_line(change, message):
    text = to_brackets(merged_review({ASPECTS[3]: {"b": "c"}}))
    with pytest.raises(AspectsError, match=message):
        from_brackets(change(text))


def test_generated_text_is_read_as_far_as_it_goes():
    text = f"Here it is:\n[{ASPECTS[2]}]\n<few data> Only one set.\nIt is small.\n\n<no proof\n[{ASPECTS[0]}]"
    review = read_generated(text)
    assert review.of(ASPECTS[2]) == {"few data": "Only one set.\nIt is small.", "": "no proof"}
    assert review.of(ASPECTS[0]) == {}


def _good():
    return {aspect: {"gist": "detail"} for aspect in ASPECTS}


def test_an_aspect_may_say_that_nothing_is_known():
    value = {**_good(), ASPECTS[0]: "unknown", ASPECTS[1]: None, ASPECTS[2]: {"x": "N/A"}}
    assert from_json(value).as_dict() == {
        ASPECTS[0]: {},
        ASPECTS[1]: {},
        ASPECTS[2]: {},
        ASPECTS[3]: {"gist": "detail"},
    }
    assert json.loads(from_json(value).to_json()) == from_json(value).as_dict()


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ([], "must be a JSON object with the keys"),
        ({**_good(), "Score": {}}, "'score' is not one of"),
        ({ASPECTS[0]: {"a": "b"}}, "'Potential reasons for acceptance' is missing"),
        ({**_good(), ASPECTS[1]: ["a"]}, "must be an object of gist by detail, not a list"),
        ({**_good(), ASPECTS[1]: {"a": 3}}, "detail of 'a' .* must be text, not a number"),
        (dict.fromkeys(ASPECTS, "unknown"), "no point under any aspect"),
    ],
)
def test_an_answer_of_another_form_is_refused_with_what_is_wrong(value, message):
    with pytest.raises(AspectsError, match=message):
        from_json(value)
