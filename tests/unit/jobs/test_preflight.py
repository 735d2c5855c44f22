"""What training would fail of is refused before anything starts, with setting, value and remedy."""

import json
import os
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pytest

from baltoro.checkpoint.head import Finished, RunIdentity, claim_attempt
from baltoro.core.artifacts import Artifact, ArtifactStore, fingerprint_of
from baltoro.core.errors import ArtifactError, BaltoroError, ConfigError, InputError, StorageError
from baltoro.core.storage import Storage
from baltoro.data.order import StepOrder
from baltoro.jobs.model import MODEL_FOLDER
from baltoro.jobs.recipe import Recipe
from baltoro.jobs.stages import Context
from baltoro.jobs.training.preflight import (
    check_dataset,
    check_node,
    check_run,
    check_settings,
    pretraining,
    split_of,
)
from baltoro.testing.training_jobs import LENGTH, tiny_recipe, write_rows, write_tokenizer

STEPS = 4


def recipe_with(root: Path, *, pretrain: dict[str, Any] | None = None, **sections: Any) -> Recipe:
    base = tiny_recipe(str(root), steps=STEPS).model_dump(by_alias=True)["pretrain"]
    return tiny_recipe(str(root), steps=STEPS, pretrain={**base, **(pretrain or {})}, **sections)


@dataclass
class Refusal:
    """What is wrong, and what the refusal must say of it."""

    sections: dict[str, Any]
    says: list[str] = field(default_factory=list)


SETTINGS = {
    "an optimizer that ZeRO cannot partition": Refusal(
        {"pretrain": {"strategy": "deepspeed", "optimizer": {"name": "adamw_8bit"}}},
        ["pretrain.optimizer.name=adamw_8bit", "set optimizer.name to adamw"],
    ),
    "batch is no whole number of rows": Refusal(
        {"pretrain": {"global_batch_tokens": 250}},
        ["pretrain.global_batch_tokens=250 is not a multiple of sequence_length=32", "224 and 256"],
    ),
    "batch does not divide among workers": Refusal(
        {"cluster": {"workers": 3}},
        [
            "pretrain.global_batch_tokens=256 is 8 rows",
            "3 data ranks × micro_batch 2",
            "data ranks to 2 or 4",
        ],
    ),
    "fewer rows than elastic workers": Refusal(
        {"cluster": {"workers": 9, "min_workers": 2}},
        ["global_batch_tokens=256 is 8 rows", "cluster.workers=9", "at most 8", "at least 288"],
    ),
    "elastic workers in a fixed layout": Refusal(
        {
            "cluster": {"workers": 4, "min_workers": 2},
            "pretrain": {"parallel": {"dp_replicate": 2}},
        },
        ["cluster.min_workers=2", "parallel.dp_replicate=2", "set dp_replicate to 1"],
    ),
    "degrees that do not make the workers": Refusal(
        {"pretrain": {"parallel": {"dp_replicate": 2, "dp_shard": 2}}},
        ["dp_replicate=2 × dp_shard=2 does not make 2 workers", "set dp_shard to null"],
    ),
    "settings of another strategy": Refusal(
        {"pretrain": {"parallel": {"deepspeed": {"zero_stage": 3}}}},
        ["pretrain.parallel.deepspeed.zero_stage=3", "strategy=fsdp2", "strategy=deepspeed"],
    ),
    "an attention kernel that needs a GPU": Refusal(
        {"pretrain": {"attention": "flash_varlen"}},
        ["pretrain.attention=flash_varlen", "it needs a GPU, not cpu", "allowed here: auto, sdpa"],
    ),
    "a loss that needs a GPU": Refusal(
        {"pretrain": {"loss": {"implementation": "liger"}}},
        ["pretrain.loss.implementation=liger", "run on a GPU, not on cpu", "auto, chunked or full"],
    ),
    "nothing to offload": Refusal(
        {"pretrain": {"parallel": {"fsdp2": {"cpu_offload": True}}}},
        ["pretrain.parallel.fsdp2.cpu_offload=true", "CPU", "set it to false"],
    ),
    "rows longer than learned positions": Refusal(
        {
            "model": {"base": "opt-tiny"},
            "pretrain": {"data": {"sequence_length": 1 << 16}, "global_batch_tokens": 1 << 18},
        },
        [
            "pretrain.data.sequence_length=65536 is longer than the",
            "learned positions of opt-tiny",
            "lower it to at most",
        ],
    ),
    "warm-up longer than the run": Refusal(
        {"pretrain": {"schedule": {"warmup_tokens": 5000}}},
        ["pretrain.schedule.warmup_tokens=5,000", "do not fit into the run of 1,024 tokens", "train longer"],
    ),
}


