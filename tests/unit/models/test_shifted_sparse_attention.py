import copy
import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn.attention import varlen
from torch.nn.attention.flex_attention import create_mask, flex_attention
from torch.nn.functional import scaled_dot_product_attention
from torch.utils._python_dispatch import TorchDispatchMode
from transformers import (
    AttentionInterface,
    AutoModelForCausalLM,
    Cohere2Config,
    Gemma2Config,
    Gemma3TextConfig,
    GPTNeoConfig,
    GPTNeoXConfig,
    LlamaConfig,
    MistralConfig,
    OPTConfig,
    Qwen2Config,
    Qwen3Config,
)

from baltoro.core.errors import ConfigError
from baltoro.data.collate import collate
from baltoro.models import shifted_sparse_attention as module_under_test
from baltoro.models.attention import SDPA, Attention
from baltoro.models.load import build_model, decoder_blocks, load_weights
from baltoro.models.shifted_groups import may_attend_shifted, shifted_block_masks, shifted_groups
from baltoro.models.shifted_sparse_attention import (
    ShiftedSparseAttention,
    choose_group_len,
    shifted_sparse_attention,
)
from baltoro.models.windowed_layers import refuse_windowed_layers
from baltoro.parallel.activation_checkpoint import checkpoint_blocks
from baltoro.testing.tiny import tiny_plan, tiny_rows
from baltoro.train.config import LossConfig
from baltoro.train.loss import make_loss_sum


