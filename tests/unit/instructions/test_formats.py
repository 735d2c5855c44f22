from dataclasses import replace

import pytest

from baltoro.core.errors import ConfigError
from baltoro.instructions.example import Example, Turn
from baltoro.instructions.formats import ExampleReject, prompt_text, render
from baltoro.instructions.formats.dialogue import FORMAT_REASONS
from baltoro.instructions.formats_config import FormatConfig

PLAIN = ["alpaca", "alpaca_legacy", "vicuna", "llama2", "react"]


def dialogue(*turns):
    return Example("a#t", "t", "files", "a", [Turn(role, text) for role, text in turns])


def text(pieces):
    return "".join(piece.text for piece in pieces)


def learned(pieces):
    return [piece.text for piece in pieces if piece.learned]


def test_alpaca_breaks_the_line_after_the_last_head_and_the_legacy_form_does_not(byte, question):
    expected = (
        "Below is an instruction that describes a task, paired with an input that provides further context. "
        "Write a response that appropriately completes the request.\n\n### Instruction:\nGive a title.\n\n"
        "### Input:\nMelt rises.\n\n### Response:"
    )
    prompt = replace(question, turns=question.turns[:2])
    assert prompt_text(prompt, FormatConfig(format="alpaca"), byte) == expected + "\n"
    assert prompt_text(prompt, FormatConfig(format="alpaca_legacy"), byte) == expected
    assert text(render(question, FormatConfig(), byte)) == f"{expected}\nOn melt</s>"


def test_alpaca_without_input_has_the_other_preamble_and_no_input_block(byte):
    example = dialogue(("user", "Name a rock."), ("assistant", "Basalt"))
    assert text(render(example, FormatConfig(), byte)) == (
        "Below is an instruction that describes a task. Write a response that appropriately completes the "
        "request.\n\n### Instruction:\nName a rock.\n\n### Response:\nBasalt</s>"
    )


def test_an_empty_input_is_no_input(byte):
    example = dialogue(("user", "Name a rock."), ("input", " \n"), ("assistant", "Basalt"))
    assert "### Input" not in text(render(example, FormatConfig(), byte))


def test_vicuna_is_written_as_in_longqlora(byte, question):
    assert text(render(question, FormatConfig(format="vicuna"), byte)) == (
        "A chat between a curious user and an artificial intelligence assistant. The assistant gives "
        "helpful, detailed, and polite answers to the user's questions.\nUSER: Give a title.\n\nMelt rises.\n"
        "ASSISTANT: On melt</s>"
    )


def test_llama2_has_a_system_block_only_with_an_input_or_a_system_text(byte, question):
    config = FormatConfig(format="llama2")
    bare = dialogue(("user", "Name a rock."), ("assistant", "Basalt"))
    assert text(render(bare, config, byte)) == "[INST]Name a rock.[/INST]Basalt</s>"
    with_input = text(render(question, config, byte))
    assert with_input.startswith("[INST] <<SYS>>\nYou are a helpful, respectful and honest assistant.")
    assert with_input.endswith("\n<</SYS>>\n\nGive a title.\nMelt rises. [/INST]On melt</s>")
    told = config.model_copy(update={"system": "Be brief."})
    assert text(render(bare, told, byte)) == (
        "[INST] <<SYS>>\nBe brief.\n<</SYS>>\n\nName a rock. [/INST]Basalt</s>"
    )


def test_llama2_begins_each_exchange_anew(byte):
    example = dialogue(("user", "a"), ("assistant", "b"), ("user", "c"), ("assistant", "d"))
    written = render(example, FormatConfig(format="llama2"), byte)
    assert text(written) == "[INST]a[/INST]b</s><s>[INST]c[/INST]d</s>"
    assert [piece.text for piece in written if piece.control] == ["</s>", "<s>", "</s>"]


def test_react_learns_steps_and_answer_but_neither_question_nor_observation(byte, trace):
    pieces = render(trace, FormatConfig(format="react"), byte)
    assert text(pieces) == (
        "You may call search.\n\nQuestion: How hot is it?\n"
        'Thought: I look it up.\nAction: search\nAction Input: {"q": "heat"}</s>'
        "\nObservation: It is 1250 C.\nThought: That is it.\nFinal Answer: 1250 C</s>"
    )
    assert learned(pieces) == [
        'Thought: I look it up.\nAction: search\nAction Input: {"q": "heat"}', "</s>",
        "Thought: That is it.\nFinal Answer: 1250 C", "</s>",
    ]  # fmt: skip


