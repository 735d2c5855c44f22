"""Recipes are decoded strictly; every mistake is answered with path, value, what is allowed and a way out."""

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from baltoro.core.config import (
    StrictModel,
    affects,
    apply_override,
    decode,
    dump_yaml,
    environment_overrides,
    execution,
    load_mapping,
    parse_yaml,
    result,
    result_fields,
    section,
    to_yaml,
)
from baltoro.core.errors import ConfigError


class Item(StrictModel):
    count: int = result(1, "how many", gt=0)
    tags: tuple[str, ...] = result((), "labels")


class Settings(StrictModel):
    name: str = result(..., "name")
    rate: float = result(0.1, "rate", le=1.0)
    origin: str = result("train", "kind", alias="from")
    workers: int = execution(1, "processes")
    items: tuple[Item, ...] = section(tuple, "items")
    one: Item | None = section(lambda: None, "optional item")


def mistake(data):
    with pytest.raises(ConfigError) as caught:
        decode(Settings, data, "recipe.yaml")
    return caught.value.message


def test_unknown_key_names_its_full_path_and_the_nearest_valid_name():
    assert "items.0.cuont: unknown key, did you mean items.0.count? Allowed here: count, tags" in mistake(
        {"name": "a", "items": [{"cuont": 2}]}
    )


def test_unknown_key_in_an_optional_section_lists_what_is_allowed():
    assert "one.zzz: unknown key. Allowed here: count, tags" in mistake({"name": "a", "one": {"zzz": 1}})


def test_alias_is_the_name_people_are_told():
    assert "did you mean from?" in mistake({"name": "a", "form": "base"})


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        ({"name": 3}, "name: 3 is not allowed: input should be a valid string"),
        ({"name": "a", "workers": "2"}, 'workers: "2" is not allowed: input should be a valid integer'),
        ({"name": "a", "workers": True}, "workers: true is not allowed"),
        ({"name": "a", "rate": 1.5}, "rate: 1.5 is not allowed: input should be less than or equal to 1"),
        ({"name": "a", "items": [{}, {"count": 0}]}, "items.1.count: 0 is not allowed"),
        ({}, "name: is required and not given"),
    ],
)
def test_mistyped_value_names_path_value_and_what_is_allowed(data, expected):
    assert expected in mistake(data)


def test_all_mistakes_are_told_at_once():
    message = mistake({"nam": "a", "rate": "x"})
    assert "nam: unknown key" in message
    assert "name: is required" in message
    assert 'rate: "x" is not allowed' in message


def test_result_fields_leave_out_execution_and_flatten_lists():
    settings = decode(Settings, {"name": "a", "items": [{"tags": ["x"]}], "workers": 9}, "t")
    assert result_fields(settings, "p.") == {
        "p.name": "a",
        "p.rate": 0.1,
        "p.from": "train",
        "p.items.0.count": 1,
        "p.items.0.tags": ["x"],
    }


def test_unmarked_leaf_is_a_defect_of_the_class():
    class Unmarked(StrictModel):
        value: int = 3

    with pytest.raises(TypeError, match=r"Unmarked\.value is neither marked result nor execution"):
        result_fields(Unmarked())


def test_dump_is_yaml_that_decodes_to_the_same():
    settings = decode(Settings, {"name": "a", "one": {"count": 2}, "from": "base"}, "t")
    assert decode(Settings, yaml.safe_load(dump_yaml(settings)), "t") == settings


def test_duplicate_key_is_refused_with_both_lines():
    with pytest.raises(ConfigError, match=r"r.yaml: line 3: the key 'a' stands twice \(first on line 1\)"):
        parse_yaml("a: 1\nb: 2\na: 3\n", "r.yaml")


def test_scientific_notation_without_a_dot_is_a_number_and_dates_stay_text():
    assert parse_yaml("{a: 1e-5, b: 2E3, c: 2024-01-02}", "t") == {"a": 1e-5, "b": 2000.0, "c": "2024-01-02"}


def test_broken_yaml_names_file_and_line():
    with pytest.raises(ConfigError, match=r"r.yaml, line 2, column \d+: not valid YAML"):
        parse_yaml("a: [1\nb: 2", "r.yaml")


