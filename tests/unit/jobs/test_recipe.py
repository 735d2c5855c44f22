"""A recipe is a file, overridden by variables, overridden by arguments; it holds places, never secrets."""

import json
from pathlib import Path

import pytest
import yaml
from jsonschema import Draft202012Validator

from baltoro.core.config import dump_yaml, parse_value
from baltoro.core.errors import ConfigError
from baltoro.jobs.recipe import (
    Recipe,
    find_recipe,
    load_recipe,
    packaged_folder,
    packaged_recipes,
    recipe_json_schema,
)

MINIMAL = "name: geo\ncorpus: {sources: [{name: papers, uri: ./papers}]}\n"


@pytest.fixture
def write(workplace):
    def write_recipe(text):
        (workplace / "r.yaml").write_text(text, encoding="utf-8")
        return "r.yaml"

    return write_recipe


def mistake(recipe, *overrides, environment=None):
    with pytest.raises(ConfigError) as caught:
        load_recipe(recipe, overrides, environment or {})
    return caught.value.message


# --------------------------------------------------------------------------------------------------
# Packaged recipes


def test_the_demo_loads_by_name_from_any_folder(workplace):
    recipe = load_recipe("demo")
    assert recipe.name == "demo"
    assert recipe.storage.root == str(workplace / "workspace")
    assert recipe.tracking.uri == f"sqlite:///{workplace}/workspace/mlflow.db"
    assert (recipe.experiment, recipe.model_name) == ("demo", "demo")
    source = recipe.corpus.sources[0]
    assert source.uri == str(packaged_folder("examples/papers"))
    assert source.metadata.uri == str(packaged_folder("examples/papers") / "metadata.csv")
    assert Path(source.metadata.uri).is_file()


@pytest.mark.parametrize("name", packaged_recipes())
def test_every_packaged_recipe_states_only_what_exists(workplace, name):
    load_recipe(name)
    Draft202012Validator(recipe_json_schema()).validate(yaml.safe_load(packaged_recipes()[name].read_text()))


def test_a_folder_of_the_same_name_does_not_hide_a_packaged_recipe(workplace):
    (workplace / "demo").mkdir()
    assert find_recipe("demo") == packaged_recipes()["demo"]


def test_a_file_of_the_same_name_wins_over_a_packaged_recipe(workplace):
    (workplace / "demo").write_text(MINIMAL)
    assert load_recipe("demo").name == "geo"


def test_an_unknown_recipe_is_refused_with_the_packaged_ones(workplace):
    message = mistake("dmeo")
    assert "dmeo: no such recipe file, and no packaged recipe of that name (academicgpt-70b, demo," in message
    assert "`baltoro init DIR` writes one to start from" in message


# --------------------------------------------------------------------------------------------------
# Places


def test_relative_places_become_absolute_against_the_current_folder(workplace, tmp_path):
    other = tmp_path / "elsewhere"
    other.mkdir()
    (other / "r.yaml").write_text(
        "name: geo\n"
        "storage: {root: out}\n"
        "tracking: {uri: sqlite:///runs/m.db}\n"
        "model: {base: ./base}\n"
        "pins: {tokens: out/tokens/geo/0123456789abcdef}\n"
        "corpus:\n"
        "  sources:\n"
        "    - {name: a, uri: ../papers, metadata: {uri: tables/a.csv}}\n"
        "    - {name: b, uri: s3://bucket/papers/}\n"
        "    - {name: c, uri: file:///data/papers}\n"
    )
    recipe = load_recipe(str(other / "r.yaml"))
    assert recipe.storage.root == str(workplace / "out")
    assert recipe.tracking.uri == f"sqlite:///{workplace}/runs/m.db"
    assert recipe.model.base == str(workplace / "base")
    assert recipe.pins.tokens == str(workplace / "out/tokens/geo/0123456789abcdef")
    assert recipe.pins.corpus is None
    assert [source.uri for source in recipe.corpus.sources] == [
        str(tmp_path / "papers"),
        "s3://bucket/papers",
        "/data/papers",
    ]
    assert recipe.corpus.sources[0].metadata.uri == str(workplace / "tables/a.csv")


