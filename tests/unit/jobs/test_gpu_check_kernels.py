"""Checks of kernels: each passes on this CPU, and fails when what it checks is broken."""

import importlib.util

import pytest
import torch

from baltoro.jobs.gpu_check import attention, losses, nf4, optimizers, speed
from baltoro.models import attention as subject

CPU = torch.device("cpu")


@pytest.fixture(autouse=True)
def one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def verdicts(findings, word=""):
    """The verdict of each finding with a word in its name."""
    found = {one.name: one.verdict for one in findings if word in one.name}
    assert found, f"nothing is called {word}"
    return found


def all_pass(findings):
    assert not [one for one in findings if one.verdict not in ("passed", "not available", "measured")]
    assert any(one.verdict == "passed" for one in findings)


def judged(findings, word):
    return {verdict for verdict in verdicts(findings, word).values() if verdict != "not available"}


# --------------------------------------------------------------------------------------------------
# Attention


@pytest.fixture
def only_sdpa(monkeypatch):
    monkeypatch.setattr(attention, "KERNELS", ("sdpa",))


@pytest.fixture
def float32_alone(monkeypatch):
    monkeypatch.setattr(attention, "PRECISIONS", ("float32",))


def around_sdpa(monkeypatch, change):
    """Put something around PyTorch's kernel."""
    original = torch.nn.functional.scaled_dot_product_attention
    monkeypatch.setattr(
        torch.nn.functional,
        "scaled_dot_product_attention",
        lambda *states, **settings: change(original, *states, **settings),
    )


def test_attention_passes_and_says_which_kernels_cannot_be_tried_here():
    findings = attention.check_attention(CPU)
    all_pass(findings)
    assert judged(findings, "sdpa") == {"passed"}
    for kernel in ("flex", "flash_varlen"):
        for precision in ("bfloat16", "float32"):
            (finding,) = [one for one in findings if one.name == f"{kernel} {precision}"]
            assert finding.verdict == "not available"
            assert "it needs a GPU, not cpu" in finding.details
    names = " ".join(one.name for one in findings)
    assert all(f"GQA {groups}, head {size}" in names for groups in (1, 4, 8) for size in (64, 128))
    assert "8192 tokens" in names


def test_attention_fails_with_a_wrong_scale(only_sdpa, monkeypatch):
    def louder(kernel, *states, scale, **settings):
        return kernel(*states, scale=1.05 * scale, **settings)

    around_sdpa(monkeypatch, louder)
    findings = attention.check_attention(CPU)
    assert judged(findings, "sdpa bfloat16: GQA") == judged(findings, "sdpa float32: GQA") == {"failed"}


def test_attention_fails_where_segments_leak(only_sdpa, monkeypatch):
    def causal_alone(segment_ids, row, query, key):
        return (key <= query) & (segment_ids[row, key] != 0) | (key == query)

    monkeypatch.setattr(subject, "may_attend", causal_alone)
    assert judged(attention.check_attention(CPU), "sdpa") == {"failed"}


def test_attention_fails_where_tokens_see_the_next_one(only_sdpa, float32_alone, monkeypatch):
    def one_ahead(segment_ids, row, query, key):
        own = segment_ids[row, query]
        return (key == query) | ((own == segment_ids[row, key]) & (own != 0) & (key <= query + 1))

    monkeypatch.setattr(subject, "may_attend", one_ahead)
    assert judged(attention.check_attention(CPU), "sdpa") == {"failed"}


def test_attention_fails_when_only_a_gradient_is_wrong(only_sdpa, float32_alone, monkeypatch):
    def doubled_gradient(kernel, query, key, value, **settings):
        return kernel(query, key, 2.0 * value - value.detach(), **settings)

    around_sdpa(monkeypatch, doubled_gradient)
    findings = attention.check_attention(CPU)
    assert judged(findings, "sdpa") == {"failed"}
    (finding, *_) = [one for one in findings if one.verdict == "failed"]
    output, *_ = finding.details.split(", ")
    assert float(output.removeprefix("output ")) < 1e-5


