"""Which corpus a snapshot continues, and when it may not."""

import io

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from baltoro.core.artifacts import ArtifactStore, fingerprint_of
from baltoro.core.errors import ArtifactError, ConfigError
from baltoro.core.storage import Storage
from baltoro.corpus.config import CorpusConfig, SourceConfig
from baltoro.corpus.listing import list_source
from baltoro.corpus.passes.build import LISTING_SCHEMA
from baltoro.jobs.extend import BASE, CORPUS_VERSION, corpus_settings, differing, extend, part_chain


@pytest.fixture
def papers(tmp_path):
    folder = tmp_path / "papers"
    folder.mkdir()
    for name in ("a", "b", "c"):
        (folder / f"{name}.md").write_text(f"# Paper {name}\n\nText.\n")
    return folder


@pytest.fixture
def store(tmp_path):
    return ArtifactStore(Storage(), str(tmp_path / "root"))


def source(folder, name="s", **settings):
    return SourceConfig(name=name, uri=str(folder), **settings)


def inputs_of(*sources, **settings):
    found = corpus_settings(CorpusConfig(sources=sources, **settings), Storage())
    return {**found, "stage.version": CORPUS_VERSION}


def publish(store, listings, inputs, base=None, name="geo"):
    """Publish a corpus that read these files, as far as extending it goes."""
    arriving = {f"corpus.sources.{i}.listing": listing.digest() for i, listing in enumerate(listings)}
    inputs = {**inputs, **arriving} | ({"parents.base": base.fingerprint} if base else {})
    place = sum(
        file.rows for part in (part_chain(store, base) if base else ()) for file in part.files("objects")
    )
    rows = []
    for listing in listings:
        for entry in listing.objects:
            row = {"source": listing.source.name, "key": entry.key, "uri": entry.uri}
            rows.append({**row, "place": place, "size_bytes": entry.size_bytes, "etag": entry.etag})
            place += 1
    sink = io.BytesIO()
    pq.write_table(pa.Table.from_pylist(rows, schema=LISTING_SCHEMA), sink)
    writer = store.begin("corpus", name, fingerprint_of(inputs))
    writer.write_file("objects.parquet", sink.getvalue(), rows=len(rows))
    parents = {BASE: base} if base else {}
    return writer.publish(
        inputs=inputs, stage_version=CORPUS_VERSION, parents=parents, counts={"kept": len(rows)}
    )


def extension(store, listings, inputs, extends="latest"):
    return extend(
        extends=extends, store=store, storage=store.storage, name="geo", inputs=inputs, listings=listings
    )


def listing_of(folder, name="s", **settings):
    return list_source(0, source(folder, name, **settings), Storage())


def keys(found):
    return [[entry.key for entry in listing.objects] for listing in found.listings]


def test_without_a_corpus_the_first_part_is_built(store, papers):
    assert extension(store, [listing_of(papers)], inputs_of(source(papers))) is None


def test_only_what_arrived_or_changed_is_read(store, papers):
    first = publish(store, [listing_of(papers)], inputs_of(source(papers)))
    (papers / "b.md").write_text("# Paper b\n\nAnother text.\n")
    (papers / "c.md").unlink()
    (papers / "d.md").write_text("# Paper d\n\nText.\n")
    found = extension(store, [listing_of(papers)], inputs_of(source(papers)))
    assert found.base == first
    assert keys(found) == [["b.md", "d.md"]]
    figures = found.figures()
    assert (figures["objects_new"], figures["objects_changed"]) == (1, 1)
    assert (figures["objects_unchanged"], figures["objects_gone"]) == (1, 1)
    assert figures["documents"] == 3
    assert not found.nothing_new


def test_parts_are_chained_and_the_newest_state_of_a_file_counts(store, papers):
    inputs = inputs_of(source(papers))
    first = publish(store, [listing_of(papers)], inputs)
    (papers / "b.md").write_text("# Paper b\n\nAnother text.\n")
    changed = extension(store, [listing_of(papers)], inputs)
    second = publish(store, changed.listings, inputs, base=first)
    assert part_chain(store, second) == (first, second)
    found = extension(store, [listing_of(papers)], inputs)
    assert found.base == second
    assert found.nothing_new
    assert found.earlier.objects == 4


