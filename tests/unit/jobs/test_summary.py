"""The closing lines say what came out, where it is, and what to do next."""

import sys
from pathlib import Path

import pytest

from baltoro.jobs.summary import closing_lines

STAGES = {
    "corpus": {
        "artifact": "/w/corpus/geo/1",
        "papers_read": 32,
        "kept": 26,
        "rejected": {"empty_file": 1, "malformed_xml": 4},
        "duplicates": {"exact": 1, "version": 0, "near": 0},
        "bytes": 123_456,
        "data_card": "/w/corpus/geo/1/w-1/card/index.html",
    },
    "model": {"artifact": "/w/model/base/2", "parameters": 134_515_008, "source": "owner/base@abc"},
    "tokenizer": {"artifact": "/w/tokenizer/geo/3", "vocabulary": 2048},
    "tokens": {
        "artifact": "/w/tokens/geo/4",
        "sequences": 1234,
        "tokens": 314_159,
        "padding_fraction": 0.00456,
    },
    "pretrain": {
        "artifact": "/w/run/geo/5",
        "steps": 60,
        "tokens_seen": 122_880,
        "tokens_per_second": 1234.5,
        "loss_first": 7.654321,
        "loss_last": 4.321,
        "validation_loss_before": 7.6,
        "validation_loss_after": 4.5,
        "registered": {"name": "geo", "version": "3"},
        "export": "/w/run/geo/5/export-1",
    },
}


def lines(recipe, stages=STAGES, only=None):
    return closing_lines(recipe, stages, only).splitlines()


@pytest.fixture(autouse=True)
def activated(monkeypatch):
    """The environment's programs are on the PATH."""
    monkeypatch.setenv("PATH", str(Path(sys.executable).parent))


def test_programs_that_are_not_on_the_path_are_named_in_full(load, monkeypatch):
    monkeypatch.setenv("PATH", "")
    look = next(line for line in lines(load()) if "look at the run" in line)
    assert look.startswith(f"  look at the run:   {Path(sys.executable).parent}/mlflow server --backend")


def test_a_whole_run_is_told_stage_by_stage_with_what_to_do_next(load, workplace):
    assert lines(load()) == [
        "corpus",
        "  32 records read = 26 kept + 5 rejected + 1 duplicates",
        "  rejected: 1 empty_file, 4 malformed_xml",
        "  0.12 MB of text; data card: /w/corpus/geo/1/w-1/card/index.html",
        "  /w/corpus/geo/1",
        "model",
        "  134,515,008 parameters from owner/base@abc",
        "  /w/model/base/2",
        "tokenizer",
        "  vocabulary of 2,048",
        "  /w/tokenizer/geo/3",
        "tokens",
        "  314,159 tokens in 1,234 sequences, 0.46 % padding",
        "  /w/tokens/geo/4",
        "pretrain",
        "  60 steps, 122,880 tokens, 1,234 tokens/s",
        "  training loss 7.654 → 4.321 nats per token",
        "  validation loss 7.600 → 4.500 nats per token",
        "  registered as geo version 3 (alias candidate)",
        "  /w/run/geo/5/export-1",
        "next",
        f"  look at the run:   mlflow server --backend-store-uri sqlite:///{workplace}/workspace/mlflow.db",
        "  load the model:    AutoModelForCausalLM.from_pretrained('/w/run/geo/5/export-1')",
        f"  prove the run:     baltoro verify-resume --run geo storage.root={workplace}/workspace",
    ]


def test_one_stage_is_told_alone(load):
    assert lines(load(), only="tokenizer") == ["tokenizer", "  vocabulary of 2,048", "  /w/tokenizer/geo/3"]
    assert lines(load(), only="pretrain")[-4] == "next"


def test_a_run_without_validation_or_rejects_leaves_those_lines_out(load):
    stages = {
        "corpus": {**STAGES["corpus"], "rejected": {}, "kept": 31},
        "pretrain": {**STAGES["pretrain"], "validation_loss_before": None, "validation_loss_after": None},
    }
    told = "\n".join(lines(load(), stages))
    assert "31 kept + 0 rejected" in told
    assert "rejected:" not in told
    assert "validation loss" not in told


def test_an_export_in_a_bucket_is_fetched_before_it_is_loaded(load, workplace):
    stages = {"pretrain": {**STAGES["pretrain"], "export": "s3://bucket/run/geo/5/export-1"}}
    assert lines(load("tracking.uri=http://mlflow:5000"), stages)[-5:] == [
        "next",
        "  look at the run:   http://mlflow:5000",
        "  fetch the model:   aws s3 cp --recursive s3://bucket/run/geo/5/export-1 model",
        "  load the model:    AutoModelForCausalLM.from_pretrained('model')",
        f"  prove the run:     baltoro verify-resume --run geo storage.root={workplace}/workspace",
    ]


