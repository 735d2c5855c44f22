"""The endpoint merger behind Ray Data's HTTP processor.

``ray.data.llm.HttpRequestProcessorConfig`` (Ray 2.60) spreads rows over workers and posts them, but by itself
it knows one URL, counts requests only, ignores ``Retry-After``, takes a 401's JSON for an answer, ends the
whole batch with one failed row, and hands results on only with their block. It lets the caller bring the
session that posts, and that is the place where all of it can be kept: the session made here answers each row
from the saved answers or through :class:`~baltoro.instructions.reviews.endpoint.EndpointMerger`.

Budgets are counted in one process, so the processor runs with ``concurrency=1``: one actor keeps hundreds of
requests under way, and the endpoint is the bottleneck, never the actor. ``batch_size`` bounds how many::

    HttpRequestProcessorConfig(url=config.urls[0], batch_size=64, concurrency=1,
                               session_factory=ProcessorSessions(config, storage, answers_uri))

Rows carry ``payload = processor_payload(request)``; the response is read by :func:`outcome_of`.
"""

from __future__ import annotations

import asyncio
import json
import os
from collections.abc import Callable, Generator, Mapping
from contextlib import AsyncExitStack
from typing import Any, Self

from baltoro.core.errors import ArtifactError
from baltoro.core.storage import Storage
from baltoro.instructions.reviews.answers import AnswerStore
from baltoro.instructions.reviews.aspects import AspectsError, from_json
from baltoro.instructions.reviews.config import EndpointConfig
from baltoro.instructions.reviews.endpoint import (
    EndpointMerger,
    four_characters_a_token,
    http_session,
)
from baltoro.instructions.reviews.outcomes import MergeOutcome, MergeRequest


def processor_payload(request: MergeRequest) -> dict[str, str]:
    """Return the row payload of a request."""
    return {"paper_id": request.paper_id, "title": request.title, "reviews": request.reviews}


def outcome_of(response: Mapping[str, Any]) -> MergeOutcome:
    """Return the outcome that the processor's response column holds.

    Raises:
        ArtifactError: it is none: the processor ran without this module's sessions.
    """
    try:
        review = from_json(response["review"]) if response["review"] else None
        return MergeOutcome(
            response["paper_id"], review, response["reason"], response["detail"], response["answers"],
            response["paid_now"],
        )  # fmt: skip
    except (KeyError, TypeError, AspectsError) as error:
        raise ArtifactError(
            f"the HTTP processor's response is no merge outcome ({error}); set its session_factory to "
            "ProcessorSessions"
        ) from None


class ProcessorSessions:
    """A picklable session factory for the processor; each process makes its merger at first use.

    Args:
        config: the endpoint settings.
        storage: where answers are saved.
        answers_uri: the folder of the answers.
        count_tokens: counts a text's tokens; picklable.
    """

    def __init__(
        self,
        config: EndpointConfig,
        storage: Storage,
        answers_uri: str,
        count_tokens: Callable[[str], int] = four_characters_a_token,
    ) -> None:
        self._settings = (config, storage, answers_uri, count_tokens)
        self._merger: EndpointMerger | None = None

    def __reduce__(self) -> tuple[Any, ...]:
        return ProcessorSessions, self._settings

    def __call__(self) -> ProcessorSession:
        """Return the session of one batch; all batches of a process share budgets and answers."""
        if self._merger is None:
            config, storage, answers_uri, count_tokens = self._settings
            store = AnswerStore(storage, answers_uri)
            self._merger = EndpointMerger(config, store, environment=os.environ, count_tokens=count_tokens)
        return ProcessorSession(self._merger)


class ProcessorSession:
    """What the processor uses of an ``aiohttp.ClientSession``: ``post``, and entering and leaving."""

    def __init__(self, merger: EndpointMerger) -> None:
        self._merger = merger
        self._stack = AsyncExitStack()
        self._slots = asyncio.Semaphore(merger.config.concurrency)

    async def __aenter__(self) -> Self:
        self._session = await self._stack.enter_async_context(http_session(self._merger.config.concurrency))
        return self

    async def __aexit__(self, *error: object) -> None:
        await self._stack.aclose()

    def post(self, url: str, *, headers: Mapping[str, str], data: str) -> Pending:  # noqa: ARG002  (aiohttp's)
        """Begin one row; it runs at once, the processor collects the answers in order."""
        payload = json.loads(data)
        request = MergeRequest(payload["paper_id"], payload["title"], payload["reviews"])
        return Pending(asyncio.ensure_future(self._merge(request)))

    async def _merge(self, request: MergeRequest) -> MergeOutcome:
        async with self._slots:
            return await self._merger.merge(self._session, request)


class Pending:
    """A row under way; awaiting it gives its response."""

    def __init__(self, task: asyncio.Future[MergeOutcome]) -> None:
        self._task = task

    def __await__(self) -> Generator[Any, None, Response]:
        outcome = yield from self._task.__await__()
        return Response(outcome)


class Response:
    """A row's outcome in the form of an HTTP response."""

    status = 200
    reason = "OK"

    def __init__(self, outcome: MergeOutcome) -> None:
        self._outcome = outcome

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *error: object) -> None:
        return None

    async def json(self) -> dict[str, Any]:
        """Return the outcome as plain values, read by :func:`outcome_of`."""
        outcome = self._outcome
        return {
            "paper_id": outcome.paper_id,
            "review": outcome.review.as_dict() if outcome.review else None,
            "reason": outcome.reason,
            "detail": outcome.detail,
            "answers": outcome.answers,
            "paid_now": outcome.paid_now,
        }
