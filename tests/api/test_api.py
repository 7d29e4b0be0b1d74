"""The HTTP API: what it answers, what it refuses, and a real server asked by many at once."""

from __future__ import annotations

import asyncio
import gzip
import json
import logging
import sys
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import geopandas
import httpx
import numpy as np
import pytest
import xarray as xr
from starlette.testclient import TestClient

from tests.cities import stores_in
from trafficcast.api import schema
from trafficcast.api.app import _create_app
from trafficcast.api.server import _TOKEN, _listen, _read_token, _server
from trafficcast.config.settings import Config, _Paths, load_config
from trafficcast.errors import InputError
from trafficcast.stores.city_stores import CityStores
from trafficcast.stores.flows import flows_dataset
from trafficcast.stores.forecasts import Provenance, forecast_dataset
from trafficcast.stores.registry import Registry
from trafficcast.stores.scores import score_dataset

CONFIG = """
[cities.testville]
west = 10.0
east = 10.7
south = 45.0
north = 45.5
rows = 5
cols = 7
timezone = "Europe/Rome"

[cities.nowhere]
west = 10.0
east = 10.7
south = 45.0
north = 45.5
timezone = "Europe/Rome"
"""
SLOT = np.timedelta64(30, "m")
START = np.datetime64("2024-05-06T22:00", "us")  # midnight of 7 May in Rome
DOWN = START + 5 * SLOT  # not observed
NOW = START + 20 * SLOT + np.timedelta64(10, "m")  # in the middle of slot 20
OLD, NEW = "vmrnn-b-1", "vmrnn-c-1"
CITY = "/v1/cities/testville"
DAY = "start=2024-05-07&end=2024-05-08"
CELL = np.arange(35).reshape(5, 7)


