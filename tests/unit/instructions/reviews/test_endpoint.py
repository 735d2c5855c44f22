"""Merging through an endpoint that fails in every way it can, and never paying twice."""

import asyncio
import json
import logging
import os
import signal
import subprocess
import sys
import time

import pytest

from baltoro.core.errors import ArtifactError, ConfigError
from baltoro.core.storage import Storage
from baltoro.instructions.reviews.answers import AnswerStore
from baltoro.instructions.reviews.aspects import from_json
from baltoro.instructions.reviews.config import EndpointConfig
from baltoro.instructions.reviews.endpoint import EndpointMerger
from baltoro.instructions.reviews.lanes import lanes_of
from baltoro.instructions.reviews.outcomes import EndpointError, MergeRequest
from baltoro.instructions.reviews.processor import ProcessorSessions
from baltoro.instructions.reviews.run import announced, merge_with_endpoint
from baltoro.testing.chat_server import GOOD, running_chat_server, wait_for_charges

REVIEW = from_json(GOOD)


def _requests(number):
    return [
        MergeRequest(f"s/p{index}", f"Title {index}", f"Review of paper {index}.") for index in range(number)
    ]


def _config(*servers, **settings):
    base = {
        "model": "m", "concurrency": 1, "backoff_seconds": 0.001, "max_backoff_seconds": 0.02,
        "deadline_seconds": 2.0, "max_failed_fraction": 0.0,
    }  # fmt: skip
    return EndpointConfig(urls=tuple(server.url for server in servers), **(base | settings))


def _run(config, folder, requests, environment=(), clock=None):
    store = AnswerStore(Storage(), str(folder))
    merger = EndpointMerger(config, store, environment=dict(environment), clock=clock)
    return merge_with_endpoint(requests, merger)


def test_a_good_answer_is_asked_for_as_json_saved_and_reused(tmp_path):
    with running_chat_server(key="secret") as server:
        config = _config(
            server,
            api_key_environment=("KEY",),
            price_per_million_input_tokens=10.0,
            price_per_million_output_tokens=100.0,
        )
        run = _run(config, tmp_path, _requests(3), {"KEY": "secret"})
        assert [outcome.review for outcome in run.outcomes] == [REVIEW] * 3
        assert [outcome.paper_id for outcome in run.outcomes] == ["s/p0", "s/p1", "s/p2"]
        path, _, body = server.requests[0]
        assert (path, body["model"], body["response_format"]) == (
            "/v1/chat/completions",
            "m",
            {"type": "json_object"},
        )
        assert "Review of paper 0." in body["messages"][1]["content"]
        assert "JSON" in body["messages"][1]["content"]
        assert (run.spent.answers, run.spent.prompt_tokens, run.spent.completion_tokens) == (3, 300, 60)
        assert run.cost == pytest.approx(300 * 10e-6 + 60 * 100e-6)
        again = _run(config, tmp_path, _requests(4), {"KEY": "secret"})
        assert server.total_charged == 4
        assert (again.estimate.saved, again.estimate.requests, again.answers_reused, again.spent.answers) == (
            3,
            1,
            3,
            1,
        )
        assert again.cost_of_set == pytest.approx(run.cost / 3 * 4)
        assert again.possibly_charged_lost == 0
    assert not any("secret" in path.read_text() for path in tmp_path.rglob("*.json"))


@pytest.mark.parametrize(
    "fault", ["429", "429-date", "500", "503", "drop", "half", "no-envelope", "slow", "silent", "drip"]
)
def test_what_passes_is_tried_again(tmp_path, fault):
    with running_chat_server([fault]) as server:
        server.slow_seconds = 1.0
        config = _config(server, deadline_seconds=0.4 if fault in ("slow", "silent", "drip") else 5.0)
        start = time.monotonic()
        run = _run(config, tmp_path, _requests(2))
        assert [outcome.review for outcome in run.outcomes] == [REVIEW] * 2
        assert time.monotonic() - start < 4
        assert len(server.requests) == run.spent.requests == 3
        kind = fault[:3] if fault[0].isdigit() else ("200" if fault == "no-envelope" else "no_answer")
        assert run.spent.failures == {kind: 1}
        # The server worked for what it did not refuse: the run says that it may have been charged.
        assert run.possibly_charged_lost == server.total_charged - 2 == (0 if fault[0].isdigit() else 1)