@pytest.fixture(autouse=True)
def one_thread():
    """Thousands of small operations gain nothing from threads that wait for each other."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


# The slow reference: one row, one head, one token at a time ------------------------------------------------


def groups_of_segment(length, group_len, shifted):
    """The group of each token of a segment, by walking along it and cutting where a boundary is."""
    boundaries, cut = set(), group_len // 2 if shifted else group_len
    while cut < length:
        boundaries.add(cut)
        cut += group_len
    numbers, current = [], 0
    for rank in range(length):
        current += rank in boundaries and rank > 0
        numbers.append(current)
    return numbers


def allowed_keys(segments, real, group_len, shifted):
    """For each position of one row, the positions it may look at; none for padding."""
    members_of = {}
    for position, segment in enumerate(segments):
        if real[position]:
            members_of.setdefault(segment, []).append(position)
    allowed = [[] for _ in segments]
    for members in members_of.values():
        numbers = groups_of_segment(len(members), group_len, shifted)
        for rank, position in enumerate(members):
            allowed[position] = [
                members[earlier] for earlier in range(rank + 1) if numbers[earlier] == numbers[rank]
            ]
    return allowed


def visible(segments, real, group_len, shifted):
    """[T, T], true where a query (row) may look at a key (column)."""
    mask = torch.zeros(len(segments), len(segments), dtype=torch.bool)
    for position, keys in enumerate(allowed_keys(segments, real, group_len, shifted)):
        mask[position, keys] = True
    return mask


def reference(query, key, value, *, group_len, segment_ids=None, padding_mask=None, scaling=None):
    rows, heads, tokens, size = query.shape
    ratio = heads // key.shape[1]
    scale = 1 / math.sqrt(size) if scaling is None else scaling
    outputs = []
    for row in range(rows):
        segments = [0] * tokens if segment_ids is None else segment_ids[row].tolist()
        real = [True] * tokens if padding_mask is None else padding_mask[row].tolist()
        masks = [visible(segments, real, group_len, shifted) for shifted in (False, True)]
        for head in range(heads):
            mask = masks[head >= heads // 2]
            scores = (query[row, head] @ key[row, head // ratio].T) * scale
            highest = scores.masked_fill(~mask, -1e9).amax(dim=1, keepdim=True)
            weights = torch.exp((scores - highest).masked_fill(~mask, -1e9))
            # The sum is 0 for padding alone, whose output is to be zero.
            weights = weights / weights.sum(dim=1, keepdim=True).clamp(min=1e-30)
            outputs.append(weights @ value[row, head // ratio])
    return torch.stack(outputs).view(rows, heads, tokens, value.shape[3])


# On plain tensors -----------------------------------------------------------------------------------------


def states(rows, heads, key_heads, tokens, size=4, seed=0, dtype=torch.float64):
    generator = torch.Generator().manual_seed(seed)
    return tuple(
        torch.randn(rows, count, tokens, size, generator=generator, dtype=dtype).requires_grad_()
        for count in (heads, key_heads, key_heads)
    )


def segments_of(rows, tokens):
    """Segments of 1, 2, 3 … tokens, starting elsewhere in each row."""
    lengths = torch.arange(1, math.isqrt(2 * (tokens + rows)) + 2)
    ids = torch.repeat_interleave(lengths, lengths)
    return torch.stack([ids[row : row + tokens] for row in range(rows)])


def padding_of(side, rows, tokens):
    mask = torch.ones(rows, tokens, dtype=torch.bool)
    padded = tokens // 3
    if padded and side == "right":
        mask[0, -padded:] = False
    elif padded and side == "left":
        mask[0, :padded] = False
    return mask


def assert_like_reference(inputs, atol=1e-12, **settings):
    found = shifted_sparse_attention(*inputs, **settings)
    expected = reference(*inputs, **settings)
    assert found.shape == expected.shape
    torch.testing.assert_close(found, expected, atol=atol, rtol=0)
    weights = torch.randn(found.shape, generator=torch.Generator().manual_seed(9), dtype=found.dtype)
    for ours, theirs in zip(
        torch.autograd.grad((found * weights).sum(), inputs),
        torch.autograd.grad((expected * weights).sum(), inputs),
        strict=True,
    ):
        torch.testing.assert_close(ours, theirs, atol=10 * atol, rtol=0)


@pytest.mark.parametrize("ratio", [1, 4, 8])
@pytest.mark.parametrize("side", ["none", "right", "left"])
@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize(("tokens", "group_len"), [(1, 8), (7, 3), (64, 15)])
def test_it_computes_what_the_slow_reference_does(tokens, group_len, packed, side, ratio):
    assert_like_reference(
        states(2, 8, 8 // ratio, tokens),
        group_len=group_len,
        segment_ids=segments_of(2, tokens) if packed else None,
        padding_mask=None if side == "none" else padding_of(side, 2, tokens),
    )


@pytest.mark.parametrize(("tokens", "group_len"), [(4274, 1069), (1408, 352)])
def test_it_computes_what_the_slow_reference_does_at_lengths_of_papers(tokens, group_len):
    # 1,408 tokens in groups of 352 are 11,264 in groups of 2,816, an eighth as long.
    inputs = states(1, 2, 1, tokens, size=2)
    found = shifted_sparse_attention(*inputs, group_len=group_len)
    with torch.no_grad():
        expected = reference(*inputs, group_len=group_len)
    torch.testing.assert_close(found, expected, atol=1e-12, rtol=0)


@pytest.mark.parametrize(("heads", "key_heads"), [(1, 1), (3, 1), (5, 5), (6, 3), (6, 2), (9, 3), (10, 2)])
def test_heads_that_do_not_halve_evenly_are_split_at_half_rounded_down(heads, key_heads):
    assert_like_reference(states(1, heads, key_heads, 21), group_len=8)


def test_single_precision_differs_by_rounding_only():
    inputs = states(2, 4, 2, 200, size=16, dtype=torch.float32)
    settings = {"group_len": 48, "segment_ids": segments_of(2, 200)}
    found = shifted_sparse_attention(*inputs, **settings)
    expected = reference(*(part.double() for part in inputs), **settings)
    torch.testing.assert_close(found.double(), expected, atol=2e-6, rtol=0)


def test_the_factor_of_the_scores_and_the_size_of_values_are_free():
    query, key, value = states(1, 4, 2, 20)
    assert_like_reference(
        (query, key, torch.cat([value, value], dim=3).detach().requires_grad_()), group_len=8
    )
    assert_like_reference((query, key, value), group_len=8, scaling=0.3)


row_of_tokens = st.integers(1, 40).flatmap(
    lambda tokens: st.tuples(
        st.lists(st.integers(0, 3), min_size=tokens, max_size=tokens),
        st.lists(st.booleans(), min_size=tokens, max_size=tokens),
    )
)


@settings(max_examples=25, deadline=None)
@given(row_of_tokens, st.integers(1, 50), st.sampled_from([(2, 2), (3, 1), (8, 1)]))
def test_any_segments_and_padding_are_computed_as_the_slow_reference_does(row, group_len, heads):
    segments, real = row
    assert_like_reference(
        states(1, *heads, len(segments)),
        group_len=group_len,
        segment_ids=torch.tensor([segments]),
        padding_mask=torch.tensor([real]),
    )


@settings(max_examples=25, deadline=None)
@given(st.integers(2, 60), st.integers(1, 30), st.data())
def test_changing_a_token_changes_no_earlier_output_and_no_other_segment(tokens, group_len, data):
    segment_ids = torch.tensor([data.draw(st.lists(st.integers(0, 2), min_size=tokens, max_size=tokens))])
    position = data.draw(st.integers(0, tokens - 1))
    inputs = [part.detach() for part in states(1, 4, 2, tokens)]
    before = shifted_sparse_attention(*inputs, group_len=group_len, segment_ids=segment_ids)
    changed = [part.clone() for part in inputs]
    for part in changed:
        part[:, :, position] += 1.0
    after = shifted_sparse_attention(*changed, group_len=group_len, segment_ids=segment_ids)
    differs = (before != after).any(dim=(0, 1, 3))
    assert differs[position]
    assert not differs[:position].any()
    assert not differs[segment_ids[0] != segment_ids[0, position]].any()


def test_the_first_tokens_do_not_see_the_last():
    query, key, value = states(1, 2, 2, 64)
    output = shifted_sparse_attention(query, key, value, group_len=16)
    (gradient,) = torch.autograd.grad(output[0, :, :8].sum(), value)
    assert torch.equal(gradient[0, :, 8:], torch.zeros(2, 56, 4, dtype=torch.float64))


@pytest.mark.parametrize("side", ["none", "right", "left"])
def test_one_group_over_the_sequence_is_full_attention(side):
    inputs, tokens = states(2, 4, 2, 50), 50
    mask = padding_of(side, 2, tokens)
    found = shifted_sparse_attention(*inputs, group_len=2 * tokens, padding_mask=mask)
    causal = torch.ones(tokens, tokens, dtype=torch.bool).tril() & mask[:, None, None, :]
    alone = torch.eye(tokens, dtype=torch.bool)
    expected = scaled_dot_product_attention(*inputs, attn_mask=causal | alone, enable_gqa=True)
    torch.testing.assert_close(found, expected * mask[:, None, :, None], atol=1e-12, rtol=0)


def test_without_padding_a_long_enough_group_is_torchs_causal_attention_to_the_bit():
    inputs = states(2, 4, 4, 50, dtype=torch.float32)
    found = shifted_sparse_attention(*inputs, group_len=100)
    assert torch.equal(found, scaled_dot_product_attention(*inputs, is_causal=True))


def test_lower_heads_are_full_at_a_group_as_long_as_the_sequence_and_upper_ones_are_cut_in_half():
    inputs = states(1, 2, 2, 10)
    found = shifted_sparse_attention(*inputs, group_len=10)
    full = scaled_dot_product_attention(*inputs, is_causal=True)
    torch.testing.assert_close(found[:, 0], full[:, 0])
    torch.testing.assert_close(found[:, 1, :5], full[:, 1, :5])
    assert not torch.isclose(found[:, 1, 5:], full[:, 1, 5:]).any()


def test_padding_gives_zeros_and_lets_nothing_through():
    inputs = states(1, 4, 2, 30)
    mask = torch.ones(1, 30, dtype=torch.bool)
    mask[0, [0, 1, 12, 28, 29]] = False
    poisoned = tuple(
        part.detach().masked_fill(~mask[:, None, :, None], math.nan).requires_grad_() for part in inputs
    )
    output = shifted_sparse_attention(*poisoned, group_len=8, padding_mask=mask)
    assert (output[:, :, ~mask[0]] == 0).all()
    real = [part[:, :, mask[0]].detach() for part in inputs]
    torch.testing.assert_close(output[:, :, mask[0]], shifted_sparse_attention(*real, group_len=8))
    for gradient in torch.autograd.grad(output.sum(), poisoned):
        assert torch.isfinite(gradient).all()
        assert (gradient[:, :, ~mask[0]] == 0).all()


def test_a_batch_of_nothing_but_padding_has_gradients_of_zero():
    inputs = states(2, 4, 2, 5)
    output = shifted_sparse_attention(*inputs, group_len=2, padding_mask=torch.zeros(2, 5, dtype=torch.bool))
    assert torch.equal(output, torch.zeros_like(output))
    for gradient in torch.autograd.grad(output.sum(), inputs):
        assert torch.equal(gradient, torch.zeros_like(gradient))


class LargestTensor(TorchDispatchMode):
    elements = 0

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        output = function(*args, **(kwargs or {}))
        for tensor in output if isinstance(output, tuple | list) else [output]:
            if isinstance(tensor, torch.Tensor):
                self.elements = max(self.elements, tensor.numel())
        return output


def test_memory_grows_with_the_tokens_not_with_their_square():
    tokens = 5_000
    inputs = states(1, 2, 2, tokens, dtype=torch.float32)
    mask, segment_ids = padding_of("left", 1, tokens), segments_of(1, tokens)
    with LargestTensor() as largest:
        output = shifted_sparse_attention(*inputs, group_len=128, segment_ids=segment_ids, padding_mask=mask)
        output.sum().backward()
    assert largest.elements <= 2 * 4 * tokens


@pytest.mark.parametrize(("rows", "tokens"), [(2, 0), (0, 5), (0, 0)])
def test_of_no_tokens_comes_nothing(rows, tokens):
    query, key, value = (part.detach() for part in states(2, 4, 2, 5))
    inputs = [part[:rows, :, :tokens].clone().requires_grad_() for part in (query, key, value)]
    inputs[2] = torch.zeros(rows, 2, tokens, 7, dtype=torch.float64, requires_grad=True)
    output = shifted_sparse_attention(*inputs, group_len=2, padding_mask=torch.ones(rows, tokens))
    assert output.shape == (rows, 4, tokens, 7)
    assert output.dtype == torch.float64
    output.sum().backward()
    assert [part.grad.shape for part in inputs] == [part.shape for part in inputs]


@pytest.mark.parametrize(
    ("changes", "complaint"),
    [
        ({"group_len": 0}, "group_len=0: a group has a whole number of tokens, at least one"),
        ({"group_len": 2.5}, "group_len=2.5: a group has a whole number of tokens, at least one"),
        (
            {"segment_ids": torch.zeros(1, 9)},
            r"segment_ids \(1, 9\): one entry per token is needed, \(1, 10\)",
        ),
        ({"padding_mask": torch.ones(2, 10)}, r"padding_mask \(2, 10\)"),
        ({"value": torch.ones(1, 2, 9, 4)}, "do not belong together"),
        ({"key": torch.ones(1, 3, 10, 4), "value": torch.ones(1, 3, 10, 4)}, "4 query heads cannot share 3"),
    ],
)
def test_inputs_that_do_not_fit_are_refused(changes, complaint):
    query, key, value = states(1, 4, 2, 10)
    arguments = {"query": query, "key": key, "value": value, "group_len": 4, **changes}
    with pytest.raises(ConfigError, match=complaint):
        shifted_sparse_attention(**arguments)


# Groups and masks -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("tokens", "group_len", "lower", "upper"),
    [
        (10, 4, [4, 4, 2], [2, 4, 4]),
        (8, 4, [4, 4], [2, 4, 2]),
        (10, 5, [5, 5], [2, 5, 3]),
        (3, 8, [3], [3]),
        (6, 8, [6], [4, 2]),
        (3, 1, [1, 1, 1], [1, 1, 1]),
        (1, 2, [1], [1]),
    ],
)
def test_boundaries_lie_at_multiples_and_half_a_group_later(tokens, group_len, lower, upper):
    groups = shifted_groups(torch.zeros(1, tokens, dtype=torch.int32), group_len)
    found = [torch.bincount(groups[0, half])[1:].tolist() for half in (0, 1)]
    assert found == [lower, upper]


def test_groups_are_counted_inside_a_segment_and_in_real_tokens():
    segment_ids = torch.tensor([[5, 5, 5, 5, 5, 2, 2, 2, 0, 0]])
    padding_mask = torch.tensor([[False, True, True, True, True, True, True, True, True, True]])
    groups = shifted_groups(segment_ids, 2, padding_mask)
    assert groups[0, 0].tolist() == [0, 4, 4, 5, 5, 2, 2, 3, 1, 1]
    assert groups[0, 1].tolist() == [0, 5, 6, 6, 7, 3, 4, 4, 1, 2]


@settings(max_examples=30, deadline=None)
@given(row_of_tokens, st.integers(1, 20))
def test_flex_attentions_masks_are_the_references(row, group_len):
    segments, real = row
    tokens = len(segments)
    groups = shifted_groups(torch.tensor([segments]), group_len, torch.tensor([real]))
    for half, block_mask in enumerate(shifted_block_masks(groups)):
        mask = create_mask(block_mask.mask_mod, 1, 1, tokens, tokens, device="cpu")[0, 0]
        keys = allowed_keys(segments, real, group_len, bool(half))
        for position, allowed in enumerate(keys):
            assert mask[position].nonzero().flatten().tolist() == (allowed if real[position] else [position])


def test_the_definition_takes_rows_and_halves_as_tensors():
    groups = shifted_groups(segments_of(2, 12), 3)
    index = torch.arange(12)
    mask = may_attend_shifted(
        groups,
        torch.arange(2)[:, None, None, None],
        torch.arange(2)[:, None, None],
        index[:, None],
        index[None],
    )
    assert mask.shape == (2, 2, 12, 12)
    for half, block_mask in enumerate(shifted_block_masks(groups)):
        expected = create_mask(block_mask.mask_mod, 2, 1, 12, 12, device="cpu")[:, 0]
        assert torch.equal(mask[:, half], expected)


# In models ------------------------------------------------------------------------------------------------

SHAPE = {"vocab_size": 64, "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4}
GATED = {**SHAPE, "max_position_embeddings": 64, "intermediate_size": 64, "num_key_value_heads": 2}
CONFIGS = {
    "llama": LlamaConfig(**GATED),
    "llama_one_key_head": LlamaConfig(**{**GATED, "num_key_value_heads": 1}),
    "mistral": MistralConfig(**GATED, sliding_window=None),
    "qwen2": Qwen2Config(**GATED),
    "qwen3": Qwen3Config(**GATED, head_dim=8),
    "gpt_neox": GPTNeoXConfig(**SHAPE, intermediate_size=64),
    "opt": OPTConfig(**SHAPE, ffn_dim=64, word_embed_proj_dim=32, dropout=0.0),
}
LENGTHS, PADDING, GROUP_LEN = (7, 1, 12), 4, 4
S2 = ShiftedSparseAttention("sdpa", group_len=GROUP_LEN)


def model_of(name, implementation):
    torch.manual_seed(0)
    # A copy, since the name of the attention is written into it.
    return AutoModelForCausalLM.from_config(
        copy.deepcopy(CONFIGS[name]), attn_implementation=implementation, dtype=torch.float32
    )


def packed_rows():
    generator = torch.Generator().manual_seed(0)
    parts = [*enumerate(LENGTHS, start=1), (0, PADDING)]
    segment_ids = torch.cat([torch.full((length,), segment) for segment, length in parts])[None].int()
    position_ids = torch.cat([torch.arange(length) for _, length in parts])[None]
    rows = torch.cat([segment_ids, segment_ids.new_ones(segment_ids.shape)])
    positions = torch.cat([position_ids, torch.arange(position_ids.shape[1])[None]])
    return torch.randint(0, 64, rows.shape, generator=generator), rows, positions


def run(model, arguments):
    input_ids, _, position_ids = packed_rows()
    return model(input_ids=input_ids, position_ids=position_ids, use_cache=False, **arguments).logits


def outputs_and_gradients(model, arguments):
    """Logits of real tokens, and gradients of a loss in which each has its own weight."""
    _, segment_ids, _ = packed_rows()
    output = run(model, arguments)[segment_ids != 0]
    weights = torch.randn(output.shape, generator=torch.Generator().manual_seed(1))
    model.zero_grad()
    (output * weights).sum().backward()
    return [output.detach(), *(parameter.grad.clone() for parameter in model.parameters())]


def reference_interface(_module, query, key, value, _mask, *, reference_rows, scaling=None, **_others):
    output = reference(
        query,
        key,
        value,
        group_len=GROUP_LEN,
        segment_ids=reference_rows,
        padding_mask=reference_rows != 0,
        scaling=scaling,
    )
    return output.transpose(1, 2), None


AttentionInterface.register("slow_reference", reference_interface)


def assert_equal_lists(found, expected, atol=1e-4):
    for ours, theirs in zip(found, expected, strict=True):
        torch.testing.assert_close(ours, theirs, atol=atol, rtol=1e-4)


@pytest.mark.parametrize("name", sorted(CONFIGS))
def test_a_training_model_computes_what_it_does_with_the_slow_reference(name):
    _, segment_ids, _ = packed_rows()
    expected = outputs_and_gradients(
        model_of(name, "slow_reference").train(), {"reference_rows": segment_ids}
    )
    model = model_of(name, S2.implementation()).train()
    assert_equal_lists(outputs_and_gradients(model, S2.arguments(segment_ids)), expected)


@pytest.mark.parametrize("name", sorted(CONFIGS))
def test_an_evaluating_model_has_full_attention(name):
    _, segment_ids, _ = packed_rows()
    model = model_of(name, S2.implementation())
    with torch.no_grad():
        full = run(model_of(name, "sdpa").eval(), SDPA.arguments(segment_ids))
        evaluated = run(model.eval(), S2.arguments(segment_ids))
        trained = run(model.train(), S2.arguments(segment_ids))
    assert torch.equal(evaluated, full)
    assert not torch.allclose(trained, full, atol=1e-3)


def test_training_makes_no_mask_of_full_attention(monkeypatch):
    _, segment_ids, _ = packed_rows()
    model = model_of("llama", S2.implementation()).train()
    monkeypatch.setattr(Attention, "arguments", lambda *_: pytest.fail("full attention was prepared"))
    run(model, ShiftedSparseAttention.arguments(S2, segment_ids)).sum().backward()


@pytest.mark.parametrize("mode", ["none", "selective", "full"])
def test_groups_are_worked_out_once_for_all_layers_and_recomputation_changes_nothing(mode, monkeypatch):
    _, segment_ids, _ = packed_rows()
    plain = model_of("llama", S2.implementation()).train()
    expected = outputs_and_gradients(plain, S2.arguments(segment_ids))
    calls = []

    def counted(*arguments):
        calls.append(arguments)
        return shifted_groups(*arguments)

    monkeypatch.setattr(module_under_test, "shifted_groups", counted)
    model = model_of("llama", S2.implementation()).train()
    checkpoint_blocks(decoder_blocks(model), mode)
    assert_equal_lists(outputs_and_gradients(model, S2.arguments(segment_ids)), expected, atol=1e-6)
    assert len(calls) == 1


def test_attention_dropout_of_the_model_is_applied_in_training():
    _, segment_ids, _ = packed_rows()
    config = LlamaConfig(**GATED, attention_dropout=0.5)
    model = AutoModelForCausalLM.from_config(
        config, attn_implementation=S2.implementation(), dtype=torch.float32
    ).train()
    torch.manual_seed(1)
    first = run(model, S2.arguments(segment_ids))
    torch.manual_seed(1)
    assert torch.equal(run(model, S2.arguments(segment_ids)), first)
    assert not torch.equal(run(model, S2.arguments(segment_ids)), first)


@pytest.mark.parametrize("implementation", ["full", "chunked"])
def test_the_training_loss_takes_it_like_any_other_attention(implementation):
    plan = tiny_plan()
    inputs = collate(tiny_rows(3, 48))
    losses, gradients = [], []
    for attention in (ShiftedSparseAttention("sdpa", group_len=96), SDPA):
        model = build_model(plan, attention).to_empty(device="cpu").train()
        load_weights(model, plan)
        loss = make_loss_sum(LossConfig(implementation=implementation), attention, torch.device("cpu"))(
            model, inputs
        )
        loss.backward()
        losses.append(loss.detach())
        gradients.append([parameter.grad for parameter in model.parameters()])
    # In groups of twice the row everything sees what it sees with full attention.
    torch.testing.assert_close(losses[0], losses[1])
    assert_equal_lists(*gradients)


@pytest.mark.filterwarnings("ignore:flex_attention called without torch.compile")
@pytest.mark.parametrize("name", ["llama_one_key_head"])
def test_flex_attention_computes_the_same(name, monkeypatch):
    from transformers.integrations import flex_attention as integration

    def uncompiled(*arguments, training, **settings):
        return flex_attention(*arguments, **settings)

    monkeypatch.setattr(integration, "compile_friendly_flex_attention", uncompiled)
    _, segment_ids, _ = packed_rows()
    flex = ShiftedSparseAttention("flex", group_len=GROUP_LEN)
    logits = []
    for attention in (flex, S2):
        model = model_of(name, attention.implementation())
        with torch.no_grad():
            logits += [
                run(model.train(), attention.arguments(segment_ids))[segment_ids != 0],
                run(model.eval(), attention.arguments(segment_ids))[segment_ids != 0],
            ]
    assert_equal_lists(logits[:2], logits[2:], atol=1e-5)


def slow_varlen(query, key, value, starts, same_starts, longest, same_longest, **settings):
    """What torch's kernel documents, sequence by sequence."""
    assert settings["window_size"] == (-1, 0)
    assert torch.equal(starts, same_starts)
    assert int(starts.diff().max()) == longest == same_longest
    assert starts.dtype == torch.int32
    pieces = []
    for start, stop in zip(starts[:-1].tolist(), starts[1:].tolist(), strict=True):
        sequence = (states[start:stop].transpose(0, 1)[None] for states in (query, key, value))
        output = scaled_dot_product_attention(
            *sequence, is_causal=True, scale=settings["scale"], enable_gqa=settings["enable_gqa"]
        )
        pieces.append(output[0].transpose(0, 1))
    return torch.cat(pieces)


