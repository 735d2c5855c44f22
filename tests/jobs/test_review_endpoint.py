"""Reviews merged through Ray Data's HTTP processor: as in one process, and nothing is paid for twice."""

import logging
import os
import signal
import threading
import time
from pathlib import Path

import psutil
import pytest

from baltoro.core.errors import ConfigError, StorageError
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


def asking_workers() -> list[psutil.Process]:
    return [
        process
        for process in psutil.process_iter(["cmdline"])
        if "HttpRequestUDF" in " ".join(process.info["cmdline"] or ())
    ]


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
    import ray

    secret = "sesame-8431-open"
    with running_chat_server(key=secret) as server:
        config = config_for(server, api_key_environment=("REVIEW_KEY",))
        with pytest.raises(ConfigError, match=r"api_key_environment\.0: .* REVIEW_KEY is not set; export"):
            merged(config, tmp_path, 2)
        run = merged(config, tmp_path, 2, {"REVIEW_KEY": f"{secret}\n", "OTHER": "x"})
    assert [outcome.review for outcome in run.outcomes] == [from_json(GOOD)] * 2
    assert not any(secret in path.read_text() for path in tmp_path.rglob("*.json"))
    logs = Path(ray._private.worker._global_node.get_logs_dir_path())
    texts = [path.read_text(errors="replace") for path in logs.rglob("*") if path.is_file()]
    assert any("HttpRequestUDF" in text for text in texts)
    assert not any(secret in text for text in texts)


def test_a_server_whose_answers_cannot_be_used_stops_the_run_and_another_is_asked_anew(tmp_path):
    settings = {"repair_tries": 1, "stop_after_papers": 3}
    with running_chat_server(["malformed"] * 200) as broken, running_chat_server() as good:
        with pytest.raises(
            EndpointError,
            match=r"3 papers in a row stayed .* \(3 invalid_answer\).* run the same command again",
        ):
            merged(config_for(broken, **settings), tmp_path, 40)
        assert 6 <= broken.total_charged <= 10
        run = merged(config_for(good, **settings), tmp_path, 40)
        assert all(outcome.review == from_json(GOOD) for outcome in run.outcomes)
        # Papers whose repair was still to come when the run stopped have answers of the wrong form, too.
        assert 3 <= run.asked_again <= 5
        assert good.total_charged == 40


def test_what_a_store_refuses_in_the_worker_reaches_people_as_one_sentence():
    with running_chat_server() as server, pytest.raises(StorageError) as caught:
        merged(config_for(server), "/proc/nowhere/answers", 2)
    assert caught.value.message.startswith("cannot write /proc/nowhere/answers/")
    assert "\n" not in caught.value.message
    assert server.requests == []


def test_no_papers_and_fewer_than_may_be_under_way_are_merged(tmp_path):
    with running_chat_server() as server:
        assert merged(config_for(server), tmp_path, 0).outcomes == []
        run = merged(config_for(server, concurrency=64), tmp_path, 3)
    assert [outcome.paper_id for outcome in run.outcomes] == ["s/p0", "s/p1", "s/p2"]


def test_a_worker_that_dies_is_replaced_and_goes_on(tmp_path, caplog):
    papers, concurrency = 16, 2
    killed = []
    # Of a run that failed in an earlier test, one may not be gone yet.
    others = set(asking_workers())

    def kill() -> None:
        wait_for_charges(server, papers // 2)
        for process in set(asking_workers()) - others:
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


@pytest.fixture
def interruptible():
    """Let SIGINT interrupt: what a shell starts in the background has it ignored."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.mark.usefixtures("interruptible")
def test_after_an_interruption_nothing_more_is_asked(tmp_path):
    """The driver's process lives on: what Ray would go on with costs money."""

    def interrupt() -> None:
        wait_for_charges(server, 6, timeout_seconds=60)
        os.kill(os.getpid(), signal.SIGINT)

    with running_chat_server(delay_seconds=0.2) as server:
        interrupter = threading.Thread(target=interrupt)
        interrupter.start()
        with pytest.raises(KeyboardInterrupt):
            merged(config_for(server), tmp_path, 60)
        interrupter.join()
        time.sleep(3)
        assert server.total_charged <= 16
