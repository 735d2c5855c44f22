"""Prompts are as long as they may be, hold the key where they should, and a model that copies finds it."""

import re
from types import SimpleNamespace

import pytest
import torch
from tokenizers import Tokenizer, models, pre_tokenizers, processors
from transformers import PreTrainedTokenizerFast

from baltoro.core.errors import ConfigError
from baltoro.evaluation.passkey import (
    ANSWER_TOKENS,
    FILLER,
    PasskeyCell,
    PasskeyGrid,
    passkey_prompt,
    passkey_retrieval,
    said_key,
)
from baltoro.models.load import build_model, load_weights
from baltoro.testing.tiny import byte_tokenizer, tiny_plan


def word_tokenizer():
    """A tokenizer of whole words that puts begin and end tokens around a text."""
    words = re.findall(r"\w+|[^\w\s]", " ".join(FILLER))
    vocabulary = {"<s>": 0, "</s>": 1, "<unk>": 2}
    for word in words:
        vocabulary.setdefault(word, len(vocabulary))
    backend = Tokenizer(models.WordLevel(vocabulary, unk_token="<unk>"))
    backend.pre_tokenizer = pre_tokenizers.Whitespace()
    backend.post_processor = processors.TemplateProcessing(
        single="<s> $A </s>", special_tokens=[("<s>", 0), ("</s>", 1)]
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=backend, bos_token="<s>", eos_token="</s>", unk_token="<unk>"
    )


class Reader:
    """Stands where a model would: reads its prompt, and says what ``answer`` makes of the key in it."""

    def __init__(self, tokenizer, answer, positions=4096):
        self.tokenizer, self.answer = tokenizer, answer
        self.config = SimpleNamespace(to_dict=lambda: {"max_position_embeddings": positions})
        self.device, self.training = torch.device("cpu"), True
        self.asked = []

    def train(self, mode=True):
        self.training = mode

    def eval(self):
        self.training = False

    def generate(self, *, input_ids, attention_mask, generation_config):
        assert not self.training
        assert not generation_config.do_sample
        assert generation_config.use_cache
        assert attention_mask.all()
        text = self.tokenizer.decode(input_ids[0])
        key = re.search(r"The pass key is (\d+)\. Remember", text)[1]
        self.asked.append((input_ids.shape[1], text.index("pass key is " + key) / len(text), int(key)))
        said = self.tokenizer(self.answer(key), add_special_tokens=False)["input_ids"]
        return torch.cat([input_ids, torch.tensor([said[: generation_config.max_new_tokens]])], dim=1)


def test_a_model_that_copies_finds_every_key():
    tokenizer = byte_tokenizer()
    reader = Reader(tokenizer, lambda key: f" {key}.")
    grid = passkey_retrieval(
        reader, tokenizer, lengths=[1000, 500], depths=[1.0, 0.0, 0.5], trials=3, setting="lengths"
    )
    assert [(cell.length, cell.depth) for cell in grid.cells] == [
        (length, depth) for length in (500, 1000) for depth in (0.0, 0.5, 1.0)
    ]
    assert {(cell.trials, cell.found, cell.accuracy, cell.high) for cell in grid.cells} == {(3, 3, 1.0, 1.0)}
    assert grid.cells[0].low == pytest.approx(0.4385, abs=1e-4)
    assert grid.accuracy == 1.0
    assert grid.used_context_tokens == 1000
    assert reader.training, "a model that was training goes on training"
    # All lengths, depths and trials ask for keys of their own, at rising depths.
    assert len({key for *_, key in reader.asked}) == 18
    first, middle, last = (reader.asked[index][1] for index in (0, 3, 6))
    assert first < 0.35 < middle < 0.65 < last


@pytest.mark.parametrize(
    "answer", [lambda key: f" {key}1", lambda key: f" 7 {key}", lambda _: " unknown", lambda key: key[:-1]]
)
def test_what_is_not_the_key_exactly_does_not_count(answer):
    tokenizer = byte_tokenizer()
    grid = passkey_retrieval(Reader(tokenizer, answer), tokenizer, lengths=[500], depths=[0.5], trials=2)
    assert grid.accuracy == 0.0
    assert grid.used_context_tokens is None