@pytest.mark.parametrize("name", sorted(CONFIGS))
def test_flash_attention_over_groups_computes_the_same(name, monkeypatch):
    monkeypatch.setattr(varlen, "varlen_attn", slow_varlen)
    _, segment_ids, _ = packed_rows()
    flash = ShiftedSparseAttention("flash_varlen", group_len=GROUP_LEN)
    found, expected = (
        outputs_and_gradients(
            model_of(name, attention.implementation()).train(), attention.arguments(segment_ids)
        )
        for attention in (flash, S2)
    )
    assert_equal_lists(found, expected)
    with torch.no_grad():
        evaluated = run(model_of(name, flash.implementation()).eval(), flash.arguments(segment_ids))
        full = run(model_of(name, "sdpa").eval(), SDPA.arguments(segment_ids))
    assert_equal_lists([evaluated[segment_ids != 0]], [full[segment_ids != 0]], atol=1e-5)


def test_rows_of_padding_alone_give_finite_gradients():
    segment_ids = torch.zeros(2, sum(LENGTHS) + PADDING, dtype=torch.int32)
    model = model_of("llama", S2.implementation()).train()
    run(model, S2.arguments(segment_ids)).sum().backward()
    assert all(torch.isfinite(parameter.grad).all() for parameter in model.parameters())


