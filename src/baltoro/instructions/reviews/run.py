"""One run over all papers: what it will cost first, then every paper, then what it took.

:func:`merge_with_endpoint` does it in this process. On a cluster :mod:`baltoro.instructions.pipeline` has the
papers asked for by Ray Data's HTTP processor; estimate, requests and sums are the same.
"""

from __future__ import annotations

import asyncio
import logging
import math
from collections import Counter
from collections.abc import Sequence

from baltoro.instructions.reviews.endpoint import EndpointMerger
from baltoro.instructions.reviews.outcomes import (
    FAILED,
    INVALID,
    REFUSED,
    STOPPED,
    EndpointError,
    EndpointRun,
    Estimate,
    MergeOutcome,
    MergeRequest,
    Spent,
)
from baltoro.instructions.reviews.transport import http_session

_log = logging.getLogger(__name__)

_REMEDIES = {
    FAILED: "see to the endpoint (urls, model, api_key_environment)",
    REFUSED: (
        "requests that are refused want another json_mode, max_answer_tokens, max_review_tokens or model"
    ),
    INVALID: (
        "answers of the wrong form want another model, json_mode, max_answer_tokens or more repair_tries; "
        "they stay saved, and the same request is sent anew to other urls only, or with ask_again=true"
    ),
}
"""What to change, all under ``instructions.reviews.endpoint``."""


def announced(requests: Sequence[MergeRequest], merger: EndpointMerger) -> Estimate:
    """Return what a run will take, and say it."""
    estimate = merger.estimate(requests)
    _log.info("%s", estimate.sentence())
    return estimate


def merge_with_endpoint(requests: Sequence[MergeRequest], merger: EndpointMerger) -> EndpointRun:
    """Merge the reviews of all papers; the estimate is told before the first request.

    Raises:
        EndpointError: the endpoints are down or refuse; what was paid is saved, and the message says how to
            go on.
    """
    estimate = announced(requests, merger)
    return summed_up(estimate, asyncio.run(_merge_all(requests, merger)), merger)


async def _merge_all(requests: Sequence[MergeRequest], merger: EndpointMerger) -> list[MergeOutcome]:
    slots = asyncio.Semaphore(merger.config.concurrency)
    async with http_session(merger.config.concurrency) as session:

        async def one(request: MergeRequest) -> MergeOutcome:
            async with slots:
                return await merger.merge(session, request)

        # Not a task group: it would wrap what one of them raises, and hide the sentence.
        return await asyncio.gather(*map(one, requests))


def summed_up(estimate: Estimate, outcomes: Sequence[MergeOutcome], merger: EndpointMerger) -> EndpointRun:
    """Return what a run came to.

    Args:
        estimate: what was told before.
        outcomes: one per request, in their order.
        merger: knows prices and saved answers.

    Raises:
        EndpointError: the run was stopped, or too many papers stayed without an answer that can be used;
            what was paid is saved, and the message says what to change.
    """
    config = merger.config
    stopped = next((outcome.detail for outcome in outcomes if outcome.reason == STOPPED), "")
    failed = [outcome for outcome in outcomes if outcome.reason in _REMEDIES]
    reasons = Counter(outcome.reason for outcome in failed)
    remedies = [_REMEDIES[reason] for reason in _REMEDIES if reason in reasons] or [_REMEDIES[FAILED]]
    if not stopped and len(failed) > config.max_failed_fraction * len(outcomes):
        kinds = ", ".join(f"{count} {reason}" for reason, count in reasons.items())
        stopped = (
            f"{len(failed)} of {len(outcomes)} papers stayed without an answer that can be used ({kinds}); "
            f"the last one: {failed[-1].detail}"
        )
        if len(failed) < len(outcomes):
            fraction = math.ceil(1000 * len(failed) / len(outcomes)) / 1000
            remedies.append(f"or max_failed_fraction={fraction:g}, which makes them rejects")
    if stopped:
        merged = sum(outcome.review is not None for outcome in outcomes)
        raise EndpointError(
            f"{stopped}. {merged} of {len(outcomes)} papers are merged and their answers saved. Under "
            f"instructions.reviews.endpoint: {'; '.join(remedies)}. Then run the same command again: it goes "
            "on from there and pays for none of them twice, unless the request itself is changed"
        )
    spent = sum((outcome.spent for outcome in outcomes), Spent())
    in_all = sum((outcome.in_all for outcome in outcomes), Spent())
    return EndpointRun(
        list(outcomes),
        estimate,
        spent,
        asked_again=sum(outcome.asked_again for outcome in outcomes),
        answers_reused=sum(outcome.in_all.answers > 0 == outcome.spent.answers for outcome in outcomes),
        cost=merger.cost_of(spent.prompt_tokens, spent.completion_tokens),
        cost_of_set=merger.cost_of(in_all.prompt_tokens, in_all.completion_tokens),
        possibly_charged_lost=merger.store.listed_again().lost,
    )
