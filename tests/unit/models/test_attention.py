import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import (
    AutoModelForCausalLM,
    GPTNeoXConfig,
    LlamaConfig,
    MistralConfig,
    OPTConfig,
    Qwen2Config,
    Qwen3Config,
)

from baltoro.models.attention import packed_causal_mask

SHAPE = {
    "vocab_size": 64,
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "max_position_embeddings": 64,
}
GATED = {**SHAPE, "intermediate_size": 64, "num_key_value_heads": 2}
CONFIGS = {
    "llama": LlamaConfig(**GATED),
    "mistral": MistralConfig(**GATED, sliding_window=None),
    "qwen2": Qwen2Config(**GATED),
    "qwen3": Qwen3Config(**GATED, head_dim=8),
    "gpt_neox": GPTNeoXConfig(**SHAPE, intermediate_size=64),
    "opt": OPTConfig(**SHAPE, ffn_dim=64, word_embed_proj_dim=32, dropout=0.0),
}
LENGTHS = (7, 1, 12)
PADDING = 4


@pytest.fixture(params=sorted(CONFIGS))
def model(request):
    torch.manual_seed(0)
    config = CONFIGS[request.param]
    return AutoModelForCausalLM.from_config(config, attn_implementation="sdpa", dtype=torch.float32).eval()


def packed(seed=0):
    generator = torch.Generator().manual_seed(seed)
    width = sum(LENGTHS) + PADDING
    input_ids = torch.randint(0, 64, (1, width), generator=generator)
    parts = [*enumerate(LENGTHS, start=1), (0, PADDING)]
    segment_ids = torch.cat([torch.full((length,), segment) for segment, length in parts])[None]
    position_ids = torch.cat([torch.arange(length) for _, length in parts])[None]
    return input_ids, segment_ids.int(), position_ids


def logits(model, input_ids, segment_ids, position_ids):
    with torch.no_grad():
        return model(
            input_ids=input_ids,
            attention_mask=packed_causal_mask(segment_ids),
            position_ids=position_ids,
            use_cache=False,
        ).logits


def test_a_packed_row_gives_each_segment_the_logits_it_has_alone(model):
    input_ids, segment_ids, position_ids = packed()
    together = logits(model, input_ids, segment_ids, position_ids)
    start = 0
    for length in LENGTHS:
        with torch.no_grad():
            alone = model(input_ids=input_ids[:, start : start + length], use_cache=False).logits
        torch.testing.assert_close(together[:, start : start + length], alone, atol=1e-5, rtol=0)
        start += length


def test_changing_a_token_changes_no_earlier_output_and_no_other_segment(model):
    input_ids, segment_ids, position_ids = packed()
    before = logits(model, input_ids, segment_ids, position_ids)
    changed = input_ids.clone()
    position = 10
    changed[0, position] = (changed[0, position] + 1) % 64
    after = logits(model, changed, segment_ids, position_ids)
    differs = (before != after).any(dim=-1)[0]
    end = sum(LENGTHS)
    assert differs[position]
    assert not differs[:position].any()
    assert not differs[end:].any()
    assert differs[position:end].all()


def test_rows_of_nothing_but_padding_give_finite_outputs_and_gradients():
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(
        CONFIGS["llama"], attn_implementation="sdpa", dtype=torch.float32
    )
    input_ids = torch.zeros(2, 8, dtype=torch.long)
    segment_ids = torch.tensor([[0] * 8, [1] * 5 + [0] * 3], dtype=torch.int32)
    output = model(
        input_ids=input_ids,
        attention_mask=packed_causal_mask(segment_ids),
        position_ids=input_ids,
        use_cache=False,
    ).logits
    output.sum().backward()
    assert torch.isfinite(output).all()
    assert all(torch.isfinite(parameter.grad).all() for parameter in model.parameters())


@settings(deadline=None)
@given(st.lists(st.integers(0, 3), min_size=1, max_size=12))
def test_the_mask_is_what_its_definition_says(segments):
    mask = packed_causal_mask(torch.tensor([segments], dtype=torch.int32))
    assert mask.shape == (1, 1, len(segments), len(segments))
    for query, own in enumerate(segments):
        for key, other in enumerate(segments):
            expected = key == query or (key <= query and own == other and own != 0)
            assert bool(mask[0, 0, query, key]) == expected
