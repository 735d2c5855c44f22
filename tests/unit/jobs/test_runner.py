"""A plan says of each stage whether it is done, new or stale, and names exactly the keys that made it so."""

import json
import shutil
from dataclasses import replace
from importlib.metadata import version
from pathlib import Path

import pytest

from baltoro.core.config import dump_yaml
from baltoro.core.errors import ArtifactError, BaltoroError, ConfigError
from baltoro.core.storage import Storage
from baltoro.jobs import runner
from baltoro.jobs.model import import_model
from baltoro.jobs.runner import describe_plan, execute, make_tracker, needed_stages, plan
from baltoro.jobs.stages import Context
from baltoro.jobs.tokenizer import markers
from baltoro.jobs.tokens import TOKENS
from baltoro.papers.renderers import special_tokens

EVERY_STAGE = ["corpus", "tokenizer", "tokens", "pretrain"]


def planned(recipe, target="pretrain"):
    return {entry.stage.name: entry for entry in plan(Context(recipe), target)}


def statuses(recipe, target="pretrain"):
    return {name: entry.status for name, entry in planned(recipe, target).items()}


def changes(recipe):
    return {
        name: [change.key for change in entry.changes]
        for name, entry in planned(recipe).items()
        if entry.status == "stale"
    }


def build(recipe, target="pretrain"):
    """Publish an artifact with one file for every stage that the plan finds missing."""
    context = Context(recipe)
    artifacts = {}
    for entry in plan(context, target):
        stage = entry.stage
        if entry.artifact is None:
            with context.store.begin(stage.kind, stage.artifact_name(context), entry.fingerprint) as writer:
                writer.write_file("data.txt", stage.name.encode(), rows=1)
                artifacts[stage.name] = writer.publish(
                    inputs=dict(entry.inputs),
                    stage_version=stage.version,
                    parents={name: artifacts[name] for name in entry.parents},
                    extra={"summary": {"stage": stage.name}},
                )
        else:
            artifacts[stage.name] = entry.artifact
    return artifacts


# --------------------------------------------------------------------------------------------------
# New, done, stale


def test_nothing_built_is_all_new_with_parents_first(load):
    entries = plan(Context(load()), "pretrain")
    assert [entry.stage.name for entry in entries] == EVERY_STAGE
    assert {entry.status for entry in entries} == {"new"}
    assert all(entry.changes == () and entry.artifact is None for entry in entries)


def test_what_is_published_is_done(load):
    artifacts = build(load())
    found = planned(load())
    assert {entry.status for entry in found.values()} == {"done"}
    assert {name: entry.artifact.uri for name, entry in found.items()} == {
        name: artifact.uri for name, artifact in artifacts.items()
    }


def test_a_half_built_recipe_is_done_as_far_as_it_goes(load):
    build(load(), "tokenizer")
    assert statuses(load()) == {"corpus": "done", "tokenizer": "done", "tokens": "new", "pretrain": "new"}


def test_a_writer_that_did_not_publish_leaves_nothing(load):
    context = Context(load())
    entry = plan(context, "corpus")[0]
    with context.store.begin("corpus", "geo", entry.fingerprint) as writer:
        writer.write_file("data.txt", b"half")
    assert statuses(load(), "corpus") == {"corpus": "new"}


AFTER_CORPUS = {
    "tokenizer": ["parents.corpus"],
    "tokens": ["parents.corpus", "parents.tokenizer"],
    "pretrain": ["parents.tokenizer", "parents.tokens"],
}


def test_a_new_paper_makes_the_corpus_stale_by_its_listing_and_the_rest_by_their_parents(load, papers):
    build(load())
    (papers / "zircon.md").write_text("# Zircon\n\nA grain keeps the age of its melt.\n")
    assert changes(load()) == {
        "corpus": ["corpus.sources.0.listing", "corpus.sources.0.objects"],
        **AFTER_CORPUS,
    }
    objects = planned(load())["corpus"].changes[1]
    assert str(objects) == "corpus.sources.0.objects: 3 -> 4"


def test_a_changed_paper_changes_the_listing_alone(load, papers):
    build(load())
    (papers / "till.md").write_text("# Till beneath ice\n\nWater decides.\n")
    assert changes(load()) == {"corpus": ["corpus.sources.0.listing"], **AFTER_CORPUS}


