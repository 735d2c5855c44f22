import logging

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn.attention import varlen
from torch.nn.attention.flex_attention import create_mask, flex_attention
from torch.nn.functional import scaled_dot_product_attention
from transformers import (
    AutoModelForCausalLM,
    GPTNeoXConfig,
    LlamaConfig,
    MistralConfig,
    OPTConfig,
    Qwen2Config,
    Qwen3Config,
)

from baltoro.core.errors import ConfigError
from baltoro.models.attention import (
    SDPA,
    Attention,
    choose_attention,
    packed_block_mask,
    packed_boundaries,
    packed_causal_mask,
)

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


def model_of(name, attention=SDPA):
    torch.manual_seed(0)
    return AutoModelForCausalLM.from_config(
        CONFIGS[name], attn_implementation=attention.implementation(), dtype=torch.float32
    ).eval()


@pytest.fixture(params=sorted(CONFIGS))
def model(request):
    return model_of(request.param)


def packed(seed=0):
    generator = torch.Generator().manual_seed(seed)
    width = sum(LENGTHS) + PADDING
    input_ids = torch.randint(0, 64, (1, width), generator=generator)
    parts = [*enumerate(LENGTHS, start=1), (0, PADDING)]
    segment_ids = torch.cat([torch.full((length,), segment) for segment, length in parts])[None]
    position_ids = torch.cat([torch.arange(length) for _, length in parts])[None]
    return input_ids, segment_ids.int(), position_ids


def run(model, input_ids, segment_ids, position_ids, attention=SDPA):
    return model(
        input_ids=input_ids, position_ids=position_ids, use_cache=False, **attention.arguments(segment_ids)
    ).logits


def logits(*arguments):
    with torch.no_grad():
        return run(*arguments)


def test_a_packed_row_gives_each_segment_the_logits_it_has_alone(model):
    input_ids, segment_ids, position_ids = packed()
    together = logits(model, input_ids, segment_ids, position_ids)
    start = 0
    for length in LENGTHS:
        with torch.no_grad():
            alone = model(input_ids=input_ids[:, start : start + length], use_cache=False).logits
        torch.testing.assert_close(together[:, start : start + length], alone, atol=1e-5, rtol=0)
        start += length


def gradients(model, outputs):
    """The gradient of a loss in which every output that is not padding has its own weight."""
    model.zero_grad()
    weights = torch.randn(sum(LENGTHS), 64, generator=torch.Generator().manual_seed(1))
    (torch.cat(outputs) * weights).sum().backward()
    return {name: value.grad.clone() for name, value in model.named_parameters()}


def test_a_packed_row_gives_the_gradients_of_its_segments_alone(model):
    input_ids, segment_ids, position_ids = packed()
    together = gradients(model, [run(model, input_ids, segment_ids, position_ids)[0, : sum(LENGTHS)]])
    pieces = input_ids[0, : sum(LENGTHS)].split(LENGTHS)
    alone = gradients(model, [model(input_ids=piece[None], use_cache=False).logits[0] for piece in pieces])
    for name, expected in alone.items():
        torch.testing.assert_close(together[name], expected, atol=2e-5, rtol=1e-4)


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


def rows_of_segments():
    return torch.tensor([[1] * 9 + [2] * 5 + [3] * 6 + [0] * 4, [1] * 24, [0] * 24], dtype=torch.int32)


def test_flex_attentions_mask_is_the_dense_one():
    segment_ids = rows_of_segments()
    block_mask = packed_block_mask(segment_ids)
    assert tuple(block_mask.shape) == (3, 1, 24, 24)
    from_function = create_mask(block_mask.mask_mod, 3, 1, 24, 24, device="cpu")
    assert torch.equal(from_function, packed_causal_mask(segment_ids))


@pytest.mark.filterwarnings("ignore:flex_attention called without torch.compile")
def test_flex_attention_computes_what_the_dense_mask_does():
    segment_ids = rows_of_segments()
    generator = torch.Generator().manual_seed(0)
    query, key, value = (torch.randn(3, heads, 24, 8, generator=generator) for heads in (4, 2, 2))
    output = flex_attention(query, key, value, block_mask=packed_block_mask(segment_ids), enable_gqa=True)
    expected = scaled_dot_product_attention(
        query, key, value, attn_mask=packed_causal_mask(segment_ids), enable_gqa=True
    )
    torch.testing.assert_close(output, expected)


@pytest.mark.filterwarnings("ignore:flex_attention called without torch.compile")
@pytest.mark.parametrize("name", ["llama", "opt"])
def test_models_take_flex_attentions_mask(name, monkeypatch):
    from transformers.integrations import flex_attention as integration

    def uncompiled(*arguments, training, **settings):
        return flex_attention(*arguments, **settings)

    monkeypatch.setattr(integration, "compile_friendly_flex_attention", uncompiled)
    flex = Attention("flex")
    found = logits(model_of(name, flex), *packed(), flex)
    torch.testing.assert_close(found, logits(model_of(name), *packed()), atol=1e-5, rtol=0)


