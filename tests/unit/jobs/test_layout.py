"""A layout is arithmetic over shards that the strategy itself has cut; estimates are counted, not guessed."""

import json

import pytest

from baltoro.core.errors import ConfigError, InputError, PlatformError
from baltoro.jobs import layout as layout_module
from baltoro.jobs.layout import batch_of, dry_run_layout, run_probe, shape_of
from baltoro.jobs.layout_memory import Facts, worker_memory
from baltoro.jobs.layout_probe import count_activations
from baltoro.jobs.layout_report import describe_layout
from baltoro.models.load import ModelPlan, build_model
from baltoro.models.presets import preset_config
from baltoro.optim.config import OptimizerConfig
from baltoro.parallel.config import ParallelConfig
from baltoro.train.config import TrainConfig

GIB = 1 << 30
WORLD = 6
FACTS = Facts(
    parameters=1000,
    blocks=4,
    largest_block=200,
    root=200,
    stored_share=None,
    sequence_length=10,
    vocabulary=50,
    embedding=100,
    dense_mask=False,
    activations={"block": 70, "block_selective": 30, "block_input": 5, "outside": 11},
)


@pytest.fixture(scope="module")
def tiny():
    """The configuration of llama-tiny with a vocabulary that six ranks do not divide."""
    return preset_config("llama-tiny", vocabulary_size=500, sequence_length=64).to_dict()


@pytest.fixture(scope="module")
def probed(tiny):
    """One dry run that looks at every rank of two replicas of three shards."""
    return run_probe(
        {
            "config": tiny,
            "world_size": WORLD,
            "ranks": list(range(WORLD)),
            "strategy": "fsdp2",
            "parallel": ParallelConfig(dp_replicate=2).model_dump(),
            "optimizer": OptimizerConfig().model_dump(),
            "precision": "bfloat16",
            "sequence_length": 64,
        }
    )


@pytest.fixture
def quick(monkeypatch, probed):
    """Answer dry runs with one that was done; what was asked is kept."""
    asked = []

    def answer(request):
        asked.append(request)
        return {
            name: value
            for name, value in probed.items()
            if name != "shards" or request["strategy"] == "fsdp2"
        }

    monkeypatch.setattr(layout_module, "run_probe", answer)
    return asked


def train(**settings):
    return TrainConfig.model_validate({"global_batch_tokens": 4096, **settings})


# --------------------------------------------------------------------------------------------------
# The dry run


def test_the_shares_of_all_ranks_of_a_copy_sum_up_to_the_whole(probed):
    shares = [probed["shards"]["by_rank"][str(rank)] for rank in range(WORLD)]
    assert sum(shares[:3]) == sum(shares[3:]) == probed["parameters"]
    assert shares[:3] == shares[3:]


def test_the_largest_and_smallest_share_are_those_of_all_ranks(probed):
    shares = list(probed["shards"]["by_rank"].values())
    assert max(shares) == probed["shards"]["largest"]
    assert min(shares) == probed["shards"]["smallest"]
    # 500 rows of vocabulary and 128 of width are not divided by three.
    assert min(shares) < max(shares)


def test_parameters_are_those_of_the_preset_and_its_units(probed):
    assert probed["parameters"] == 128 * 500 + 4 * (4 * 128 * 128 + 3 * 128 * 384 + 2 * 128) + 128
    assert probed["units"]["root"] == 128 * 500 + 128
    assert (
        probed["units"]["largest_block"] * probed["blocks"] + probed["units"]["root"] == probed["parameters"]
    )


def test_a_dry_run_takes_the_memory_of_its_imports(probed):
    assert probed["peak_memory_bytes"] < 2 * GIB


def test_a_dry_run_that_fails_says_its_last_line():
    with pytest.raises(PlatformError, match=r"the dry run of this layout failed: .*no_such_type"):
        run_probe({"config": {"model_type": "no_such_type"}, "strategy": "ddp"})


# --------------------------------------------------------------------------------------------------
# Activations


@pytest.fixture(scope="module")
def counted(tiny):
    return {
        tokens: count_activations(build_model(ModelPlan(tiny)), sequence_length=tokens, precision="float32")
        for tokens in (32, 64)
    }


def test_activations_grow_with_the_tokens_and_checkpointing_keeps_less(counted):
    assert counted[64]["block"] == pytest.approx(2 * counted[32]["block"], rel=0.01)
    for kept in counted.values():
        assert kept["block_input"] < kept["block_selective"] < kept["block"]
    assert counted[64]["block_input"] == 64 * 128 * 4


def test_selective_keeps_matrix_products_attention_and_input(counted):
    # q, k, v, o of 128; gate, up of 384, down of 128; attention's output; a log-sum-exp for each of 4 heads.
    assert counted[64]["block_selective"] == 64 * 4 * (4 * 128 + 2 * 384 + 128 + 128 + 4 + 128)