@pytest.mark.parametrize("base", ["llama-125m", "some-owner/some-model"])
def test_a_preset_and_a_hub_id_are_no_places(write, base):
    assert load_recipe(write(MINIMAL), [f"model.base={base}"]).model.base == base


def test_package_names_what_comes_with_baltoro(write):
    recipe = write(MINIMAL)
    loaded = load_recipe(recipe, ["corpus.sources.0.uri=package:examples/papers"])
    assert Path(loaded.corpus.sources[0].uri).is_dir()
    assert "package:examples/nothing: Baltoro comes with no such folder; give a path" in mistake(
        recipe, "corpus.sources.0.uri=package:examples/nothing"
    )


# --------------------------------------------------------------------------------------------------
# Who wins


def test_variables_beat_the_file_and_arguments_beat_variables(write):
    recipe = write(MINIMAL + "pretrain: {steps: 1}\n")
    environment = {"BALTORO__PRETRAIN__STEPS": "2"}
    assert load_recipe(recipe, [], {}).pretrain.steps == 1
    assert load_recipe(recipe, [], environment).pretrain.steps == 2
    assert load_recipe(recipe, ["pretrain.steps=3"], environment).pretrain.steps == 3


def test_a_variable_reaches_into_lists_and_aliases(write):
    environment = {"BALTORO__CORPUS__SOURCES__0__STYLE": "plain", "BALTORO__TOKENIZER__FROM": "base"}
    recipe = load_recipe(write(MINIMAL), [], environment)
    assert recipe.corpus.sources[0].style == "plain"
    assert recipe.tokenizer.origin == "base"


@pytest.mark.parametrize("value", ["/data/papers #2", "/data/papers  # mine", "[a, b] # c", "# all"])
def test_what_yaml_would_take_for_a_comment_is_never_dropped_silently(write, value):
    recipe = write(MINIMAL)
    assert "would be a comment of the YAML value" in mistake(recipe, f"corpus.sources.0.uri={value}")
    assert "would be a comment" in mistake(recipe, environment={"BALTORO__CORPUS__SOURCES__0__URI": value})


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("/data/papers#2", "/data/papers#2"),
        ("'/data/papers #2'", "/data/papers #2"),
        ('"a # b"', "a # b"),
        ("a b c ", "a b c"),
        ("", None),
        ("  ", None),
        ("{a: [1, '#']}", {"a": [1, "#"]}),
    ],
)
def test_a_value_on_the_command_line_is_yaml(text, value):
    assert parse_value(text, "t") == value


def test_a_mistake_in_a_variable_names_the_variable(write):
    recipe = write(MINIMAL)
    message = mistake(recipe, environment={"BALTORO__PRETRAIN__STEPZ": "2"})
    assert message.startswith("r.yaml: pretrain.stepz: unknown key, did you mean pretrain.steps?")
    assert message.endswith("(from BALTORO__PRETRAIN__STEPZ)")
    assert "BALTORO__PRETRAIN__: such a variable is named BALTORO__SECTION__KEY" in mistake(
        recipe, environment={"BALTORO__PRETRAIN__": "2"}
    )


def test_a_mistake_on_the_command_line_says_so_and_one_in_the_file_does_not(write):
    recipe = write(MINIMAL + "pretrain: {steps: some}\n")
    message = mistake(recipe, "corpus.filters.min_characters=few")
    assert '"few" is not allowed: input should be a valid integer (from the command line)' in message
    assert 'pretrain.steps: "some" is not allowed: input should be a valid integer\n' in message + "\n"


