"""Reviews merged through Ray Data's HTTP processor: as in one process, and nothing is paid for twice."""

import logging
import signal
import threading

import psutil
import pytest

from baltoro.core.errors import ConfigError
from baltoro.core.storage import Storage
from baltoro.instructions.reviews.answers import AnswerStore
from baltoro.instructions.reviews.aspects import from_json
from baltoro.instructions.reviews.config import EndpointConfig
from baltoro.instructions.reviews.endpoint import EndpointMerger
from baltoro.instructions.reviews.outcomes import EndpointError, MergeRequest
from baltoro.instructions.reviews.run import merge_with_endpoint
from baltoro.testing.chat_server import GOOD, running_chat_server, wait_for_charges

pytestmark = [pytest.mark.jobs, pytest.mark.timeout(300), pytest.mark.usefixtures("ray_session")]

FAULTS = ["ok", "429", "malformed", "500", "silent", "invalid", "drop", "400", "503"]


def requests_for(papers: int) -> list[MergeRequest]:
    return [
        MergeRequest(f"s/p{index}", f"Title {index}", f"Review of paper {index}.") for index in range(papers)
    ]


def config_for(server, **settings) -> EndpointConfig:
    base = {
        "model": "m", "concurrency": 2, "backoff_seconds": 0.001, "max_backoff_seconds": 0.02,
        "deadline_seconds": 2.0,
    }  # fmt: skip
    return EndpointConfig(urls=(server.url,), **(base | settings))


def merged(config, folder, papers, environment=()):
    from baltoro.instructions.pipeline import merge_on_ray

    return merge_on_ray(requests_for(papers), config, Storage(), str(folder), environment=dict(environment))


def test_the_processor_gives_what_one_process_gives(tmp_path):
    """One request at a time, so that each meets the same fault."""
    runs = []
    for name in ("here", "ray"):
        with running_chat_server(FAULTS) as server:
            config = config_for(server, concurrency=1, max_failed_fraction=0.1)
            if name == "ray":
                runs.append(merged(config, tmp_path / name, 12))
            else:
                store = AnswerStore(Storage(), str(tmp_path / name))
                merger = EndpointMerger(config, store, environment={})
                runs.append(merge_with_endpoint(requests_for(12), merger))
            assert server.total_charged == runs[-1].spent.answers + runs[-1].possibly_charged_lost
    here, on_ray = runs
    assert on_ray.outcomes == here.outcomes
    assert on_ray.spent == here.spent
    assert on_ray.spent.answers == 11 + 2
    assert on_ray.possibly_charged_lost == here.possibly_charged_lost == 2
    assert [outcome.reason for outcome in on_ray.outcomes if outcome.review is None] == ["request_refused"]
    assert on_ray.outcomes[0].review == from_json(GOOD)


def test_keys_reach_the_worker_and_no_saved_answer(tmp_path):
    with running_chat_server(key="secret") as server:
        config = config_for(server, api_key_environment=("REVIEW_KEY",))
        with pytest.raises(ConfigError, match=r"api_key_environment\.0: .* REVIEW_KEY is not set; export"):
            merged(config, tmp_path, 2)
        run = merged(config, tmp_path, 2, {"REVIEW_KEY": "secret", "OTHER": "x"})
    assert [outcome.review for outcome in run.outcomes] == [from_json(GOOD)] * 2
    assert not any("secret" in path.read_text() for path in tmp_path.rglob("*.json"))


def test_a_worker_that_dies_is_replaced_and_goes_on(tmp_path, caplog):
    papers, concurrency = 16, 2
    killed = []

    def kill() -> None:
        wait_for_charges(server, papers // 2)
        for process in psutil.process_iter(["name", "cmdline"]):
            if "HttpRequestUDF" in " ".join(process.info["cmdline"] or ()):
                process.send_signal(signal.SIGKILL)
                killed.append(process.pid)

    with running_chat_server(delay_seconds=0.1) as server, caplog.at_level(logging.INFO):
        killer = threading.Thread(target=kill)
        killer.start()
        run = merged(config_for(server, concurrency=concurrency), tmp_path, papers)
        killer.join()
        assert len(killed) == 1
        assert all(outcome.review == from_json(GOOD) for outcome in run.outcomes)
        twice = [count for count in server.charged.values() if count > 1]
        assert len(twice) <= concurrency
        assert set(twice) <= {2}
        # What was under way when it died may have been paid for nothing, and is told so.
        assert len(twice) <= run.possibly_charged_lost <= concurrency
    assert "the worker that asks the endpoints died; another goes on" in caplog.text


def test_an_endpoint_that_refuses_ends_the_run_with_one_sentence_and_what_is_saved(tmp_path, caplog):
    with running_chat_server(["ok", "401"]) as server:
        config = config_for(server, concurrency=1)
        with (
            caplog.at_level(logging.INFO),
            pytest.raises(
                EndpointError, match=r"every endpoint refuses: .* 1 of 5 papers are merged .* run the same"
            ),
        ):
            merged(config, tmp_path, 5)
        # What the worker says reaches the people who wait.
        assert "refuses and is left out" in caplog.text
        run = merged(config, tmp_path, 5)
        assert (run.answers_reused, run.spent.answers, server.total_charged) == (1, 4, 5)
