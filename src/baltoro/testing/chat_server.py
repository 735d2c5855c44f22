"""An OpenAI-compatible chat server on loopback that misbehaves as told and remembers what it charged for.

Faults are given as a script, one word per request in the order of arrival; after its end every request is
answered. A request is *charged* when the server has worked for it, whether or not its answer arrives.
"""

import hashlib
import json
import socket
import threading
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

FAULTS: dict[str, str] = {
    "ok": "a good answer",
    "429": "too many requests, with Retry-After of retry_after seconds",
    "429-date": "too many requests, with Retry-After as a date that has passed",
    "429-quota": "too many requests because the account is empty",
    "500": "an internal error",
    "503": "overloaded, without Retry-After",
    "401": "the key is wrong",
    "402": "nothing is paid for",
    "403": "the key may not",
    "404": "no such model",
    "400": "this request is refused",
    "redirect": "sent elsewhere",
    "malformed": "charged: the content is no JSON",
    "invalid": "charged: the content is JSON of another form",
    "cut": "charged: the answer ends at the token limit",
    "empty": "charged: the content is null",
    "no-envelope": "charged: the body is no chat completion",
    "no-usage": "charged: a good answer without token counts",
    "silent": "charged: the connection stays open and nothing comes",
    "drip": "charged: a byte now and then, never whole",
    "slow": "charged: a good answer after slow_seconds",
    "drop": "charged: the connection is closed before the answer",
    "half": "charged: the connection is closed within the answer",
}
"""Every fault with its meaning."""

_NOT_CHARGED = frozenset(
    ("429", "429-date", "429-quota", "500", "503", "401", "402", "403", "404", "400", "redirect")
)
_STATUS = {"429-date": 429, "429-quota": 429, "redirect": 307}

GOOD: dict[str, dict[str, str]] = {
    "Significance and novelty": {"New task": "The task has not been studied before."},
    "Potential reasons for acceptance": {"Sound proofs": "The proofs are complete."},
    "Potential reasons for rejection": {"Few baselines": "Only two baselines are compared."},
    "Suggestions for improvement": {"Add baselines": "Compare with stronger baselines."},
}
"""The answer to every request that nothing is wrong with."""


@dataclass
class ChatServer:
    """A running server.

    Attributes:
        url: the base URL for clients, ending in ``/v1``.
        script: faults still to come, in order.
        charged: charged requests by a hash of their messages.
        requests: ``(path, headers, body)`` of every request, in order.
        key: the only key that is let in, if any.
        retry_after: seconds that a 429 asks for.
        slow_seconds: how long a slow answer takes; with ``delay_seconds`` every answer takes at least that.
    """

    url: str = ""
    script: list[str] = field(default_factory=list)
    charged: Counter[str] = field(default_factory=Counter)
    requests: list[tuple[str, dict[str, str], Any]] = field(default_factory=list)
    key: str | None = None
    retry_after: float = 0.05
    slow_seconds: float = 0.3
    delay_seconds: float = 0.0
    lock: threading.Lock = field(default_factory=threading.Lock)
    closing: threading.Event = field(default_factory=threading.Event)

    def take(self, path: str, headers: dict[str, str], body: Any) -> str:
        """Note a request and return its fault."""
        with self.lock:
            self.requests.append((path, headers, body))
            if self.key is not None and headers.get("Authorization") != f"Bearer {self.key}":
                return "401"
            fault = self.script.pop(0) if self.script else "ok"
            if fault not in _NOT_CHARGED:
                self.charged[prompt_hash(body["messages"])] += 1
            return fault

    @property
    def total_charged(self) -> int:
        """Charged requests, all prompts together."""
        with self.lock:
            return sum(self.charged.values())


def prompt_hash(messages: Sequence[dict[str, str]]) -> str:
    """Return what names a prompt in :attr:`ChatServer.charged`."""
    return hashlib.sha256(json.dumps(messages, sort_keys=True).encode()).hexdigest()


