"""Instruction data to a fine-tuned, merged, registered model, on a real local Ray and MLflow."""

import csv
import json
import re
import shlex
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from click.testing import CliRunner
from mlflow import MlflowClient
from transformers import AutoModelForCausalLM, AutoTokenizer

from baltoro.cli import main
from baltoro.core.artifacts import ArtifactStore
from baltoro.core.errors import InputError
from baltoro.core.storage import Storage
from baltoro.data.shards import TokenDataset
from baltoro.jobs.merge import merge_folders
from baltoro.jobs.review_model import load_model
from baltoro.jobs.runner import active_stages, plan
from baltoro.jobs.sheets import export_set, write_review_sheet
from baltoro.jobs.stages import Context
from baltoro.jobs.tokens import split_files
from baltoro.jobs.verify.audit import audit
from baltoro.models.adapters import Tuning, read_adapter
from baltoro.models.load import build_model, load_weights, plan_model
from baltoro.models.weights import digest_folder

pytestmark = [pytest.mark.jobs, pytest.mark.slow, pytest.mark.timeout(900)]

LENGTH, STEPS = 256, 6

COMMON = f"""global_batch_tokens: {4 * LENGTH}, steps: {STEPS}, precision: float32, micro_batch: 1,
    optimizer: {{learning_rate: 1.0e-2, weight_decay: 0.0}}"""

STAGES = f"""[
  {{name: general, method: lora, data: {{from: [instructions.files], sequence_length: {LENGTH}}},
    adapter: {{rank: 4, alpha: 8}}, global_batch_tokens: {4 * LENGTH}, steps: {STEPS}, precision: float32,
    optimizer: {{learning_rate: 1.0e-2, weight_decay: 0.0}}}},
  {{name: expert, method: longqlora, start: merged, data: {{from: [instructions.files],
    sequence_length: {LENGTH}, format: {{format: alpaca_legacy}}}},
    adapter: {{rank: 4, alpha: 8, targets: [q_proj, v_proj], train: [norms]}},
    rope_scaling: {{method: linear, original_positions: {LENGTH // 2}, target_positions: {LENGTH}}},
    {COMMON}}}]"""

EVALUATION = (
    "{tasks: [passkey, perplexity], passkey: {lengths: [240], depths: [0.5], trials: 1}, "
    "perplexity: {lengths: [64, 128]}}"
)


@pytest.fixture(scope="module")
def overrides(built, tmp_path_factory):
    """The finished tiny recipe with two stages of fine-tuning on a file of questions."""
    file = tmp_path_factory.mktemp("files") / "questions.jsonl"
    words = ["basalt", "moraine", "firn", "gneiss", "serac", "karst", "loess", "tuff"]
    records = [
        {"instruction": f"What is {word} {number}?", "input": "", "output": f"{word} is rock {number}."}
        for word in words
        for number in range(30)
    ]
    broken = ['{"instruction": "no output"}', "not json"]
    file.write_text("\n".join([*(json.dumps(record) for record in records), *broken]) + "\n")
    return (
        *built.overrides,
        f"instructions.files=[{{name: questions, uri: {file}}}]",
        f"finetune.stages={STAGES}",
    )


@pytest.fixture(scope="module")
def tuned(build, overrides):
    return build("evaluate", *overrides, f"evaluation={EVALUATION}")


def artifact(built, tuned, stage):
    return ArtifactStore(Storage(), str(built.root)).open(tuned[stage]["artifact"])


def test_stages_run_in_order_and_their_losses_fall(tuned):
    assert tuned["instructions"]["examples"] == 240
    assert sum(tuned["instructions"]["rejected"].values()) == 2
    for stage in ("finetune-general", "finetune-expert"):
        assert tuned[stage]["steps"] == STEPS
        assert tuned[stage]["loss_last"] < tuned[stage]["loss_first"] - 0.1
    assert tuned["finetune-expert"]["registered"]["name"] == "tiny"
    assert "registered" not in tuned["finetune-general"]
    assert "registered" not in tuned["pretrain"]


def test_rows_hold_whole_examples_and_only_responses_are_learned(built, tuned):
    tokens = artifact(built, tuned, "tokens-expert")
    with TokenDataset.open(split_files(tokens, "train"), Storage()) as dataset:
        rows = dataset.read_rows(0, len(dataset))
    assert rows.loss_mask is not None
    folder = Path(tuned["finetune-expert"]["adapter"])
    tokenizer = AutoTokenizer.from_pretrained(folder)
    for row in range(len(rows)):
        start = 0
        for end in rows.segment_ends[row]:
            ids, learned = rows.input_ids[row][start:end], rows.loss_mask[row][start:end]
            whole, response = tokenizer.decode(ids), tokenizer.decode(ids[learned])
            assert whole.startswith("Below is an instruction")
            assert whole.endswith(response)
            assert " is rock " in response
            assert "###" not in response
            start = end