@pytest.mark.parametrize(
    ("fault", "words"),
    [
        ("malformed", "not valid JSON"),
        ("invalid", "'strengths' is not one of"),
        ("cut", "cut off"),
        ("empty", "not valid JSON"),
    ],
)
def test_an_answer_of_the_wrong_form_is_sent_back_with_what_is_wrong(tmp_path, fault, words):
    with running_chat_server([fault]) as server:
        run = _run(_config(server), tmp_path, _requests(1))
        assert run.outcomes[0].review == REVIEW
        assert (run.outcomes[0].in_all.answers, run.outcomes[0].spent.answers) == (2, 2)
        repair = server.requests[1][2]["messages"]
        assert [message["role"] for message in repair] == ["system", "user", "assistant", "user"]
        assert words in repair[3]["content"]
        again = _run(_config(server), tmp_path, _requests(1))
        assert (again.outcomes[0].review, again.spent.answers, server.total_charged) == (REVIEW, 0, 2)


def test_repair_tries_are_bounded_also_over_runs(tmp_path):
    with running_chat_server(["invalid"] * 9) as server:
        for _ in range(2):
            config = _config(server, repair_tries=2, max_failed_fraction=1.0)
            (outcome,) = _run(config, tmp_path, _requests(1)).outcomes
            assert (outcome.review, outcome.reason, outcome.in_all.answers) == (None, "invalid_answer", 3)
            assert "none of 3 answers had the right form" in outcome.detail
            assert """it begins '{"Strengths": ["sound"]}'""" in outcome.detail
        assert server.total_charged == 3
        server.script.clear()
        assert _run(_config(server, repair_tries=3), tmp_path, _requests(1)).outcomes[0].review == REVIEW
        assert server.total_charged == 4


@pytest.mark.parametrize("fault", ["401", "402", "403", "404", "429-quota", "redirect"])
def test_an_endpoint_that_refuses_stops_the_run_with_what_is_saved(tmp_path, fault):
    with running_chat_server(["ok", fault]) as server:
        with pytest.raises(EndpointError) as caught:
            _run(_config(server), tmp_path, _requests(4))
        message = caught.value.message
        assert "every endpoint refuses" in message
        assert "1 of 4 papers are merged and their answers saved" in message
        assert "run the same command again" in message
        assert len(server.requests) == 2
        run = _run(_config(server), tmp_path, _requests(4))
        assert (run.answers_reused, run.spent.answers, server.total_charged) == (1, 3, 4)


def test_an_endpoint_that_is_down_stops_the_run(tmp_path):
    with running_chat_server() as server:
        pass
    with pytest.raises(
        EndpointError, match=r"3 papers in a row stayed without an answer.*0 of 9 papers are merged"
    ):
        _run(_config(server, max_retries=1, stop_after_papers=3), tmp_path, _requests(9))


def test_few_failed_papers_are_rejects_only_if_that_is_allowed(tmp_path):
    script = ["ok", "500", "500", "ok", "400"]
    with running_chat_server(script) as server:
        run = _run(_config(server, max_retries=1, max_failed_fraction=0.5), tmp_path / "a", _requests(4))
        assert [outcome.reason for outcome in run.outcomes] == ["", "endpoint_failed", "", "request_refused"]
        assert "HTTP 400: told to fail: 400" in run.outcomes[3].detail
        server.script += script
        with pytest.raises(EndpointError, match=r"2 of 4 papers stayed without .*=0\.5, which makes"):
            _run(_config(server, max_retries=1), tmp_path / "b", _requests(4))


def test_endpoints_take_turns_and_a_failing_one_is_left_out(tmp_path):
    with (
        running_chat_server() as good,
        running_chat_server(["500"] * 99) as bad,
        running_chat_server(key="x") as refusing,
    ):
        config = _config(
            good,
            bad,
            refusing,
            set_aside_after=2,
            max_backoff_seconds=60.0,
            backoff_seconds=0.01,
            max_retries=9,
        )
        run = _run(config, tmp_path, _requests(12))
        assert all(outcome.review == REVIEW for outcome in run.outcomes)
        assert good.total_charged == 12
        assert len(refusing.requests) == 1
        assert 2 <= len(bad.requests) <= 8
    with running_chat_server() as one, running_chat_server() as other:
        _run(_config(one, other), tmp_path / "turns", _requests(6))
        assert (one.total_charged, other.total_charged) == (3, 3)


