import contextlib
import importlib.util
import io
import math

import pytest
import torch

from baltoro.core.errors import ConfigError, PlatformError
from baltoro.data.collate import collate
from baltoro.models.load import build_model, decoder_blocks, load_weights
from baltoro.optim.config import OptimizerConfig
from baltoro.optim.optimizer import build_optimizer
from baltoro.parallel.config import DeepSpeedConfig, ParallelConfig
from baltoro.parallel.timing import PhaseTimer
from baltoro.testing.distributed import run_distributed, single_process_group
from baltoro.testing.tiny import tiny_plan, tiny_rows
from baltoro.train.loss import next_token_loss_sum

pytestmark = [
    pytest.mark.slow,
    pytest.mark.distributed,
    pytest.mark.skipif(importlib.util.find_spec("deepspeed") is None, reason="deepspeed is not installed"),
]

ROWS, LENGTH, STEPS = 8, 32, 4
CPU = torch.device("cpu")


def strategy_of(
    kind,
    *,
    precision="float32",
    tied=True,
    persistent=0,
    loss_sum=None,
    build=None,
    checkpointing="none",
    **own,
):
    """``kind`` is a ZeRO stage or ``"fsdp2"``; parameters above ``persistent`` elements are gathered."""
    from baltoro.parallel import deepspeed, fsdp2

    deepspeed.PERSISTENT_ELEMENTS = persistent
    if kind == "fsdp2":
        made, config = fsdp2.Fsdp2, ParallelConfig(activation_checkpointing=checkpointing)
    else:
        made = deepspeed.DeepSpeedZero
        config = ParallelConfig(
            activation_checkpointing=checkpointing, deepspeed=DeepSpeedConfig(zero_stage=kind, **own)
        )
    strategy = made(config, device=CPU, precision=precision, max_gradient_norm=1.0, timer=PhaseTimer(CPU))
    plan = tiny_plan(tied=tied)
    model = build_model(plan)
    strategy.setup(
        model,
        blocks=decoder_blocks(model),
        load=lambda sharded, assign: load_weights(sharded, plan, assign),
        build_optimizer=build or (lambda sharded: build_optimizer(sharded, OptimizerConfig())),
        loss_sum=loss_sum or next_token_loss_sum,
    )
    return strategy


def micro_batches(step, accumulation):
    """This rank's inputs of a step of eight rows, and the step's valid tokens over all ranks."""
    rank, world_size = torch.distributed.get_rank(), torch.distributed.get_world_size()
    rows = tiny_rows(ROWS, LENGTH, seed=step)
    size = ROWS // world_size // accumulation
    first = rank * size * accumulation
    parts = [
        collate(rows.slice(first + index * size, first + (index + 1) * size)) for index in range(accumulation)
    ]
    return parts, collate(rows).valid_tokens


def accumulate(strategy, step, accumulation=2):
    """Forward and backward of a step; the mean loss over all ranks."""
    parts, denominator = micro_batches(step, accumulation)
    total = torch.zeros(())
    for index, inputs in enumerate(parts):
        total += strategy.forward_backward(inputs, denominator=denominator, last=index == len(parts) - 1)
    torch.distributed.all_reduce(total)
    return float(total) / denominator


def train(strategy, first, last, accumulation=2):
    """Losses and gradient norms of steps ``[first, last)``, at a rate that changes from step to step."""
    curve = []
    for step in range(first, last):
        loss = accumulate(strategy, step, accumulation)
        update = strategy.clip_and_step(1e-2 / (1 + step))
        assert update.stepped
        curve.append((loss, update.gradient_norm))
    return curve


def deviation(one, other):
    assert len(one) == len(other)
    return max(
        abs(a - b) for left, right in zip(one, other, strict=True) for a, b in zip(left, right, strict=True)
    )


def weights(strategy):
    return {name: value.clone() for name, value in strategy.full_parameters()}


def curves():
    """Curves of every stage and offload, fsdp2 first: DeepSpeed replaces a function of torch for good."""
    found = {}
    for precision, tied in (("float32", True), ("bfloat16", False)):
        found[precision, "fsdp2"] = train(strategy_of("fsdp2", precision=precision, tied=tied), 0, STEPS)
    spoken = io.StringIO()
    with contextlib.redirect_stdout(spoken), contextlib.redirect_stderr(spoken):
        for precision, tied in (("float32", True), ("bfloat16", False)):
            for stage in (1, 2, 3):
                strategy = strategy_of(stage, precision=precision, tied=tied)
                found[precision, stage] = train(strategy, 0, STEPS)
        for stage, options in (
            (1, {"offload_optimizer": True}),
            (2, {"offload_optimizer": True}),
            (3, {"offload_optimizer": True, "offload_parameters": True}),
            (3, {"persistent": 1000}),
            (3, {"checkpointing": "full"}),
            (3, {"checkpointing": "selective"}),
        ):
            strategy = strategy_of(stage, precision="bfloat16", tied=False, **options)
            found["bfloat16", stage, *options] = train(strategy, 0, STEPS)
        found["float32", "no accumulation"] = train(strategy_of(2), 0, STEPS, accumulation=1)
    return found, spoken.getvalue()


