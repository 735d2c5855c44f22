"""What local storage and S3 do alike."""

import hashlib
import pickle

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from baltoro.core.errors import InputError
from baltoro.core.storage import (
    AlreadyExistsError,
    ChangedError,
    MissingError,
    Storage,
    join,
)

ODD_KEYS = [
    "a b.txt",
    "ünïcode/日本.txt",
    "hash#tag?query",
    "100%/%20.txt",
    "plus+and&",
    "'quoted\"",
    "dots...x",
]


@pytest.fixture
def storage():
    return Storage()


def test_what_is_written_is_read_whole_and_in_ranges(storage, root):
    uri = join(root, "folder", "data.bin")
    etag = storage.write_bytes(uri, b"0123456789")
    assert storage.read_bytes(uri) == b"0123456789"
    assert storage.read_range(uri, 3, 4) == b"3456"
    assert storage.read_range(uri, 10, 0) == b""
    info = storage.stat(uri)
    assert (info.uri, info.key, info.size_bytes, info.etag) == (uri, "data.bin", 10, etag)
    assert storage.write_bytes(uri, b"new") != etag
    assert storage.read_bytes(uri) == b"new"


def test_content_that_was_not_meant_is_never_returned(storage, root):
    uri = join(root, "x")
    listed = storage.write_bytes(uri, b"as listed")
    assert storage.read_bytes(uri, etag=listed) == b"as listed"
    storage.write_bytes(uri, b"replaced")
    with pytest.raises(ChangedError, match=r"/x was replaced since it was listed or opened; run the command"):
        storage.read_bytes(uri, etag=listed)


def test_an_etag_is_the_same_in_every_store(storage, root):
    assert storage.write_bytes(join(root, "x"), b"content") == hashlib.md5(b"content").hexdigest()


def test_a_range_beyond_the_end_is_refused_not_shortened(storage, root):
    uri = join(root, "x")
    storage.write_bytes(uri, b"0123456789")
    with pytest.raises(InputError, match=r"/x has only 2 of the 5 bytes asked for from byte 8"):
        storage.read_range(uri, 8, 5)
    with pytest.raises(InputError, match=r"/x has only 0 of the 1 bytes asked for from byte 10"):
        storage.read_range(uri, 10, 1)
    with pytest.raises(InputError, match="both must be 0 or more"):
        storage.read_range(uri, -1, 1)


def test_what_is_missing_is_said_to_be_missing(storage, root, tmp_path):
    uri = join(root, "absent")
    for read in (storage.read_bytes, storage.open, lambda u: storage.read_range(u, 0, 1)):
        with pytest.raises(MissingError, match="absent does not exist; check the URI"):
            read(uri)
    with pytest.raises(MissingError, match="absent does not exist"):
        storage.download_file(uri, tmp_path / "x")
    assert list(tmp_path.glob("x")) == []
    with pytest.raises(MissingError, match="there is nothing to download under"):
        storage.download_folder(uri, tmp_path / "folder")
    assert storage.stat(uri) is None
    assert list(storage.list(uri)) == []
    assert storage.list_folders(uri) == ()
    storage.delete(uri)
    storage.delete_folder(uri)


def test_create_never_overwrites(storage, root):
    uri = join(root, "head.json")
    etag = storage.create(uri, b"first")
    with pytest.raises(AlreadyExistsError, match=r"head.json already exists and is never overwritten"):
        storage.create(uri, b"second")
    assert storage.read_bytes(uri) == b"first"
    assert storage.stat(uri).etag == etag


def test_replace_needs_the_content_that_was_read(storage, root):
    uri = join(root, "head.json")
    first = storage.create(uri, b"1")
    second = storage.replace(uri, b"2", etag=first)
    with pytest.raises(ChangedError, match=r"head.json was changed or removed by another writer"):
        storage.replace(uri, b"3", etag=first)
    assert storage.read_bytes(uri) == b"2"
    assert storage.stat(uri).etag == second
    storage.delete(uri)
    with pytest.raises(ChangedError, match="was changed or removed"):
        storage.replace(uri, b"4", etag=second)
    assert storage.stat(uri) is None


def test_listing_is_recursive_sorted_and_relative(storage, root):
    keys = ["a.txt", "a/b.txt", "a/c/d.txt", "b", "a!x", "Z", "é"]
    for key in keys:
        storage.write_bytes(join(root, key), key.encode())
    infos = list(storage.list(root))
    assert [info.key for info in infos] == sorted(keys, key=str.encode)
    assert [info.uri for info in infos] == [join(root, info.key) for info in infos]
    assert all(info.etag == hashlib.md5(info.key.encode()).hexdigest() for info in infos)
    assert [info.key for info in storage.list(join(root, "a"))] == ["b.txt", "c/d.txt"]
    assert [info.key for info in storage.list(join(root, "a.txt"))] == ["a.txt"]
    assert storage.list_folders(root) == ("a",)


def test_deleting_a_folder_leaves_its_neighbours(storage, root):
    for key in ("run/a", "run/b/c", "run-2/a", "runs"):
        storage.write_bytes(join(root, key), b"x")
    storage.delete_folder(join(root, "run"))
    assert [info.key for info in storage.list(root)] == ["run-2/a", "runs"]