def test_scores_that_a_model_changes_are_refused_not_left_unchanged():
    _, segment_ids, _ = packed_rows()
    query, key, value = states(2, 4, 2, sum(LENGTHS) + PADDING)
    attend = AttentionInterface()[S2.implementation()]
    module = torch.nn.Linear(1, 1).train()
    shifted_rows = S2.arguments(segment_ids)["shifted_rows"]
    with pytest.raises(ConfigError, match=r"Linear changes its attention scores \(softcap\)"):
        attend(module, query, key, value, None, softcap=50.0, shifted_rows=shifted_rows)


def test_a_compiled_block_computes_the_same():
    _, segment_ids, _ = packed_rows()
    model = model_of("llama", S2.implementation()).train()
    expected = outputs_and_gradients(model, S2.arguments(segment_ids))
    for block in decoder_blocks(model):
        # Traced as for real, then run as it is: what matters here is where the graph is cut.
        block.forward = torch.compile(block.forward, backend="eager")
    assert_equal_lists(outputs_and_gradients(model, S2.arguments(segment_ids)), expected, atol=1e-6)


# Settings -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("context", "settings", "expected"),
    [
        (12_288, {}, 3072),
        (11_264, {}, 2816),
        (4274, {}, 1069),
        (1, {}, 1),
        (100, {"ratio": 0.07}, 7),
        (8192, {"ratio": 0.5}, 4096),
        (8192, {"group_len": 100}, 100),
        (8192, {"group_len": 16_384}, 16_384),
    ],
)
def test_a_group_is_a_part_of_the_row_or_so_many_tokens(context, settings, expected):
    assert choose_group_len(context, **settings) == expected