@pytest.mark.parametrize(
    ("override", "expected"),
    [
        ("corpus.filters.min_characters=7", {"corpus": ["corpus.filters.min_characters"], **AFTER_CORPUS}),
        ("corpus.sources.0.style=plain", {
            "corpus": ["corpus.sources.0.style"],
            **AFTER_CORPUS,
            "tokenizer": ["parents.corpus", "tokenizer.markers"],
        }),
        ("tokenizer.vocab_size=600", {
            "tokenizer": ["tokenizer.vocab_size"],
            "tokens": ["parents.tokenizer"],
            "pretrain": ["parents.tokenizer", "parents.tokens"],
        }),
        ("pretrain.data.sequence_length=32", {
            "tokens": ["pretrain.data.sequence_length"],
            "pretrain": ["parents.tokens"],
        }),
        ("pretrain.epochs=3", {
            "tokens": ["pretrain.epochs"],
            "pretrain": ["parents.tokens", "pretrain.epochs"],
        }),
        ("pretrain.optimizer.learning_rate=0.5", {"pretrain": ["pretrain.optimizer.learning_rate"]}),
        ("pretrain.precision=float32", {"pretrain": ["pretrain.precision"]}),
        ("model.init_seed=4", {"pretrain": ["model.init_seed"]}),
        ("model.base=llama-125m", {"pretrain": ["model.preset"]}),
    ],
)  # fmt: skip
def test_a_changed_setting_makes_stale_what_depends_on_it_and_names_itself(load, override, expected):
    build(load())
    assert changes(load(override)) == expected


def test_setting_it_back_finds_the_old_artifact(load):
    build(load())
    build(load("pretrain.data.sequence_length=32"))
    assert set(statuses(load()).values()) == {"done"}
    assert set(statuses(load("pretrain.data.sequence_length=32")).values()) == {"done"}


def test_a_raised_stage_version_makes_that_stage_stale(load, monkeypatch):
    build(load())
    raised = tuple(replace(s, version=s.version + 1) if s is TOKENS else s for s in runner.STAGES)
    monkeypatch.setattr(runner, "STAGES", raised)
    assert changes(load()) == {"tokens": ["stage.version"], "pretrain": ["parents.tokens"]}


@pytest.mark.parametrize(
    "override",
    [
        "cluster.workers=2",
        "cluster.use_gpu=true",
        "cluster.cpus_per_worker=4",
        "pretrain.micro_batch=2",
        "pretrain.log_every_steps=9",
        "pretrain.evaluation.max_rows=3",
        "pretrain.checkpoint.every_steps=3",
        "pretrain.data.rows_per_shard=1024",
        "corpus.objects_per_task=1",
        "corpus.bytes_per_task=10",
        "storage.shared=true",
        'storage.profiles={"s3://elsewhere": {region: eu-north-1}}',
        "tracking.experiment=other",
        "tracking.model_name=other",
        "tracking.uri=http://mlflow:5000",
        "tracking.system_metrics=false",
    ],
)
def test_how_and_where_it_runs_makes_nothing_stale(load, override):
    build(load())
    assert statuses(load(override)) == dict.fromkeys(EVERY_STAGE, "done")


def test_moved_papers_and_table_with_the_same_content_are_the_same_corpus(load, papers, tmp_path):
    (papers.parent / "table.csv").write_text("stem,license\nbasalt,CC-BY-4.0\n")
    build(load("corpus.sources.0.metadata={uri: table.csv}"), "corpus")
    shutil.copytree(papers, tmp_path / "moved")
    shutil.copy(papers.parent / "table.csv", tmp_path / "moved.csv")
    moved = [
        f"corpus.sources.0.uri={tmp_path}/moved",
        f"corpus.sources.0.metadata={{uri: {tmp_path}/moved.csv}}",
    ]
    assert statuses(load(*moved), "corpus") == {"corpus": "done"}
    (tmp_path / "moved.csv").write_text("stem,license\nbasalt,CC0-1.0\n")
    (change,) = planned(load(*moved), "corpus")["corpus"].changes
    assert change.key == "corpus.sources.0.metadata.digest"


