"""What operators see: the status of each city, its health and its metrics."""

from __future__ import annotations

import json
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import xarray as xr
from prometheus_client import generate_latest
from prometheus_client.parser import text_string_to_metric_families

from pipelines.service import status as status_module
from pipelines.service.health import _health, _Metrics, _serve
from pipelines.service.status import _city_status, _is_running, _service_lock, status
from trafficcast.alerts.book import AlertBook
from trafficcast.alerts.findings import Finding
from trafficcast.config.service import Service
from trafficcast.config.settings import Config, load_config
from trafficcast.errors import InputError
from trafficcast.files import json_text, write_json
from trafficcast.stores.city_stores import CityStores
from trafficcast.stores.flows import flows_dataset
from trafficcast.stores.forecasts import BASELINE, Provenance, forecast_dataset
from trafficcast.stores.ledger import Ledger
from trafficcast.stores.registry import Registry
from trafficcast.stores.scores import score_dataset
from trafficcast.stores.sqlite import open_database

NOW = np.datetime64("2024-04-08T10:20", "us")  # 12:20 in Rome; slots are hours
NEWEST = np.datetime64("2024-04-08T10:00", "us")
MINUTE = np.timedelta64(1, "m")
HOUR = np.timedelta64(1, "h")
CARD = {"version": "vmrnn-b-1", "architecture": {"name": "vmrnn-b"}}


@pytest.fixture
def settings(config: Path) -> Config:
    """One small city, 10 x 6 cells, without anything."""
    return load_config(config)


def status_of(settings: Config, now: np.datetime64 = NOW) -> dict[str, Any]:
    return _city_status(settings, settings.city(), now)


def champion(settings: Config) -> None:
    city = settings.city()
    registry = Registry(settings.paths.models / city.name, city)
    registry.add("vmrnn-b-1", lambda folder: write_json(folder / "card.json", CARD))


def flows(settings: Config, last: np.datetime64, slots: int = 3, observed: bool = True) -> None:
    time = last - HOUR * np.arange(slots)[::-1]
    coverage = np.full(slots, float(observed))
    made = flows_dataset(settings.city(), time, np.ones((slots, 2, 10, 6)), np.full(slots, 3), coverage)
    CityStores.of(settings, settings.city()).flows.write(made)


def forecast(settings: Config, init_time: np.datetime64, origin: Provenance, late: int = 1) -> xr.Dataset:
    flow = np.full((4, 2, 10, 6), 2.0, np.float32)
    made = forecast_dataset(settings.city(), CARD, init_time, flow, init_time + late * MINUTE, None, origin)
    CityStores.of(settings, settings.city()).forecasts("vmrnn-b-1").write(made)
    return made


def scores(settings: Config, init_time: np.datetime64, error: float) -> None:
    truth = np.full((4, 2, 10, 6), 2.0)
    truth[3] = np.nan
    made = {"vmrnn-b-1": np.full(truth.shape, 2 + error), "persistence": np.full(truth.shape, 5.0)}
    one = score_dataset(settings.city(), init_time, made, truth)
    one["inside"] = ("init_time", "level", "lead_time"), np.array([[[0.7, 0.8, 0.9, np.nan]]])
    CityStores.of(settings, settings.city()).scores("vmrnn-b-1").write(one.assign_coords(level=[0.8]))


def samples(page: bytes) -> dict[tuple[str, ...], float]:
    """A metrics page: (name, label values in the order of their names) -> value."""
    return {
        (sample.name, *(value for _, value in sorted(sample.labels.items()))): sample.value
        for family in text_string_to_metric_families(page.decode())
        for sample in family.samples
    }


def test_a_city_without_anything_is_ready_for_nothing_and_overdue_with_nothing(settings: Config) -> None:
    found = status_of(settings)
    jobs = found.pop("jobs")
    assert found == {
        "champion": None,
        "data": {"newest_slot": None, "age_minutes": None, "judged_otherwise": ""},
        "forecast": None,
        "overdue": None,
        "skill": None,
        "alerts": [],
        "damaged": [],
        "unreadable_runs": 0,
    }
    assert [*jobs] == ["ingest", "forecast", "verify", "alerts", "retrain", "prune"]
    for job in jobs.values():
        assert {job[key] for key in ("last", "result", "detail", "seconds", "attempts")} == {None}


def test_asking_writes_nothing(settings: Config, config: Path) -> None:
    status(settings, [settings.city()], NOW)
    assert [file.name for file in config.parent.rglob("*") if file.is_file()] == ["config.toml"]


