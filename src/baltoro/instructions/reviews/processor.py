"""What Ray Data's HTTP processor calls in place of an ``aiohttp`` session, so that nothing is paid twice.

``ray.data.llm.HttpRequestProcessorConfig`` (Ray 2.60) posts rows from an actor, but by itself it knows one
URL, counts requests only, ignores ``Retry-After``, takes a 401's JSON for an answer, ends the whole run with
one failed row, and hands an answer on only with the block it belongs to. It lets the caller bring the session
that posts: the one made here gives each row to
:class:`~baltoro.instructions.reviews.endpoint.EndpointMerger`, which keeps all of that, and answers every row
with a :class:`~baltoro.instructions.reviews.outcomes.MergeOutcome`, also one that failed.
"""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import Callable, Generator, Mapping
from contextlib import AsyncExitStack
from dataclasses import asdict
from typing import Any, Self

from baltoro.core.errors import ArtifactError
from baltoro.core.storage import Storage
from baltoro.instructions.reviews.answers import AnswerStore
from baltoro.instructions.reviews.aspects import AspectsError, from_json
from baltoro.instructions.reviews.config import EndpointConfig
from baltoro.instructions.reviews.endpoint import EndpointMerger
from baltoro.instructions.reviews.outcomes import MergeOutcome, MergeRequest, Spent
from baltoro.instructions.reviews.transport import http_session

Tell = Callable[[str | MergeOutcome], None]
"""Gets each outcome as it comes, and what people are to be told."""


def payload_of(request: MergeRequest) -> dict[str, str]:
    """Return the row payload of a request."""
    return {"paper_id": request.paper_id, "title": request.title, "reviews": request.reviews}


def outcome_of(response: Mapping[str, Any]) -> MergeOutcome:
    """Return the outcome that the processor's response holds.

    Raises:
        ArtifactError: it is none: the processor ran without this module's sessions.
    """
    try:
        fields = json.loads(response["outcome"])
        fields["review"] = from_json(fields["review"]) if fields["review"] else None
        return MergeOutcome(**fields | {name: Spent(**fields[name]) for name in ("spent", "in_all")})
    except (KeyError, TypeError, ValueError, AspectsError) as error:
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
        environment: the keys by the names that the settings give; they are in nobody's log.
        tell: see :data:`Tell`; picklable.
    """

    def __init__(
        self,
        config: EndpointConfig,
        storage: Storage,
        answers_uri: str,
        environment: Mapping[str, str],
        tell: Tell,
    ) -> None:
        self._settings = (config, storage, answers_uri, environment, tell)
        self._merger: EndpointMerger | None = None

    def __reduce__(self) -> tuple[Any, ...]:
        return ProcessorSessions, self._settings

    def __call__(self) -> ProcessorSession:
        """Return the session of one batch; all batches of a process share budgets, answers and slots."""
        config, storage, answers_uri, environment, tell = self._settings
        if self._merger is None:
            logger = logging.getLogger("baltoro")
            logger.setLevel(logging.INFO)
            logger.addHandler(_Teller(tell))
            self._merger = EndpointMerger(config, AnswerStore(storage, answers_uri), environment=environment)
            self._slots = asyncio.Semaphore(config.concurrency)
        return ProcessorSession(self._merger, self._slots, tell)


class _Teller(logging.Handler):
    """Hands log messages on: a worker's own log is read by no one."""

    def __init__(self, tell: Tell) -> None:
        super().__init__()
        self._tell = tell

    def emit(self, record: logging.LogRecord) -> None:
        self._tell(record.getMessage())


class ProcessorSession:
    """What the processor uses of an ``aiohttp.ClientSession``: ``post``, and entering and leaving."""

    def __init__(self, merger: EndpointMerger, slots: asyncio.Semaphore, tell: Tell) -> None:
        self._merger = merger
        self._slots = slots
        self._tell = tell
        self._stack = AsyncExitStack()

    async def __aenter__(self) -> Self:
        self._session = await self._stack.enter_async_context(http_session(self._merger.config.concurrency))
        return self

    async def __aexit__(self, *error: object) -> None:
        await self._stack.aclose()

    def post(self, url: str, *, headers: Mapping[str, str], data: str) -> _Pending:  # noqa: ARG002  (aiohttp's)
        """Begin one row; it runs at once, the processor collects the answers in order."""
        return _Pending(asyncio.ensure_future(self._merge(MergeRequest(**json.loads(data)))))

    async def _merge(self, request: MergeRequest) -> MergeOutcome:
        async with self._slots:
            outcome = await self._merger.merge(self._session, request)
        self._tell(outcome)
        return outcome


class _Pending:
    """A row under way; awaiting it gives its response."""

    def __init__(self, task: asyncio.Future[MergeOutcome]) -> None:
        self._task = task

    def __await__(self) -> Generator[Any, None, _Response]:
        outcome = yield from self._task.__await__()
        return _Response(outcome)


class _Response:
    """A row's outcome in the form of an HTTP response."""

    status = 200
    reason = "OK"

    def __init__(self, outcome: MergeOutcome) -> None:
        self._outcome = outcome

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *error: object) -> None:
        return None

    async def json(self) -> dict[str, str]:
        """Return the outcome in one text: in a column of structures every row would get all rows' keys."""
        fields = asdict(self._outcome)
        fields["review"] = self._outcome.review.as_dict() if self._outcome.review else None
        return {"outcome": json.dumps(fields)}
