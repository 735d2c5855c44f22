"""One run over all papers: what it will cost first, then every paper, then what it took.

:func:`merge_with_endpoint` does it in this process. On a cluster :mod:`baltoro.instructions.pipeline` has the
papers asked for by Ray Data's HTTP processor; estimate, requests and sums are the same.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Sequence

from baltoro.instructions.reviews.endpoint import EndpointMerger
from baltoro.instructions.reviews.outcomes import (
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
        EndpointError: the run was stopped, or too many papers stayed without an answer; what was paid is
            saved, and the message says how to go on.
    """
    config = merger.config
    stopped = next((outcome.detail for outcome in outcomes if outcome.reason == STOPPED), "")
    failed = [outcome for outcome in outcomes if outcome.reason == "endpoint_failed"]
    if not stopped and len(failed) > config.max_failed_fraction * len(outcomes):
        stopped = f"{len(failed)} of {len(outcomes)} papers stayed without an answer ({failed[0].detail})"
    if stopped:
        merged = sum(outcome.review is not None for outcome in outcomes)
        raise EndpointError(
            f"{stopped}. {merged} of {len(outcomes)} papers are merged and their answers saved; see to the "
            "endpoint (instructions.reviews.endpoint: urls, model, api_key_environment) and run the same "
            "command again: it goes on from there and pays for none of them twice"
        )
    spent = sum((outcome.spent for outcome in outcomes), Spent())
    in_all = sum((outcome.in_all for outcome in outcomes), Spent())
    return EndpointRun(
        list(outcomes),
        estimate,
        spent,
        answers_reused=sum(outcome.in_all.answers > 0 == outcome.spent.answers for outcome in outcomes),
        cost=merger.cost_of(spent.prompt_tokens, spent.completion_tokens),
        cost_of_set=merger.cost_of(in_all.prompt_tokens, in_all.completion_tokens),
        possibly_charged_lost=merger.store.listed_again().lost,
    )