def test_attention_fails_when_padding_is_no_number(only_sdpa, float32_alone, monkeypatch):
    def hole(kernel, query, key, value, *, attn_mask, **settings):
        output = kernel(query, key, value, attn_mask=attn_mask, **settings)
        # Positions that see one key alone, the padding, among them.
        alone = attn_mask.sum(dim=-1) == 1
        alone[..., 0] = False
        return output.masked_fill(alone[..., None], torch.nan)

    around_sdpa(monkeypatch, hole)
    assert judged(attention.check_attention(CPU), "sdpa") == {"failed"}


def written_out_varlen(query, key, value, begins, _begins, _longest, _longest_key, *, scale, **settings):
    """Variable-length attention as its kernel defines it, on any device."""
    groups = query.shape[1] // key.shape[1]
    outputs = []
    for start, end in zip(begins[:-1].tolist(), begins[1:].tolist(), strict=True):
        q, k, v = (states[start:end].transpose(0, 1) for states in (query, key, value))
        k, v = k.repeat_interleave(groups, 0), v.repeat_interleave(groups, 0)
        future = torch.ones(end - start, end - start, dtype=torch.bool).triu(1)
        weights = (q @ k.transpose(1, 2) * scale).masked_fill(future, -torch.inf).softmax(-1)
        outputs.append((weights @ v).transpose(0, 1))
    return torch.cat(outputs)


@pytest.fixture
def varlen_on_cpu(monkeypatch):
    """The path of flash_varlen, with a kernel that runs here in the place of the GPU's."""
    from torch.nn.attention import varlen

    monkeypatch.setattr(subject, "_what_lacks", lambda *_: None)
    monkeypatch.setattr(attention, "KERNELS", ("flash_varlen",))
    monkeypatch.setattr(varlen, "varlen_attn", written_out_varlen)


def test_the_path_of_varlen_passes_with_a_right_kernel(varlen_on_cpu):
    findings = attention.check_attention(CPU)
    all_pass(findings)
    assert judged(findings, "flash_varlen") == {"passed"}


def test_the_path_of_varlen_fails_when_boundaries_are_wrong(varlen_on_cpu, float32_alone, monkeypatch):
    right = subject.packed_boundaries

    def without_the_second(segment_ids):
        boundaries = right(segment_ids)
        return torch.cat([boundaries[:1], boundaries[2:]])

    monkeypatch.setattr(subject, "packed_boundaries", without_the_second)
    assert judged(attention.check_attention(CPU), "flash_varlen") == {"failed"}


def test_a_kernel_that_raises_fails_and_the_next_one_is_tried_all_the_same(float32_alone, monkeypatch):
    def broken(*arguments, **settings):
        raise RuntimeError("CUDA error: an illegal memory access was encountered")

    from torch.nn.attention import varlen

    monkeypatch.setattr(subject, "_what_lacks", lambda *_: None)
    monkeypatch.setattr(attention, "KERNELS", ("flash_varlen", "sdpa"))
    monkeypatch.setattr(varlen, "varlen_attn", broken)
    findings = attention.check_attention(CPU)
    assert judged(findings, "flash_varlen") == {"failed"}
    assert judged(findings, "sdpa") == {"passed"}
    assert "illegal memory access" in findings[0].details


# --------------------------------------------------------------------------------------------------
# Loss


def test_the_loss_passes_and_liger_is_told_to_be_missing():
    findings = losses.check_loss(CPU)
    all_pass(findings)
    assert judged(findings, "full") == judged(findings, "chunked") == {"passed"}
    assert verdicts(findings, "liger") == {
        "liger bfloat16": "not available",
        "liger float32": "not available",
    }


