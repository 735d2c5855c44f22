"""One HTTP request with a hard end, and what its status means for the run."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:
    import aiohttp

_MOST_BYTES = 16 << 20
_DETAIL_CHARACTERS = 300

Verdict = Literal["answered", "try_again", "endpoint_refuses", "request_refused"]
"""``endpoint_refuses``: no request to this endpoint can succeed (key, quota, model, path);
``request_refused``: this one cannot, others may."""


@dataclass(frozen=True, slots=True)
class Reply:
    """What came back, if anything: ``status`` is 0 if no whole answer came."""

    status: int
    headers: Mapping[str, str]
    body: bytes
    failure: str = ""


@asynccontextmanager
async def http_session(concurrency: int) -> AsyncIterator[aiohttp.ClientSession]:
    """Open a connection pool for so many requests at a time; proxies of the environment are used."""
    import aiohttp

    connector = aiohttp.TCPConnector(limit=concurrency)
    async with aiohttp.ClientSession(connector=connector, trust_env=True) as session:
        yield session


async def post(
    session: aiohttp.ClientSession,
    url: str,
    body: Mapping[str, Any],
    *,
    headers: Mapping[str, str],
    deadline_seconds: float,
) -> Reply:
    """Send a JSON request; whatever the server does, this returns by the deadline.

    The deadline covers connecting, waiting and reading to the last byte, so a server that accepts and never
    answers, or drips, costs no more than it. Redirects are not followed: they would carry the key elsewhere.
    """
    import aiohttp

    try:
        async with (
            asyncio.timeout(deadline_seconds),
            session.post(
                url,
                data=json.dumps(body).encode(),
                headers={"Content-Type": "application/json", **headers},
                allow_redirects=False,
                timeout=aiohttp.ClientTimeout(total=None),
            ) as response,
        ):
            received = bytearray()
            async for chunk in response.content.iter_any():
                received += chunk
                if len(received) > _MOST_BYTES:
                    return Reply(0, {}, b"", f"an answer of more than {_MOST_BYTES} bytes")
            return Reply(response.status, dict(response.headers), bytes(received))
    except TimeoutError:
        return Reply(0, {}, b"", f"no whole answer within {deadline_seconds:g} seconds")
    except (aiohttp.ClientError, OSError) as error:
        return Reply(0, {}, b"", f"the connection failed ({type(error).__name__}: {error})")


def verdict_of(reply: Reply) -> tuple[Verdict, str]:
    """Return what a reply means and, unless it is an answer, why in one line."""
    if reply.status == 0:
        return "try_again", reply.failure
    if reply.status == 200:
        return "answered", ""
    detail = f"HTTP {reply.status}: {_error_text(reply.body)}"
    if reply.status in (401, 402, 403, 404, 405, 407) or 300 <= reply.status < 400:
        return "endpoint_refuses", detail
    if reply.status == 429 and b"insufficient_quota" in reply.body:
        # A spent account answers 429 too, and no waiting helps.
        return "endpoint_refuses", detail
    if reply.status in (408, 409, 425, 429) or reply.status >= 500:
        return "try_again", detail
    return "request_refused", detail


def retry_after_seconds(reply: Reply, now: float) -> float | None:
    """Return how long the server asks to wait (``Retry-After`` in seconds or as a date), ``None`` if it does
    not say."""
    for name, value in reply.headers.items():
        if name.lower() == "retry-after-ms" and value.strip().isdecimal():
            return int(value) / 1000
        if name.lower() == "retry-after":
            try:
                return max(float(value), 0.0)
            except ValueError:
                pass
            try:
                date = parsedate_to_datetime(value)
            except ValueError:
                return None
            return max((date if date.tzinfo else date.replace(tzinfo=UTC)).timestamp() - now, 0.0)
    return None


@dataclass(frozen=True, slots=True)
class Message:
    """The message of a chat completion, with the tokens charged as far as the server says."""

    content: str
    finish_reason: str | None
    prompt_tokens: int | None
    completion_tokens: int | None


def message_of(body: bytes) -> Message | None:
    """Return the message of a chat completion, ``None`` if the body is none."""
    try:
        record = json.loads(body)
        choice = record["choices"][0]
        content = choice["message"].get("content")
        usage = record.get("usage") or {}
        counts = [usage.get(name) for name in ("prompt_tokens", "completion_tokens")]
    except (ValueError, KeyError, IndexError, TypeError, AttributeError, RecursionError):
        return None
    prompt, completion = (count if isinstance(count, int) else None for count in counts)
    finish = choice.get("finish_reason")
    return Message(
        content if isinstance(content, str) else "",
        finish if isinstance(finish, str) else None,
        prompt,
        completion,
    )


def _error_text(body: bytes) -> str:
    text = body.decode("utf-8", "replace")
    try:
        error = json.loads(text).get("error")
        text = str(error.get("message", error)) if isinstance(error, Mapping) else str(error or text)
    except (ValueError, AttributeError, RecursionError):
        pass  # not the protocol's error object: the text itself is shown
    return " ".join(text.split())[:_DETAIL_CHARACTERS]


def utc(seconds: float) -> str:
    """Return a time of the clock for people."""
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%d %H:%M UTC")