def test_a_copied_root_is_done_too_and_its_parents_lie_in_the_copy(load, workplace, tmp_path):
    build(load())
    copy = tmp_path / "copy"
    shutil.copytree(workplace / "workspace", copy)
    shutil.rmtree(workplace / "workspace")
    recipe = load(f"storage.root={copy}")
    assert set(statuses(recipe).values()) == {"done"}
    context = Context(recipe)
    run = planned(recipe)["pretrain"].artifact
    parents = context.store.parents_of(run)
    assert sorted(parents) == ["tokenizer", "tokens"]
    assert all(parent.uri.startswith(str(copy)) for parent in parents.values())


def test_the_plan_for_people_names_the_key_under_its_stage(load):
    build(load())
    lines = describe_plan(
        plan(Context(load("pretrain.optimizer.learning_rate=0.5")), "pretrain")
    ).splitlines()
    assert [line.split()[:2] for line in lines[:4]] == [
        ["corpus", "done"],
        ["tokenizer", "done"],
        ["tokens", "done"],
        ["pretrain", "stale"],
    ]
    assert lines[4].strip() == "pretrain.optimizer.learning_rate: 0.0003 -> 0.5"
    assert len(lines) == 5


def test_a_batch_that_does_not_divide_is_told_before_anything_is_built(load):
    with pytest.raises(ConfigError, match="global_batch_tokens"):
        plan(Context(load("cluster.workers=3")), "pretrain")


# --------------------------------------------------------------------------------------------------
# Which stages a target needs


@pytest.mark.parametrize(
    ("target", "overrides", "expected"),
    [
        ("corpus", [], ["corpus"]),
        ("tokenizer", [], ["corpus", "tokenizer"]),
        ("tokens", [], ["corpus", "tokenizer", "tokens"]),
        ("pretrain", [], EVERY_STAGE),
        ("model", ["model.base=./base"], ["model"]),
        ("pretrain", ["model.base=./base"], ["model", "corpus", "tokenizer", "tokens", "pretrain"]),
        ("tokens", ["model.base=./base"], ["corpus", "tokenizer", "tokens"]),
        ("tokenizer", ["model.base=./base", "tokenizer.from=base"], ["model", "tokenizer"]),
        ("tokens", ["model.base=./b", "tokenizer.from=base"], ["model", "corpus", "tokenizer", "tokens"]),
        ("pretrain", ["pins.corpus=x"], EVERY_STAGE),
        ("tokens", ["pins.tokens=x"], ["tokens"]),
        ("pretrain", ["pins.tokens=x"], EVERY_STAGE),
        ("pretrain", ["pins.tokens=x", "pins.tokenizer=y"], ["tokenizer", "tokens", "pretrain"]),
    ],
)
def test_a_target_needs_itself_and_its_unpinned_ancestors(load, target, overrides, expected):
    assert [stage.name for stage in needed_stages(load(*overrides), target)] == expected


def test_a_stage_that_the_recipe_does_not_have_is_refused(load):
    with pytest.raises(ConfigError, match="no stage 'model'; it has corpus, tokenizer, tokens, pretrain"):
        needed_stages(load(), "model")


def test_a_preset_has_no_tokenizer_to_take(load):
    with pytest.raises(ConfigError, match=r"tokenizer.from: base, but model.base='llama-tiny' is a preset"):
        plan(Context(load("tokenizer.from=base")), "pretrain")


# --------------------------------------------------------------------------------------------------
# Pins


def test_a_pinned_stage_is_taken_as_it_is_and_its_parents_are_not_planned(load, papers):
    artifacts = build(load())
    (papers / "zircon.md").write_text("# Zircon\n\nA new paper.\n")
    recipe = load(f"pins.tokens={artifacts['tokens'].uri}", f"pins.tokenizer={artifacts['tokenizer'].uri}")
    assert statuses(recipe) == {"tokenizer": "pinned", "tokens": "pinned", "pretrain": "done"}


def test_a_pin_of_another_kind_is_refused(load):
    artifacts = build(load())
    with pytest.raises(
        ArtifactError, match=r"^pins\.tokens: .* is of kind corpus, but tokens is needed here"
    ):
        plan(Context(load(f"pins.tokens={artifacts['corpus'].uri}")), "tokens")