def test_data_and_forecast_with_their_ages(settings: Config) -> None:
    champion(settings)
    flows(settings, NEWEST - HOUR)
    flows(settings, NEWEST, 1, observed=False)
    forecast(settings, NEWEST - HOUR, Provenance("vmrnn-b-1"))
    forecast(settings, NEWEST, Provenance("climatology", BASELINE, "why", hindcast=True), late=12)
    found = status_of(settings)
    assert found["champion"] == "vmrnn-b-1"
    assert found["data"] == {
        "newest_slot": "2024-04-08T11:00:00+02:00",
        "age_minutes": 20.0,  # since its end
        "judged_otherwise": "",
    }
    assert found["forecast"] == {
        "init_time": "2024-04-08T12:00:00+02:00",
        "forecaster": "climatology",
        "state": "baseline",
        "reason": "why",
        "hindcast": True,
        "created": "2024-04-08T12:12:00+02:00",
        "lag_minutes": 12.0,
        "age_minutes": 20.0,
    }
    assert found["overdue"] is False


def test_a_forecast_is_overdue_three_minutes_after_the_wait_for_its_data(settings: Config) -> None:
    champion(settings)
    forecast(settings, NEWEST - HOUR, Provenance("vmrnn-b-1"))
    limit = NEWEST + 13 * MINUTE  # ten minutes' wait and the three minutes that docs/operations.md promises
    for now, overdue, code in ((limit - np.timedelta64(1, "s"), False, 200), (limit, True, 503)):
        found = status(settings, [settings.city()], now)
        assert found["cities"]["small"]["overdue"] is overdue
        assert _health(found)[0] == code


def test_a_city_that_never_forecast_is_overdue_once_it_could(settings: Config) -> None:
    flows(settings, NEWEST - HOUR)
    assert status_of(settings)["overdue"] is None  # no model
    champion(settings)
    assert status_of(settings)["overdue"] is True


def test_skill_is_that_of_the_last_day_and_no_number_is_left_out(settings: Config) -> None:
    champion(settings)
    scores(settings, NOW - 25 * HOUR, 100.0)
    scores(settings, NEWEST - 4 * HOUR, 3.0)
    scores(settings, NEWEST - 5 * HOUR, 4.0)
    found = status_of(settings)["skill"]
    assert found["rmse"] == {"persistence": 3.0, "vmrnn-b-1": pytest.approx(np.sqrt(12.5))}
    assert (found["model"], found["forecasts"]) == ("vmrnn-b-1", 2)
    assert found["inside"] == {0.8: pytest.approx(0.8)}
    assert json.loads(json_text(found))["by_lead"][3] is None


def test_jobs_say_their_last_run_and_the_next(settings: Config) -> None:
    ledger = Ledger(settings.paths.data / "ledger.sqlite")
    ledger.record("forecast", "small", "vmrnn-b-1", NEWEST - HOUR, "complete")
    ledger.record("forecast", "small", "vmrnn-b-1", NEWEST, "failed", "no model", 0.5)
    ledger.record("forecast", "small", "vmrnn-b-1", NEWEST, "failed", "no model", 0.75)
    ledger.record("retrain", "other", "", NEWEST, "done")
    jobs = status_of(settings)["jobs"]
    made = jobs["forecast"]
    assert (made["result"], made["detail"], made["seconds"], made["attempts"]) == ("failed", "no model", 0.75, 2)
    assert made["last"] is not None and made["next"] == "2024-04-08T13:00:00+02:00"
    assert jobs["retrain"]["last"] is None
    assert jobs["retrain"]["next"] == "2024-04-14T03:00:00+02:00"  # Sunday, in the city's zone
    assert jobs["ingest"]["next"] is None  # it has no inbox


def test_the_next_look_into_an_inbox_is_told(settings: Config) -> None:
    city = settings.city()
    settings.cities["small"] = city.model_copy(update={"feed": city.feed.model_copy(update={"inbox": Path("inbox")})})
    assert status_of(settings)["jobs"]["ingest"]["next"] is None
    ledger = Ledger(settings.paths.data / "ledger.sqlite")
    ledger.record("ingest", "small", "", NEWEST, "done")
    run, job = ledger.last("ingest", "small"), status_of(settings)["jobs"]["ingest"]
    assert run is not None
    assert job["next"] == city.isoformat(run.finished + np.timedelta64(60, "s"))