def test_several_keys_of_one_url_take_turns(tmp_path):
    with running_chat_server() as server:
        config = _config(server, api_key_environment=("A", "B"))
        _run(config, tmp_path, _requests(4), {"A": "ka", "B": "kb"})
        sent = [headers["Authorization"] for _, headers, _ in server.requests]
        assert sent == ["Bearer ka", "Bearer kb"] * 2
        with pytest.raises(
            ConfigError, match=r"api_key_environment.1: the environment variable B is not set"
        ):
            _run(config, tmp_path, [], {"A": "ka"})


class _FakeClock:
    """A clock on which sleeping takes no time."""

    def __init__(self):
        self.time, self.slept = 1_000_000.0, 0.0

    def now(self):
        return self.time

    async def sleep(self, seconds):
        self.time += seconds
        self.slept += seconds
        await asyncio.sleep(0)


@pytest.mark.parametrize(
    ("limits", "seconds"),
    [
        ({"requests_per_minute": 2}, 120),
        ({"tokens_per_minute": 1000}, 120),
        ({"requests_per_day": 4}, 86_400),
        ({"tokens_per_day": 1000}, 172_800),
    ],
)
def test_a_spent_budget_pauses_and_goes_on(tmp_path, caplog, limits, seconds):
    clock = _FakeClock()
    with running_chat_server() as server, caplog.at_level(logging.INFO):
        run = _run(_config(server, **limits), tmp_path, _requests(6), clock=clock)
        assert all(outcome.review == REVIEW for outcome in run.outcomes)
        assert clock.slept == pytest.approx(seconds, abs=1)
        assert server.total_charged == 6
    assert "pausing until" in caplog.text
    assert run.estimate.limited_by == next(iter(limits))


def test_a_budget_of_a_day_goes_on_over_a_restart(tmp_path):
    clock = _FakeClock()
    with running_chat_server() as server:
        config = _config(server, requests_per_day=3)
        _run(config, tmp_path, _requests(3), clock=clock)
        assert clock.slept == 0
        clock.time += 4000
        _run(config, tmp_path, _requests(4), clock=clock)
        assert clock.slept == pytest.approx(86_400 - 4000, abs=1)


def test_cost_and_days_are_told_before_the_first_request(tmp_path, caplog):
    with running_chat_server() as server, caplog.at_level(logging.INFO):
        config = _config(
            server, requests_per_day=10, price_per_million_output_tokens=2000.0, expected_answer_tokens=500
        )
        merger = EndpointMerger(config, AnswerStore(Storage(), str(tmp_path)), environment={})
        announced(_requests(40), merger)
        assert server.requests == []
    assert "takes 40 requests (0 are answered already)" in caplog.text
    assert "out (costs about 40.00), and lasts about 3.00 days (limited by requests_per_day)" in caplog.text


def test_without_prices_no_cost_is_told(tmp_path):
    with running_chat_server() as server:
        run = _run(_config(server), tmp_path, _requests(1))
    assert (run.cost, run.cost_of_set, run.estimate.cost) == (None, None, None)
    assert "(prices are not set)" in run.estimate.sentence()
    assert "0.00 days" in run.estimate.sentence()


# --- answers of the wrong form, and refusals, from a server that is broken for good ------------------


@pytest.mark.parametrize(
    ("fault", "words"),
    [
        (
            "malformed",
            r"5 papers in a row stayed without an answer that can be used \(5 invalid_answer\); the last "
            r"one: none of 3 answers had the right form; the last one: it is not valid JSON .*; it begins "
            r"""'\{"Significance and novelty": .* 0 of 40 papers are merged .* another model, json_mode, """
            r"max_answer_tokens or more repair_tries; .* or with ask_again=true.* run the same command again",
        ),
        ("empty", "it is empty"),
        (
            "400",
            r"5 papers in a row .* \(5 request_refused\), after failed requests: 5 of 400; the last one: "
            r"HTTP 400: told to fail.* requests that are refused want another json_mode",
        ),
    ],
)
def test_a_server_whose_answers_cannot_be_used_stops_the_run(tmp_path, fault, words):
    with running_chat_server([fault] * 200) as server:
        with pytest.raises(EndpointError, match=words) as caught:
            _run(_config(server, max_failed_fraction=1.0), tmp_path, _requests(40))
        assert "which makes them rejects" not in caught.value.message
        assert len(server.requests) == (5 if fault == "400" else 15)