def test_a_pin_that_names_nothing_is_refused(load, workplace):
    with pytest.raises(ArtifactError, match=r"^pins\.corpus: .*corpus/geo/0123456789abcdef"):
        plan(Context(load("pins.corpus=workspace/corpus/geo/0123456789abcdef")), "corpus")


def test_a_pin_under_another_root_is_refused_with_a_way_out(load, workplace):
    other = build(load("storage.root=other"), "corpus")["corpus"]
    with pytest.raises(ArtifactError) as caught:
        plan(Context(load(f"pins.corpus={other.uri}")), "tokens")
    assert caught.value.message == (
        f"pins.corpus: {other.uri} lies outside storage.root ({workplace}/workspace); copy its folder and "
        "those of its parents there, so that the root stays whole, and pin the copy"
    )


def test_pinned_tokens_are_not_trained_on_with_another_tokenizer(load):
    artifacts = build(load())
    recipe = load(f"pins.tokens={artifacts['tokens'].uri}", "tokenizer.vocab_size=600")
    with pytest.raises(ArtifactError) as caught:
        plan(Context(recipe), "pretrain")
    assert f"set pins.tokenizer={artifacts['tokenizer'].uri}" in caught.value.message


def test_pinned_tokens_whose_tokenizer_the_recipe_still_makes_are_fine(load):
    artifacts = build(load())
    assert statuses(load(f"pins.tokens={artifacts['tokens'].uri}"))["pretrain"] == "done"


def test_a_pinned_corpus_brings_the_markers_of_its_own_styles(load):
    corpus = build(load("corpus.sources.0.style=galactica"), "corpus")["corpus"]
    recipe = load(f"pins.corpus={corpus.uri}", "corpus.sources.0.style=plain")
    assert markers(Context(recipe)) == special_tokens("galactica") != []


def test_a_recipe_with_a_pinned_corpus_needs_no_sources(load, workplace):
    corpus = build(load(), "corpus")["corpus"]
    (workplace / "recipe.yaml").write_text(f"name: geo\npins: {{corpus: {corpus.uri}}}\n")
    assert statuses(load(), "corpus") == {"corpus": "pinned"}


# --------------------------------------------------------------------------------------------------
# Executing, as far as it goes without Ray


def test_no_parents_refuses_before_anything_is_touched(load, workplace):
    build(load(), "corpus")
    with pytest.raises(ConfigError) as caught:
        execute(load(), "pretrain", build_parents=False)
    assert caught.value.message == (
        "pretrain needs tokenizer, tokens, not built yet; run `baltoro run` or leave out --no-parents"
    )
    assert not (workplace / "workspace" / "mlflow.db").exists()


def test_what_is_there_is_told_without_a_run_in_mlflow(load, mlflow_uri):
    tokenizer = build(load(), "tokenizer")["tokenizer"]
    recipe = load(f"tracking.uri={mlflow_uri}", f"pins.tokenizer={tokenizer.uri}")
    told = []
    assert execute(recipe, "tokenizer", say=told.append) == {
        "tokenizer": {"artifact": tokenizer.uri, "stage": "tokenizer"}
    }
    assert told == [f"tokenizer: pinned ({tokenizer.fingerprint})"]
    assert runs_of(make_tracker(recipe)) == []


def runs_of(tracker):
    experiment = tracker.client.get_experiment_by_name(tracker.experiment)
    return tracker.client.search_runs([experiment.experiment_id], order_by=["attributes.start_time"])


