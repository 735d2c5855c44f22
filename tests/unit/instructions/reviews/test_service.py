"""A model in service is asked as it was taught, and nothing of its answer gets lost."""

import json

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from baltoro.core.errors import InputError, StorageError
from baltoro.instructions.example import Example
from baltoro.instructions.formats_config import FormatConfig
from baltoro.instructions.reviews.aspects import ASPECTS, merged_review, to_brackets
from baltoro.instructions.reviews.config import ReviewsConfig
from baltoro.instructions.reviews.service import (
    SERVICE_FILE,
    ReviewService,
    answer_frame,
    least_cutoff_tokens,
    printable,
    read_answer,
    read_service_file,
    service_of,
    service_prompt,
    token_counter,
    write_service_file,
)
from baltoro.instructions.reviews.triples import INSTRUCTION, review_example
from baltoro.instructions.tokens import encode_example, prompt_ids
from baltoro.papers.schema import Block, Inline, Paper, Section

REVIEWS = ReviewsConfig(papers="p", cutoff_tokens=2048, response_room_tokens=512, template_room_tokens=64)
MERGED = merged_review({ASPECTS[0]: {"New": "It is new."}, ASPECTS[3]: {"More": "Add data."}})
TEXT = st.text(alphabet=st.sampled_from("ab <>[]\n\r\\ \t():*-#é"), max_size=12) | st.text(max_size=20)


def _paper(sentences=90):
    text = " ".join(f"Sentence {number} tells how the melt rises." for number in range(sentences))
    blocks = [Block("paragraph", [Inline("text", text)])]
    return Paper(
        paper_id="s/p",
        uri="p.xml",
        title="On melt",
        abstract=[Block("paragraph", [Inline("text", "Melt rises. <s> It cools.")])],
        sections=[Section(1, "Methods", None, blocks)],
    )


def _service(**changes):
    service = service_of(REVIEWS, FormatConfig(), {"ligatures": False}, sequence_length=4096)
    return service.model_copy(update=changes)


# --- the file ----------------------------------------------------------------------------------------


def test_the_file_says_all_that_decides_a_prompt(tmp_path):
    service = _service(instruction="Review it.", format=FormatConfig(format="vicuna", bos=False))
    write_service_file(tmp_path, service)
    assert read_service_file(tmp_path) == service
    written = (tmp_path / SERVICE_FILE).read_bytes()
    assert json.loads(written)["cutoff_tokens"] == 2048
    write_service_file(tmp_path, service)
    assert (tmp_path / SERVICE_FILE).read_bytes() == written


def test_a_folder_without_the_file_says_nothing(tmp_path):
    write_service_file(tmp_path, None)
    assert list(tmp_path.iterdir()) == []
    assert read_service_file(tmp_path) is None


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        ({"schema_version": 2}, "schema_version: Input should be 1"),
        ({"cutoff_tokens": "many"}, "cutoff_tokens: Input should be a valid integer"),
        ({"cutoff_tokens": 600}, "cutoff_tokens 600 is too few .*; at least 832"),
        ({"format": {"format": "chatml"}}, "format.format: Input should be 'alpaca'"),
        ({"colour": "red"}, "colour: Extra inputs are not permitted"),
    ],
)
def test_an_altered_file_is_refused_with_what_is_wrong(tmp_path, change, complaint):
    record = {**_service().model_dump(mode="json"), **change}
    (tmp_path / SERVICE_FILE).write_text(json.dumps(record))
    with pytest.raises(InputError, match=complaint) as error:
        read_service_file(tmp_path)
    assert "export the model again, or remove the file" in error.value.message


def test_a_damaged_file_is_refused_and_an_unwritable_folder_told(tmp_path):
    (tmp_path / SERVICE_FILE).write_bytes(b'{"cutoff_tokens": 20\xff')
    with pytest.raises(InputError, match=f"{SERVICE_FILE}: is not as this version"):
        read_service_file(tmp_path)
    with pytest.raises(StorageError, match="cannot be written"):
        write_service_file(tmp_path / "none", _service())


def test_papers_are_cut_to_what_rows_could_hold():
    def cutoff(sequence_length):
        return service_of(REVIEWS, FormatConfig(), {}, sequence_length=sequence_length).cutoff_tokens

    least = least_cutoff_tokens(512, 64)
    assert [cutoff(length) for length in (8192, 2048, 1500, least)] == [2048, 2048, 1500, least]
    assert cutoff(least - 1) == 2048


# --- asking ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("sentences", [3, 90])
@pytest.mark.parametrize(
    ("tokenizer", "config"),
    [
        ("byte", FormatConfig()),
        ("byte", FormatConfig(format="alpaca_legacy", learn="everything")),
        ("byte", FormatConfig(format="react")),
        ("byte", FormatConfig(format="vicuna", bos=False, system="Be fair.")),
        ("spaced", FormatConfig()),
        ("spaced", FormatConfig(format="llama2")),
        ("chatml", FormatConfig(format="chat")),
    ],
    ids=lambda value: value if isinstance(value, str) else value.format,
)
def test_the_ids_shown_are_those_that_the_training_example_begins_with(request, tokenizer, config, sentences):
    tokenizer = request.getfixturevalue(tokenizer)
    count = token_counter(tokenizer)
    trained, _, _ = review_example(_paper(sentences), MERGED, count, REVIEWS)
    taught = encode_example(trained, config, tokenizer)
    prompt = service_prompt(_paper(sentences), _service(format=config), count)
    shown = prompt_ids(prompt.example("s/p"), config, tokenizer)
    assert (prompt.shown.cut == "content") == (sentences == 90)
    np.testing.assert_array_equal(shown, taught.input_ids[: len(shown)])
    if config.learn == "responses":
        assert not taught.loss_mask[: len(shown)].any()
        assert taught.loss_mask[len(shown)]


