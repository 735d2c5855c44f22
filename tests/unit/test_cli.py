"""The command line: help teaches, --json is one object on standard output, a mistake is one line."""

import json
import subprocess
import sys
import time
from pathlib import Path

import click
import pytest
import yaml
from click.testing import CliRunner

from baltoro.cli import main
from baltoro.jobs.recipe import load_recipe, packaged_folder

PAPER = "# Basalt columns\n\n## Cooling\n\nColumns form as basalt cools from its surfaces inward.\n"


def run(*arguments):
    return CliRunner().invoke(main, arguments)


def json_of(result):
    assert result.exception is None or isinstance(result.exception, SystemExit), result.exception
    return json.loads(result.stdout)


def refused(result):
    """Check that a command ended with one clear error and return it."""
    assert isinstance(result.exception, SystemExit), result.exception
    assert result.exit_code == 2
    assert result.stdout == ""
    (line,) = result.stderr.strip().splitlines()
    assert line.startswith("error: ")
    return line


def commands(group, path=()):
    for name, command in group.commands.items():
        yield (*path, name), command
        if isinstance(command, click.Group):
            yield from commands(command, (*path, name))


COMMANDS = dict(commands(main))


@pytest.fixture
def recipe(workplace):
    """A recipe on one paper."""
    (workplace / "papers").mkdir()
    (workplace / "papers" / "basalt.md").write_text(PAPER)
    (workplace / "recipe.yaml").write_text(
        "name: geo\n"
        "corpus: {sources: [{name: papers, uri: papers}]}\n"
        "pretrain: {data: {sequence_length: 64}, global_batch_tokens: 64}\n"
    )
    return "recipe.yaml"


# --------------------------------------------------------------------------------------------------
# Help


def test_the_first_page_shows_every_command_and_where_to_start():
    result = run("--help")
    assert result.exit_code == 0
    assert {name for path in COMMANDS for name in path[:1]} == set(main.commands)
    assert all(f"\n  {name} " in result.stdout for name in main.commands)
    assert "baltoro run demo" in " ".join(result.stdout.split())
    assert (
        "\n      baltoro run RECIPE pretrain.steps=200 corpus.sources.0.uri=s3://bucket/papers\n"
        in result.stdout
    )


@pytest.mark.parametrize("path", COMMANDS, ids=" ".join)
def test_every_help_teaches(path):
    result = run(*path, "--help")
    assert result.exit_code == 0
    command = COMMANDS[path]
    assert len(command.help.split()) >= 4
    for parameter in command.params:
        if isinstance(parameter, click.Option):
            assert parameter.help, f"{parameter.name} says nothing of itself"
        else:
            name = parameter.make_metavar(click.Context(command)).strip("[].")
            assert name in command.help, f"the argument {name} is not explained"


def test_help_is_quick_and_loads_nothing_heavy():
    code = (
        "import sys, baltoro.cli\n"
        "try:\n"
        "    baltoro.cli.main(['run', '--help'])\n"
        "except SystemExit:\n"
        "    pass\n"
        "heavy = 'ray torch mlflow transformers pyarrow numpy matplotlib boto3 pydantic yaml'.split()\n"
        "print('loaded:', [name for name in heavy if name in sys.modules])\n"
    )
    started = time.monotonic()
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60
    )
    assert done.stdout.endswith("loaded: []\n")
    assert time.monotonic() - started < 10, "half a second on an idle machine"


def test_version_is_told():
    assert run("--version").stdout.startswith("baltoro, version ")


# --------------------------------------------------------------------------------------------------
# Recipes


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["run", "nowhere.yaml"], "nowhere.yaml: no such recipe file"),
        (["run", "{recipe}", "pretrain.stepz=1"], "did you mean pretrain.steps?"),
        (["run", "{recipe}", "pretrain.steps"], "an override is written section.key=value"),
        (["run", "{recipe}", "--dry-run", "corpus.sources.0.uri=./none"], "does not exist"),
        (["pretrain", "{recipe}", "--dry-run", "pretrain.global_batch_tokens=65"], "is not a multiple of"),
        (["tokens", "build", "{recipe}", "--no-parents"], "tokens needs corpus, tokenizer, not built yet"),
        (["config", "show", "{recipe}", "x=1"], "x: unknown key"),
        (["papers", "show", "none.md"], "no such file"),
        (["papers", "show", "papers/basalt.md", "--format", "tei"], "tei"),
        (["init", "papers", "--from", "dmo"], "did you mean demo?"),
        (["doctor", "nowhere.yaml"], "no such recipe file"),
        (["model", "import", "./none"], "model.base="),
        (["model", "import", "llama-tiny"], "is a preset"),
        (["model", "import", "a b c"], "is no preset"),
    ],
)
def test_a_mistake_is_one_line_and_exit_code_2(recipe, arguments, expected):
    line = refused(run(*[argument.format(recipe=recipe) for argument in arguments]))
    assert expected in line


