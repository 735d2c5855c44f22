import gzip
import json

import pyarrow.parquet as pq
import pytest

from baltoro.core.errors import InputError
from baltoro.instructions.example import Example, Turn, example_to_dict, examples_to_table
from baltoro.instructions.files import read_examples
from baltoro.instructions.formats_config import FilesSource
from baltoro.instructions.layouts import RECORD_REASONS, example_of, layout_of

ALPACA = {"instruction": "Name a rock.", "input": "", "output": "Basalt"}


def read(path, form="auto"):
    return read_examples(FilesSource(name="set", uri=str(path), format=form))


def write_lines(path, records):
    path.write_text("".join(f"{json.dumps(record)}\n" for record in records))
    return path


def turns_of(record, form="auto"):
    return [(turn.role, turn.text) for turn in example_of(record, form, name="set", key="k").turns]


def test_alpaca_lines_become_examples_named_by_file_and_line(tmp_path):
    records = [ALPACA, {**ALPACA, "input": "a hard one", "type": "Geo QA"}]
    examples, rejects = read(write_lines(tmp_path / "rocks.jsonl", records))
    assert rejects == []
    assert examples[0] == Example(
        "set/rocks.jsonl#1#set", "set", "files", "set/rocks.jsonl#1",
        [Turn("user", "Name a rock."), Turn("assistant", "Basalt")],
    )  # fmt: skip
    assert (examples[1].task, examples[1].example_id) == ("geo_qa", "set/rocks.jsonl#2#geo_qa")
    assert examples[1].turns[1] == Turn("input", "a hard one")


def test_malformed_lines_are_rejects_with_their_line(tmp_path):
    path = tmp_path / "rocks.jsonl"
    path.write_bytes(
        json.dumps(ALPACA).encode()
        + b'\n{"instruction": "cut o\n\n[1, 2]\n{"instruction": "a", "output": 3}\n{"text": "no"}\n\xff{}\n'
    )
    examples, rejects = read(path)
    assert len(examples) == 1
    assert [(reject.paper_id, reject.reason) for reject in rejects] == [
        ("set/rocks.jsonl#2", "malformed_json"),
        ("set/rocks.jsonl#4", "malformed_record"),
        ("set/rocks.jsonl#5", "malformed_record"),
        ("set/rocks.jsonl#6", "unknown_layout"),
        ("set/rocks.jsonl#7", "bad_encoding"),
    ]
    assert all(reject.stage == "files" and reject.uri.endswith("rocks.jsonl") for reject in rejects)
    assert rejects[2].detail == "line 5: output is 3, not a text"
    assert rejects[3].detail.startswith("line 6: keys text; known layouts are alpaca, messages")


@pytest.mark.parametrize("kind", ["list", "lines_called_json", "single", "gzip", "zstd", "parquet"])
def test_every_container_gives_the_same_example(tmp_path, kind):
    path = tmp_path / {
        "gzip": "a.jsonl.gz", "zstd": "a.json.zst", "parquet": "a.parquet"
    }.get(kind, "a.json")  # fmt: skip
    lines = f"{json.dumps(ALPACA)}\n{json.dumps(ALPACA)}\n".encode()
    match kind:
        case "list":
            path.write_text(json.dumps([ALPACA], indent=1))
        case "lines_called_json":
            path.write_bytes(lines)
        case "single":
            path.write_text(json.dumps(ALPACA, indent=1))
        case "gzip":
            path.write_bytes(gzip.compress(lines))
        case "zstd":
            import zstandard

            path.write_bytes(zstandard.compress(json.dumps([ALPACA]).encode()))
        case "parquet":
            import pyarrow as pa

            pq.write_table(pa.Table.from_pylist([ALPACA]), path)
    examples, rejects = read(path)
    assert rejects == []
    assert [(turn.role, turn.text) for turn in examples[0].turns] == [
        ("user", "Name a rock."),
        ("assistant", "Basalt"),
    ]
    assert examples[0].origin == f"set/{path.name}" + ("" if kind == "single" else "#1")