@pytest.mark.parametrize("fault", ["malformed", "400"])
def test_a_set_smaller_than_the_papers_in_a_row_is_no_set_either(tmp_path, fault):
    with (
        running_chat_server([fault] * 99) as server,
        pytest.raises(
            EndpointError, match="3 of 3 papers stayed without an answer that can be used"
        ) as caught,
    ):
        _run(_config(server, max_failed_fraction=0.4), tmp_path, _requests(3))
    assert "max_failed_fraction" not in caught.value.message


def test_few_answers_of_the_wrong_form_are_rejects(tmp_path):
    with running_chat_server(["malformed", "malformed"]) as server:
        config = _config(server, repair_tries=1, max_failed_fraction=0.25)
        run = _run(config, tmp_path, _requests(4))
    assert [outcome.reason for outcome in run.outcomes] == ["invalid_answer", "", "", ""]


def test_good_answers_in_between_start_the_count_of_papers_in_a_row_anew(tmp_path):
    with running_chat_server(["malformed", "400", "ok"] * 3) as server:
        config = _config(server, repair_tries=0, max_failed_fraction=1.0, stop_after_papers=3)
        run = _run(config, tmp_path, _requests(9))
    assert [outcome.reason for outcome in run.outcomes] == ["invalid_answer", "request_refused", ""] * 3


def test_bad_answers_are_asked_for_anew_from_another_server_and_good_ones_never(tmp_path):
    with running_chat_server(["ok", *["malformed"] * 6]) as bad, running_chat_server() as good:
        config = {"repair_tries": 1, "stop_after_papers": 3}
        with pytest.raises(EndpointError, match="3 papers in a row"):
            _run(_config(bad, **config), tmp_path, _requests(5))
        charged = bad.total_charged
        with pytest.raises(EndpointError, match=r"3 of 5 papers .* \(3 invalid_answer\)"):
            _run(_config(bad, **config), tmp_path, _requests(5))
        assert bad.total_charged == charged + 1
        run = _run(_config(good, **config), tmp_path, _requests(5))
        assert [outcome.review for outcome in run.outcomes] == [REVIEW] * 5
        assert (run.asked_again, run.answers_reused, run.spent.answers, good.total_charged) == (3, 2, 3, 3)
        assert (run.estimate.requests, run.estimate.saved, run.estimate.asked_again) == (3, 2, 3)
        assert "(2 are answered already, 3 anew as all their answers were" in run.estimate.sentence()
        # The corrected request is the first one again, not a repair of what another server said.
        assert [len(body["messages"]) for _, _, body in good.requests] == [2, 2, 2]
        again = _run(_config(bad, good, ask_again=True), tmp_path, _requests(5))
        assert (again.spent.requests, again.asked_again, again.answers_reused) == (0, 0, 5)


def test_the_same_server_is_asked_anew_only_if_told_and_its_repairs_are_bounded_again(tmp_path):
    with running_chat_server(["malformed"] * 4) as server:
        config = {"repair_tries": 1, "max_failed_fraction": 1.0}
        for ask_again, charged in ((False, 2), (False, 2), (True, 4), (False, 4), (True, 5)):
            run = _run(_config(server, ask_again=ask_again, **config), tmp_path, _requests(1))
            assert server.total_charged == charged
    assert run.outcomes[0].review == REVIEW
    assert run.outcomes[0].in_all.answers == 5
    assert sorted(path.name for path in tmp_path.rglob("*.json")) == [f"{n}.json" for n in range(5)]
    keys = [headers["Idempotency-Key"] for _, headers, _ in server.requests]
    assert len(set(keys)) == 5


