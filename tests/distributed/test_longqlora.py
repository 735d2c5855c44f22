"""LongQLoRA, as a whole run: four-bit base, adapter, shifted groups, stretched positions, any strategy."""

import importlib.util
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch.distributed.checkpoint import FileSystemReader

from baltoro.data.collate import collate
from baltoro.models.adapters import Tuning, read_adapter
from baltoro.models.config import AdapterConfig, QuantizationConfig, ShiftedAttentionConfig
from baltoro.models.load import build_model, decoder_blocks, load_weights
from baltoro.models.nf4 import Nf4Linear
from baltoro.models.rope_scaling import scale_rope
from baltoro.models.rope_scaling_config import RopeScalingConfig
from baltoro.optim.config import OptimizerConfig
from baltoro.optim.optimizer import build_optimizer
from baltoro.parallel.config import ParallelConfig
from baltoro.parallel.fsdp2 import Fsdp2
from baltoro.parallel.timing import PhaseTimer
from baltoro.testing.distributed import run_distributed
from baltoro.testing.runs import STEPS, execute, execute_all, interrupted, tiny_run
from baltoro.testing.tiny import tiny_plan, tiny_rows
from baltoro.train.loss import next_token_loss_sum

pytestmark = [pytest.mark.distributed]

LAYOUTS = {"fsdp2": ("fsdp2", {}), "hybrid": ("fsdp2", {"dp_replicate": 2}), "ddp": ("ddp", {})}
if importlib.util.find_spec("deepspeed") is not None:
    LAYOUTS |= {f"ZeRO-{stage}": ("deepspeed", {"deepspeed": {"zero_stage": stage}}) for stage in (1, 2, 3)}


FOUR_BITS = QuantizationConfig()


def long_plan(train=("embeddings", "norms"), quantization=FOUR_BITS, dtype="float32"):
    plan = tiny_plan()
    settings = {**plan.config, "max_position_embeddings": 16}
    adapter = AdapterConfig(rank=4, alpha=8, targets=("q_proj", "v_proj", "down_proj"), train=train)
    return replace(
        plan,
        config=scale_rope(settings, RopeScalingConfig(method="linear", target_positions=32)),
        tuning=Tuning(adapter, quantization, dtype),
    )


def long_run(folder, strategy="fsdp2", parallel=None, precision="float32", **plan):
    run = tiny_run(
        folder,
        strategy=strategy,
        parallel=ParallelConfig.model_validate(parallel or {}),
        precision=precision,
        optimizer=OptimizerConfig(learning_rate=1e-2, max_gradient_norm=0.3, weight_decay=0.0),
        shifted_sparse_attention=ShiftedAttentionConfig(),
    )
    return replace(run, plan=long_plan(dtype=precision, **plan))


def adapter_of(result):
    return read_adapter(Path(result.export_uri))


def difference(one, other):
    pairs = [(one.whole[name], other.whole[name]) for name in one.whole]
    pairs += [
        pair for name in one.factors for pair in zip(one.factors[name], other.factors[name], strict=True)
    ]
    return max(float((first - second).abs().max()) for first, second in pairs)


@pytest.fixture(scope="module")
def alone(tmp_path_factory):
    """An uninterrupted run of one rank: its losses and its adapter."""
    run = long_run(tmp_path_factory.mktemp("alone") / "run")
    losses, result = run_distributed(execute, 1, run)[0]
    return losses, adapter_of(result), result


def test_a_tiny_longqlora_run_learns_and_exports_a_small_whole_adapter(alone):
    losses, adapter, result = alone
    assert losses[STEPS] < losses[1] - 0.2
    layers = {
        f"model.layers.{layer}.{part}"
        for layer in (0, 1)
        for part in ("self_attn.q_proj", "self_attn.v_proj", "mlp.down_proj")
    }
    assert adapter.factors.keys() == layers
    assert adapter.quantized > layers
    assert all(float(factor_b.abs().max()) > 0 for _, factor_b in adapter.factors.values())
    assert {name.rpartition(".")[0].rpartition(".")[2] for name in adapter.whole} == {
        "embed_tokens",
        "input_layernorm",
        "post_attention_layernorm",
        "norm",
    }
    parameters = dict(build_model(long_plan()).named_parameters())
    trained = {name for name, parameter in parameters.items() if parameter.requires_grad}
    size_bytes, _ = result.export_files["adapter_model.safetensors"]
    assert size_bytes == pytest.approx(4 * sum(parameters[name].numel() for name in trained), rel=0.1)
    # Nor does a checkpoint hold the base; a tied weight has a second name.
    for folder in (Path(result.export_uri).parent / "checkpoints").iterdir():
        kept = FileSystemReader(folder).read_metadata().state_dict_metadata
        weights = {name.removeprefix("model.") for name in kept if name.startswith("model.")}
        assert weights - {"lm_head.weight"} == trained


