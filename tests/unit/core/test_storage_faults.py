"""An S3 server that throttles, breaks off, stalls and sends the wrong bytes changes nothing but the time."""

import pytest

from baltoro.core.errors import BaltoroError
from baltoro.core.storage import Storage, StorageProfile, join
from baltoro.core.storage import s3 as s3_module

FAULTS = (
    "slow_down",
    "reset",
    "lost",
    "truncate",
    "slow",
    "stall",
    "other_range",
    "short_range",
    "no_range",
)
CONTENT = bytes(range(256)) * (6 << 12)


@pytest.fixture(autouse=True)
def _small_and_quick(monkeypatch):
    monkeypatch.setattr(s3_module, "_LONGEST_WAIT_SECONDS", 0.05)
    monkeypatch.setattr(s3_module, "MULTIPART_THRESHOLD_BYTES", 1 << 20)
    monkeypatch.setattr(s3_module, "_PART_BYTES", 5 << 20)
    # What a client may still retry depends on what it met before.
    monkeypatch.setattr(s3_module, "_clients", {})


@pytest.mark.slow
@pytest.mark.parametrize("fault", FAULTS)
def test_a_fifth_of_requests_going_wrong_changes_no_byte(s3, fault, tmp_path):
    (tmp_path / "large").write_bytes(CONTENT)
    storage = Storage({"s3://": StorageProfile(read_timeout_seconds=0.4)})
    s3.misbehave(rates={fault: 0.5 if fault.endswith("_range") else 0.2}, seed=1, stall_seconds=1.0)
    uris = [join(s3.uri, "folder", f"{number}") for number in range(6)]
    for number, uri in enumerate(uris):
        written = CONTENT[: 1000 + number]
        etag = storage.create(uri, b"first") if number % 2 else storage.write_bytes(uri, b"first")
        storage.replace(uri, written, etag=etag)
        assert storage.read_bytes(uri) == written
        assert storage.read_range(uri, 10, 100) == CONTENT[10:110]
        with storage.open(uri) as file:
            file.seek(500)
            assert file.read() == written[500:]
        assert storage.stat(uri).size_bytes == len(written)
    assert [info.uri for info in storage.list(s3.uri)] == uris
    assert storage.list_folders(s3.uri) == ("folder",)
    large = join(s3.uri, "large")
    storage.upload_file(tmp_path / "large", large)
    storage.download_file(large, tmp_path / "back")
    assert (tmp_path / "back").read_bytes() == CONTENT
    storage.write_bytes(large, CONTENT[::-1])
    assert storage.read_bytes(large) == CONTENT[::-1]
    storage.delete_folder(join(s3.uri, "folder"))
    assert [info.key for info in storage.list(s3.uri)] == ["large"]
    counts = s3.counts()
    assert counts.get(fault, 0) >= 2, counts


@pytest.mark.parametrize("fault", [fault for fault in FAULTS if fault not in ("slow", "lost", "no_range")])
def test_a_fault_that_stays_is_one_error_that_names_object_and_setting(s3, fault):
    storage = Storage({"s3://": StorageProfile(read_timeout_seconds=0.2, max_attempts=2)})
    uri = join(s3.uri, "paper")
    storage.write_bytes(uri, CONTENT[:1000])
    s3.misbehave(rates={fault: 1.0}, stall_seconds=0.5)
    with pytest.raises(BaltoroError, match=rf"{uri}.*storage\.profiles") as caught:
        storage.read_range(uri, 100, 200)
    assert "max_attempts" in str(caught.value)
    requests = s3.counts()["requests"]
    assert requests == 2, "as often as the profile allows, and no more"


@pytest.mark.parametrize(
    "content_range",
    ["bytes 101-300/1000", "bytes 100-298/1000", "bytes 0-199/1000", "100-299", "bytes */1000"],
)
def test_a_range_labelled_as_another_is_not_taken(content_range):
    assert s3_module._range_of(b"x" * 200, content_range, 100, 200) is None


def test_a_range_is_taken_as_far_as_the_object_goes():
    assert s3_module._range_of(b"x" * 50, "bytes 100-149/150", 100, 200) == b"x" * 50
    assert s3_module._range_of(b"x" * 200, "bytes 100-299/*", 100, 200) == b"x" * 200
    assert s3_module._range_of(b"0123456789", None, 4, 3) == b"456"
