"""Artifacts exist when their manifest does; two writers cannot corrupt each other; a root can be moved."""

import hashlib
import json
import shutil
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from baltoro.core.artifacts import KINDS, ArtifactStore, Manifest, fingerprint_of
from baltoro.core.errors import ArtifactError, InputError, StorageError
from baltoro.core.storage import Storage, join
from baltoro.core.storage import s3 as s3_module

INPUTS = {"corpus.filters.min_words": 50, "stage_version": 1, "sources.papers": [["a.xml", 10, "e1"]]}


@pytest.fixture
def store(root):
    return ArtifactStore(Storage(), root)


def make(store, kind="corpus", name="geo", inputs=None, parents=None, content=b"rows"):
    inputs = INPUTS if inputs is None else inputs
    writer = store.begin(kind, name, fingerprint_of(inputs))
    writer.write_file("part-0.parquet", content, rows=3)
    return writer.publish(
        inputs=inputs, stage_version=1, parents=parents, counts={"documents": 3}, extra={"note": "x"}
    )


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=5,
)


@given(st.dictionaries(st.text(max_size=8), json_values, max_size=6), st.randoms())
def test_a_fingerprint_does_not_depend_on_the_order_of_keys(inputs, random):
    shuffled = list(inputs.items())
    random.shuffle(shuffled)
    assert fingerprint_of(dict(shuffled)) == fingerprint_of(inputs)


@given(st.dictionaries(st.text(max_size=8), json_values, min_size=1, max_size=6), json_values, st.data())
def test_a_fingerprint_changes_with_any_value(inputs, value, data):
    key = data.draw(st.sampled_from(sorted(inputs)))
    same = json.dumps(inputs[key], sort_keys=True) == json.dumps(value, sort_keys=True)
    assert (fingerprint_of({**inputs, key: value}) == fingerprint_of(inputs)) == same
    without = {k: v for k, v in inputs.items() if k != key}
    assert fingerprint_of(without) != fingerprint_of(inputs)


def test_a_fingerprint_is_16_hex_digits_of_the_canonical_json():
    canonical = b'{"a":[1,2.5,null],"b":"\\u00e9"}'
    expected = hashlib.sha256(canonical).hexdigest()[:16]
    assert fingerprint_of({"b": "é", "a": (1, 2.5, None)}) == expected
    assert len({fingerprint_of({"x": value}) for value in (1, 1.0, True, "1", None, [1])}) == 6


def test_a_number_that_is_not_finite_has_no_fingerprint():
    with pytest.raises(ValueError, match="not JSON compliant"):
        fingerprint_of({"x": float("nan")})


def test_nothing_is_visible_before_it_is_published(store):
    fingerprint = fingerprint_of(INPUTS)
    writer = store.begin("corpus", "geo", fingerprint)
    writer.write_file("part-0.parquet", b"rows", rows=3)
    assert store.find("corpus", "geo", fingerprint) is None
    assert store.list("corpus") == ()
    assert store.latest("corpus", "geo") is None
    with pytest.raises(ArtifactError, match=r"is not a published artifact: there is no manifest\.json in it"):
        store.open(writer.artifact_uri)
    artifact = writer.publish(inputs=INPUTS, stage_version=1)
    assert store.find("corpus", "geo", fingerprint) == artifact
    assert store.list("corpus") == (artifact,)


def test_a_published_artifact_says_what_it_is(store, root):
    artifact = make(store)
    manifest = artifact.manifest
    fingerprint = fingerprint_of(INPUTS)
    assert artifact.uri == f"{root}/corpus/geo/{fingerprint}"
    assert artifact.relative_path == f"corpus/geo/{fingerprint}"
    assert (manifest.kind, manifest.name, manifest.fingerprint) == ("corpus", "geo", fingerprint)
    assert manifest.inputs == INPUTS
    assert manifest.counts == {"documents": 3}
    assert manifest.extra == {"note": "x"}
    assert manifest.made_by.package_version != ""
    assert manifest.created_at.endswith("+00:00")
    (file,) = artifact.files()
    assert file.name == "part-0.parquet"
    assert file.path.startswith("w-")
    assert (file.rows, file.bytes, file.sha256) == (3, 4, hashlib.sha256(b"rows").hexdigest())
    assert store.storage.read_bytes(artifact.uri_of("part-0.parquet")) == b"rows"
    assert artifact.files("part-") == (file,)
    assert artifact.files("other") == ()
    with pytest.raises(ArtifactError, match=r"has no file 'other'; it has part-0.parquet"):
        artifact.uri_of("other")