def test_every_stage_has_the_loss_curve_of_fsdp2_and_is_quiet():
    (found, spoken), *others = run_distributed(curves, 2)
    for key, curve in found.items():
        limit = 1e-5 if key[0] == "float32" else 2e-3
        assert deviation(curve, found[key[0], "fsdp2"]) <= limit, key
        assert curve[0][1] > 1.0, "no gradient was clipped"
        assert curve[-1][0] < 0.9 * curve[0][0]
    assert all(other == found for other, _ in others)
    assert spoken == ""


def disturbed():
    """Per stage: final weights of a plain run, and of one with steps that are not to be learned from."""
    same = {}
    factor = [1.0]

    def loss_sum(module, inputs):
        return next_token_loss_sum(module, inputs) * factor[0]

    for stage in (1, 2, 3):
        for precision, offload in (("float32", False), ("bfloat16", False), ("bfloat16", True)):
            options = {"precision": precision, "offload_optimizer": offload}
            plain = strategy_of(stage, **options)
            train(plain, 0, 4)
            strategy = strategy_of(stage, loss_sum=loss_sum, **options)
            train(strategy, 0, 2)
            before = weights(strategy)
            # Only one rank sees it; every rank must refuse the step.
            for poison in (math.nan, math.inf):
                factor[0] = poison if torch.distributed.get_rank() == 1 else 1.0
                accumulate(strategy, 9)
                update = strategy.clip_and_step(1e-2)
                factor[0] = 1.0
                assert not update.stepped
                assert not update.overflowed
                assert not math.isfinite(update.gradient_norm)
                after = weights(strategy)
                assert all(torch.equal(before[name], after[name]) for name in before)
            accumulate(strategy, 8)
            update = strategy.leave_out()
            assert not update.stepped
            assert math.isnan(update.gradient_norm)
            factor[0] = math.nan
            accumulate(strategy, 8)
            factor[0] = 1.0
            strategy.leave_out()
            loss = strategy.evaluate(micro_batches(7, 1)[0][0])
            assert not loss.requires_grad
            assert torch.equal(loss, strategy.evaluate(micro_batches(7, 1)[0][0]))
            train(strategy, 2, 4)
            one, other = weights(plain), weights(strategy)
            same[stage, precision, offload] = all(torch.equal(one[name], other[name]) for name in one)
    return same


def test_steps_left_out_poisoned_gradients_and_evaluations_leave_no_trace():
    for same in run_distributed(disturbed, 2):
        assert len(same) == 9
        assert all(same.values()), same


def save_to(strategy, folder):
    from torch.distributed.checkpoint import FileSystemWriter, save

    save(strategy.state_dict(), storage_writer=FileSystemWriter(folder))


def load_from(strategy, folder):
    from torch.distributed.checkpoint import FileSystemReader, load

    state = strategy.state_dict()
    load(state, storage_reader=FileSystemReader(folder))
    strategy.load_state_dict(state)


def save_each(folder):
    """Train, save, go on; then resume in the same world, the own checkpoint and one from there and back."""
    expected, resumed = {}, {}
    for kind in ("fsdp2", 1, 2, 3):
        strategy = strategy_of(kind)
        train(strategy, 0, 2)
        save_to(strategy, f"{folder}/{kind}")
        expected[kind] = train(strategy, 2, 4)
    for source in (1, 2, 3):
        strategy = strategy_of(source)
        load_from(strategy, f"{folder}/{source}")
        resumed[source] = train(strategy, 2, 4)
    for source, other in (("fsdp2", 1), ("fsdp2", 2), ("fsdp2", 3), (1, 2), (2, 3), (3, "fsdp2")):
        strategy = strategy_of(other)
        load_from(strategy, f"{folder}/{source}")
        save_to(strategy, f"{folder}/{source}-{other}")
        strategy = strategy_of(source)
        load_from(strategy, f"{folder}/{source}-{other}")
        resumed[source, other] = train(strategy, 2, 4)
    return expected, resumed


def resume_each(folder):
    accumulation = 2 if torch.distributed.get_world_size() < 4 else 1
    resumed = {}
    for kind, source in ((1, 1), (2, 2), (3, 3), (1, 3), (3, 2), (3, "fsdp2"), ("fsdp2", 1), ("fsdp2", 3)):
        strategy = strategy_of(kind)
        load_from(strategy, f"{folder}/{source}")
        resumed[kind, source] = train(strategy, 2, 4, accumulation)
    return resumed


