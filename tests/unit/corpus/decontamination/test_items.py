"""Evaluation sets in the layouts people have, and the errors of those that cannot be used."""

import gzip
import io
import json

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from baltoro.core.errors import InputError
from baltoro.corpus.decontamination.config import EvaluationFields, EvaluationSetConfig
from baltoro.corpus.decontamination.items import load_evaluation_set, split_options

STEM = "Which layer of a glacier moves fastest during the melt season"
OPTIONS = ("the surface near the middle", "the bed", "both margins")


def load(data, name="exam.json", *, format="auto", fields=None):
    config = EvaluationSetConfig(
        name="exam", uri="s3://sets/exam", format=format, fields=fields or EvaluationFields()
    )
    if not isinstance(data, bytes):
        data = (data if isinstance(data, str) else json.dumps(data)).encode()
    return load_evaluation_set(config, [(name, data)])


def parquet(rows):
    sink = io.BytesIO()
    pq.write_table(pa.Table.from_pylist(rows), sink)
    return sink.getvalue()


def only(loaded):
    assert len(loaded.items) == 1
    return loaded.items[0]


@pytest.mark.parametrize(
    "record",
    [
        {"question": STEM, "choices": list(OPTIONS), "answer": 0},
        {"question": STEM, "options": dict(zip("ABC", OPTIONS, strict=True)), "answer": "A"},
        {"question": STEM, "choices": {"text": list(OPTIONS), "label": ["A", "B", "C"]}},
        {
            "question": {"stem": STEM, "choices": [{"text": o, "label": "X"} for o in OPTIONS]},
            "answerKey": "A",
        },
        {"Question": STEM, "A": OPTIONS[0], "B": OPTIONS[1], "C": OPTIONS[2], "Answer": "B"},
        {
            "instruction": f"{STEM}\nChoose from: ",
            "input": f"\nA. {OPTIONS[0]}\nB. {OPTIONS[1]}\nC. {OPTIONS[2]}",
        },
        {
            "prompt": f"{STEM}\n(a) {OPTIONS[0]}\n(b) {OPTIONS[1]}\n(c) {OPTIONS[2]}\nThe answer is:",
            "target": "c",
        },
        {"query": f"{STEM} A) {OPTIONS[0]} B) {OPTIONS[1]} C) {OPTIONS[2]}"},
        {"stem": STEM, "choices": [f"A. {OPTIONS[0]}", f"B. {OPTIONS[1]}", f"C. {OPTIONS[2]}"]},
    ],
)
def test_usual_records_give_the_stem_and_its_options_without_labels(record):
    item = only(load([record]))
    assert item.text == STEM
    assert item.options == OPTIONS
    assert (item.set_name, item.item_id, item.kind) == ("exam", "exam.json#1", "question")


ROW = {"question": STEM, "A": OPTIONS[0], "B": OPTIONS[1], "C": OPTIONS[2], "answer": "C"}


@pytest.mark.parametrize(
    ("name", "data"),
    [
        ("exam.jsonl", json.dumps(ROW) + "\n\n"),
        ("exam.json", {"version": 2, "data": [ROW]}),
        ("exam.json", {"q1": ROW}),
        ("exam.csv", "question,A,B,C,answer\n" + ",".join(ROW.values()) + "\n"),
        ("exam.tsv", "question\tA\tB\tC\tanswer\n" + "\t".join(ROW.values()) + "\n"),
        ("exam.parquet", parquet([ROW])),
        ("exam.jsonl.gz", gzip.compress(json.dumps(ROW).encode())),
        ("exam.jsonl.zst", bytes(pa.compress(json.dumps(ROW).encode(), "zstd", asbytes=True))),
        ("exam.txt", f"{STEM}\nA. {OPTIONS[0]}\nB. {OPTIONS[1]}\nC. {OPTIONS[2]}\n"),
        ("exam.json", b"\xef\xbb\xbf" + json.dumps([ROW]).encode()),
    ],
)
def test_every_container_gives_the_same_item(name, data):
    item = only(load(data, name))
    assert item.text.strip() == STEM
    assert item.options == OPTIONS


def test_geobench_lists_become_questions_and_model_answers():
    loaded = load(
        {
            "choice": {"question": [f"{STEM}:\nChoose from:\n\nA. one bed\nB. two beds"], "answer": ["B"]},
            "tf": {"question": ["Moraines are carried by ice"], "answer": ["True"]},
            "noun": {
                "question": ["esker"],
                "answer": ["A long winding ridge of sand that a stream left under ice"],
            },
            "completion": {"question": ["The foot of a glacier is its ( )"], "answer": ["terminus"]},
        }
    )
    found = {item.item_id: item for item in loaded.items}
    assert found["exam.json#choice/1"].text == f"{STEM}:"
    assert found["exam.json#choice/1"].options == ("one bed", "two beds")
    assert found["exam.json#tf/1"].options == ()
    assert found["exam.json#noun/1"].options == ()
    assert found["exam.json#noun/1:answer"].kind == "answer"
    assert found["exam.json#completion/1"].options == ("terminus",)
    assert (loaded.records, loaded.empty_records) == (4, 0)


def test_ids_are_unique_though_those_in_the_file_are_not():
    loaded = load([{"id": "same", "question": f"{STEM} {n}"} for n in range(3)])
    assert [item.item_id for item in loaded.items] == ["exam.json#1", "exam.json#2", "exam.json#3"]


