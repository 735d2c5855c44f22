"""An S3 server on loopback for tests: moto as a process of its own, atomic as S3 is, and able to misbehave.

``python tests/s3_server.py [--cert FILE --key FILE]`` prints its port and serves until its standard input
closes, so that it never outlives the tests. ``PUT /_faults/BUCKET`` with a JSON object sets how requests to
that bucket go wrong:

- ``ignore_if_none_match``, ``ignore_if_match``: drop the header, as some stores do
- ``racy``: drop both for writes that meet another one to the same key
- ``truncate_reads``: n, send half of the body of the next n reads under the full Content-Length
- ``slow_down``: n, answer the next n requests with 503
- ``conflicts``: n, answer the next n writes with 409 ConditionalRequestConflict
- ``lose_answers``: n, carry out the next n writes but answer 500
- ``clock_offset_seconds``: shift the Date header
- ``hide_from_list``: list nothing
- ``no_multipart``: refuse uploads in parts
- ``page_size``: entries per page of a listing
- ``rates``: fault to fraction of the requests that it may befall, with ``seed``; whether a request goes wrong
  depends only on the seed, what it asks for and how often that was asked for before:

  - ``slow_down``: 503
  - ``reset``: the connection breaks before anything is done
  - ``lost``: it breaks after a write or deletion is done
  - ``truncate``: half of the body under the full Content-Length
  - ``slow``: the body in pieces with pauses
  - ``stall``: half of the body, then nothing for ``stall_seconds``
  - ``other_range``, ``short_range``, ``no_range``: another range than was asked for, half of it, or the whole
    object, each labelled as what it is

``GET /_faults/BUCKET`` tells how many requests there were, by method, and how many of each fault.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import re
import socket
import struct
import sys
import threading
import time
from collections import Counter
from email.utils import formatdate

from moto.moto_server.werkzeug_app import DomainDispatcherApplication, create_backend_app
from werkzeug.serving import WSGIRequestHandler, make_server

SLOW_PIECES, SLOW_PAUSE_SECONDS = 4, 0.05


class QuietHandler(WSGIRequestHandler):
    def log(self, *arguments):
        """Say nothing: the tests' output is their own."""

    def connection_dropped(self, error, environ=None):
        """Ask nothing more of a connection that is gone."""
        self.close_connection = True

    def send_response(self, code, message=None):
        """Leave the Date header to the application."""
        self.send_response_only(code, message)


