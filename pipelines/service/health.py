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
_CLIENT_SECONDS = 20.0  # a client that sends or takes nothing for so long is left


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
        status = self._status()
        wrong = _wrong(status)

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
        healthy = gauge("healthy", "1 while /healthz has nothing to say about the city, else 0.")
        rows = [0]  # of the ledger, which is that of all cities
        for city, values in status["cities"].items():
            healthy.add_metric([city], city not in wrong)
            if "error" in values:
                continue
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
            rows.append(values["unreadable_runs"] or 0)
            alerting.add_metric([city], _alerting_failed(values))
        yield from (age, lag, due, state, error, inside, alerts, alerting, healthy)
        yield GaugeMetricFamily("trafficcast_ledger_unreadable_rows", "Rows that were set aside.", value=max(rows))


def _health(status: dict[str, Any]) -> tuple[int, dict[str, Any]]:
    """Return the HTTP status and the page: 503 if something is wrong with a city, or cannot be known."""
    wrong = _wrong(status)
    return (503 if wrong else 200), {"ok": not wrong, "wrong": wrong}


def _wrong(status: dict[str, Any]) -> dict[str, str]:
    """Return a sentence for each city that is not well.

    A forecast is overdue, a city's alert rules cannot be examined, its status or a file of its stores cannot be read,
    its champion is damaged, or the running service has said so itself (`faults`).
    """
    found = {name: list(reasons) for name, reasons in status.get("faults", {}).items()}
    for name, values in status["cities"].items():
        found.setdefault(name, []).extend([values["error"]] if "error" in values else _reasons(values))
    return {name: "; ".join(reasons) for name, reasons in found.items() if reasons}


def _reasons(values: dict[str, Any]) -> list[str]:
    """Return what is wrong with a city whose status was read."""
    reasons = list(values["damaged"])
    of_model = [alert["message"] for alert in values["alerts"] or [] if alert["kind"] == "model-damaged"]
    reasons += [message for message in of_model if message not in reasons]
    if values["overdue"]:
        newest = values["forecast"]["init_time"] if values["forecast"] else "none yet"
        reasons.append(f"the forecast is overdue; the newest is of {newest}")
    if _alerting_failed(values):
        reasons.append(f"alerts cannot be trusted: {values['jobs'][_ALERTS]['detail']}")
    return reasons


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

        timeout = _CLIENT_SECONDS

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

    server = _listen(settings, Handler)
    Thread(target=server.serve_forever, name="health", daemon=True).start()
    return server


def _check_port(settings: Service) -> None:
    """Raise InputError where the port is taken."""
    _listen(settings, BaseHTTPRequestHandler).server_close()


def _listen(settings: Service, handler: type[BaseHTTPRequestHandler]) -> ThreadingHTTPServer:
    """Return a server that listens. Raises InputError where the port is taken."""
    try:
        return _Server((settings.address, settings.port), handler)
    except OSError as error:
        where = f"{settings.address}:{settings.port}"
        raise InputError(f"cannot listen on {where}: {error.strerror}; set [service] address and port") from None
