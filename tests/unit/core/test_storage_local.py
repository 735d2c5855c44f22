"""Local files: whole or absent after a crash, and every refusal of the system in one sentence."""

import errno
import os
import shutil
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from baltoro.core.errors import InputError, StorageError
from baltoro.core.storage import AlreadyExistsError, Storage, StorageProfile
from baltoro.core.storage import local as local_module


@pytest.fixture
def storage():
    return Storage()


def run_script(script: str, *arguments: str, wrapper: tuple[str, ...] = ()) -> subprocess.CompletedProcess:
    prologue = (
        "import os, sys\nfrom baltoro.core.errors import BaltoroError\nfrom baltoro.core.storage import *\n"
    )
    return subprocess.run(
        [*wrapper, sys.executable, "-c", prologue + script, *arguments],
        check=False,
        capture_output=True,
        text=True,
        timeout=60,
    )


CRASH = """
from baltoro.core.storage import local
local.os.fsync = lambda _: os._exit(9)
getattr(Storage(), sys.argv[2])(sys.argv[1], b"half" * 10_000)
"""


@pytest.mark.parametrize("method", ["create", "write_bytes"])
def test_a_crash_while_writing_leaves_nothing_visible(storage, tmp_path, method):
    target = tmp_path / "root" / "manifest.json"
    assert run_script(CRASH, str(target), method).returncode == 9
    assert storage.stat(str(target)) is None
    assert list(storage.list(str(tmp_path))) == []
    storage.create(str(target), b"whole")
    assert target.read_bytes() == b"whole"


def test_a_crash_while_overwriting_keeps_the_old_content(tmp_path):
    target = tmp_path / "x"
    target.write_bytes(b"old")
    assert run_script(CRASH, str(target), "write_bytes").returncode == 9
    assert target.read_bytes() == b"old"


def test_a_lock_dies_with_its_holder(storage, tmp_path):
    target = str(tmp_path / "head.json")
    etag = storage.create(target, b"1")
    script = """
from pathlib import Path
from baltoro.core.storage import local
with local._locked(Path(sys.argv[1])):
    os._exit(9)
"""
    assert run_script(script, target).returncode == 9
    storage.replace(target, b"2", etag=etag)
    assert storage.read_bytes(target) == b"2"


def test_without_hard_links_a_create_still_never_overwrites(storage, tmp_path, monkeypatch):
    def refuse(*_):
        raise OSError(errno.EPERM, "Operation not permitted")

    monkeypatch.setattr(local_module.os, "link", refuse)
    target = str(tmp_path / "x")
    storage.create(target, b"first")
    with pytest.raises(AlreadyExistsError, match="already exists"):
        storage.create(target, b"second")
    assert storage.read_bytes(target) == b"first"


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="/dev/full is a Linux device")
@pytest.mark.parametrize("method", ["create", "write_bytes"])
def test_a_full_disk_is_named_with_what_to_do(storage, tmp_path, monkeypatch, method):
    monkeypatch.setattr(local_module, "_open_new", lambda path: os.open("/dev/full", os.O_WRONLY))
    target = str(tmp_path / "x")
    with pytest.raises(
        StorageError,
        match=r"cannot write .*/x: No space left on device; the disk or quota is full: free some space",
    ):
        getattr(storage, method)(target, b"content")
    assert not Path(target).exists()


def test_a_really_full_disk_leaves_no_half_file(tmp_path):
    script = """
import ctypes, pathlib
libc = ctypes.CDLL(None, use_errno=True)
if libc.mount(b"none", sys.argv[1].encode(), b"tmpfs", 0, b"size=65536"):
    sys.exit(77)
storage, root = Storage(), sys.argv[1]
storage.write_bytes(join(root, "small"), b"1" * 1000)
try:
    storage.write_bytes(join(root, "large"), b"1" * 100_000)
except BaltoroError as error:
    print(type(error).__name__, error)
print(os.listdir(root))
"""
    if shutil.which("unshare") is None:
        pytest.skip("needs unshare to mount a small disk")
    done = run_script(script, str(tmp_path), wrapper=("unshare", "--user", "--map-root-user", "--mount"))
    if done.returncode == 77 or "unshare:" in done.stderr:
        pytest.skip("this system does not allow mounting a small disk in a namespace")
    assert done.returncode == 0, done.stderr
    assert "StorageError cannot write" in done.stdout
    assert "the disk or quota is full" in done.stdout
    assert "['small']" in done.stdout


def test_a_file_size_limit_is_named(tmp_path):
    script = """
import resource
resource.setrlimit(resource.RLIMIT_FSIZE, (5000, 5000))
try:
    Storage().write_bytes(sys.argv[1], b"1" * 100_000)
except BaltoroError as error:
    print(type(error).__name__, error)
"""
    done = run_script(script, str(tmp_path / "x"))
    assert done.stdout.startswith("StorageError cannot write"), done.stderr
    assert "`ulimit -f` allows no larger file" in done.stdout
    assert list(tmp_path.iterdir()) == []


AS_ORDINARY_USER = """
if os.geteuid() == 0:
    os.setuid(65534)
try:
    getattr(Storage(), sys.argv[1])(*[a if i == 0 else a.encode() for i, a in enumerate(sys.argv[2:])])
except BaltoroError as error:
    print(type(error).__name__, error)
"""


@pytest.fixture
def open_folder(tmp_path_factory):
    import tempfile

    folder = Path(tempfile.mkdtemp(prefix="baltoro-test-"))
    folder.chmod(0o755)
    yield folder
    folder.chmod(0o755)
    shutil.rmtree(folder)