def test_a_new_source_arrives_whole_and_one_left_out_stays(store, papers, tmp_path):
    publish(store, [listing_of(papers)], inputs_of(source(papers)))
    more = tmp_path / "more"
    more.mkdir()
    (more / "z.md").write_text("# Paper z\n\nText.\n")
    found = extension(store, [listing_of(more, "t")], inputs_of(source(more, "t")))
    assert keys(found) == [["z.md"]]
    assert found.figures()["objects_of_other_sources"] == 3
    assert found.figures()["objects_gone"] == 0


def test_another_evaluation_set_is_refused_in_one_line(store, papers, tmp_path):
    publish(store, [listing_of(papers)], inputs_of(source(papers)))
    exam = tmp_path / "exam.jsonl"
    exam.write_text('{"question": "Which mineral is the hardest of the scale?"}\n')
    new = inputs_of(source(papers), decontaminate={"sets": [{"name": "exam", "uri": str(exam)}]})
    with pytest.raises(ConfigError) as error:
        extension(store, [listing_of(papers)], new)
    assert "corpus.decontaminate.sets.0: another evaluation set, or with other content" in error.value.message
    assert error.value.message.count("decontaminate") == 1


def test_other_settings_are_refused_by_name(store, papers):
    publish(store, [listing_of(papers)], inputs_of(source(papers)))
    other = inputs_of(source(papers), filters={"min_characters": 77})
    with pytest.raises(ConfigError) as error:
        extension(store, [listing_of(papers)], other)
    assert "corpus.filters.min_characters" in error.value.message
    assert "77" in error.value.message
    assert "set corpus.extends to null to build the whole corpus anew" in error.value.message


def test_the_newest_corpus_with_the_same_settings_is_continued(store, papers):
    inputs = inputs_of(source(papers))
    mine = publish(store, [listing_of(papers)], inputs)
    publish(store, [listing_of(papers)], inputs_of(source(papers), filters={"min_characters": 77}))
    assert extension(store, [listing_of(papers)], inputs).base == mine


def test_a_source_with_another_style_is_refused(store, papers, tmp_path):
    publish(store, [listing_of(papers)], inputs_of(source(papers)))
    changed = inputs_of(source(papers, style="galactica"))
    with pytest.raises(ConfigError, match=r'corpus\.sources\[s\]\.style: "k2" -> "galactica"'):
        extension(store, [listing_of(papers)], changed)
    added = inputs_of(source(papers), source(papers, "t", style="galactica"))
    with pytest.raises(ConfigError, match=r'corpus\.sources\[t\]\.style: "k2" -> "galactica"'):
        extension(store, [listing_of(papers)], added)


def test_what_is_named_must_be_a_corpus_under_the_root(store, papers, tmp_path):
    inputs = inputs_of(source(papers))
    with pytest.raises(ArtifactError, match=r"corpus\.extends: .*not an artifact.*or set it to 'latest'"):
        extension(store, [listing_of(papers)], inputs, extends=str(papers))
    elsewhere = ArtifactStore(Storage(), str(tmp_path / "other"))
    other = publish(elsewhere, [listing_of(papers)], inputs)
    with pytest.raises(ArtifactError, match=r"lies outside storage\.root"):
        extension(store, [listing_of(papers)], inputs, extends=other.uri)


def test_a_part_that_lost_a_file_is_refused(store, papers):
    inputs = inputs_of(source(papers))
    first = publish(store, [listing_of(papers)], inputs)
    store.storage.delete(first.uri_of("objects.parquet"))
    with pytest.raises(ArtifactError, match=r"objects\.parquet \(missing\)"):
        extension(store, [listing_of(papers)], inputs)


def test_the_same_settings_differ_in_nothing_whatever_papers_they_read(papers):
    one = inputs_of(source(papers)) | {"corpus.sources.0.listing": "a", "corpus.sources.0.objects": 1}
    two = inputs_of(source(papers)) | {"corpus.sources.0.listing": "b", "parents.base": "f" * 16}
    assert differing(one, two) == []


def test_a_trial_extends_nothing(papers):
    with pytest.raises(ValueError, match=r"corpus\.extends: latest together with corpus\.trial"):
        CorpusConfig(sources=(source(papers),), extends="latest", trial={"limit": 3})
