"""Metrics are served while the loop runs, over real HTTP."""

import logging
import socket
import urllib.error
import urllib.request

import pytest

from baltoro.checkpoint.state import TrainState
from baltoro.train.prometheus import MetricsEndpoint, PrometheusHook, prometheus_name


class Record:
    step = 7


def fetch(port):
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=5) as answer:
        return answer.read().decode()


@pytest.fixture
def endpoint():
    served = MetricsEndpoint(0, run="geo")
    yield served
    served.close()


def test_the_newest_metrics_are_served_and_nothing_of_the_process(endpoint):
    hook = PrometheusHook(endpoint, lambda record: {"train/loss_nats_per_token": 2.5})
    hook.start(TrainState(step=3))
    assert 'baltoro_train_step{run="geo"} 3.0' in fetch(endpoint.port)
    hook.step_end(Record())
    endpoint.update(7, {"validation/loss_nats_per_token": 2.75})
    lines = [line for line in fetch(endpoint.port).splitlines() if not line.startswith("#")]
    assert lines == [
        'baltoro_train_loss_nats_per_token{run="geo"} 2.5',
        'baltoro_train_step{run="geo"} 7.0',
        'baltoro_validation_loss_nats_per_token{run="geo"} 2.75',
    ]


@pytest.mark.parametrize("end", ["finish", "error"])
def test_the_port_is_free_again_after_the_loop(endpoint, end):
    hook = PrometheusHook(endpoint, lambda record: {})
    hook.start(TrainState())
    port = endpoint.port
    getattr(hook, end)()
    with pytest.raises(urllib.error.URLError, match="refused"):
        fetch(port)
    getattr(hook, end)()
    with socket.create_server(("", port)):
        pass


def test_a_busy_port_warns_with_the_remedy_and_training_goes_on(caplog):
    with socket.create_server(("0.0.0.0", 0)) as taken:
        port = taken.getsockname()[1]
        hook = PrometheusHook(MetricsEndpoint(port, run="geo"), lambda record: {})
        with caplog.at_level(logging.WARNING):
            hook.start(TrainState())
        hook.step_end(Record())
        hook.finish()
    (warning,) = caplog.records
    assert f"prometheus_port={port}: metrics are not served" in warning.message
    assert "in use" in warning.message
    assert "set pretrain.prometheus_port to a free port" in warning.message


def test_an_error_before_the_start_closes_nothing():
    PrometheusHook(MetricsEndpoint(0, run="geo")).error()


def test_names_become_what_prometheus_allows():
    assert prometheus_name("time/data_wait_fraction") == "baltoro_time_data_wait_fraction"
