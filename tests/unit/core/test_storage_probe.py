"""The probe proves what publishing relies on, names what fails, and leaves nothing behind."""

import os
import time

import pytest

from baltoro.core.errors import StorageError
from baltoro.core.storage import Storage, StorageProfile, join
from baltoro.core.storage import local as local_module

PROMISES = ["create_once", "replace_unchanged_only", "replace_never_creates"]
RACES = ["create_one_winner", "replace_one_winner"]


def test_a_sound_root_passes_and_stays_clean(root):
    storage = Storage()
    report = storage.probe(root)
    if root.startswith("s3"):
        expected = [*PROMISES, *RACES, "list_after_write", "multipart_upload", "clock"]
    else:
        expected = [*PROMISES, "list_after_write", "clock"]
    assert [check.name for check in report.checks] == expected
    assert all(check.passed for check in report.checks), report
    assert report.conditional_writes
    assert not report.single_writer
    assert abs(report.clock_skew_seconds) < 5
    assert report.summary() == f"{root} keeps what publishing relies on"
    assert list(storage.list(root)) == []


def test_a_probed_root_is_not_probed_again(root, monkeypatch):
    from baltoro.core import storage as storage_module

    first = Storage().probe(root)
    monkeypatch.setattr(storage_module, "inspect", lambda *_: pytest.fail("probed twice"))
    assert Storage().probe(root) is first


def test_the_local_probe_is_fast(tmp_path):
    started = time.monotonic()
    Storage().probe(str(tmp_path))
    assert time.monotonic() - started < 1


@pytest.mark.parametrize(
    ("fault", "named", "remedy"),
    [
        (
            {"ignore_if_none_match": True},
            r"create_once: an existing object was overwritten",
            "single_writer: true",
        ),
        (
            {"ignore_if_match": True},
            r"replace_unchanged_only: an object that had changed was",
            "single_writer: true",
        ),
        (
            {"ignore_if_match": True},
            r"replace_never_creates: a missing object was created",
            "single_writer: true",
        ),
        (
            {"racy": True},
            r"create_one_winner: [2-8] of 8 simultaneous writers created the same",
            "single_writer: true",
        ),
        (
            {"racy": True},
            r"replace_one_winner: [2-8] of 8 simultaneous writers replaced",
            "single_writer: true",
        ),
        ({"hide_from_list": True}, r"list_after_write: an object was not in the listing", "another store"),
        ({"no_multipart": True}, r"multipart_upload: .*NotImplemented: No uploads in parts", "another store"),
        (
            {"clock_offset_seconds": 1200},
            r"clock: the store's clock is 1[12]\d\d s ahead of this machine's",
            "NTP",
        ),
        (
            {"clock_offset_seconds": -1200},
            r"clock: the store's clock is 1[12]\d\d s behind this machine's",
            "NTP",
        ),
    ],
)
def test_a_store_that_breaks_a_promise_is_refused_by_name(s3, fault, named, remedy):
    s3.misbehave(**fault)
    with pytest.raises(StorageError, match=rf"{s3.uri}/root cannot be published to: .*{named}") as caught:
        Storage().probe(f"{s3.uri}/root")
    assert remedy in caught.value.message
    s3.misbehave()
    assert list(Storage().list(s3.uri)) == []
    assert "Uploads" not in s3.client.list_multipart_uploads(Bucket=s3.bucket)


def test_a_failed_probe_is_tried_again(s3):
    s3.misbehave(ignore_if_match=True)
    with pytest.raises(StorageError):
        Storage().probe(s3.uri)
    s3.misbehave()
    assert Storage().probe(s3.uri).conditional_writes


def test_a_declared_single_writer_excuses_conditional_writes_and_the_report_says_so(s3):
    s3.misbehave(ignore_if_none_match=True, ignore_if_match=True)
    report = Storage({s3.uri: StorageProfile(single_writer=True)}).probe(s3.uri)
    assert report.single_writer
    assert not report.conditional_writes
    assert "is used by a single writer, as its storage profile declares (the store has no" in report.summary()


def test_a_single_writer_excuses_nothing_else(s3):
    s3.misbehave(ignore_if_match=True, hide_from_list=True)
    with pytest.raises(StorageError, match=r"cannot be published to: list_after_write") as caught:
        Storage({s3.uri: StorageProfile(single_writer=True)}).probe(s3.uri)
    assert "replace_unchanged_only" not in caught.value.message


def test_an_inspection_reports_without_refusing(s3):
    s3.misbehave(ignore_if_match=True)
    report = Storage().inspect(s3.uri)
    assert [check.name for check in report.refused] == ["replace_unchanged_only", "replace_never_creates"]


def test_a_network_folder_with_another_clock_is_refused(tmp_path, monkeypatch):
    real = local_module._sync_folder

    def age(folder):
        for path in folder.iterdir():
            os.utime(path, (time.time() - 3600, time.time() - 3600))
        real(folder)

    monkeypatch.setattr(local_module, "_sync_folder", age)
    with pytest.raises(
        StorageError, match=r"clock: the store's clock is 3600 s behind this machine's; set the clock"
    ):
        Storage().probe(str(tmp_path))


def test_a_folder_that_does_not_exist_yet_is_made(tmp_path):
    root = join(str(tmp_path), "new", "root")
    Storage().probe(root)
    assert list((tmp_path / "new" / "root").iterdir()) == []
