"""The loss at each token is the model's own, whatever stands behind its decoder and however it trains."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch
from transformers import Gemma2Config, Gemma2ForCausalLM, LlamaForCausalLM, OPTConfig, OPTForCausalLM

from baltoro.core.errors import InputError
from baltoro.evaluation.scoring import evaluating, token_nats
from baltoro.models.load import build_model, load_weights
from baltoro.models.shifted_sparse_attention import ShiftedSparseAttention
from baltoro.testing.tiny import tiny_plan

VOCABULARY = 264


def tiny_model(attention=None):
    plan = tiny_plan()
    model = build_model(plan) if attention is None else build_model(plan, attention)
    model.to_empty(device="cpu")
    load_weights(model, plan)
    return model


def tokens(count, seed=0):
    return np.random.default_rng(seed).integers(3, VOCABULARY, count)


def by_all_logits(model, ids):
    """The plainest way: all logits at one time."""
    row = torch.from_numpy(ids)[None]
    with torch.no_grad():
        logits = model.eval()(input_ids=row).logits[0, :-1]
    return torch.nn.functional.cross_entropy(logits, row[0, 1:], reduction="none").numpy()


def opt_model():
    torch.manual_seed(0)
    config = OPTConfig(
        vocab_size=VOCABULARY,
        hidden_size=32,
        ffn_dim=64,
        num_hidden_layers=2,
        num_attention_heads=4,
        max_position_embeddings=128,
        word_embed_proj_dim=16,
    )
    return OPTForCausalLM(config)


def capping_model():
    torch.manual_seed(0)
    config = Gemma2Config(
        vocab_size=VOCABULARY,
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        head_dim=8,
        final_logit_softcapping=0.05,
        attn_implementation="eager",
    )
    return Gemma2ForCausalLM(config)


@pytest.mark.parametrize("make", [tiny_model, opt_model, capping_model])
@pytest.mark.parametrize("chunk_tokens", [7, 512])
def test_pieces_give_what_all_logits_give(make, chunk_tokens):
    model, ids = make(), tokens(50)
    expected = by_all_logits(model, ids)
    with evaluating(model):
        found = token_nats(model, ids, chunk_tokens=chunk_tokens)
    assert found.shape == (49,)
    np.testing.assert_allclose(found, expected, rtol=1e-5)


def test_a_later_first_target_leaves_out_what_is_before_it_and_changes_nothing_else():
    model, ids = tiny_model(), tokens(50)
    with evaluating(model):
        whole, tail = token_nats(model, ids), token_nats(model, ids, first_target=30, chunk_tokens=8)
    assert len(tail) == 20
    np.testing.assert_allclose(tail, whole[29:], rtol=1e-5)


def test_no_more_logits_than_a_chunk_exist():
    model = tiny_model()
    sizes = []
    model.lm_head.register_forward_hook(lambda *call: sizes.append(call[2].shape[1]))
    with evaluating(model):
        token_nats(model, tokens(50), chunk_tokens=16)
    assert sizes == [16, 16, 16, 1]


def test_a_model_that_trains_with_shifted_groups_is_evaluated_with_full_attention_and_put_back():
    shifted = tiny_model(ShiftedSparseAttention("sdpa", group_len=8)).train()
    ids = tokens(50)
    with evaluating(shifted):
        assert not shifted.training
        assert not torch.is_grad_enabled()
        found = token_nats(shifted, ids)
    np.testing.assert_allclose(found, by_all_logits(tiny_model(), ids), rtol=1e-5)
    assert shifted.training
    assert shifted.config._attn_implementation == "baltoro_shifted_sparse"


def test_the_decoder_is_itself_again_even_after_an_error(monkeypatch):
    model = tiny_model()
    monkeypatch.setattr(model.lm_head, "forward", lambda hidden: 1 / 0)
    with evaluating(model), pytest.raises(ZeroDivisionError):
        token_nats(model, tokens(10))
    assert "forward" not in model.get_decoder().__dict__


def test_a_model_whose_logits_need_more_than_hidden_states_is_refused(monkeypatch):
    model = tiny_model()
    decoder = model.model

    def twice(self, input_ids, **settings):
        decoder(input_ids=input_ids)
        decoder(input_ids=input_ids)
        return SimpleNamespace(logits=torch.zeros(*input_ids.shape, VOCABULARY))

    monkeypatch.setattr(LlamaForCausalLM, "forward", twice)
    with evaluating(model), pytest.raises(InputError, match=r"piece by piece.*choose a decoder-only"):
        token_nats(model, tokens(10))
