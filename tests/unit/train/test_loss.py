import logging
import sys
import types

import pytest
import torch
from torch.nn.functional import cross_entropy, linear
from torch.utils._python_dispatch import TorchDispatchMode
from transformers import AutoModelForCausalLM, GraniteConfig

from baltoro.core.errors import ConfigError
from baltoro.data.collate import IGNORED_LABEL, collate, without_targets
from baltoro.models.attention import SDPA
from baltoro.models.load import build_model, load_weights
from baltoro.testing.tiny import tiny_plan, tiny_rows
from baltoro.train.chunked_loss import chunked_cross_entropy_sum
from baltoro.train.config import LossConfig
from baltoro.train.loss import _liger, _LossAtProjection, make_loss_sum, next_token_loss_sum

CPU = torch.device("cpu")


def model_of(**settings):
    plan = tiny_plan(**settings)
    model = build_model(plan)
    model.to_empty(device="cpu")
    load_weights(model, plan)
    return model.train()


def loss_function(implementation, chunk_tokens=1024):
    return make_loss_sum(LossConfig(implementation=implementation, chunk_tokens=chunk_tokens), SDPA, CPU)


def loss_and_gradients(model, function, inputs):
    model.zero_grad()
    loss = function(model, inputs)
    (loss / 7).backward()
    return loss.detach(), {name: value.grad.clone() for name, value in model.named_parameters()}


@pytest.mark.parametrize("tied", [True, False])
@pytest.mark.parametrize("chunk_tokens", [1, 10, 64, 1024])
def test_chunks_of_any_size_give_the_loss_and_gradients_of_full_logits(tied, chunk_tokens):
    model, inputs = model_of(tied=tied), collate(tiny_rows(3, 32))
    full_loss, full = loss_and_gradients(model, loss_function("full"), inputs)
    loss, gradients = loss_and_gradients(model, loss_function("chunked", chunk_tokens), inputs)
    torch.testing.assert_close(loss, full_loss, atol=0, rtol=1e-6)
    for name, expected in full.items():
        torch.testing.assert_close(gradients[name], expected, atol=1e-6, rtol=1e-6)


def test_the_gradient_is_right_to_the_last_digits_of_float64_arithmetic():
    generator = torch.Generator().manual_seed(0)
    hidden, weight, bias = (
        torch.randn(shape, generator=generator, requires_grad=True) for shape in ((50, 8), (33, 8), (33,))
    )
    labels = torch.randint(0, 33, (50,), generator=generator)
    labels[::7] = IGNORED_LABEL
    loss = chunked_cross_entropy_sum(hidden, weight, bias, labels, chunk_tokens=16)
    found = torch.autograd.grad(loss * 3.0, (hidden, weight, bias))
    exact = [value.detach().double().requires_grad_() for value in (hidden, weight, bias)]
    expected = cross_entropy(linear(*exact), labels, ignore_index=IGNORED_LABEL, reduction="sum")
    torch.testing.assert_close(loss.double(), expected, atol=0, rtol=1e-6)
    for one, other in zip(found, torch.autograd.grad(expected * 3.0, exact), strict=True):
        torch.testing.assert_close(one.double(), other, atol=5e-6, rtol=1e-5)


def test_a_frozen_projection_gets_no_gradient_and_hidden_states_still_do():
    hidden = torch.randn(6, 4, requires_grad=True)
    weight = torch.randn(9, 4)
    chunked_cross_entropy_sum(hidden, weight, None, torch.arange(6), chunk_tokens=4).backward()
    assert hidden.grad.abs().sum() > 0
    assert weight.grad is None


def test_the_loss_cannot_be_differentiated_twice_unnoticed():
    weight = torch.randn(9, 4, requires_grad=True)
    loss = chunked_cross_entropy_sum(torch.randn(6, 4), weight, None, torch.arange(6), chunk_tokens=4)
    loss.backward(retain_graph=True)
    with pytest.raises(RuntimeError, match="differentiated already"):
        loss.backward()


class LargestTensor(TorchDispatchMode):
    """The most elements any operation has returned in one tensor."""

    def __init__(self):
        super().__init__()
        self.elements = 0

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        result = function(*args, **(kwargs or {}))
        for value in result if isinstance(result, tuple | list) else [result]:
            if isinstance(value, torch.Tensor):
                self.elements = max(self.elements, value.numel())
        return result


@pytest.mark.parametrize("vocabulary_size", [512, 4096])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_no_tensor_is_larger_than_a_chunk_of_logits_in_either_pass(vocabulary_size, dtype):
    hidden = torch.randn(640, 8, dtype=dtype, requires_grad=True)
    weight = torch.randn(vocabulary_size, 8, dtype=dtype, requires_grad=True)
    labels = torch.randint(0, vocabulary_size, (640,))
    with LargestTensor() as largest:
        chunked_cross_entropy_sum(hidden, weight, None, labels, chunk_tokens=64).backward()
    assert largest.elements == 64 * vocabulary_size
    with LargestTensor() as largest:
        cross_entropy(linear(hidden, weight).float(), labels).backward()
    assert largest.elements == 640 * vocabulary_size