def completion(content: str | None, finish_reason: str = "stop", *, usage: bool = True) -> bytes:
    """Return the body of a chat completion; every message counts 100 tokens in and 20 out."""
    record: dict[str, Any] = {
        "id": "chat-1",
        "object": "chat.completion",
        "choices": [
            {
                "index": 0,
                "message": {"role": "assistant", "content": content},
                "finish_reason": finish_reason,
            }
        ],
    }
    if usage:
        record["usage"] = {"prompt_tokens": 100, "completion_tokens": 20, "total_tokens": 120}
    return json.dumps(record).encode()


def _body(fault: str) -> bytes:
    good = json.dumps(GOOD)
    match fault:
        case "malformed":
            return completion(good[: len(good) // 2])
        case "invalid":
            return completion(json.dumps({"Strengths": ["sound"]}))
        case "cut":
            return completion(good[:40], "length")
        case "empty":
            return completion(None)
        case "no-envelope":
            return b"<html>gateway</html>"
        case "no-usage":
            return completion(good, usage=False)
    return completion(good)


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    state: ChatServer

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        fault = self.state.take(self.path, dict(self.headers), body)
        if self.state.delay_seconds:
            self.state.closing.wait(self.state.delay_seconds)
        if fault in _NOT_CHARGED:
            self._refuse(fault)
        elif fault == "silent":
            self.state.closing.wait()
        elif fault == "drop":
            self._close()
        else:
            if fault == "slow":
                self.state.closing.wait(self.state.slow_seconds)
            data = _body(fault)
            self.send_response(200)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            if fault == "drip":
                while not self.state.closing.wait(0.02):
                    try:
                        self.wfile.write(b" ")
                    except OSError:
                        return
            elif fault == "half":
                self.wfile.write(data[: len(data) // 2])
                self.wfile.flush()
                self._close()
            else:
                self.wfile.write(data)

    def _refuse(self, fault: str) -> None:
        code = "insufficient_quota" if fault == "429-quota" else f"fault_{fault}"
        data = json.dumps({"error": {"message": f"told to fail: {fault}", "code": code}}).encode()
        self.send_response(_STATUS.get(fault) or int(fault))
        if fault == "429":
            self.send_header("Retry-After", str(self.state.retry_after))
        if fault == "429-date":
            self.send_header("Retry-After", "Wed, 21 Oct 2015 07:28:00 GMT")
        if fault == "redirect":
            self.send_header("Location", "http://127.0.0.1:9/v1/chat/completions")
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def _close(self) -> None:
        self.close_connection = True
        self.connection.shutdown(socket.SHUT_RDWR)

    def log_message(self, format: str, *arguments: object) -> None:
        pass


class _Server(ThreadingHTTPServer):
    daemon_threads = True

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Clients that give up are what this server is for."""


@contextmanager
def running_chat_server(
    script: Sequence[str] = (), *, key: str | None = None, delay_seconds: float = 0.0
) -> Iterator[ChatServer]:
    """Serve chat completions on loopback until the block ends.

    Args:
        script: faults of the first requests, by a name in :data:`FAULTS`.
        key: the only key that is let in.
        delay_seconds: how long every answer takes.
    """
    unknown = set(script) - set(FAULTS)
    if unknown:
        raise ValueError(f"no such fault: {sorted(unknown)[0]}")
    state = ChatServer(script=list(script), key=key, delay_seconds=delay_seconds)
    handler = type("Handler", (_Handler,), {"state": state})
    with _Server(("127.0.0.1", 0), handler) as server:
        state.url = f"http://127.0.0.1:{server.server_port}/v1"
        threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()
        try:
            yield state
        finally:
            state.closing.set()
            server.shutdown()


def wait_for_charges(server: ChatServer, number: int, *, timeout_seconds: float = 20.0) -> None:
    """Return when the server has charged for so many requests.

    Raises:
        TimeoutError: it has not in time.
    """
    until = time.monotonic() + timeout_seconds
    while server.total_charged < number:
        if time.monotonic() > until:
            raise TimeoutError(f"{server.total_charged} of {number} requests were charged in time")
        time.sleep(0.01)