def test_open_alerts_are_told(settings: Config) -> None:
    book = AlertBook(settings.paths.data / "alerts.sqlite")
    finding = Finding("feed-silent", "feed-silent", "critical", "the feed is silent", 61.0, 60.0)
    book.update("small", [finding], NEWEST)
    assert status_of(settings)["alerts"] == [
        {"raised": "2024-04-08T12:00:00+02:00", "kind": "feed-silent", "message": "the feed is silent"}
    ]
    book.update("small", [], NOW)
    assert status_of(settings)["alerts"] == []


def test_a_city_that_cannot_be_read_says_why_and_the_others_go_on(config: Path) -> None:
    config.write_text(
        config.read_text() + config.read_text().partition("[cities.small]")[2].join(["\n[cities.other]", ""])
    )
    settings = load_config(config)
    flows(settings, NEWEST)
    (file,) = CityStores.of(settings, settings.city()).flows.root.glob("*.nc")
    file.write_bytes(b"no grid")
    found = status(settings, [settings.city(name) for name in ("other", "small")], NOW)["cities"]
    (said,) = found["small"]["damaged"]
    assert file.name in said and "run trafficcast repair --city small" in said
    assert found["small"]["data"]["newest_slot"] is None and found["small"]["alerts"] == []
    assert found["other"]["overdue"] is None
    code, page = _health({"cities": found})
    assert code == 503 and [*page["wrong"]] == ["small"]
    gauges = samples(generate_latest(_Metrics(lambda: {"cities": found}).registry))
    assert not any("small" in labels and "age" in labels for labels in gauges)


@pytest.fixture
def three(config: Path) -> Config:
    """Three cities, each with a model and a forecast that is due."""
    table = config.read_text().partition("[cities.small]")[2]
    config.write_text(config.read_text() + "".join(f"\n[cities.{name}]{table}" for name in ("other", "third")))
    settings = load_config(config)
    for name in settings.cities:
        settings.default_city = name
        champion(settings)
        forecast(settings, NEWEST, Provenance("vmrnn-b-1"))
    return settings


@pytest.mark.parametrize(
    ("error", "sentence"),
    [
        (RuntimeError("who knows"), "its status cannot be told: RuntimeError: who knows"),
        (UnicodeDecodeError("utf-8", b"\xff", 0, 1, "bad"), "its status cannot be told: UnicodeDecodeError"),
        (OSError(5, "Input/output error"), "Input/output error"),
        (None, "they give no answer"),
    ],
)
def test_an_error_of_any_kind_is_one_city_s_own_and_comes_in_bounded_time(
    three: Config, monkeypatch: pytest.MonkeyPatch, error: Exception | None, sentence: str
) -> None:
    over, read = threading.Event(), status_module.latest_forecast
    monkeypatch.setattr(status_module, "_READ_SECONDS", 1.0)

    def latest(stores: CityStores, *more: Any) -> Any:
        if stores.city.name != "other":
            return read(stores, *more)
        if error is not None:
            raise error
        over.wait(60)  # as a disk that hangs

    monkeypatch.setattr(status_module, "latest_forecast", latest)
    readers = status_module._Statuses(three, [three.city(name) for name in sorted(three.cities)])
    server = _serve(Service(port=0), _Metrics(lambda: readers.read(NOW)), lambda: readers.read(NOW))
    address = f"http://127.0.0.1:{server.server_address[1]}"
    threads = threading.active_count()
    try:
        began = time.monotonic()
        for _ in range(3):
            code, _, body = get(f"{address}/healthz")
            wrong = json.loads(body)["wrong"]
            assert code == 503 and [*wrong] == ["other"] and sentence in wrong["other"]
            found = samples(get(f"{address}/metrics")[2])
            assert [found["trafficcast_healthy", name] for name in ("other", "small", "third")] == [0, 1, 1]
            assert found["trafficcast_forecast_lag_minutes", "third"] == 1
            told = json.loads(get(f"{address}/status")[2])["cities"]
            assert sentence in told["other"]["error"] and told["small"]["forecast"]["state"] == "complete"
        assert time.monotonic() - began < 10
        assert threading.active_count() <= threads + 2  # the one that hangs, and an answer that just ends
    finally:
        over.set()
        server.shutdown()
        server.server_close()


def test_a_list_of_champions_that_is_gone_is_red_where_they_made_forecasts(settings: Config) -> None:
    champion(settings)
    pointer = CityStores.of(settings, settings.city()).registry.pointer
    pointer.unlink()
    assert _health(status(settings, [settings.city()], NOW))[0] == 200  # a copied model waits for its promotion
    Ledger(settings.paths.data / "ledger.sqlite").record("forecast", "small", "vmrnn-b-1", NEWEST, "complete")
    code, page = _health(status(settings, [settings.city()], NOW))
    assert code == 503 and f"cannot read {pointer}: it is gone, but not the models" in page["wrong"]["small"]