def test_evaluation_computes_no_gradient_of_the_projection():
    weight = torch.randn(4096, 8, requires_grad=True)
    with torch.no_grad(), LargestTensor() as largest:
        loss = chunked_cross_entropy_sum(torch.randn(64, 8), weight, None, torch.arange(64), chunk_tokens=16)
    assert not loss.requires_grad
    assert largest.elements == 16 * 4096


def test_bfloat16_sums_the_projections_gradient_over_chunks_in_float32():
    generator = torch.Generator().manual_seed(0)
    hidden = torch.randn(512, 16, generator=generator).bfloat16()
    weight = torch.randn(64, 16, generator=generator).bfloat16().requires_grad_()
    labels = torch.randint(0, 64, (512,), generator=generator)
    exact = weight.detach().double().requires_grad_()
    cross_entropy(linear(hidden.double(), exact), labels, reduction="sum").backward()
    errors = []
    for chunk_tokens in (512, 4):
        weight.grad = None
        chunked_cross_entropy_sum(hidden, weight, None, labels, chunk_tokens=chunk_tokens).backward()
        errors.append(float((weight.grad.double() - exact.grad).norm() / exact.grad.norm()))
    assert max(errors) < 5e-3


def test_a_batch_without_targets_costs_nothing_and_moves_nothing():
    model, inputs = model_of(), without_targets(collate(tiny_rows(2, 32)))
    loss, gradients = loss_and_gradients(model, loss_function("chunked", 10), inputs)
    assert loss == 0.0
    assert all(not gradient.any() for gradient in gradients.values())


def test_the_model_gives_logits_again_after_the_loss_and_after_an_error():
    model, inputs = model_of(), collate(tiny_rows(1, 32))
    function = loss_function("chunked")
    function(model, inputs)
    assert model(input_ids=inputs.input_ids, use_cache=False).logits.shape == (1, 32, 264)
    with pytest.raises(IndexError):
        function(
            model,
            collate(tiny_rows(1, 32)).__class__(
                inputs.input_ids + 999, inputs.segment_ids, inputs.position_ids, inputs.labels, 1, 1
            ),
        )
    assert "forward" not in model.lm_head.__dict__


def scaling_model():
    torch.manual_seed(0)
    config = GraniteConfig(
        vocab_size=264,
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        logits_scaling=5.0,
    )
    return AutoModelForCausalLM.from_config(config, attn_implementation="sdpa", dtype=torch.float32)


def test_auto_takes_all_logits_where_the_model_changes_them_afterwards_and_says_so(caplog):
    model, function = scaling_model(), loss_function("auto")
    # The first batch of an idle rank has no target: its loss of zero must not hide what others see.
    inputs = collate(tiny_rows(2, 32))
    with caplog.at_level(logging.WARNING):
        function(model, without_targets(inputs))
    assert "GraniteForCausalLM changes its logits after the output projection" in caplog.text
    torch.testing.assert_close(function(model, inputs), next_token_loss_sum(model, inputs))


def test_chunked_is_refused_where_the_model_changes_its_logits_afterwards():
    with pytest.raises(ConfigError, match=r"loss\.implementation=chunked: GraniteForCausalLM changes"):
        loss_function("chunked")(scaling_model(), collate(tiny_rows(1, 32)))


def test_auto_without_a_gpu_is_chunked_and_the_log_says_it(caplog):
    with caplog.at_level(logging.INFO):
        loss_function("auto", chunk_tokens=300)
    assert "at most 300 positions' logits at one time" in caplog.text


def test_liger_without_a_gpu_is_refused():
    with pytest.raises(
        ConfigError, match=r"loss\.implementation=liger: its kernels run on a GPU, not on cpu"
    ):
        loss_function("liger")


def test_ligers_kernel_is_called_as_it_documents(monkeypatch):
    class Kernel:
        def __init__(self, ignore_index, reduction):
            assert (ignore_index, reduction) == (IGNORED_LABEL, "sum")

        def __call__(self, lin_weight, _input, target, bias=None):
            return cross_entropy(linear(_input, lin_weight, bias), target, reduction="sum")

    package = types.ModuleType("liger_kernel.transformers")
    package.LigerFusedLinearCrossEntropyLoss = Kernel
    monkeypatch.setitem(sys.modules, "liger_kernel.transformers", package)
    model, inputs = model_of(), collate(tiny_rows(2, 32))
    loss = _LossAtProjection(SDPA, _liger, "liger")(model, inputs)
    torch.testing.assert_close(loss, next_token_loss_sum(model, inputs))
