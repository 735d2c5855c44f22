"""Provenance says who and what made a result, and is honest about what it does not know."""

import hashlib
import platform
import subprocess

import pytest

from baltoro.core import provenance
from baltoro.core.provenance import collect_provenance, git_state, lock_digest


def git(folder, *arguments):
    identity = ["-c", "user.name=t", "-c", "user.email=t@example.org", "-c", "commit.gpgsign=false"]
    subprocess.run(["git", "-C", str(folder), *identity, *arguments], check=True, capture_output=True)


@pytest.fixture
def checkout(tmp_path):
    git(tmp_path, "init")
    (tmp_path / "code.py").write_text("x = 1\n")
    (tmp_path / ".gitignore").write_text(".venv/\n")
    git(tmp_path, "add", "code.py", ".gitignore")
    git(tmp_path, "commit", "-m", "first")
    return tmp_path


def head_of(folder):
    return subprocess.check_output(["git", "-C", str(folder), "rev-parse", "HEAD"], text=True).strip()


def test_a_clean_checkout_gives_its_commit(checkout):
    assert git_state(checkout / "code.py") == (head_of(checkout), False)


def test_a_changed_file_makes_it_dirty(checkout):
    (checkout / "code.py").write_text("x = 2\n")
    assert git_state(checkout / "code.py") == (head_of(checkout), True)


def test_a_new_file_makes_it_dirty(checkout):
    (checkout / "new.py").write_text("y = 1\n")
    assert git_state(checkout / "code.py")[1] is True


def test_code_installed_inside_somebody_elses_checkout_has_no_commit(checkout):
    installed = checkout / ".venv" / "package" / "code.py"
    installed.parent.mkdir(parents=True)
    installed.write_text("x = 1\n")
    assert git_state(installed) == (None, None)


def test_outside_a_checkout_there_is_no_commit(tmp_path):
    (tmp_path / "code.py").write_text("x = 1\n")
    assert git_state(tmp_path / "code.py") == (None, None)


def test_without_git_there_is_no_commit(checkout, monkeypatch):
    monkeypatch.setenv("PATH", "/nowhere")
    assert git_state(checkout / "code.py") == (None, None)


def test_a_git_hooks_variables_do_not_mislead(checkout, tmp_path_factory, monkeypatch):
    other = tmp_path_factory.mktemp("other")
    git(other, "init")
    monkeypatch.setenv("GIT_DIR", str(other / ".git"))
    assert git_state(checkout / "code.py")[1] is False


def test_the_lock_is_found_above_and_digested(tmp_path):
    folder = tmp_path / "a" / "b"
    folder.mkdir(parents=True)
    assert lock_digest([folder]) == "unknown"
    (tmp_path / "requirements.lock").write_bytes(b"numpy==2\n")
    assert lock_digest([folder]) == hashlib.sha256(b"numpy==2\n").hexdigest()
    (folder / "requirements.lock").write_bytes(b"nearer")
    assert lock_digest([folder]) == hashlib.sha256(b"nearer").hexdigest()


def test_the_environment_names_submitter_and_image(monkeypatch):
    monkeypatch.setenv("BALTORO_SUBMITTED_BY", "ada@laptop")
    monkeypatch.setenv("BALTORO_IMAGE_DIGEST", "sha256:0123")
    collected = collect_provenance()
    assert collected.submitted_by == "ada@laptop"
    assert collected.image_digest == "sha256:0123"
    assert collected.python == platform.python_version()
    assert collected.package_version != "unknown"


def test_without_the_environment_the_local_user_submitted(monkeypatch):
    monkeypatch.delenv("BALTORO_SUBMITTED_BY", raising=False)
    monkeypatch.delenv("BALTORO_IMAGE_DIGEST", raising=False)
    monkeypatch.setattr(provenance.socket, "gethostname", lambda: "node7")
    monkeypatch.setattr(provenance.getpass, "getuser", lambda: "grace")
    collected = collect_provenance()
    assert collected.submitted_by == "grace@node7"
    assert collected.image_digest is None


def test_a_user_without_a_name_is_a_number(monkeypatch):
    def unknown():
        raise KeyError("getpwuid(): uid not found: 12345")

    monkeypatch.delenv("BALTORO_SUBMITTED_BY", raising=False)
    monkeypatch.setattr(provenance.getpass, "getuser", unknown)
    monkeypatch.setattr(provenance.os, "getuid", lambda: 12345)
    assert collect_provenance().submitted_by.startswith("12345@")