def test_an_artifact_opens_by_folder_manifest_or_relative_path(store):
    artifact = make(store)
    for name in (artifact.uri, artifact.uri + "/", artifact.uri + "/manifest.json", artifact.relative_path):
        assert store.open(name) == artifact
    assert ArtifactStore(Storage(), "/another/place").open(artifact.uri) == artifact


def test_what_is_no_artifact_is_refused(store, root):
    artifact = make(store)
    with pytest.raises(ArtifactError, match=r"is of kind corpus, but tokens is needed here"):
        store.open(artifact.uri, kind="tokens")
    for wrong in (root, join(root, "corpus", "geo"), join(root, "papers", "geo", "0" * 16)):
        with pytest.raises(
            ArtifactError, match=r"is not an artifact: its path must end in KIND/NAME/FINGERPRINT"
        ):
            store.open(wrong)
    with pytest.raises(
        ArtifactError, match=r"'paper' is not a kind of artifact; the kinds are corpus, tokenizer"
    ):
        store.list("paper")
    with pytest.raises(ArtifactError, match=r"'a/b' cannot name an artifact; use up to 128 letters"):
        store.begin("corpus", "a/b", "0" * 16)
    with pytest.raises(ArtifactError, match=r"'xyz' is not a fingerprint"):
        store.find("corpus", "geo", "xyz")


def test_a_damaged_manifest_is_named(store):
    artifact = make(store)
    uri = join(artifact.uri, "manifest.json")
    good = json.loads(store.storage.read_bytes(uri))
    store.storage.write_bytes(uri, b'{"kind": ')
    with pytest.raises(
        ArtifactError, match=r"manifest.json is not a manifest: .*; restore it or delete the folder"
    ):
        store.open(artifact.uri)
    store.storage.write_bytes(uri, json.dumps({**good, "files": 3}).encode())
    with pytest.raises(ArtifactError, match=r"manifest.json is not a manifest \(files: "):
        store.open(artifact.uri)
    store.storage.write_bytes(uri, json.dumps({**good, "schema_version": 99}).encode())
    with pytest.raises(
        ArtifactError, match=r"schema_version 99, made by a newer Baltoro; this one reads up to 1"
    ):
        store.open(artifact.uri)
    store.storage.write_bytes(uri, json.dumps({**good, "name": "other"}).encode())
    with pytest.raises(ArtifactError, match=r"describes corpus/other/.*; the folder was renamed"):
        store.open(artifact.uri)


def test_artifacts_are_listed_oldest_first(store):
    made = [make(store, inputs={"n": n}) for n in range(3)]
    other = make(store, name="bio")
    assert store.list("corpus", "geo") == tuple(made)
    assert store.list("corpus") == (*made, other)
    assert store.latest("corpus", "geo") == made[-1]
    assert store.list("tokens") == ()


def test_parents_resolve_in_a_copied_root(tmp_path):
    store = ArtifactStore(Storage(), str(tmp_path / "first"))
    corpus = make(store)
    tokens = make(store, kind="tokens", inputs={"corpus": corpus.fingerprint}, parents={"corpus": corpus})
    assert tokens.manifest.parents == {"corpus": corpus.relative_path}
    shutil.copytree(tmp_path / "first", tmp_path / "second")
    shutil.rmtree(tmp_path / "first")
    moved = ArtifactStore(Storage(), str(tmp_path / "second"))
    copy = moved.open(tokens.relative_path)
    moved.verify(copy)
    parent = moved.parents_of(copy)["corpus"]
    assert parent.manifest == corpus.manifest
    assert parent.uri.startswith(str(tmp_path / "second"))
    moved.verify(parent)


