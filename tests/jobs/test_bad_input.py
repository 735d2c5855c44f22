"""Whatever is wrong with the input: a reject with its reason, or one clear error; never a traceback."""

import io
import json
import re
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from click.testing import CliRunner, Result

from baltoro.cli import main
from baltoro.core.artifacts import ArtifactStore
from baltoro.core.storage import Storage
from baltoro.testing.papers import BROKEN, write_papers

pytestmark = [pytest.mark.jobs, pytest.mark.timeout(900)]

Invoke = Callable[..., Result]


@pytest.fixture
def root(tmp_path) -> Path:
    return tmp_path / "root"


@pytest.fixture
def some_papers(tmp_path) -> Path:
    write_papers(tmp_path / "papers", 4, formats=("markdown",))
    return tmp_path / "papers"


@pytest.fixture
def baltoro(recipe_file, tracking_uri, root) -> Invoke:
    """Run the command line in this process: ``baltoro("corpus build", "corpus.sources.0.uri=…")``."""

    def run(command: str, *overrides: str) -> Result:
        settings = [f"tracking.uri={tracking_uri}", f"storage.root={root}", *overrides]
        return CliRunner().invoke(main, [*command.split(), str(recipe_file), *settings])

    return run


def check_error(text: str, *expected: str) -> None:
    """One error with everything expected in it, and nothing that a library printed."""
    assert "Traceback" not in text
    assert not re.search(r"\b(INFO|WARNING|ERROR)\b.*\.py:\d+", text), text
    assert text.count("error: ") == 1, text
    message = text.partition("error: ")[2]
    for part in expected:
        assert part in message


def check_refused(result: Result, *expected: str) -> None:
    assert isinstance(result.exception, SystemExit), result.exception
    assert result.exit_code == 2
    assert result.stdout == ""
    check_error(result.stderr, *expected)


def test_a_folder_without_files_is_refused(baltoro, tmp_path):
    (tmp_path / "empty").mkdir()
    result = baltoro("run", f"corpus.sources.0.uri={tmp_path / 'empty'}")
    check_refused(result, f"corpus.sources.0.uri: {tmp_path / 'empty'} holds no files", "give a folder")


def test_a_missing_folder_is_refused(baltoro, tmp_path):
    result = baltoro("run", f"corpus.sources.0.uri={tmp_path / 'nowhere'}")
    check_refused(result, f"corpus.sources.0.uri: {tmp_path / 'nowhere'}", "give a folder")


def test_a_folder_of_pdfs_is_answered_with_the_commands_that_parse_them(baltoro, tmp_path):
    folder = tmp_path / "pdfs"
    write_papers(folder, 1, formats=("markdown",), broken=("pdf",))
    shutil.copy(folder / "broken-unparsed.pdf", folder / "another.pdf")
    result = baltoro("run", f"corpus.sources.0.uri={folder}")
    check_refused(result, "2 of 3 files are PDFs", "grobid_client --input", "nougat ", "docling ")


def test_a_missing_bucket_of_papers_is_refused(baltoro, s3):
    result = baltoro("run", "corpus.sources.0.uri=s3://no-such-bucket/papers")
    check_refused(result, "bucket 'no-such-bucket' does not exist at http://127.0.0.1", "endpoint_url")


def test_a_missing_bucket_to_write_to_is_refused(baltoro, s3, some_papers):
    result = baltoro("run", f"corpus.sources.0.uri={some_papers}", "storage.root=s3://no-such-bucket/work")
    check_refused(result, "bucket 'no-such-bucket' does not exist", "create it")


def test_denied_credentials_are_named(baltoro, s3, some_papers, monkeypatch):
    import boto3

    Storage().upload_folder(some_papers, f"{s3.uri}/papers")
    iam = boto3.client("iam")
    iam.create_user(UserName=s3.bucket)
    key = iam.create_access_key(UserName=s3.bucket)["AccessKey"]
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", key["AccessKeyId"])
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", key["SecretAccessKey"])
    with s3.checking_rights():
        reading = baltoro("run", f"corpus.sources.0.uri={s3.uri}/papers")
        writing = baltoro("run", f"corpus.sources.0.uri={some_papers}", f"storage.root={s3.uri}/work")
    check_refused(
        reading, f"cannot list {s3.uri}/papers", "AccessDenied", "AWS_ACCESS_KEY_ID: allow them s3:ListBucket"
    )
    check_refused(writing, f"cannot write {s3.uri}/work", "AccessDenied", "allow them s3:PutObject")


