"""One loss curve and one checkpoint for all strategies, layouts, world sizes and accumulations."""

import hashlib

import numpy as np
import pytest
import torch
import torch.distributed as dist

from baltoro.core.errors import ConfigError
from baltoro.data.collate import collate, without_targets
from baltoro.models.attention import SDPA
from baltoro.models.load import build_model, decoder_blocks, load_weights
from baltoro.optim.config import OptimizerConfig
from baltoro.optim.optimizer import build_optimizer
from baltoro.parallel.build import build_strategy
from baltoro.parallel.config import ParallelConfig
from baltoro.parallel.timing import PhaseTimer
from baltoro.testing.distributed import run_distributed
from baltoro.testing.tiny import tiny_plan, tiny_rows
from baltoro.train.config import LossConfig
from baltoro.train.loss import make_loss_sum, next_token_loss_sum

pytestmark = [pytest.mark.distributed, pytest.mark.slow]

STEPS, ROWS_PER_STEP, SEQUENCE_LENGTH = 10, 8, 32

# What is held to one loss curve: name → (strategy, its settings). Another strategy joins by a line here;
# "hybrid" needs an even number of ranks.
LAYOUTS = {
    "fsdp2": ("fsdp2", {}),
    "fsdp2 keeping weights gathered": ("fsdp2", {"fsdp2": {"reshard_after_forward": False}}),
    "hybrid": ("fsdp2", {"dp_replicate": 2}),
    "ddp": ("ddp", {}),
}
ONE_RANK = ("fsdp2", "ddp")
TOLERANCE = {"float32": 1e-5, "bfloat16": 2e-2}


def built(layout, precision="float32", max_gradient_norm=1.0, loss_sum=next_token_loss_sum):
    name, settings = LAYOUTS[layout]
    plan = tiny_plan()
    strategy = build_strategy(
        name,
        ParallelConfig.model_validate(settings),
        device=torch.device("cpu"),
        precision=precision,
        max_gradient_norm=max_gradient_norm,
        timer=PhaseTimer(torch.device("cpu")),
    )
    model = build_model(plan)
    strategy.setup(
        model,
        blocks=decoder_blocks(model),
        load=lambda spread, assign: load_weights(spread, plan, assign),
        build_optimizer=lambda spread: build_optimizer(spread, OptimizerConfig()),
        loss_sum=loss_sum,
    )
    return strategy


def train(strategy, steps, micro_batch):
    """Train on this rank's rows of some steps; return their mean losses and gradient norms."""
    rank, world_size = dist.get_rank(), dist.get_world_size()
    rows = tiny_rows(STEPS * ROWS_PER_STEP, SEQUENCE_LENGTH)
    share = ROWS_PER_STEP // world_size
    losses, norms = [], []
    for step in steps:
        first = step * ROWS_PER_STEP
        whole = collate(rows.slice(first, first + ROWS_PER_STEP))
        total = torch.zeros(())
        starts = range(first + rank * share, first + (rank + 1) * share, micro_batch)
        for start in starts:
            inputs = collate(rows.slice(start, start + micro_batch))
            total += strategy.forward_backward(
                inputs, denominator=whole.valid_tokens, last=start == starts[-1]
            )
        dist.all_reduce(total)
        losses.append(float(total) / whole.valid_tokens)
        norms.append(strategy.clip_and_step(1e-2).gradient_norm)
    return losses, norms


def curves(layouts, precision, micro_batch, loss="full"):
    found = {}
    chosen = make_loss_sum(LossConfig(implementation=loss, chunk_tokens=24), SDPA, torch.device("cpu"))
    for layout in layouts:
        strategy = built(layout, precision, loss_sum=chosen)
        losses, norms = train(strategy, range(STEPS), micro_batch)
        weights = torch.cat([value.flatten() for _, value in strategy.full_parameters()])
        found[layout] = (losses, norms, weights.numpy())
    return found


@pytest.fixture(scope="module", params=["float32", "bfloat16"])
def precision(request):
    return request.param


@pytest.fixture(scope="module")
def alone(precision):
    """The curve that all others are held to: one rank, one micro-batch a step."""
    return run_distributed(curves, 1, ["fsdp2"], precision, ROWS_PER_STEP)[0]["fsdp2"]


@pytest.mark.parametrize(
    ("world_size", "micro_batch", "layouts"),
    [(1, 2, ONE_RANK), (2, 4, tuple(LAYOUTS)), (2, 1, tuple(LAYOUTS)), (4, 2, tuple(LAYOUTS))],
)
def test_every_strategy_world_size_and_accumulation_gives_one_loss_curve(
    alone, precision, world_size, micro_batch, layouts
):
    losses, norms, _ = alone
    # The curve has something to show, and clipping has something to clip.
    assert losses[-1] < losses[0] - 1.0
    assert max(norms) > 1.0
    ranks = run_distributed(curves, world_size, list(layouts), precision, micro_batch)
    for layout in layouts:
        found_losses, found_norms, weights = ranks[0][layout]
        deviation = np.abs(np.array(found_losses) - losses).max()
        print(f"{precision} {layout} world {world_size} micro-batch {micro_batch}: {deviation:.2e}")
        assert deviation <= TOLERANCE[precision], layout
        assert np.allclose(found_norms, norms, rtol=1e-4 if precision == "float32" else 5e-2), layout
        # All ranks decide on the same numbers, and hold the same weights.
        for other in ranks[1:]:
            assert other[layout][:2] == (found_losses, found_norms)
            assert np.array_equal(other[layout][2], weights)


