"""S3: retries, short bodies, conditional writes whose answer is lost, and every refusal in one sentence."""

import contextlib
import datetime
import json
import socket
import threading
import time

import pytest
from pydantic import ValidationError

from baltoro.core.errors import InputError, StorageError
from baltoro.core.storage import (
    AlreadyExistsError,
    ChangedError,
    MissingError,
    Storage,
    StorageProfile,
    join,
)
from baltoro.core.storage import s3 as s3_module
from baltoro.jobs.verify.outage import door_to


@pytest.fixture(autouse=True)
def _no_long_waits(monkeypatch):
    monkeypatch.setattr(s3_module, "_LONGEST_WAIT_SECONDS", 0.01)


def quick(prefix: str = "s3://", **options) -> Storage:
    """Storage that gives up after two tries."""
    return Storage({prefix: StorageProfile(**{"max_attempts": 2, "connect_timeout_seconds": 2, **options})})


def test_a_body_that_ends_early_is_fetched_again(s3):
    uri = join(s3.uri, "x")
    Storage().write_bytes(uri, b"0123456789" * 1000)
    s3.misbehave(truncate_reads=2)
    assert Storage().read_bytes(uri) == b"0123456789" * 1000
    s3.misbehave(truncate_reads=1)
    assert Storage().read_range(uri, 5, 100) == (b"0123456789" * 11)[5:105]
    s3.misbehave(truncate_reads=1)
    with Storage().open(uri) as file:
        assert file.read() == b"0123456789" * 1000


def test_a_body_that_always_ends_early_is_an_error_never_data(s3):
    uri = join(s3.uri, "x")
    quick().write_bytes(uri, b"0123456789" * 1000)
    s3.misbehave(truncate_reads=10)
    with pytest.raises(
        StorageError,
        match=r"/x: the body ended early \(.*\), 2 times; the object is not used: .*raise max_attempts",
    ):
        quick().read_bytes(uri)


def test_a_download_that_ends_early_leaves_no_file(s3, tmp_path):
    uri = join(s3.uri, "x")
    quick().write_bytes(uri, b"0123456789" * 1000)
    s3.misbehave(truncate_reads=100)
    with pytest.raises(StorageError, match=r"s3://.*/x: the body ended early"):
        quick().download_file(uri, tmp_path / "x")
    assert list(tmp_path.iterdir()) == []
    s3.misbehave(truncate_reads=1)
    quick().download_file(uri, tmp_path / "x")
    assert (tmp_path / "x").read_bytes() == b"0123456789" * 1000


def test_throttling_is_retried_within_bounds(s3):
    uri = join(s3.uri, "x")
    s3.misbehave(slow_down=2)
    Storage().write_bytes(uri, b"1")
    s3.misbehave(slow_down=100)
    with pytest.raises(
        StorageError, match=r"cannot write .*/x: .* said SlowDown: Please reduce your request rate"
    ):
        quick().write_bytes(uri, b"2")
    s3.misbehave()
    assert Storage().read_bytes(uri) == b"1"


def test_a_create_whose_answer_was_lost_is_known_as_the_own_one(s3):
    uri = join(s3.uri, "manifest.json")
    s3.misbehave(lose_answers=1)
    etag = Storage().create(uri, b"mine")
    assert Storage().stat(uri).etag == etag
    s3.misbehave(lose_answers=1)
    with pytest.raises(AlreadyExistsError):
        Storage().create(uri, b"theirs")
    assert Storage().read_bytes(uri) == b"mine"


def test_a_replace_whose_answer_was_lost_is_known_as_the_own_one(s3):
    uri = join(s3.uri, "head.json")
    etag = Storage().create(uri, b"1")
    s3.misbehave(lose_answers=1)
    second = Storage().replace(uri, b"2", etag=etag)
    assert Storage().stat(uri).etag == second
    with pytest.raises(ChangedError):
        Storage().replace(uri, b"3", etag=etag)


def test_a_conflict_with_a_concurrent_write_is_tried_again(s3):
    uri = join(s3.uri, "x")
    s3.misbehave(conflicts=2)
    Storage().create(uri, b"1")
    s3.misbehave(conflicts=100)
    with pytest.raises(StorageError, match="said ConditionalRequestConflict: Try again"):
        quick().create(join(s3.uri, "y"), b"1")


