"""Papers to a registered model, on a real local Ray and a real MLflow database."""

import hashlib
import io
import json
import shutil
import subprocess
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
from mlflow import MlflowClient

from baltoro.core.artifacts import Artifact, ArtifactStore
from baltoro.core.storage import Storage, join
from baltoro.jobs.runner import plan
from baltoro.jobs.stages import Context
from baltoro.testing.papers import make_paper, markdown

pytestmark = [pytest.mark.jobs, pytest.mark.timeout(900)]

STAGES = ("corpus", "tokenizer", "tokens", "pretrain")


def table(built, stage: str, name: str) -> Any:
    """A Parquet file of an artifact."""
    return pq.read_table(io.BytesIO(Storage().read_bytes(built.artifact(stage).uri_of(name))))


@pytest.fixture(scope="module")
def runs(built, tracking_uri) -> dict[str, Any]:
    """The MLflow run of each stage, and their parent as ``recipe``."""
    client = MlflowClient(tracking_uri)
    experiment = client.get_experiment_by_name("tiny")
    found = client.search_runs([experiment.experiment_id])
    by_id = {run.info.run_id: run for run in found}
    last = by_id[built.summaries["pretrain"]["run_id"]]
    parent = by_id[last.data.tags["mlflow.parentRunId"]]
    mine = {
        run.data.tags["baltoro.stage"]: run
        for run in found
        if run.data.tags.get("mlflow.parentRunId") == parent.info.run_id
    }
    return {"recipe": parent, **mine}


def documents(built) -> list[dict[str, Any]]:
    corpus = built.artifact("corpus")
    return [
        row for file in corpus.files("documents/") for row in table(built, "corpus", file.name).to_pylist()
    ]


def test_every_record_is_kept_rejected_or_a_duplicate(built):
    corpus, truth = built.summaries["corpus"], built.truth
    assert corpus["papers_read"] == truth.records
    assert corpus["kept"] == len(truth.marks)
    assert corpus["rejected"] == truth.reasons
    assert corpus["duplicates"] == {"exact": len(truth.duplicates), "version": 0, "near": 0}


def test_each_broken_file_stands_in_the_rejects_with_its_reason(built):
    rows = table(built, "corpus", "rejects.parquet").to_pylist()
    assert {row["paper_id"] + "=" + row["reason"] for row in rows} == {
        f"papers/{key}={reason}" for key, reason in built.truth.rejected.items()
    }
    assert len(rows) == len(built.truth.rejected)
    assert all(row["detail"] and row["uri"].startswith(str(built.papers)) for row in rows)


def test_each_copy_names_the_paper_that_is_kept_in_its_place(built):
    rows = table(built, "corpus", "duplicates.parquet").to_pylist()
    assert {row["paper_id"]: row["kept_paper_id"] for row in rows} == {
        f"papers/{gone}": f"papers/{kept}" for gone, kept in built.truth.duplicates.items()
    }


def test_each_paper_is_one_document_with_its_own_text(built):
    rows = documents(built)
    assert sorted(row["paper_id"] for row in rows) == sorted(f"papers/{key}" for key in built.truth.marks)
    for row in rows:
        assert row["text"].count(built.truth.marks[row["paper_id"].removeprefix("papers/")]) == 1
    assert Counter(row["split"] for row in rows) == {
        "train": built.artifact("corpus").manifest.counts["documents_train"],
        "validation": built.artifact("corpus").manifest.counts["documents_validation"],
    }


def test_the_data_card_holds_the_figures_and_a_picture(built):
    corpus = built.artifact("corpus")
    card = json.loads(Storage().read_bytes(corpus.uri_of("card/card.json")))
    assert card["flow"] == [
        {
            "source": "papers",
            "papers_read": built.truth.records,
            "rejected": len(built.truth.rejected),
            "duplicates": len(built.truth.duplicates),
            "kept": len(built.truth.marks),
        }
    ]
    assert card["reasons"] == built.truth.reasons
    assert Storage().read_bytes(corpus.uri_of("card/lengths.svg")).startswith(b"<svg")
    assert b"entity" in Storage().read_bytes(corpus.uri_of("card/index.html"))