def test_the_merged_model_is_base_and_both_adapters(built, tuned, tmp_path):
    base = Path(tuned["pretrain"]["export"])
    general = Path(tuned["finetune-general"]["export"])
    expert, merged = Path(tuned["finetune-expert"]["adapter"]), Path(tuned["finetune-expert"]["export"])
    tokenizer = AutoTokenizer.from_pretrained(expert)
    known = read_adapter(expert)
    assert known.quantization is not None
    plan_of = plan_model(base, tokenizer, sequence_length=1, vocabulary_multiple=8)
    plan_of = replace(
        plan_of,
        config=known.config,
        merged=(general,),
        tuning=Tuning(known.settings, known.quantization, "float32", start=expert),
    )
    model = build_model(plan_of)
    model.to_empty(device="cpu")
    load_weights(model, plan_of)
    ids = tokenizer("Below is an instruction. What is firn 3?", return_tensors="pt").input_ids
    plain = AutoModelForCausalLM.from_pretrained(merged, dtype=torch.float32).eval()
    with torch.no_grad():
        difference = (model.eval()(ids).logits - plain(ids).logits).abs().max()
    assert float(difference) < 1e-4
    assert plain.config.rope_parameters["factor"] == 2.0
    # The command of the adapter's card gives the run's own model, bit for bit.
    assert known.trained_on.base == str(base)
    assert [before.folder for before in known.trained_on.adapters] == [str(general)]
    (command,) = re.findall(r"^baltoro (model merge .*)$", (expert / "README.md").read_text(), re.MULTILINE)
    *options, _, output = shlex.split(command)
    assert output == "FOLDER"
    options = [str(expert) if option == "." else option for option in options]
    result = CliRunner().invoke(main, [*options, "--output", str(tmp_path / "both")])
    assert result.exit_code == 0, result.output
    assert digest_folder(tmp_path / "both") == digest_folder(merged)
    with pytest.raises(
        InputError, match=r"after 1 adapter was merged into it, and none given; .* in this order"
    ):
        merge_folders(expert, base, tmp_path / "wrong")
    with pytest.raises(InputError, match=r"after 1 adapter was merged into it"):
        load_model(expert, base, "cpu")


def test_scores_have_intervals_and_stand_in_mlflow(tuned, tracking_uri):
    scores = tuned["evaluate"]["scores"]
    perplexities = {"perplexity/yarn_truncated/64", "perplexity/yarn_truncated/128"}
    assert set(scores) == {"passkey", "passkey/240", *perplexities}
    assert scores["passkey/240"] == scores["passkey"]
    assert scores["passkey"]["items"] == 1
    run = MlflowClient(tracking_uri).get_run(tuned["evaluate"]["run_id"])
    assert run.data.metrics["evaluation/passkey"] == scores["passkey"]["value"]


def test_a_finetune_run_is_audited_like_any_other(load_tiny, overrides, tuned):
    certificate, _ = audit(Context(load_tiny(*overrides)), "tiny-expert")
    assert certificate.certified
    assert certificate.verdicts[0].steps == STEPS


def test_nothing_is_built_twice(load_tiny, overrides, tuned):
    entries = plan(Context(load_tiny(*overrides)), "finetune-expert")
    assert {entry.key: entry.status for entry in entries if entry.status != "done"} == {}


def test_what_people_decide_is_followed_by_the_next_build(build, load_tiny, overrides, tuned, tmp_path):
    context = Context(load_tiny(*overrides))
    told = write_review_sheet(context, str(tmp_path), per_task=3, seed=0)
    with Path(told["sheet"]).open(encoding="utf-8-sig", newline="") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 3
    for row, decision in zip(rows, ("keep", "drop", "edit"), strict=True):
        row["decision"] = decision
    rows[2]["edited_response"] = "An edited answer."
    with Path(told["sheet"]).open("w", encoding="utf-8-sig", newline="") as file:
        writer = csv.DictWriter(file, rows[0].keys())
        writer.writeheader()
        writer.writerows(rows)
    decided = (*overrides, f"instructions.decisions={told['sheet']}")
    summary = build("instructions", *decided)["instructions"]
    assert summary["examples"] == 239
    assert summary["steps"]["decisions"]["dropped"] == summary["steps"]["decisions"]["edited"] == 1
    (noise,) = summary["steps"]["decisions"]["noise"].values()
    assert noise["fraction"] == pytest.approx(2 / 3)
    written = export_set(
        Context(load_tiny(*decided)), str(tmp_path / "set.jsonl"), layout="alpaca", parts=None, names=True
    )
    assert written["written"] == 239
    assert "An edited answer." in (tmp_path / "set.jsonl").read_text()


def test_stages_that_a_recipe_does_not_need_are_not_there(load_tiny, overrides):
    names = [stage.name for stage in active_stages(load_tiny(*overrides))]
    assert names[-4:] == ["tokens-general", "finetune-general", "tokens-expert", "finetune-expert"]
    alone = [
        stage.name
        for stage in active_stages(load_tiny(*overrides, "finetune.base=model", "tokenizer.from=train"))
    ]
    assert "pretrain" not in alone
    assert "tokens" not in alone
