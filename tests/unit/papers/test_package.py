"""The package's public names, which are imported at first use."""

import subprocess
import sys

import pytest

import baltoro.papers


def test_public_names_are_those_of_their_modules():
    from baltoro.papers import Paper, Reject, read, reader, schema

    assert (read, Paper, Reject) == (reader.read, schema.Paper, schema.Reject)
    assert set(baltoro.papers.__all__) == {"read", "Paper", "Reject"}


def test_unknown_name_is_an_attribute_error_that_names_it():
    with pytest.raises(AttributeError, match=r"module 'baltoro.papers' has no attribute 'write'"):
        _ = baltoro.papers.write


@pytest.mark.parametrize(
    ("module", "not_loaded"),
    [
        ("baltoro.papers", "pyarrow"),
        ("baltoro.papers.readers.nougat", "baltoro.papers.reader"),
        ("baltoro.papers.readers.nougat", "lxml"),
    ],
)
def test_importing_a_part_does_not_import_the_rest(module, not_loaded):
    code = f"import sys, {module}; sys.exit({not_loaded!r} in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
