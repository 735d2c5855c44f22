import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from baltoro.core.errors import ConfigError, InputError
from baltoro.evaluation.positions import bucket_starts, loss_by_position
from baltoro.models.load import build_model, load_weights
from baltoro.testing.tiny import tiny_plan

VOCABULARY = 264


@pytest.fixture(scope="module")
def model():
    plan = tiny_plan()
    model = build_model(plan)
    model.to_empty(device="cpu")
    load_weights(model, plan)
    return model


def texts(*sizes):
    return [np.random.default_rng(size).integers(3, VOCABULARY, size) for size in sizes]


@given(st.integers(2, 5000), st.integers(1, 5))
@settings(max_examples=60)
def test_buckets_rise_from_one_and_are_about_evenly_spaced_in_their_logarithm(length, per_doubling):
    starts = bucket_starts(length, per_doubling)
    assert starts[0] == 1
    assert starts[-1] < length
    assert (np.diff(starts) > 0).all()
    ends = np.append(starts[1:], length)
    # Rounding to whole positions moves a border by half a position.
    assert (ends <= 2 ** (1 / per_doubling) * (starts + 0.5) + 0.5).all()


def test_each_bucket_has_the_mean_of_its_positions_over_all_texts(model):
    documents = texts(100, 64, 70, 20)
    found = loss_by_position(model, documents, length=64, buckets_per_doubling=2, chunk_tokens=10)
    assert (found.length, found.texts, found.short_texts) == (64, 3, 1)
    rows = torch.tensor(np.stack([document[:64] for document in documents[:3]]))
    with torch.no_grad():
        logits = model.eval()(input_ids=rows).logits[:, :-1]
    losses = torch.nn.functional.cross_entropy(logits.mT, rows[:, 1:], reduction="none").double()
    assert found.buckets[0].first == 1
    assert found.buckets[-1].last == 63
    for bucket, following in zip(found.buckets, [*found.buckets[1:], None], strict=True):
        assert following is None or following.first == bucket.last + 1
        own = losses[:, bucket.first - 1 : bucket.last]
        assert bucket.tokens == own.numel()
        assert bucket.nats_per_token == pytest.approx(own.mean().item(), rel=1e-5)
        assert bucket.low < bucket.nats_per_token < bucket.high


def test_the_length_is_what_the_model_reads_if_not_given(model):
    assert loss_by_position(model, texts(256, 300)).length == 256


def test_no_more_texts_than_asked_for_are_read(model):
    found = loss_by_position(model, texts(40, 50), length=32, max_texts=1)
    assert (found.texts, found.short_texts) == (1, 0)
    assert found.buckets[0].low is None


def test_wrong_lengths_are_refused(model):
    with pytest.raises(ConfigError, match=r"positions\.length: 257 tokens are more than the 256 positions"):
        loss_by_position(model, texts(300), length=257, setting="evaluation.positions.length")
    with pytest.raises(ConfigError, match="length=1 leaves no token to predict; give a length of at least 2"):
        loss_by_position(model, texts(300), length=1)
    with pytest.raises(InputError, match="none of the 2 texts has 100 tokens; lower the length"):
        loss_by_position(model, texts(30, 40), length=100)