def test_token_rows_decode_to_the_documents(built, tmp_path):
    from baltoro.jobs.tokenizer import load_tokenizer
    from baltoro.jobs.tokens import split_files

    tokens = built.artifact("tokens")
    tokenizer = load_tokenizer(Storage(), built.artifact("tokenizer"), tmp_path)
    papers = table(built, "tokens", "papers.parquet").to_pylist()
    texts = {row["paper_id"]: row["text"] for row in documents(built)}
    pieces: dict[str, list[str]] = {}
    count = 0
    for split in ("train", "validation"):
        for file in split_files(tokens, split):
            for row in pq.read_table(file.uri).to_pylist():
                start = 0
                for end, paper in zip(row["segment_ends"], row["paper_index"], strict=True):
                    piece = row["input_ids"][start:end]
                    pieces.setdefault(papers[paper]["paper_id"], []).append(tokenizer.decode(piece))
                    count += len(piece)
                    start = end
                    assert papers[paper]["split"] == split
    assert count == tokens.manifest.counts["tokens_train"] + tokens.manifest.counts["tokens_validation"]
    assert pieces.keys() == texts.keys()
    epochs = {row["paper_id"]: 3 if row["split"] == "train" else 1 for row in papers}
    for paper_id, text in texts.items():
        # A long document is split over rows, which are shuffled: its pieces are its text in some order.
        whole = text + tokenizer.eos_token
        assert all(piece in whole for piece in pieces[paper_id])
        assert Counter("".join(pieces[paper_id])) == Counter(whole * epochs[paper_id])


def test_training_learns_and_leaves_checkpoints_behind(built):
    summary = built.summaries["pretrain"]
    assert summary["steps"] == 60
    assert summary["loss_last"] < summary["loss_first"] - 1
    assert summary["validation_loss_after"] < summary["validation_loss_before"] - 1
    head = json.loads(Storage().read_bytes(join(summary["artifact"], "head.json")))
    assert head["checkpoints"][-1]["step"] == 60
    assert [attempt["world_size"] for attempt in head["attempts"]] == [2]
    assert head["finished"]["step"] == 60
    assert join(summary["artifact"], head["finished"]["export"]) == summary["export"]


