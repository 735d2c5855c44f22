"""Builds that are killed at any point go on where they stopped and give the same bytes."""

import os
import random
import subprocess
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from baltoro.core.artifacts import ArtifactStore
from baltoro.core.storage import Storage
from baltoro.testing.collections import Plan, write_collection
from baltoro.testing.commands import Commands, kill

pytestmark = [pytest.mark.jobs, pytest.mark.slow, pytest.mark.timeout(3600)]

PAPERS = Plan(240, words=200, exact_fraction=0.04, edited_fraction=0.04)
BUILDS, KILLS_PER_BUILD = 2, 10
KINDS = ("group", "group", "driver", "group", "worker")
TASKS_AT_ONCE, FILES_PER_TASK = 3, 4
LONGEST_RUN_SECONDS = 900
SEED = 11
KINDS_OF_ARTIFACTS = ("corpus", "tokenizer", "tokens")


@dataclass
class Watch:
    """What appears of artifacts under a storage root while builds run, looked at every few milliseconds."""

    root: Path
    written: dict[Path, int] = field(default_factory=dict)
    latest: Path | None = None
    rewritten: list[Path] = field(default_factory=list)

    def look(self) -> int:
        """Note new and rewritten files; returns how many there have been."""
        for folder, _, names in os.walk(self.root):
            for name in names:
                path = Path(folder, name)
                if name.startswith(".") or path.relative_to(self.root).parts[0] not in KINDS_OF_ARTIFACTS:
                    continue
                try:
                    modified = path.stat().st_mtime_ns
                except FileNotFoundError:
                    continue
                if path not in self.written:
                    self.latest = path
                elif self.written[path] != modified:
                    self.rewritten.append(path)
                self.written[path] = modified
        return len(self.written)

    def place(self) -> str:
        """The pass that wrote last."""
        return "start" if self.latest is None else self.pass_of(self.latest)

    def pass_of(self, path: Path) -> str:
        """The pass that wrote a file: its folders but name, fingerprint and writer."""
        kind, _, _, *rest = path.relative_to(self.root).parts[:-1]
        return "/".join([kind, *rest[1:]])


@pytest.fixture
def commands() -> Iterator[list[Commands]]:
    """Commands whose processes are gone after the test, whatever happens."""
    all_of_them: list[Commands] = []
    yield all_of_them
    for one in all_of_them:
        one.end()


def finish(command: Commands, process: subprocess.Popen[bytes], watch: Watch) -> None:
    """Wait until a command has ended by itself, and well."""
    assert command.wait(process, LONGEST_RUN_SECONDS, watch.look) == 0, command.tail()


def checksums(root: Path) -> dict[tuple[str, str], str]:
    """The sha256 of every data file below a root, by kind and name; each file is as its manifest says."""
    store = ArtifactStore(Storage(), str(root))
    sums = {}
    for kind in KINDS_OF_ARTIFACTS:
        (artifact,) = store.list(kind, "killed")
        store.verify(artifact)
        sums |= {(kind, file.name): file.sha256 for file in artifact.manifest.files}
    return sums


def test_twenty_kills_change_no_byte_and_redo_no_finished_work(recipe_file, tracking_uri, commands, tmp_path):
    write_collection(tmp_path / "papers", PAPERS, format="markdown")

    def commands_for(root: Path) -> Commands:
        settings = (
            "name=killed",
            f"tracking.uri={tracking_uri}",
            f"storage.root={root}",
            f"corpus.sources.0.uri={tmp_path / 'papers'}",
            "corpus.objects_per_task=8",
            "corpus.dedup={}",
            "cluster.workers=1",
            f"cluster.local_cpus={TASKS_AT_ONCE}",
            "pretrain.data.rows_per_shard=256",
            "pretrain.epochs=1",
        )
        commands.append(Commands(root.with_suffix(".log"), "tokens", "build", str(recipe_file), *settings))
        return commands[-1]

    calm = Watch(tmp_path / "calm")
    started = time.monotonic()
    command = commands_for(calm.root)
    finish(command, command.start(), calm)
    seconds = time.monotonic() - started
    expected = checksums(calm.root)
    files = calm.look()
    assert sum(name.startswith("documents/") for kind, name in expected if kind == "corpus") > 20
    assert not calm.rewritten

    chance = random.Random(SEED)
    total = BUILDS * KILLS_PER_BUILD
    points = [(number + chance.random()) / total for number in range(total)]
    hit: Counter[str] = Counter()
    kinds: Counter[str] = Counter()
    redone: Counter[str] = Counter()
    runs = 0
    for build in range(BUILDS):
        watch = Watch(tmp_path / f"killed {build}")
        command = commands_for(watch.root)
        process, runs = command.start(), runs + 1
        for number, point in enumerate(points[build::BUILDS]):
            # Half of the points are met by chance in time, too: between two files, or while Ray starts.
            wait_until = time.monotonic() + chance.uniform(0, 0.6)
            while watch.look() < point * files or time.monotonic() < wait_until:
                if process.poll() is not None:
                    break
                time.sleep(0.01)
            if process.poll() is not None:
                # It ended before the point was met; the next command finds everything done.
                assert process.returncode == 0, command.tail()
                process, runs = command.start(), runs + 1
                time.sleep(chance.uniform(0, 3))
            place = watch.place()
            what = kill(process, KINDS[number % len(KINDS)], chance)
            kinds[what] += 1
            hit[place] += 1
            if what != "worker":
                process, runs = command.start(), runs + 1
        finish(command, process, watch)
        redone.update(map(watch.pass_of, watch.rewritten))
        assert checksums(watch.root) == expected
    print(
        f"{total} kills ({dict(kinds)}) in {runs} runs of {BUILDS} builds; one undisturbed build takes "
        f"{seconds:.0f} s and writes {files} files; last writer before the kill: {dict(hit)}; "
        f"files written again: {dict(redone)}"
    )
    assert sum(hit.values()) == total == sum(kinds.values())
    assert len(hit) >= 5, "the kills are spread over the passes"
    assert redone.total() <= total * TASKS_AT_ONCE * FILES_PER_TASK
