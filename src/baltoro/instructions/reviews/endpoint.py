"""Merging reviews by a language model behind any OpenAI-compatible endpoint, without paying twice.

One request per paper, answers saved one by one (:mod:`~baltoro.instructions.reviews.answers`), several
endpoints and keys in turn, each within its own budget. What goes wrong is sorted into four: the request is
tried again (429, 5xx, a lost connection, the deadline); the endpoint refuses everything (key, quota, model)
and is left out; the request itself is refused; the answer has the wrong form and is sent back to be
corrected, a bounded number of times. A paper without an answer that can be used becomes a reject; many of
them in a row stop the run.

Good answers are never asked for again. Where all answers about a paper are of the wrong form, it is put anew
to another server, or to the same one if ``ask_again`` says so.
"""

from __future__ import annotations

import asyncio
import hashlib
import logging
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any
from weakref import WeakValueDictionary

from baltoro.instructions.reviews.answers import Answer, AnswerStore
from baltoro.instructions.reviews.aspects import AspectsError, MergedReview
from baltoro.instructions.reviews.budget import DAY_SECONDS, MINUTE_SECONDS
from baltoro.instructions.reviews.config import EndpointConfig
from baltoro.instructions.reviews.lanes import Clock, Lane, SystemClock, lanes_of
from baltoro.instructions.reviews.outcomes import (
    FAILED,
    INVALID,
    REFUSED,
    STOPPED,
    EndpointError,
    Estimate,
    MergeOutcome,
    MergeRequest,
    Spent,
)
from baltoro.instructions.reviews.prompt import (
    merge_messages,
    parse_answer,
    repair_messages,
    request_body,
    request_key,
)
from baltoro.instructions.reviews.transport import message_of, post, retry_after_seconds, utc, verdict_of

if TYPE_CHECKING:
    import aiohttp

_log = logging.getLogger(__name__)

_TELL_FROM_SECONDS = 20.0
_LONGEST_NAP_SECONDS = 300.0
_SHOWN_CHARACTERS = 200


class _RequestRefusedError(Exception):
    """The endpoint refuses this request whatever is tried; the text says why."""


class _NoAnswerError(Exception):
    """All tries of one request failed; the text says how the last one did."""


def four_characters_a_token(text: str) -> int:
    """Return a rough count of tokens, for estimates where no tokenizer is at hand."""
    return len(text) // 4 + 1


def review_in(answer: Answer) -> tuple[MergedReview | None, str]:
    """Return the review that an answer holds, or what is wrong with its form."""
    try:
        return parse_answer(answer.content, answer.finish_reason), ""
    except AspectsError as problem:
        return None, str(problem)