def test_the_export_generates_in_a_python_without_baltoro(built):
    script = """
import sys

class Blocked:
    def find_spec(self, name, path=None, target=None):
        if name == "baltoro" or name.startswith("baltoro."):
            raise ImportError("blocked")

sys.meta_path.insert(0, Blocked())
from transformers import AutoModelForCausalLM, AutoTokenizer

tokenizer = AutoTokenizer.from_pretrained(sys.argv[1])
model = AutoModelForCausalLM.from_pretrained(sys.argv[1])
prompt = tokenizer("The granite", return_tensors="pt")
made = model.generate(**prompt, max_new_tokens=8, do_sample=False)
assert "baltoro" not in sys.modules
print(made.shape[1] - prompt["input_ids"].shape[1], tokenizer.decode(made[0], skip_special_tokens=True))
"""
    result = subprocess.run(
        [sys.executable, "-I", "-c", script, built.summaries["pretrain"]["export"]],
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert result.returncode == 0, result.stderr
    assert result.stdout.startswith("8 The granite")


def test_each_stage_is_an_mlflow_run_under_one_parent(built, runs):
    assert set(runs) == {"recipe", *STAGES}
    assert all(run.info.status == "FINISHED" for run in runs.values())
    for stage in STAGES:
        tags = runs[stage].data.tags
        assert tags["baltoro.artifact"] == built.summaries[stage]["artifact"]
        assert tags["baltoro.fingerprint"] == built.artifact(stage).fingerprint
    assert runs["tokens"].data.params["pretrain.data.sequence_length"] == "64"
    assert runs["pretrain"].data.params["pretrain.optimizer.learning_rate"] == "0.005"
    assert runs["pretrain"].data.params["derived.accumulation_steps"] == "2"


def test_metrics_are_logged_once_per_step_and_stage(built, runs, tracking_uri):
    assert runs["corpus"].data.metrics["corpus/papers_kept"] == len(built.truth.marks)
    assert runs["corpus"].data.metrics["corpus/papers_rejected"] == len(built.truth.rejected)
    assert runs["tokens"].data.metrics["tokens/padding_fraction"] <= 0.01
    history = MlflowClient(tracking_uri).get_metric_history(
        runs["pretrain"].info.run_id, "train/loss_nats_per_token"
    )
    assert [entry.step for entry in history] == list(range(1, 61))
    assert history[0].value == pytest.approx(built.summaries["pretrain"]["loss_first"])
    assert history[-1].value == pytest.approx(built.summaries["pretrain"]["loss_last"])


def test_datasets_recipe_and_data_card_stand_at_the_runs(built, runs, tracking_uri):
    inputs = {
        entry.dataset.name: json.loads(entry.dataset.source)
        for entry in runs["pretrain"].inputs.dataset_inputs
    }
    assert inputs["tokens"] == {"uri": built.summaries["tokens"]["artifact"]}
    assert inputs["tokenizer"] == {"uri": built.summaries["tokenizer"]["artifact"]}
    digests = {entry.dataset.name: entry.dataset.digest for entry in runs["pretrain"].inputs.dataset_inputs}
    assert digests["tokens"] == built.artifact("tokens").fingerprint
    client = MlflowClient(tracking_uri)
    for run in runs.values():
        files = [entry.path for entry in client.list_artifacts(run.info.run_id)]
        assert "recipe.yaml" in files
        resolved = Path(client.download_artifacts(run.info.run_id, "recipe.yaml")).read_text()
        assert str(built.papers) in resolved
        assert "min_characters: 200" in resolved  # a default, which the recipe's file does not hold
    card = [entry.path for entry in client.list_artifacts(runs["corpus"].info.run_id, "data_card")]
    names = ("card.json", "flow.svg", "index.html", "lengths.svg", "years.svg")
    assert sorted(card) == [f"data_card/{name}" for name in names]


def test_the_export_is_a_registered_version_with_alias_and_lineage(built, runs, tracking_uri):
    client = MlflowClient(tracking_uri)
    version = client.get_model_version_by_alias("tiny", "candidate")
    assert built.summaries["pretrain"]["registered"] == {"name": "tiny", "version": str(version.version)}
    assert version.source == built.summaries["pretrain"]["export"]
    assert version.run_id == runs["pretrain"].info.run_id
    run = built.artifact("pretrain")
    assert version.tags["baltoro.run"] == run.relative_path
    assert version.tags["baltoro.parent.tokens"] == built.artifact("tokens").relative_path
    assert version.tags["baltoro.parent.tokenizer"] == built.artifact("tokenizer").relative_path
    assert version.tags["baltoro.export_digest"] == run.manifest.extra["export_digest"]


def test_the_same_command_builds_nothing_twice(built, build, tracking_uri):
    client = MlflowClient(tracking_uri)
    experiment = client.get_experiment_by_name("tiny").experiment_id
    files = {path: path.stat().st_mtime_ns for path in built.root.rglob("*") if path.is_file()}
    runs_before = len(client.search_runs([experiment]))
    versions_before = len(client.search_model_versions("name = 'tiny'"))
    assert build("pretrain", *built.overrides) == built.summaries
    assert {path: path.stat().st_mtime_ns for path in built.root.rglob("*") if path.is_file()} == files
    assert len(client.search_runs([experiment])) == runs_before
    assert len(client.search_model_versions("name = 'tiny'")) == versions_before


def test_workers_and_micro_batch_change_no_identity(built, load_tiny):
    recipe = load_tiny(
        *built.overrides,
        "cluster.workers=1",
        "pretrain.micro_batch=8",
        "corpus.objects_per_task=3",
        "pretrain.checkpoint.every_steps=2",
    )
    assert [(entry.stage.name, entry.status) for entry in plan(Context(recipe), "pretrain")] == [
        (stage, "done") for stage in STAGES
    ]


def test_a_new_paper_makes_the_corpus_stale_and_all_below_it(built, load_tiny, tmp_path):
    folder = tmp_path / "papers"
    shutil.copytree(built.papers, folder)
    recipe = load_tiny(built.overrides[0], f"corpus.sources.0.uri={folder}")
    assert {entry.status for entry in plan(Context(recipe), "pretrain")} == {"done"}, (
        "copied papers are the same"
    )
    (folder / "another.md").write_text(markdown(make_paper(999)))
    planned = plan(Context(recipe), "pretrain")
    assert {entry.stage.name: entry.status for entry in planned} == dict.fromkeys(STAGES, "stale")
    changed = {entry.stage.name: [change.key for change in entry.changes] for entry in planned}
    assert changed == {
        "corpus": ["corpus.sources.0.listing", "corpus.sources.0.objects"],
        "tokenizer": ["parents.corpus"],
        "tokens": ["parents.corpus", "parents.tokenizer"],
        "pretrain": ["parents.tokenizer", "parents.tokens"],
    }


def test_a_changed_learning_rate_makes_only_training_stale(built, load_tiny):
    recipe = load_tiny(*built.overrides, "pretrain.optimizer.learning_rate=0.001")
    planned = {entry.stage.name: entry for entry in plan(Context(recipe), "pretrain")}
    assert {name: entry.status for name, entry in planned.items()} == {
        **dict.fromkeys(STAGES, "done"),
        "pretrain": "stale",
    }
    assert [str(change) for change in planned["pretrain"].changes] == [
        "pretrain.optimizer.learning_rate: 0.005 -> 0.001"
    ]


def checksums(artifact: Artifact) -> dict[str, str]:
    """Checksum by name of every file, each compared with what the manifest says."""
    found = {}
    for file in artifact.manifest.files:
        data = Storage().read_bytes(artifact.uri_of(file))
        assert hashlib.sha256(data).hexdigest() == file.sha256
        found[file.name] = file.sha256
    return found


def test_two_builds_give_the_same_bytes(built, build, tmp_path):
    again = build("tokens", f"storage.root={tmp_path}", built.overrides[1])
    store = ArtifactStore(Storage(), str(tmp_path))
    for stage in ("corpus", "tokenizer", "tokens"):
        other, first = store.open(again[stage]["artifact"]), built.artifact(stage)
        assert other.fingerprint == first.fingerprint
        # The card says how long the build took.
        timed = {"card/card.json", "card/index.html"}
        assert {name: value for name, value in checksums(other).items() if name not in timed} == {
            name: value for name, value in checksums(first).items() if name not in timed
        }
        assert other.manifest.extra["summary"] == first.manifest.extra["summary"]


def test_the_cut_into_tasks_changes_no_document_and_no_token(built, build, tmp_path):
    again = build("tokens", f"storage.root={tmp_path}", built.overrides[1], "corpus.objects_per_task=5")
    store = ArtifactStore(Storage(), str(tmp_path))
    corpus, tokens = (store.open(again[stage]["artifact"]) for stage in ("corpus", "tokens"))
    assert len(corpus.files("documents/")) > len(built.artifact("corpus").files("documents/"))
    rows = [
        row
        for file in corpus.files("documents/")
        for row in pq.read_table(io.BytesIO(Storage().read_bytes(corpus.uri_of(file)))).to_pylist()
    ]
    # As text, since a score that does not apply is NaN, which equals nothing.
    assert str(rows) == str(documents(built))
    assert checksums(tokens) == checksums(built.artifact("tokens"))