def test_tracking_uri_comes_from_the_recipe_then_the_variable_then_the_root(write, workplace):
    recipe = write(MINIMAL)
    variable = {"MLFLOW_TRACKING_URI": "http://mlflow:5000"}
    assert load_recipe(recipe, ["tracking.uri=http://mine:1"], variable).tracking.uri == "http://mine:1"
    assert load_recipe(recipe, [], variable).tracking.uri == "http://mlflow:5000"
    assert load_recipe(recipe, [], {"MLFLOW_TRACKING_URI": ""}).tracking.uri == (
        f"sqlite:///{workplace}/workspace/mlflow.db"
    )
    assert load_recipe(recipe, ["storage.root=50% done"], {}).tracking.uri == (
        f"sqlite:///{workplace}/50%25 done/mlflow.db"
    ), "the path of a database URI is percent-decoded"
    assert load_recipe(recipe, ["storage.root=s3://bucket/out"], {}).tracking.uri == (
        f"sqlite:///{workplace}/workspace/mlflow.db"
    )
    assert load_recipe(recipe, [], {"MLFLOW_TRACKING_URI": "sqlite:///my.db"}).tracking.uri == (
        f"sqlite:///{workplace}/my.db"
    )


def test_an_override_of_what_an_anchor_repeats_changes_one_place(write):
    recipe = load_recipe(
        write(
            "name: geo\n"
            "corpus:\n"
            "  sources:\n"
            "    - {name: a, uri: a, metadata: &table {uri: t.csv}}\n"
            "    - {name: b, uri: b, metadata: *table}\n"
        ),
        ["corpus.sources.1.metadata.key=doi"],
    )
    assert [source.metadata.key for source in recipe.corpus.sources] == ["stem", "doi"]


def test_a_merge_key_brings_in_a_mapping(write):
    recipe = load_recipe(
        write(
            "name: geo\n"
            "corpus:\n"
            "  sources:\n"
            "    - &first {name: a, uri: a, style: plain}\n"
            "    - {<<: *first, name: b}\n"
        )
    )
    assert [(source.name, source.style) for source in recipe.corpus.sources] == [
        ("a", "plain"),
        ("b", "plain"),
    ]


# --------------------------------------------------------------------------------------------------
# Mistakes


@pytest.mark.parametrize(
    ("override", "expected"),
    [
        ("pretran.steps=1", "pretran: unknown key, did you mean pretrain? Allowed here: cluster, corpus,"),
        ("pretrain.stepz=1", "pretrain.stepz: unknown key, did you mean pretrain.steps?"),
        (
            "pretrain.global-batch-tokens=1",
            "pretrain.global-batch-tokens: unknown key, did you mean pretrain.global_b",
        ),
        ("pretrain.optimizer.lr=1", "pretrain.optimizer.lr: unknown key. Allowed here: beta1"),
        ("pretrain.data.sequence_lenght=8", "did you mean pretrain.data.sequence_length?"),
        ("corpus.filters.min_chars=8", "did you mean corpus.filters.min_characters?"),
        (
            "corpus.sources.0.stile=k2",
            "corpus.sources.0.stile: unknown key, did you mean corpus.sources.0.style?",
        ),
        ("corpus.sources.0.metadata={uri: a, kee: b}", "did you mean corpus.sources.0.metadata.key?"),
        (
            'storage.profiles={"s3://my-bucket": {endpont_url: x}}',
            "storage.profiles.s3://my-bucket.endpont_url: unknown key, did you mean "
            "storage.profiles.s3://my-bucket.endpoint_url? Allowed here: ca_bundle",
        ),
        ("corpus.sources.0.style=k3", 'corpus.sources.0.style: "k3" is not allowed; it must be'),
        ("tokenizer.from=bse", "did you mean base?"),
        ("pretrain.steps=ten", 'pretrain.steps: "ten" is not allowed: input should be a valid integer'),
        (
            "pretrain.optimizer.max_gradient_norm=.inf",
            "inf is not a number a recipe can hold; give a finite one",
        ),
        ("name=../x", 'name: "../x" is not allowed'),
        ("corpus.sources.1={name: papers, uri: b}", "the name 'papers' stands twice"),
    ],
)
def test_a_mistake_names_its_path_and_what_is_allowed(write, override, expected):
    assert expected in mistake(write(MINIMAL), override)


def test_several_mistakes_are_counted_and_one_is_one_line(write):
    recipe = write(MINIMAL)
    assert "\n" not in mistake(recipe, "pretrain.stepz=1")
    message = mistake(recipe, "pretrain.stepz=1", "cluster.wrkers=1")
    assert message.splitlines()[0] == "r.yaml: the recipe has 2 mistakes:"
    assert len(message.splitlines()) == 3