def test_listing_reads_every_page(s3):
    storage = Storage()
    keys = [f"page/{number:02d}" for number in range(11)]
    for key in keys:
        storage.write_bytes(join(s3.uri, key), b"x")
        storage.write_bytes(join(s3.uri, f"f{key[-2:]}", "y"), b"x")
    s3.misbehave(page_size=3)
    assert [info.key for info in storage.list(join(s3.uri, "page"))] == [key[5:] for key in keys]
    assert storage.list_folders(s3.uri) == (*[f"f{key[-2:]}" for key in keys], "page")


def test_a_drawn_folder_is_not_an_object(s3):
    s3.client.put_object(Bucket=s3.bucket, Key="folder/", Body=b"")
    s3.client.put_object(Bucket=s3.bucket, Key="folder/x", Body=b"1")
    assert [info.key for info in Storage().list(s3.uri)] == ["folder/x"]


def test_a_prefix_does_not_match_half_a_name(s3):
    Storage().write_bytes(join(s3.uri, "papers-private", "x"), b"1")
    assert list(Storage().list(join(s3.uri, "papers"))) == []


def test_large_files_travel_in_parts(s3, tmp_path, monkeypatch):
    monkeypatch.setattr(s3_module, "MULTIPART_THRESHOLD_BYTES", 1 << 20)
    monkeypatch.setattr(s3_module, "_PART_BYTES", 5 << 20)
    content = bytes(range(256)) * (6 << 12)
    (tmp_path / "large").write_bytes(content)
    storage = Storage()
    uri = join(s3.uri, "large")
    storage.upload_file(tmp_path / "large", uri)
    assert s3.client.head_object(Bucket=s3.bucket, Key="large")["ETag"].endswith('-2"')
    storage.download_file(uri, tmp_path / "back")
    assert (tmp_path / "back").read_bytes() == content
    etag = storage.write_bytes(uri, content + b"!")
    assert etag == storage.stat(uri).etag
    assert storage.read_bytes(uri) == content + b"!"


def test_an_object_replaced_while_it_is_read_is_noticed(s3):
    storage = Storage()
    uri = join(s3.uri, "x")
    storage.write_bytes(uri, b"a" * (3 << 20))
    with storage.open(uri) as file:
        assert file.read(10) == b"a" * 10
        storage.write_bytes(uri, b"b" * (3 << 20))
        file.seek(2 << 20)
        with pytest.raises(
            ChangedError, match="was replaced since it was listed or opened; run the command again"
        ):
            file.read(10)


def test_a_key_that_would_leave_the_folder_is_not_downloaded(s3, tmp_path):
    s3.client.put_object(Bucket=s3.bucket, Key="data//escape", Body=b"x")
    with pytest.raises(InputError, match=r"the name '/escape' under s3://.*/data is refused"):
        Storage().download_folder(join(s3.uri, "data"), tmp_path / "target")
    assert not (tmp_path / "target").exists()


@pytest.mark.parametrize(
    "attempt",
    [
        lambda storage, uri: storage.read_bytes(uri),
        lambda storage, uri: storage.open(uri),
        lambda storage, uri: storage.stat(uri),
        lambda storage, uri: list(storage.list(uri)),
        lambda storage, uri: storage.list_folders(uri),
        lambda storage, uri: storage.write_bytes(uri, b"1"),
        lambda storage, uri: storage.create(uri, b"1"),
        lambda storage, uri: storage.replace(uri, b"1", etag="0"),
        lambda storage, uri: storage.upload_file(__file__, uri),
        lambda storage, uri: storage.probe(uri),
    ],
)
def test_a_missing_bucket_is_named_whatever_is_asked(s3, attempt):
    with pytest.raises(
        MissingError, match=r"bucket 'no-such-bucket' does not exist at http://.*; create it, correct"
    ):
        attempt(quick(), "s3://no-such-bucket/key")


def test_denied_credentials_are_named(s3, monkeypatch):
    import boto3

    uri = join(s3.uri, "x")
    Storage().write_bytes(uri, b"1")
    iam = boto3.client("iam")
    iam.create_user(UserName=s3.bucket)
    key = iam.create_access_key(UserName=s3.bucket)["AccessKey"]
    with s3.checking_rights():
        monkeypatch.setenv("AWS_ACCESS_KEY_ID", key["AccessKeyId"])
        monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", key["SecretAccessKey"])
        with pytest.raises(
            InputError,
            match=r"cannot read .*/x: .* said AccessDenied: .*; access is denied to the credentials in",
        ):
            quick().read_bytes(uri)
        with pytest.raises(StorageError, match=r"cannot write .*AccessDenied.*allow them s3:PutObject"):
            quick().create(join(s3.uri, "y"), b"1")
        with pytest.raises(InputError, match=r"cannot list .*AccessDenied.*allow them s3:ListBucket"):
            list(quick().list(s3.uri))
        with pytest.raises(StorageError, match="AccessDenied"):
            quick().probe(s3.uri)
        monkeypatch.setenv("AWS_ACCESS_KEY_ID", "AKIAUNKNOWNUNKNOWN00")
        with pytest.raises(
            InputError, match=r"said InvalidAccessKeyId: .*; the credentials in AWS_ACCESS_KEY_ID are"
        ):
            quick().read_bytes(uri)