def test_a_loss_without_whole_logits_gives_the_same_curve_under_every_strategy(alone, precision):
    losses, norms, _ = alone
    (found, _) = run_distributed(curves, 2, list(LAYOUTS), precision, 2, "chunked")
    for layout, (found_losses, found_norms, _) in found.items():
        assert np.abs(np.array(found_losses) - losses).max() <= TOLERANCE[precision], layout
        assert np.allclose(found_norms, norms, rtol=1e-4 if precision == "float32" else 5e-2), layout


def idle_rank(layouts):
    """Only rank 0 has rows that count; the others keep it company."""
    found = {}
    for layout in layouts:
        strategy = built(layout)
        inputs = collate(tiny_rows(2, SEQUENCE_LENGTH))
        mine = inputs if dist.get_rank() == 0 else without_targets(inputs)
        loss = strategy.forward_backward(mine, denominator=inputs.valid_tokens, last=True)
        found[layout] = (float(loss), strategy.clip_and_step(1e-2).gradient_norm)
    return found


def test_a_rank_without_rows_adds_nothing():
    layouts = list(ONE_RANK)
    (alone,) = run_distributed(idle_rank, 1, layouts)
    first, second = run_distributed(idle_rank, 2, layouts)
    for layout in layouts:
        assert first[layout] == pytest.approx(alone[layout], rel=1e-5)
        assert second[layout][0] == 0.0
        assert second[layout][1] == first[layout][1]


def poisoned_step(layouts):
    found = {}
    for layout in layouts:
        strategy = built(layout)
        before = {name: value.clone() for name, value in strategy.full_parameters()}
        inputs = collate(tiny_rows(2, SEQUENCE_LENGTH))
        original = strategy._loss_sum
        # Only rank 1 sees the poison; every rank must refuse the step.
        poison = float("nan") if dist.get_rank() == 1 else 1.0
        strategy._loss_sum = lambda model, inputs, loss=original, by=poison: loss(model, inputs) * by
        strategy.forward_backward(inputs, denominator=inputs.valid_tokens, last=True)
        dropped = strategy.clip_and_step(1e-2)
        strategy._loss_sum = original
        strategy.forward_backward(inputs, denominator=inputs.valid_tokens, last=True)
        left_out = strategy.leave_out()
        unchanged = all(torch.equal(before[name], value) for name, value in strategy.full_parameters())
        clean = strategy.forward_backward(inputs, denominator=inputs.valid_tokens, last=True)
        again = strategy.clip_and_step(1e-2)
        found[layout] = (dropped, left_out, unchanged, float(clean), again)
    return found


def test_a_gradient_that_is_not_finite_on_one_rank_is_dropped_on_all():
    for found in run_distributed(poisoned_step, 2, list(LAYOUTS)):
        for dropped, left_out, unchanged, clean, again in found.values():
            assert dropped.gradient_norm != dropped.gradient_norm
            assert (dropped.stepped, dropped.overflowed) == (False, False)
            assert left_out.gradient_norm != left_out.gradient_norm
            assert not left_out.stepped
            assert unchanged
            assert np.isfinite(clean)
            assert again.stepped


def unclipped(layouts):
    found = {}
    for layout in layouts:
        strategy = built(layout, max_gradient_norm=None)
        inputs = collate(tiny_rows(2, SEQUENCE_LENGTH))
        strategy.forward_backward(inputs, denominator=1, last=True)
        gradients = [parameter.grad for parameter in strategy._model.parameters()]
        before = [gradient.clone() for gradient in gradients]
        strategy._optimizer.step = lambda: None
        update = strategy.clip_and_step(1e-2)
        found[layout] = (
            update.gradient_norm,
            all(torch.equal(old, new) for old, new in zip(before, gradients, strict=True)),
        )
    return found


def test_without_a_limit_gradients_are_left_as_they_are():
    for norm, unchanged in run_distributed(unclipped, 1, list(ONE_RANK))[0].values():
        assert norm > 100.0
        assert unchanged


def digests_of(state):
    """Return a digest of every whole tensor of a state, weights and moments."""
    found = {}

    def visit(prefix, value):
        if isinstance(value, dict):
            for name, inner in value.items():
                visit(f"{prefix}.{name}", inner)
        elif isinstance(value, torch.Tensor):
            whole = value.full_tensor() if hasattr(value, "full_tensor") else value
            found[prefix] = hashlib.sha256(whole.contiguous().numpy().tobytes()).hexdigest()

    visit("model", state["model"])
    visit("optimizer", state["optimizer"]["state"])
    return found


