"""Forecasts from records that arrive one by one equal those of a replay over all of them, number by number."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import xarray as xr

from pipelines.service.cycle import CityService, run_cycle
from pipelines.service.replay import replay
from tests.cities import small_city, stores_in
from tests.pipelines.service.test_cycle import Network, busier, model
from trafficcast.config.city import City
from trafficcast.config.feed import Feed
from trafficcast.config.service import Service
from trafficcast.forecasting.evaluation import forecasts_and_truth
from trafficcast.forecasting.model import Model, publish_model
from trafficcast.forecasting.windows import window_starts
from trafficcast.ingestion.ingest import ingest
from trafficcast.stores.flows import read_flows

START = 1_712_570_400  # 2024-04-08T10:00Z
VEHICLES, EVERY_S = 12, 20
pytestmark = pytest.mark.slow
Row = tuple[int, str]  # when the record is reported, unix seconds, and its line of a table


def driving(seconds: int) -> list[Row]:
    """Points of vehicles that drive about and take passengers."""
    draw = np.random.default_rng(0)
    rows = []
    for vehicle in range(VEHICLES):
        at, occupied = draw.uniform([9.11, 45.43], [9.25, 45.51]), 0
        for time in range(START + int(draw.integers(EVERY_S)), START + seconds, EVERY_S):
            at = np.clip(at + draw.normal(0, 0.002, 2), [9.10, 45.42], [9.259, 45.519])
            occupied ^= draw.random() < 0.1
            rows.append((time, f"{vehicle},{time},{at[0]:.6f},{at[1]:.6f},{int(occupied)}"))
    return rows


def riding(seconds: int) -> list[Row]:
    """Trips of up to an hour and a half, which are reported when they have ended."""
    draw = np.random.default_rng(0)
    rows = []
    for begin in range(START - 5400, START + seconds, 10):
        end = begin + int(draw.integers(60, 5400))
        places = draw.uniform([9.11, 45.43] * 2, [9.25, 45.51] * 2)
        rows.append((end, ",".join([str(begin), str(end), *(f"{place:.6f}" for place in places)])))
    return [row for row in rows if START <= row[0] < START + seconds]


HEADERS = {driving: "vehicle,time,lon,lat,occupied"}
HEADERS[riding] = "pickup_time,dropoff_time,pickup_lon,pickup_lat,dropoff_lon,dropoff_lat"
FEEDS: dict[str, tuple[Any, City]] = {
    "points": (driving, small_city(rows=8, cols=8)),
    "points, short slots": (driving, small_city(rows=8, cols=8, slot_minutes=5)),
    "trips of points": (driving, small_city(rows=8, cols=8, feed=Feed(trips=True))),
    "trips": (riding, small_city(rows=8, cols=8)),
}


@pytest.fixture
def network(monkeypatch: pytest.MonkeyPatch) -> Network:
    """What every model's network is: its forecast changes with each number of the newest slot."""
    stand_in = Network(busier)
    monkeypatch.setattr(Model, "forecaster", lambda self, device: stand_in)
    return stand_in


def service_of(folder: Path, city: City) -> CityService:
    made = CityService(stores_in(folder / "data", city), Service(), torch.device("cpu"))
    card = model().card | {"city": city.name, "grid": city.grid()}
    table = np.full((2, city.slots_per_day, 2, 8, 8), 3.0, np.float32)
    ours = Model(card, model().network, type(model().climatology)(city, table))
    publish_model(made.stores.registry, ours, lambda folder: None)
    return made


def utc(seconds: int) -> np.datetime64:
    return np.datetime64(seconds, "s").astype("datetime64[us]")


class Post:
    """Brings records in the order in which they are reported, each once."""

    def __init__(self, folder: Path, header: str, rows: list[Row]) -> None:
        folder.mkdir()
        self.folder, self.header, self.rows = folder, header, sorted(rows)

    def deliver(self, service: CityService, until: int) -> None:
        """Ingest what was reported before a time, unix seconds."""
        lines = [line for time, line in self.rows if time < until]
        self.rows = self.rows[len(lines) :]
        file = self.folder / f"{until}.csv"
        file.write_text("\n".join([self.header, *lines]) + "\n")
        ingest(file, service.stores)


def live_forecasts(service: CityService, post: Post, slots: int, after_s: int, now_s: int) -> xr.Dataset:
    """Make each slot's forecast `now_s` seconds after its init time, from records until `after_s` seconds after it."""
    slot_s = 60 * service.stores.city.slot_minutes
    for slot in range(1, slots + 1):
        post.deliver(service, START + slot * slot_s + after_s)
        if slot >= 4:
            assert run_cycle(service, utc(START + slot * slot_s + now_s), catch_up=False)
    found = service.stores.forecasts("vmrnn-b-1").read()
    assert found is not None
    return found


@pytest.mark.parametrize("after_s", [0, 100])
@pytest.mark.parametrize("feed", FEEDS)
def test_live_forecasts_equal_replayed_ones(feed: str, after_s: int, tmp_path: Path, network: Network) -> None:
    drive, city = FEEDS[feed]
    slot_s, slots = 60 * city.slot_minutes, 7
    rows = drive((slots + 5) * slot_s)
    live, later = (service_of(tmp_path / name, city) for name in ("live", "later"))
    wait = int(Service().wait(city.slot_minutes) / np.timedelta64(1, "s"))
    made = live_forecasts(live, Post(tmp_path / "by slots", HEADERS[drive], rows), slots, after_s, wait)
    Post(tmp_path / "at once", HEADERS[drive], rows).deliver(later, START + 99 * slot_s)
    replay(later.stores, utc(START + 4 * slot_s), utc(START + (slots + 1) * slot_s))
    again = later.stores.forecasts("vmrnn-b-1").read()
    assert again is not None and len(again["init_time"]) == slots - 3
    for name in ("flow", "state", "reason", "forecaster"):
        assert np.array_equal(made[name].values, again[name].values), name
    assert set(made["state"].values) == {"complete"}
    # A backtest and a training read the same histories.
    flows = read_flows(later.stores)
    starts = window_starts(flows, city, utc(START + 4 * slot_s), utc(START + (slots + 5) * slot_s))
    ours, truth = forecasts_and_truth(Always(network), flows, starts)
    n = min(len(ours), slots - 3)
    assert n > 1 and np.array_equal(ours[:n], made["flow"].values[:n])
    assert np.array_equal(truth[0], flows["flow"].values[starts[0] + 4 : starts[0] + 8])
    late = flows["late_flow"].values
    assert late.any() and (late <= flows["flow"].values[:, None]).all() and (late >= 0).all()


class Always:
    """The stand-in for many histories at a time."""

    def __init__(self, network: Network) -> None:
        self.network = network

    def forecast(self, history: np.ndarray, init_times: np.ndarray) -> np.ndarray:
        return np.concatenate([self.network.forecast(one[None], init_times) for one in history])


@pytest.mark.parametrize(("missing_s", "state"), [(0, "complete"), (180, "degraded")])
def test_a_feed_that_delivers_whole_slots_is_complete_where_they_are_whole(
    missing_s: int, state: str, tmp_path: Path, network: Network
) -> None:
    drive, city = FEEDS["points"]
    service = service_of(tmp_path, city)
    rows = drive(6 * 1800)
    made = live_forecasts(service, Post(tmp_path / "post", HEADERS[drive], rows), 5, -missing_s, 600)
    assert set(made["state"].values) == {state}
    reasons = {str(reason).split(":")[0] for reason in made["reason"].values}
    assert reasons == ({""} if state == "complete" else {"the last slot may not be whole"})