@settings(deadline=None)
@given(st.lists(st.lists(st.integers(0, 3), min_size=6, max_size=6).map(sorted), min_size=1, max_size=3))
def test_boundaries_cut_the_rows_into_the_masks_blocks(rows):
    segment_ids = torch.tensor(rows, dtype=torch.int32)
    boundaries = packed_boundaries(segment_ids)
    assert boundaries.dtype == torch.int32
    number = torch.zeros(segment_ids.numel(), dtype=torch.long)
    number[boundaries[1:-1].long()] = 1
    number = number.cumsum(0).view(segment_ids.shape)
    mask = packed_causal_mask(segment_ids)[:, 0]
    for row, ids in enumerate(number):
        same_sequence = ids[:, None] == ids[None, :]
        real = segment_ids[row] != 0
        causal = torch.ones(6, 6, dtype=torch.bool).tril()
        assert torch.equal(mask[row][real], (same_sequence & causal)[real])
    assert len(set(number.flatten().tolist())) == len(boundaries) - 1


def reference_varlen(query, key, value, starts_q, starts_k, longest_q, longest_k, **settings):
    """What torch's kernel documents, sequence by sequence."""
    assert settings == {
        "scale": settings["scale"],
        "window_size": (-1, 0),
        "enable_gqa": key.shape[1] != query.shape[1],
    }
    assert query.is_contiguous()
    assert int(starts_q.diff().max()) == longest_q == longest_k
    pieces = []
    for start, stop in zip(starts_q[:-1].tolist(), starts_k[1:].tolist(), strict=True):
        states = (states[start:stop].transpose(0, 1)[None] for states in (query, key, value))
        output = scaled_dot_product_attention(
            *states, is_causal=True, scale=settings["scale"], enable_gqa=settings["enable_gqa"]
        )
        pieces.append(output[0].transpose(0, 1))
    return torch.cat(pieces)


@pytest.mark.parametrize("name", sorted(CONFIGS))
def test_varlen_attention_gives_the_dense_masks_logits_and_gradients(name, monkeypatch):
    monkeypatch.setattr(varlen, "varlen_attn", reference_varlen)
    inputs = [torch.cat(pair) for pair in zip(packed(0), packed(1), strict=True)]
    flash = Attention("flash_varlen")
    used, results = sum(LENGTHS), []
    for attention in (flash, SDPA):
        model = model_of(name, attention)
        output = run(model, *inputs, attention)[:, :used]
        output.square().sum().backward()
        results.append([output, *(value.grad for value in model.parameters())])
    for found, expected in zip(*results, strict=True):
        torch.testing.assert_close(found, expected, atol=1e-4, rtol=1e-4)


LLAMA = {"hidden_size": 64, "num_attention_heads": 4, "attention_dropout": 0.0}


def choose(name, *, device="cpu", precision="bfloat16", **config):
    return choose_attention(
        name, device=torch.device(device), precision=precision, config={**LLAMA, **config}
    ).kernel


@pytest.fixture
def gpu(monkeypatch):
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: (9, 0))


def test_without_a_gpu_auto_is_sdpa_and_the_log_says_why(caplog):
    with caplog.at_level(logging.INFO):
        assert choose("auto") == "sdpa"
    assert len(caplog.records) == 1
    assert "attention kernel: sdpa (flash_varlen: it needs a GPU, not cpu" in caplog.text


@pytest.mark.parametrize("name", ["flex", "flash_varlen"])
def test_a_kernel_for_gpus_is_refused_without_one(name):
    with pytest.raises(
        ConfigError, match=rf"attention={name}: it needs a GPU, not cpu; allowed here: auto, sdpa"
    ):
        choose(name)


def test_on_a_gpu_auto_takes_what_device_precision_and_model_allow(gpu, monkeypatch):
    assert choose("auto", device="cuda") == "flash_varlen"
    assert choose("auto", device="cuda", precision="float32") == "flex"
    assert choose("auto", device="cuda", head_dim=320) == "flex"
    assert choose("auto", device="cuda", attn_logit_softcapping=50.0) == "flex"
    assert choose("auto", device="cuda", attention_dropout=0.1) == "sdpa"
    assert choose("sdpa", device="cuda") == "sdpa"
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: (7, 0))
    assert choose("auto", device="cuda", precision="float16") == "sdpa"


def test_a_named_kernel_that_the_model_rules_out_is_refused_with_the_reason(gpu):
    with pytest.raises(
        ConfigError, match=r"attention=flex: it has no attention dropout, and the model's is 0\.1; allowed"
    ):
        choose("flex", device="cuda", attention_dropout=0.1)


def test_capped_scores_without_a_gpu_are_refused():
    with pytest.raises(ConfigError, match="no kernel fits this model on cpu: the model caps its attention"):
        choose("auto", attn_logit_softcapping=50.0)