def test_a_value_that_json_cannot_hold_is_refused_with_its_path(write):
    assert "r.yaml: pins.corpus: b'hello' (bytes) is not a value a recipe can hold" in mistake(
        write(MINIMAL + "pins: {corpus: !!binary aGVsbG8=}\n")
    )


@pytest.mark.parametrize(
    ("profile", "expected"),
    [
        ("{endpoint_url: 'https://user:hunter2@host'}", "must not carry a user or password"),
        (
            "{credentials_profile: AKIAABCDEFGHIJKLMNOP}",
            "must be the name of a profile in the AWS credentials file",
        ),
        ("{secret_access_key: hunter2}", "secret_access_key: unknown key"),
        ("{aws_secret_access_key: hunter2}", "aws_secret_access_key: unknown key"),
    ],
)
def test_a_secret_in_a_profile_is_refused_and_not_repeated(write, profile, expected):
    message = mistake(write(MINIMAL), f'storage.profiles={{"s3://bucket": {profile}}}')
    assert "storage.profiles.s3://bucket." in message
    assert expected in message
    assert "hunter2" not in message
    assert "AKIA" not in message


@pytest.mark.parametrize("uri", ["http://me:hunter2@mlflow:5000", "postgresql://me:hunter2@db/mlflow"])
def test_a_password_in_the_tracking_uri_is_refused_and_not_repeated(write, uri):
    recipe = write(MINIMAL)
    for message in (
        mistake(recipe, f"tracking.uri={uri}"),
        mistake(recipe, environment={"MLFLOW_TRACKING_URI": uri}),
    ):
        assert "carries a password, which would be recorded with every run" in message
        assert "MLFLOW_TRACKING_PASSWORD" in message
        assert "hunter2" not in message


# --------------------------------------------------------------------------------------------------
# What comes out


def test_the_resolved_recipe_is_a_recipe_that_means_the_same_anywhere(
    write, workplace, tmp_path, monkeypatch
):
    recipe = load_recipe(
        write(MINIMAL + "tokenizer: {from: base}\nmodel: {base: ./m}\n"), ["pretrain.steps=7"]
    )
    resolved = tmp_path / "resolved.yaml"
    resolved.write_text(dump_yaml(recipe))
    monkeypatch.chdir(tmp_path)
    assert load_recipe(str(resolved)) == recipe


def test_the_resolved_demo_reloads_to_itself(workplace):
    demo = load_recipe("demo")
    (workplace / "d.yaml").write_text(dump_yaml(demo))
    assert load_recipe("d.yaml") == demo


def test_the_json_schema_is_valid_and_agrees_with_the_loader(write):
    schema = recipe_json_schema()
    Draft202012Validator.check_schema(schema)
    assert json.loads(json.dumps(schema)) == schema
    validator = Draft202012Validator(schema)
    demo = yaml.safe_load(packaged_recipes()["demo"].read_text())
    assert list(validator.iter_errors(demo)) == []
    for path, typo in (([], "pretran"), (["pretrain"], "stepz"), (["corpus", "sources", 0], "stile")):
        wrong = json.loads(json.dumps(demo))
        node = wrong
        for part in path:
            node = node[part]
        node[typo] = 1
        (error,) = validator.iter_errors(wrong)
        assert typo in error.message
        assert list(error.absolute_path) == path


def test_the_json_schema_tells_what_every_setting_is_for():
    schema = recipe_json_schema()
    silent = [
        f"{definition['title']}.{name}"
        for definition in [schema, *schema["$defs"].values()]
        for name, entry in definition.get("properties", {}).items()
        if not entry.get("description") and f"{name}:" not in definition["description"]
    ]
    assert silent == []


def test_resolved_recipe_passes_its_schema(workplace):
    dumped = yaml.safe_load(dump_yaml(load_recipe("demo")))
    assert list(Draft202012Validator(recipe_json_schema()).iter_errors(dumped)) == []
    assert Recipe.model_validate(dumped)