@pytest.mark.parametrize("name", SETTINGS)
def test_settings_that_no_dataset_would_make_right_are_refused(tmp_path, name):
    refusal = SETTINGS[name]
    with pytest.raises(ConfigError) as caught:
        check_settings(pretraining(recipe_with(tmp_path, **refusal.sections)))
    for part in refusal.says:
        assert part in caught.value.message


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"pretrain": {"optimizer": {"learning_rate": 3.0}}}, ["learning_rate", "3.0"]),
        ({"pretrain": {"optimizer": {"learning_rate": 0.0}}}, ["learning_rate", "0.0"]),
        ({"cluster": {"workers": 2, "min_workers": 3}}, ["min_workers=3 is more than workers=2", "lower it"]),
    ],
)
def test_values_out_of_range_do_not_make_a_recipe(tmp_path, changes, says):
    with pytest.raises(ValueError) as caught:
        recipe_with(tmp_path, **changes)
    for part in says:
        assert part in str(caught.value)


def test_good_settings_pass_and_elastic_workers_split_unevenly(tmp_path):
    check_settings(pretraining(recipe_with(tmp_path)))
    elastic = recipe_with(tmp_path, cluster={"workers": 3, "min_workers": 1})
    check_settings(pretraining(elastic))
    assert split_of(pretraining(elastic), StepOrder(0, LENGTH, 256)).accumulation == 2
    assert elastic.cluster.elastic
    assert not recipe_with(tmp_path, cluster={"workers": 2, "min_workers": 2}).cluster.elastic


@pytest.fixture
def run_check(tmp_path) -> Callable[..., StepOrder]:
    """Check a run over a dataset of four steps: ``run_check(pretrain={…}, identity=…)``."""
    files = write_rows(tmp_path / "rows", STEPS)
    tokenizer = write_tokenizer(str(tmp_path))
    run_uri = str(tmp_path / "run")
    (tmp_path / "run").mkdir()

    def check(
        *, train=files, identity: RunIdentity | None = None, model: Artifact | None = None, **sections: Any
    ) -> StepOrder:
        context = Context(recipe_with(tmp_path, **sections))
        identity = identity or RunIdentity("settings", ("rows",))
        parents = {"tokenizer": tokenizer} | ({"model": model} if model is not None else {})
        return check_run(context, pretraining(context.recipe), parents, train, (), run_uri, identity)

    return check


def test_a_dataset_that_fits_passes(run_check):
    assert run_check().steps == STEPS


def refused(kind: type[BaltoroError], check: Callable[[], object], *says: str) -> None:
    with pytest.raises(kind) as caught:
        check()
    for part in says:
        assert part in caught.value.message


def test_an_empty_dataset_and_one_that_is_too_small_are_refused(run_check):
    empty = {"steps": None}
    refused(
        ConfigError,
        lambda: run_check(train=(), pretrain=empty),
        "the dataset has 0 rows of 32 tokens",
        "give more papers",
    )
    refused(
        ConfigError,
        lambda: run_check(pretrain={"steps": 5}),
        "5 steps of 8 rows need 40 rows, the dataset has 32",
        "raise epochs",
    )


