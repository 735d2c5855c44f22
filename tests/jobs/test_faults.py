"""Papers and artifacts on an S3 server that fails at one request in twenty: the same bytes come out."""

import json
from collections import Counter

import pytest

from baltoro.core.artifacts import ArtifactStore
from baltoro.core.errors import BaltoroError
from baltoro.core.storage import Storage
from baltoro.testing.collections import Plan, write_collection

pytestmark = [pytest.mark.jobs, pytest.mark.slow, pytest.mark.timeout(1800)]

FAULT_FRACTION = 0.05
PAPERS = Plan(150, words=150, exact_fraction=0.04, edited_fraction=0.04)
READ_FAULTS = ("truncate", "slow", "stall", "other_range", "short_range", "no_range")
MIXED = ("slow_down", "reset", "lost", *READ_FAULTS)


@pytest.fixture(scope="module")
def overrides(module_s3, tmp_path_factory):
    """The papers on the server, and the settings that lead there."""
    folder = tmp_path_factory.mktemp("papers")
    write_collection(folder, PAPERS, format="markdown")
    Storage().upload_folder(folder, f"{module_s3.uri}/papers")
    profile = {"read_timeout_seconds": 1.0, "max_attempts": 8}
    return (
        "name=faults",
        f"corpus.sources.0.uri={module_s3.uri}/papers",
        "corpus.objects_per_task=8",
        "corpus.dedup={}",
        "pretrain.data.rows_per_shard=256",
        "pretrain.epochs=1",
        f"storage.profiles={json.dumps({module_s3.uri: profile})}",
    )


def checksums(summaries):
    """The sha256 of every data file, by stage and name."""
    store = ArtifactStore(Storage(), "/")
    artifacts = {stage: store.open(summary["artifact"]) for stage, summary in summaries.items()}
    return {
        (stage, file.name): file.sha256
        for stage, artifact in artifacts.items()
        for file in artifact.manifest.files
    }, artifacts


@pytest.fixture(scope="module")
def undisturbed(build, module_s3, overrides):
    """What comes out of a server without faults."""
    sums, artifacts = checksums(build("tokens", f"storage.root={module_s3.uri}/calm", *overrides))
    assert artifacts["corpus"].manifest.counts["papers_read"] == PAPERS.papers
    assert artifacts["corpus"].manifest.counts["duplicates"] > 0
    assert sum(name.startswith("documents/") for stage, name in sums if stage == "corpus") > 10
    assert sum(name.startswith("train/") for stage, name in sums if stage == "tokens") > 2
    return sums


@pytest.mark.parametrize(
    ("name", "faults"),
    [
        ("throttling", ("slow_down",)),
        ("resets", ("reset",)),
        ("short bodies", ("truncate",)),
        ("slow bodies", ("slow", "stall")),
        ("everything", MIXED),
    ],
)
def test_faults_at_one_request_in_twenty_change_no_byte(
    build, module_s3, overrides, undisturbed, name, faults
):
    rates = dict.fromkeys(faults, FAULT_FRACTION / len(faults))
    if faults == MIXED:
        # Most requests are no reads of ranges, so that a small part of them all would be none.
        rates |= dict.fromkeys(("other_range", "short_range", "no_range"), FAULT_FRACTION)
    module_s3.misbehave(rates=rates, seed=5, stall_seconds=2.0)
    try:
        summaries = build("tokens", f"storage.root={module_s3.uri}/{name}", *overrides)
        counts = Counter(module_s3.counts())
    finally:
        module_s3.misbehave()
    sums, artifacts = checksums(summaries)
    print(f"{name}: {dict(counts)}")
    assert sums == undisturbed
    for artifact in artifacts.values():
        ArtifactStore(Storage(), artifact.root_uri).verify(artifact)
    assert counts["requests"] > 500
    assert all(counts[fault] for fault in faults), counts
    happened = sum(counts[fault] for fault in faults)
    assert happened > 0.02 * counts["requests"], counts


def test_a_server_that_stays_broken_ends_the_build_with_the_object_and_the_setting(
    build, module_s3, overrides
):
    module_s3.misbehave(rates={"truncate": 1.0})
    two = f"storage.profiles={json.dumps({module_s3.uri: {'max_attempts': 2}})}"
    try:
        with pytest.raises(BaltoroError, match=rf"{module_s3.uri}.*max_attempts") as caught:
            build("corpus", f"storage.root={module_s3.uri}/never", *overrides, two)
    finally:
        module_s3.misbehave()
    assert len(str(caught.value)) < 600