@pytest.mark.parametrize("name", [*PLAIN, "chat"])
def test_every_format_keeps_what_a_tool_says_out_of_what_is_learned(chatml, trace, name):
    pieces = render(trace, FormatConfig(format=name), chatml)
    assert "It is 1250 C." in text(pieces)
    assert "1250 C." not in "".join(learned(pieces))
    assert "How hot" not in "".join(learned(pieces))


def test_a_response_without_steps_is_a_final_answer_in_react(byte, question):
    pieces = render(question, FormatConfig(format="react"), byte)
    assert text(pieces) == "Question: Give a title.\n\nMelt rises.\nFinal Answer: On melt</s>"


@pytest.mark.parametrize("name", [*PLAIN, "chat"])
def test_a_system_text_is_passed_through_and_the_setting_only_fills_in(chatml, name):
    own = dialogue(("system", "Be kind."), ("user", "a"), ("assistant", "b"))
    none = dialogue(("user", "a"), ("assistant", "b"))
    config = FormatConfig(format=name, system="Be brief.")
    assert "Be kind." in text(render(own, config, chatml))
    assert "Be brief." not in text(render(own, config, chatml))
    assert "Be brief." in text(render(none, config, chatml))


def test_everything_is_learned_where_that_is_asked(byte, trace):
    assert all(piece.learned for piece in render(trace, FormatConfig(learn="everything"), byte))


def test_the_end_token_can_be_left_out(byte, question):
    pieces = render(question, FormatConfig(eos=False), byte)
    assert text(pieces).endswith("### Response:\nOn melt")
    assert not any(piece.control for piece in pieces)


def test_chat_is_what_the_template_writes_and_learns_the_answer_with_its_end(chatml):
    example = dialogue(
        ("user", "Look:"),
        ("input", "melt"),
        ("assistant", " Hot.\n"),
        ("user", "Sure?"),
        ("assistant", "Yes"),
    )
    pieces = render(example, FormatConfig(format="chat"), chatml)
    assert text(pieces) == chatml.apply_chat_template(
        [
            {"role": "user", "content": "Look:\n\nmelt"},
            {"role": "assistant", "content": "Hot."},
            {"role": "user", "content": "Sure?"},
            {"role": "assistant", "content": "Yes"},
        ],
        tokenize=False,
    )
    assert learned(pieces) == ["Hot.", "<|over|>", "Yes", "<|over|>"]


def test_a_control_token_in_a_text_stays_text_in_chat(chatml):
    example = dialogue(("user", "What is <|over|>?"), ("assistant", "A mark: <|over|> it is"))
    pieces = render(example, FormatConfig(format="chat"), chatml)
    assert [piece.text for piece in pieces if piece.learned and not piece.control] == [
        "A mark: <|over|> it is"
    ]
    assert [piece.text for piece in pieces if piece.control] == ["<|turn|>", "<|over|>"] * 2


def test_chat_without_a_template_is_refused_with_the_formats_that_work(byte, question):
    with pytest.raises(
        ConfigError, match=r"has no chat template.*alpaca, alpaca_legacy, vicuna, llama2, react"
    ):
        render(question, FormatConfig(format="chat"), byte)


def tokenizer_with(template, chatml):
    chatml.chat_template = template
    return chatml


def test_a_template_that_writes_the_prompt_otherwise_once_answered_is_refused(chatml, question):
    template = (
        "{{ messages | length }}"
        "{% for m in messages %}<|turn|>{{ m.role }}\n{{ m.content }}<|over|>{% endfor %}"
        "{% if add_generation_prompt %}<|turn|>assistant\n{% endif %}"
    )
    with pytest.raises(ConfigError, match="cannot be learned from: the prompt for message 2 of 2"):
        render(question, FormatConfig(format="chat"), tokenizer_with(template, chatml))


def test_a_template_that_raises_rejects_the_example_with_its_words(chatml):
    template = (
        "{% if messages[0].role == 'system' %}{{ raise_exception('no system here') }}{% endif %}"
        "{% for m in messages %}<|turn|>{{ m.role }}\n{{ m.content }}<|over|>{% endfor %}"
        "{% if add_generation_prompt %}<|turn|>assistant\n{% endif %}"
    )
    example = dialogue(("system", "s"), ("user", "a"), ("assistant", "b"))
    with pytest.raises(ExampleReject, match=r"template_refuses.*no system here"):
        render(example, FormatConfig(format="chat"), tokenizer_with(template, chatml))


