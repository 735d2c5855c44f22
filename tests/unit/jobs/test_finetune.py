"""What a finetune stage builds on, which examples it reads, and what is refused before anything runs."""

import json
from dataclasses import replace

import numpy as np
import pyarrow.parquet as pq
import pytest
from pydantic import ValidationError

from baltoro.core.artifacts import ArtifactStore, fingerprint_of
from baltoro.core.errors import ConfigError, InputError, PlatformError
from baltoro.core.provenance import collect_provenance
from baltoro.core.storage import Storage
from baltoro.corpus.work import parquet_bytes
from baltoro.instructions.example import Example, Turn
from baltoro.jobs.evaluate import check_evaluation
from baltoro.jobs.finetune import chain_of, finetune_inputs, finetune_target, training_of
from baltoro.jobs.instruction_sets import InstructionSet
from baltoro.jobs.instruction_tokens import parts_of_sources, write_rows
from baltoro.jobs.instructions import hold_out_of, read_set, refuse_repeated_ids, with_place
from baltoro.jobs.recipe import Recipe
from baltoro.jobs.runner import active_stages, last_stage, needed_stages
from baltoro.jobs.stages import Context
from baltoro.jobs.training.preflight import check_settings
from baltoro.models.config import ShiftedAttentionConfig
from baltoro.models.presets import preset_config
from baltoro.testing.training_jobs import write_tokenizer

FILES = {"instructions": {"files": [{"name": "chats", "uri": "chats.jsonl"}]}}
LINEAR = {"method": "linear", "original_positions": 256, "target_positions": 1024}


def recipe(*stages, **sections):
    tuned = {"stages": [{"name": f"s{index}", **stage} for index, stage in enumerate(stages)]}
    finetune = {**tuned, **sections.pop("finetune", {})}
    base = {
        "name": "geo",
        "corpus": {"sources": [{"name": "papers", "uri": "papers"}]},
        "model": {"base": "llama-tiny"},
        **FILES,
    }
    return Recipe.model_validate({**base, "finetune": finetune, **sections})


def names(chain):
    return chain.whole, chain.merged, chain.carried


def test_adapters_are_carried_on_or_become_part_of_the_base():
    lora, merged = {"method": "lora"}, {"method": "longqlora", "start": "merged"}
    made = recipe(lora, lora, merged, {"method": "full"}, lora)
    assert names(chain_of(made, 0)) == ("pretrain", (), None)
    assert names(chain_of(made, 1)) == ("pretrain", (), "finetune-s0")
    # The second stage's adapter has the first one's in it.
    assert names(chain_of(made, 2)) == ("pretrain", ("finetune-s1",), None)
    # Everything before is part of what is trained whole.
    assert names(chain_of(made, 3)) == ("pretrain", ("finetune-s1", "finetune-s2"), None)
    assert names(chain_of(made, 4)) == ("finetune-s3", (), None)
    alone = recipe(lora, finetune={"base": "model"})
    assert names(chain_of(alone, 0)) == (None, (), None)


def test_an_adapter_goes_on_over_the_same_rounding_and_is_merged_before_another():
    lora, qlora, long = ({"method": method} for method in ("lora", "qlora", "longqlora"))
    assert chain_of(recipe(qlora, long), 1).carried == "finetune-s0"
    assert chain_of(recipe(qlora, {**lora, "start": "merged"}), 1).merged == ("finetune-s0",)
    # No adapter in full precision looks at the four bits' settings.
    assert chain_of(recipe(lora, {**lora, "quantization": {"double": False}}), 1).carried == "finetune-s0"
    assert chain_of(recipe(qlora, {"method": "full"}, lora), 2).carried is None


def test_positions_are_stretched_once_wherever_the_base_is_not_yet():
    lora, full = {"method": "lora"}, {"method": "full"}
    made = recipe({**lora, "rope_scaling": LINEAR}, lora, full, lora)
    assert [chain_of(made, index).rope_scaling is not None for index in range(4)] == [True, True, True, False]
    model = recipe(lora, finetune={"base": "model"}, model={"base": "llama-tiny", "rope_scaling": LINEAR})
    assert chain_of(model, 0).rope_scaling is not None
    assert (
        chain_of(recipe(lora, model={"base": "llama-tiny", "rope_scaling": LINEAR}), 0).rope_scaling is None
    )


def test_longqlora_trains_in_shifted_groups_unless_told_how():
    made = recipe({"method": "longqlora"}, {"method": "qlora"})
    assert training_of(made, 0).config.shifted_sparse_attention == ShiftedAttentionConfig()
    assert training_of(made, 1).config.shifted_sparse_attention is None
    given = recipe({"method": "longqlora", "shifted_sparse_attention": {"group_len": 64}})
    assert training_of(given, 0).config.shifted_sparse_attention == ShiftedAttentionConfig(group_len=64)