def test_missing_credentials_are_named(s3, monkeypatch):
    monkeypatch.delenv("AWS_ACCESS_KEY_ID")
    monkeypatch.delenv("AWS_SECRET_ACCESS_KEY")
    with pytest.raises(
        InputError, match=r"cannot read .*: Unable to locate credentials; set AWS_ACCESS_KEY_ID and"
    ):
        quick().read_bytes(join(s3.uri, "x"))


def test_a_missing_credentials_profile_is_named(s3):
    with pytest.raises(
        InputError, match=r"profile \(nobody\) could not be found; name an existing profile as"
    ):
        quick(credentials_profile="nobody").read_bytes(join(s3.uri, "x"))


def test_a_named_credentials_profile_is_used(s3, tmp_path, monkeypatch):
    credentials = tmp_path / "credentials"
    credentials.write_text("[papers]\naws_access_key_id = a\naws_secret_access_key = b\n")
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(credentials))
    monkeypatch.delenv("AWS_ACCESS_KEY_ID")
    monkeypatch.delenv("AWS_SECRET_ACCESS_KEY")
    storage = quick(credentials_profile="papers")
    storage.write_bytes(join(s3.uri, "x"), b"1")
    assert storage.read_bytes(join(s3.uri, "x")) == b"1"


def test_an_unreachable_endpoint_is_named(s3):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        endpoint = f"http://127.0.0.1:{free.getsockname()[1]}"
    storage = quick(endpoint_url=endpoint)
    with pytest.raises(
        InputError, match=rf"cannot read {s3.uri}/x: .*; {endpoint} cannot be reached \(2 tries\)"
    ):
        storage.read_bytes(join(s3.uri, "x"))
    with pytest.raises(StorageError, match="cannot be reached"):
        storage.create(join(s3.uri, "x"), b"1")


def test_a_silent_endpoint_is_given_up(s3):
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        silent.listen()
        endpoint = f"http://127.0.0.1:{silent.getsockname()[1]}"
        storage = quick(endpoint_url=endpoint, read_timeout_seconds=0.2)
        with pytest.raises(
            InputError, match=r"Read timeout .*was silent for 0\.2 s.*raise read_timeout_seconds"
        ):
            storage.read_bytes(join(s3.uri, "x"))


def test_a_certificate_needs_its_authority(s3, s3_tls_server, tmp_path):
    certificate, key = self_signed(tmp_path)
    with s3_tls_server(certificate, key) as port:
        endpoint = f"https://127.0.0.1:{port}"
        trusting = quick(endpoint_url=endpoint, ca_bundle=certificate)
        trusting.s3_store(s3.uri).client.create_bucket(Bucket=s3.bucket)
        trusting.write_bytes(join(s3.uri, "x"), b"1")
        assert trusting.read_bytes(join(s3.uri, "x")) == b"1"
        with pytest.raises(
            InputError,
            match=rf"the certificate of {endpoint} is not trusted: set ca_bundle in storage.profiles",
        ):
            quick(endpoint_url=endpoint).read_bytes(join(s3.uri, "x"))


def test_a_missing_ca_bundle_is_named(s3):
    with pytest.raises(InputError, match=r"ca_bundle in storage.profiles: /no/such.pem is not a file"):
        quick(ca_bundle="/no/such.pem").read_bytes(join(s3.uri, "x"))


def test_a_bucket_name_that_cannot_be_is_named(s3):
    with pytest.raises(InputError, match=r"cannot read s3://Not_A_Bucket\?/x: .*; correct the URI"):
        quick().read_bytes("s3://Not_A_Bucket?/x")


def test_the_longest_prefix_rules_and_ends_at_a_slash():
    wide, narrow = StorageProfile(region="wide"), StorageProfile(region="narrow")
    storage = Storage({"s3://papers": wide, "s3://papers/private/": narrow})
    assert storage.profile_of("s3://papers/x").region == "wide"
    assert storage.profile_of("s3://papers").region == "wide"
    assert storage.profile_of("s3://papers/private/x").region == "narrow"
    assert storage.profile_of("s3://papers-2/x").region is None
    assert Storage({"s3://": wide}).profile_of("s3://any/x").region == "wide"


