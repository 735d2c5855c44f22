import pytest
import torch
import torch.distributed as dist

from baltoro.data.collate import collate
from baltoro.models.load import build_model, decoder_blocks, load_weights
from baltoro.optim.config import OptimizerConfig
from baltoro.optim.optimizer import build_optimizer
from baltoro.parallel import ddp
from baltoro.parallel.config import ParallelConfig
from baltoro.parallel.timing import PhaseTimer
from baltoro.testing.distributed import run_distributed
from baltoro.testing.tiny import tiny_plan, tiny_rows
from baltoro.train.loss import next_token_loss_sum

pytestmark = pytest.mark.distributed


def built(precision="float32", trained=lambda name: True):
    plan = tiny_plan()
    strategy = ddp.Ddp(
        ParallelConfig(),
        device=torch.device("cpu"),
        precision=precision,
        max_gradient_norm=1.0,
        timer=PhaseTimer(torch.device("cpu")),
    )
    model = build_model(plan)
    for name, parameter in model.named_parameters():
        parameter.requires_grad = trained(name)
    strategy.setup(
        model,
        blocks=decoder_blocks(model),
        load=lambda whole, assign: load_weights(whole, plan, assign),
        build_optimizer=lambda whole: build_optimizer(whole, OptimizerConfig()),
        loss_sum=next_token_loss_sum,
    )
    return strategy, model


class Traffic:
    """Counts the elements that are sent, and whether a backward pass was still running."""

    def __init__(self):
        self.elements, self.calls = 0, 0
        self._original = dist.all_reduce

    def __enter__(self):
        def counting(tensor, *args, **kwargs):
            self.elements += tensor.numel()
            self.calls += 1
            return self._original(tensor, *args, **kwargs)

        dist.all_reduce = counting
        return self

    def __exit__(self, *_):
        dist.all_reduce = self._original


def traffic():
    ddp.BUCKET_BYTES = 16 << 10
    strategy, model = built()
    inputs = collate(tiny_rows(2, 32))
    parameters = sum(parameter.numel() for parameter in model.parameters())
    with Traffic() as early:
        for _ in range(3):
            strategy.forward_backward(inputs, denominator=100, last=False)
    # The first block's gradients are the last: what is sent before them is sent while the pass runs.
    sent_before_the_end = []
    with Traffic() as final:
        first = model.model.layers[0].self_attn.q_proj.weight
        first.register_post_accumulate_grad_hook(lambda _: sent_before_the_end.append(final.calls))
        strategy.forward_backward(inputs, denominator=100, last=True)
    return early.calls, final.elements / parameters, sent_before_the_end[0], final.calls


def test_only_the_last_micro_batch_talks_and_does_so_during_its_backward_pass():
    for early, share, sent_before_the_end, calls in run_distributed(traffic, 2):
        assert early == 0
        assert 1.0 <= share < 1.05
        assert calls >= 4
        assert 0 < sent_before_the_end < calls


def gradients(precision):
    strategy, model = built(precision)
    inputs = collate(tiny_rows(4, 32, seed=dist.get_rank()))
    strategy.forward_backward(inputs, denominator=50, last=False)
    strategy.forward_backward(inputs, denominator=50, last=True)
    return {name: parameter.grad.clone() for name, parameter in model.named_parameters()}


def test_gradients_are_sums_over_micro_batches_and_ranks():
    first, second = run_distributed(gradients, 2, "float32")
    plan = tiny_plan()
    model = build_model(plan).to_empty(device="cpu")
    load_weights(model, plan)
    for rank in (0, 1):
        (next_token_loss_sum(model, collate(tiny_rows(4, 32, seed=rank))) * 2 / 50).backward()
    for name, parameter in model.named_parameters():
        assert torch.equal(first[name], second[name])
        assert torch.allclose(first[name], parameter.grad, rtol=1e-4, atol=1e-6), name


def low_precision():
    strategy, model = built("bfloat16")
    seen, kept = set(), set()
    layer = model.model.layers[0].mlp.up_proj
    layer.register_forward_hook(lambda module, inputs, output: seen.add((module.weight.dtype, output.dtype)))
    tied = []
    model.lm_head.register_forward_hook(
        lambda module, inputs, output: tied.append(module.weight is model.model.embed_tokens.weight)
    )
    inputs = collate(tiny_rows(4, 32))
    losses = []
    for _ in range(8):
        losses.append(float(strategy.forward_backward(inputs, denominator=inputs.valid_tokens, last=True)))
        kept |= {parameter.dtype for parameter in model.parameters()}
        kept |= {parameter.grad.dtype for parameter in model.parameters()}
        strategy.clip_and_step(1e-2)
    before = float(strategy.evaluate(inputs))
    # One value far below what bfloat16 can tell apart next to the weight: kept by the master.
    with torch.no_grad():
        layer.weight.add_(1e-6)
    weight = layer.weight.detach()
    changed = float((weight - weight.bfloat16().float()).abs().max())
    return seen, kept, tied, losses, before, changed, model.training


def test_bfloat16_computes_in_bfloat16_and_keeps_float32_masters_and_gradients():
    for seen, kept, tied, losses, evaluated, changed, training in run_distributed(low_precision, 2):
        assert seen == {(torch.bfloat16, torch.bfloat16)}
        assert kept == {torch.float32}
        assert all(tied)
        assert losses[-1] < 0.8 * losses[0]
        assert evaluated < losses[-1]
        assert changed > 0
        assert training


def frozen():
    strategy, _ = built("bfloat16", trained=lambda name: "mlp" in name)
    parameters = dict(strategy._model.named_parameters())
    before = {name: value.detach().clone() for name, value in parameters.items()}
    inputs = collate(tiny_rows(4, 32))
    strategy.forward_backward(inputs, denominator=inputs.valid_tokens, last=True)
    strategy.clip_and_step(1e-2)
    exported = {name for name, _ in strategy.full_parameters()}
    return {name: torch.equal(value, before[name]) for name, value in parameters.items()}, exported


def test_frozen_weights_stay_and_need_no_gradient():
    for unchanged, exported in run_distributed(frozen, 2):
        assert exported == {name for name in unchanged if "mlp" in name}
        assert unchanged == {name: "mlp" not in name for name in unchanged}
        assert set(unchanged.values()) == {True, False}


def timed():
    strategy, _ = built("bfloat16")
    inputs = collate(tiny_rows(2, 32))
    strategy.forward_backward(inputs, denominator=10, last=False)
    strategy.forward_backward(inputs, denominator=10, last=True)
    strategy.clip_and_step(1e-2)
    return strategy._timer.take()


def test_the_phases_of_a_step_are_counted():
    for seconds in run_distributed(timed, 2):
        assert set(seconds) == {"forward", "backward", "optimizer"}
        assert all(value > 0 for value in seconds.values())
