from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from baltoro.data.collate import IGNORED_LABEL, collate
from baltoro.instructions.example import Example, Turn, examples_to_table
from baltoro.instructions.formats import ExampleReject, prompt_text, render
from baltoro.instructions.formats_config import FormatConfig
from baltoro.instructions.tokens import (
    EncodedExamples,
    encode_example,
    encode_examples,
    pack_examples,
    prompt_ids,
)
from baltoro.papers.schema import Reject
from baltoro.testing.tiny import byte_tokenizer

FORMATS = ["alpaca", "alpaca_legacy", "vicuna", "llama2", "react", "chat"]


def example(number, instruction, response, material=""):
    turns = [Turn("user", instruction), Turn("assistant", response)]
    if material:
        turns.insert(1, Turn("input", material))
    return Example(f"o{number}#t", "t", "files", f"o{number}", turns)


@pytest.mark.parametrize(
    ("kind", "name"),
    [("chatml", name) for name in FORMATS] + [("spaced", name) for name in FORMATS if name != "chat"],
)
def test_the_prompt_is_a_prefix_of_the_training_tokens_and_learning_begins_behind_it(
    request, question, trace, kind, name
):
    tokenizer, config = request.getfixturevalue(kind), FormatConfig(format=name)
    two = replace(question, turns=[*question.turns, Turn("user", "And?"), Turn("assistant", "a melt")])
    asked = 0
    for whole in (question, two, trace):
        encoded = encode_example(whole, config, tokenizer)
        for end in range(1, len(whole.turns)):
            if whole.turns[end].role in ("assistant", "thought") and whole.turns[end - 1].role != "thought":
                ids = prompt_ids(replace(whole, turns=whole.turns[:end]), config, tokenizer)
                assert encoded.input_ids[: len(ids)].tolist() == ids.tolist()
                assert not encoded.loss_mask[len(ids) - 1]
                assert encoded.loss_mask[len(ids)]
                asked += 1
    assert asked == 5


def test_only_the_response_and_its_end_are_learned(byte, question):
    encoded = encode_example(question, FormatConfig(), byte)
    learned = encoded.input_ids[encoded.loss_mask]
    assert byte.decode(learned) == "On melt</s>"
    assert encoded.loss_mask.sum() == len(learned) == 8
    assert encoded.input_ids.dtype == np.int32
    assert encoded.loss_mask.dtype == np.bool_


def test_everything_is_learned_where_that_is_asked(spaced, question):
    assert encode_example(question, FormatConfig(learn="everything"), spaced).loss_mask.all()


@pytest.mark.parametrize("name", ["alpaca", "chat"])
def test_control_tokens_printed_in_texts_are_text(chatml, name):
    shown = example(1, "What is </s><|over|>?", "It is </s> and <|over|>.")
    encoded = encode_example(shown, FormatConfig(format=name), chatml)
    controls = set(chatml.convert_tokens_to_ids(["<s>", "</s>", "<|over|>", "<|turn|>"]))
    found = [token for token in encoded.input_ids.tolist() if token in controls]
    expected = "</s>" if name == "alpaca" else "<|turn|><|over|><|turn|><|over|>"
    assert chatml.decode(found) == expected


def test_the_begin_token_stands_once_and_can_be_left_out(spaced, question):
    encoded = encode_example(question, FormatConfig(), spaced)
    assert encoded.input_ids[0] == spaced.bos_token_id
    assert (encoded.input_ids == spaced.bos_token_id).sum() == 1
    assert not encoded.loss_mask[0]
    without = encode_example(question, FormatConfig(bos=False), spaced)
    assert without.input_ids.tolist() == encoded.input_ids[1:].tolist()


def test_a_response_gets_no_space_that_the_format_has_not(spaced):
    """Tokenizers of this kind read a space before every text they are given."""
    whole = example(1, "ask", "a rock")
    encoded = encode_example(whole, FormatConfig(), spaced)
    tokens = spaced.convert_ids_to_tokens(encoded.input_ids[encoded.loss_mask].tolist())
    assert tokens == ["a", "▁", "r", "o", "c", "k", "</s>"]
    assert spaced.decode(encoded.input_ids).endswith("### Response:\na rock</s>")


def test_a_chat_prompt_has_the_tokens_that_transformers_gives_it(chatml):
    ids = prompt_ids(
        Example("a", "t", "s", "a", [Turn("system", "Be brief."), Turn("user", "Why is δ18O low?")]),
        FormatConfig(format="chat"),
        chatml,
    )
    messages = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Why is δ18O low?"}]
    expected = chatml.apply_chat_template(messages, add_generation_prompt=True, return_dict=False)
    assert ids.tolist() == expected


