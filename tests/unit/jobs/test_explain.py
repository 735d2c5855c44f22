"""An explanation shows what each step does to a paper, and agrees with what the corpus stage would do."""

import json

import pytest
from click.testing import CliRunner

from baltoro.cli import main
from baltoro.core.errors import InputError
from baltoro.jobs.explain import describe, explain_paper
from baltoro.jobs.stages import Context

PAPER = (
    "# Water beneath the ice\n\n## Results\n\nThe ﬂow of water beneath the ice decides how fast a glacier "
    "slides over its bed, and when the channels close in autumn the pressure rises again. Write to "
    "anna@example.org for the records of all four boreholes, which span three summers of melt.\n"
)


@pytest.fixture
def ice(papers):
    (papers / "ice.md").write_text(PAPER, encoding="utf-8")


def test_every_step_says_what_it_did(load, ice):
    explained = explain_paper(Context(load()), "papers/ice.md")
    assert explained["read"]["title"] == "Water beneath the ice"
    assert {step["rule"]: step["effects"] for step in explained["cleaning"]} == {"ligatures": 1, "emails": 1}
    assert any("[EMAIL]" in after for step in explained["cleaning"] for _, after in step["examples"])
    assert explained["text"]["language"] == "en"
    assert all(rule["passed"] for rule in explained["rules"] if rule["applies"])
    assert explained["copies"]["key stem"] == "ice"
    assert explained["verdict"] == "becomes a document, unless a better copy of it exists"
    assert explained["built"] == "the corpus of this recipe is not built yet"
    json.dumps(explained)


def test_another_setting_shows_another_verdict(load, ice):
    recipe = load("corpus.filters.min_characters=9999", "corpus.clean.ligatures=false")
    explained = explain_paper(Context(recipe), "papers/ice.md")
    assert explained["verdict"].startswith("rejected by the filter: too_short: ")
    assert [step["rule"] for step in explained["cleaning"]] == ["emails"]
    (failed,) = [rule for rule in explained["rules"] if not rule["passed"]]
    assert (failed["setting"], failed["bound"]) == ("min_characters", 9999)
    text = describe(explained)
    assert "FAILED         min_characters" in text
    assert "- " in text


def test_evaluation_items_are_shown_where_they_stand(load, ice, workplace):
    stem = "what decides how fast a glacier slides over its bed and when the channels close in autumn"
    (workplace / "exam.jsonl").write_text(json.dumps({"question": stem.replace("what decides ", "")}) + "\n")
    explained = explain_paper(
        Context(load("corpus.decontaminate.sets=[{name: exam, uri: exam.jsonl}]")), "papers/ice.md"
    )
    (line,) = explained["decontamination"]
    assert "exam" in line
    assert explained["verdict"].startswith("rejected by the decontaminate: contaminated: ")


def test_an_unreadable_record_says_why(load, papers):
    (papers / "cut.xml").write_text("<article><front>")
    explained = explain_paper(Context(load()), "papers/cut.xml")
    assert explained["verdict"].startswith("rejected while reading: malformed_xml: ")
    assert "malformed_xml" in describe(explained)


@pytest.mark.parametrize(
    ("paper_id", "complaint"),
    [
        (
            "ice.md",
            "a paper is named SOURCE/FILE or SOURCE/FILE#RECORD, and the sources of this recipe are papers",
        ),
        ("wiki/ice.md", "the sources of this recipe are papers"),
        ("papers/snow.md", "the source papers has no such file among its 4; the first is papers/basalt.md"),
    ],
)
def test_a_paper_that_is_not_there_is_refused_with_what_is(load, ice, paper_id, complaint):
    with pytest.raises(InputError, match=complaint):
        explain_paper(Context(load()), paper_id)


def test_a_file_of_several_papers_asks_which(load, papers):
    line = json.dumps({"title": "A title", "body_text": [{"text": "Some text.", "section": "S"}]})
    (papers / "many.jsonl").write_text(f"{line}\n{line}\n")
    with pytest.raises(InputError, match=r"holds 2 records; name one, for example papers/many\.jsonl#1"):
        explain_paper(Context(load()), "papers/many.jsonl")
    assert explain_paper(Context(load()), "papers/many.jsonl#2")["paper_id"] == "papers/many.jsonl#2"


def test_the_command_prints_it(load, ice):
    load()
    result = CliRunner().invoke(main, ["corpus", "explain", "recipe.yaml", "papers/ice.md"])
    assert result.exit_code == 0, result.output
    assert "cleaning\n  ligatures: 1\n" in result.stdout
    as_json = CliRunner().invoke(main, ["corpus", "explain", "recipe.yaml", "papers/ice.md", "--json"])
    assert json.loads(as_json.stdout)["paper_id"] == "papers/ice.md"