def test_a_root_copied_to_s3_works_there(tmp_path, s3):
    local = ArtifactStore(Storage(), str(tmp_path))
    corpus = make(local)
    tokens = make(local, kind="tokens", inputs={"n": 1}, parents={"corpus": corpus.relative_path})
    Storage().upload_folder(tmp_path, f"{s3.uri}/copy")
    remote = ArtifactStore(Storage(), f"{s3.uri}/copy")
    remote.verify(remote.parents_of(remote.open(tokens.relative_path))["corpus"])


def test_a_parent_outside_the_root_or_missing_is_refused(tmp_path):
    here, there = (ArtifactStore(Storage(), str(tmp_path / name)) for name in ("here", "there"))
    foreign = make(there)
    with pytest.raises(
        ArtifactError, match=r"the parent corpus \(.*\) lies outside the root .*/here; copy it there"
    ):
        make(here, kind="tokens", parents={"corpus": foreign})
    with pytest.raises(ArtifactError, match="is not a published artifact"):
        make(here, kind="tokens", parents={"corpus": foreign.relative_path})
    with pytest.raises(ArtifactError, match="is not relative to the root"):
        here.resolve_parent(foreign.uri)
    with pytest.raises(InputError, match="is refused"):
        here.resolve_parent(f"../there/{foreign.relative_path}")
    assert here.list("tokens") == ()


@pytest.mark.parametrize(
    ("damage", "named"),
    [
        (
            lambda storage, uri: storage.write_bytes(uri, b"r0ws"),
            r"part-0.parquet \(its content has another checksum\)",
        ),
        (lambda storage, uri: storage.write_bytes(uri, b"row"), r"part-0.parquet \(3 bytes instead of 4\)"),
        (lambda storage, uri: storage.delete(uri), r"part-0.parquet \(missing\)"),
    ],
)
def test_a_damaged_file_is_named(store, damage, named):
    artifact = make(store)
    store.verify(artifact)
    damage(store.storage, artifact.uri_of("part-0.parquet"))
    with pytest.raises(
        ArtifactError, match=rf"was damaged after it was published: w-[0-9a-f]+/{named}; restore it"
    ):
        store.verify(artifact)


def test_changed_inputs_in_a_manifest_are_noticed(store):
    artifact = make(store)
    uri = join(artifact.uri, "manifest.json")
    text = store.storage.read_bytes(uri).replace(
        b'"corpus.filters.min_words": 50', b'"corpus.filters.min_words": 51'
    )
    store.storage.write_bytes(uri, text)
    with pytest.raises(ArtifactError, match=r"manifest.json \(its inputs do not have its fingerprint\)"):
        store.verify(store.open(artifact.uri))


def test_what_made_a_stage_stale_is_named(store):
    make(store)
    new = {"corpus.filters.min_words": 80, "stage_version": 1.0, "corpus.dedup": "exact"}
    changes = store.explain_stale("corpus", "geo", new)
    assert [str(change) for change in changes] == [
        'corpus.dedup: "exact" (new)',
        "corpus.filters.min_words: 50 -> 80",
        'sources.papers: [["a.xml", 10, "e1"]] (not set now)',
        "stage_version: 1 -> 1.0",
    ]
    assert store.explain_stale("corpus", "geo", INPUTS) == ()
    assert store.explain_stale("corpus", "bio", INPUTS) == ()


def test_staleness_is_told_against_the_latest(store):
    make(store, inputs={"n": 1})
    make(store, inputs={"n": 2})
    assert [str(change) for change in store.explain_stale("corpus", "geo", {"n": 3})] == ["n: 2 -> 3"]