@pytest.mark.parametrize(
    ("settings", "complaint"),
    [
        ({"group_len": 0}, "group_len=0: a group has a whole number of tokens, at least one"),
        ({"group_len": 2.5}, "group_len=2.5: a group has a whole number of tokens"),
        ({"group_len": 2002}, "group_len=2002: a group has 1 to 2000 tokens in rows of 1000; .* here 250"),
        ({"group_len": 2001}, "group_len=2001"),
        ({"ratio": 0.0}, "group_ratio=0.0: a group is a part of the row"),
        ({"ratio": 1.5}, "group_ratio=1.5"),
    ],
)
def test_groups_that_are_none_or_longer_than_two_rows_are_refused(settings, complaint):
    with pytest.raises(ConfigError, match=complaint):
        choose_group_len(1000, **settings)


@pytest.mark.parametrize(
    ("config", "layers", "widen", "full"),
    [
        (MistralConfig(sliding_window=4096), "32 of the 32", "sliding_window: 12288", "sliding_window: null"),
        (
            Qwen3Config(use_sliding_window=True, num_hidden_layers=32, max_window_layers=28),
            "4 of the 32",
            "sliding_window: 12288",
            "layer_types: full_attention for every layer",
        ),
        (Gemma2Config(), "13 of the 26", "sliding_window: 12288", "layer_types: full_attention"),
        (Gemma3TextConfig(), "sliding", "sliding_window: 12288", "layer_types: full_attention"),
        (Cohere2Config(), "sliding", "sliding_window: 12288", "layer_types: full_attention"),
        (GPTNeoConfig(), "12 of the 24", "window_size: 12288", "attention_layers: global"),
    ],
    ids=lambda value: getattr(value, "model_type", None),
)
def test_windows_shorter_than_the_row_are_refused_with_both_remedies(config, layers, widen, full):
    with pytest.raises(ConfigError) as caught:
        refuse_windowed_layers(config.to_dict(), context_tokens=12_288, base="mine")
    message = caught.value.message
    assert layers in message
    assert f"widen the window to the context ({widen})" in message
    assert f"or give the layers full attention ({full}" in message


