import json
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from baltoro.core.errors import InputError
from baltoro.core.storage import Storage
from baltoro.instructions.example import Example, Turn
from baltoro.instructions.export import export_examples, to_records
from baltoro.instructions.files import read_examples
from baltoro.instructions.formats_config import FilesSource
from baltoro.instructions.layouts import example_of


def test_alpaca_records_are_what_other_tools_read(question):
    records, rejects = to_records([question], "alpaca", names=False)
    assert records == [{"instruction": "Give a title.", "input": "Melt rises.", "output": "On melt"}]
    assert rejects == []


def test_messages_are_what_other_tools_read(question, trace):
    records, _ = to_records([question, trace], "messages", names=False)
    assert records[0] == {
        "messages": [
            {"role": "user", "content": "Give a title.\n\nMelt rises."},
            {"role": "assistant", "content": "On melt"},
        ]
    }
    assert records[1]["messages"][2:4] == [
        {
            "role": "assistant",
            "content": "I look it up.",
            "tool_calls": [
                {
                    "id": "call_2",
                    "type": "function",
                    "function": {"name": "search", "arguments": '{"q": "heat"}'},
                }
            ],
        },
        {"role": "tool", "content": "It is 1250 C.", "tool_call_id": "call_2"},
    ]
    assert records[1]["messages"][-1]["content"] == "That is it.\n\n1250 C"


@pytest.mark.parametrize("layout", ["alpaca", "messages"])
def test_a_file_that_is_read_again_holds_the_same_examples(tmp_path, question, trace, layout):
    talk = [Turn("user", "Hello"), Turn("assistant", "Hi"), *question.turns]
    examples = [replace(question, template=3), replace(question, example_id="x", turns=talk)]
    storage = Storage()
    counts = export_examples([*examples, trace], layout, f"{tmp_path}/set.jsonl", storage)
    source = FilesSource(name="other", uri=f"{tmp_path}/set.jsonl")
    if layout == "alpaca":
        assert counts.written == 2
        assert [(reject.paper_id, reject.stage, reject.reason) for reject in counts.rejects] == [
            ("tools/1", "export", "layout_cannot_hold")
        ]
        assert read_examples(source, storage) == (examples, [])
    else:
        assert (counts.written, counts.rejects) == (3, ())
        assert read_examples(source, storage) == ([*examples, trace], [])


def test_lines_are_json_and_keep_letters_of_all_scripts(tmp_path, question):
    example = replace(question, turns=[Turn("user", "Fels? 玄武岩\u2028"), Turn("assistant", "Ja\n")])
    export_examples([example, example], "alpaca", str(tmp_path / "a.jsonl"))
    lines = (tmp_path / "a.jsonl").read_bytes().split(b"\n")
    assert len(lines) == 3
    assert "玄武岩".encode() in lines[0]
    assert json.loads(lines[1])["output"] == "Ja\n"


TEXT = st.text(alphabet="ab \n", min_size=1, max_size=6)
ROLES = ["system", "user", "input", "assistant", "thought", "action", "action_input", "observation",
         "final_answer"]  # fmt: skip


@settings(max_examples=150)
@given(st.lists(st.tuples(st.sampled_from(ROLES), TEXT), max_size=7), st.sampled_from(["alpaca", "messages"]))
def test_an_example_is_written_without_loss_or_not_at_all(turns, layout):
    example = Example("e#t", "t", "signals", "e", [Turn(role, text) for role, text in turns], template=1)
    records, rejects = to_records([example], layout)
    assert len(records) + len(rejects) == 1
    for record in records:
        assert example_of(json.loads(json.dumps(record)), layout, name="n", key="k") == example


@settings(max_examples=50)
@given(st.lists(st.tuples(TEXT.filter(str.strip), TEXT.filter(str.strip)), min_size=1, max_size=3), TEXT)
def test_every_plain_dialogue_can_be_written_in_both_layouts(pairs, system):
    turns = [Turn("system", system)]
    for question, answer in pairs:
        turns += [Turn("user", question), Turn("assistant", answer)]
    turns.insert(len(turns) - 1, Turn("input", "material"))
    for layout in ("alpaca", "messages"):
        _, rejects = to_records([Example("e#t", "t", "s", "e", turns)], layout)
        assert rejects == []


def test_names_tell_the_split_and_are_read_again(tmp_path, question):
    uri = f"{tmp_path}/set.jsonl"
    export_examples([question], "messages", uri, splits={question.example_id: "validation"})
    (line,) = (tmp_path / "set.jsonl").read_text().splitlines()
    assert json.loads(line)["baltoro"]["split"] == "validation"
    assert read_examples(FilesSource(name="other", uri=uri)) == ([question], [])


def test_an_export_of_nothing_is_refused_and_leaves_the_file(tmp_path, trace):
    (tmp_path / "set.jsonl").write_text("before")
    with pytest.raises(InputError, match="no example to write"):
        export_examples([], "alpaca", f"{tmp_path}/set.jsonl")
    with pytest.raises(InputError, match="the layout alpaca can hold none of 1 examples"):
        export_examples([trace], "alpaca", f"{tmp_path}/set.jsonl")
    assert (tmp_path / "set.jsonl").read_text() == "before"
