import csv
import io
import json
import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from baltoro.instructions.example import Example, Turn
from baltoro.instructions.sheet import (
    COLUMNS,
    MAX_CELL_CHARACTERS,
    example_digest,
    guarded,
    review_sheet,
    row_of,
    sheet_csv,
    sheet_html,
    unguarded,
)


def examples(task, count):
    return [
        Example(f"{task}{n}#{task}", task, "signals", f"{task}{n}",
                [Turn("user", f"ask {n}"), Turn("assistant", f"answer {n}")])
        for n in range(count)
    ]  # fmt: skip


def rows_of_csv(data):
    return list(csv.reader(io.StringIO(data.decode("utf-8-sig"), newline="")))


def test_each_task_has_as_many_rows_or_all_it_has():
    rows = review_sheet([*examples("title", 50), *examples("review", 3)], per_task=10, seed=0)
    assert [row.task for row in rows] == ["review"] * 3 + ["title"] * 10


def test_the_sample_depends_on_ids_and_seed_and_grows_with_its_size():
    made = examples("title", 60)
    small, large = (review_sheet(made, per_task=count, seed=1) for count in (5, 9))
    assert large[:5] == small
    assert review_sheet(made[::-1], per_task=5, seed=1) == small
    assert review_sheet(made, per_task=5, seed=2) != small


def test_a_row_shows_question_material_and_response(question, trace):
    row = row_of(question)
    assert (row.instruction, row.input, row.response) == ("Give a title.", "Melt rises.", "On melt")
    assert (row.decision, row.edited_response, row.comment) == ("", "", "")
    shown = row_of(trace)
    assert shown.response == "1250 C"
    assert shown.input == ""
    assert shown.instruction.startswith("System: You may call search.\n\nUser: How hot is it?")
    assert shown.instruction.endswith("Observation: It is 1250 C.\n\nThought: That is it.")


def test_the_digest_tells_every_change_of_what_is_said_and_is_no_number(question):
    digest = example_digest(question)
    assert re.fullmatch("x[0-9a-f]{16}", digest)
    question.task, question.template = "other", 4
    assert example_digest(question) == digest
    question.turns[1] = Turn("user", question.turns[1].text)
    assert example_digest(question) != digest


@pytest.mark.parametrize(
    "text", ["=1+1", "+1", "-1", "@SUM(A1)", "\t=1", "\r=1", " =1", "\n=1", "'=1", "＝1", '=HYPERLINK("x")']
)
def test_no_cell_is_a_formula_and_the_text_comes_back(text):
    assert guarded(text) == f"'{text}"
    assert unguarded(guarded(text)) == text


@settings(max_examples=200)
@given(st.text(alphabet="'=+ \nab@", max_size=8))
def test_guarding_is_undone_exactly(text):
    cell = guarded(text)
    assert unguarded(cell) == text
    assert not cell.lstrip().startswith(("=", "+", "@"))


@pytest.mark.parametrize("text", ["'tis", "a=1", "'", "", "1.5"])
def test_other_cells_stay_as_they_are(text):
    assert guarded(text) == unguarded(text) == text


def test_the_csv_has_the_columns_and_guards_every_one_of_them():
    bad = Example(
        "=id#t", "@t", "s", "o", [Turn("user", "+a"), Turn("input", "-b"), Turn("assistant", '=c"')]
    )
    data = sheet_csv([row_of(bad)])
    assert data.startswith(b"\xef\xbb\xbf")
    header, row = rows_of_csv(data)
    assert tuple(header) == COLUMNS
    assert row[:5] == ["'=id#t", "'@t", "'+a", "'-b", "'=c\""]


def test_long_texts_are_cut_for_spreadsheets_and_say_so():
    long = Example("a#t", "t", "s", "a", [Turn("user", "a"), Turn("assistant", "b" * 40_000)])
    cell = rows_of_csv(sheet_csv([row_of(long)]))[1][4]
    assert cell == "b" * MAX_CELL_CHARACTERS + " … [8,000 more characters]"
    assert len(cell) < 32_767


def test_the_page_carries_its_rows_and_lets_none_of_them_run():
    evil = "</script><script>alert(1)</script><!--"
    row = row_of(Example("a#t", evil, "s", "a", [Turn("user", evil), Turn("assistant", evil)]))
    page = sheet_html([row], title="<b>set</b>")
    assert page.count("<script") == 2
    assert page.count("</script>") == 2
    assert "<b>" not in page
    assert "alert(1)" in page
    data = re.search(r'<script type="application/json" id="data">(.*?)</script>', page, re.S)[1]
    assert json.loads(data)["rows"][0]["response"] == evil
    assert json.loads(data)["columns"] == list(COLUMNS)


def test_the_page_needs_no_network():
    page = sheet_html(review_sheet(examples("title", 3), per_task=2, seed=0), title="set")
    assert "default-src 'none'" in page
    assert not re.search(r"https?://|<link|@import|\bsrc=", page)


def test_the_page_guards_cells_as_the_sheet_does():
    """The pattern stands in two languages; both must know the same characters."""
    from baltoro.instructions.sheet import _DANGEROUS

    page = sheet_html([], title="set")
    assert f"/^{_DANGEROUS.pattern}/.test(text)" in page
    assert f"most = {MAX_CELL_CHARACTERS};" in page
