"""One loss curve and one checkpoint for all strategies, layouts, world sizes and accumulations."""

import copy
import hashlib
import importlib.util
import math

import numpy as np
import pytest
import torch
import torch.distributed as dist

from baltoro.core.errors import ConfigError
from baltoro.data.collate import collate, without_targets
from baltoro.models.attention import SDPA
from baltoro.models.load import build_model, decoder_blocks, initial_value, load_weights
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
# "hybrid" needs an even number of ranks. DeepSpeed comes last: it replaces functions of torch for good.
LAYOUTS = {
    "fsdp2": ("fsdp2", {}),
    "fsdp2 keeping weights gathered": ("fsdp2", {"fsdp2": {"reshard_after_forward": False}}),
    "hybrid": ("fsdp2", {"dp_replicate": 2}),
    "ddp": ("ddp", {}),
}
if importlib.util.find_spec("deepspeed") is not None:
    LAYOUTS |= {f"ZeRO-{stage}": ("deepspeed", {"deepspeed": {"zero_stage": stage}}) for stage in (1, 2, 3)}
ONE_RANK = tuple(layout for layout in LAYOUTS if layout != "hybrid")
STRATEGIES = tuple(layout for layout in ONE_RANK if layout != "fsdp2 keeping weights gathered")
TOLERANCE = {"float32": 1e-5, "bfloat16": 2e-2}


def built(
    layout,
    precision="float32",
    max_gradient_norm=1.0,
    loss_sum=next_token_loss_sum,
    trained=lambda name: True,
    seed=0,
    **settings,
):
    name, own = LAYOUTS[layout]
    plan = tiny_plan(seed=seed)
    if name == "deepspeed":
        from baltoro.parallel import deepspeed

        # By default matrices as small as these stay whole under ZeRO-3.
        deepspeed.PERSISTENT_ELEMENTS = 100
    strategy = build_strategy(
        name,
        ParallelConfig.model_validate(own | settings),
        device=torch.device("cpu"),
        precision=precision,
        max_gradient_norm=max_gradient_norm,
        timer=PhaseTimer(torch.device("cpu")),
    )
    model = build_model(plan)
    for name, parameter in model.named_parameters():
        parameter.requires_grad = trained(name)
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


def step_of(strategy, inputs):
    """Train on a step of one micro-batch per rank, the same on each."""
    loss = strategy.forward_backward(inputs, denominator=inputs.valid_tokens, last=True)
    return float(loss), strategy.clip_and_step(1e-2)


def whole(tensor):
    """Return all values of a tensor of a state, whatever the ranks hold of it."""
    if hasattr(tensor, "full_tensor"):
        return tensor.full_tensor()
    if not hasattr(tensor, "boxes"):
        return tensor
    ranges = [None] * dist.get_world_size()
    dist.all_gather_object(ranges, (tensor.start, tensor.flat.detach().clone()))
    ranges = [(start, flat) for start, flat in sorted(ranges, key=lambda found: found[0]) if flat.numel()]
    # Without gap or overlap.
    assert [start for start, _ in ranges] == np.cumsum([0, *(flat.numel() for _, flat in ranges)])[
        :-1
    ].tolist()
    return torch.cat([flat for _, flat in ranges]).view(tensor.shape)


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
        factor = [1.0]
        strategy = built(
            layout,
            loss_sum=lambda model, inputs, factor=factor: next_token_loss_sum(model, inputs) * factor[0],
        )
        before = {name: value.clone() for name, value in strategy.full_parameters()}
        inputs = collate(tiny_rows(2, SEQUENCE_LENGTH))
        # Only rank 1 sees the poison; every rank must refuse the step.
        factor[0] = float("nan") if dist.get_rank() == 1 else 1.0
        _, dropped = step_of(strategy, inputs)
        factor[0] = 1.0
        strategy.forward_backward(inputs, denominator=inputs.valid_tokens, last=True)
        left_out = strategy.leave_out()
        unchanged = all(torch.equal(before[name], value) for name, value in strategy.full_parameters())
        found[layout] = (dropped, left_out, unchanged, *step_of(strategy, inputs))
    return found


