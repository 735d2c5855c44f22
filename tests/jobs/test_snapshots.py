"""Papers arrive, a snapshot adds them: earlier sequences stay, so does the tokenizer; training reads all."""

import shutil

import numpy as np
import pyarrow.parquet as pq
import pytest

from baltoro.core.artifacts import ArtifactStore
from baltoro.core.errors import ConfigError
from baltoro.core.storage import Storage
from baltoro.data.shards import TokenDataset
from baltoro.jobs.explain import explain_paper
from baltoro.jobs.extend import part_chain
from baltoro.jobs.runner import plan
from baltoro.jobs.stages import Context
from baltoro.jobs.tokens import check_prefix, parts_of, split_files
from baltoro.testing.papers import make_paper, markdown

pytestmark = [pytest.mark.jobs, pytest.mark.timeout(900)]

EXTEND = "corpus.extends=latest"


@pytest.fixture(scope="module")
def snapshot(build, tmp_path_factory):
    """A first part of 20 papers, and a second of six new ones, a copy of an old one and a broken file."""
    folder, root = tmp_path_factory.mktemp("papers"), tmp_path_factory.mktemp("root")
    overrides = (f"storage.root={root}", f"corpus.sources.0.uri={folder}")
    for index in range(20):
        (folder / f"{index:02}.md").write_text(markdown(make_paper(index)))
    first = build("tokens", *overrides)
    for index in range(20, 26):
        (folder / f"{index:02}.md").write_text(markdown(make_paper(index)))
    shutil.copy(folder / "03.md", folder / "copy.md")
    (folder / "empty.md").write_text("")
    second = build("tokens", EXTEND, *overrides)
    store = ArtifactStore(Storage(), str(root))
    return overrides, first, second, store


def rows_of(store, summary, split="train"):
    tokens = store.open(summary["tokens"]["artifact"])
    with TokenDataset.open(
        split_files(part_chain(store, tokens), split), store.storage, verify=True
    ) as dataset:
        return dataset.read_rows(0, len(dataset))


def test_only_what_is_new_is_read_and_counted(snapshot):
    _, first, second, _ = snapshot
    assert first["corpus"]["papers_read"] == first["corpus"]["kept"] == 20
    corpus = second["corpus"]
    assert (corpus["papers_read"], corpus["kept"]) == (8, 6)
    assert corpus["duplicates"] == {"exact": 1, "version": 0, "near": 0}
    assert corpus["rejected"] == {"empty_file": 1}
    assert corpus["documents"] == 26
    extends = corpus["extends"]
    assert (extends["objects_new"], extends["objects_unchanged"]) == (8, 20)
    assert (extends["documents"], extends["older_versions_kept"]) == (20, 0)


def test_the_tokenizer_is_that_of_the_first_part(snapshot):
    _, first, second, _ = snapshot
    assert first["tokenizer"]["artifact"] == second["tokenizer"]["artifact"]


def test_earlier_sequences_keep_their_places(snapshot):
    _, first, second, store = snapshot
    for split in ("train", "validation"):
        before, after = rows_of(store, first, split), rows_of(store, second, split)
        assert len(after) >= len(before)
        assert np.array_equal(after.input_ids[: len(before)], before.input_ids)
        for one, other in zip(before.paper_index, after.paper_index, strict=False):
            assert one.tolist() == other.tolist()
    old, new = (store.open(summary["tokens"]["artifact"]) for summary in (first, second))
    check_prefix(parts_of(old), parts_of(new))


def test_paper_index_goes_on_over_the_parts(snapshot):
    _, _, second, store = snapshot
    names = []
    for part in part_chain(store, store.open(second["tokens"]["artifact"])):
        with store.storage.open(part.uri_of("papers.parquet")) as file:
            names += pq.read_table(file).column("paper_id").to_pylist()
    assert len(names) == len(set(names)) == 26
    rows = [rows_of(store, second, split) for split in ("train", "validation")]
    used = np.concatenate([index for part in rows for index in part.paper_index])
    assert set(used.tolist()) == set(range(26))


def test_nothing_new_means_nothing_to_do(snapshot, load_tiny):
    overrides, _, second, _ = snapshot
    planned = plan(Context(load_tiny(EXTEND, *overrides)), "tokens")
    assert [(entry.key, entry.status) for entry in planned] == [
        ("corpus", "done"),
        ("tokenizer", "done"),
        ("tokens, part 1", "done"),
        ("tokens", "done"),
    ]
    assert planned[-1].artifact.uri == second["tokens"]["artifact"]


def test_a_pinned_snapshot_is_read_with_its_parts(snapshot, load_tiny):
    overrides, _, second, _ = snapshot
    pinned = f"pins.corpus={second['corpus']['artifact']}"
    planned = plan(Context(load_tiny(pinned, *overrides)), "tokens")
    assert planned[-1].artifact.uri == second["tokens"]["artifact"]


def test_explain_finds_papers_of_every_part(snapshot, load_tiny):
    overrides, first, second, _ = snapshot
    context = Context(load_tiny(EXTEND, *overrides))
    found = {name: explain_paper(context, f"papers/{name}.md")["built"] for name in ("03", "23", "copy")}
    assert found["03"] == f"kept in {first['corpus']['artifact']}"
    assert found["23"] == f"kept in {second['corpus']['artifact']}"
    assert found["copy"] == "gave way to papers/03.md of an earlier part as its exact copy"


def test_token_budgets_are_about_the_whole_and_refused(snapshot, load_tiny):
    overrides, _, _, _ = snapshot
    budget = "pretrain.data.mixture.sources={papers: {tokens: 1000}}"
    with pytest.raises(ConfigError, match=r"corpus\.extends"):
        plan(Context(load_tiny(EXTEND, budget, *overrides)), "tokens")


def test_training_reads_all_parts(snapshot, build):
    overrides, first, _, _ = snapshot
    trained = build("pretrain", EXTEND, "pretrain.steps=4", *overrides)
    assert trained["pretrain"]["steps"] == 4
    assert trained["tokens"]["tokens"] > first["tokens"]["tokens"]