@pytest.mark.parametrize("key", ODD_KEYS)
def test_odd_names_round_trip(storage, root, key, tmp_path):
    uri = join(root, key)
    storage.create(uri, b"content")
    assert storage.read_bytes(uri) == b"content"
    assert [info.key for info in storage.list(root)] == [key]
    storage.download_file(uri, tmp_path / "copy" / key)
    assert (tmp_path / "copy" / key).read_bytes() == b"content"
    storage.delete(uri)
    assert storage.stat(uri) is None


segments = st.text(
    st.characters(exclude_categories=["Cs", "Cc"], exclude_characters="/"), min_size=1, max_size=20
).filter(lambda text: text not in (".", ".."))


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(segments, min_size=1, max_size=3), st.binary(max_size=2000))
def test_any_name_and_content_round_trip(storage, root, parts, content):
    folder = join(root, "any")
    uri = join(folder, *parts)
    etag = storage.write_bytes(uri, content)
    assert storage.read_bytes(uri) == content
    infos = list(storage.list(folder))
    assert [(info.key, info.size_bytes, info.etag) for info in infos] == [
        ("/".join(parts), len(content), etag)
    ]
    with storage.open(uri) as file:
        assert file.read() == content
    storage.delete_folder(folder)


def test_folders_round_trip(storage, root, tmp_path):
    source = tmp_path / "source"
    for number in range(40):
        path = source / f"part {number % 3}" / f"{number}.bin"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(bytes([number]) * number)
    storage.upload_folder(source, join(root, "copy"))
    storage.download_folder(join(root, "copy"), tmp_path / "back")
    read = {
        folder: {p.relative_to(folder): p.read_bytes() for p in folder.rglob("*") if p.is_file()}
        for folder in (source, tmp_path / "back")
    }
    assert len(read[source]) == 40
    assert read[source] == read[tmp_path / "back"]


def test_uploading_what_is_not_there_is_refused(storage, root, tmp_path):
    with pytest.raises(InputError, match=r"nothing is not a folder, so it cannot be uploaded to"):
        storage.upload_folder(tmp_path / "nothing", root)
    with pytest.raises(InputError, match=r"nothing"):
        storage.upload_file(tmp_path / "nothing", join(root, "x"))
    assert storage.stat(join(root, "x")) is None


def test_pyarrow_reads_parquet_at_random_positions(storage, root, tmp_path):
    table = pa.table({"row": list(range(5000)), "text": [f"text {n}" * 20 for n in range(5000)]})
    pq.write_table(table, tmp_path / "t.parquet", row_group_size=500)
    uri = join(root, "t.parquet")
    storage.upload_file(tmp_path / "t.parquet", uri)
    with storage.open(uri) as file:
        parquet = pq.ParquetFile(file)
        assert parquet.read_row_group(7).column("row").to_pylist() == list(range(3500, 4000))
        assert parquet.read().equals(table)


def test_an_opened_object_seeks_like_a_file(storage, root):
    uri = join(root, "x")
    storage.write_bytes(uri, b"0123456789")
    with storage.open(uri) as file:
        assert file.seekable()
        assert file.seek(-3, 2) == 7
        assert file.read() == b"789"
        assert file.read() == b""
        file.seek(2)
        assert file.read(3) == b"234"
        assert file.tell() == 5
        assert file.seek(100) == 100
        assert file.read() == b""


def test_storage_survives_pickling(storage, root):
    storage.write_bytes(join(root, "x"), b"1")
    assert pickle.loads(pickle.dumps(storage)).read_bytes(join(root, "x")) == b"1"


CREATE_RACE = """
from baltoro.core.storage import AlreadyExistsError, Storage, join
number, root = sys.argv[1:]
storage = Storage()
list(storage.list(root))
ready()
for key in range(30):
    try:
        storage.create(join(root, f"k{key}"), number.encode() * 1000)
        print(key)
    except AlreadyExistsError:
        pass
"""


def test_of_racing_processes_exactly_one_creates(storage, root, race):
    outputs = race(CREATE_RACE, root, processes=4)
    winners = {int(key): str(number) for number, text in enumerate(outputs) for key in text.split()}
    assert sum(len(text.split()) for text in outputs) == 30
    for key in range(30):
        assert storage.read_bytes(join(root, f"k{key}")) == winners[key].encode() * 1000


COUNT_RACE = """
from baltoro.core.storage import ChangedError, Storage, join
number, root = sys.argv[1:]
storage = Storage()
uri = join(root, "counter")
storage.stat(uri)
ready()
for _ in range(15):
    while True:
        etag = storage.stat(uri).etag
        value = storage.read_bytes(uri)
        try:
            storage.replace(uri, str(int(value) + 1).encode(), etag=etag)
            break
        except ChangedError:
            pass
"""


def test_racing_replaces_lose_no_update(storage, root, race):
    storage.create(join(root, "counter"), b"0")
    race(COUNT_RACE, root, processes=3)
    assert storage.read_bytes(join(root, "counter")) == b"45"


THREADS_RACE_KEYS = 20


def test_of_racing_threads_exactly_one_creates(storage, root):
    from concurrent.futures import ThreadPoolExecutor

    def create(key):
        try:
            storage.create(join(root, f"k{key}"), b"x")
        except AlreadyExistsError:
            return 0
        return 1

    with ThreadPoolExecutor(8) as pool:
        wins = list(pool.map(create, list(range(THREADS_RACE_KEYS)) * 4))
    assert sum(wins) == THREADS_RACE_KEYS