def test_records_without_text_are_counted():
    loaded = load([{"question": STEM}, {"question": " "}, {"question": None}])
    assert (len(loaded.items), loaded.records, loaded.empty_records) == (1, 3, 2)


def test_a_passage_shared_by_questions_is_one_item():
    passage = "The ice retreated quickly after the last cold period had ended in the north"
    loaded = load([{"question": f"{STEM} {n}", "passage": passage} for n in range(3)])
    assert [item.kind for item in loaded.items] == ["question", "passage", "question", "question"]


def test_named_fields_lead_into_objects_and_lists():
    record = {"item": {"body": STEM, "opts": [{"t": o} for o in OPTIONS]}, "note": "left alone by us all"}
    item = only(load([record], fields=EvaluationFields(stems=("item.body",), options=("item.opts.t",))))
    assert (item.text, item.options) == (STEM, OPTIONS)


def test_a_review_file_gives_what_stands_after_its_head():
    text = "ID: x1\nTitle: Ice\n\nAggregated Review:\n### Key Points\nThe paper measures melt.\n"
    item = only(load(text, "x1.txt"))
    assert (item.kind, item.text) == ("passage", "### Key Points\nThe paper measures melt.")


def test_review_records_give_passages():
    loaded = load([{"title": "Ice", "reviews": [{"text": "Sound work."}, {"text": "Weak tests."}]}])
    assert [item.text for item in loaded.items] == ["Sound work.", "Weak tests."]


def test_a_folder_is_read_without_the_files_about_it():
    config = EvaluationSetConfig(name="exam", uri="exam/")
    files = [
        ("b.jsonl", json.dumps({"question": "second"}).encode()),
        ("README.md", b"# Exam"),
        (".gitattributes", b"*"),
        ("a.jsonl", json.dumps({"question": "first"}).encode()),
        ("dataset_info.json", b"{}"),
    ]
    assert [item.text for item in load_evaluation_set(config, files).items] == ["first", "second"]


@pytest.mark.parametrize(
    ("name", "data", "fields", "said"),
    [
        (
            "exam.json",
            b'[{"question": "Wh',
            {},
            "not JSON: Unterminated string starting at at line 1, column 15",
        ),
        (
            "exam.jsonl",
            b'{"question": "a"}\n[1]\n',
            {},
            "line 2: list where one JSON object per line is wanted",
        ),
        ("exam.json", b"[1, 2]", {}, "a list of JSON objects is wanted"),
        ("exam.json", b"\xff\xfeab", {}, "byte 0xff at offset 0 is not UTF-8"),
        ("exam.parquet", b"PAR1 no", {}, "not a Parquet file"),
        ("exam.jsonl.gz", b"plain", {}, "cannot be unpacked as gzip"),
        (
            "exam.pdf",
            b"%PDF",
            {},
            "format cannot be told from the suffix '.pdf'; set format to one of geobench",
        ),
        ("exam.json", b"[]", {}, "no records in it"),
        ("exam.txt", b"\n\n", {}, "no records in it"),
        ("exam.json", b'[{"frage": "Was?"}]', {}, "no record has one of the usual fields (question, "),
        ("exam.json", b'[{"question": "?!"}]', {}, "1 records, none with text to look for"),
        (
            "exam.json",
            b'[{"question": "a", "meta": {"level": 1}}]',
            {"stems": ("query",)},
            "no record has the field 'query' of fields.stems; the first one has question, meta.level",
        ),
    ],
)
def test_a_set_that_cannot_be_used_is_one_error_with_set_file_and_remedy(name, data, fields, said):
    with pytest.raises(InputError) as caught:
        load(data, name, fields=EvaluationFields(**fields))
    assert said in str(caught.value)
    assert str(caught.value).startswith("evaluation set 'exam'")


def test_unequal_geobench_lists_are_refused():
    with pytest.raises(InputError, match="'tf' has 2 questions and 1 answers; the lists must be parallel"):
        load({"tf": {"question": ["a", "b"], "answer": ["True"]}}, format="geobench")


def test_a_folder_without_files_is_refused():
    with pytest.raises(InputError, match="s3://sets/exam holds no files"):
        load_evaluation_set(EvaluationSetConfig(name="exam", uri="s3://sets/exam"), [])


@pytest.mark.parametrize(
    "text",
    ["What is till?", "A. Lone label", "He met A. Smith and B. Jones", "1. first\n2. second", ""],
)
def test_a_text_without_labelled_options_stays_whole(text):
    assert split_options(text) == (text, ())


def test_chinese_options_are_told_from_their_stem():
    stem, options = split_options("下列哪一项最能说明冰川后退的原因？A．气温升高 B．降雪增加 C．地壳抬升")
    assert stem == "下列哪一项最能说明冰川后退的原因？"
    assert options == ("气温升高", "降雪增加", "地壳抬升")


def test_the_geobench_sample_is_read_whole(sample_data):
    kinds = {}
    without = []
    for name in ("geobench_npee.json", "geobench_apstudy.json"):
        loaded = load((sample_data / "geobench" / name).read_bytes(), name)
        kinds[name] = (loaded.records, loaded.empty_records, len(loaded.items))
        choices = [item for item in loaded.items if "choice" in item.item_id or "apstudy" in name]
        without += [item.item_id for item in choices if len(item.options) < 3]
    # Its options are empty in the file.
    assert without == ["geobench_apstudy.json#40"]
    assert kinds["geobench_npee.json"][:2] == (283, 0)
    assert kinds["geobench_apstudy.json"] == (279, 1, 278)