def test_two_papers_with_the_same_words_are_asked_for_once(tmp_path):
    twins = [MergeRequest(f"s/p{number}", "Title", "The same review.") for number in range(2)]
    with running_chat_server(delay_seconds=0.1) as server:
        run = _run(_config(server, concurrency=2), tmp_path, twins)
    assert [outcome.review for outcome in run.outcomes] == [REVIEW] * 2
    assert server.total_charged == 1


# --- keys and budgets --------------------------------------------------------------------------------


def test_a_budget_of_a_day_belongs_to_url_and_key_wherever_they_stand_in_the_list(tmp_path):
    clock = _FakeClock()
    with running_chat_server() as old, running_chat_server() as new:
        _run(_config(old, requests_per_day=2), tmp_path, _requests(2), clock=clock)
        _run(_config(new, old, requests_per_day=2), tmp_path, _requests(4), clock=clock)
        assert (old.total_charged, new.total_charged, clock.slept) == (2, 2, 0)
        one = {"KEY": "a"}
        _run(
            _config(old, requests_per_day=2, api_key_environment=("KEY",)), tmp_path, _requests(6), one, clock
        )
        assert (old.total_charged, clock.slept) == (4, 0)
        both = {"OTHER": "b", "KEY": "a"}
        config = _config(old, requests_per_day=2, api_key_environment=("OTHER", "KEY"))
        _run(config, tmp_path, _requests(8), both, clock)
        sent = [headers["Authorization"] for _, headers, _ in old.requests[4:]]
        assert (sent, clock.slept) == (["Bearer b"] * 2, 0)


def test_one_url_with_one_key_is_named_once():
    url, other = "http://h/v1", "http://o/v1"
    for urls, keys in (((url, url), ()), ((url,), ("A", "A")), ((url, url), ("A", "A"))):
        with pytest.raises(ValueError, match="name one url with one key twice"):
            EndpointConfig(urls=urls, api_key_environment=keys)
    for urls, keys in (((url, url), ("A", "B")), ((url, other), ("A", "A")), ((url, other), ("A",))):
        EndpointConfig(urls=urls, api_key_environment=keys)


def test_a_key_loses_the_line_end_of_its_file(tmp_path):
    with running_chat_server(key="secret") as server:
        run = _run(_config(server, api_key_environment=("KEY",)), tmp_path, _requests(1), {"KEY": "secret\n"})
    assert run.outcomes[0].review == REVIEW


@pytest.mark.parametrize(
    ("value", "complaint"),
    [
        ("se\ncret", "the key in KEY has a line break"),
        ("s\u00e9cret", "a character that no HTTP header can carry"),
        ("se\x00cret", "a character that no HTTP header can carry"),
        (" \n", "the environment variable KEY is not set"),
    ],
)
def test_a_key_that_no_header_can_carry_is_refused_and_not_shown(value, complaint):
    config = EndpointConfig(urls=("http://h/v1",), model="m", api_key_environment=("KEY",))
    with pytest.raises(ConfigError, match=rf"endpoint\.api_key_environment\.0: .*{complaint}") as caught:
        lanes_of(config, {"KEY": value})
    assert "cret" not in caught.value.message


def test_a_key_stands_in_no_representation():
    config = EndpointConfig(urls=("http://h/v1",), model="m", api_key_environment=("KEY",))
    (lane,) = lanes_of(config, {"KEY": "secret"})
    assert lane.key == "secret"
    assert "secret" not in repr(lane)
    sessions = ProcessorSessions(config, Storage(), "x", {"KEY": "secret"}, print)
    assert "secret" not in repr(sessions)


def test_another_prompt_model_or_setting_is_another_answer(tmp_path):
    with running_chat_server() as server:
        for settings in (
            {},
            {"model": "other"},
            {"temperature": 0.5},
            {"concurrency": 4, "deadline_seconds": 9.0},
        ):
            _run(_config(server, **settings), tmp_path, _requests(1))
        assert server.total_charged == 3


def test_many_at_a_time_give_the_same_in_the_same_order(tmp_path):
    faults = ["500", "invalid", "drop", "429", "malformed"] * 3
    with running_chat_server(faults) as server:
        run = _run(
            _config(server, concurrency=8, repair_tries=5, set_aside_after=50, max_retries=20),
            tmp_path,
            _requests(30),
        )
        assert [outcome.paper_id for outcome in run.outcomes] == [f"s/p{index}" for index in range(30)]
        assert all(outcome.review == REVIEW for outcome in run.outcomes)