def resumed(layout, load_from, save_to, steps, micro_batch):
    from torch.distributed.checkpoint import load, save

    strategy = built(layout)
    found = None
    if load_from is not None:
        content = strategy.state_dict()
        load(content, checkpoint_id=load_from)
        strategy.load_state_dict(content)
        found = digests_of(strategy.state_dict())
    losses, _ = train(strategy, range(*steps), micro_batch)
    content = strategy.state_dict()
    save(content, checkpoint_id=save_to)
    return losses, found, digests_of(content)


def test_a_checkpoint_of_one_strategy_resumes_under_any_other_moments_included(tmp_path):
    parts = [
        ("fsdp2", 2, (0, 3), 2),
        ("ddp", 2, (3, 5), 4),
        ("fsdp2", 1, (5, 7), 4),
        ("hybrid", 4, (7, 9), 1),
        ("ddp", 1, (9, 10), 8),
    ]
    losses, saved, before = [], None, None
    for number, (layout, world_size, steps, micro_batch) in enumerate(parts):
        folder = str(tmp_path / f"part-{number}")
        ranks = run_distributed(resumed, world_size, layout, before, folder, steps, micro_batch)
        for _, loaded, _ in ranks:
            assert loaded == saved
        losses += ranks[0][0]
        saved, before = ranks[0][2], folder
    assert len([name for name in saved if name.endswith(("exp_avg", "exp_avg_sq"))]) == 2 * 20
    uninterrupted = run_distributed(curves, 2, ["fsdp2"], "float32", 2)[0]["fsdp2"][0]
    assert np.abs(np.array(losses) - uninterrupted).max() <= 1e-5


def overflowing(layouts):
    """Train in float16; one step in the middle overflows on rank 1 alone."""
    found = {}
    for layout in layouts:
        strategy = built(layout, "float16")
        losses, norms = train(strategy, range(4), 2)
        before = {name: value.clone() for name, value in strategy.full_parameters()}
        inputs = collate(tiny_rows(2, SEQUENCE_LENGTH))
        # Large enough for the scaled float16 gradient, not for the float32 loss.
        denominator = 1e-4 if dist.get_rank() == 1 else inputs.valid_tokens
        loss = strategy.forward_backward(inputs, denominator=denominator, last=True)
        update = strategy.clip_and_step(1e-2)
        unchanged = all(torch.equal(before[name], value) for name, value in strategy.full_parameters())
        scale = strategy.state_dict()["loss_scale"]
        later, _ = train(strategy, range(5, STEPS), 2)
        found[layout] = (losses + later, norms, float(loss), update, unchanged, scale)
    return found


def test_float16_scales_the_loss_and_an_overflow_costs_one_step_and_half_the_scale():
    exact = run_distributed(curves, 1, ["fsdp2"], "float32", ROWS_PER_STEP)[0]["fsdp2"]
    for found in run_distributed(overflowing, 2, list(LAYOUTS)):
        for layout, (losses, norms, loss, update, unchanged, scale) in found.items():
            assert np.abs(np.array(losses[:4]) - exact[0][:4]).max() <= 2e-2, layout
            # The norm is that of the gradient without the scale.
            assert np.allclose(norms, exact[1][:4], rtol=2e-2), layout
            assert np.isfinite(loss)
            assert (update.stepped, update.overflowed) == (False, True)
            assert not np.isfinite(update.gradient_norm)
            assert unchanged
            assert (float(scale["scale"]), int(scale["good_steps"])) == (2.0**15, 0)
            assert losses[-1] < losses[0] - 0.8


def half_resumed(layout, folder, interrupt):
    from torch.distributed.checkpoint import load, save

    strategy = built(layout, "float16")
    losses, _ = train(strategy, range(3), 2)
    strategy._loss_scale.overflow()
    if interrupt:
        save(strategy.state_dict(), checkpoint_id=folder)
        strategy = built(layout, "float16")
        content = strategy.state_dict()
        load(content, checkpoint_id=folder)
        strategy.load_state_dict(content)
    more, _ = train(strategy, range(3, 6), 2)
    return losses + more, strategy._loss_scale.scale, strategy._loss_scale.good_steps


@pytest.mark.parametrize("layout", ["fsdp2", "ddp"])
def test_float16_resumes_exactly_with_the_scale_it_had(tmp_path, layout):
    whole = run_distributed(half_resumed, 2, layout, None, False)
    parts = run_distributed(half_resumed, 2, layout, str(tmp_path / "checkpoint"), True)
    assert parts == whole
    assert whole[0][1:] == (2.0**15, 3)


def degrees_refused():
    with pytest.raises(ConfigError, match="dp_replicate=2 does not make 1 workers"):
        built("hybrid")


def test_degrees_that_do_not_make_the_workers_are_refused():
    run_distributed(degrees_refused, 1)
