"""Fixtures that every suite may use."""

import json
import os
import subprocess
import sys
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from hypothesis import settings

S3_SERVER = Path(__file__).with_name("s3_server.py")

# A busy machine is no failure, and a change must not fail or pass by the luck of a draw.
settings.register_profile("baltoro", deadline=None, derandomize=bool(os.environ.get("CI")))
settings.load_profile("baltoro")


@pytest.fixture(scope="session")
def sample_data() -> Path:
    """The folder of real parsed papers, reviews and benchmarks that ``BALTORO_DATA`` names."""
    folder = os.environ.get("BALTORO_DATA")
    if not folder:
        pytest.skip("set BALTORO_DATA to a folder with the sample papers")
    path = Path(folder)
    if not path.is_dir():
        pytest.skip(f"BALTORO_DATA={folder} is not a folder; set it to a folder with the sample papers")
    return path


@dataclass(frozen=True)
class S3Bucket:
    """A fresh bucket on the loopback server; the AWS_* environment leads boto3 and pyarrow there."""

    endpoint_url: str
    bucket: str

    @property
    def uri(self) -> str:
        return f"s3://{self.bucket}"

    @property
    def client(self) -> Any:
        import boto3

        return boto3.client("s3")

    def misbehave(self, **faults: Any) -> None:
        """Make requests to this bucket go wrong as ``tests/s3_server.py`` lists; without arguments no "
        "longer."""
        send("PUT", f"{self.endpoint_url}/_faults/{self.bucket}", json.dumps(faults).encode())

    def counts(self) -> dict[str, int]:
        """Requests and faults, since :meth:`misbehave` gave ``rates``, as ``tests/s3_server.py`` says."""
        return json.loads(send("GET", f"{self.endpoint_url}/_faults/{self.bucket}", None))

    @contextmanager
    def checking_rights(self) -> Iterator[None]:
        """Check keys, signatures and policies within the block; otherwise everyone may do everything."""
        send("POST", f"{self.endpoint_url}/moto-api/reset-auth", b"0")
        try:
            yield
        finally:
            send("POST", f"{self.endpoint_url}/moto-api/reset-auth", b"inf")


def send(method: str, url: str, body: bytes | None) -> bytes:
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    request = urllib.request.Request(url, data=body, method=method)
    request.add_header("Content-Type", "application/octet-stream")
    with opener.open(request, timeout=10) as answer:
        return answer.read()


@contextmanager
def running_s3_server(*arguments: str) -> Iterator[int]:
    """Run an S3 server as a process of its own and give its port."""
    process = subprocess.Popen(
        [sys.executable, str(S3_SERVER), *arguments], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    try:
        assert process.stdout is not None
        line = process.stdout.readline()
        assert line.strip(), "the S3 server did not start; its error is above"
        yield int(line)
    finally:
        process.kill()
        process.communicate()


@pytest.fixture(scope="session")
def s3_server() -> Iterator[str]:
    """The endpoint URL of an S3 server that lives as long as the test session."""
    with running_s3_server() as port:
        yield f"http://127.0.0.1:{port}"


@pytest.fixture
def s3_tls_server() -> Callable[[str, str], Any]:
    """A context manager that runs an S3 server with a certificate and key, and gives its port."""
    return lambda certificate, key: running_s3_server("--cert", certificate, "--key", key)


def fresh_bucket(endpoint_url: str, patch: pytest.MonkeyPatch, no_aws_files: Path) -> S3Bucket:
    """Make a bucket, reached by the AWS_* environment alone."""
    import secrets

    for name in [name for name in os.environ if name.startswith("AWS_")]:
        patch.delenv(name)
    environment = {
        "AWS_ACCESS_KEY_ID": "testing",
        "AWS_SECRET_ACCESS_KEY": "testing",
        "AWS_DEFAULT_REGION": "us-east-1",
        "AWS_ENDPOINT_URL": endpoint_url,
        "AWS_EC2_METADATA_DISABLED": "true",
        "AWS_CONFIG_FILE": str(no_aws_files / "none"),
        "AWS_SHARED_CREDENTIALS_FILE": str(no_aws_files / "none"),
        "NO_PROXY": "127.0.0.1,localhost",
    }
    for name, value in environment.items():
        patch.setenv(name, value)
    bucket = S3Bucket(endpoint_url, f"test-{secrets.token_hex(6)}")
    bucket.client.create_bucket(Bucket=bucket.bucket)
    return bucket


@pytest.fixture
def s3(s3_server: str, monkeypatch: pytest.MonkeyPatch, tmp_path_factory: pytest.TempPathFactory) -> S3Bucket:
    """A fresh bucket, reached by the AWS_* environment alone."""
    return fresh_bucket(s3_server, monkeypatch, tmp_path_factory.mktemp("aws"))


@pytest.fixture(scope="module")
def module_s3(s3_server: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[S3Bucket]:
    """A bucket that the tests of a module share, reached by the AWS_* environment alone."""
    with pytest.MonkeyPatch.context() as patch:
        yield fresh_bucket(s3_server, patch, tmp_path_factory.mktemp("aws"))


@pytest.fixture(params=["local", "s3"])
def root(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """An empty root to store under: once a local folder, once a prefix of a bucket."""
    if request.param == "local":
        return str(tmp_path / "root folder")
    return f"{request.getfixturevalue('s3').uri}/root folder"


@pytest.fixture
def race() -> Callable[..., list[str]]:
    """Run a script in several processes that start together, and return what each printed.

    The script calls ``ready()`` once its imports are done; that returns in all processes at the same time.
    """

    def run(script: str, *arguments: str, processes: int = 3) -> list[str]:
        prologue = "import sys\ndef ready():\n    print('ready', flush=True)\n    sys.stdin.readline()\n"
        children = [
            subprocess.Popen(
                [sys.executable, "-c", prologue + script, str(number), *arguments],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                text=True,
            )
            for number in range(processes)
        ]
        try:
            for child in children:
                assert child.stdout is not None
                assert child.stdout.readline() == "ready\n", "a racing process failed; its error is above"
            for child in children:
                assert child.stdin is not None
                child.stdin.write("go\n")
                child.stdin.flush()
            outputs = [child.communicate(timeout=120)[0] for child in children]
            assert [child.returncode for child in children] == [0] * processes
            return outputs
        finally:
            for child in children:
                child.kill()

    return run
