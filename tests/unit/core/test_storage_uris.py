"""URIs mean one thing, and no key leaves its folder."""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from baltoro.core.errors import InputError
from baltoro.core.storage import absolute_uri, is_local, join, local_path


def test_paths_and_file_uris_are_local_and_s3_is_not():
    assert is_local("papers")
    assert is_local("/data/a b#c%20")
    assert is_local("file:///data")
    assert not is_local("s3://bucket/key")


def test_an_unknown_scheme_is_refused_with_what_is_allowed():
    with pytest.raises(
        InputError, match=r"gs://b/x: the scheme gs:// is not supported; use a path, file:///path or"
    ):
        is_local("gs://b/x")


def test_an_empty_uri_is_refused():
    with pytest.raises(InputError, match="an empty URI names nothing"):
        is_local("")


def test_only_file_uris_are_percent_decoded():
    assert local_path("file:///data/a%20b%23c") == Path("/data/a b#c")
    assert local_path("/data/a%20b") == Path("/data/a%20b")
    assert local_path("file://localhost/data") == Path("/data")


def test_a_file_uri_of_another_host_is_refused():
    with pytest.raises(
        InputError, match=r"file://server/share: a file:// URI must be absolute and on this machine"
    ):
        local_path("file://server/share")


def test_an_s3_uri_is_no_local_path():
    with pytest.raises(InputError, match=r"s3://b/k is not a local path"):
        local_path("s3://b/k")


def test_relative_paths_become_absolute_against_folder_or_prefix(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert absolute_uri("papers/../other/") == str(tmp_path / "other")
    assert absolute_uri("x", base="/data") == "/data/x"
    assert absolute_uri("x/y", base="s3://b/p") == "s3://b/p/x/y"
    assert absolute_uri("~/x") == str(Path.home() / "x")
    assert absolute_uri("file:///a%20b/") == "/a b"
    assert absolute_uri("s3://b/p/") == "s3://b/p"
    assert absolute_uri("s3://b/") == "s3://b"


def test_join_keeps_odd_characters_and_drops_a_trailing_slash():
    assert join("s3://b/", "a b", "c#%d/ü") == "s3://b/a b/c#%d/ü"
    assert join("/", "etc") == "/etc"
    assert join("file:///a%20b", "c%20d") == "/a b/c%20d"
    assert join("rel", "x") == "rel/x"


@pytest.mark.parametrize("key", ["..", "a/../../b", "/etc/passwd", "", "a//b", "a/", ".", "nul\0"])
def test_a_key_that_could_leave_its_folder_is_refused(key):
    with pytest.raises(InputError, match="is refused: a name cannot be empty, start or end with"):
        join("/top", key)


def test_an_s3_key_with_dot_dot_is_refused():
    from baltoro.core.storage import Storage

    with pytest.raises(InputError, match=r"s3://b/a/../secret is refused: a key cannot have"):
        Storage().read_bytes("s3://b/a/../secret")


def test_s3_without_bucket_or_key_is_refused():
    from baltoro.core.storage import Storage

    with pytest.raises(InputError, match=r"s3:///key names no bucket"):
        Storage().read_bytes("s3:///key")
    with pytest.raises(InputError, match=r"s3://bucket names a bucket, not an object"):
        Storage().read_bytes("s3://bucket")


@given(st.lists(st.text(min_size=1, max_size=12), min_size=1, max_size=4))
def test_a_joined_key_is_below_its_folder_or_refused(parts):
    try:
        joined = join("/top/folder", *parts)
    except InputError:
        return
    assert absolute_uri(joined) == joined
    assert joined.startswith("/top/folder/")


def test_the_home_of_a_user_who_does_not_exist_is_refused():
    with pytest.raises(InputError, match=r"~nosuch/x: there is no user 'nosuch' here; write the whole path"):
        absolute_uri("~nosuch/x")