def test_forecasts_that_are_gone_are_overdue(settings: Config) -> None:
    champion(settings)
    Ledger(settings.paths.data / "ledger.sqlite").record("forecast", "small", "vmrnn-b-1", NEWEST, "complete")
    found = status(settings, [settings.city()], NOW)
    assert found["cities"]["small"]["overdue"] and _health(found)[0] == 503


def test_a_row_of_the_ledger_that_cannot_be_read_hides_nothing_and_is_counted(three: Config) -> None:
    ledger = Ledger(three.paths.data / "ledger.sqlite")
    for name in three.cities:
        ledger.record("forecast", name, "vmrnn-b-1", NEWEST, "complete")
        ledger.record("alerts", name, "", NEWEST, "done")
    with open_database(ledger.file) as database:
        database.execute("UPDATE runs SET finished = '2024-04-08T1!:00:00Z' WHERE city = 'other' AND job = 'forecast'")
    found = status(three, [three.city(name) for name in three.cities], NOW)
    assert _health(found) == (200, {"ok": True, "wrong": {}})
    assert {name: values["jobs"]["forecast"]["result"] for name, values in found["cities"].items()} == {
        "other": None, "small": "complete", "third": "complete",
    }  # fmt: skip
    again = status(three, [three.city("other")], NOW)
    assert again["cities"]["other"]["unreadable_runs"] == 1
    page = samples(generate_latest(_Metrics(lambda: again).registry))
    assert page["trafficcast_ledger_unreadable_rows",] == 1


def test_a_damaged_ledger_is_named_and_no_silence(settings: Config) -> None:
    settings.paths.data.mkdir()
    (settings.paths.data / "ledger.sqlite").write_bytes(b"no database" * 1000)
    found = status(settings, [settings.city()], NOW)
    (said,) = found["cities"]["small"]["damaged"]
    assert "ledger.sqlite: file is not a database; run trafficcast repair" in said
    assert found["cities"]["small"]["jobs"]["forecast"]["result"] is None
    assert _health(found)[0] == 503


def test_the_service_runs_while_its_lock_is_held(settings: Config) -> None:
    data = settings.paths.data
    assert not _is_running(data)
    with _service_lock(data):
        assert _is_running(data) and status(settings, [], NOW)["running"] is True
    assert not _is_running(data)


def test_the_command_prints_it_for_people_and_for_programs(settings: Config, trafficcast: Callable[..., Any]) -> None:
    champion(settings)
    forecast(settings, NEWEST, Provenance("climatology", BASELINE, "[bold]why"))
    scores(settings, NEWEST - 4 * HOUR, 3.0)
    Ledger(settings.paths.data / "ledger.sqlite").record("forecast", "small", "vmrnn-b-1", NEWEST, "baseline", "why")
    plain = trafficcast("status")
    assert plain.code == 0
    assert plain.out.startswith("The service does not run.") and "[bold]why" in plain.out and "baseline" in plain.out
    found = trafficcast("status", "--json").json
    assert (found["running"], found["cities"]["small"]["forecast"]["reason"]) == (False, "[bold]why")
    assert trafficcast("status", "--city", "nowhere").code == 2


def test_health_is_503_while_a_forecast_is_overdue() -> None:
    jobs = {"jobs": {"alerts": {"result": "done", "detail": "0 open"}}, "damaged": [], "alerts": []}
    well = {"overdue": False, "forecast": {"init_time": "10:00"}, **jobs}
    assert _health({"cities": {"a": well, "b": {"overdue": None, "forecast": None, **jobs}}}) == (
        200,
        {"ok": True, "wrong": {}},
    )
    code, page = _health(
        {"cities": {"a": well, "b": well | {"overdue": True}, "c": {"overdue": True, "forecast": None, **jobs}}}
    )
    assert (code, page["ok"]) == (503, False)
    assert page["wrong"] == {
        "b": "the forecast is overdue; the newest is of 10:00",
        "c": "the forecast is overdue; the newest is of none yet",
    }


def test_metrics_of_a_city_without_anything(settings: Config) -> None:
    metrics = _Metrics(lambda: status(settings, [settings.city()], NOW))
    assert samples(generate_latest(metrics.registry)) == {
        ("trafficcast_open_alerts", "small"): 0,
        ("trafficcast_alerting_failed", "small"): 0,
        ("trafficcast_healthy", "small"): 1,
        ("trafficcast_ledger_unreadable_rows",): 0,
    }