def test_a_template_that_rewrites_a_text_rejects_the_example(chatml):
    template = (
        "{% for m in messages %}<|turn|>{{ m.role }}\n"
        "{{ m.content.split('</think>')[-1] }}<|over|>{% endfor %}"
        "{% if add_generation_prompt %}<|turn|>assistant\n{% endif %}"
    )
    tokenizer = tokenizer_with(template, chatml)
    fine = dialogue(("user", "a"), ("assistant", "b"))
    assert learned(render(fine, FormatConfig(format="chat"), tokenizer)) == ["b", "<|over|>"]
    thinking = dialogue(("user", "a"), ("assistant", "<think>hm</think>b"))
    with pytest.raises(ExampleReject, match="template_changes_text"):
        render(thinking, FormatConfig(format="chat"), tokenizer)


def test_what_a_template_puts_between_prompt_and_answer_is_learned(chatml):
    """The model has to say it, since the prompt for it ends before."""
    template = (
        "{% for m in messages %}<|turn|>{{ m.role }}\n"
        "{% if m.role == 'assistant' %}<think></think>{% endif %}"
        "{{ m.content }}<|over|>{% endfor %}{% if add_generation_prompt %}<|turn|>assistant\n{% endif %}"
    )
    example = dialogue(("user", "a"), ("assistant", "b"))
    pieces = render(example, FormatConfig(format="chat"), tokenizer_with(template, chatml))
    assert learned(pieces) == ["<think></think>b", "<|over|>"]


def test_a_template_without_an_end_of_turn_gets_the_end_token(chatml):
    template = "{% for m in messages %}{{ m.role }}: {{ m.content }}\n{% endfor %}" + (
        "{% if add_generation_prompt %}assistant: {% endif %}"
    )
    tokenizer = tokenizer_with(template, chatml)
    example = dialogue(("user", "a"), ("assistant", "b"))
    assert text(render(example, FormatConfig(format="chat"), tokenizer)) == "user: a\nassistant: b</s>"
    without = FormatConfig(format="chat", eos=False)
    assert learned(render(example, without, tokenizer)) == ["b"]


def test_a_date_that_a_template_prints_is_always_the_same(chatml, question):
    template = "{{ strftime_now('%d %b %Y') }}" + chatml.chat_template
    pieces = render(question, FormatConfig(format="chat"), tokenizer_with(template, chatml))
    assert text(pieces).startswith("26 Jul 2024<|turn|>user")


@pytest.mark.parametrize(
    ("turns", "reason"),
    [
        ([("user", "a")], "no_response"),
        ([("user", "a"), ("assistant", "b"), ("user", "c")], "no_response"),
        ([], "no_response"),
        ([("user", " "), ("assistant", "b")], "empty_instruction"),
        ([("user", "a"), ("assistant", " \n")], "empty_response"),
        ([("assistant", "b")], "turn_order"),
        ([("user", "a"), ("system", "s"), ("assistant", "b")], "turn_order"),
        ([("input", "i"), ("assistant", "b")], "turn_order"),
        ([("user", "a"), ("observation", "o"), ("final_answer", "b")], "turn_order"),
        ([("user", "a"), ("final_answer", "b"), ("thought", "c"), ("final_answer", "b")], "turn_order"),
    ],
)
def test_what_is_no_dialogue_is_a_reject(byte, turns, reason):
    with pytest.raises(ExampleReject) as caught:
        render(dialogue(*turns), FormatConfig(), byte)
    assert caught.value.reason == reason
    assert reason in FORMAT_REASONS


def test_a_prompt_ends_where_the_model_speaks(byte, question, trace):
    with pytest.raises(ExampleReject, match="no_question"):
        prompt_text(question, FormatConfig(), byte)
    with pytest.raises(ExampleReject, match="no_question"):
        prompt_text(replace(trace, turns=trace.turns[:4]), FormatConfig(format="react"), byte)
    prompt = prompt_text(replace(trace, turns=trace.turns[:6]), FormatConfig(format="react"), byte)
    assert prompt.endswith('Action Input: {"q": "heat"}</s>\nObservation: It is 1250 C.\n')


def test_a_tokenizer_without_an_end_token_is_refused_unless_none_is_asked_for(byte, question):
    byte.eos_token = None
    with pytest.raises(ConfigError, match=r"names no end token.*set format.eos to false"):
        render(question, FormatConfig(), byte)
    assert text(render(question, FormatConfig(eos=False), byte)).endswith("On melt")
