"""The whole recipe as a job of a running Ray cluster, submitted as a user submits it."""

import contextlib
import os
import secrets
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from mlflow import MlflowClient

pytestmark = [pytest.mark.jobs, pytest.mark.slow, pytest.mark.timeout(1200)]

RAY = str(Path(sys.executable).with_name("ray"))
ENTRY_POINTS = Path(__file__).resolve().parents[2] / "ray_jobs"
START_SECONDS = 240


@dataclass(frozen=True)
class RayHead:
    """A Ray cluster of one node with the job server, and the environment that lets a client in."""

    dashboard: str
    environment: dict[str, str]


def free_ports(count: int) -> list[int]:
    """Ports that nobody listens on; all are held until the last is found."""
    sockets = [socket.socket() for _ in range(count)]
    try:
        for each in sockets:
            each.bind(("127.0.0.1", 0))
        return [each.getsockname()[1] for each in sockets]
    finally:
        for each in sockets:
            each.close()


@pytest.fixture
def ray_head() -> Iterator[RayHead]:
    """`ray start --head --block` in a process group and folder of its own, beside any other Ray.

    Clients and cluster share a token. Without these variables `ray start` asks for one as soon as
    ``~/.ray/auth_token`` exists, which the first local Ray of a user writes; a client on another machine then
    needs RAY_AUTH_MODE=token and the file's text in RAY_AUTH_TOKEN.
    """
    gcs, dashboard, agent, agent_grpc, metrics, client, runtime = free_ports(7)
    environment = {name: value for name, value in os.environ.items() if not name.startswith("RAY_")}
    environment |= {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": secrets.token_hex(16)}
    # A Unix socket's path has at most 107 bytes, which pytest's folders are too long for.
    with tempfile.TemporaryDirectory(prefix="ray-", dir="/tmp", ignore_cleanup_errors=True) as folder:
        process = subprocess.Popen(
            [
                *(RAY, "start", "--head", "--block", "--num-cpus=6", "--include-dashboard=true"),
                *(f"--port={gcs}", f"--dashboard-port={dashboard}", "--dashboard-host=127.0.0.1"),
                *(f"--dashboard-agent-listen-port={agent}", f"--dashboard-agent-grpc-port={agent_grpc}"),
                *(f"--metrics-export-port={metrics}", f"--ray-client-server-port={client}"),
                *(f"--runtime-env-agent-port={runtime}", "--node-ip-address=127.0.0.1"),
                *(f"--temp-dir={folder}", "--object-store-memory=200000000", "--disable-usage-stats"),
            ],
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
        )
        try:
            head = RayHead(f"http://127.0.0.1:{dashboard}", environment)
            wait_for_job_server(head, process)
            yield head
        finally:
            # Its daemons share its fate; asked politely, it would take half a minute.
            process.kill()
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.communicate()


def wait_for_job_server(head: RayHead, process: subprocess.Popen[str]) -> None:
    """Wait until the job server lists its jobs."""
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    request = urllib.request.Request(f"{head.dashboard}/api/jobs/")
    request.add_header("Authorization", f"Bearer {head.environment['RAY_AUTH_TOKEN']}")
    deadline = time.monotonic() + START_SECONDS
    while True:
        try:
            with opener.open(request, timeout=10):
                return
        except OSError as error:
            if process.poll() is not None:
                pytest.fail(f"ray start ended with {process.returncode}: {process.communicate()[0]}")
            if time.monotonic() > deadline:
                pytest.fail(f"no job server at {head.dashboard} within {START_SECONDS} s: {error}")
            time.sleep(0.5)


def test_a_submitted_job_trains_and_registers_a_model(ray_head, recipe_file, papers, tmp_path):
    tracking_uri = f"sqlite:///{tmp_path}/mlflow.db"
    job = [
        *(sys.executable, str(ENTRY_POINTS / "pipeline.py"), str(recipe_file), "name=submitted"),
        *(f"storage.root={tmp_path / 'root'}", f"tracking.uri={tracking_uri}"),
        *(f"corpus.sources.0.uri={papers[0]}", "pretrain.steps=6", "pretrain.epochs=1"),
    ]
    submit = [RAY, "job", "submit", "--address", ray_head.dashboard, "--", *job]
    result = subprocess.run(
        submit, env=ray_head.environment, capture_output=True, text=True, timeout=900, check=False
    )
    assert result.returncode == 0, result.stdout + result.stderr
    assert "registered as submitted version 1" in result.stdout
    version = MlflowClient(tracking_uri).get_model_version_by_alias("submitted", "candidate")
    assert Path(version.source, "model.safetensors").is_file()