def test_a_missing_count_of_tokens_is_estimated(tmp_path):
    with running_chat_server(["no-usage"]) as server:
        run = _run(_config(server), tmp_path, _requests(1))
    assert run.spent.completion_tokens == len(json.dumps(GOOD)) // 4 + 1
    (answer,) = AnswerStore(Storage(), str(tmp_path)).all_answers()
    assert answer.tokens_reported is False


def test_a_damaged_answer_is_named_and_not_paid_again_in_silence(tmp_path):
    with running_chat_server() as server:
        _run(_config(server), tmp_path, _requests(1))
        (path,) = tmp_path.rglob("*.json")
        path.write_text("{")
        with pytest.raises(
            ArtifactError, match=r"0\.json: is no saved answer .*remove it and the request is sent"
        ):
            _run(_config(server), tmp_path, _requests(1))


_SCRIPT = """
import sys
from baltoro.core.storage import Storage
from baltoro.instructions.reviews.answers import AnswerStore
from baltoro.instructions.reviews.config import EndpointConfig
from baltoro.instructions.reviews.endpoint import EndpointMerger
from baltoro.instructions.reviews.outcomes import MergeRequest
from baltoro.instructions.reviews.run import merge_with_endpoint
url, folder, number, concurrency = sys.argv[1:]
config = EndpointConfig(urls=(url,), model="m", concurrency=int(concurrency))
requests = [MergeRequest(f"s/p{i}", f"Title {i}", f"Review of paper {i}.") for i in range(int(number))]
merge_with_endpoint(requests, EndpointMerger(config, AnswerStore(Storage(), folder), environment={}))
"""


def test_a_killed_run_goes_on_and_pays_only_what_was_under_way_twice(tmp_path):
    papers, concurrency = 24, 3
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    with running_chat_server(delay_seconds=0.05) as server:
        process = subprocess.Popen(
            [sys.executable, "-c", _SCRIPT, server.url, str(tmp_path), str(papers), str(concurrency)],
            env=environment,
        )
        try:
            wait_for_charges(server, papers // 2)
        finally:
            process.send_signal(signal.SIGKILL)
            process.wait()
        time.sleep(0.1)
        charged = server.charged.copy()
        store = AnswerStore(Storage(), str(tmp_path))
        saved = len(store.all_answers())
        assert 0 < saved < papers
        # Each request that was charged is saved, or was under way at the kill and is counted as lost.
        lost = charged.total() - saved
        assert 0 <= lost <= concurrency
        assert lost <= store.lost <= concurrency
        run = _run(_config(server, concurrency=concurrency), tmp_path, _requests(papers))
        assert all(outcome.review == REVIEW for outcome in run.outcomes)
        assert (run.answers_reused, run.spent.answers) == (saved, papers - saved)
        twice = [prompt for prompt, count in server.charged.items() if count > 1]
        assert max(server.charged.values()) <= 2
        assert len(twice) == lost
        assert server.total_charged == papers + lost
        assert run.possibly_charged_lost == store.lost


def test_two_runs_at_once_go_on_with_one_answer(tmp_path):
    store, other = (AnswerStore(Storage(), str(tmp_path)) for _ in range(2))
    with running_chat_server() as server:
        config = _config(server)
        first = EndpointMerger(config, store, environment={})
        second = EndpointMerger(config, other, environment={})
        merge_with_endpoint(_requests(1), first)
        merge_with_endpoint(_requests(1), second)
    assert len(list(tmp_path.rglob("*.json"))) == 1
    assert first.store.all_answers()[0].finished_at == second.store.all_answers()[0].finished_at


def test_the_module_is_light_to_import():
    code = (
        "import sys, baltoro.instructions.reviews.endpoint, baltoro.instructions.figures\n"
        "heavy = ('aiohttp', 'matplotlib', 'ray', 'torch', 'transformers')\n"
        "print([name for name in heavy if name in sys.modules])"
    )
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, env=environment
    )
    assert done.stdout.strip() == "[]"