@pytest.mark.parametrize("folder", ["my work", "it's"])
def test_commands_can_be_pasted_whatever_the_folder_is_called(load, workplace, folder):
    import shlex

    (command,) = [line for line in lines(load(f"storage.root={folder}")) if "mlflow server" in line]
    assert shlex.split(command.partition("run:")[2])[-1] == f"sqlite:///{workplace}/{folder}/mlflow.db"


def test_a_vocabulary_that_the_corpus_could_not_fill_is_told(load):
    stages = {"tokenizer": {"artifact": "/w/t", "vocabulary": 650, "vocabulary_asked": 2048}}
    assert "tokenizer.vocab_size=2,048, but the sample has no more" in closing_lines(
        load(), stages, "tokenizer"
    )
    stages["tokenizer"]["vocabulary"] = 2048
    assert "vocab_size" not in closing_lines(load(), stages, "tokenizer")


def test_a_trial_says_what_the_whole_would_be(load):
    corpus = {
        **STAGES["corpus"],
        "trial": {
            "files": 10,
            "files_of_whole": 1000,
            "read_fraction": 0.0123,
            "whole": {
                "seconds": 1234,
                "documents": 900,
                "bytes": 2_500_000,
                "tokens": 600_000,
                "rejected": {"empty_file": 100},
            },
        },
    }
    text = closing_lines(load(), {"corpus": corpus}, "corpus")
    assert "TRIAL: 10 of 1,000 files, 1.23 % of their bytes; the whole would be about" in text
    assert "1,234 s on these CPUs, 900 documents, 2.5 MB of text, 600,000 tokens" in text
    assert "rejected: 100 empty_file" in text


def test_a_run_that_was_resumed_says_where(load):
    resumed = {**STAGES["pretrain"], "attempt": 3, "resumed_from_step": 1200}
    assert "  resumed after step 1,200 by attempt 3" in lines(load(), {"pretrain": resumed})
    begun = {**STAGES["pretrain"], "attempt": 1, "resumed_from_step": 0}
    assert "resumed after" not in "\n".join(lines(load(), {"pretrain": begun}))


def score(value, low=None, high=None):
    return {"value": value, "low": low, "high": high, "items": 10}


def test_measurements_are_told_task_by_task_with_their_pictures(load):
    measured = {
        "artifact": "/w/evaluation/geo/7",
        "scores": {
            "perplexity/yarn_truncated/256": score(30.5, 28.0, 33.25),
            "perplexity/yarn_truncated/512": score(27.5),
            "positions/1-1": score(6.5, 6.0, 7.0),
            "passkey/512": score(0.75, 0.5, 0.9),
            "passkey": score(0.75, 0.5, 0.9),
        },
        "pictures": ["/w/evaluation/geo/7/perplexity.png", "/w/evaluation/geo/7/passkey.png"],
    }
    assert lines(load(), {"evaluate": measured}, "evaluate") == [
        "evaluate",
        "  perplexity by length, yarn_truncated",
        "    256: 30.5 (28 to 33.25)",
        "    512: 27.5 (too few documents for an interval)",
        "  nats per token by tokens of context",
        "    1-1: 6.5 (6 to 7)",
        "  share of passkeys found by length",
        "    512: 0.75 (0.5 to 0.9)",
        "    in all: 0.75 (0.5 to 0.9)",
        "  pictures: /w/evaluation/geo/7/perplexity.png, /w/evaluation/geo/7/passkey.png",
        "  /w/evaluation/geo/7",
    ]


def test_all_finetune_stages_are_told_and_what_a_tuned_model_is_for(load):
    tuned = {
        **STAGES["pretrain"],
        "adapter": "/w/run/geo/5/export-1",
        "export": "/w/run/geo/5/export-1/merged",
    }
    reviews = ["instructions.reviews.papers=papers", "instructions.reviews.reviews=reviews"]
    stages = "finetune.stages=[{name: general, data: {from: [instructions.reviews]}}, {name: expert}]"
    recipe = load(*reviews, stages, "evaluation.tasks=[passkey]")
    told = lines(
        recipe,
        {**STAGES, "finetune-general": STAGES["pretrain"], "finetune-expert": tuned},
        "finetune-expert",
    )
    assert [line for line in told if not line.startswith(" ")] == [
        "finetune-general",
        "finetune-expert",
        "next",
    ]
    assert "  its adapter alone: /w/run/geo/5/export-1" in told
    assert "  review a paper:    baltoro review PAPER --model /w/run/geo/5/export-1/merged" in told
    assert "  measure the model: baltoro evaluate RECIPE" in told
    assert "review a paper" not in "\n".join(lines(load(), STAGES))