def test_what_was_cut_is_counted_in_tokens_of_the_paper(byte):
    count = token_counter(byte)
    whole = service_prompt(_paper(3), _service(), count)
    assert whole.paper_tokens == whole.shown.input_tokens == count(whole.shown.input)
    cut = service_prompt(_paper(90), _service(), count)
    assert cut.paper_tokens > 3000
    assert cut.shown.input_tokens <= 2048 - 512 - 64 - count(INSTRUCTION)
    assert service_prompt(Paper(paper_id="p", uri="p", title="A title alone"), _service(), count) is None


def test_a_model_is_asked_in_the_words_it_was_taught_within_the_same_length(byte):
    count = token_counter(byte)
    long = "Review the paper under four headings. " * 20
    prompt = service_prompt(_paper(90), _service(instruction=long), count)
    assert prompt.shown.instruction == long
    used = count(long) + prompt.shown.input_tokens
    assert 2048 - 512 - 64 - 60 < used <= 2048 - 512 - 64


def test_a_response_ends_where_the_format_ended_it(byte, chatml):
    eos, over = 2, chatml.convert_tokens_to_ids("<|over|>")
    assert answer_frame(FormatConfig(), byte) == answer_frame(FormatConfig(eos=False), byte)
    assert answer_frame(FormatConfig(), byte).stop_ids == (eos,)
    for learn in ("responses", "everything"):
        assert answer_frame(FormatConfig(format="chat", learn=learn), chatml).stop_ids == (eos, over)
    assert answer_frame(FormatConfig(format="react"), byte).lead == "Final Answer: "
    assert answer_frame(FormatConfig(), byte).lead == ""


# --- the answer --------------------------------------------------------------------------------------


@settings(max_examples=60)
@given(
    st.fixed_dictionaries({aspect: st.dictionaries(TEXT, TEXT, max_size=3) for aspect in ASPECTS}).map(
        merged_review
    )
)
@example(merged_review({ASPECTS[0]: {"": "", "a": f"\n{ASPECTS[1]}:\n- <b> c"}}))
def test_what_was_taught_is_read_without_loss(review):
    text = to_brackets(review)
    assert read_answer(text) == (review, "" if review.count() else text)


def test_headings_and_points_of_other_hands_are_read():
    answer = (
        "## Significance and Novelty\n- <New task> Nobody did it.\n\n"
        "**2. Potential reasons for acceptance:**\n1. <Sound> The proofs hold.\n"
        "[Potential reasons for rejection]:\n* <Small> Two samples.\n"
        "Suggestions for improvement\n<More> Add samples.\n"
    )
    review, unparsed = read_answer(answer)
    assert unparsed == ""
    assert list(review.as_dict().values()) == [
        {"New task": "Nobody did it."},
        {"Sound": "The proofs hold."},
        {"Small": "Two samples."},
        {"More": "Add samples."},
    ]


def test_json_is_read_too():
    assert read_answer(MERGED.to_json()) == (MERGED, "")
    assert read_answer(f"```json\n{MERGED.to_json()}\n```") == (MERGED, "")
    broken = MERGED.to_json()[:-3]
    assert read_answer(broken) == (merged_review({}), broken)


def test_what_does_not_parse_comes_back_as_it_came():
    answer = f"As a referee I say:\n  <lost> point\n[{ASPECTS[1]}]\n  Mostly good.\n<Sound> Holds.\nIt does."
    review, unparsed = read_answer(answer)
    assert review.of(ASPECTS[1]) == {"Sound": "Holds.\nIt does."}
    assert unparsed == "As a referee I say:\n  <lost> point\n  Mostly good."
    for hopeless in (
        "",
        "It is good.",
        f"[{ASPECTS[0]}]\nIt is good.",
        "\n\n".join(f"[{a}]" for a in ASPECTS),
    ):
        assert read_answer(hopeless) == (merged_review({}), hopeless)


_LINES = st.sampled_from(
    [
        f"[{ASPECTS[0]}]",
        f"**{ASPECTS[1]}**",
        f"[{ASPECTS[3]}]",
        "<g> d",
        "- <h> e",
        "<open",
        "  more",
        "x",
        "",
        "<g>",
    ]
)


@settings(max_examples=80)
@given(st.lists(_LINES, max_size=9))
def test_every_word_of_an_answer_is_in_the_review_or_unparsed(lines):
    answer = "\n".join(lines)
    review, unparsed = read_answer(answer)
    kept = " ".join(f"{gist} {detail}" for points in review.points for gist, detail in points.items())
    for word in ("d", "e", "open", "more", "x"):
        wanted = [part for line in lines for part in line.replace("<", " ").replace(">", " ").split()]
        found = f"{kept} {unparsed}".replace("<", " ").replace(">", " ").split()
        assert found.count(word) == wanted.count(word)


def test_no_terminal_takes_an_answer_for_a_command():
    assert printable("a\x1b[31mb\r\nc\rd\te\x00\ud800é") == "a\ufffd[31mb\nc\nd\te\ufffd\ufffdé"


def test_the_prompt_is_an_example_without_a_response(byte):
    asked = service_prompt(_paper(3), _service(), token_counter(byte)).example("s/p")
    assert isinstance(asked, Example)
    assert [turn.role for turn in asked.turns] == ["user", "input"]
    assert asked.turns[0].text == INSTRUCTION == ReviewService().instruction