def test_a_folder_one_may_not_write_is_named(open_folder):
    open_folder.chmod(0o555)
    done = run_script(AS_ORDINARY_USER, "create", str(open_folder / "x"), "content")
    assert done.stdout.startswith(
        f"StorageError cannot write {open_folder}/x: Permission denied; give this user the"
    )
    done = run_script(AS_ORDINARY_USER, "probe", str(open_folder))
    assert done.stdout.startswith(f"StorageError cannot write {open_folder}/.baltoro-probe-"), done.stderr
    assert "Permission denied" in done.stdout


def test_a_file_one_may_not_read_is_named(open_folder):
    secret = open_folder / "secret"
    secret.write_bytes(b"x")
    secret.chmod(0)
    done = run_script(AS_ORDINARY_USER, "read_bytes", str(secret))
    assert done.stdout.startswith(
        f"InputError cannot read {secret}: Permission denied; give this user the right to"
    )


def test_a_file_in_the_place_of_a_folder_is_named(storage, tmp_path):
    (tmp_path / "file").write_bytes(b"x")
    with pytest.raises(StorageError, match=r"cannot write .*/file/x: .*; a part of the path is a file"):
        storage.create(str(tmp_path / "file" / "x"), b"1")
    with pytest.raises(
        InputError, match=r"cannot read .*: Is a directory; it is a folder where a file is expected"
    ):
        storage.read_bytes(str(tmp_path))


def test_too_long_a_name_is_named(storage, tmp_path):
    with pytest.raises(StorageError, match=r"File name too long; shorten the name"):
        storage.write_bytes(str(tmp_path / ("n" * 300)), b"1")


def test_links_are_followed_but_not_in_circles(storage, tmp_path):
    papers, elsewhere = tmp_path / "papers", tmp_path / "elsewhere"
    papers.mkdir()
    elsewhere.mkdir()
    (elsewhere / "a.txt").write_bytes(b"x")
    (papers / "link").symlink_to(elsewhere)
    (papers / "same").symlink_to(elsewhere)
    assert [info.key for info in storage.list(str(papers))] == ["link/a.txt", "same/a.txt"]
    (elsewhere / "up").symlink_to(papers)
    with pytest.raises(
        InputError, match="is a link to a folder above itself, so it has no end; remove the link"
    ):
        list(storage.list(str(papers)))


def test_a_dangling_link_is_named_not_skipped(storage, tmp_path):
    (tmp_path / "gone.xml").symlink_to(tmp_path / "nowhere")
    with pytest.raises(
        InputError, match=r"gone.xml is a link to .*/nowhere, which does not exist; repair or remove"
    ):
        list(storage.list(str(tmp_path)))


def test_a_name_that_is_not_utf8_is_named(storage, tmp_path):
    try:
        (Path(os.fsdecode(bytes(tmp_path) + b"/caf\xe9.txt"))).write_bytes(b"x")
    except OSError:
        pytest.skip("this file system only takes UTF-8 names")
    with pytest.raises(InputError, match=r"caf\\xe9.txt is not valid UTF-8; rename it"):
        list(storage.list(str(tmp_path)))


def test_own_temporary_and_lock_names_are_reserved_and_hidden(storage, tmp_path):
    etag = storage.create(str(tmp_path / "x"), b"1")
    storage.replace(str(tmp_path / "x"), b"2", etag=etag)
    assert any(path.name.startswith(".baltoro-lock-") for path in tmp_path.iterdir())
    assert [info.key for info in storage.list(str(tmp_path))] == ["x"]
    with pytest.raises(
        InputError, match=r"names starting with .baltoro-tmp- and .baltoro-lock- are reserved"
    ):
        storage.write_bytes(str(tmp_path / ".baltoro-tmp-x"), b"1")


def test_listing_without_etags_does_not_read_the_files(storage, tmp_path, monkeypatch):
    (tmp_path / "x").write_bytes(b"123")
    monkeypatch.setattr(local_module, "_md5_of_file", lambda path: pytest.fail("the content was read"))
    assert [(info.size_bytes, info.etag) for info in storage.list(str(tmp_path), with_etag=False)] == [
        (3, "")
    ]


def test_a_profile_for_a_local_path_is_refused():
    with pytest.raises(InputError, match=r"storage.profiles./data: a profile is for an s3:// prefix"):
        Storage({"/data": StorageProfile()})


def test_several_may_remove_one_folder_at_once(tmp_path):
    storage = Storage()
    for number in range(10):
        folder = tmp_path / f"staging-{number}"
        for part in range(60):
            (folder / f"p{part % 6}").mkdir(parents=True, exist_ok=True)
            (folder / f"p{part % 6}" / f"{part}.parquet").touch()
        with ThreadPoolExecutor(4) as pool:
            for removal in [pool.submit(storage.delete_folder, str(folder)) for _ in range(4)]:
                removal.result()
        assert not folder.exists()


def test_a_folder_that_may_not_be_removed_is_an_error(tmp_path, monkeypatch):
    (tmp_path / "folder").mkdir()

    def refuse(path, *, dir_fd=None):
        raise PermissionError(errno.EACCES, "Permission denied", path)

    monkeypatch.setattr(os, "rmdir", refuse)
    with pytest.raises(StorageError, match=r"cannot delete .*folder: Permission denied"):
        Storage().delete_folder(str(tmp_path / "folder"))