@pytest.mark.parametrize(
    "arguments", [["run"], ["rnu", "demo"], ["run", "demo", "--dryrun"], ["papers", "show"]]
)
def test_a_wrong_command_line_is_exit_code_2_with_usage(workplace, arguments):
    result = run(*arguments)
    assert result.exit_code == 2
    assert "Usage: " in result.stderr
    assert result.stdout == ""


def test_dry_run_lists_stages_and_touches_nothing(recipe, workplace):
    result = run("run", recipe, "--dry-run")
    assert result.exit_code == 0
    assert [line.split()[:2] for line in result.stdout.splitlines()] == [
        ["corpus", "new"],
        ["tokenizer", "new"],
        ["tokens", "new"],
        ["pretrain", "new"],
    ]
    assert not (workplace / "workspace").exists()


def test_dry_run_as_json_gives_status_fingerprint_and_changes(recipe):
    stages = json_of(run("run", recipe, "--dry-run", "--json"))["stages"]
    assert list(stages) == ["corpus", "tokenizer", "tokens", "pretrain"]
    assert stages["corpus"]["status"] == "new"
    assert stages["corpus"]["artifact"] is None
    assert stages["corpus"]["changes"] == []
    assert len(stages["corpus"]["fingerprint"]) == 16
    one = json_of(run("corpus", "build", recipe, "--dry-run", "--json"))["stages"]
    assert one == {"corpus": stages["corpus"]}


def test_a_stale_stage_names_its_key_in_text_and_json(recipe):
    from baltoro.jobs.runner import plan
    from baltoro.jobs.stages import Context

    context = Context(load_recipe(recipe))
    (entry,) = plan(context, "corpus")
    with context.store.begin("corpus", "geo", entry.fingerprint) as writer:
        artifact = writer.publish(inputs=dict(entry.inputs), stage_version=1)
    arguments = ("corpus", "build", recipe, "corpus.filters.min_characters=7", "--dry-run")
    corpus = json_of(run(*arguments, "--json"))["stages"]["corpus"]
    assert corpus["status"] == "stale"
    assert corpus["changes"] == [
        {"key": "corpus.filters.min_characters", "old": 200, "new": 7, "how": "changed"}
    ]
    assert "corpus.filters.min_characters: 200 -> 7" in run(*arguments).stdout
    done = json_of(run("corpus", "build", recipe, "--dry-run", "--json"))["stages"]["corpus"]
    assert (done["status"], done["artifact"]) == ("done", artifact.uri)


def test_config_show_prints_a_recipe_with_everything_in_place(recipe, workplace, monkeypatch):
    monkeypatch.setenv("BALTORO__PRETRAIN__STEPS", "3")
    result = run("config", "show", recipe, "cluster.workers=2")
    assert result.exit_code == 0
    shown = yaml.safe_load(result.stdout)
    assert (shown["pretrain"]["steps"], shown["cluster"]["workers"]) == (3, 2)
    assert shown["corpus"]["sources"][0]["uri"] == str(workplace / "papers")
    assert shown["tokenizer"]["from"] == "train"
    assert json_of(run("config", "show", recipe, "cluster.workers=2", "--json")) == shown


def test_config_schema_prints_the_schema():
    schema = json_of(run("config", "schema"))
    assert schema["title"] == "Baltoro recipe"
    assert "pretrain" in schema["properties"]


def test_init_writes_once_and_says_what_to_do_next(workplace):
    result = run("init", "my-model")
    assert result.exit_code == 0
    assert result.stdout == ""
    assert "wrote my-model/demo.yaml" in result.stderr
    assert "baltoro run my-model/demo.yaml --dry-run" in result.stderr
    assert load_recipe("my-model/demo.yaml").name == "demo"
    assert "already exists" in refused(run("init", "my-model"))


def test_doctor_as_json_has_a_status_for_every_check(recipe, mlflow_uri):
    result = run("doctor", recipe, f"tracking.uri={mlflow_uri}", "corpus.sources.0.uri=./none", "--json")
    checks = json_of(result)
    assert result.exit_code == 2
    assert checks["source papers"]["status"] == "problem"
    assert checks["storage.root"]["status"] == "ok"
    assert all({"status", "found", "remedy"} == entry.keys() for entry in checks.values())