def logits_of(plan, inputs):
    model = build_model(plan)
    model.to_empty(device="cpu")
    load_weights(model, plan)
    model.eval()
    with torch.no_grad():
        return model(inputs).logits


def test_an_adapter_reloads_to_the_same_logits_and_merges_to_equal_ones(alone):
    _, _, result = alone
    folder = Path(result.export_uri)
    plan = long_plan()
    inputs = torch.from_numpy(tiny_rows(2, 32, seed=3).input_ids.astype(np.int64))
    tuned = replace(plan, tuning=replace(plan.tuning, start=folder))
    reloaded, again = logits_of(tuned, inputs), logits_of(tuned, inputs)
    assert torch.equal(reloaded, again)
    base = logits_of(replace(plan, tuning=None), inputs)
    assert float((reloaded - base).abs().max()) > 0.1
    merged = logits_of(replace(plan, tuning=None, merged=(folder,)), inputs)
    assert float((merged - reloaded).abs().max()) < 1e-5


def interrupted_and_resumed(run):
    first, none = execute(interrupted(run, 6))
    second, result = execute(run)
    return first, none, second, result


def test_an_interrupted_run_goes_on_to_the_same_adapter_bit_for_bit(alone, tmp_path):
    losses, adapter, _ = alone
    first, none, second, result = run_distributed(interrupted_and_resumed, 1, long_run(tmp_path / "run"))[0]
    assert none is None
    assert result.resumed_from_step == 4
    assert {**first, **second} == losses
    assert difference(adapter, adapter_of(result)) == 0.0


@pytest.mark.slow
def test_every_strategy_learns_the_same_adapter_on_two_ranks(alone, tmp_path):
    losses, adapter, _ = alone
    runs = [long_run(tmp_path / name, *LAYOUTS[name]) for name in LAYOUTS]
    for name, (found, result) in zip(LAYOUTS, run_distributed(execute_all, 2, runs)[0], strict=True):
        deviation = max(abs(found[step] - losses[step]) for step in losses)
        assert deviation <= 1e-5, (name, deviation)
        assert difference(adapter, adapter_of(result)) <= 2e-3, name


@pytest.mark.slow
def test_in_bfloat16_every_strategy_learns_alike(tmp_path):
    runs = [long_run(tmp_path / name, *LAYOUTS[name], precision="bfloat16") for name in LAYOUTS]
    curves = {
        name: losses
        for name, (losses, _) in zip(LAYOUTS, run_distributed(execute_all, 2, runs)[0], strict=True)
    }
    for name, losses in curves.items():
        assert losses[STEPS] < losses[1] - 0.2, name
        assert max(abs(losses[step] - curves["fsdp2"][step]) for step in losses) <= 2e-2, name


def frozen_bytes(settings):
    """Return the bytes of four-bit weights on this rank after each of two steps, all of them, the losses."""
    plan = long_plan()
    strategy = Fsdp2(
        ParallelConfig.model_validate(settings),
        device=torch.device("cpu"),
        precision="float32",
        max_gradient_norm=1.0,
        timer=PhaseTimer(torch.device("cpu")),
    )
    model = build_model(plan)
    whole = sum(module.stored.numel() for module in model.modules() if isinstance(module, Nf4Linear))
    strategy.setup(
        model,
        blocks=decoder_blocks(model),
        load=lambda sharded, assign: load_weights(sharded, plan, assign),
        build_optimizer=lambda sharded: build_optimizer(sharded, OptimizerConfig(learning_rate=1e-2)),
        loss_sum=next_token_loss_sum,
    )
    inputs = collate(tiny_rows(2, 32))
    held, losses = [], []
    for _ in range(2):
        losses.append(float(strategy.forward_backward(inputs, denominator=inputs.valid_tokens, last=True)))
        strategy.clip_and_step(1e-2)
        stored = [module.stored for module in model.modules() if isinstance(module, Nf4Linear)]
        held.append(sum(tensor.to_local().numel() for tensor in stored))
    return held, whole, losses


def test_fsdp2_shards_the_four_bit_weights_too():
    layouts = [{}, {"dp_replicate": 2}, {"fsdp2": {"cpu_offload": True}}]
    (alone, whole, losses), *_ = run_distributed(all_of, 1, layouts[:1])[0]
    assert alone == [whole, whole]
    for sharded, copied, offloaded in run_distributed(all_of, 2, layouts):
        for (held, _, found), share in ((sharded, 0.5), (copied, 1.0), (offloaded, 0.5)):
            assert [round(count / whole, 3) for count in held] == [share, share]
            # Every rank has the same rows: each gives half of the loss that it gives alone.
            assert found == pytest.approx(losses, rel=1e-5)


def all_of(layouts):
    return [frozen_bytes(settings) for settings in layouts]