def test_a_profile_sends_its_prefix_elsewhere(s3):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        nowhere = f"http://127.0.0.1:{free.getsockname()[1]}"
    storage = Storage(
        {
            f"{s3.uri}/out": StorageProfile(endpoint_url=s3.endpoint_url),
            s3.uri: StorageProfile(endpoint_url=nowhere, max_attempts=1),
        }
    )
    storage.write_bytes(join(s3.uri, "out", "x"), b"1")
    with pytest.raises(StorageError, match="cannot be reached"):
        storage.write_bytes(join(s3.uri, "in"), b"1")


@pytest.mark.parametrize(("patience_seconds", "outlasts"), [(30.0, True), (0.0, False)])
def test_a_server_that_goes_away_is_waited_for_as_long_as_patience_lasts(s3, patience_seconds, outlasts):
    with door_to(s3.endpoint_url) as door:
        profile = StorageProfile(
            endpoint_url=door.endpoint, max_attempts=1, patience_seconds=patience_seconds
        )
        storage = Storage({s3.uri: profile})
        storage.write_bytes(join(s3.uri, "before"), b"1")
        door.shut()
        threading.Timer(2.0, door.open).start()
        if not outlasts:
            with pytest.raises(StorageError, match="cannot be reached"):
                storage.write_bytes(join(s3.uri, "during"), b"2")
            return
        began = time.monotonic()
        # The connection that stood is cut first, which is not the same as nobody being there.
        with contextlib.suppress(StorageError):
            storage.write_bytes(join(s3.uri, "cut"), b"2")
        storage.write_bytes(join(s3.uri, "during"), b"2")
        assert time.monotonic() - began > 1.0
        assert storage.read_bytes(join(s3.uri, "during")) == b"2"


@pytest.mark.parametrize(
    ("field", "value", "reason"),
    [
        ("endpoint_url", "https://user:secretword@host", "must not carry a user or password"),
        ("endpoint_url", "host:9000", "must be http://host"),
        ("endpoint_url", "https://host/?token=secretword", "must not have a query"),
        ("credentials_profile", "AKIAIOSFODNN7EXAMPLE", "never a key"),
        ("credentials_profile", "id:secretword", "never a key"),
    ],
)
def test_a_secret_in_a_profile_is_refused_and_not_repeated(field, value, reason):
    with pytest.raises(ValidationError, match=reason) as caught:
        StorageProfile(**{field: value})
    assert "secretword" not in str(caught.value)


def test_a_single_writer_looks_before_it_writes(s3):
    s3.misbehave(ignore_if_none_match=True, ignore_if_match=True)
    storage = Storage({s3.uri: StorageProfile(single_writer=True)})
    uri = join(s3.uri, "x")
    etag = storage.create(uri, b"1")
    with pytest.raises(AlreadyExistsError):
        storage.create(uri, b"2")
    second = storage.replace(uri, b"2", etag=etag)
    with pytest.raises(ChangedError):
        storage.replace(uri, b"3", etag=etag)
    storage.delete(uri)
    with pytest.raises(ChangedError):
        storage.replace(uri, b"3", etag=second)
    assert storage.stat(uri) is None


def test_a_forked_process_has_its_own_client(s3):
    import os

    uri = join(s3.uri, "x")
    storage = Storage()
    storage.write_bytes(uri, b"1")
    child = os.fork()
    if child == 0:
        os._exit(0 if storage.read_bytes(uri) == b"1" else 1)
    assert os.waitpid(child, 0)[1] == 0
    assert storage.read_bytes(uri) == b"1"


def test_importing_storage_does_not_import_boto3():
    import subprocess
    import sys

    script = (
        "import sys, json, baltoro.core.storage\n"
        "print(json.dumps([m for m in ('boto3', 'botocore') if m in sys.modules]))"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert json.loads(done.stdout) == []


def self_signed(folder) -> tuple[str, str]:
    """Write a certificate for 127.0.0.1 and its key; return their paths."""
    import ipaddress

    from cryptography import x509
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec
    from cryptography.x509.oid import NameOID

    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "127.0.0.1")])
    now = datetime.datetime.now(datetime.UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(hours=1))
        .not_valid_after(now + datetime.timedelta(hours=1))
        .add_extension(
            x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]), False
        )
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    pem = serialization.Encoding.PEM
    (folder / "cert.pem").write_bytes(certificate.public_bytes(pem))
    (folder / "key.pem").write_bytes(
        key.private_bytes(pem, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    )
    return str(folder / "cert.pem"), str(folder / "key.pem")