def test_counted_activations_are_those_that_autograd_keeps_of_real_tensors(tiny, counted):
    """The same forward pass with values, through the fused attention that CPUs have."""
    import torch

    from baltoro.models.load import copy_whole, load_weights

    plan = ModelPlan({**tiny, "num_hidden_layers": 4})
    model = build_model(plan).to_empty(device="cpu")
    load_weights(model, plan, copy_whole)
    model.train()
    block = model.model.layers[1]
    weights = {parameter.untyped_storage().data_ptr() for parameter in model.parameters()}
    kept, inside = {}, False

    def keep(tensor):
        storage = tensor.untyped_storage()
        if inside and storage.data_ptr() not in weights:
            kept[storage.data_ptr()] = storage
        return tensor

    def switch(on):
        def hook(*_):
            nonlocal inside
            inside = on

        return hook

    block.register_forward_pre_hook(switch(True))
    block.register_forward_hook(switch(False))
    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        model.model(input_ids=torch.arange(64)[None], use_cache=False)
    real = sum(storage.nbytes() for storage in kept.values())
    assert counted[64]["block"] == pytest.approx(real, rel=0.02)


# --------------------------------------------------------------------------------------------------
# Memory


def memory(config, *, share=1000, checkpointing="none", micro_batch=1, facts=FACTS):
    return worker_memory(config, facts, share=share, checkpointing=checkpointing, micro_batch=micro_batch)


def sharded(**changes):
    values = {name: getattr(FACTS, name) for name in Facts.__dataclass_fields__}
    return Facts(**{**values, "stored_share": 260, **changes})


def test_fsdp2_holds_padded_masters_and_gradients_and_its_own_moments():
    found = memory(train(), share=250, facts=sharded())
    assert (found.master_weights, found.gradients, found.moments) == (260 * 4, 260 * 4, 250 * 8)
    assert found.weights == found.host == 0
    # Root and two blocks in bfloat16, the root's gradient, a block's gradient and its float32 buffer.
    assert found.gathered == 2 * (200 + 2 * 200) + 2 * 200 + 200 * (2 + 4)
    parts = (
        found.master_weights,
        found.gradients,
        found.moments,
        found.gathered,
        found.activations,
        found.loss,
    )
    assert found.device == sum(parts)


def test_weights_that_stay_gathered_are_all_there():
    kept = train(parallel={"fsdp2": {"reshard_after_forward": False}})
    more = memory(kept, facts=sharded()).gathered - memory(train(), facts=sharded()).gathered
    assert more == 2 * (1000 - 600)


def test_ddp_holds_everything_and_a_working_copy_where_precision_is_low():
    low, full = memory(train(strategy="ddp")), memory(train(strategy="ddp", precision="float32"))
    assert (low.master_weights, low.weights, low.gradients, low.moments) == (4000, 2000, 4000, 8000)
    assert (full.weights, full.gathered) == (0, 0)


@pytest.mark.parametrize(
    ("stage", "weights", "gradients"), [(1, 2000, 4000), (2, 2000, 1000), (3, 500, 1000)]
)
def test_each_zero_stage_shards_one_thing_more(stage, weights, gradients):
    config = train(strategy="deepspeed", parallel={"deepspeed": {"zero_stage": stage}})
    found = memory(config, share=250)
    assert (found.weights, found.gradients) == (weights, gradients)
    assert (found.master_weights, found.moments) == (1000, 2000)


def test_offloading_moves_states_to_the_host_and_changes_no_sum():
    plain = train(strategy="deepspeed", parallel={"deepspeed": {"zero_stage": 3}})
    away = train(
        strategy="deepspeed",
        parallel={"deepspeed": {"zero_stage": 3, "offload_optimizer": True, "offload_parameters": True}},
    )
    on_device, split = memory(plain, share=250), memory(away, share=250)
    assert split.host == 1000 + 2000 + 1000 + 500
    assert split.device + split.host == on_device.device
    offloaded = memory(train(parallel={"fsdp2": {"cpu_offload": True}}), share=250, facts=sharded())
    assert offloaded.host == 260 * 4 + 260 * 4 + 250 * 8


def test_eight_bit_moments_take_two_bytes_but_for_embeddings():
    found = memory(train(optimizer={"name": "adamw_8bit"}))
    assert found.moments == pytest.approx(900 * (2 + 8 / 256) + 100 * 8, abs=1)


def test_checkpointing_keeps_less_and_computes_one_block_again():
    kept = {
        kind: memory(train(), checkpointing=kind, micro_batch=3).activations
        for kind in ("none", "selective", "full")
    }
    assert kept == {
        "none": 3 * (4 * 70 + 11),
        "selective": 3 * (4 * 30 + 70 + 11),
        "full": 3 * (4 * 5 + 70 + 11),
    }