def test_white_space_that_a_control_token_takes_with_it_is_taken_here_too(chatml):
    from tokenizers import AddedToken

    asked = Example("a", "t", "s", "a", [Turn("user", "Why?")])
    chatml.add_special_tokens(
        {"extra_special_tokens": [AddedToken("<|in|>", rstrip=True), AddedToken("<|out|>", lstrip=True)]}
    )
    chatml.chat_template = (
        "{% for m in messages %}<|in|>\n{{ m.role }}: {{ m.content }} <|out|>\n{% endfor %}"
        "{% if add_generation_prompt %}<|in|>\nassistant: {% endif %}"
    )
    ids = prompt_ids(asked, FormatConfig(format="chat"), chatml).tolist()
    messages = [{"role": "user", "content": "Why?"}]
    assert ids == chatml.apply_chat_template(messages, add_generation_prompt=True, return_dict=False)
    assert chatml.decode(ids) == "<|in|>user: Why?<|out|>\n<|in|>assistant: "


def test_an_example_of_which_the_tokenizer_leaves_no_target_is_rejected():
    """A first token is never a target, and characters that a vocabulary lacks may vanish."""
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    backend = Tokenizer(models.BPE(vocab={"z": 0, "</s>": 1}, merges=[]))
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=backend, eos_token="</s>")
    examples = [example(1, "a", "b"), example(2, "a", "z"), example(3, "a", "zz")]
    encoded = encode_examples(examples, FormatConfig(format="react", eos=False), tokenizer)
    assert encoded.example_index.tolist() == [2]
    assert [(reject.paper_id, reject.reason) for reject in encoded.rejects] == [
        ("o1", "nothing_learned"),
        ("o2", "nothing_learned"),
    ]


@pytest.mark.parametrize("kind", ["chatml", "spaced"])
@pytest.mark.parametrize("name", [name for name in FORMATS if name != "chat"])
def test_a_prompt_has_the_tokens_that_its_text_has(request, question, kind, name):
    tokenizer, config = request.getfixturevalue(kind), FormatConfig(format=name)
    asked = replace(question, turns=question.turns[:2])
    ids = prompt_ids(asked, config, tokenizer)
    assert ids.tolist() == tokenizer(prompt_text(asked, config, tokenizer))["input_ids"]


def test_a_batch_gives_each_example_the_tokens_it_has_alone(spaced, question, trace):
    examples = [question, trace, example(3, "x", "y"), question]
    encoded = encode_examples(examples_to_table(examples), FormatConfig(), spaced)
    assert encoded.example_index.tolist() == [0, 1, 2, 3]
    for number, one in enumerate(examples):
        alone = encode_example(one, FormatConfig(), spaced)
        assert encoded[number].input_ids.tolist() == alone.input_ids.tolist()
        assert encoded[number].loss_mask.tolist() == alone.loss_mask.tolist()


def test_no_examples_give_no_tokens_and_no_rows(byte):
    encoded = encode_examples([], FormatConfig(), byte)
    assert len(encoded) == 0
    assert len(pack_examples(encoded, 16, seed=0, padding_id=1)) == 0


def test_what_is_longer_than_a_row_is_rejected_and_counted(byte):
    examples = [example(1, "a", "b"), example(2, "a", "b" * 400), example(3, "a", " ")]
    encoded = encode_examples(examples, FormatConfig(format="react"), byte, sequence_length=64)
    assert encoded.example_index.tolist() == [0]
    assert sorted((reject.paper_id, reject.stage, reject.reason) for reject in encoded.rejects) == [
        ("o2", "format", "longer_than_row"),
        ("o3", "format", "empty_response"),
    ]
    too_long = next(reject for reject in encoded.rejects if reject.paper_id == "o2")
    assert too_long.detail == "o2#t: 427 tokens, a row has 64"


def test_an_example_exactly_as_long_as_a_row_is_kept(byte):
    whole = example(1, "a", "b")
    tokens = len(encode_example(whole, FormatConfig(), byte).input_ids)
    assert not isinstance(encode_example(whole, FormatConfig(), byte, sequence_length=tokens), Reject)
    assert isinstance(encode_example(whole, FormatConfig(), byte, sequence_length=tokens - 1), Reject)


@pytest.mark.parametrize("tokenizer_name", ["byte", "spaced"])
def test_an_input_is_cut_at_its_end_and_nothing_else_is(request, tokenizer_name):
    tokenizer = request.getfixturevalue(tokenizer_name)
    config = FormatConfig(format="react", overlong="cut_input")
    material = " ".join(f"word{number}" for number in range(100))
    whole = example(1, "Sum up.", "Words and words.", material)
    encoded = encode_examples([whole], config, tokenizer, sequence_length=200)
    text = tokenizer.decode(encoded[0].input_ids, skip_special_tokens=True)
    assert len(encoded[0].input_ids) <= 200
    assert encoded.inputs_cut == 1
    head, _, rest = text.strip().partition("\n\n")
    kept = rest.partition("\nFinal Answer: ")[0]
    assert head == "Question: Sum up."
    assert text.endswith("Final Answer: Words and words.")
    assert material.startswith(kept + " ")
    assert len(kept) > 100