def test_own_tables_come_back_as_they_were(tmp_path, question, trace):
    pq.write_table(examples_to_table([question, trace]), tmp_path / "own.parquet")
    assert read(tmp_path) == ([question, trace], [])


def test_a_folder_is_read_in_order_and_what_is_no_set_is_a_reject(tmp_path):
    write_lines(tmp_path / "b.jsonl", [ALPACA])
    write_lines(tmp_path / "a.jsonl", [ALPACA])
    (tmp_path / "README.md").write_text("# about")
    (tmp_path / "cut.jsonl.gz").write_bytes(gzip.compress(b"{}\n" * 99)[:-12])
    examples, rejects = read(tmp_path)
    assert [example.origin for example in examples] == ["set/a.jsonl#1", "set/b.jsonl#1"]
    assert [(reject.paper_id, reject.reason) for reject in rejects] == [
        ("set/README.md", "unknown_format"),
        ("set/cut.jsonl.gz", "malformed_archive"),
    ]


def test_a_second_example_of_one_name_is_a_reject(tmp_path, question):
    _, rejects = read(write_lines(tmp_path / "a.jsonl", [example_to_dict(question)] * 2))
    assert [(reject.reason, reject.detail) for reject in rejects] == [
        ("duplicate_id", "line 2: geo/p1#title stands twice")
    ]


def test_a_place_without_examples_is_an_error_that_says_what_was_found(tmp_path):
    with pytest.raises(InputError, match="no such file, and no folder that holds files"):
        read(tmp_path / "nothing")
    write_lines(tmp_path / "a.jsonl", [{"text": "x"}])
    with pytest.raises(InputError, match=r"no example among 1 files \(1 unknown_layout\); the first: line 1"):
        read(tmp_path)


def test_alpaca_history_and_system_come_first():
    record = {**ALPACA, "system": "Be brief.", "history": [["Hello", "Hi"]], "input": "now"}
    assert turns_of(record) == [
        ("system", "Be brief."), ("user", "Hello"), ("assistant", "Hi"),
        ("user", "Name a rock."), ("input", "now"), ("assistant", "Basalt"),
    ]  # fmt: skip


def test_messages_may_hold_parts_of_text_and_tool_calls():
    call = {"id": "1", "type": "function", "function": {"name": "search", "arguments": '{"q": 1}'}}
    record = {
        "messages": [
            {"role": "developer", "content": "You may search."},
            {"role": "user", "content": [{"type": "text", "text": "How "}, {"type": "text", "text": "hot?"}]},
            {"role": "assistant", "content": None, "tool_calls": [call]},
            {"role": "tool", "tool_call_id": "1", "content": "1250 C"},
            {"role": "assistant", "content": "It is 1250 C."},
            {"role": "user", "content": "Thanks"},
            {"role": "assistant", "content": "Welcome"},
        ]
    }
    assert turns_of(record) == [
        ("system", "You may search."), ("user", "How hot?"), ("action", "search"),
        ("action_input", '{"q": 1}'), ("observation", "1250 C"), ("final_answer", "It is 1250 C."),
        ("user", "Thanks"), ("assistant", "Welcome"),
    ]  # fmt: skip


def test_sharegpt_knows_its_speakers_and_function_calls():
    record = {
        "system": "You may search.",
        "conversations": [
            {"from": "human", "value": "How hot?"},
            {"from": "function_call", "value": '{"name": "search", "arguments": {"q": "heat"}}'},
            {"from": "observation", "value": "1250 C"},
            {"from": "gpt", "value": "1250 C it is"},
        ],
    }
    assert turns_of(record) == [
        ("system", "You may search."), ("user", "How hot?"), ("action", "search"),
        ("action_input", '{"q": "heat"}'), ("observation", "1250 C"), ("final_answer", "1250 C it is"),
    ]  # fmt: skip