def test_an_imported_model_is_named_with_the_setting_that_uses_it(workplace, tmp_path):
    from transformers import AutoModelForCausalLM, LlamaConfig

    from baltoro.testing.tiny import byte_tokenizer, tiny_plan

    AutoModelForCausalLM.from_config(LlamaConfig(**tiny_plan().config)).save_pretrained(tmp_path / "base")
    byte_tokenizer().save_pretrained(tmp_path / "base")
    first = json_of(run("model", "import", str(tmp_path / "base"), "--json"))
    assert first["artifact"].startswith(str(workplace / "workspace" / "model" / "base"))
    assert first["architecture"] == "LlamaForCausalLM"
    second = run("model", "import", str(tmp_path / "base"))
    artifact, used, folder = second.stdout.splitlines()
    assert (artifact, used) == (first["artifact"], f"Use it with model.base={tmp_path}/base")
    plain = Path(folder.removeprefix("As a plain model, for --base: "))
    assert plain.is_relative_to(first["artifact"])
    assert (plain / "config.json").is_file()
    assert "already staged" in second.stderr


# --------------------------------------------------------------------------------------------------
# Papers


@pytest.mark.parametrize("style", ["k2", "galactica", "review", "plain"])
def test_a_paper_is_shown_as_a_model_will_read_it(workplace, style):
    (workplace / "basalt.md").write_text(PAPER)
    result = run("papers", "show", "basalt.md", "--style", style)
    assert result.exit_code == 0
    assert "Basalt columns" in result.stdout
    assert "Columns form as basalt cools from its surfaces inward." in result.stdout
    assert result.stderr == ""


def test_a_paper_as_json_is_its_record(workplace):
    (workplace / "basalt.md").write_text(PAPER)
    result = run("papers", "show", "basalt.md", "--json")
    record = json_of(result)
    assert result.exit_code == 0
    assert record["title"] == "Basalt columns"
    assert record["paper_id"] == "papers/basalt.md"
    assert record["sections"][0]["heading"] == "Cooling"


def test_a_broken_paper_is_rejected_with_its_reason_and_exit_code_2(workplace):
    (workplace / "broken.xml").write_text("<article><front>")
    result = run("papers", "show", "broken.xml")
    assert result.exit_code == 2
    assert result.stdout == ""
    assert result.stderr.startswith("rejected: papers/broken.xml: malformed_xml: ")
    result = run("papers", "show", "broken.xml", "--json")
    assert result.exit_code == 2
    reject = json_of(result)
    assert (reject["paper_id"], reject["stage"], reject["reason"]) == (
        "papers/broken.xml",
        "read",
        "malformed_xml",
    )
    assert reject["detail"]


def test_several_records_are_shown_apart_and_as_one_json_object(workplace):
    lines = [json.dumps({"id": str(number), "text": f"Text number {number}."}) for number in range(2)]
    (workplace / "table.jsonl").write_text("\n".join([*lines, "{broken"]))
    arguments = ("papers", "show", "table.jsonl", "--format", "records", "--text-column", "text")
    result = run(*arguments)
    assert result.exit_code == 2
    assert "Text number 0." in result.stdout
    assert result.stdout.count("─" * 80) == 1
    assert result.stderr.count("rejected: ") == 1
    together = json_of(run(*arguments, "--json"))
    assert [len(together["papers"]), len(together["rejects"])] == [2, 1]


@pytest.mark.parametrize("style", ["k2", "plain"])
def test_every_packaged_example_is_shown_or_rejected_without_a_traceback(style):
    folder = packaged_folder("examples/papers")
    outcomes = {}
    for path in sorted(folder.iterdir()):
        if path.suffix == ".csv":
            continue
        result = run("papers", "show", str(path), "--style", style)
        assert result.exception is None or isinstance(result.exception, SystemExit), path
        outcomes[path.name] = result.exit_code
    assert {name for name, code in outcomes.items() if code} == {
        "broken-empty.mmd",
        "broken-encoding.md",
        "broken-truncated.tei.xml",
        "broken-unparsed.pdf",
    }


# --------------------------------------------------------------------------------------------------
# Surprises


def test_an_interrupted_command_says_that_it_can_go_on(recipe, monkeypatch):
    from baltoro.jobs import runner

    def interrupt(*arguments, **settings):
        raise KeyboardInterrupt

    monkeypatch.setattr(runner, "execute", interrupt)
    result = run("run", recipe)
    assert result.exit_code == 1
    assert result.stderr == "error: interrupted; the same command goes on from what is finished\n"


def test_a_defect_is_shown_as_one_and_not_dressed_up(recipe, monkeypatch):
    from baltoro.jobs import runner

    monkeypatch.setattr(runner, "execute", lambda *a, **k: {}["defect"])
    assert isinstance(run("run", recipe).exception, KeyError)