def test_metrics_tell_how_it_stands_and_what_happened(settings: Config) -> None:
    champion(settings)
    flows(settings, NEWEST - HOUR)
    forecast(settings, NEWEST, Provenance("climatology", BASELINE, "why"), late=12)
    scores(settings, NEWEST - 4 * HOUR, 4.0)
    metrics = _Metrics(lambda: status(settings, [settings.city()], NOW + HOUR))
    for result, seconds in (("done", 0.2), ("done", 2.0), ("failed", 0.2)):
        metrics.ran("forecast", "small", result, seconds)
    found = samples(generate_latest(metrics.registry))
    assert found["trafficcast_data_age_minutes", "small"] == 80
    assert found["trafficcast_forecast_lag_minutes", "small"] == 12
    assert found["trafficcast_forecast_overdue", "small"] == 1
    assert found["trafficcast_forecast_state", "small", "baseline"] == 1
    assert found["trafficcast_rmse_vehicles", "small", "vmrnn-b-1"] == pytest.approx(4)
    assert found["trafficcast_rmse_vehicles", "small", "persistence"] == pytest.approx(3)
    assert found["trafficcast_interval_coverage", "small", "0.8"] == pytest.approx(0.8)
    assert found["trafficcast_runs_total", "small", "forecast", "done"] == 2
    assert found["trafficcast_runs_total", "small", "forecast", "failed"] == 1
    assert found["trafficcast_run_seconds_bucket", "small", "forecast", "0.3"] == 2
    assert found["trafficcast_run_seconds_sum", "small", "forecast"] == pytest.approx(2.4)


@pytest.fixture
def address(settings: Config) -> Any:
    """The pages on a free port, over a city whose forecast is overdue."""
    champion(settings)
    flows(settings, NEWEST - HOUR)

    def ask() -> dict[str, Any]:
        return status(settings, [settings.city()], NOW)

    server = _serve(Service(port=0), _Metrics(ask), ask)
    yield f"http://127.0.0.1:{server.server_address[1]}"
    server.shutdown()
    server.server_close()


def get(address: str, method: str = "GET") -> tuple[int, str, bytes]:
    request = urllib.request.Request(address, method=method)
    try:
        with urllib.request.urlopen(request, timeout=20) as answer:
            return answer.status, answer.headers["Content-Type"], answer.read()
    except urllib.error.HTTPError as error:
        with error:
            return error.code, error.headers["Content-Type"], error.read()


def test_the_pages_are_served_and_nothing_else(address: str) -> None:
    code, kind, body = get(f"{address}/healthz")
    assert (code, kind) == (503, "application/json")
    assert json.loads(body) == {
        "ok": False, "wrong": {"small": "the forecast is overdue; the newest is of none yet"},
    }  # fmt: skip
    assert get(f"{address}/healthz", "HEAD") == (503, "application/json", b"")
    code, kind, body = get(f"{address}/metrics?x=1")
    assert code == 200 and kind.startswith("text/plain")
    assert samples(body)["trafficcast_forecast_overdue", "small"] == 1
    code, kind, body = get(f"{address}/status")
    assert (code, kind) == (200, "application/json")
    assert json.loads(body)["cities"]["small"]["champion"] == "vmrnn-b-1"
    for other in ("/", "/metrics/", "/../config.toml"):
        assert get(address + other)[0] == 404
    assert get(f"{address}/healthz", "POST")[0] == 501


def test_many_ask_at_once(address: str) -> None:
    codes = []
    askers = [threading.Thread(target=lambda: codes.append(get(f"{address}/metrics")[0])) for _ in range(6)]
    for asker in askers:
        asker.start()
    for asker in askers:
        asker.join(60)
    assert codes == [200] * 6


def test_a_port_that_is_taken_is_named(address: str) -> None:
    port = int(address.rpartition(":")[2])
    with pytest.raises(InputError, match=rf"cannot listen on 127\.0\.0\.1:{port}: .*set \[service\] address and port"):
        _serve(Service(port=port), _Metrics(dict), dict)


def test_ages_are_minutes_to_a_tenth(settings: Config) -> None:
    champion(settings)
    flows(settings, NEWEST - HOUR)
    forecast(settings, NEWEST, Provenance("vmrnn-b-1"))
    found = status_of(settings, NOW + np.timedelta64(100, "s"))
    assert (found["data"]["age_minutes"], found["forecast"]["age_minutes"]) == (21.7, 21.7)