def test_what_only_the_workers_may_not_read_is_one_error(baltoro, ray_session, s3, some_papers, monkeypatch):
    import boto3

    Storage().upload_folder(some_papers, f"{s3.uri}/papers")
    iam = boto3.client("iam")
    iam.create_user(UserName=s3.bucket)
    policy = {"Effect": "Allow", "Action": "s3:*", "Resource": "arn:aws:s3:::*"}
    iam.put_user_policy(
        UserName=s3.bucket,
        PolicyName="all",
        PolicyDocument=json.dumps({"Version": "2012-10-17", "Statement": [policy]}),
    )
    key = iam.create_access_key(UserName=s3.bucket)["AccessKey"]
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", key["AccessKeyId"])
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", key["SecretAccessKey"])
    with s3.checking_rights():
        result = baltoro("corpus build", f"corpus.sources.0.uri={s3.uri}/papers")
    check_refused(result, f"cannot read {s3.uri}/papers/paper-0000.md", "said InvalidAccessKeyId")


def test_only_broken_files_are_refused_with_their_reasons(baltoro, ray_session, tmp_path, root):
    kinds = ("truncated_xml", "empty", "binary_xml")
    write_papers(tmp_path / "broken", 0, broken=kinds)
    result = baltoro("corpus build", f"corpus.sources.0.uri={tmp_path / 'broken'}")
    check_refused(
        result,
        "none of the 3 records of corpus.sources can be used: 1 binary, 1 empty_file, 1 malformed_xml",
        "broken-truncated.tei.xml: malformed_xml (line 2",
    )
    assert not [path for path in root.rglob("*") if path.is_file() and "w-" in str(path)], "left behind"


def test_every_kind_of_broken_file_is_accounted_for(baltoro, ray_session, tmp_path, root):
    truth = write_papers(
        tmp_path / "papers", 8, formats=("markdown", "nougat"), duplicates=1, broken=tuple(BROKEN)
    )
    result = baltoro("corpus build", f"corpus.sources.0.uri={tmp_path / 'papers'}", "--json")
    assert result.exit_code == 0, result.stderr
    built = json.loads(result.stdout)
    assert built["papers_read"] == truth.records
    assert built["kept"] == len(truth.marks)
    assert built["rejected"] == truth.reasons
    assert built["duplicates"]["exact"] == 1
    assert built["papers_read"] == built["kept"] + sum(built["rejected"].values()) + sum(
        built["duplicates"].values()
    )

    artifact = ArtifactStore(Storage(), str(root)).open(built["artifact"])
    rows = [
        row
        for file in artifact.files("documents/")
        for row in pq.read_table(io.BytesIO(Storage().read_bytes(artifact.uri_of(file)))).to_pylist()
    ]
    texts = {row["paper_id"].removeprefix("papers/"): row["text"] for row in rows}
    assert texts.keys() == truth.marks.keys()
    assert all(mark in texts[key] for key, mark in truth.marks.items())
    loop = texts["odd-loop-and-missing-pages.mmd"]
    assert "MISSING_PAGE" not in loop
    assert loop.count("the dyke swarm of the eastern margin") == 1
    assert len(texts["odd-one-line-of-5-MB.txt"]) > 5_000_000
    assert "\0" not in "".join(texts.values())


def test_too_few_logical_cpus_are_refused_not_waited_for(
    command, recipe_file, tracking_uri, root, some_papers
):
    process = command(
        "pretrain",
        str(recipe_file),
        f"tracking.uri={tracking_uri}",
        f"storage.root={root}",
        f"corpus.sources.0.uri={some_papers}",
        "cluster.local_cpus=1",
        environment={"RAY_ADDRESS": ""},
    )
    output, errors = process.communicate(timeout=300)
    assert (process.returncode, output) == (2, "")
    check_error(errors, "cluster.local_cpus: 1 is too few for cluster.workers=2", "give at least 4")