def test_a_checkpoint_resumes_bitwise_and_under_any_strategy_and_world_size(tmp_path):
    expected, resumed = run_distributed(save_each, 2, str(tmp_path))[0]
    for source in (1, 2, 3):
        assert resumed.pop(source) == expected[source]
    assert len(resumed) == 6
    for (source, other), curve in resumed.items():
        assert deviation(curve, expected[source]) <= 1e-5, (source, other)
    for world_size in (1, 4):
        elsewhere = run_distributed(resume_each, world_size, str(tmp_path))[0]
        assert len(elsewhere) == 8
        for (kind, source), curve in elsewhere.items():
            assert deviation(curve, expected[source]) <= 1e-5, (world_size, kind, source)


def low_precision_resume(folder):
    same = {}
    for stage in (1, 2, 3):
        for precision, offload in (("bfloat16", False), ("float16", stage != 1)):
            options = {"precision": precision, "offload_optimizer": offload, "tied": False}
            one = strategy_of(stage, **options)
            train(one, 0, 1)
            path = f"{folder}/{stage}-{precision}-{offload}"
            save_to(one, path)
            other = strategy_of(stage, **options)
            load_from(other, path)
            same[stage, precision, offload] = train(one, 1, 3) == train(other, 1, 3)
            kinds = {
                name: tensor.dtype
                for name, tensor in one.state_dict()["optimizer"]["state"]["lm_head.weight"].items()
            }
            assert set(kinds.values()) == {torch.float32}
    return same


def test_float32_masters_and_moments_survive_low_precision_bitwise(tmp_path):
    for same in run_distributed(low_precision_resume, 2, str(tmp_path)):
        assert len(same) == 6
        assert all(same.values()), same


def overflow(folder):
    found = {}
    for stage in (1, 2, 3):
        strategy = strategy_of(stage, precision="float16")
        before = weights(strategy)
        scale = strategy._loss_scale
        scale.scale = 2.0**40
        accumulate(strategy, 0)
        update = strategy.clip_and_step(1e-2)
        after = weights(strategy)
        untouched = all(torch.equal(before[name], after[name]) for name in before)
        lowered = scale.scale == 2.0**39
        scale.scale = 2.0**15
        curve = train(strategy, 0, 3)
        save_to(strategy, f"{folder}/{stage}")
        other = strategy_of(stage, precision="float16")
        load_from(other, f"{folder}/{stage}")
        kept = (other._loss_scale.scale, other._loss_scale.good_steps) == (2.0**15, 3)
        found[stage] = (update.stepped, update.overflowed, untouched, lowered, kept, curve)
    return found


def test_float16_overflow_lowers_the_scale_which_a_checkpoint_keeps(tmp_path):
    for found in run_distributed(overflow, 2, str(tmp_path)):
        for stage, (stepped, overflowed, untouched, lowered, kept, curve) in found.items():
            assert (stepped, overflowed, untouched, lowered, kept) == (False, True, True, True, True), stage
            # The norm is that of the gradient, without the scale.
            assert 0.1 < curve[0][1] < 10.0


def held():
    """Elements that each rank holds of the weights, and the most that it held of them while it was set up."""
    import deepspeed

    most = 0
    partition = deepspeed.zero.Init._convert_to_zero_parameters

    def watched(init, parameters):
        nonlocal most
        parameters = list(parameters)
        most = max(most, sum(p.untyped_storage().nbytes() // 4 for p in init.module.parameters()))
        partition(init, parameters)

    deepspeed.zero.Init._convert_to_zero_parameters = watched
    strategy = strategy_of(3)
    parameters = list(strategy._names.values())
    total = sum(parameter.ds_numel for parameter in parameters)
    largest_unit = 264 * 32 + 32
    return (
        sum(parameter.numel() for parameter in parameters),
        sum(parameter.ds_tensor.numel() for parameter in parameters) / total,
        most <= largest_unit + total // 2,
    )


def test_zero_3_never_holds_the_whole_model():
    for whole, share, partly in run_distributed(held, 2):
        assert whole == 0
        assert share == pytest.approx(0.5, abs=0.01)
        assert partly


def with_sgd():
    try:
        strategy_of(2, build=lambda model: torch.optim.SGD(model.parameters(), lr=0.1))
    except ConfigError as error:
        return error.message
    return None


def test_an_optimizer_whose_state_cannot_be_partitioned_is_refused():
    (message,) = run_distributed(with_sgd, 1)
    assert (
        "optimizer.name: strategy=deepspeed partitions the float32 moments of adamw, not the state of SGD"
        in message
    )


def test_missing_deepspeed_is_refused_with_what_to_install(monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with (
        single_process_group(),
        pytest.raises(PlatformError, match=r"run `pip install 'baltoro\[deepspeed\]'`"),
    ):
        strategy_of(2)
