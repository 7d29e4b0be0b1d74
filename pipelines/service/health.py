"""The service's pages over HTTP, on a loopback port by default: /healthz, /status and Prometheus' /metrics."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread
from typing import Any

from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, Counter, Histogram, generate_latest
from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from pipelines.service.status import _ALERTS, _BROKEN
from trafficcast.config.service import Service
from trafficcast.errors import InputError
from trafficcast.files import json_text
from trafficcast.progress import log
from trafficcast.stores.ledger import FAILED

_DURATIONS = (0.1, 0.3, 1, 3, 10, 30, 100, 300, 1000, 3000, 10000)


class _Metrics:
    """Counters of the runs since the service started, and gauges of its status, which each scrape reads anew."""

    def __init__(self, status: Callable[[], dict[str, Any]]) -> None:
        self.registry = CollectorRegistry()
        labels = ("job", "city", "result")
        self._runs = Counter("trafficcast_runs", "Runs by result.", labels, registry=self.registry)
        self._seconds = Histogram(
            "trafficcast_run_seconds",
            "How long runs took.",
            ("job", "city"),
            registry=self.registry,
            buckets=_DURATIONS,
        )
        self.registry.register(_StatusGauges(status))

    def ran(self, job: str, city: str, result: str, seconds: float) -> None:
        """Count a run."""
        self._runs.labels(job, city, result).inc()
        self._seconds.labels(job, city).observe(seconds)


class _StatusGauges(Collector):
    """Gauges of the present status."""

    def __init__(self, status: Callable[[], dict[str, Any]]) -> None:
        self._status = status

    def describe(self) -> list[Metric]:
        """Return nothing, as the gauges would have to be read from the stores."""
        return []

    def collect(self) -> Iterator[Metric]:
        """Return the gauges."""
        cities = {name: values for name, values in self._status()["cities"].items() if "error" not in values}

        def gauge(name: str, about: str, labels: tuple[str, ...] = ()) -> GaugeMetricFamily:
            return GaugeMetricFamily(f"trafficcast_{name}", about, labels=("city", *labels))

        age = gauge("data_age_minutes", "Since the end of the newest observed slot.")
        lag = gauge("forecast_lag_minutes", "From the newest forecast's init time until it was made.")
        due = gauge("forecast_overdue", "1 while the forecast that should be there is not.")
        state = gauge("forecast_state", "1 for the newest forecast's state.", ("state",))
        error = gauge("rmse_vehicles", "Error over the last 24 hours, vehicles per slot.", ("forecaster",))
        inside = gauge("interval_coverage", "Share of truths inside intervals, last 24 hours.", ("level",))
        alerts = gauge("open_alerts", "Alerts that are open.")
        alerting = gauge("alerting_failed", "1 while the alert rules cannot be examined.")
        for city, values in cities.items():
            if values["data"]["age_minutes"] is not None:
                age.add_metric([city], values["data"]["age_minutes"])
            if values["forecast"] is not None:
                lag.add_metric([city], values["forecast"]["lag_minutes"])
                state.add_metric([city, values["forecast"]["state"]], 1)
            if values["overdue"] is not None:
                due.add_metric([city], values["overdue"])
            if values["skill"] is not None:
                for forecaster, rmse in values["skill"]["rmse"].items():
                    error.add_metric([city, forecaster], rmse)
                for level, share in values["skill"]["inside"].items():
                    inside.add_metric([city, f"{level:g}"], share)
            if values["alerts"] is not None:
                alerts.add_metric([city], len(values["alerts"]))
            alerting.add_metric([city], _alerting_failed(values))
        yield from (age, lag, due, state, error, inside, alerts, alerting)


def _health(status: dict[str, Any]) -> tuple[int, dict[str, Any]]:
    """Return the HTTP status and the page.

    503 if a forecast is overdue, a city's alert rules cannot be examined, a file of its stores cannot be read, or its
    champion is damaged.
    """
    wrong = {}
    for name, values in status["cities"].items():
        if "error" in values:
            wrong[name] = values["error"]
            continue
        reasons = list(values["damaged"])
        for alert in values["alerts"] or []:
            if alert["kind"] == "model-damaged" and alert["message"] not in reasons:
                reasons.append(alert["message"])
        if values["overdue"]:
            newest = values["forecast"]["init_time"] if values["forecast"] else "none yet"
            reasons.append(f"the forecast is overdue; the newest is of {newest}")
        if _alerting_failed(values):
            reasons.append(f"alerts cannot be trusted: {values['jobs'][_ALERTS]['detail']}")
        if reasons:
            wrong[name] = "; ".join(reasons)
    return (503 if wrong else 200), {"ok": not wrong, "wrong": wrong}


def _alerting_failed(values: dict[str, Any]) -> bool:
    """Whether the last examination of a city's alert rules failed, by the city's status."""
    return values["jobs"][_ALERTS]["result"] in (FAILED, _BROKEN)


class _Server(ThreadingHTTPServer):
    """A server whose failed requests are one line of the log each."""

    daemon_threads = True

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Log a request that failed, most often because the client went away."""
        log.warning("a request to the health pages failed: %s", sys.exception())


def _serve(settings: Service, metrics: _Metrics, status: Callable[[], dict[str, Any]]) -> ThreadingHTTPServer:
    """Answer requests in threads until the server is shut down. Raises InputError where the port is taken."""

    class Handler(BaseHTTPRequestHandler):
        """Answers GET and HEAD requests for the three pages."""

        def do_GET(self) -> None:
            """Answer a request."""
            page = self.path.partition("?")[0]
            if page == "/healthz":
                code, health = _health(status())
                self._answer(code, "application/json", json.dumps(health).encode())
            elif page == "/metrics":
                self._answer(200, CONTENT_TYPE_LATEST, generate_latest(metrics.registry))
            elif page == "/status":
                self._answer(200, "application/json", json_text(status()).encode())
            else:
                self._answer(404, "text/plain", b"/healthz, /metrics or /status\n")

        do_HEAD = do_GET

        def _answer(self, code: int, kind: str, body: bytes) -> None:
            self.send_response(code)
            self.send_header("Content-Type", kind)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            if self.command != "HEAD":
                self.wfile.write(body)

        def log_message(self, format: str, *args: Any) -> None:
            """Log nothing, as scrapes come every few seconds."""

    try:
        server = _Server((settings.address, settings.port), Handler)
    except OSError as error:
        where = f"{settings.address}:{settings.port}"
        raise InputError(f"cannot listen on {where}: {error.strerror}; set [service] address and port") from None
    Thread(target=server.serve_forever, name="health", daemon=True).start()
    return server