def test_conversations_with_labelled_lines_are_traces():
    record = {
        "conversations": [
            {"from": "system", "value": "Tools: search"},
            {"from": "user", "value": "How hot?"},
            {"from": "assistant", "value": "\nThought: look\nAction: search\nAction Input: {\n \"q\": 1\n}"},
            {"from": "function", "value": "Action: none of mine"},
            {
                "from": "assistant",
                "value": 'Thought: done\nAction: Finish\nAction Input: {"final_answer": "1250 C"}',
            },
        ]
    }  # fmt: skip
    assert turns_of(record)[2:] == [
        ("thought", "look"), ("action", "search"), ("action_input", '{\n "q": 1\n}'),
        ("observation", "Action: none of mine"), ("thought", "done"), ("final_answer", "1250 C"),
    ]  # fmt: skip


def test_react_records_hold_steps_or_a_trace():
    steps = {
        "question": "How hot?",
        "steps": [{"thought": "look", "action": "search", "action_input": {"q": 1}, "observation": "1250"}],
        "final_answer": "1250 C",
    }
    expected = [
        ("user", "How hot?"), ("thought", "look"), ("action", "search"), ("action_input", '{"q": 1}'),
        ("observation", "1250"), ("final_answer", "1250 C"),
    ]  # fmt: skip
    assert turns_of(steps) == expected
    trace = 'Thought: look\nAction: search\nAction Input: {"q": 1}\nObservation: 1250\nFinal Answer: 1250 C'
    assert turns_of({"question": "How hot?", "trace": trace}) == expected


NAMES = {"example_id": "a#b", "task": "b", "source": "files", "origin": "a"}
TALK = {"messages": [{"role": "user", "content": "Ask this."}, {"role": "assistant", "content": "Yes."}]}


@pytest.mark.parametrize(
    ("record", "reason"),
    [
        ({"messages": []}, "malformed_record"),
        ({"messages": [{"role": "user", "content": "a"}]}, "no_response"),
        ({"messages": [{"role": "bird", "content": "a"}]}, "malformed_record"),
        ({"messages": [{"role": "user", "content": [{"type": "image_url"}]}]}, "malformed_record"),
        (
            {"messages": [{"role": "user", "content": "a"}, {"role": "assistant", "tool_calls": [{}, {}]}]},
            "parallel_calls",
        ),
        ({**ALPACA, "history": [["a"]]}, "malformed_record"),
        ({**ALPACA, "output": " "}, "empty_response"),
        ({**ALPACA, "instruction": ""}, "empty_instruction"),
        ({"question": "a", "trace": "no label"}, "malformed_record"),
        (
            {"question": "a", "trace": 'Action: Finish\nAction Input: {"return_type": "give_up"}'},
            "no_response",
        ),
        ({"example_id": "a", "turns": [{"role": "bird", "text": ""}]}, "malformed_record"),
        ({"question": "a", "steps": [{"though": "b"}], "final_answer": "c"}, "malformed_record"),
        *(
            ({**TALK, "baltoro": {**NAMES, **names}}, "malformed_record")
            for names in (
                {"second_turn_begins_at": [1]},
                {"second_turn_begins_at": {"0": 99}},
                {"second_turn_begins_at": {"0": True}},
                {"second_turn_begins_at": {"7": 3}},
                {"second_turn_begins_at": {"0": 3}},
                {"splits": {"0": 3}},
                {"template": "one"},
            )
        ),
    ],
)
def test_what_is_no_example_has_a_reason(record, reason):
    from baltoro.instructions.formats import ExampleReject

    with pytest.raises(ExampleReject) as caught:
        example_of(record, "auto", name="set", key="k")
    assert caught.value.reason == reason
    assert reason in RECORD_REASONS


def test_a_declared_layout_is_used_whatever_the_keys_say(tmp_path):
    both = {**ALPACA, "messages": [{"role": "user", "content": "x"}, {"role": "assistant", "content": "y"}]}
    assert layout_of(both) == "messages"
    assert turns_of(both, "alpaca")[0] == ("user", "Name a rock.")


def test_the_sample_of_k2_is_read_whole(sample_data):
    examples, rejects = read(sample_data / "instructions")
    assert (len(examples), len(rejects)) == (390, 0)
    assert all(
        [turn.role for turn in example.turns] == ["user", "input", "assistant"] for example in examples
    )
    assert all(example.turns[-1].text in "ABCDE1234" for example in examples)