@pytest.mark.parametrize(
    "config",
    [
        {"num_hidden_layers": 4, "sliding_window": 4096},
        {"num_hidden_layers": 4, "sliding_window": 4096, "use_sliding_window": True},
        {"num_hidden_layers": 4, "sliding_window": 4096, "use_sliding_window": True, "max_window_layers": 2},
        {"num_hidden_layers": 4, "attention_chunk_size": 4096},
    ],
)
def test_windows_of_a_config_without_layer_types_are_refused(config):
    with pytest.raises(ConfigError, match="see a window of 4096 tokens"):
        refuse_windowed_layers(config, context_tokens=8192, base="mine")
    refuse_windowed_layers(config, context_tokens=4096, base="mine")


@pytest.mark.parametrize(
    "config",
    [
        *CONFIGS.values(),
        MistralConfig(sliding_window=12_288),
        Gemma2Config(sliding_window=12_288),
        Gemma2Config(layer_types=["full_attention"] * 26),
        Qwen2Config(use_sliding_window=True, max_window_layers=32, num_hidden_layers=32),
        Qwen2Config(use_sliding_window=False, sliding_window=4096),
    ],
)
def test_models_that_see_the_whole_row_are_taken(config):
    refuse_windowed_layers(config.to_dict(), context_tokens=12_288, base="mine")
    raw = {"sliding_window": 4096, "use_sliding_window": False, "num_hidden_layers": 2}
    refuse_windowed_layers(raw, context_tokens=12_288, base="mine")


def test_layers_of_another_kind_are_refused():
    config = {"layer_types": ["conv", "full_attention", "conv"]}
    with pytest.raises(ConfigError, match="2 of the 3 layers of mine are of kind 'conv'"):
        refuse_windowed_layers(config, context_tokens=64, base="mine")