class FaultyS3:
    """The moto application behind a lock, because its conditional writes look first and write later."""

    def __init__(self) -> None:
        self.application = DomainDispatcherApplication(create_backend_app)
        self.lock = threading.Lock()
        self.faults: dict[str, dict] = {}
        self.counts: dict[str, Counter[str]] = {}
        self.seen: Counter[str] = Counter()
        self.in_flight: Counter[str] = Counter()

    def __call__(self, environ, start_response):
        bucket = environ["PATH_INFO"].strip("/").partition("/")[0]
        if bucket == "_faults":
            length = int(environ.get("CONTENT_LENGTH") or 0)
            faulty = environ["PATH_INFO"].rpartition("/")[2]
            if environ["REQUEST_METHOD"] == "GET":
                start_response("200 OK", [("Content-Type", "application/json")])
                return [json.dumps(self.counts.get(faulty, {})).encode()]
            self.faults[faulty] = json.loads(environ["wsgi.input"].read(length))
            self.counts[faulty] = Counter()
            start_response("204 No Content", [])
            return []
        faults = self.faults.get(bucket, {})
        if "rates" in faults:
            return self.serve_by_chance(environ, start_response, faults, self.counts[bucket])
        if not faults.get("racy"):
            with self.lock:
                return self.serve(environ, start_response, faults)
        path = environ["PATH_INFO"]
        with self.lock:
            self.in_flight[path] += 1
            if self.in_flight[path] > 1:
                environ.pop("HTTP_IF_NONE_MATCH", None)
                environ.pop("HTTP_IF_MATCH", None)
        time.sleep(0.02)
        with self.lock:
            self.in_flight[path] -= 1
            return self.serve(environ, start_response, faults)

    def serve_by_chance(self, environ, start_response, faults, counts):
        method, asked = environ["REQUEST_METHOD"], environ.get("HTTP_RANGE", "")
        named = f"{method} {environ['PATH_INFO']}?{environ.get('QUERY_STRING', '')} {asked}"
        with self.lock:
            counts.update(("requests", method))
            self.seen[named] += 1
            nth = self.seen[named]
        # The names of buckets are drawn anew by each test.
        what = named.replace(environ["PATH_INFO"].strip("/").partition("/")[0], "", 1)
        digest = hashlib.sha256(f"{faults.get('seed', 0)} {what} {nth}".encode()).digest()
        fault = drawn(faults["rates"], int.from_bytes(digest[:8], "big") / 2**64, method, asked)
        if fault == "slow_down":
            counts[fault] += 1
            return refuse(start_response, "503 Slow Down", "SlowDown", "Please reduce your request rate.")
        if fault == "reset":
            counts[fault] += 1
            reset(environ)
        if fault is not None and fault.endswith("_range"):
            first, last = (int(place) for place in asked.removeprefix("bytes=").split("-"))
            environ.pop("HTTP_RANGE")
            if fault == "other_range":
                environ["HTTP_RANGE"] = f"bytes={first + 1}-{last + 1}"
            if fault == "short_range":
                environ["HTTP_RANGE"] = f"bytes={first}-{first + (last - first) // 2}"
        answer = {}
        with self.lock:
            body = b"".join(
                self.serve(environ, lambda status, headers: answer.update(status=status, headers=headers), {})
            )
        if fault in ("truncate", "slow", "stall") and (len(body) < 2 or answer["status"][0] != "2"):
            fault = None
        if fault is not None:
            counts[fault] += 1
        if fault == "lost":
            reset(environ)
        headers = [pair for pair in answer["headers"] if pair[0].lower() != "content-length"]
        length = {name.lower(): value for name, value in answer["headers"]}.get("content-length")
        start_response(answer["status"], [*headers, ("Content-Length", length or str(len(body)))])
        if fault in ("truncate", "stall"):
            return pieces([body[: len(body) // 2]], faults["stall_seconds"] if fault == "stall" else 0.0)
        if fault == "slow":
            step = -(-len(body) // SLOW_PIECES)
            parts = [body[start : start + step] for start in range(0, len(body), step)]
            return pieces(parts, SLOW_PAUSE_SECONDS)
        return [body]

    def serve(self, environ, start_response, faults):
        method, query = environ["REQUEST_METHOD"], environ.get("QUERY_STRING", "")
        if take(faults, "slow_down"):
            return refuse(start_response, "503 Slow Down", "SlowDown", "Please reduce your request rate.")
        if method == "PUT" and take(faults, "conflicts"):
            return refuse(start_response, "409 Conflict", "ConditionalRequestConflict", "Try again.")
        if method == "POST" and "uploads" in query and faults.get("no_multipart"):
            return refuse(start_response, "501 Not Implemented", "NotImplemented", "No uploads in parts.")
        if faults.get("ignore_if_none_match"):
            environ.pop("HTTP_IF_NONE_MATCH", None)
        if faults.get("ignore_if_match"):
            environ.pop("HTTP_IF_MATCH", None)
        listing = method == "GET" and "list-type=2" in query
        if listing and "page_size" in faults:
            environ["QUERY_STRING"] = f"{query}&max-keys={faults['page_size']}"

        answer = {}

        def remember(status, headers, *_):
            answer.update(status=status, headers=list(headers))

        body = b"".join(self.application(environ, remember))
        headers = [pair for pair in answer["headers"] if pair[0].lower() not in ("date", "connection")]
        headers.append(("Date", formatdate(time.time() + faults.get("clock_offset_seconds", 0), usegmt=True)))
        if method == "PUT" and take(faults, "lose_answers"):
            return refuse(start_response, "500 Internal Server Error", "InternalError", "We lost it.")
        if listing and faults.get("hide_from_list"):
            body = re.sub(rb"<Contents>.*</Contents>", b"", body, flags=re.DOTALL)
            headers = [pair for pair in headers if pair[0].lower() != "content-length"]
        if (
            method == "GET"
            and not query
            and answer["status"].startswith("2")
            and take(faults, "truncate_reads")
        ):
            body = body[: len(body) // 2]
        start_response(answer["status"], headers)
        return [body]


def take(faults: dict, name: str) -> bool:
    if faults.get(name, 0) <= 0:
        return False
    faults[name] -= 1
    return True


def drawn(rates: dict[str, float], chance: float, method: str, asked: str) -> str | None:
    """The fault that befalls a request, of those that can."""
    for fault, rate in rates.items():
        if fault in ("truncate", "slow", "stall") and method not in ("GET", "POST"):
            continue
        if fault == "lost" and method in ("GET", "HEAD"):
            continue
        if fault.endswith("_range") and not (method == "GET" and asked):
            continue
        if chance < rate:
            return fault
        chance -= rate
    return None


def pieces(parts, pause_seconds: float):
    for part in parts:
        yield part
        time.sleep(pause_seconds)


def reset(environ) -> None:
    """Break the connection with an RST, as a crashed server or a load balancer does."""
    connection = environ["werkzeug.socket"]
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    os.close(connection.detach())
    raise ConnectionResetError


def refuse(start_response, status: str, code: str, message: str) -> list[bytes]:
    start_response(status, [("Content-Type", "application/xml")])
    return [f"<Error><Code>{code}</Code><Message>{message}</Message></Error>".encode()]


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--cert")
    parser.add_argument("--key")
    options = parser.parse_args()
    context = (options.cert, options.key) if options.cert else None
    server = make_server(
        "127.0.0.1", 0, FaultyS3(), threaded=True, request_handler=QuietHandler, ssl_context=context
    )
    threading.Thread(target=server.serve_forever, daemon=True).start()
    print(server.server_port, flush=True)
    sys.stdin.read()
    os._exit(0)


if __name__ == "__main__":
    main()
