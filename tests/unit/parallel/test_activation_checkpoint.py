import weakref
from collections import Counter

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from baltoro.data.collate import collate
from baltoro.models.load import build_model, decoder_blocks, load_weights
from baltoro.parallel.activation_checkpoint import checkpoint_blocks
from baltoro.testing.tiny import tiny_plan, tiny_rows
from baltoro.train.loss import next_token_loss_sum

LAYERS = 3
LINEAR_LAYERS = 7 * LAYERS


class Watched(TorchDispatchMode):
    """Counts operators, and the bytes of what they gave that is still alive."""

    def __init__(self):
        super().__init__()
        self.calls = Counter()
        self.live_bytes = 0
        self._known = {}

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        result = function(*args, **(kwargs or {}))
        self.calls[function.name()] += 1
        for tensor in result if isinstance(result, (tuple, list)) else (result,):
            if isinstance(tensor, torch.Tensor):
                self._keep_watch(tensor.untyped_storage())
        return result

    def _keep_watch(self, storage):
        key = storage._cdata
        if key in self._known:
            return
        size_bytes = storage.nbytes()
        self.live_bytes += size_bytes

        def gone(_):
            self.live_bytes -= size_bytes
            del self._known[key]

        self._known[key] = weakref.ref(storage, gone)


def trained(mode, *, dropout=0.0):
    """Run both passes once; return gradients, kept bytes and what the backward pass ran."""
    plan = tiny_plan(layers=LAYERS)
    plan.config["attention_dropout"] = dropout
    model = build_model(plan)
    checkpoint_blocks(decoder_blocks(model), mode)
    model.to_empty(device="cpu")
    load_weights(model, plan)
    model.train()
    inputs = collate(tiny_rows(4, 64))
    torch.manual_seed(3)
    with Watched() as forward:
        loss = next_token_loss_sum(model, inputs)
        kept_bytes = forward.live_bytes
    with Watched() as backward:
        loss.backward()
    gradients = {name: parameter.grad for name, parameter in model.named_parameters()}
    return gradients, kept_bytes, backward.calls


@pytest.mark.parametrize("mode", ["selective", "full"])
@pytest.mark.parametrize("dropout", [0.0, 0.3])
def test_gradients_are_bitwise_those_of_a_block_that_keeps_everything(mode, dropout):
    expected, _, _ = trained("none", dropout=dropout)
    found, _, _ = trained(mode, dropout=dropout)
    assert list(found) == list(expected)
    for name in expected:
        assert torch.equal(found[name], expected[name]), name


def test_less_is_kept_and_only_what_is_meant_is_computed_again():
    _, none_bytes, none_calls = trained("none")
    _, selective_bytes, selective_calls = trained("selective")
    _, full_bytes, full_calls = trained("full")
    print(f"kept between the passes: none {none_bytes}, selective {selective_bytes}, full {full_bytes} bytes")
    assert full_bytes < 0.7 * selective_bytes < 0.7 * 0.85 * none_bytes
    # Two products for the gradients of every matrix; a third is one of the forward pass done again, which
    # ends before the last one of a block.
    assert none_calls["aten::mm"] == selective_calls["aten::mm"] == 2 * LINEAR_LAYERS + 2
    assert full_calls["aten::mm"] == 3 * LINEAR_LAYERS - LAYERS + 2
    attention = "aten::_scaled_dot_product_flash_attention_for_cpu"
    assert (selective_calls[attention], full_calls[attention]) == (0, LAYERS)
    # Norms and activations are cheap: selective does them again.
    assert selective_calls["aten::silu"] == LAYERS
    assert none_calls["aten::silu"] == 0


def test_none_leaves_blocks_as_they_are():
    model = build_model(tiny_plan())
    blocks = decoder_blocks(model)
    checkpoint_blocks(blocks, "none")
    assert all("forward" not in vars(block) for block in blocks)
