import csv
import io
from dataclasses import asdict, replace

import pytest

from baltoro.core.errors import InputError
from baltoro.core.statistics import wilson_interval
from baltoro.instructions.decisions import Decision, apply_decisions, noise_rates, read_decisions
from baltoro.instructions.example import Example, Turn
from baltoro.instructions.sheet import COLUMNS, example_digest, row_of, sheet_csv


def example(number, response="good", task="title"):
    turns = [Turn("user", "ask"), Turn("input", "material"), Turn("assistant", response)]
    return Example(f"o{number}#{task}", task, "signals", f"o{number}", turns)


def decided(example, verdict, edited="", comment=""):
    return replace(row_of(example), decision=verdict, edited_response=edited, comment=comment)


def write(path, rows):
    path.write_bytes(sheet_csv(rows))
    return str(path)


def write_cells(path, rows, **options):
    buffer = io.StringIO()
    csv.writer(buffer, **options).writerows(rows)
    path.write_text(buffer.getvalue(), encoding="utf-8", newline="")
    return str(path)


def cells(rows):
    return [list(COLUMNS), *([*asdict(row).values()] for row in rows)]


def test_decisions_are_applied_and_counted(tmp_path):
    examples = [example(n) for n in range(5)]
    rows = [
        decided(examples[0], "keep"),
        decided(examples[1], "drop", comment="garbled"),
        decided(examples[2], "edit", "=better"),
        row_of(examples[3]),
    ]
    decisions = read_decisions(write(tmp_path / "a.csv", rows))
    applied = apply_decisions(examples, decisions)
    assert [e.example_id for e in applied.examples] == ["o0#title", "o2#title", "o3#title", "o4#title"]
    assert applied.examples[1].text("assistant") == "=better"
    assert applied.examples[1].text("input") == "material"
    assert asdict(applied.counts) == {"kept": 1, "dropped": 1, "edited": 1, "stale": 0, "absent": 0}
    assert [(r.paper_id, r.stage, r.reason, r.detail) for r in applied.rejects] == [
        ("o1", "decisions", "dropped_by_reviewer", "o1#title: garbled")
    ]
    assert examples[2].text("assistant") == "good"


def test_a_decision_on_another_state_is_stale_and_one_on_nothing_is_absent(tmp_path):
    rows = [decided(example(1, "old"), "drop"), decided(example(2), "drop")]
    decisions = read_decisions(write(tmp_path / "a.csv", rows))
    applied = apply_decisions([example(1, "new")], decisions)
    assert applied.examples == [example(1, "new")]
    assert (applied.counts.stale, applied.counts.absent, applied.counts.dropped) == (1, 1, 0)
    assert [decision.example_id for decision in applied.stale] == ["o1#title"]
    assert [decision.example_id for decision in applied.absent] == ["o2#title"]
    assert applied.used == []


def test_a_second_round_decides_on_what_the_first_has_made(tmp_path):
    first, second = example(1, "first"), example(1, "second")
    write(tmp_path / "round1.csv", [decided(first, "edit", "second")])
    write(tmp_path / "round2.csv", [decided(second, "drop")])
    decisions = read_decisions(str(tmp_path))
    applied = apply_decisions([first], decisions)
    assert applied.examples == []
    assert (applied.counts.dropped, applied.counts.edited, applied.counts.stale) == (1, 0, 0)


def test_edits_that_lead_back_to_each_other_end(tmp_path):
    one, two = example(1, "one"), example(1, "two")
    rows = [decided(one, "edit", "two"), decided(two, "edit", "one")]
    applied = apply_decisions([one], read_decisions(write(tmp_path / "a.csv", rows)))
    assert applied.examples == [one]
    assert applied.counts.kept == 1