class EndpointMerger:
    """Merges papers' reviews through the configured endpoints; one object holds their budgets.

    Args:
        config: the settings.
        store: the saved answers.
        environment: where the keys are; a key's value is never logged or saved.
        count_tokens: counts a text's tokens, for budgets and the estimate.
        clock: where time comes from.

    Raises:
        ConfigError: a named environment variable is not set, or holds no key.
    """

    def __init__(
        self,
        config: EndpointConfig,
        store: AnswerStore,
        *,
        environment: Mapping[str, str],
        count_tokens: Callable[[str], int] = four_characters_a_token,
        clock: Clock | None = None,
    ) -> None:
        self.config = config
        self.store = store
        self._count_tokens = count_tokens
        self._clock = clock or SystemClock()
        self._lanes = lanes_of(config, environment)
        self._turn = 0
        self._in_vain: list[str] = []
        self._stopped = ""
        self._told_until = 0.0
        self._failures: Counter[str] = Counter()
        self._locks: WeakValueDictionary[str, asyncio.Lock] = WeakValueDictionary()
        answers = store.all_answers() if config.limited else []
        for lane in self._lanes:
            lane.budget.restore(
                (answer.finished_at, answer.prompt_tokens + answer.completion_tokens)
                for answer in answers
                if (answer.endpoint.rstrip("/"), answer.key_name) == (lane.url.rstrip("/"), lane.key_name)
            )

    def first_body(self, request: MergeRequest) -> dict[str, Any]:
        """Return the body of the first request for a paper; its hash names the saved answer."""
        return request_body(merge_messages(request.title, request.reviews), self.config)

    def estimate(self, requests: Sequence[MergeRequest]) -> Estimate:
        """Return what merging these papers will ask, cost and last."""
        bodies = {request_key(body): body for body in map(self.first_body, requests)}
        # An answer of the wrong form is sent back at once: one that stands alone is good, and is not read.
        doubtful = [key for key in bodies if self.store.count(key) > min(self.config.repair_tries, 1)]
        again = {
            key
            for key, answers in zip(doubtful, self.store.saved_to(doubtful), strict=True)
            if self._asks_anew(answers)
        }
        open_bodies = [body for key, body in bodies.items() if key in again or not self.store.count(key)]
        prompt_tokens = sum(self._body_tokens(body) for body in open_bodies)
        completion_tokens = self.config.expected_answer_tokens * len(open_bodies)
        seconds, limited_by = self._duration(len(open_bodies), prompt_tokens + completion_tokens)
        return Estimate(
            papers=len(requests),
            saved=len(requests) - len(open_bodies),
            asked_again=len(again),
            requests=len(open_bodies),
            prompt_tokens=prompt_tokens,
            completion_tokens=completion_tokens,
            cost=self.cost_of(prompt_tokens, completion_tokens),
            seconds=seconds,
            limited_by=limited_by,
        )

    def cost_of(self, prompt_tokens: int, completion_tokens: int) -> float | None:
        """Return the price of tokens; ``None`` if no prices are set."""
        if not self.config.priced:
            return None
        return (
            prompt_tokens * self.config.price_per_million_input_tokens
            + completion_tokens * self.config.price_per_million_output_tokens
        ) / 1e6

    async def merge(self, session: aiohttp.ClientSession, request: MergeRequest) -> MergeOutcome:
        """Return the outcome of one paper, from saved answers as far as they go.

        Once no endpoint is left, or too many papers in a row were asked for in vain, the outcome of all
        further ones that would have to be asked for is
        :data:`~baltoro.instructions.reviews.outcomes.STOPPED`.
        """
        messages: Sequence[Mapping[str, str]] = merge_messages(request.title, request.reviews)
        key = request_key(request_body(messages, self.config))
        # Two papers with the same words have one answer; the second waits for it.
        lock = self._locks.setdefault(key, asyncio.Lock())
        async with lock:
            return await self._merge(session, request, messages, key)

    async def _merge(
        self,
        session: aiohttp.ClientSession,
        request: MergeRequest,
        messages: Sequence[Mapping[str, str]],
        key: str,
    ) -> MergeOutcome:
        saved = await asyncio.to_thread(self.store.saved, key)
        again = self._asks_anew(saved)
        spent, in_all = Spent(), Spent()

        def outcome(review: MergedReview | None, reason: str = "", detail: str = "") -> MergeOutcome:
            return MergeOutcome(request.paper_id, review, reason, detail, spent, in_all, again)

        error = ""
        for answer in saved:
            in_all.add(answer.prompt_tokens, answer.completion_tokens)
            review, error = review_in(answer)
            if review is not None:
                return outcome(review)
        repair = saved[-1].repair + 1 if saved and not again else 0
        number = len(saved)
        while repair <= self.config.repair_tries:
            asked = messages if repair == 0 else repair_messages(messages, answer.content, error)
            body = request_body(asked, self.config)
            try:
                answer = await self._ask(
                    session, body, key, number, request.paper_id, repair=repair, spent=spent
                )
            except EndpointError as stop:
                return outcome(None, STOPPED, str(stop))
            except (_RequestRefusedError, _NoAnswerError) as failure:
                reason = REFUSED if isinstance(failure, _RequestRefusedError) else FAILED
                self._asked_in_vain(reason, str(failure))
                return outcome(None, reason, str(failure))
            in_all.add(answer.prompt_tokens, answer.completion_tokens)
            review, error = review_in(answer)
            if review is not None:
                self._in_vain.clear()
                return outcome(review)
            repair, number = repair + 1, number + 1
        shown = answer.content[:_SHOWN_CHARACTERS]
        detail = (
            f"none of {repair} answers had the right form; the last one: {error}; it "
            + (f"begins {shown!r}" if shown else "is empty")
        )  # fmt: skip
        if spent.requests:
            self._asked_in_vain(INVALID, detail)
        return outcome(None, INVALID, detail)

    def _asks_anew(self, saved: Sequence[Answer]) -> bool:
        """Return whether a request is to be put anew: it has answers, and all are of the wrong form."""
        if not saved or any(review_in(answer)[0] is not None for answer in saved):
            return False
        urls = {url.rstrip("/") for url in self.config.urls}
        return self.config.ask_again or not any(answer.endpoint.rstrip("/") in urls for answer in saved)

    # --- one request ----------------------------------------------------------------------------------

    async def _ask(
        self,
        session: aiohttp.ClientSession,
        body: Mapping[str, Any],
        key: str,
        number: int,
        paper_id: str,
        *,
        repair: int,
        spent: Spent,
    ) -> Answer:
        """Send one request until it is answered, and save the answer before anything reads it."""
        tokens = self._body_tokens(body)
        last = ""
        tries = 0
        while tries <= self.config.max_retries:
            lane = await self._free_lane(tokens + self.config.expected_answer_tokens)
            # No await between choosing a lane and spending its budget, or two requests would share one slot.
            use = lane.budget.spend(self._clock.now(), tokens + self.config.expected_answer_tokens)
            await asyncio.to_thread(self.store.mark_sent, key, number)
            spent.requests += 1
            headers = {"Idempotency-Key": f"{key}-{number}"}
            if lane.key:
                headers["Authorization"] = f"Bearer {lane.key}"
            reply = await post(
                session,
                f"{lane.url.rstrip('/')}/chat/completions",
                body,
                headers=headers,
                deadline_seconds=self.config.deadline_seconds,
            )
            verdict, last = verdict_of(reply)
            message = message_of(reply.body) if verdict == "answered" else None
            if message is not None:
                answer = Answer(
                    message.content,
                    message.finish_reason,
                    tokens if message.prompt_tokens is None else message.prompt_tokens,
                    self._count_tokens(message.content)
                    if message.completion_tokens is None
                    else message.completion_tokens,
                    message.prompt_tokens is not None and message.completion_tokens is not None,
                    lane.url,
                    lane.key_name,
                    repair,
                    self._clock.now(),
                )
                answer = await asyncio.to_thread(self.store.save, key, number, paper_id, answer)
                use.tokens = answer.prompt_tokens + answer.completion_tokens
                lane.failures = lane.rests = 0
                spent.add(answer.prompt_tokens, answer.completion_tokens)
                return answer
            if verdict == "answered":
                last = "HTTP 200 whose body is no chat completion"
            elif reply.status:
                use.tokens = 0
                await asyncio.to_thread(self.store.unmark, key, number)
            spent.fail(str(reply.status or "no_answer"))
            self._failures[str(reply.status or "no_answer")] += 1
            if verdict == "endpoint_refuses":
                lane.refused = last
                _log.warning("%s refuses and is left out: %s", lane.url, last)
                continue
            if verdict == "request_refused":
                raise _RequestRefusedError(last)
            tries += 1
            self._let_rest(lane, retry_after_seconds(reply, self._clock.now()))
            if tries <= self.config.max_retries:
                await self._clock.sleep(self._backoff_seconds(key, tries))
        raise _NoAnswerError(f"{tries} tries failed; the last one: {last}")

    async def _free_lane(self, tokens: int) -> Lane:
        """Return the next endpoint in turn that may be asked now, waiting for one if need be."""
        while True:
            if self._stopped:
                raise EndpointError(self._stopped)
            usable = [lane for lane in self._lanes if not lane.refused]
            if not usable:
                self._stopped = "every endpoint refuses: " + "; ".join(
                    dict.fromkeys(f"{lane.url} answers {lane.refused}" for lane in self._lanes)
                )
                raise EndpointError(self._stopped)
            now = self._clock.now()
            start = self._turn % len(usable)
            in_turn = usable[start:] + usable[:start]
            waits = [max(lane.rests_until - now, lane.budget.delay_seconds(now, tokens)) for lane in in_turn]
            shortest = min(waits)
            if shortest <= 0:
                self._turn += 1
                return in_turn[waits.index(shortest)]
            if shortest >= _TELL_FROM_SECONDS and now + shortest > self._told_until + 1:
                self._told_until = now + shortest
                _log.info("the budgets of all endpoints are spent; pausing until %s", utc(now + shortest))
            await self._clock.sleep(min(shortest, _LONGEST_NAP_SECONDS))

    def _let_rest(self, lane: Lane, asked_seconds: float | None) -> None:
        """Set an endpoint aside for what it asks for, or after too many failures in a row."""
        now = self._clock.now()
        lane.failures += 1
        if asked_seconds is not None:
            lane.rests_until = max(lane.rests_until, now + asked_seconds)
        elif lane.failures >= self.config.set_aside_after:
            lane.rests += 1
            lane.failures = 0
            rest = min(self.config.backoff_seconds * 2**lane.rests, self.config.max_backoff_seconds)
            lane.rests_until = max(lane.rests_until, now + rest)

    def _backoff_seconds(self, key: str, tries: int) -> float:
        """Return the wait before a retry: doubling, and spread by a hash so that requests do not march."""
        spread = int.from_bytes(hashlib.sha256(f"{key}/{tries}".encode()).digest()[:4], "big") / 2**32
        longest = min(self.config.backoff_seconds * 2.0 ** (tries - 1), self.config.max_backoff_seconds)
        return longest * (0.5 + spread / 2)

    def _asked_in_vain(self, reason: str, detail: str) -> None:
        """Count a paper that was asked for in vain; many in a row say that it is not for the papers."""
        self._in_vain.append(reason)
        if len(self._in_vain) >= self.config.stop_after_papers and not self._stopped:
            kinds = ", ".join(f"{count} {name}" for name, count in Counter(self._in_vain).items())
            failures = ", ".join(f"{count} of {name}" for name, count in self._failures.items())
            self._stopped = (
                f"{len(self._in_vain)} papers in a row stayed without an answer that can be used ({kinds})"
                + (f", after failed requests: {failures}" if failures else "")
                + f"; the last one: {detail}"
            )

    def _body_tokens(self, body: Mapping[str, Any]) -> int:
        # Four tokens a message for its role and delimiters, as chat formats add.
        return sum(self._count_tokens(message["content"]) + 4 for message in body["messages"])

    def _duration(self, requests: int, tokens: int) -> tuple[float, str]:
        """Return the seconds that requests take, and the limit they wait for most."""
        config, lanes = self.config, len(self._lanes)
        times = {"concurrency": requests * config.expected_answer_seconds / config.concurrency}
        for name, amount, length in (
            ("requests_per_minute", requests, MINUTE_SECONDS),
            ("tokens_per_minute", tokens, MINUTE_SECONDS),
            ("requests_per_day", requests, DAY_SECONDS),
            ("tokens_per_day", tokens, DAY_SECONDS),
        ):
            if limit := getattr(config, name):
                # What fits into the first window needs no wait.
                times[name] = max(amount / (limit * lanes) - 1, 0.0) * length
        limited_by = max(times, key=lambda name: times[name])
        return times[limited_by], limited_by