def test_a_schedule_is_held_against_the_steps_that_there_are(run_check):
    changes = {"steps": None, "schedule": {"warmup_tokens": 1024}}
    refused(ConfigError, lambda: run_check(pretrain=changes), "warmup_tokens=1,024", "1,024 tokens")


def test_a_base_staged_just_now_is_asked_for_its_positions(run_check, tmp_path):
    config = {"max_position_embeddings": 16, "rope_theta": 10_000.0}
    with ArtifactStore(Storage(), str(tmp_path)).begin("model", "base", fingerprint_of({})) as writer:
        writer.write_file(f"{MODEL_FOLDER}/config.json", json.dumps(config).encode())
        model = writer.publish(inputs={}, stage_version=1)
    refused(
        ConfigError,
        lambda: run_check(model=model),
        "sequence_length=32 is longer than the 16 positions",
        "lower it to at most 16",
    )


def test_another_sequence_length_or_tokenizer_is_refused(tmp_path):
    files = write_rows(tmp_path / "rows", STEPS)
    made_with = write_tokenizer(str(tmp_path)).manifest.extra["tokenizer_fingerprint"]

    def check(length: int, fingerprint: str) -> None:
        check_dataset(files, (), Storage(), sequence_length=length, tokenizer_fingerprint=fingerprint)

    check(LENGTH, made_with)
    refused(
        ArtifactError,
        lambda: check(64, made_with),
        "rows of 32 tokens",
        "pretrain.data.sequence_length=64; set it to 32",
    )
    refused(
        ArtifactError,
        lambda: check(LENGTH, "0123456789abcdef"),
        f"tokenizer {made_with[:12]}, the recipe's is 0123456789ab",
        "pins.tokenizer",
    )


def test_a_run_is_not_continued_with_another_dataset(run_check, tmp_path):
    identity = RunIdentity("settings", ("rows",))
    claim_attempt(Storage(), str(tmp_path / "run"), identity, world_size=2)
    run_check(identity=identity)
    # New papers come as further parts.
    run_check(identity=RunIdentity("settings", ("rows", "more")))
    refused(
        ArtifactError,
        lambda: run_check(identity=RunIdentity("settings", ("others",))),
        "was trained on the token dataset [rows], this recipe has [others]",
        "give the dataset it was started with",
    )


def test_a_command_says_when_another_one_may_have_the_run(run_check, tmp_path, caplog):
    identity = RunIdentity("settings", ("rows",))
    claim, head = claim_attempt(Storage(), str(tmp_path / "run"), identity, world_size=2)
    run_check(identity=identity)
    assert f"is still training here (process {os.getpid()}); this command takes the run over" in caplog.text
    head_file = tmp_path / "run" / "head.json"
    elsewhere = replace(head, attempts=(replace(head.attempt, host="node-7"),))
    head_file.write_bytes(elsewhere.encode())
    caplog.clear()
    run_check(identity=identity)
    assert "on node-7, has left no word of its end: it was killed, or another command still" in caplog.text
    caplog.clear()
    (tmp_path / "run" / "failures" / "attempt-0001").mkdir(parents=True)
    run_check(identity=identity)
    (tmp_path / "run" / "failures" / "attempt-0001").rmdir()
    head_file.write_bytes(head.encode())
    claim.publish_finished(Finished(step=STEPS, export="export", digest="0"))
    run_check(identity=identity)
    assert not caplog.text


def test_storage_that_takes_no_writes_is_refused(tmp_path):
    check_node(Storage(), str(tmp_path / "run"), "bfloat16", use_gpu=False)
    (tmp_path / "file").write_text("in the way")
    with pytest.raises((StorageError, InputError), match=str(tmp_path / "file")):
        check_node(Storage(), str(tmp_path / "file"), "bfloat16", use_gpu=False)