def test_sheets_that_a_spreadsheet_program_saved_are_read(tmp_path):
    rows = [decided(example(1), " Drop "), decided(example(2), "EDIT", "two\nlines")]
    semicolons = read_decisions(write_cells(tmp_path / "a.csv", cells(rows), delimiter=";"))
    assert [(d.verdict, d.edited_response) for d in semicolons] == [("drop", ""), ("edit", "two\nlines")]
    wide = tmp_path / "wide.tsv"
    write_cells(wide, cells(rows), delimiter="\t", lineterminator="\r\n")
    wide.write_bytes(wide.read_text(encoding="utf-8").encode("utf-16"))
    assert [d.verdict for d in read_decisions(str(wide))] == ["drop", "edit"]
    turned = [[*row[::-1], "more"] for row in cells(rows)]
    assert [d.digest for d in read_decisions(write_cells(tmp_path / "b.csv", turned))] == [
        example_digest(example(1)), example_digest(example(2))
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"decision": "maybe"},
            "row 3: column decision is 'maybe'; write keep, drop, edit, or leave it empty",
        ),
        ({"decision": "edit"}, "row 3: column edited_response is empty, and decision is edit"),
        ({"edited_response": "x"}, "row 3: column decision is ''; write keep, drop, edit, or clear column"),
        (
            {"decision": "keep", "edited_response": "x"},
            "row 3: column edited_response is filled in, and decision is keep",
        ),
        ({"decision": "keep", "digest": ""}, "row 3: column digest is empty; copy it from the review sheet"),
        ({"decision": "keep", "example_id": " "}, "row 3: column example_id is empty"),
    ],
)
def test_a_wrong_cell_is_named_by_row_and_column(tmp_path, changes, message):
    rows = [decided(example(1), "keep"), replace(row_of(example(2)), **changes)]
    with pytest.raises(InputError) as caught:
        read_decisions(write(tmp_path / "a.csv", rows))
    assert f"a.csv {message}" in caught.value.message


def test_a_missing_column_and_a_torn_row_are_named(tmp_path):
    rows = cells([decided(example(1), "keep")])
    without = [row[:-1] for row in rows]
    with pytest.raises(InputError, match="row 1 has no column digest; it has example_id, task"):
        read_decisions(write_cells(tmp_path / "a.csv", without))
    with pytest.raises(InputError, match="row 2 has 8 cells, and 9 columns are named"):
        read_decisions(write_cells(tmp_path / "a.csv", [rows[0], rows[1][:-1]]))
    (tmp_path / "a.csv").write_text('"example_id","task\n')
    with pytest.raises(InputError, match="row 1: not valid CSV"):
        read_decisions(str(tmp_path / "a.csv"))


def test_two_people_who_disagree_are_told_where(tmp_path):
    write(tmp_path / "ann.csv", [decided(example(1), "keep"), decided(example(2), "drop")])
    write(tmp_path / "bob.csv", [decided(example(1), "drop")])
    with pytest.raises(
        InputError, match=r"bob\.csv row 2 and .*ann\.csv row 2 disagree on o1#title: drop and keep"
    ):
        read_decisions(str(tmp_path))
    write(tmp_path / "bob.csv", [decided(example(1), "keep")])
    assert len(read_decisions(str(tmp_path))) == 2


def test_no_sheet_and_another_encoding_are_errors(tmp_path):
    with pytest.raises(InputError, match="no such sheet of decisions"):
        read_decisions(str(tmp_path))
    (tmp_path / "a.csv").write_bytes("example_id;Größe\n".encode("cp1252"))
    with pytest.raises(InputError, match=r"is not UTF-8.*save the sheet as CSV UTF-8"):
        read_decisions(str(tmp_path))
    (tmp_path / "a.csv").write_bytes(b"")
    with pytest.raises(InputError, match="an empty file; a sheet of decisions has the columns"):
        read_decisions(str(tmp_path))


def test_noise_is_what_was_dropped_or_edited_by_task():
    decisions = [
        Decision(f"o{number}", "x", verdict, "", "", task, "")
        for number, (task, verdict) in enumerate(
            [("title", "keep")] * 7 + [("title", "drop")] * 2 + [("title", "edit"), ("review", "keep")]
        )
    ]
    rates = noise_rates(decisions)
    assert list(rates) == ["review", "title"]
    title = rates["title"]
    assert (title.looked_at, title.noise, title.fraction) == (10, 3, 0.3)
    assert (title.low, title.high) == wilson_interval(3, 10)
    assert rates["review"].fraction == 0
    assert rates["review"].high > 0.7


def test_a_doubled_column_is_refused(tmp_path):
    rows = [
        [*row, "drop" if number else "Decision"] for number, row in enumerate(cells([row_of(example(1))]))
    ]
    with pytest.raises(InputError, match="row 1 has the column decision 2 times"):
        read_decisions(write_cells(tmp_path / "a.csv", rows))


def test_what_was_applied_is_told_apart_from_what_was_not(tmp_path):
    rows = [decided(example(1), "drop"), decided(example(2, "old"), "drop"), decided(example(3), "keep")]
    applied = apply_decisions(
        [example(1), example(2, "new")], read_decisions(write(tmp_path / "a.csv", rows))
    )
    assert [decision.example_id for decision in applied.used] == ["o1#title"]
    assert noise_rates(applied.used)["title"].looked_at == 1