def test_a_gradient_that_is_not_finite_on_one_rank_is_dropped_on_all():
    expected = None
    for found in run_distributed(poisoned_step, 2, list(LAYOUTS)):
        assert list(found) == list(LAYOUTS)
        for dropped, left_out, unchanged, clean, again in found.values():
            expected = expected or (clean, again)
            assert not np.isfinite(dropped.gradient_norm)
            assert (dropped.stepped, dropped.overflowed) == (False, False)
            assert left_out.gradient_norm != left_out.gradient_norm
            assert not left_out.stepped
            assert unchanged
            assert again.stepped
            # Nothing of the poison is left.
            assert clean == pytest.approx(expected[0], rel=1e-5)
            assert again.gradient_norm == pytest.approx(expected[1].gradient_norm, rel=1e-5)


def first_steps(layouts):
    """Gradient norms without and with a limit, and those of what the optimizer was given."""
    found = {}
    decay = OptimizerConfig().beta1
    for layout in layouts:
        for limit in (None, 1.0):
            strategy = built(layout, max_gradient_norm=limit)
            inputs = collate(tiny_rows(2, SEQUENCE_LENGTH))
            strategy.forward_backward(inputs, denominator=1, last=True)
            update = strategy.clip_and_step(1e-2)
            moments = strategy.state_dict()["optimizer"]["state"].values()
            # After one step from zero the first moment is a tenth of the gradient.
            squares = sum(float(whole(of["exp_avg"]).double().square().sum()) for of in moments)
            found[layout, limit] = (update.gradient_norm, math.sqrt(squares) / (1 - decay))
    return found


def test_gradients_are_clipped_to_the_limit_and_without_one_left_as_they_are():
    expected = None
    for (layout, limit), (norm, used) in run_distributed(first_steps, 2, list(LAYOUTS))[0].items():
        expected = expected or norm
        assert norm > 100.0
        assert norm == pytest.approx(expected, rel=1e-5), layout
        assert used == pytest.approx(limit or norm, rel=1e-4), (layout, limit)


def digests_of(state):
    """Return a digest of every whole tensor of a state, weights and moments."""
    found = {}

    def visit(prefix, value):
        if isinstance(value, dict):
            for name, inner in value.items():
                visit(f"{prefix}.{name}", inner)
        elif isinstance(value, torch.Tensor):
            found[prefix] = hashlib.sha256(whole(value).detach().contiguous().numpy().tobytes()).hexdigest()

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
        ("fsdp2", 2, 2, 2),
        ("ZeRO-1", 2, 3, 4),
        ("ddp", 2, 4, 4),
        ("ZeRO-3", 4, 5, 1),
        ("fsdp2", 1, 6, 4),
        ("hybrid", 4, 7, 1),
        ("ZeRO-2", 1, 8, 4),
        ("ZeRO-3", 2, 9, 2),
        ("ddp", 1, 10, 8),
    ]
    parts = [part for part in parts if part[0] in LAYOUTS]
    losses, saved, before = [], None, None
    for number, (layout, world_size, end, micro_batch) in enumerate(parts):
        folder = str(tmp_path / f"part-{number}")
        # Without DeepSpeed its steps are taken by the next part.
        steps = (len(losses), end)
        ranks = run_distributed(resumed, world_size, layout, before, folder, steps, micro_batch)
        for _, loaded, _ in ranks:
            assert loaded == saved
        losses += ranks[0][0]
        saved, before = ranks[0][2], folder
    assert len([name for name in saved if name.endswith(("exp_avg", "exp_avg_sq"))]) == 2 * 20
    uninterrupted = run_distributed(curves, 2, ["fsdp2"], "float32", 2)[0]["fsdp2"][0]
    assert len(losses) == STEPS
    assert np.abs(np.array(losses) - uninterrupted).max() <= 1e-5