def test_a_recipe_ends_with_its_last_stage_and_leaves_out_what_none_needs():
    made = recipe({}, {})
    assert [stage.name for stage in active_stages(made)] == [
        "corpus", "tokenizer", "tokens", "pretrain", "instructions",
        "tokens-s0", "finetune-s0", "tokens-s1", "finetune-s1",
    ]  # fmt: skip
    assert last_stage(made) == "finetune-s1"
    assert finetune_target(made, "s0") == "finetune-s0"
    alone = recipe(
        {}, finetune={"base": "model"}, corpus={}, tokenizer={"from": "base"}, model={"base": "/models/base"}
    )
    assert [stage.name for stage in active_stages(alone)] == [
        "model", "tokenizer", "instructions", "tokens-s0", "finetune-s0",
    ]  # fmt: skip
    measured = recipe({}, evaluation={"tasks": ["passkey"]})
    assert last_stage(measured) == "evaluate"


@pytest.mark.parametrize(
    ("stages", "sections", "says"),
    [
        ([{"data": {"from": ["corpus", "instructions"]}}], {}, "give the corpus a stage of its own"),
        (
            [{"data": {"from": ["instructions.reviews"]}}],
            {},
            "instructions.reviews is not made by this recipe",
        ),
        ([{}], {"instructions": {}}, "fill in instructions.signals, .reviews or .files"),
        ([{"name": "a"}, {"name": "a"}], {}, "the name 'a' stands twice"),
        (
            [{}, {"adapter": {"rank": 8}}],
            {},
            "whose rank is 16, not 8; make them the same, or set start=merged",
        ),
        (
            [{"method": "qlora"}, {"method": "lora"}],
            {},
            "s1 goes on with the adapter of s0, whose base is in four bits with quantization.double=true, "
            "not in full precision, and would go on over other weights; make method and quantization.double "
            "the same, or set start=merged",
        ),
        (
            [{"method": "lora"}, {"method": "longqlora", "quantization": {"double": False}}],
            {},
            "whose base is in full precision, not in four bits with quantization.double=false, and would",
        ),
        (
            [{"method": "qlora"}, {"method": "longqlora", "quantization": {"double": False}}],
            {},
            "whose base is in four bits with quantization.double=true, not in four bits with "
            "quantization.double=false, and would",
        ),
        ([{}], {"corpus": {}}, "corpus.sources is empty"),
        ([{}], {"corpus": {}, "instructions": {"signals": {}}}, "there is nothing to make them of"),
    ],
)
def test_stages_that_cannot_be_are_refused_with_what_to_do(stages, sections, says):
    with pytest.raises(ValidationError, match=says):
        recipe(*stages, **sections)


def test_commands_name_the_stages_that_there_are():
    with pytest.raises(ConfigError, match=r"finetune.stages is empty: geo has nothing to fine-tune"):
        finetune_target(recipe(), None)
    with pytest.raises(ConfigError, match="--stage last: there is no such stage; this recipe has s0, s1"):
        finetune_target(recipe({}, {}), "last")


def test_a_stage_s_settings_are_refused_under_its_own_name():
    with pytest.raises(ConfigError, match=r"^finetune.stages.1.global_batch_tokens=100 is not a multiple"):
        check_settings(training_of(recipe({}, {"global_batch_tokens": 100}), 1))
    long = {"rope_scaling": LINEAR, "data": {"sequence_length": 2048}, "global_batch_tokens": 4096}
    with pytest.raises(ConfigError, match=r"^finetune.stages.0.data.sequence_length=2048 is longer"):
        check_settings(training_of(recipe(long), 0))


def test_a_pinned_run_and_its_tokenizer_need_no_corpus():
    with pytest.raises(
        ValidationError, match=r"or pin what is made of one \(pins\.tokenizer with pins\.pretrain"
    ):
        recipe({}, corpus={}, pins={"pretrain": "out/run/geo/1"})
    pinned = recipe({}, corpus={}, pins={"pretrain": "out/run/geo/1", "tokenizer": "out/tokenizer/geo/2"})
    assert [stage.name for stage in needed_stages(pinned, "finetune-s0")] == [
        "tokenizer", "pretrain", "instructions", "tokens-s0", "finetune-s0",
    ]  # fmt: skip
    with pytest.raises(ValidationError, match=r"corpus\.sources is empty"):
        recipe({"data": {"from": ["corpus"]}}, corpus={}, pins=pinned.pins.model_dump())