def test_stages_are_built_in_order_and_recorded_with_their_parents(load, mlflow_uri, base_model):
    recipe = load(f"tracking.uri={mlflow_uri}", f"model.base={base_model}", "tokenizer.from=base")
    told = []
    stages = execute(recipe, "tokenizer", say=told.append)
    assert list(stages) == ["model", "tokenizer"]
    assert [line.split(": ")[0] for line in told] == ["model", "model", "tokenizer", "tokenizer"]
    assert statuses(recipe, "tokenizer") == {"model": "done", "tokenizer": "done"}
    whole, model, tokenizer = runs_of(make_tracker(recipe))
    assert [run.info.run_name for run in (whole, model, tokenizer)] == ["geo", "geo-model", "geo-tokenizer"]
    assert {run.info.status for run in (whole, model, tokenizer)} == {"FINISHED"}
    assert model.data.tags["mlflow.parentRunId"] == whole.info.run_id
    assert tokenizer.data.tags["baltoro.artifact"] == stages["tokenizer"]["artifact"]
    assert tokenizer.data.tags["baltoro.package_version"] == version("baltoro")
    assert tokenizer.data.params["tokenizer.add_tokens"] == "renderer"
    (parent,) = tokenizer.inputs.dataset_inputs
    assert parent.dataset.name == "model"
    assert parent.dataset.digest == planned(recipe, "tokenizer")["model"].fingerprint
    client = make_tracker(recipe).client
    for run in (whole, model, tokenizer):
        fetched = Path(client.download_artifacts(run.info.run_id, "recipe.yaml"))
        assert fetched.read_text() == dump_yaml(recipe)

    again = execute(recipe, "tokenizer")
    assert again == stages
    assert len(runs_of(make_tracker(recipe))) == 3


def test_a_stage_that_fails_publishes_nothing_and_ends_both_runs_as_failed(
    load, mlflow_uri, base_model, workplace
):
    (base_model / "model.safetensors").write_bytes(b"no weights")
    recipe = load(f"tracking.uri={mlflow_uri}", f"model.base={base_model}")
    with pytest.raises(BaltoroError):
        execute(recipe, "model")
    assert statuses(recipe, "model") == {"model": "new"}
    assert list((workplace / "workspace").rglob("*.safetensors")) == []
    assert [run.info.status for run in runs_of(make_tracker(recipe))] == ["FAILED", "FAILED"]


# --------------------------------------------------------------------------------------------------
# Refused before anything is built


def test_more_workers_than_the_machine_can_hold_are_refused(load):
    many = "cluster.workers=640", "pretrain.global_batch_tokens=655360"
    with pytest.raises(ConfigError, match=r"cluster.workers: 640 processes are too many for the \d+ CPUs"):
        plan(Context(load(*many)), "pretrain")
    plan(Context(load(*many, "cluster.local_cpus=642")), "pretrain")
    plan(Context(load(*many, "cluster.address=10.0.0.1:6379")), "pretrain")
    # What trains nothing has no workers to hold.
    plan(Context(load(*many)), "tokens")


def test_a_metadata_table_is_looked_into(load, workplace):
    (workplace / "table.csv").write_text("year\n2020\n")
    with pytest.raises(BaltoroError, match=r"table\.csv"):
        plan(Context(load("corpus.sources.0.metadata={uri: table.csv, key: stem}")), "pretrain")


def test_an_artifact_that_lost_a_file_is_not_done(load):
    recipe = load()
    build(recipe)
    tokens = planned(recipe)["tokens"].artifact
    Context(recipe).storage.delete(tokens.uri_of(tokens.manifest.files[0]))
    with pytest.raises(
        ArtifactError, match=r"tokens/geo/.* was damaged after it was published: .*\(missing\)"
    ):
        plan(Context(recipe), "pretrain")


def test_rows_longer_than_a_staged_base_reads_are_refused(load, base_model, workplace):
    override = f"model.base={base_model}"
    import_model(Storage(), str(workplace / "workspace"), str(base_model), say=print)
    plan(Context(load(override)), "pretrain")
    context = json.loads((base_model / "config.json").read_text())["max_position_embeddings"]
    long = f"pretrain.data.sequence_length={context * 2}", f"pretrain.global_batch_tokens={context * 8}"
    with pytest.raises(ConfigError, match=rf"is longer than the {context} positions .*tiny-base was trained"):
        plan(Context(load(override, *long)), "pretrain")


def test_a_trial_is_never_taken_for_the_whole(load):
    whole, trial = load(), load("corpus.trial.limit=2")
    build(whole, "corpus")
    (entry,) = plan(Context(trial), "corpus")
    assert entry.status == "new"
    assert entry.inputs["corpus.sources.0.objects"] == 2
    build(trial, "corpus")
    assert planned(trial, "corpus")["corpus"].artifact.manifest.name == "geo-trial"
    assert planned(whole, "corpus")["corpus"].artifact.manifest.name == "geo"