def looked_at(layouts):
    """What evaluation, state and whole weights are like after two steps; whether they leave a trace."""
    found = {}
    for layout in layouts:
        plain, strategy = built(layout), built(layout)
        undisturbed = train(plain, range(4), 2)
        curve = train(strategy, range(2), 2)
        inputs = collate(tiny_rows(3, SEQUENCE_LENGTH, seed=5))
        losses = [strategy.evaluate(inputs) for _ in range(2)]
        weights = {name: value.clone() for name, value in strategy.full_parameters()}
        state = strategy.state_dict()
        found[layout] = {
            "losses": [float(loss) for loss in losses],
            "graph": any(loss.requires_grad for loss in losses),
            "kinds": {(value.device.type, value.dtype) for value in weights.values()},
            "names": list(weights),
            "weights": torch.cat([value.flatten() for value in weights.values()]).numpy(),
            "stored": {name: (tuple(tensor.shape), tensor.dtype) for name, tensor in state["model"].items()},
            "moments": {
                name: {key: (tuple(tensor.shape), tensor.dtype) for key, tensor in of.items()}
                for name, of in state["optimizer"]["state"].items()
            },
            "groups": [sorted(group["params"]) for group in state["optimizer"]["param_groups"]],
            "exact": all(torch.equal(whole(state["model"][name]), value) for name, value in weights.items()),
        }
        later = train(strategy, range(2, 4), 2)
        continued = tuple(early + late for early, late in zip(curve, later, strict=True))
        found[layout]["traceless"] = continued == undisturbed
    return found


def test_evaluation_state_and_weights_look_the_same_under_every_strategy_and_leave_no_trace():
    first, second = run_distributed(looked_at, 2, list(LAYOUTS))
    expected = first["fsdp2"]
    assert len(expected["names"]) == 20
    for layout, found in first.items():
        assert found["losses"][0] == found["losses"][1] == pytest.approx(expected["losses"][0], rel=1e-5)
        assert not found["graph"]
        assert found["kinds"] == {("cpu", torch.float32)}
        assert np.allclose(found["weights"], expected["weights"], atol=1e-4), layout
        assert np.array_equal(found["weights"], second[layout]["weights"])
        for key in ("names", "stored", "moments", "groups"):
            assert found[key] == expected[key], (layout, key)
        assert found["exact"], layout
        assert found["traceless"], layout


# What stays as it was loaded: all but the projections of a low-rank adaptation's place, which no gradient
# reaches from below, or only what is outside the blocks.
FROZEN = {
    "all but attention's inputs": lambda name: name.endswith(("q_proj.weight", "v_proj.weight")),
    "outside the blocks": lambda name: "layers" in name,
}


def partly_trained(layouts, frozen, precision, checkpointing, micro_batch):
    found = {}
    for layout in layouts:
        strategy = built(layout, precision, trained=FROZEN[frozen], activation_checkpointing=checkpointing)
        before = {name: value.clone() for name, value in strategy.full_parameters()}
        losses, norms = train(strategy, range(STEPS), micro_batch)
        after = {name: value.clone() for name, value in strategy.full_parameters()}
        state = strategy.state_dict()
        # Trained further, until it takes over a copy of these.
        other = built(layout, precision, trained=FROZEN[frozen], activation_checkpointing=checkpointing)
        train(other, range(2), micro_batch)
        other.load_state_dict(copy.deepcopy(state))
        found[layout] = {
            "taken over": all(torch.equal(after[name], value) for name, value in other.full_parameters()),
            "losses": losses,
            "norms": norms,
            "before": {name: value.numpy() for name, value in before.items()},
            "unchanged": {name for name in before if torch.equal(before[name], after[name])},
            "stored": {name for name in after if torch.equal(whole(state["model"][name]), after[name])},
            "in the checkpoint": set(state["model"]) - {"lm_head.weight"},
            "moments": set(state["optimizer"]["state"]),
            "groups": {name for group in state["optimizer"]["param_groups"] for name in group["params"]},
        }
    return found


@pytest.mark.parametrize("frozen", FROZEN)
@pytest.mark.parametrize(
    ("precision", "checkpointing"), [("float32", "none"), ("bfloat16", "none"), ("bfloat16", "full")]
)
def test_only_what_is_not_frozen_is_trained_and_alike_under_every_strategy(frozen, precision, checkpointing):
    arguments = (frozen, precision, checkpointing)
    alone = run_distributed(partly_trained, 1, ["fsdp2"], *arguments, ROWS_PER_STEP)[0]["fsdp2"]
    assert alone["losses"][-1] < alone["losses"][0] - 0.1
    plan = tiny_plan()
    for found in run_distributed(partly_trained, 2, list(LAYOUTS), *arguments, 2):
        assert list(found) == list(LAYOUTS)
        for layout, of in found.items():
            assert np.abs(np.array(of["losses"]) - alone["losses"]).max() <= TOLERANCE[precision], layout
            rtol = 1e-4 if precision == "float32" else 5e-2
            assert np.allclose(of["norms"], alone["norms"], rtol=rtol), layout
            # Neither an export nor a checkpoint holds what follows from the base model.
            assert all(FROZEN[frozen](name) for name in of["before"]), layout
            assert not of["unchanged"], layout
            assert of["stored"] == of["in the checkpoint"] == of["before"].keys(), layout
            assert of["taken over"], layout
            assert of["moments"] == of["groups"] == of["before"].keys(), layout
            for name, value in of["before"].items():
                assert np.array_equal(value, initial_value(name, value.shape, plan).numpy()), (layout, name)