def test_what_does_not_fit_the_model_is_refused_when_planning(tmp_path):
    def planned(config, *stages, index=0, **sections):
        folder = tmp_path / "base"
        folder.mkdir(exist_ok=True)
        (folder / "config.json").write_text(json.dumps(config))
        made = recipe(*stages, model={"base": str(folder)}, tokenizer={"from": "base"}, **sections)
        return finetune_inputs(Context(made), index)

    chat = {"data": {"format": {"format": "chat"}}}
    with pytest.raises(
        ConfigError, match=r"^finetune\.stages\.0\.data\.format\.format=chat: the tokenizer trained on"
    ):
        finetune_inputs(Context(recipe(chat)), 0)
    llama = preset_config("llama-tiny", vocabulary_size=64, sequence_length=256).to_dict()
    good = {"method": "lora", "adapter": {"targets": ["q_proj", "down_proj"]}}
    assert planned(llama, good)["finetune.adapter.targets"] == ["q_proj", "down_proj"]
    tokenizer = tmp_path / "base" / "tokenizer_config.json"
    tokenizer.write_text("{}")
    with pytest.raises(ConfigError, match=r"format=chat: the tokenizer of .*base has no chat template; use"):
        planned(llama, chat)
    (tmp_path / "base" / "chat_template.jinja").write_text("{{ messages }}")
    planned(llama, chat)
    wrong = {"method": "lora", "adapter": {"targets": ["q_proj", "query"]}}
    with pytest.raises(
        ConfigError,
        match=r"^finetune\.stages\.1\.adapter\.targets: 'query' matches no linear layer; this model has "
        r".*q_proj.*; name some of these, or all-linear",
    ):
        planned(llama, {}, {**wrong, "start": "merged"}, index=1)
    preset = recipe(wrong)
    with pytest.raises(ConfigError, match=r"^finetune\.stages\.0\.adapter\.targets: 'query'"):
        finetune_inputs(Context(preset), 0)
    windowed = {**llama, "sliding_window": 16}
    shifted = {"method": "longqlora", "data": {"sequence_length": 32}}
    with pytest.raises(
        ConfigError, match=r"see a window of 16 tokens .* widen the window .* or give the layers"
    ):
        planned(windowed, shifted)
    # The second remedy: layers that all see everything, whatever the window was.
    planned({**windowed, "layer_types": ["full_attention"] * llama["num_hidden_layers"]}, shifted)
    wide = {"group_len": 65}
    with pytest.raises(ConfigError, match=r"^finetune\.stages\.0\.shifted_sparse_attention\.group_len=65: a"):
        planned(llama, {**shifted, "shifted_sparse_attention": wide})
    short = {"method": "linear", "original_positions": 256, "target_positions": 200}
    with pytest.raises(ConfigError, match=r"^finetune\.stages\.0\.rope_scaling\.target_positions=200 is no"):
        planned(llama, {"method": "lora", "rope_scaling": short})
    with pytest.raises(ValidationError, match="no layer would get an adapter"):
        planned(llama, {"method": "lora", "adapter": {"targets": []}})
    twice = {"method": "full", "rope_scaling": LINEAR}
    with pytest.raises(ConfigError, match=r"^finetune\.stages\.1\.rope_scaling: .* are stretched already"):
        planned(llama, twice, {"method": "lora", "rope_scaling": LINEAR}, index=1)
    long = {"method": "lora", "data": {"sequence_length": 4096}, "global_batch_tokens": 4096}
    with pytest.raises(ConfigError, match=r"^finetune\.stages\.0\.data\.sequence_length=4096 is longer than"):
        planned(llama, long)
    stretched = {"method": "linear", "original_positions": 256, "target_positions": 4096}
    planned(llama, {"method": "full", "rope_scaling": stretched}, long, index=1)


def test_checks_that_need_held_out_papers_are_refused_without_any():
    def check(**sections):
        check_evaluation(Context(recipe({}, evaluation={"tasks": ["passkey", "perplexity"]}, **sections)))

    check()
    papers = {"sources": [{"name": "papers", "uri": "papers"}]}
    with pytest.raises(ConfigError, match=r"perplexity is measured on held-out papers, .* holds none"):
        check(corpus={**papers, "splits": {"validation_fraction": 0.0}})
    check(corpus={**papers, "splits": {"validation_fraction": 0.0, "test_fraction": 0.1}})


def test_four_bits_without_their_library_are_refused_when_planning(monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda _: None)
    finetune_inputs(Context(recipe({"method": "lora"})), 0)
    with pytest.raises(PlatformError, match=r"need bitsandbytes.*baltoro\[nf4\]'`, or use method=lora"):
        finetune_inputs(Context(recipe({"method": "longqlora"})), 0)


