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
"""

from __future__ import annotations

import argparse
import json
import os
import re
import sys
import threading
import time
from collections import Counter
from email.utils import formatdate

from moto.moto_server.werkzeug_app import DomainDispatcherApplication, create_backend_app
from werkzeug.serving import WSGIRequestHandler, make_server


class QuietHandler(WSGIRequestHandler):
    def log(self, *arguments):
        """Say nothing: the tests' output is their own."""

    def send_response(self, code, message=None):
        """Leave the Date header to the application."""
        self.send_response_only(code, message)


class FaultyS3:
    """The moto application behind a lock, because its conditional writes look first and write later."""

    def __init__(self) -> None:
        self.application = DomainDispatcherApplication(create_backend_app)
        self.lock = threading.Lock()
        self.faults: dict[str, dict] = {}
        self.in_flight: Counter[str] = Counter()

    def __call__(self, environ, start_response):
        bucket = environ["PATH_INFO"].strip("/").partition("/")[0]
        if bucket == "_faults":
            length = int(environ.get("CONTENT_LENGTH") or 0)
            faulty = environ["PATH_INFO"].rpartition("/")[2]
            self.faults[faulty] = json.loads(environ["wsgi.input"].read(length))
            start_response("204 No Content", [])
            return []
        faults = self.faults.get(bucket, {})
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