def test_a_dense_mask_is_kept_by_each_block():
    more = memory(train(), facts=sharded(dense_mask=True)).activations - memory(train()).activations
    assert more == 4 * 10 * 10 * 2


def test_dropout_in_attention_means_a_dense_mask(probed):
    shape = {"vocab_size": 500, "attention_dropout": 0.1}
    assert Facts.of(probed, train(), shape, 64).dense_mask
    assert not Facts.of(probed, train(), {**shape, "attention_dropout": 0.0}, 64).dense_mask
    assert Facts.of(probed, train(attention="sdpa"), {**shape, "attention_dropout": 0.0}, 64).dense_mask


def test_chunked_loss_holds_no_more_logits_than_a_chunk():
    chunked = train(loss={"implementation": "chunked", "chunk_tokens": 16})
    assert memory(chunked, micro_batch=1).loss == 10 * 50 * 12
    assert memory(chunked, micro_batch=9).loss == 16 * 50 * 12
    assert memory(train(loss={"implementation": "full"}), micro_batch=9).loss == 90 * 50 * 12


# --------------------------------------------------------------------------------------------------
# Batch and shape


def test_the_batch_is_cut_for_the_workers():
    found = batch_of(train(micro_batch=2, steps=7), 4, 128)
    assert (found.rows_per_step, found.rows_per_worker, found.accumulation) == (32, 8, 4)
    assert (found.steps, found.tokens) == (7, 7 * 4096)


def test_a_length_in_tokens_is_rounded_down_to_steps():
    assert batch_of(train(tokens=3 * 4096 + 4095), 1, 128).steps == 3


def test_max_steps_ends_a_run_that_is_longer():
    assert batch_of(train(tokens=100 * 4096, max_steps=9), 1, 128).steps == 9
    assert batch_of(train(tokens=5 * 4096, max_steps=9), 1, 128).steps == 5


def test_without_a_length_only_the_corpus_tells_it():
    found = batch_of(train(epochs=3), 1, 128)
    assert (found.steps, found.tokens, found.length_from) == (None, None, "epochs=3")


def test_less_than_a_step_of_tokens_is_refused():
    with pytest.raises(
        ConfigError, match=r"pretrain\.tokens=4095 is less than one step of global_batch_tokens=4096"
    ):
        batch_of(train(tokens=4095), 1, 128)


def test_a_batch_that_the_workers_do_not_divide_is_refused():
    with pytest.raises(ConfigError, match="3 data ranks × micro_batch 1 = 3 rows do not divide"):
        batch_of(train(), 3, 128)


def test_a_preset_gets_the_vocabulary_of_the_trained_tokenizer_padded(load):
    shape = shape_of(load("tokenizer.vocab_size=500"))
    assert (shape.config["vocab_size"], shape.origin) == (512, "preset")


@pytest.mark.parametrize(("add_tokens", "rows"), [("none", 500), ("renderer", 512)])
def test_a_base_gets_rows_for_the_markers_only_where_they_are_added(load, workplace, tiny, add_tokens, rows):
    (workplace / "config.json").write_text(json.dumps({**tiny, "vocab_size": 500}))
    given = ("model.base=some/model", "tokenizer.from=base", f"tokenizer.add_tokens={add_tokens}")
    assert shape_of(load(*given), "config.json").config["vocab_size"] == rows


def test_spare_rows_of_a_published_base_take_the_markers(load, monkeypatch, tmp_path):
    monkeypatch.setattr(layout_module, "_cached_config", lambda hub_id: None)
    shape = shape_of(load("model.base=Qwen/Qwen3-8B-Base", "tokenizer.from=base"))
    assert shape.config["vocab_size"] == 151_936
    assert shape.origin == "its published shape, kept by Baltoro"


def test_a_folder_has_its_own_shape(load, base_model):
    shape = shape_of(load(f"model.base={base_model}", "tokenizer.from=base"))
    assert shape.config["model_type"] == "llama"
    assert shape.origin == "its config.json"


def test_the_hubs_local_cache_is_looked_into(load, monkeypatch, base_model):
    monkeypatch.setattr(layout_module, "_cached_config", lambda hub_id: base_model / "config.json")
    assert shape_of(load("model.base=some/model")).origin == "config.json in the hub's local cache"


def test_a_hub_id_that_is_not_here_is_refused_with_what_to_do(load, monkeypatch):
    monkeypatch.setattr(layout_module, "_cached_config", lambda hub_id: None)
    with pytest.raises(InputError) as caught:
        shape_of(load("model.base=some/model"))
    assert (
        "model.base=some/model: a layout needs its config.json, which is not on this machine"
        in caught.value.message
    )
    assert "`hf download some/model config.json`" in caught.value.message
    assert "llama-7b" in caught.value.message


