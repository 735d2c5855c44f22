"""A model hub on loopback that speaks as much of the Hugging Face protocol as a download needs."""

import hashlib
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path


@dataclass
class Hub:
    """One repository of a running hub; ``requests`` are the paths that were asked for."""

    repository: str
    folder: Path
    token: str | None
    endpoint: str = ""
    requests: list[str] = field(default_factory=list)

    @property
    def commit(self) -> str:
        """The name of the state of the files."""
        hasher = hashlib.sha1(usedforsecurity=False)
        for path in sorted(self.folder.iterdir()):
            hasher.update(path.name.encode() + path.read_bytes())
        return hasher.hexdigest()

    def answer(self, path: str, authorization: str | None) -> tuple[int, dict[str, str], bytes]:
        """Return status, headers and body of a request."""
        self.requests.append(path)
        if self.token is not None and authorization != f"Bearer {self.token}":
            return 401, {"X-Error-Code": "GatedRepo", "X-Error-Message": "access is restricted"}, b"{}"
        path = path.partition("?")[0]
        info = f"/api/models/{self.repository}"
        if path in (info, f"{info}/revision/main", f"{info}/revision/{self.commit}"):
            files = [{"rfilename": entry.name} for entry in sorted(self.folder.iterdir())]
            body = {"id": self.repository, "sha": self.commit, "siblings": files, "private": False}
            return 200, {"Content-Type": "application/json"}, json.dumps(body).encode()
        if path == f"{info}/tree/{self.commit}":
            tree = [
                {"type": "file", "path": entry.name, "size": entry.stat().st_size, "oid": self.commit}
                for entry in sorted(self.folder.iterdir())
            ]
            return 200, {"Content-Type": "application/json"}, json.dumps(tree).encode()
        prefix = f"/{self.repository}/resolve/{self.commit}/"
        if path.startswith(prefix) and (self.folder / path.removeprefix(prefix)).is_file():
            data = (self.folder / path.removeprefix(prefix)).read_bytes()
            return 200, {"X-Repo-Commit": self.commit, "ETag": f'"{hashlib.sha256(data).hexdigest()}"'}, data
        return 404, {"X-Error-Code": "EntryNotFound"}, b"{}"


@contextmanager
def running_hub(repository: str, folder: Path, *, token: str | None = None) -> Iterator[Hub]:
    """Serve the files of a folder as one repository."""
    hub = Hub(repository, folder, token)

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            status, headers, body = hub.answer(self.path, self.headers.get("Authorization"))
            self.send_response(status)
            for name, value in {**headers, "Content-Length": str(len(body))}.items():
                self.send_header(name, value)
            self.end_headers()
            if self.command == "GET":
                self.wfile.write(body)

        do_HEAD = do_GET  # noqa: N815 - the name that the server looks for

        def log_message(self, format: str, *arguments: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        hub.endpoint = f"http://127.0.0.1:{server.server_port}"
        threading.Thread(target=server.serve_forever, daemon=True).start()
        try:
            yield hub
        finally:
            server.shutdown()
