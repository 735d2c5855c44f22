"""Each protocol scores the tokens that it says, at every length, and nothing else."""

import math
from dataclasses import replace

import numpy as np
import pytest
import torch

from baltoro.core.errors import ConfigError, InputError
from baltoro.evaluation.perplexity import PROTOCOLS, perplexities, windows_of
from baltoro.models.load import build_model, load_weights
from baltoro.testing.tiny import tiny_plan

VOCABULARY = 264
BOS = 0


@pytest.fixture(autouse=True)
def short_stride(monkeypatch):
    """As the originals move by 256 of thousands, these tests move by 8 of tens."""
    monkeypatch.setattr("baltoro.evaluation.perplexity.STRIDE_TOKENS", 8)


@pytest.fixture(scope="module")
def model():
    plan = tiny_plan()
    model = build_model(plan)
    model.to_empty(device="cpu")
    load_weights(model, plan)
    return model


def texts(*sizes):
    return [np.random.default_rng(size).integers(3, VOCABULARY, size) for size in sizes]


def losses(model, ids):
    """Loss of each token but the first, from all logits."""
    row = torch.as_tensor(np.asarray(ids))[None]
    with torch.no_grad():
        logits = model.eval()(input_ids=row).logits[0, :-1]
    return torch.nn.functional.cross_entropy(logits, row[0, 1:], reduction="none").double().numpy()


# One plain loop for each protocol, as the sources describe it. Each gives a list of windows' losses.


def longlora(model, documents, length, bos, stride=8):
    del bos
    stream = [token for document in documents for token in document]
    starts = list(range(0, len(stream) - length, stride))
    starts.pop()
    return [losses(model, stream[start : start + length]) for start in starts]


def longqlora(model, documents, length, bos):
    return longlora(model, documents, length, bos, stride=length)


def yarn(model, documents, length, bos):
    found = []
    for document in documents:
        room = length if bos is None else length - 1
        previous_end = 0
        for begin in range(0, len(document), 8):
            end = min(begin + room, len(document))
            new = end - previous_end
            ids = list(document[begin:end])
            if bos is not None:
                ids = [bos, *ids]
            found.append(losses(model, ids)[-new:])
            previous_end = end
            if end == len(document):
                break
    return found


def yarn_truncated(model, documents, length, bos):
    if bos is None:
        return [losses(model, document[:length]) for document in documents]
    return [losses(model, [bos, *document[: length - 1]]) for document in documents]


REFERENCES = {
    "longlora": longlora,
    "longqlora": longqlora,
    "yarn": yarn,
    "yarn_truncated": yarn_truncated,
}


@pytest.mark.parametrize("protocol", PROTOCOLS)
@pytest.mark.parametrize("bos", [None, BOS])
def test_a_protocol_gives_what_its_plain_loop_gives(model, protocol, bos):
    documents = texts(61, 50, 45, 70)
    found = perplexities(model, documents, protocol=protocol, lengths=[24, 40], bos_token_id=bos)
    assert list(found) == [24, 40]
    for length, perplexity in found.items():
        expected = REFERENCES[protocol](model, documents, length, bos)
        mean = np.mean([window.mean() for window in expected])
        assert perplexity.nats_per_token == pytest.approx(mean, rel=1e-5)
        assert perplexity.perplexity == pytest.approx(math.exp(mean), rel=1e-4)
        assert perplexity.windows == len(expected)
        assert perplexity.tokens == sum(map(len, expected))
        assert perplexity.low < perplexity.perplexity < perplexity.high
        assert perplexity.short_texts == 0


def test_sliding_scores_every_token_of_a_text_once():
    (text,) = texts(61)
    with_begin = list(windows_of("yarn", [text], 24, bos_token_id=BOS))
    scored = [token for window in with_begin for token in window.tokens[window.first_target :]]
    assert scored == text.tolist()
    without = list(windows_of("yarn", [text], 24))
    assert [t for window in without for t in window.tokens[window.first_target :]] == text[1:].tolist()
    assert all(len(window.tokens) <= 24 for window in with_begin + without)


def test_the_windows_of_a_stream_are_those_of_the_original():
    stream = texts(61, 40)
    windows = list(windows_of("longlora", stream, 24))
    # range(0, 101 - 24, 8) is 0, 8, … 72; the last one is dropped.
    assert len(windows) == 9
    assert [window.text for window in windows] == [0] * 8 + [1]
    assert windows[-1].tokens.tolist() == np.concatenate(stream)[64:88].tolist()
    assert len(list(windows_of("longqlora", stream, 24))) == 3


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_a_model_of_uniform_logits_has_the_vocabulary_as_its_perplexity(protocol):
    plan = tiny_plan(tied=False)
    uniform = build_model(plan)
    uniform.to_empty(device="cpu")
    load_weights(uniform, plan)
    torch.nn.init.zeros_(uniform.lm_head.weight)
    found = perplexities(uniform, texts(60, 70), protocol=protocol, lengths=[16, 32])
    for perplexity in found.values():
        assert perplexity.perplexity == pytest.approx(VOCABULARY, rel=1e-5)


def test_texts_shorter_than_a_length_are_counted_and_left_out(model):
    documents = texts(20, 61, 40, 30)
    every = perplexities(model, documents, protocol="yarn_truncated", lengths=[24, 32, 48], same_texts=False)
    assert {length: (p.texts, p.short_texts) for length, p in every.items()} == {
        24: (3, 1),
        32: (2, 2),
        48: (1, 3),
    }
    same = perplexities(model, documents, protocol="yarn_truncated", lengths=[24, 32, 48])
    assert {(p.texts, p.short_texts) for p in same.values()} == {(1, 3)}
    assert same[24].tokens == 23


def test_no_more_texts_than_asked_for_are_taken_and_one_text_has_no_interval(model):
    found = perplexities(model, texts(20, 40, 50), protocol="yarn_truncated", lengths=[32], max_texts=1)
    alone = perplexities(model, texts(40), protocol="yarn_truncated", lengths=[32])
    assert found[32] == replace(alone[32], short_texts=1)
    assert (found[32].low, found[32].high, found[32].tokens) == (None, None, 31)


def test_without_lengths_they_are_parts_of_what_the_model_reads(model):
    found = perplexities(model, texts(300), protocol="yarn_truncated", lengths=[])
    assert list(found) == [64, 128, 256]


def test_a_length_beyond_the_models_positions_is_refused(model):
    with pytest.raises(
        ConfigError, match=r"perplexity\.lengths: 512 tokens are more than the 256 positions.*lower it to"
    ):
        perplexities(
            model, texts(600), protocol="yarn", lengths=[128, 512], setting="evaluation.perplexity.lengths"
        )


def test_a_length_of_one_token_is_refused(model):
    with pytest.raises(ConfigError, match="lengths: 1 leaves no token to predict"):
        perplexities(model, texts(60), protocol="yarn", lengths=[1])


def test_texts_that_are_all_too_short_are_refused(model):
    with pytest.raises(InputError, match="none of the 2 texts has 128 tokens; lower the lengths"):
        perplexities(model, texts(60, 20), protocol="yarn", lengths=[128, 32])


def test_a_stream_that_gives_no_window_is_refused(model):
    with pytest.raises(InputError, match="the 2 texts have 80 tokens together, too few for one window of 79"):
        perplexities(model, texts(60, 20), protocol="longlora", lengths=[79])