def test_the_hubs_cache_is_asked_without_a_network(monkeypatch, tmp_path):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    assert layout_module._cached_config("some/model") is None


@pytest.mark.parametrize(
    ("content", "expected"),
    [("{", "is not JSON"), ("[]", "names no model_type"), ('{"model_type": "llama"}', "names no model_type")],
)
def test_a_file_that_is_no_configuration_is_refused(load, workplace, content, expected):
    (workplace / "shape.json").write_text(content)
    with pytest.raises(InputError, match=rf"shape\.json: {expected}"):
        shape_of(load("model.base=some/model"), "shape.json")


def test_a_missing_file_is_refused(load):
    with pytest.raises(InputError, match=r"none\.json: cannot be read: No such file or directory"):
        shape_of(load("model.base=some/model"), "none.json")


# --------------------------------------------------------------------------------------------------
# The whole


def test_a_layout_shows_first_and_last_rank_and_what_fits(load, quick):
    recipe = load(
        "cluster.workers=6", "pretrain.parallel.dp_replicate=2", "pretrain.global_batch_tokens=3072"
    )
    found = dry_run_layout(recipe, device_memory_gib=1)
    assert quick[0]["ranks"] == [0, 5]
    assert quick[0]["world_size"] == 6
    assert (found.dp_replicate, found.dp_shard, found.proved) == (2, 3, True)
    assert found.fits
    assert [choice.largest_micro_batch for choice in found.choices] == [8, 8, 8]
    text = describe_layout(found)
    assert "fsdp2 on 6 workers: dp_replicate 2 × dp_shard 3; set up by the strategy itself" in text
    assert "48 rows of 64 tokens = 3,072 tokens; rows of a worker: 8 = micro_batch 1 × accumulation 8" in text
    assert "epochs=1: as long as the corpus makes it; add pretrain.tokens=…" in text
    assert "shares of a copy add up to the whole; they are uneven" in text
    assert "the recipe fits into 1 GiB, of which 92% are counted on" in text
    json.dumps(found.to_json())


def test_what_does_not_fit_is_said_with_what_helps(load, quick):
    found = dry_run_layout(load("cluster.workers=2"), device_memory_gib=0.001)
    assert not found.fits
    text = describe_layout(found)
    assert "the recipe does not fit into 0.001 GiB" in text
    assert "shard over more workers (dp_shard, cluster.workers)" in text
    assert text.count("does not fit") == 4


def test_time_follows_from_flops_and_the_peak(load, quick):
    recipe = load("cluster.workers=2", "pretrain.tokens=2560", "pretrain.device_peak_flops=1.0e9")
    found = dry_run_layout(recipe, mfu_fraction=0.5)
    assert found.run_flops == found.flops_per_token * 2560
    assert found.run_seconds == pytest.approx(found.run_flops / (1e9 * 0.5 * 2))
    assert "days at 50% of 0 TFLOP/s a device" in describe_layout(found)


def test_zero_is_told_to_be_arithmetic(load, quick, probed):
    given = ("pretrain.strategy=deepspeed", "pretrain.parallel.deepspeed.zero_stage=3", "cluster.workers=4")
    found = dry_run_layout(load(*given))
    assert (found.proved, found.dp_shard) == (False, 4)
    assert found.largest_share == -(-probed["parameters"] // 4)
    assert "by arithmetic: this strategy is not set up in a dry run" in describe_layout(found)


def test_ddp_gives_every_worker_the_whole(load, quick, probed):
    found = dry_run_layout(load("pretrain.strategy=ddp", "cluster.workers=4"))
    assert {memory.parameters for memory in found.memory.values()} == {probed["parameters"]}
    assert (found.dp_replicate, found.dp_shard) == (4, 1)


@pytest.mark.parametrize(
    ("override", "expected"),
    [
        ("pretrain.parallel.dp_replicate=3", "dp_replicate=3 does not make 4 workers"),
        ("pretrain.parallel.deepspeed.zero_stage=3", "only strategy=deepspeed reads this"),
        ("pretrain.data.sequence_length=4096", "global_batch_tokens=256 is not a multiple"),
    ],
)
def test_settings_that_do_not_fit_are_refused_before_anything_starts(load, quick, override, expected):
    with pytest.raises(ConfigError, match=expected):
        dry_run_layout(load("cluster.workers=4", override))
    assert quick == []


def test_rows_longer_than_the_positions_are_refused(load, quick):
    given = ("model.base=opt-tiny", "pretrain.data.sequence_length=4096", "pretrain.global_batch_tokens=4096")
    with pytest.raises(ConfigError, match="sequence_length=4096 is longer than"):
        dry_run_layout(load(*given))


def test_a_device_without_a_known_peak_is_refused(load, quick):
    with pytest.raises(ConfigError, match="--device Abacus"):
        dry_run_layout(load(), device="Abacus")