def test_a_second_writer_gets_the_first_ones_artifact_and_leaves_nothing(store):
    fingerprint = fingerprint_of(INPUTS)
    first, second = (store.begin("corpus", "geo", fingerprint) for _ in range(2))
    first.write_file("x", b"first")
    second.write_file("x", b"second")
    winner = first.publish(inputs=INPUTS, stage_version=1)
    assert second.publish(inputs=INPUTS, stage_version=1) == winner
    assert store.storage.read_bytes(winner.uri_of("x")) == b"first"
    assert [info.key for info in store.storage.list(winner.uri)] == ["manifest.json", winner.files()[0].path]


def test_an_abandoned_writer_leaves_nothing(store):
    with store.begin("corpus", "geo", fingerprint_of(INPUTS)) as writer:
        writer.write_file("deep/x", b"1")
    assert list(store.storage.list(store.root_uri)) == []
    with pytest.raises(ArtifactError, match="has already published or abandoned; begin a new one"):
        writer.publish(inputs=INPUTS, stage_version=1)


def test_an_error_in_the_block_abandons_and_publishing_keeps(store):
    def fail():
        with store.begin("corpus", "geo", fingerprint_of(INPUTS)) as writer:
            writer.write_file("x", b"1")
            raise RuntimeError

    with pytest.raises(RuntimeError):
        fail()
    assert list(store.storage.list(store.root_uri)) == []
    with store.begin("corpus", "geo", fingerprint_of(INPUTS)) as writer:
        writer.write_file("x", b"1")
        artifact = writer.publish(inputs=INPUTS, stage_version=1)
    writer.abandon()
    store.verify(artifact)


def test_a_publish_whose_answer_was_lost_is_the_own_one(s3, monkeypatch):
    monkeypatch.setattr(s3_module, "_LONGEST_WAIT_SECONDS", 0.01)
    store = ArtifactStore(Storage(), s3.uri)
    writer = store.begin("corpus", "geo", fingerprint_of(INPUTS))
    writer.write_file("x", b"1")
    s3.misbehave(lose_answers=1)
    artifact = writer.publish(inputs=INPUTS, stage_version=1)
    assert artifact.manifest.writer == writer.folder
    store.verify(artifact)


def test_files_stay_when_it_is_unknown_whether_they_were_published(s3):
    from baltoro.core.storage import StorageProfile

    store = ArtifactStore(Storage({s3.uri: StorageProfile(max_attempts=1)}), s3.uri)

    def build():
        with store.begin("corpus", "geo", fingerprint_of(INPUTS)) as writer:
            writer.write_file("x", b"1")
            s3.misbehave(lose_answers=1)
            writer.publish(inputs=INPUTS, stage_version=1)

    with pytest.raises(StorageError, match="said InternalError"):
        build()
    published = store.find("corpus", "geo", fingerprint_of(INPUTS))
    assert published is not None
    store.verify(published)


def test_only_the_fingerprinted_inputs_can_be_published(store):
    writer = store.begin("corpus", "geo", fingerprint_of(INPUTS))
    with pytest.raises(
        ArtifactError, match="publish exactly the inputs that were fingerprinted at the start"
    ):
        writer.publish(inputs={**INPUTS, "stage_version": 2}, stage_version=2)


def test_named_files_must_be_there_before_publishing(store):
    writer = store.begin("corpus", "geo", fingerprint_of(INPUTS))
    writer.add_file("x", rows=0, size_bytes=4, sha256="0" * 64)
    with pytest.raises(ArtifactError, match="/x was named but never written; write it before publishing"):
        writer.publish(inputs=INPUTS, stage_version=1)
    store.storage.write_bytes(writer.uri_for("x"), b"123")
    with pytest.raises(ArtifactError, match="/x has 3 bytes but was named with 4"):
        writer.publish(inputs=INPUTS, stage_version=1)
    with pytest.raises(ArtifactError, match="the file 'x' was added twice"):
        writer.add_file("x", rows=0, size_bytes=3, sha256="0" * 64)
    with pytest.raises(InputError, match="is refused"):
        writer.uri_for("../../manifest.json")
    assert store.find("corpus", "geo", fingerprint_of(INPUTS)) is None