def stepped(flow: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Intervals of 80 and 95 %: 1 and 2 vehicles below, 10 and 20 above; bounds are (level, lead, kind, row, col)."""
    lower = np.stack([flow - 1, flow - 2]).clip(0)
    return np.array([0.8, 0.95]), lower.astype(np.float32), np.stack([flow + 10, flow + 20]).astype(np.float32)


def observed_flow(slot: int) -> np.ndarray:
    """Slot number + 100 x kind + the cell's number, (kind, row, col)."""
    return slot + np.array([0, 100])[:, None, None] + CELL


def forecast_flow(slot: int) -> np.ndarray:
    """10 x lead + 1000 x kind + the cell's number + slot / 1000, but 0 in the first cell; (lead, kind, row, col)."""
    flow = 10 * np.arange(4)[:, None, None, None] + np.array([0, 1000])[:, None, None] + CELL + slot / 1000
    flow[:, :, 0, 0] = 0.0
    return flow


@pytest.fixture(scope="module")
def config(tmp_path_factory: pytest.TempPathFactory) -> Config:
    """Two champions' forecasts of testville: the old one's of slots 2 to 9, the new one's from 8 on to 20.

    The old ones have no intervals; that of slot 11 is degraded, that of 12 a baseline's hindcast. Slots 0 to 21 are in
    the flow store, though slot 20 has not closed, and the forecasts of slots 8 and 9 are scored.
    """
    file = tmp_path_factory.mktemp("api") / "config.toml"
    file.write_text(CONFIG, encoding="utf-8")
    settings = load_config(file)
    city, data = settings.city("testville"), settings.paths.data
    stores = stores_in(data, city)
    time = START + SLOT * np.arange(22)
    coverage = np.where(time == DOWN, 0.1, 1.0)
    vehicles = np.where(time == START, -1, 9)
    flow = np.stack([observed_flow(slot) for slot in range(22)])
    stores.flows.write(flows_dataset(city, time, flow, vehicles, coverage))

    registry = Registry(settings.paths.models / city.name, city)
    for version, rmse in ((OLD, 4.5), (NEW, float("nan"))):
        card = {
            "version": version,
            "created": "2024-05-01T00:00:00+02:00",
            "metrics": {"validation": {version: {"rmse": rmse}}, "test": {}},
        }
        registry.add(version, lambda folder, card=card: (folder / "card.json").write_text(json.dumps(card)))
    registry.promote(NEW)
    origins = {
        11: Provenance(NEW, "degraded", "the slot before was not observed"),
        12: Provenance("scaled_climatology", "baseline", "no data", True),
    }
    for version, slots in ((OLD, range(2, 10)), (NEW, range(8, 21))):
        store, described = (
            stores.forecasts(version),
            {"version": version, "architecture": {"name": "vmrnn"}},
        )
        made = []
        for slot in slots:
            flow = forecast_flow(slot)
            bounds = stepped(flow) if version == NEW and slot != 12 else None
            init, origin = START + slot * SLOT, origins.get(slot) if version == NEW else None
            made.append(forecast_dataset(city, described, init, flow, init, bounds, origin))
        bounded = [one for one in made if "lower" in one]
        for part in ([one for one in made if "lower" not in one], bounded):
            if part:
                joined = xr.concat(
                    part, "init_time", data_vars="minimal", coords="minimal", compat="override", join="outer",
                    combine_attrs="override",
                )  # fmt: skip
                store.write(joined)
        for slot in {8, 9} & set(slots):
            truth = np.stack([observed_flow(slot + lead) for lead in range(4)]).astype(float)
            truth[1] = np.nan if slot == 9 else truth[1]
            compared = {version: truth + (1 if version == OLD else 2), "persistence": truth + 3}
            forecast = store.read(START + slot * SLOT, START + (slot + 1) * SLOT)
            assert forecast is not None
            bounds = forecast.isel(init_time=0) if version == NEW else None
            stores.scores(version).write(score_dataset(city, START + slot * SLOT, compared, truth, bounds))
    return settings


@pytest.fixture(scope="module")
def client(config: Config) -> TestClient:
    """A client of the application in this process, ten minutes into slot 20."""
    return TestClient(_create_app(config, now=lambda: NOW), raise_server_exceptions=False)


@pytest.fixture
def ask(client: TestClient) -> Callable[..., Any]:
    """Ask for an address below the city and get the JSON of a 200."""

    def get(path: str) -> Any:
        response = client.get(CITY + path)
        assert response.status_code == 200, response.text
        return response.json()

    return get


def numbers(values: Any) -> np.ndarray:
    """Nested lists as an array; null is not a number."""
    return np.array(values, dtype=object).astype(float)


# What is answered


def test_every_answer_is_what_the_schema_says(ask: Callable[..., Any], client: TestClient) -> None:
    for path, model in {
        "": schema.City,
        f"/forecasts?{DAY}": schema.Forecasts,
        "/forecasts/latest": schema.Forecast,
        "/forecasts/2024-05-07T01:00": schema.Forecast,
        f"/observations?{DAY}": schema.Observations,
        f"/cells/1/2?{DAY}": schema.CellSeries,
        f"/scores?{DAY}": schema.Scores,
        "/models": schema.Models,
        f"/models/{NEW}": schema.Model,
    }.items():
        model.model_validate(ask(path))  # forbids what is not in it
    schema.Cities.model_validate(client.get("/v1/cities").json())


def test_cities_are_those_of_the_configuration(client: TestClient, ask: Callable[..., Any]) -> None:
    assert [city["name"] for city in client.get("/v1/cities").json()["cities"]] == ["nowhere", "testville"]
    city = ask("")
    assert (city["rows"], city["cols"], city["slot_minutes"], city["timezone"]) == (5, 7, 30, "Europe/Rome")
    np.testing.assert_allclose(city["lat"], [45.45, 45.35, 45.25, 45.15, 45.05])
    np.testing.assert_allclose(city["lon"], 10.05 + 0.1 * np.arange(7))
    assert city["champion"] == NEW
    assert city["latest_forecast"] == "2024-05-07T10:00:00+02:00"
    assert city["observed_until"] == "2024-05-07T10:00:00+02:00"  # slot 20 has not closed


def test_a_city_without_anything_says_so(client: TestClient) -> None:
    city = client.get("/v1/cities/nowhere").json()
    assert city["champion"] is None and city["observed_until"] is None and city["latest_forecast"] is None
    assert client.get(f"/v1/cities/nowhere/forecasts?{DAY}").json()["forecasts"] == []
    assert client.get(f"/v1/cities/nowhere/observations?{DAY}").json()["slots"] == []
    assert client.get(f"/v1/cities/nowhere/scores?{DAY}").json()["init_times"] == []
    series = client.get(f"/v1/cities/nowhere/cells/0/0?{DAY}").json()
    assert len(series["times"]) == 48 and series["observed"]["inflow"] == [None] * 48 and series["levels"] == []
    assert client.get("/v1/cities/nowhere/models").json() == {"city": "nowhere", "champion": None, "models": []}
    response = client.get("/v1/cities/nowhere/forecasts/latest")
    assert response.status_code == 503 and "published" in response.json()["error"]


def test_the_latest_forecast_has_its_grid_and_its_bounds(ask: Callable[..., Any]) -> None:
    forecast = ask("/forecasts/latest")
    assert forecast["init_time"] == forecast["valid_times"][0] == "2024-05-07T10:00:00+02:00"
    assert forecast["valid_times"][3] == "2024-05-07T11:30:00+02:00" and forecast["lead_minutes"] == [0, 30, 60, 90]
    assert (forecast["model"], forecast["forecaster"], forecast["state"]) == (NEW, NEW, "complete")
    expected = forecast_flow(20)
    for kind, name in enumerate(("inflow", "outflow")):
        np.testing.assert_allclose(numbers(forecast["flow"][name]), expected[:, kind], atol=6e-4)
        lower, upper = numbers(forecast["lower"][name]), numbers(forecast["upper"][name])
        np.testing.assert_allclose(lower[1], (expected[:, kind] - 2).clip(0), atol=6e-4)
        np.testing.assert_allclose(upper, np.stack([expected[:, kind] + 10, expected[:, kind] + 20]), atol=6e-4)
    assert forecast["levels"] == [0.8, 0.95]


def test_a_baselines_forecast_says_so_and_has_no_bounds(ask: Callable[..., Any]) -> None:
    forecast = ask("/forecasts/2024-05-07T06:00:00")  # slot 12
    assert (forecast["forecaster"], forecast["state"], forecast["reason"], forecast["hindcast"]) == (
        "scaled_climatology", "baseline", "no data", True,
    )  # fmt: skip
    assert forecast["model"] == NEW
    assert forecast["levels"] == [] and forecast["lower"] is None and forecast["upper"] is None


def test_an_init_time_is_understood_in_any_zone(ask: Callable[..., Any]) -> None:
    here = ask("/forecasts/2024-05-07T06:00")
    for same in (
        "2024-05-07T06:00:00+02:00",
        "2024-05-07T04:00Z",
        "2024-05-07T06:00:00%2B02:00",
        "2024-05-06T23:00-05:00",
    ):
        assert ask(f"/forecasts/{same}") == here


def test_past_forecasts_are_one_series_of_two_champions(ask: Callable[..., Any]) -> None:
    entries = ask(f"/forecasts?{DAY}")["forecasts"]
    assert [entry["model"] for entry in entries] == [OLD] * 6 + [NEW] * 13
    assert entries[0]["init_time"] == "2024-05-07T01:00:00+02:00"
    assert [entry["init_time"] for entry in entries] == sorted(entry["init_time"] for entry in entries)
    by_time = {entry["init_time"][11:16]: entry for entry in entries}
    assert by_time["05:30"]["state"] == "degraded" and "not observed" in by_time["05:30"]["reason"]
    assert by_time["06:00"]["hindcast"] and not by_time["06:30"]["hindcast"]
    some = ask("/forecasts?start=2024-05-07T05:00&end=2024-05-07T06:00")["forecasts"]
    assert [entry["init_time"][11:16] for entry in some] == ["05:00", "05:30"]  # the end is exclusive


def test_a_forecast_of_before_forecasts_said_how_they_were_made_was_complete(config: Config, tmp_path: Path) -> None:
    city = config.city("testville")
    settings = config.model_copy(update={"paths": _Paths(data=tmp_path / "data", models=config.paths.models)})
    store, card = CityStores.of(settings, city).forecasts(NEW), {"version": NEW, "architecture": {"name": "vmrnn"}}
    old = forecast_dataset(city, card, START, forecast_flow(0), START)
    store.write(old.drop_vars(["forecaster", "state", "reason", "hindcast"]))
    client = TestClient(_create_app(settings, now=lambda: NOW))
    for number in (0, 1):
        entry = client.get(f"{CITY}/forecasts?{DAY}").json()["forecasts"][0]
        assert (entry["forecaster"], entry["state"], entry["reason"], entry["hindcast"]) == (NEW, "complete", "", False)
        if number == 0:  # and beside a newer one in its file
            later, origin = START + SLOT, Provenance("persistence", "baseline", "no data", True)
            store.write(forecast_dataset(city, card, later, forecast_flow(1), later, None, origin))
    newer = client.get(f"{CITY}/forecasts?{DAY}").json()["forecasts"][1]
    assert (newer["forecaster"], newer["state"], newer["hindcast"]) == ("persistence", "baseline", True)


def test_geojson_is_one_feature_a_cell(client: TestClient) -> None:
    response = client.get(f"{CITY}/forecasts/latest?format=geojson")
    assert response.headers["content-type"] == "application/geo+json"
    collection = response.json()
    assert collection["init_time"] == "2024-05-07T10:00:00+02:00" and collection["state"] == "complete"
    table = geopandas.GeoDataFrame.from_features(collection)
    assert len(table) == 35
    np.testing.assert_allclose(table.union_all().bounds, (10.0, 45.0, 10.7, 45.5))
    cell = table[(table["row"] == 1) & (table["col"] == 2)].iloc[0]
    assert cell["geometry"].bounds == (10.2, 45.3, 10.3, 45.4)
    assert cell["geometry"].exterior.is_ccw  # RFC 7946
    assert cell["inflow_0"] == 9.02 and cell["inflow_90"] == 39.02 and cell["outflow_30"] == 1019.02
    assert table.iloc[0]["inflow_0"] == 0  # a 0 is left out only on demand
    fewer = client.get(f"{CITY}/forecasts/latest?format=geojson&skip_zeros=true").json()["features"]
    assert [feature["id"] for feature in fewer] == list(range(1, 35))


def test_observations_are_the_closed_slots(ask: Callable[..., Any]) -> None:
    slots = ask(f"/observations?{DAY}")["slots"]
    assert len(slots) == 20 and slots[-1]["time"] == "2024-05-07T09:30:00+02:00"
    assert slots[3]["inflow"] == observed_flow(3)[0].tolist() and slots[3]["outflow"] == observed_flow(3)[1].tolist()
    assert slots[0]["vehicles"] is None and slots[1]["vehicles"] == 9
    down = slots[5]
    assert not down["observed"] and down["inflow"] is None and down["coverage"] == 0.1
    part = ask("/observations?start=2024-05-06T23:00Z&end=2024-05-07T02:00:00+02:00")["slots"]  # a + unescaped
    assert [slot["time"] for slot in part] == ["2024-05-07T01:00:00+02:00", "2024-05-07T01:30:00+02:00"]


def test_a_cells_series_has_what_was_forecast_for_each_slot(ask: Callable[..., Any]) -> None:
    series = ask("/cells/1/2?start=2024-05-07T00:00&end=2024-05-07T12:00")
    assert (series["lat"], series["lon"]) == (45.35, 10.25)
    assert len(series["times"]) == 24 and series["times"][1] == "2024-05-07T00:30:00+02:00"
    seen = numbers(series["observed"]["outflow"])
    assert seen[3] == 3 + 100 + 9 and np.isnan(seen[5]) and np.isnan(seen[20:]).all() and not np.isnan(seen[19])
    forecast = numbers(series["forecast"]["inflow"])
    assert forecast.shape == (4, 24)
    assert forecast[0, 15] == 9.015 and forecast[2, 15] == 29.013  # of slot 13, two before
    assert np.isnan(forecast[0, :2]).all() and np.isnan(forecast[1, :3]).all()  # the first is that of slot 2
    assert forecast[3, 23] == 39.02 and np.isnan(forecast[2, 23])
    lower, upper = numbers(series["lower"]["inflow"]), numbers(series["upper"]["inflow"])
    assert series["levels"] == [0.8, 0.95]
    assert upper[0, 0, 15] == 19.015 and upper[1, 2, 15] == 49.013 and lower[1, 0, 15] == 7.015
    assert np.isnan(upper[:, 0, 7]).all() and np.isnan(upper[:, 0, 12]).all()  # the old champion's; a baseline's


def test_a_cells_series_starts_at_a_slot(ask: Callable[..., Any]) -> None:
    series = ask("/cells/1/2?start=2024-05-07T03:10&end=2024-05-07T04:01")
    assert [time[11:16] for time in series["times"]] == ["03:30", "04:00"]
    assert series["observed"]["inflow"] == [16, 17]
    assert series["forecast"]["inflow"][2] == [29.005, 29.006]  # made before the period


def test_scores_are_by_forecaster_and_lead(ask: Callable[..., Any]) -> None:
    scores = ask(f"/scores?{DAY}")
    assert scores["init_times"] == ["2024-05-07T04:00:00+02:00", "2024-05-07T04:30:00+02:00"]
    assert scores["model"] == [NEW, NEW]  # the old champion's scores of the same slots do not count
    assert set(scores["rmse"]) == {NEW, "persistence"}
    assert scores["rmse"][NEW][0] == [2.0] * 4 and scores["mae"]["persistence"][0] == [3.0] * 4
    assert scores["rmse"][NEW][1] == [2.0, None, 2.0, 2.0]  # a slot that was not observed
    assert numbers(scores["inside"]).shape == (2, 2, 4) and scores["inside"][1][0][1] is None
    np.testing.assert_allclose(numbers(scores["width"])[0, 1], 22.0, atol=0.1)


def test_models_and_their_cards(ask: Callable[..., Any]) -> None:
    models = ask("/models")
    assert models["champion"] == NEW
    assert [(one["version"], one["champion"], one["validation_rmse"]) for one in models["models"]] == [
        (OLD, False, 4.5),
        (NEW, True, None),
    ]
    card = ask(f"/models/{NEW}")
    assert card["champion"] and card["card"]["version"] == NEW
    assert card["card"]["metrics"]["validation"][NEW]["rmse"] is None  # NaN in the file


# What is refused


@pytest.mark.parametrize(
    ("path", "status", "sentence"),
    [
        ("/v1/cities/elsewhere", 404, "nowhere, testville"),
        ("/v1/elsewhere", 404, "/docs"),
        (f"{CITY}/models/vmrnn-c-9", 404, f"{OLD}, {NEW}"),
        (f"{CITY}/models/..%2f..%2fconfig.toml", 404, ""),
        (f"{CITY}/models/%2e%2e", 404, ""),
        ("/v1/cities/..%2ftestville", 404, ""),
        ("/v1/cities/%2e%2e/models", 404, ""),
        (f"{CITY}/forecasts/2024-05-07T00:00", 404, "2024-05-07T00:00:00+02:00"),
        (f"{CITY}/forecasts/2024-05-07T06:10", 404, "2024-05-07T06:10:00+02:00"),
        (f"{CITY}/forecasts/yesterday", 400, "'yesterday' is no date"),
        (f"{CITY}/forecasts/2024-03-31T02:30", 400, "does not exist"),
        (f"{CITY}/forecasts/9999-12-31T23:59-05:00", 400, "1970 to 2199"),
        (f"{CITY}/forecasts/latest?format=shape", 400, "format"),
        (f"{CITY}/cells/5/0?{DAY}", 404, "from 0 to 4"),
        (f"{CITY}/cells/0/-1?{DAY}", 404, "from 0 to 6"),
        (f"{CITY}/cells/x/0?{DAY}", 400, "row"),
        (f"{CITY}/cells/0/0?start=2024-05-01&end=2024-06-02", 400, "31 days"),
        (f"{CITY}/scores?start=2024-05-01&end=2024-06-02", 400, "31 days"),
        (f"{CITY}/forecasts?start=2024-05-01&end=2024-06-02", 400, "31 days"),
        (f"{CITY}/observations?start=2024-05-01&end=2024-05-04", 400, "2 days"),
        (f"{CITY}/observations?start=2024-05-02&end=2024-05-01", 400, "before end"),
        (f"{CITY}/observations?start=2024-05-02", 400, "end"),
        (f"{CITY}/observations?start=0001-01-01&end=0001-01-02", 400, "1970 to 2199"),
        (f"{CITY}/cells/0/0?start=9999-12-30&end=9999-12-31", 400, "1970 to 2199"),
    ],
)
def test_refusals_are_sentences(client: TestClient, path: str, status: int, sentence: str) -> None:
    response = client.get(path)
    assert response.status_code == status, response.text
    assert list(response.json()) == ["error"] and sentence in response.json()["error"]


def test_the_longest_periods_are_answered_also_when_clocks_change(client: TestClient) -> None:
    assert client.get(f"{CITY}/cells/0/0?start=1970-01-01T01:00&end=1970-02-01").status_code == 200
    assert client.get(f"{CITY}/cells/0/0?start=2199-12-01&end=2199-12-31").status_code == 200
    assert client.get(f"{CITY}/cells/0/0?start=2024-10-01&end=2024-11-01").status_code == 200  # 31 days and an hour
    assert client.get(f"{CITY}/observations?start=2024-10-26&end=2024-10-28").status_code == 200


@pytest.mark.parametrize("method", ["POST", "PUT", "PATCH", "DELETE", "OPTIONS"])
def test_nothing_but_reading(client: TestClient, method: str) -> None:
    response = client.request(method, "/v1/cities")
    assert response.status_code == 405 and response.headers["allow"] == "GET, HEAD"
    assert "read-only" in response.json()["error"]


def test_a_damaged_day_is_left_out_named_and_logged(config: Config, caplog: pytest.LogCaptureFixture) -> None:
    city = config.city("nowhere")
    file = config.paths.data / city.name / "flows" / "2024-05-07.nc"
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_bytes(b"not NetCDF")
    try:
        client = TestClient(_create_app(config, now=lambda: NOW), raise_server_exceptions=False)
        with caplog.at_level(logging.ERROR, "trafficcast.api"):
            response = client.get(f"/v1/cities/nowhere/observations?{DAY}")
        assert response.status_code == 200
        assert response.json()["unreadable"] == ["2024-05-07"] and response.json()["slots"] == []
        assert str(config.paths.data) not in response.text
        assert str(file) in caplog.text
        assert client.get(f"{CITY}/observations?{DAY}").json()["unreadable"] == []  # another city is not touched
        # What needs the damaged file itself is refused.
        assert client.get("/v1/cities/nowhere").status_code == 503
    finally:
        file.unlink()


# How it is sent


def test_what_has_not_changed_is_not_sent_again(client: TestClient) -> None:
    for path in (f"{CITY}/forecasts/latest", "/v1/cities", "/docs", "/openapi.json", f"{CITY}/models/{NEW}"):
        first = client.get(path)
        tag = first.headers["etag"]
        assert tag.startswith('"') and first.headers["cache-control"] == "no-cache"
        for known in (tag, f'"other", {tag}', f"W/{tag}", "*"):
            again = client.get(path, headers={"If-None-Match": known})
            assert again.status_code == 304 and again.content == b"" and again.headers["etag"] == tag
        other = client.get(path, headers={"If-None-Match": '"other"'})
        assert other.status_code == 200 and other.content == first.content


def test_the_tag_changes_with_the_content_and_its_coding(client: TestClient) -> None:
    tags = {
        client.get(f"{CITY}{path}", headers={"Accept-Encoding": coding}).headers["etag"]
        for path in ("/forecasts/latest", "/forecasts/latest?format=geojson", "/forecasts/2024-05-07T06:00")
        for coding in ("gzip", "identity")
    }
    assert len(tags) == 6


def test_errors_have_no_tag(client: TestClient) -> None:
    response = client.get("/v1/cities/elsewhere", headers={"If-None-Match": "*"})
    assert response.status_code == 404 and "etag" not in response.headers


def test_head_is_get_without_content(client: TestClient) -> None:
    for path in (f"{CITY}/forecasts/latest", "/v1/cities", "/docs", "/v1/cities/elsewhere"):
        get, head = client.get(path), client.head(path)
        assert head.content == b"" and head.status_code == get.status_code
        for name in ("content-length", "content-type", "etag"):
            assert head.headers.get(name) == get.headers.get(name)


def test_to_head_no_content_is_given_to_the_server(config: Config) -> None:
    sent: list[Any] = []

    async def receive() -> Any:
        return {"type": "http.request", "body": b"", "more_body": False}

    async def send(message: Any) -> None:
        sent.append(message)

    scope = {"type": "http", "method": "HEAD", "path": "/v1/cities", "query_string": b"", "headers": []}
    asyncio.run(_create_app(config, now=lambda: NOW)(scope, receive, send))
    assert sent[0]["status"] == 200 and b"".join(message.get("body", b"") for message in sent) == b""


def test_gzip_where_it_is_understood(config: Config) -> None:
    client = TestClient(_create_app(config, now=lambda: NOW))
    for coding, packed in (("gzip", True), ("br, gzip;q=0.5", True), ("identity", False), ("gzip;q=0", False)):
        with client.stream("GET", f"{CITY}/forecasts/latest", headers={"Accept-Encoding": coding}) as response:
            raw = b"".join(response.iter_raw())
        assert response.headers["vary"] == "Accept-Encoding"
        assert (response.headers.get("content-encoding") == "gzip") == packed
        assert int(response.headers["content-length"]) == len(raw)
        assert json.loads(gzip.decompress(raw) if packed else raw)["model"] == NEW


# Who may ask


def test_a_token_is_asked_for_where_there_is_one(config: Config) -> None:
    client = TestClient(_create_app(config, token="s3cret", now=lambda: NOW))
    for path in ("/v1/cities", f"{CITY}/forecasts/latest", "/docs", "/openapi.json", "/", "/elsewhere"):
        for header in ({}, {"Authorization": "Bearer wrong"}, {"Authorization": "Basic s3cret"}, {"Authorization": ""}):
            response = client.get(path, headers=header)
            assert response.status_code == 401 and "error" in response.json()
            assert response.headers["www-authenticate"].startswith("Bearer")
        assert client.get(path, headers={"Authorization": "Bearer é".encode("latin-1")}).status_code == 401
    right = {"Authorization": "Bearer s3cret"}
    assert client.get("/v1/cities", headers=right).status_code == 200
    assert client.get("/docs", headers=right).status_code == 200
    security = client.get("/openapi.json", headers=right).json()
    assert security["components"]["securitySchemes"]["HTTPBearer"]["scheme"] == "bearer"


def test_the_token_comes_from_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(_TOKEN, raising=False)
    assert _read_token() is None
    monkeypatch.setenv(_TOKEN, "abc-123")
    assert _read_token() == "abc-123"
    for bad in ("", " ", "two words", "line\n"):
        monkeypatch.setenv(_TOKEN, bad)
        with pytest.raises(InputError, match=_TOKEN) as refused:
            _read_token()
        assert not bad.strip() or bad.strip() not in str(refused.value)


def test_other_origins_only_when_named(config: Config, client: TestClient) -> None:
    origin = {"Origin": "https://map.example"}
    assert "access-control-allow-origin" not in client.get("/v1/cities", headers=origin).headers
    open_client = TestClient(_create_app(config, "s3cret", ("https://map.example",), now=lambda: NOW))
    asked = {**origin, "Access-Control-Request-Method": "GET", "Access-Control-Request-Headers": "authorization"}
    preflight = open_client.options("/v1/cities", headers=asked)
    assert preflight.status_code == 200 and preflight.headers["access-control-allow-origin"] == "https://map.example"
    answer = open_client.get("/v1/cities", headers={**origin, "Authorization": "Bearer s3cret"})
    assert answer.headers["access-control-allow-origin"] == "https://map.example"
    other = open_client.get("/v1/cities", headers={"Origin": "https://evil.example", "Authorization": "Bearer s3cret"})
    assert "access-control-allow-origin" not in other.headers


# What teaches


def test_the_page_needs_nothing_from_outside(client: TestClient) -> None:
    response = client.get("/docs")
    assert response.headers["content-type"].startswith("text/html")
    for outside in ("http:", "https:", "//", "<script", "src=", "@import", "url("):
        assert outside not in response.text
    assert "default-src 'none'" in response.headers["content-security-policy"]
    assert client.get("/").text == response.text
    for path in client.get("/openapi.json").json()["paths"]:
        assert f"GET {path}<" in response.text
    assert "vehicles per slot" in response.text and "(lead, row, col)" in response.text


def test_the_page_shows_text_as_text(config: Config) -> None:
    app = _create_app(config, now=lambda: NOW)
    app.title = "<script>alert(1)</script>"
    page = TestClient(app).get("/docs").text
    assert "<script" not in page and "&lt;script&gt;" in page


def test_every_operation_is_described(client: TestClient) -> None:
    described = client.get("/openapi.json").json()
    assert len(described["paths"]) == 10
    for path, operations in described["paths"].items():
        assert list(operations) == ["get"], path
        operation = operations["get"]
        assert operation["description"] and {"200", "400", "401", "404", "503"} <= set(operation["responses"])
        assert "422" not in operation["responses"]
        for parameter in operation.get("parameters", []):
            assert parameter["description"], (path, parameter["name"])


# As a process


@pytest.fixture
def address(config: Config) -> Iterator[str]:
    """The address of a real server with a token."""
    with _listen("127.0.0.1", 0) as listening:
        ready = _server(config, "s3cret", ())
        thread = threading.Thread(target=ready.run, kwargs={"sockets": [listening]})
        thread.start()
        yield f"http://127.0.0.1:{listening.getsockname()[1]}"
        ready.should_exit = True
        thread.join(10)
        assert not thread.is_alive()


@pytest.mark.slow
def test_twenty_at_once_get_what_one_gets(
    address: str, config: Config, caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str]
) -> None:
    city, data = config.city("testville"), config.paths.data
    store = stores_in(data, city).forecasts(NEW)
    stored = store.read()
    assert stored is not None
    paths = [
        f"{CITY}/forecasts/2024-05-07T07:00", f"{CITY}/forecasts/latest?format=geojson", f"{CITY}/observations?{DAY}",
        f"{CITY}/cells/1/2?{DAY}", f"{CITY}/scores?{DAY}", f"{CITY}/forecasts?{DAY}", CITY, f"{CITY}/models",
    ]  # fmt: skip
    right = {"Authorization": "Bearer s3cret"}
    with caplog.at_level(logging.DEBUG), httpx.Client(base_url=address, headers=right, timeout=60) as client:
        alone = {path: client.get(path) for path in paths}
        assert {response.status_code for response in alone.values()} == {200}
        finished = threading.Event()

        def write() -> None:
            while not finished.is_set():  # a file takes the place of another while it is read
                store.write(stored.assign_attrs(written=str(threading.get_ident())))
                store.write(stored)
                finished.wait(0.2)

        writer = threading.Thread(target=write)
        writer.start()
        with ThreadPoolExecutor(20) as pool:
            together = list(pool.map(lambda i: client.get(paths[i % len(paths)]), range(20)))
        finished.set()
        writer.join()
        for i, response in enumerate(together):
            assert response.status_code == 200, response.text
            assert response.content == alone[paths[i % len(paths)]].content
        assert httpx.get(address + "/v1/cities").status_code == 401
        assert httpx.head(address + "/v1/cities", headers=right).headers["etag"]
        tag = alone[CITY].headers["etag"]
        assert client.get(CITY, headers={"If-None-Match": tag}).status_code == 304
    captured = capfd.readouterr()
    # httpx itself runs in this process; of the server's records none may hold the token.
    assert not any("s3cret" in record.getMessage() for record in caplog.records if not record.name.startswith("http"))
    assert "s3cret" not in captured.out + captured.err


def test_a_taken_port_and_a_bad_origin_are_said(config: Config) -> None:
    with (
        _listen("127.0.0.1", 0) as taken,
        pytest.raises(InputError, match=rf"port {taken.getsockname()[1]}: Address already in use"),
    ):
        _listen("127.0.0.1", taken.getsockname()[1])
    with pytest.raises(InputError, match="no-such-host"):
        _listen("no-such-host.invalid", 0)
    for origin in ("map.example", "https://map.example/", "https://map.example/path"):
        with pytest.raises(InputError, match="not an origin"):
            _server(config, None, (origin,))


def test_without_the_extra_it_says_what_to_install(config: Config, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "fastapi", None)
    monkeypatch.delitem(sys.modules, "trafficcast.api.app")
    with pytest.raises(InputError, match=r"pip install 'trafficcast\[api\]'"):
        _server(config, None, ())


def test_the_command_needs_a_configuration(trafficcast: Callable[..., Any], tmp_path: Path) -> None:
    ran = trafficcast("api", "--config", tmp_path / "none.toml")
    assert ran.code == 2 and "none.toml" in ran.err