def test_a_cluster_that_is_too_small_is_refused(baltoro, ray_session, some_papers):
    result = baltoro(
        "run", f"corpus.sources.0.uri={some_papers}", "cluster.workers=8", "pretrain.micro_batch=1"
    )
    check_refused(result, "has 6 logical CPUs, cluster.workers=8 needs 10", "lower cluster.workers")


@pytest.mark.parametrize(
    ("overrides", "expected"),
    [
        (
            ["pretrain.global_batch_tokens=500"],
            "global_batch_tokens=500 is not a multiple of sequence_length=64",
        ),
        (["cluster.workers=3"], "which 3 data ranks × micro_batch 2 = 6 rows do not divide"),
        (["pretrain.micro_batch=3"], "which 2 data ranks × micro_batch 3 = 6 rows do not divide"),
    ],
)
def test_a_batch_that_does_not_divide_is_refused_before_anything_is_built(
    baltoro, some_papers, root, overrides, expected
):
    result = baltoro("run", f"corpus.sources.0.uri={some_papers}", *overrides)
    check_refused(result, expected, "global_batch_tokens")
    assert not list(root.glob("corpus/*"))


def test_more_steps_than_the_dataset_has_are_refused(baltoro, ray_session, some_papers):
    result = baltoro("run", f"corpus.sources.0.uri={some_papers}", "pretrain.steps=5000")
    check_refused(result, "5000 steps of 8 rows need 40000 rows, the dataset has", "raise epochs")


@pytest.mark.parametrize("kind", ["a file for a folder", "no database", "no server"])
def test_a_tracking_store_that_cannot_be_used_is_refused(
    baltoro, some_papers, root, tmp_path, monkeypatch, kind
):
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    (tmp_path / "file").write_text("not a database, and long enough to be told from an empty one " * 20)
    uri = {
        "a file for a folder": f"sqlite:///{tmp_path}/file/mlflow.db",
        "no database": f"sqlite:///{tmp_path}/file",
        "no server": "http://127.0.0.1:9",
    }[kind]
    result = baltoro("run", f"corpus.sources.0.uri={some_papers}", f"tracking.uri={uri}")
    check_refused(result, f"tracking.uri: the MLflow store at {uri} cannot be used", "MLFLOW_TRACKING_URI")
    assert not list(root.glob("corpus/*")), "the store is tried before anything is built"


@pytest.mark.slow
@pytest.mark.parametrize(("target", "size"), [("corpus build", "48k"), ("pretrain", "1m")])
def test_a_disk_that_fills_is_one_error(built, command, recipe_file, tracking_uri, tmp_path, target, size):
    root = tmp_path / "small disk"
    root.mkdir()
    before = tmp_path / "before"
    before.mkdir()
    if target == "pretrain":
        built.copy_untrained(before)
    # Mounted in a namespace of the command's own, which takes no rights and leaves nothing behind.
    enter = ["unshare", "--user", "--map-root-user", "--mount", "sh", "-c"]
    mount = f'mount -t tmpfs -o size={size} none "$0"'
    try:
        subprocess.run([*enter, mount, str(root)], check=True, capture_output=True)
    except (OSError, subprocess.CalledProcessError):
        pytest.skip("a small disk needs Linux with user namespaces")
    process = command(
        *(*target.split(), str(recipe_file), "--no-parents", f"storage.root={root}", built.overrides[1]),
        f"tracking.uri={tracking_uri}",
        prefix=[*enter, f'{mount} && cp -r "$1/." "$0" && shift && exec "$@"', str(root), str(before)],
        environment={"RAY_ADDRESS": ""},
    )
    output, errors = process.communicate(timeout=600)
    assert (process.returncode, output) == (2, ""), errors
    check_error(errors, "No space left on device", "the disk or quota is full: free some space")