def test_an_input_without_spaces_is_cut_where_it_must_be(byte):
    config = FormatConfig(format="react", overlong="cut_input")
    encoded = encode_examples([example(1, "Sum.", "Yes.", "玄武岩" * 60)], config, byte, sequence_length=200)
    assert 190 < len(encoded[0].input_ids) <= 200
    assert "\ufffd" not in byte.decode(encoded[0].input_ids)


def test_what_is_too_long_without_its_input_is_rejected_also_where_inputs_are_cut(byte):
    config = FormatConfig(format="react", overlong="cut_input")
    examples = [example(1, "Sum up.", "b" * 300, "some words here"), example(2, "a" * 300, "b")]
    encoded = encode_examples(examples, config, byte, sequence_length=200)
    assert [reject.reason for reject in encoded.rejects] == ["longer_than_row"] * 2
    assert encoded.inputs_cut == 0


def encoded_of(lengths):
    offsets = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64)
    count = int(offsets[-1])
    mask = np.ones(count, np.bool_)
    mask[offsets[:-1]] = False
    ids = np.arange(count, dtype=np.int32) + 10
    return EncodedExamples(ids, mask, offsets, np.arange(len(lengths), dtype=np.int32) * 3)


@settings(max_examples=60)
@given(
    width=st.integers(8, 64).flatmap(
        lambda width: st.tuples(st.just(width), st.lists(st.integers(2, width), max_size=60))
    ),
    seed=st.integers(0, 3),
)
def test_no_example_is_cut_and_each_stands_once(width, seed):
    sequence_length, lengths = width
    encoded = encoded_of(lengths)
    rows = pack_examples(encoded, sequence_length, seed=seed, padding_id=1)
    seen = []
    for row in range(len(rows)):
        start = 0
        for end, index in zip(rows.segment_ends[row].tolist(), rows.paper_index[row].tolist(), strict=True):
            one = encoded[index // 3]
            assert rows.input_ids[row, start:end].tolist() == one.input_ids.tolist()
            assert rows.loss_mask[row, start:end].tolist() == one.loss_mask.tolist()
            seen.append(index // 3)
            start = end
        assert (rows.input_ids[row, start:] == 1).all()
        assert not rows.loss_mask[row, start:].any()
    assert sorted(seen) == list(range(len(lengths)))
    assert rows.loss_mask.any(axis=1).all()


def test_packing_shares_rows_and_follows_its_seed():
    encoded = encoded_of([5] * 40)
    one, again, other = (pack_examples(encoded, 20, seed=seed, padding_id=1) for seed in (1, 1, 2))
    assert len(one) == 10
    assert one.input_ids.tolist() == again.input_ids.tolist()
    assert one.input_ids.tolist() != other.input_ids.tolist()


def test_an_example_longer_than_a_row_cannot_be_packed():
    with pytest.raises(ValueError, match="an example of 9 tokens is longer than a row of 8"):
        pack_examples(encoded_of([3, 9]), 8, seed=0, padding_id=1)


def test_targets_of_packed_rows_are_the_learned_tokens_and_no_others(trace, question):
    tokenizer = byte_tokenizer()
    encoded = encode_examples([trace, question], FormatConfig(format="react"), tokenizer)
    inputs = collate(pack_examples(encoded, 512, seed=0, padding_id=1))
    labels = inputs.labels[inputs.labels != IGNORED_LABEL].tolist()
    assert sorted(labels) == sorted(encoded.input_ids[encoded.loss_mask].tolist())


@settings(max_examples=40)
@given(
    st.lists(
        st.tuples(st.text(min_size=1, max_size=30), st.text(max_size=20), st.text(min_size=1, max_size=30)),
        min_size=1,
        max_size=4,
    )
)
def test_a_byte_tokenizer_gives_back_what_the_format_writes(texts):
    tokenizer = byte_tokenizer()
    for number, (asked, material, answer) in enumerate(texts):
        whole = example(number, asked, answer, material)
        if not answer.strip() or not (asked + material).strip():
            with pytest.raises(ExampleReject, match=r"empty_instruction|empty_response"):
                render(whole, FormatConfig(), tokenizer)
            continue
        pieces = render(whole, FormatConfig(), tokenizer)
        encoded = encode_example(whole, FormatConfig(), tokenizer)
        assert tokenizer.decode(encoded.input_ids) == "".join(piece.text for piece in pieces)
        assert tokenizer.decode(encoded.input_ids[encoded.loss_mask]) == answer + "</s>"
