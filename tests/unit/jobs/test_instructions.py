"""What an instruction set refuses before it is built, and what people's tools do not write over."""

import pytest

from baltoro.core.errors import ConfigError, InputError
from baltoro.instructions.example import Example, Turn
from baltoro.instructions.sheet import row_of, sheet_csv
from baltoro.jobs.instruction_sets import InstructionSet, check_instructions, decide
from baltoro.jobs.instructions import hold_out_of, with_place
from baltoro.jobs.sheets import parts_of, refuse_existing
from baltoro.jobs.stages import Context


def example(number, source="signals"):
    turns = [Turn("user", "Ask."), Turn("assistant", "Say.")]
    return Example(f"geo/{number}#title", "title", source, f"geo/{number}.xml", turns)


def sheet(path, examples, verdict):
    rows = sheet_csv([row_of(one) for one in examples]).decode("utf-8-sig")
    path.write_text(rows.replace('"Say.","",', f'"Say.","{verdict}",'), encoding="utf-8")
    return str(path)


def check(load, *overrides):
    check_instructions(Context(load(*overrides)))


def test_two_files_of_one_name_are_refused(load):
    files = "instructions.files=[{name: chats, uri: a.jsonl}, {name: chats, uri: b.jsonl}]"
    with pytest.raises(ConfigError, match=r"instructions: files: the name 'chats' stands twice"):
        check(load, files)


def test_a_sheet_is_read_when_the_stage_is_planned(load, tmp_path):
    empty = sheet(tmp_path / "empty.csv", [example(1)], "")
    with pytest.raises(InputError, match=r"empty\.csv holds no decision yet; fill in its column decision"):
        check(load, f"instructions.decisions={empty}")
    wrong = sheet(tmp_path / "wrong.csv", [example(1)], "perhaps")
    with pytest.raises(InputError, match="column decision is 'perhaps'"):
        check(load, f"instructions.decisions={wrong}")
    check(load, f"instructions.decisions={sheet(tmp_path / 'good.csv', [example(1)], 'drop')}")


def test_a_template_file_is_read_when_the_stage_is_planned(load, tmp_path):
    (tmp_path / "words").mkdir()
    (tmp_path / "words" / "keywords.yaml").write_text("- {instruction: Say, output: '[outputs]'}")
    with pytest.raises(ConfigError, match=r"keywords\.yaml: template 1: unknown slot \[outputs\]"):
        check(load, f"instructions.signals={{templates: {tmp_path / 'words'}}}")


def test_a_column_that_the_table_lacks_is_refused_when_the_stage_is_planned(load, tmp_path):
    (tmp_path / "forums.csv").write_text("stem,forum\na,1\n")
    reviews = "instructions.reviews={papers: p, reviews: r, papers_metadata: {uri: %s, key: stem}, join: %s}"
    table = tmp_path / "forums.csv"
    with pytest.raises(
        InputError, match=r"metadata_column=fora: .* has no such column beside its key; it has forum"
    ):
        check(load, reviews % (table, "{metadata_column: fora}"))
    check(load, reviews % (table, "{metadata_column: forum}"))


def test_decisions_that_match_nothing_are_refused_and_others_are_counted(load, tmp_path):
    context = Context(load())
    made = InstructionSet()
    made.add("signals", [example(1), example(2)], [], {})
    other = sheet(tmp_path / "other.csv", [example(7)], "drop")
    with pytest.raises(InputError, match=r"not one of the 1 decisions .*1 name none, first geo/7#title"):
        decide(context, other, made)
    decide(context, sheet(tmp_path / "mixed.csv", [example(1), example(7)], "drop"), made)
    assert [one.example_id for one in made.examples["signals"]] == ["geo/2#title"]
    counts = made.counts["decisions"]
    assert (counts["applied"], counts["absent"], counts["absent_names"]) == (1, 1, ["geo/7#title"])
    assert counts["noise"]["title"]["looked_at"] == 1


def test_what_is_there_is_not_written_over_unless_that_is_wanted(load, tmp_path):
    context = Context(load())
    (tmp_path / "sheet.csv").write_text("mine")
    uris = (str(tmp_path / "new.csv"), str(tmp_path / "sheet.csv"))
    with pytest.raises(
        ConfigError, match=r"sheet\.csv is there already and may hold decisions; give another --out"
    ):
        refuse_existing(context, uris, overwrite=False, holds="decisions")
    refuse_existing(context, uris, overwrite=True, holds="decisions")
    refuse_existing(context, uris[:1], overwrite=False, holds="decisions")


def test_all_parts_are_split_by_one_rule(load):
    config = load("instructions.validation_fraction=0.4", "instructions.seed=3").instructions
    papers = range(60)
    signals = with_place([example(number) for number in papers], "signals", hold_out_of(config))
    reviews = with_place([example(number, "reviews") for number in papers], "reviews", hold_out_of(config))
    assert signals["split"].to_pylist() == reviews["split"].to_pylist()
    assert {*signals["split"].to_pylist()} == {"train", "validation"}
    assert parts_of(with_place([example(1, "files")], "files", hold_out_of(config))) == ["files", "files.geo"]


def test_an_endpoint_that_cannot_be_asked_is_refused_when_the_stage_is_planned(load, monkeypatch):
    monkeypatch.delenv("REVIEW_KEY", raising=False)
    place = "papers: p, reviews: r, merger: endpoint"
    with pytest.raises(ConfigError, match=r"instructions\.reviews: endpoint\.urls is empty, but merger is"):
        check(load, f"instructions.reviews={{{place}}}")
    asked = f"{place}, endpoint: {{urls: ['http://host/v1'], model: m, api_key_environment: [REVIEW_KEY]}}"
    with pytest.raises(ConfigError, match=r"api_key_environment\.0: .* REVIEW_KEY is not set"):
        check(load, f"instructions.reviews={{{asked}}}")
    monkeypatch.setenv("REVIEW_KEY", "secret")
    check(load, f"instructions.reviews={{{asked}}}")
