import pytest

from baltoro.core.errors import ConfigError, InputError
from baltoro.instructions.signals.tasks import TASKS
from baltoro.instructions.signals.templates import (
    builtin_templates,
    few_paraphrases,
    load_templates,
    parse_templates,
)

GOOD = """
- instruction: Name it.
  input: "[input]"
  output: "Title: [output] [12]"
"""


def test_every_task_comes_with_five_different_paraphrases():
    templates = builtin_templates()
    assert set(templates) == set(TASKS)
    for name, paraphrases in templates.items():
        assert len(paraphrases) == len(set(paraphrases)) == 5, name
        assert len({paraphrase.instruction for paraphrase in paraphrases}) == 5, name


def test_values_are_put_in_once_and_never_searched_for_slots():
    (template,) = parse_templates(GOOD, "title_from_abstract", origin="x.yaml")
    turns = template.turns({"input": "See [output].", "output": "[input]"})
    assert [(turn.role, turn.text) for turn in turns] == [
        ("user", "Name it."),
        ("input", "See [output]."),
        ("assistant", "Title: [input] [12]"),
    ]


def test_without_input_there_is_no_turn_for_it():
    text = '- {instruction: "What is [object]?", output: "[value]"}'
    (template,) = parse_templates(text, "definition", origin="x.yaml")
    assert [turn.role for turn in template.turns({"object": "ice", "value": "Frozen water."})] == [
        "user",
        "assistant",
    ]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("- {instruction: a, input: '[input]', output: b}", r"x.yaml: template 1: the slot \[output\] is mi"),
        (
            "- {instruction: a, output: '[output]'}",
            r"template 1: the slot \[input\] is missing in instruction",
        ),
        (
            "- {instruction: a, input: '[input] [titel]', output: '[output]'}",
            r"template 1: unknown slot \[titel\], did you mean \[input\]\?|unknown slot \[titel\]",
        ),
        ("- {instruction: '[output]', input: '[input]', output: '[output]'}", "is the answer and stands in"),
        ("- {instruktion: a, output: b}", "unknown key 'instruktion', did you mean instruction"),
        ("- {instruction: a}", "template 1: output is missing or empty"),
        ("- {instruction: a, output: 3}", "output is 3, which is no text"),
        ("- text", "template 1 is not a mapping"),
        ("a: b", "x.yaml: holds no list of templates"),
        ("- [", "x.yaml, line 1"),
    ],
)
def test_a_wrong_template_is_named_with_file_and_slot(text, message):
    with pytest.raises(ConfigError, match=message):
        parse_templates(text, "title_from_abstract", origin="x.yaml")


def test_a_folder_replaces_the_tasks_it_names(tmp_path):
    (tmp_path / "title_from_abstract.yaml").write_text(GOOD)
    templates = load_templates(str(tmp_path))
    assert len(templates["title_from_abstract"]) == 1
    assert templates["keywords"] == builtin_templates()["keywords"]
    assert load_templates(None) is builtin_templates()


def test_a_file_named_like_no_task_is_refused(tmp_path):
    (tmp_path / "title_from_abstrakt.yaml").write_text(GOOD)
    with pytest.raises(
        ConfigError, match="no task is called title_from_abstrakt, did you mean title_from_ab"
    ):
        load_templates(str(tmp_path))


def test_an_empty_folder_and_odd_bytes_are_refused(tmp_path):
    with pytest.raises(InputError, match=r"holds no \.yaml file"):
        load_templates(str(tmp_path))
    (tmp_path / "keywords.yaml").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(ConfigError, match=r"keywords\.yaml: not UTF-8 text at byte 0"):
        load_templates(str(tmp_path))


def test_a_repeated_phrasing_is_refused_and_few_are_told(tmp_path):
    (tmp_path / "title_from_abstract.yaml").write_text(f"{GOOD}\n{GOOD}")
    with pytest.raises(ConfigError, match=r"template 2 says what template 1 says; word it otherwise"):
        load_templates(str(tmp_path))
    (tmp_path / "title_from_abstract.yaml").write_text(GOOD)
    assert few_paraphrases(load_templates(str(tmp_path))) == {"title_from_abstract": 1}
    assert few_paraphrases(builtin_templates()) == {}
