"""Merging reviews on a cluster: Ray Data's HTTP processor asks, what it may and may not is decided here.

Budgets are counted in one process, so one actor holds all requests: hundreds under way cost it little, the
endpoint is what takes the time.
"""

from __future__ import annotations

import contextlib
import logging
import threading
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import Future
from typing import Any

import ray.data
from ray.data.llm import HttpRequestProcessorConfig, build_processor
from ray.exceptions import RayActorError
from ray.util.queue import Queue
from tqdm import tqdm

from baltoro.core.errors import PlatformError
from baltoro.core.storage import Storage
from baltoro.instructions.reviews.answers import AnswerStore
from baltoro.instructions.reviews.config import EndpointConfig
from baltoro.instructions.reviews.endpoint import EndpointMerger
from baltoro.instructions.reviews.outcomes import EndpointRun, MergeOutcome, MergeRequest
from baltoro.instructions.reviews.processor import ProcessorSessions, outcome_of, payload_of
from baltoro.instructions.reviews.run import announced, summed_up

_log = logging.getLogger(__name__)

_POLL_SECONDS = 0.5
_WORKER_DEATHS = 3
_ROUNDS_PER_BLOCK = 32
"""A block ends with its slowest answer; so many rounds of requests make that wait small."""


def merge_on_ray(
    requests: Sequence[MergeRequest],
    config: EndpointConfig,
    storage: Storage,
    answers_uri: str,
    *,
    environment: Mapping[str, str],
) -> EndpointRun:
    """Merge the reviews of all papers; the estimate is told before the first request.

    Args:
        requests: the papers.
        config: the endpoint settings.
        storage: where answers are saved.
        answers_uri: the folder of the answers.
        environment: where the keys are; only those that the settings name leave this process.

    Raises:
        ConfigError: a named environment variable is not set, or holds no key.
        PlatformError: the worker that asks died again and again.
        EndpointError: the endpoints are down or refuse; what was paid is saved, and the message says how to
            go on.
    """
    merger = EndpointMerger(config, AnswerStore(storage, answers_uri), environment=environment)
    estimate = announced(requests, merger)
    keys = {name: environment[name] for name in config.api_key_environment}
    outcomes: dict[int, MergeOutcome] = {}
    with _told(len(requests)) as queue:
        sessions = ProcessorSessions(config, storage, answers_uri, keys, _Tell(queue))
        for deaths in range(_WORKER_DEATHS + 1):
            left = [number for number in range(len(requests)) if number not in outcomes]
            try:
                for row in _asked(requests, left, config, sessions):
                    outcomes[row["number"]] = outcome_of(row)
                break
            except RayActorError as error:
                if deaths == _WORKER_DEATHS:
                    raise PlatformError(
                        f"the worker that asks the endpoints died {deaths + 1} times "
                        f"({str(error).splitlines()[0]}); see to the cluster (memory, nodes) and run the "
                        "same command again: what was answered is saved"
                    ) from None
                _log.warning("the worker that asks the endpoints died; another goes on from what is saved")
    return summed_up(estimate, [outcomes[number] for number in range(len(requests))], merger)


def _asked(
    requests: Sequence[MergeRequest],
    numbers: Sequence[int],
    config: EndpointConfig,
    sessions: ProcessorSessions,
) -> Iterator[dict[str, Any]]:
    """Yield the rows of some requests as they are answered."""
    if not numbers:
        return
    # What the worker raises (a full store, say) must arrive as it is, not as the text of a wrapper.
    ray.data.DataContext.get_current().raise_original_map_exception = True
    processor = build_processor(
        HttpRequestProcessorConfig(
            url=config.urls[0],
            batch_size=config.concurrency,
            concurrency=1,
            # It waits all the time; a CPU of its own would take one from work, or wait for one for ever.
            http_request_stage={"num_cpus": 0},
            session_factory=sessions,
        ),
        preprocess=_same,
        postprocess=_result,
        preprocess_map_kwargs={"num_cpus": 0},
        postprocess_map_kwargs={"num_cpus": 0},
    )
    # By itself Ray starts a dying worker again and again, without an end and without a word.
    processor.get_stage_by_name("HttpRequestStage").map_batches_kwargs["max_restarts"] = 0
    rows = [{"number": number, "payload": payload_of(requests[number])} for number in numbers]
    blocks = -(-len(rows) // (_ROUNDS_PER_BLOCK * config.concurrency))
    yield from processor(ray.data.from_items(rows, override_num_blocks=blocks)).iter_rows()


def _same(row: dict[str, Any]) -> dict[str, Any]:
    return row


def _result(row: dict[str, Any]) -> dict[str, Any]:
    return {"number": row["number"], "outcome": row["http_response"]["outcome"]}


class _Tell:
    """Sends what happens to the driver, without waiting for it."""

    def __init__(self, queue: Queue) -> None:
        self._queue = queue
        self._last: Future[None] | None = None

    def __call__(self, what: str | MergeOutcome) -> None:
        """Send.

        Raises:
            RayActorError: the driver has given the run up (interrupted, say). Ray by itself would let the
                worker go on asking, and paying, for as long as the driver's process lives.
        """
        if self._last is not None and self._last.done():
            self._last.result()
        said = ("said", what) if isinstance(what, str) else ("done", what.reason)
        self._last = self._queue.actor.put_nowait.remote(said).future()


@contextlib.contextmanager
def _told(papers: int) -> Iterator[Queue]:
    """Show a bar over the papers, and what the actor says, while the block runs."""
    queue = Queue(actor_options={"num_cpus": 0})
    stop = threading.Event()

    def show() -> None:
        reasons: Counter[str] = Counter()
        with tqdm(total=papers, desc="merging reviews", unit="paper", leave=False) as bar:
            ended = False
            while not ended:
                ended = stop.is_set()
                try:
                    news = queue.get_nowait_batch(queue.qsize())
                except RayActorError:
                    return  # its node is gone, which the worker finds out as well
                for kind, text in news:
                    if kind == "said":
                        bar.clear()
                        _log.info("%s", text)
                        continue
                    bar.update()
                    if text:
                        reasons[text] += 1
                        bar.set_postfix(reasons, refresh=False)
                stop.wait(_POLL_SECONDS)

    thread = threading.Thread(target=show, name="baltoro-merging", daemon=True)
    thread.start()
    try:
        yield queue
    finally:
        stop.set()
        thread.join()
        queue.shutdown(force=True)