def partly_resumed(layout, load_from, save_to, steps):
    from torch.distributed.checkpoint import load, save

    trained = FROZEN["all but attention's inputs"]
    strategy = built(layout, "bfloat16", trained=trained)
    if load_from is not None:
        # So that a checkpoint has something to bring.
        train(strategy, range(2), 2)
        content = strategy.state_dict()
        load(content, checkpoint_id=load_from)
        strategy.load_state_dict(content)
    found = digests_of(strategy.state_dict())
    inputs = collate(tiny_rows(2, SEQUENCE_LENGTH, seed=5))
    evaluated = float(strategy.evaluate(inputs))
    losses, _ = train(strategy, range(*steps), 2)
    content = strategy.state_dict()
    save(content, checkpoint_id=save_to)
    return losses, found, digests_of(content), evaluated, float(strategy.evaluate(inputs))


def test_what_is_trained_beside_frozen_weights_comes_back_under_any_strategy(tmp_path):
    parts = [
        ("fsdp2", 2, (0, 2)),
        ("ZeRO-3", 2, (2, 4)),
        ("ddp", 2, (4, 5)),
        ("ZeRO-1", 1, (5, 6)),
        ("ZeRO-2", 4, (6, 8)),
        ("fsdp2", 1, (8, 10)),
    ]
    parts = [part for part in parts if part[0] in LAYOUTS]
    saved, before, left = None, None, None
    for number, (layout, world_size, steps) in enumerate(parts):
        folder = str(tmp_path / f"part-{number}")
        ranks = run_distributed(partly_resumed, world_size, layout, before, folder, steps)
        losses, loaded, kept, evaluated, reached = ranks[0]
        assert np.isfinite(losses).all()
        if saved is not None:
            assert loaded == saved, layout
            # What the passes compute with came back as well, beside the frozen weights of the base.
            assert evaluated == pytest.approx(left, abs=2e-2), layout
        saved, before, left = kept, folder, reached
    assert len([name for name in saved if name.startswith("model.")]) == 4
    assert len([name for name in saved if name.endswith("exp_avg")]) == 4


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


def half_resumed(layout, folder):
    from torch.distributed.checkpoint import load, save

    strategy = built(layout, "float16")
    losses, _ = train(strategy, range(3), 2)
    # An overflow halves the scale.
    strategy.forward_backward(collate(tiny_rows(2, SEQUENCE_LENGTH)), denominator=1e-4, last=True)
    assert strategy.clip_and_step(1e-2).overflowed
    if folder is not None:
        save(strategy.state_dict(), checkpoint_id=folder)
        strategy = built(layout, "float16")
        content = strategy.state_dict()
        load(content, checkpoint_id=folder)
        strategy.load_state_dict(content)
    more, _ = train(strategy, range(3, 6), 2)
    scale = strategy.state_dict()["loss_scale"]
    return losses + more, float(scale["scale"]), int(scale["good_steps"])


@pytest.mark.parametrize("layout", STRATEGIES)
def test_float16_resumes_exactly_with_the_scale_it_had(tmp_path, layout):
    uninterrupted = run_distributed(half_resumed, 2, layout, None)
    parts = run_distributed(half_resumed, 2, layout, str(tmp_path / "checkpoint"))
    assert parts == uninterrupted
    assert uninterrupted[0][1:] == (2.0**15, 3)


def degrees_refused():
    with pytest.raises(ConfigError, match="dp_replicate=2 does not make 1 workers"):
        built("hybrid")


def test_degrees_that_do_not_make_the_workers_are_refused():
    run_distributed(degrees_refused, 1)