def around_chunked(monkeypatch, change):
    from baltoro.train import loss

    original = loss.chunked_cross_entropy_sum
    monkeypatch.setattr(
        loss,
        "chunked_cross_entropy_sum",
        lambda *tensors, **settings: change(original(*tensors, **settings)),
    )


@pytest.mark.parametrize(
    "change",
    [
        lambda loss: 1.05 * loss,
        lambda loss: 2.0 * loss - loss.detach(),
        lambda loss: loss + torch.nan,
    ],
    ids=["value", "gradient", "not a number"],
)
def test_the_loss_fails_in_the_implementation_that_is_wrong_and_in_no_other(change, monkeypatch):
    around_chunked(monkeypatch, change)
    findings = losses.check_loss(CPU)
    assert judged(findings, "chunked") == {"failed"}
    assert judged(findings, "full") == {"passed"}


def test_the_loss_fails_when_a_chunk_is_left_out(monkeypatch):
    from baltoro.train import loss

    original = loss.chunked_cross_entropy_sum

    def without_the_end(hidden, weight, bias, labels, *, chunk_tokens):
        whole = len(hidden) // chunk_tokens * chunk_tokens
        return original(hidden[:whole], weight, bias, labels[:whole], chunk_tokens=chunk_tokens)

    monkeypatch.setattr(loss, "chunked_cross_entropy_sum", without_the_end)
    assert judged(losses.check_loss(CPU), "chunked") == {"failed"}


# --------------------------------------------------------------------------------------------------
# NF4

needs_bitsandbytes = pytest.mark.skipif(
    importlib.util.find_spec("bitsandbytes") is None, reason="bitsandbytes is not installed"
)


@needs_bitsandbytes
def test_nf4_passes_on_this_cpu():
    findings = nf4.check_nf4(CPU)
    all_pass(findings)
    assert judged(findings, "gradient after an evaluation bfloat16") <= {"passed", "measured"}


def around_layer(monkeypatch, change):
    import bitsandbytes

    original = bitsandbytes.nn.Linear4bit.forward
    monkeypatch.setattr(
        bitsandbytes.nn.Linear4bit, "forward", lambda layer, inputs: change(original, layer, inputs)
    )


@needs_bitsandbytes
def test_nf4_fails_when_products_are_wrong(monkeypatch):
    around_layer(monkeypatch, lambda forward, layer, inputs: 1.1 * forward(layer, inputs))
    findings = nf4.check_nf4(CPU)
    assert judged(findings, "forward") == judged(findings, "input gradient") == {"failed"}
    assert judged(findings, "quantisation error") == {"passed"}


@needs_bitsandbytes
def test_nf4_fails_when_an_evaluation_changes_the_weights(monkeypatch):
    def spoilt(forward, layer, inputs):
        output = forward(layer, inputs)
        if not layer.training:
            layer.weight.quant_state.absmax.random_(0, 256)
        return output

    around_layer(monkeypatch, spoilt)
    findings = nf4.check_nf4(CPU)
    assert verdicts(findings)["gradient after an evaluation bfloat16"] == "failed"
    assert verdicts(findings)["forward bfloat16"] == "passed"


@needs_bitsandbytes
def test_nf4_fails_when_an_evaluation_loses_the_gradient(monkeypatch):
    evaluated = set()

    def lost(forward, layer, inputs):
        if not layer.training:
            evaluated.add(id(layer))
        output = forward(layer, inputs)
        return output.detach() + 0.0 * inputs.sum() if id(layer) in evaluated else output

    around_layer(monkeypatch, lost)
    assert verdicts(nf4.check_nf4(CPU))["gradient after an evaluation float32"] == "failed"


