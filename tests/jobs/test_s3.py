"""The same recipe with papers and artifacts in S3."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from mlflow import MlflowClient

from baltoro.core.artifacts import ArtifactStore
from baltoro.core.storage import Storage, StorageProfile, is_local
from baltoro.jobs.runner import plan
from baltoro.jobs.stages import Context
from baltoro.testing.papers import write_papers

pytestmark = [pytest.mark.jobs, pytest.mark.slow, pytest.mark.timeout(900)]

SHORT = ("pretrain.steps=6", "pretrain.epochs=1")


def verified(root_uri: str, summaries: dict[str, dict[str, Any]]) -> None:
    """Every artifact is whole, and its parents are found under its root."""
    store = ArtifactStore(Storage(), root_uri)
    for summary in summaries.values():
        artifact = store.open(summary["artifact"])
        store.verify(artifact)
        for parent in store.parents_of(artifact).values():
            assert parent.uri.startswith(root_uri)


def test_papers_and_artifacts_on_s3_give_a_registered_model(
    build, load_tiny, papers, s3, tracking_uri, tmp_path
):
    folder, truth = papers
    Storage().upload_folder(folder, f"{s3.uri}/papers")
    root = f"{s3.uri}/work space"
    overrides = ("name=onS3", f"storage.root={root}", f"corpus.sources.0.uri={s3.uri}/papers", *SHORT)
    built = build("pretrain", *overrides)

    assert built["corpus"]["papers_read"] == truth.records
    assert built["corpus"]["rejected"] == truth.reasons
    assert built["pretrain"]["loss_last"] < built["pretrain"]["loss_first"]
    assert built["pretrain"]["export"].startswith(root)
    version = MlflowClient(tracking_uri).get_model_version_by_alias("onS3", "candidate")
    assert version.source == built["pretrain"]["export"]
    verified(root, built)
    assert build("pretrain", *overrides) == built

    copy = tmp_path / "copied root"
    Storage().download_folder(root, copy)
    recipe = load_tiny("name=onS3", f"storage.root={copy}", f"corpus.sources.0.uri={folder}", *SHORT)
    planned = plan(Context(recipe), "pretrain")
    assert {entry.stage.name: entry.status for entry in planned} == dict.fromkeys(built, "done"), (
        "the same papers and artifacts elsewhere are the same"
    )
    artifacts = {entry.stage.name: {"artifact": entry.artifact.uri} for entry in planned}
    assert all(is_local(summary["artifact"]) for summary in artifacts.values())
    verified(str(copy), artifacts)

    export = copy / Path(version.source.removeprefix(f"{root}/"))
    script = (
        "import sys; from transformers import AutoModelForCausalLM as M, AutoTokenizer as T; "
        "m, t = M.from_pretrained(sys.argv[1]), T.from_pretrained(sys.argv[1]); "
        "print(m.generate(**t('The delta', return_tensors='pt'), max_new_tokens=4, min_new_tokens=4).shape)"
    )
    made = subprocess.run(
        [sys.executable, "-I", "-c", script, str(export)], capture_output=True, text=True, check=False
    )
    assert made.returncode == 0, made.stderr


def test_a_read_only_bucket_is_read_by_a_profile_of_its_own(
    build, s3, s3_server, credentials_file, monkeypatch, tmp_path
):
    import boto3

    folder = tmp_path / "papers"
    truth = write_papers(folder, 6, formats=("markdown", "jats"), broken=("empty",))
    Storage().upload_folder(folder, f"{s3.uri}/papers")
    iam = boto3.client("iam")
    iam.create_user(UserName=s3.bucket)
    statement = {
        "Effect": "Allow",
        "Action": ["s3:GetObject", "s3:ListBucket"],
        "Resource": ["arn:aws:s3:::*"],
    }
    iam.put_user_policy(
        UserName=s3.bucket,
        PolicyName="read",
        PolicyDocument=json.dumps({"Version": "2012-10-17", "Statement": [statement]}),
    )
    key = iam.create_access_key(UserName=s3.bucket)["AccessKey"]
    credentials_file.write_text(
        f"[reader]\naws_access_key_id={key['AccessKeyId']}\naws_secret_access_key={key['SecretAccessKey']}\n"
    )
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(credentials_file))
    monkeypatch.delenv("AWS_ENDPOINT_URL")
    profile = StorageProfile(endpoint_url=s3_server, region="us-east-1", credentials_profile="reader")
    with s3.checking_rights():
        # Neither this process nor a worker can read the papers in any other way.
        built = build(
            "corpus",
            "name=profiled",
            f"storage.root={tmp_path / 'root'}",
            f"corpus.sources.0.uri={s3.uri}/papers",
            f"storage.profiles={json.dumps({s3.uri: profile.model_dump(exclude_defaults=True)})}",
        )
    assert built["corpus"]["kept"] == len(truth.marks)
    assert built["corpus"]["rejected"] == {"empty_file": 1}
