"""Tokenizers of the three kinds that matter here: bytes, bytes with a chat template, SentencePiece's way."""

import pytest

from baltoro.instructions.example import Example, Turn
from baltoro.testing.tiny import byte_tokenizer

CHATML = (
    "{% for message in messages %}<|turn|>{{ message.role }}\n{{ message.content | trim }}<|over|>\n"
    "{% endfor %}{% if add_generation_prompt %}<|turn|>assistant\n{% endif %}"
)


@pytest.fixture
def byte():
    return byte_tokenizer()


@pytest.fixture
def chatml():
    """A byte tokenizer with two control tokens and a chat template that trims what is said."""
    return with_template(CHATML)


@pytest.fixture
def spaced():
    """A tokenizer that reads a space before every text and puts a begin token before it, as LLaMA's does."""
    return spaced_tokenizer()


def with_template(template):
    tokenizer = byte_tokenizer()
    tokenizer.add_special_tokens({"extra_special_tokens": ["<|turn|>", "<|over|>"]})
    tokenizer.chat_template = template
    return tokenizer


def spaced_tokenizer():
    from tokenizers import Tokenizer, decoders, models, normalizers, processors
    from transformers import PreTrainedTokenizerFast

    letters = [chr(code) for code in range(33, 127)] + ["\n", "▁"]
    vocabulary = {token: index for index, token in enumerate(["<unk>", "<s>", "</s>", *letters])}
    vocabulary |= {"▁a": len(vocabulary), "▁O": len(vocabulary) + 1}
    backend = Tokenizer(models.BPE(vocab=vocabulary, merges=[("▁", "a"), ("▁", "O")], unk_token="<unk>"))
    backend.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    backend.decoder = decoders.Sequence(
        [decoders.Replace("▁", " "), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
    )
    backend.add_special_tokens(["<unk>", "<s>", "</s>"])
    backend.post_processor = processors.TemplateProcessing(single="<s> $A", special_tokens=[("<s>", 1)])
    return PreTrainedTokenizerFast(
        tokenizer_object=backend, bos_token="<s>", eos_token="</s>", unk_token="<unk>"
    )


@pytest.fixture
def question():
    return Example(
        "geo/p1#title", "title", "signals", "geo/p1",
        [Turn("user", "Give a title."), Turn("input", "Melt rises."), Turn("assistant", "On melt")],
    )  # fmt: skip


@pytest.fixture
def trace():
    return Example(
        "tools/1#tool", "tool", "files", "tools/1",
        [
            Turn("system", "You may call search."),
            Turn("user", "How hot is it?"),
            Turn("thought", "I look it up."),
            Turn("action", "search"),
            Turn("action_input", '{"q": "heat"}'),
            Turn("observation", "It is 1250 C."),
            Turn("thought", "That is it."),
            Turn("final_answer", "1250 C"),
        ],
    )  # fmt: skip