@needs_bitsandbytes
@pytest.mark.parametrize("kind", ["fp4", "exact"])
def test_nf4_fails_when_the_quantisation_is_another_one(kind, monkeypatch):
    original = nf4.unpacked
    if kind == "exact":
        monkeypatch.setattr(nf4, "EXPECTED_ERROR", (0.08, 0.09))
    else:
        coarse = tuple(round(4 * quantile) / 4 for quantile in nf4.QUANTILES)
        monkeypatch.setattr(nf4, "QUANTILES", coarse)
    findings = nf4.check_nf4(CPU)
    assert original is nf4.unpacked
    assert "failed" in judged(findings, "quantisation error")


def test_nf4_without_bitsandbytes_is_not_available(monkeypatch):
    monkeypatch.setattr(nf4.importlib.util, "find_spec", lambda name: None)
    (finding,) = nf4.check_nf4(CPU)
    assert finding.verdict == "not available"
    assert "pip install 'baltoro[nf4]'" in finding.details


# --------------------------------------------------------------------------------------------------
# Optimizers


def test_optimizers_pass_and_paged_ones_are_told_to_need_a_gpu():
    findings = optimizers.check_optimizers(CPU)
    all_pass(findings)
    assert judged(findings, "adamw fused") == judged(findings, "adamw foreach") == {"passed"}
    assert verdicts(findings, "paged_adamw")["paged_adamw_8bit"] == "not available"


def test_optimizers_fail_when_nothing_decays(monkeypatch):
    from baltoro.optim import optimizer

    original = optimizer.build_param_groups
    monkeypatch.setattr(
        optimizer,
        "build_param_groups",
        lambda model, **settings: original(model, **{**settings, "weight_decay": 0.0}),
    )
    assert verdicts(optimizers.check_optimizers(CPU))["adamw fused: 30 steps"] == "failed"


@pytest.mark.parametrize("key", ["exp_avg", "exp_avg_sq", "step"])
def test_optimizers_fail_when_a_part_of_the_state_is_not_taken_over(key, monkeypatch):
    def forgetful(original):
        def load(self, state):
            original(self, state)
            for entry in self.state.values():
                if torch.is_tensor(entry[key]):
                    entry[key].zero_()
                else:
                    entry[key].values.zero_()

        return load

    from baltoro.optim.eight_bit import BitsAndBytesAdamW

    for kind in (torch.optim.AdamW, BitsAndBytesAdamW):
        monkeypatch.setattr(kind, "load_state_dict", forgetful(kind.load_state_dict))
    findings = optimizers.check_optimizers(CPU)
    assert judged(findings, "saved and loaded") == {"failed"}
    assert judged(findings, "30 steps") == {"passed"}


@needs_bitsandbytes
def test_optimizers_fail_when_the_8_bit_kernel_does_something_else(monkeypatch):
    import bitsandbytes.functional as kernels

    original = kernels.optimizer_update_8bit_blockwise

    def without_first_moment(*arguments, **settings):
        changed = list(arguments)
        changed[5] = 0.0
        return original(*changed, **settings)

    monkeypatch.setattr(kernels, "optimizer_update_8bit_blockwise", without_first_moment)
    findings = verdicts(optimizers.check_optimizers(CPU))
    assert findings["adamw_8bit: 30 steps"] == "failed"
    assert findings["adamw fused: 30 steps"] == "passed"


# --------------------------------------------------------------------------------------------------
# Speed


def test_a_product_far_below_the_peak_is_a_warning_that_says_what_to_look_for():
    slow = speed.judge_product("product", 300e12, 989.5e12, "8192 × 8192 × 8192")
    assert slow.verdict == "warning"
    assert slow.bound == pytest.approx(395.8)
    assert "30 % of the peak of 990 TFLOP/s" in slow.details
    assert "another process" in slow.details
    assert speed.judge_product("product", 700e12, 989.5e12, "8192 × 8192 × 8192").verdict == "measured"


def test_copies_and_products_are_measured_on_a_cpu():
    findings = [*speed._measure_copies(CPU), *speed._measure_product(CPU)]
    assert [one.verdict for one in findings] == ["measured", "measured"]
    assert all(one.value > 0 for one in findings)