@pytest.mark.parametrize(
    ("content", "expected"),
    [(b"", "this file is empty"), (b"- 1\n", "this file is a list"), (b"\xff\xfe", "not UTF-8 text")],
)
def test_file_that_is_no_recipe_is_refused(tmp_path, content, expected):
    path = tmp_path / "r.yaml"
    path.write_bytes(content)
    with pytest.raises(ConfigError, match=expected):
        load_mapping(path)


def test_missing_file_and_folder_are_told_apart(tmp_path):
    with pytest.raises(ConfigError, match="no such recipe"):
        load_mapping(tmp_path / "none.yaml")
    with pytest.raises(ConfigError, match="is a folder"):
        load_mapping(tmp_path)


def test_overrides_reach_into_lists_and_create_sections():
    data = {"items": [{"count": 1}]}
    for text in (
        "items.0.count=5",
        "items.1={count: 7}",
        "one.tags=[a, b]",
        "name=x",
        "rate=1e-2",
        "one.count=",
    ):
        apply_override(data, text)
    assert data == {
        "items": [{"count": 5}, {"count": 7}],
        "one": {"tags": ["a", "b"], "count": None},
        "name": "x",
        "rate": 0.01,
    }


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("name", "an override is written section.key=value"),
        ("=3", "an override is written section.key=value"),
        ("items.3.count=1", "items is a list of 1; its items are addressed 0 to 0, not '3'"),
        ("items.x=1", "not 'x'"),
        ("name.first=1", "name is 'a', which has no keys below it"),
    ],
)
def test_impossible_override_is_refused(text, expected):
    with pytest.raises(ConfigError, match=expected):
        apply_override({"name": "a", "items": [{"count": 1}]}, text)


def test_environment_variables_become_paths_in_a_stable_order():
    found = list(
        environment_overrides({"BALTORO__B__X": "1", "BALTORO__A": "2", "OTHER": "3", "BALTORO_DATA": "4"})
    )
    assert found == [(["a"], "2", "BALTORO__A"), (["b", "x"], "1", "BALTORO__B__X")]


def test_every_field_of_a_recipe_is_marked():
    from pydantic import BaseModel

    from baltoro.core.config import _unwrap
    from baltoro.jobs.recipe import Recipe

    seen = set()

    def check(model):
        if model in seen:
            return
        seen.add(model)
        for name, field in model.model_fields.items():
            nested = _unwrap(field.annotation)
            if isinstance(nested, type) and issubclass(nested, BaseModel):
                if affects(field) is None:
                    check(nested)
            else:
                assert affects(field) in ("result", "execution"), f"{model.__name__}.{name} carries no mark"
            assert field.description, f"{model.__name__}.{name} says nothing of itself"

    check(Recipe)
    assert len(seen) > 10


VALUES = (
    st.integers() | st.booleans() | st.floats(allow_nan=False, allow_infinity=False) | st.text(max_size=6)
)


@given(st.dictionaries(st.text(max_size=6), VALUES | st.lists(VALUES, max_size=3)))
def test_yaml_we_write_reads_back_as_the_same(values):
    assert parse_yaml(to_yaml(values), "t") == values


def test_text_that_looks_like_a_number_stays_text():
    assert parse_yaml(to_yaml({"a": "1e5", "b": "0E0", "c": "007", "d": "on"}), "t") == {
        "a": "1e5",
        "b": "0E0",
        "c": "007",
        "d": "on",
    }


@given(st.dictionaries(st.from_regex(r"[a-z]{1,6}", fullmatch=True), VALUES))
def test_overrides_set_exactly_what_they_name(values):
    data = {}
    for key, value in values.items():
        apply_override(data, f"s.{key}={to_yaml(value).removesuffix('...' + chr(10))}")
    assert data.get("s", {}) == values


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("seed: " + "9" * 5000, "a value cannot be read"),
        ("a: " + "[" * 5000, "is nested too deeply for a recipe; flatten it"),
        (
            "a: &a [x, x, x, x, x, x, x, x, x]\n"
            + "".join(
                f"{n}: &{n} [{', '.join([f'*{p}'] * 9)}]\n"
                for p, n in zip("abcdefgh", "bcdefghi", strict=True)
            ),
            "holds more than 100,000 values once its aliases are written out",
        ),
    ],
    ids=["digits", "depth", "aliases"],
)
def test_yaml_that_would_take_the_machine_down_is_refused(text, complaint):
    with pytest.raises(ConfigError, match=complaint):
        parse_yaml(text, "r.yaml")
