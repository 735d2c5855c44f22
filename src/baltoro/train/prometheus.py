"""The newest metrics of a run, served where Prometheus can fetch them.

``train/loss_nats_per_token`` is served as ``baltoro_train_loss_nats_per_token``, with the run's name as a
label; one step of another, ``baltoro_train_step``, says how far the run is. All are gauges.
"""

from __future__ import annotations

import logging
import re
import threading
from collections.abc import Callable, Iterator, Mapping
from typing import TYPE_CHECKING, Any

from baltoro.train.hooks import Hook
from baltoro.train.metrics import StepRecord

if TYPE_CHECKING:
    from prometheus_client.core import GaugeMetricFamily

    from baltoro.checkpoint.state import TrainState

STEP = "train/step"
_CLOSE_SECONDS = 5.0

_logger = logging.getLogger(__name__)


class MetricsEndpoint:
    """Serves metrics on a port until it is closed; what goes wrong warns and never stops a run.

    Args:
        port: to listen on, at every address of this machine; 0 takes any that is free.
        run: value of the label ``run``.
    """

    def __init__(self, port: int, *, run: str) -> None:
        self.port = port
        self._run = run
        self._values: dict[str, float] = {}
        self._server: Any = None
        self._thread: threading.Thread | None = None

    def start(self) -> None:
        """Begin to serve; a port that cannot be had is warned of, and nothing is served."""
        from prometheus_client import CollectorRegistry, start_http_server

        registry = CollectorRegistry(auto_describe=False)
        registry.register(self)
        try:
            self._server, self._thread = start_http_server(self.port, registry=registry)
        except OSError as error:
            _logger.warning(
                "prometheus_port=%d: metrics are not served (%s); training goes on; set pretrain."
                "prometheus_port to a free port, or to null, and resume",
                self.port,
                error.strerror or error,
            )
            return
        self.port = self._server.server_port
        _logger.info("metrics are served on http://%s:%d/metrics", self._server.server_name, self.port)

    def update(self, step: int, metrics: Mapping[str, float]) -> None:
        """Serve these values from now on; those of other names stay as they are."""
        # A whole new dict, since a scrape may be going over the old one.
        self._values = {**self._values, **metrics, STEP: float(step)}

    def collect(self) -> Iterator[GaugeMetricFamily]:
        """Yield the newest values, as the registry asks for them."""
        from prometheus_client.core import GaugeMetricFamily

        for name, value in sorted(self._values.items()):
            gauge = GaugeMetricFamily(prometheus_name(name), f"Baltoro's metric {name}", labels=["run"])
            gauge.add_metric([self._run], value)
            yield gauge

    def close(self) -> None:
        """Stop serving and free the port; may be called again."""
        server, self._server = self._server, None
        if server is not None:
            server.shutdown()
            server.server_close()
        if self._thread is not None:
            self._thread.join(_CLOSE_SECONDS)
            self._thread = None


class PrometheusHook(Hook):
    """Serves a run's metrics while its loop runs; only the first rank has one.

    Args:
        endpoint: where they are served; whoever else has values for it (a validation) updates it, too.
        metrics: of a step.
    """

    def __init__(
        self,
        endpoint: MetricsEndpoint,
        metrics: Callable[[StepRecord], Mapping[str, float]] = StepRecord.metrics,
    ) -> None:
        self._endpoint = endpoint
        self._metrics = metrics

    def start(self, state: TrainState) -> None:
        """Begin to serve, the position first."""
        self._endpoint.update(state.step, {})
        self._endpoint.start()

    def step_end(self, record: StepRecord) -> None:
        """Serve the step's metrics."""
        self._endpoint.update(record.step, self._metrics(record))

    def finish(self) -> None:
        """Stop serving."""
        self._endpoint.close()

    def error(self) -> None:
        """Stop serving."""
        self._endpoint.close()


def prometheus_name(name: str) -> str:
    """Return a metric's name as Prometheus allows it: letters, digits and underscores."""
    return "baltoro_" + re.sub(r"[^a-zA-Z0-9_]", "_", name)