def test_sources_name_parts_of_the_set():
    assert parts_of_sources(recipe({}).finetune.stages[0].data) is None
    some = recipe({"data": {"from": ["instructions.files"]}})
    assert parts_of_sources(some.finetune.stages[0].data) == ["files"]
    one = recipe({"data": {"from": ["instructions.files.chats"]}})
    assert parts_of_sources(one.finetune.stages[0].data) == ["files.chats"]
    with pytest.raises(ValidationError, match=r"instructions.files.others is not made by this recipe"):
        recipe({"data": {"from": ["instructions.files.others"]}})


def test_one_file_of_a_set_can_be_read_alone(tmp_path):
    store = ArtifactStore(Storage(), str(tmp_path))
    writer = store.begin("instructions", "geo", fingerprint_of({}))
    others = [replace(example, origin=f"notes/{example.origin}") for example in examples(2)]
    table = with_place([*examples(3), *others], "files", hold_out_of(recipe({}).instructions))
    writer.write_file("examples.parquet", parquet_bytes(table), rows=5)
    made = writer.publish(
        inputs={}, stage_version=1, parents={}, counts={}, extra={}, made_by=collect_provenance()
    )
    assert read_set(Storage(), made).num_rows == read_set(Storage(), made, ["files"]).num_rows == 5
    assert read_set(Storage(), made, ["files.chats"]).num_rows == 3
    assert read_set(Storage(), made, ["signals"]).num_rows == 0


def examples(count, words=4):
    return [
        Example(f"chats/{n}#chat", "chat", "files", f"chats/{n}",
                [Turn("user", f"What is {n}?"), Turn("assistant", " ".join(["rock"] * words) + f" {n}")])
        for n in range(count)
    ]  # fmt: skip


class _Run:
    def __init__(self):
        self.metrics = {}

    def log_metrics(self, metrics):
        self.metrics |= metrics


@pytest.fixture
def rows_of(tmp_path):
    """Write the rows of examples for a stage; return the opened dataset's rows, the output and the folder."""
    store = ArtifactStore(Storage(), str(tmp_path))
    tokenizer = write_tokenizer(str(tmp_path))

    def write(table, **stage):
        data = {"sequence_length": 512, **stage.pop("data", {})}
        config = recipe({"data": data, "global_batch_tokens": 512, **stage}).finetune.stages[0]
        writer = store.begin("tokens", "geo-s0", "0" * 16)
        output = write_rows(Storage(), writer, _Run(), table, tokenizer, config)
        return output, tmp_path / "tokens" / "geo-s0" / ("0" * 16) / writer.folder

    return write


def test_rows_are_whole_examples_split_by_origin_with_masks_and_names(rows_of):
    config = recipe({}).instructions.model_copy(update={"validation_fraction": 0.3})
    table = with_place(examples(40), "files", hold_out_of(config))
    splits = set(table["split"].to_pylist())
    assert splits == {"train", "validation"}
    output, folder = rows_of(table, epochs=2)
    papers = pq.read_table(folder / "papers.parquet")
    assert papers["paper_id"].to_pylist() == [example.example_id for example in examples(40)]
    assert min(papers["tokens"].to_pylist()) > 10
    shards = sorted(folder.glob("train/*.parquet"))
    seen = np.concatenate(
        [np.concatenate(pq.read_table(shard)["paper_index"].to_pylist()) for shard in shards]
    )
    trained = np.flatnonzero(np.array(table["split"].to_pylist()) == "train")
    # Each example once an epoch.
    assert sorted(seen.tolist()) == sorted([*trained, *trained])
    assert output.summary["tokens_by_task"] == {"chat": sum(papers["tokens"].to_pylist()[n] for n in trained)}
    assert 0 < output.summary["learned_tokens"] < output.summary["tokens"]


def test_examples_that_do_not_fit_are_rejects_and_none_left_is_an_error(rows_of):
    config = recipe({}).instructions
    mixed = with_place([*examples(20), *[replace_words(n) for n in range(3)]], "files", hold_out_of(config))
    output, folder = rows_of(mixed)
    assert output.summary["rejected"] == {"longer_than_row": 3}
    assert pq.read_table(folder / "rejects.parquet").num_rows == 3
    with pytest.raises(InputError, match=r"no example to train on \(20 longer_than_row\); raise data"):
        rows_of(with_place(examples(20, words=2000), "files", hold_out_of(config)))


def replace_words(number):
    (example,) = examples(1, words=2000)
    return replace(example, example_id=f"long/{number}#chat", origin=f"long/{number}")


def test_two_examples_of_one_name_are_refused():
    made = InstructionSet({"files": examples(2), "signals": examples(1)})
    with pytest.raises(InputError, match="1 examples share their name with another, first 'chats/0#chat'"):
        refuse_repeated_ids(made)