def test_a_file_is_uploaded_with_its_checksum(store, tmp_path):
    (tmp_path / "big").write_bytes(b"x" * 100_000)
    writer = store.begin("model", "geo", fingerprint_of(INPUTS))
    writer.upload_file("weights/model.safetensors", tmp_path / "big", rows=0)
    artifact = writer.publish(inputs=INPUTS, stage_version=1)
    store.verify(artifact)
    assert artifact.files()[0].bytes == 100_000


def test_provenance_is_not_part_of_the_fingerprint(store, monkeypatch):
    monkeypatch.setenv("BALTORO_IMAGE_DIGEST", "sha256:abc")
    artifact = make(store)
    assert artifact.manifest.made_by.image_digest == "sha256:abc"
    assert artifact.fingerprint == fingerprint_of(INPUTS)


def test_a_manifest_survives_its_own_json(store):
    manifest = make(store).manifest
    assert Manifest.model_validate_json(manifest.model_dump_json()) == manifest


def test_the_kinds_are_those_of_the_design():
    assert KINDS == (
        "corpus",
        "tokenizer",
        "tokens",
        "instructions",
        "run",
        "adapter",
        "model",
        "evaluation",
        "certificate",
    )


PUBLISH_RACE = """
from baltoro.core.artifacts import ArtifactStore, fingerprint_of
from baltoro.core.storage import Storage
number, root = sys.argv[1:]
store = ArtifactStore(Storage(), root)
writers = []
for n in range(12):
    writer = store.begin("corpus", "geo", fingerprint_of({"n": n}))
    for part in range(3):
        writer.write_file(f"part-{part}", f"{number} {n} {part}".encode() * 100, rows=1)
    writers.append(writer)
ready()
for n, writer in enumerate(writers):
    artifact = writer.publish(inputs={"n": n}, stage_version=1)
    print(artifact.manifest.writer, artifact.manifest.writer == writer.folder)
"""


def test_of_racing_processes_one_publishes_and_all_go_on_with_it(store, root, race):
    outputs = [text.splitlines() for text in race(PUBLISH_RACE, root, processes=3)]
    published = {artifact.manifest.inputs["n"]: artifact for artifact in store.list("corpus", "geo")}
    assert sorted(published) == list(range(12))
    for n, artifact in published.items():
        answers = [lines[n].split() for lines in outputs]
        assert {writer for writer, _ in answers} == {artifact.manifest.writer}
        assert [own for _, own in answers].count("True") == 1
        store.verify(artifact)
        keys = [info.key for info in store.storage.list(artifact.uri)]
        assert keys == ["manifest.json", *[file.path for file in artifact.files()]]


def test_local_artifacts_leave_no_stray_folders(tmp_path):
    store = ArtifactStore(Storage(), str(tmp_path))
    first, second = (store.begin("corpus", "geo", fingerprint_of(INPUTS)) for _ in range(2))
    first.write_file("x", b"1")
    second.write_file("x", b"1")
    first.publish(inputs=INPUTS, stage_version=1)
    second.publish(inputs=INPUTS, stage_version=1)
    folder = Path(first.artifact_uri)
    assert sorted(path.name for path in folder.iterdir()) == ["manifest.json", first.folder]


def test_missing_and_shortened_files_are_named_by_one_listing(store):
    artifact, storage = make(store), store.storage
    store.check_files(artifact)
    victim = artifact.manifest.files[0]
    storage.write_bytes(artifact.uri_of(victim), b"")
    with pytest.raises(
        ArtifactError, match=r"was damaged after it was published: .* \(0 bytes instead of \d+\)"
    ):
        store.check_files(artifact)
    storage.delete(artifact.uri_of(victim))
    with pytest.raises(
        ArtifactError, match=r"\(missing\); restore it from a copy, or delete the folder and run"
    ):
        store.check_files(artifact)