def test_a_real_model_is_asked_through_its_own_generation():
    plan = tiny_plan()
    settings = {**plan.config, "max_position_embeddings": 600}
    plan = type(plan)(settings)
    model = build_model(plan)
    model.to_empty(device="cpu")
    load_weights(model, plan)
    tokenizer = byte_tokenizer()
    grids = [
        passkey_retrieval(model, tokenizer, lengths=[400, 600], depths=[0.5], trials=1) for _ in range(2)
    ]
    assert grids[0] == grids[1]
    assert [cell.length for cell in grids[0].cells] == [400, 600]
    longest = max(map(len, FILLER)) + 2
    assert all(cell.length - longest <= cell.shortest_tokens <= cell.length for cell in grids[0].cells)


@pytest.mark.parametrize("make", [byte_tokenizer, word_tokenizer])
@pytest.mark.parametrize("depth", [0.0, 0.3, 1.0])
def test_a_prompt_is_at_most_a_sentence_short(make, depth):
    tokenizer = make()
    longest = max(
        len(tokenizer(" " + sentence, add_special_tokens=False)["input_ids"]) for sentence in FILLER
    )
    for length in range(450, 480):
        prompt = passkey_prompt(tokenizer, length=length, depth=depth, trial=length)
        room = length - ANSWER_TOKENS - len(prompt.input_ids)
        # A line break may come with the first sentence of a side.
        assert 0 <= room <= longest + 1
        assert prompt.text.count(f"{prompt.key}") >= 2


def test_a_prompt_begins_as_the_tokenizer_begins_texts_and_never_ends_with_its_end():
    words = passkey_prompt(word_tokenizer(), length=300, depth=0.5, trial=0)
    assert words.input_ids[0] == 0
    assert words.input_ids[-1] != 1
    assert passkey_prompt(byte_tokenizer(), length=500, depth=0.5, trial=0).input_ids[0] > 2


def test_prompts_follow_from_their_arguments():
    tokenizer = byte_tokenizer()

    def prompt(**changed):
        return passkey_prompt(tokenizer, **{"length": 500, "depth": 0.5, "trial": 0, "seed": 0, **changed})

    assert prompt() == prompt()
    keys = {prompt(**changed).key for changed in ({}, {"trial": 1}, {"seed": 1}, {"depth": 0.6})}
    assert len(keys) == 4
    assert all(1 <= prompt(trial=trial).key <= 50_000 for trial in range(20))


def test_lengths_are_refused_that_the_model_or_the_prompt_cannot_have():
    tokenizer = byte_tokenizer()
    reader = Reader(tokenizer, str, positions=512)
    with pytest.raises(ConfigError, match=r"passkey\.lengths: 1000 tokens are more than the 512 positions"):
        passkey_retrieval(
            reader, tokenizer, lengths=[1000], depths=[0.5], trials=1, setting="passkey.lengths"
        )
    with pytest.raises(
        ConfigError, match=r"lengths: 200 tokens are too few .* takes \d+ with this tokenizer"
    ):
        passkey_retrieval(reader, tokenizer, lengths=[200], depths=[0.5], trials=1)
    assert reader.asked == []


def test_the_used_context_is_the_longest_length_with_four_fifths_over_all_depths():
    def cell(length, depth, found):
        return PasskeyCell(length, depth, 10, found, found / 10, 0.0, 1.0, length)

    grid = PasskeyGrid((cell(1000, 0.0, 10), cell(1000, 1.0, 6), cell(2000, 0.0, 10), cell(2000, 1.0, 5)))
    assert grid.used_context_tokens == 1000
    assert grid.accuracy == pytest.approx(31 / 40)


@pytest.mark.parametrize(
    ("answer", "key"), [("12345", 12345), (" is 0042.", 42), ("12,345", 12), ("", None), ("²", None)]
)
def test_the_first_whole_number_is_what_was_said(answer, key):
    assert said_key(answer) == key
