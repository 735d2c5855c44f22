"""An audit looks at what a run would be resumed or used from, not at its ledger alone."""

import hashlib
from dataclasses import replace

import pytest

from baltoro.checkpoint.head import Finished, Head, PublishedCheckpoint, RunIdentity
from baltoro.checkpoint.marker import MARKER_FILE, FileRecord, Marker
from baltoro.checkpoint.state import TrainState
from baltoro.core.storage import Storage
from baltoro.jobs.verify.audit import find_lost_files

FOLDER, WEIGHTS = "checkpoints/step-00000004-attempt-0001", b"weights" * 100


@pytest.fixture
def run(tmp_path):
    """A finished run of one checkpoint, and its head."""
    folder = tmp_path / FOLDER
    folder.mkdir(parents=True)
    (folder / "__0_0.distcp").write_bytes(WEIGHTS)
    marker = Marker(TrainState(step=4), 1, 1, None, 0.1, {"__0_0.distcp": FileRecord.of(WEIGHTS)}).encode()
    (folder / MARKER_FILE).write_bytes(marker)
    (tmp_path / "export").mkdir()
    (tmp_path / "export" / "config.json").write_text("{}")
    published = PublishedCheckpoint(4, 100, 1, FOLDER, hashlib.sha256(marker).hexdigest())
    head = Head(RunIdentity("c", ("d",)), checkpoints=(published,), finished=Finished(4, "export", "digest"))
    return tmp_path, head


def lost(run):
    folder, head = run
    return find_lost_files(Storage(), str(folder), head)


def test_a_whole_run_has_lost_nothing(run):
    assert lost(run) == []
    assert lost((run[0], replace(run[1], checkpoints=(), finished=None))) == []


def test_a_flipped_bit_of_the_newest_checkpoint_is_found(run):
    file = run[0] / FOLDER / "__0_0.distcp"
    file.write_bytes(b"W" + WEIGHTS[1:])
    (finding,) = lost(run)
    assert finding.startswith(str(file))
    assert "is damaged: its SHA-256 is another than checkpoint.json says" in finding


def test_a_checkpoint_that_is_gone_is_found(run):
    (run[0] / FOLDER / MARKER_FILE).unlink()
    (finding,) = lost(run)
    assert finding.endswith("checkpoint.json: is missing")


def test_an_export_that_the_head_names_must_be_there(run):
    (run[0] / "export" / "config.json").unlink()
    (finding,) = lost(run)
    assert finding.endswith("export: is missing; the head names it as the finished export")
