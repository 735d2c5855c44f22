"""`baltoro init` hands out a recipe that works, and never writes over one."""

import pytest

from baltoro.core.errors import ConfigError
from baltoro.jobs.initialise import initialise
from baltoro.jobs.recipe import load_recipe, packaged_recipes


@pytest.mark.parametrize("name", packaged_recipes())
def test_the_written_recipe_is_the_packaged_one_comments_and_all(workplace, name):
    path = initialise(workplace / "new" / "folder", name)
    assert path == workplace / "new" / "folder" / f"{name}.yaml"
    assert path.read_bytes() == packaged_recipes()[name].read_bytes()
    assert path.read_text().startswith("#")
    assert load_recipe(str(path)) == load_recipe(name)


def test_an_existing_file_is_left_as_it_is(workplace):
    (workplace / "demo.yaml").write_text("mine\n")
    with pytest.raises(
        ConfigError, match=r"demo\.yaml already exists; choose another folder, or edit that file"
    ):
        initialise(workplace, "demo")
    assert (workplace / "demo.yaml").read_text() == "mine\n"


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("dmo", "--from dmo: no such recipe, did you mean demo? Baltoro comes with: academicgpt-70b, demo"),
        ("zzz", "--from zzz: no such recipe. Baltoro comes with: academicgpt-70b, demo"),
        ("../demo", "no such recipe, did you mean demo?"),
    ],
)
def test_an_unknown_name_is_refused_with_the_known_ones(workplace, name, expected):
    with pytest.raises(ConfigError) as caught:
        initialise(workplace, name)
    assert expected in caught.value.message
    assert list(workplace.iterdir()) == []


def test_a_folder_that_cannot_be_made_is_one_clear_error(workplace):
    (workplace / "file").write_text("")
    with pytest.raises(
        ConfigError, match=r"file/sub/demo\.yaml: cannot be written: Not a directory; choose another"
    ):
        initialise(workplace / "file" / "sub", "demo")
