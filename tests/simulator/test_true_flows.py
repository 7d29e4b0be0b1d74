"""The true flows beside simulated records: what a plain count of the written files gives, and what the city is like."""

from __future__ import annotations

import csv
import gzip
import json
import math
import tempfile
from collections import defaultdict
from collections.abc import Iterable
from datetime import datetime
from pathlib import Path
from zoneinfo import ZoneInfo

import numpy as np
import pyarrow.parquet as pq
import pytest
import xarray as xr
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.cities import small_city
from trafficcast.config.city import City
from trafficcast.config.feed import Feed
from trafficcast.simulator.simulator import _SimulationSummary, simulate, truth_file
from trafficcast.stores.observed import Evidence, judge_observed

Point = tuple[str, int, float, float, int]  # vehicle, unix seconds, longitude, latitude, occupied (-1 unknown)
Trip = tuple[int, float, float, int, float, float]  # pick-up: unix seconds, longitude, latitude; then the drop-off's
CITY = small_city(rows=16, cols=16)
CLOCKS_SET_BACK = np.datetime64("2024-10-26T12:00")  # in the night after this day
POINTS = ("cabspotting", "tdrive", "parquet", "csv")


def read_points(file_format: str, folder: Path, zone: ZoneInfo) -> list[Point]:
    points: list[Point] = []
    for file in sorted(folder.iterdir()):
        if file_format == "cabspotting":
            for line in gzip.decompress(file.read_bytes()).decode().splitlines():
                lat, lon, occupied, seconds = line.split(" ")
                points.append((file.name, int(seconds), float(lon), float(lat), int(occupied)))
        elif file_format == "tdrive":
            before, fold = "", 0
            for vehicle, time, lon, lat in csv.reader(file.read_text().splitlines()):
                fold = 1 if time < before else fold  # a taxi's clock was set back
                points.append((vehicle, unix_s(time, zone, fold), float(lon), float(lat), -1))
                before = time
        elif file_format == "parquet":
            for row in pq.read_table(file).to_pylist():
                points.append((row["vehicle"], int(row["time"].timestamp()), row["lon"], row["lat"], row["occupied"]))
        elif file_format == "csv":
            for row in csv.DictReader(file.read_text().splitlines()):
                moment = datetime.fromisoformat(row["time"])
                assert moment.utcoffset() is not None
                place = float(row["longitude"]), float(row["latitude"])
                points.append((row["vehicle"], int(moment.timestamp()), *place, int(row["occupied"])))
        else:
            for row in csv.DictReader(file.read_text().splitlines()):
                for i, (lon, lat) in enumerate(json.loads(row["POLYLINE"])):
                    points.append((row["TAXI_ID"], int(row["TIMESTAMP"]) + 15 * i, lon, lat, -1))
    return points


def read_trips(file_format: str, folder: Path, zone: ZoneInfo) -> list[Trip]:
    (file,) = folder.iterdir()
    trips: list[Trip] = []
    for row in csv.DictReader(file.read_text().splitlines()):
        if file_format == "porto":
            line, start = json.loads(row["POLYLINE"]), int(row["TIMESTAMP"])
            trips.append((start, *line[0], start + 15 * (len(line) - 1), *line[-1]))
        else:
            ends = [
                (
                    unix_s(row[f"tpep_{end}_datetime"], zone),
                    float(row[f"{end}_longitude"]),
                    float(row[f"{end}_latitude"]),
                )
                for end in ("pickup", "dropoff")
            ]
            times = [row[f"tpep_{end}_datetime"] for end in ("pickup", "dropoff")]
            if all(unix_s(time, zone) == unix_s(time, zone, 1) for time in times):  # nothing tells the others apart
                trips.append((*ends[0], *ends[1]))
    return trips


def unix_s(local: str, zone: ZoneInfo, fold: int = 0) -> int:
    """The first occurrence, where there are two, or with `fold` the second."""
    return int(datetime.fromisoformat(local).replace(tzinfo=zone, fold=fold).timestamp())


def km(lon1: float, lat1: float, lon2: float, lat2: float) -> float:
    phi1, phi2, dlambda = math.radians(lat1), math.radians(lat2), math.radians(lon2 - lon1)
    cosine = math.sin(phi1) * math.sin(phi2) + math.cos(phi1) * math.cos(phi2) * math.cos(dlambda)
    return 6371.0088 * math.acos(min(1.0, cosine))


def cell(city: City, lon: float, lat: float) -> tuple[int, int] | None:
    col = math.floor((lon - city.west) / (city.east - city.west) * city.cols)
    row = math.floor((city.north - lat) / (city.north - city.south) * city.rows)
    return (row, col) if 0 <= row < city.rows and 0 <= col < city.cols else None


class PlainCount:
    """The rules of the flows, one record at a time."""

    def __init__(self, city: City) -> None:
        self.city = city
        self.slot_s = 60 * city.slot_minutes
        self.flow: dict[tuple[int, int, int, int], int] = defaultdict(int)  # slot, kind, row, col
        self.vehicles: dict[int, set[str]] = defaultdict(set)
        self.minutes: dict[int, list[int]] = defaultdict(lambda: [0] * city.slot_minutes)

    def heard(self, vehicle: str, second: int) -> None:
        self.vehicles[second // self.slot_s].add(vehicle)
        self.minutes[second // self.slot_s][second % self.slot_s // 60] += 1

    def add(self, kind: int, second: int, at: tuple[int, int] | None) -> None:
        if at is not None:
            self.flow[(second // self.slot_s, kind, *at)] += 1

    def points(self, points: list[Point]) -> None:
        kept: dict[str, dict[int, tuple[float, float, int]]] = defaultdict(dict)
        for vehicle, second, *rest in points:
            place = (float(rest[0]), float(rest[1]), int(rest[2]))
            kept[vehicle][second] = min(place, kept[vehicle].get(second, place))
        for vehicle, track in kept.items():
            previous: tuple[int, tuple[float, float, int]] | None = None
            for second in sorted(track):
                self.heard(vehicle, second)
                if previous is not None:
                    self.pair(*previous, second, track[second])
                previous = second, track[second]

    def pair(self, t: int, p: tuple[float, float, int], u: int, q: tuple[float, float, int]) -> None:
        city, from_cell, to_cell = self.city, cell(self.city, *p[:2]), cell(self.city, *q[:2])
        if u - t > city.max_gap_minutes * 60 or km(*p[:2], *q[:2]) / (u - t) * 3600 > city.max_speed_kmh:
            return
        if not city.feed.trips and from_cell != to_cell:
            self.add(1, t, from_cell)
            self.add(0, u, to_cell)
        elif city.feed.trips and (p[2], q[2]) == (0, 1):
            self.add(1, u, to_cell)
        elif city.feed.trips and (p[2], q[2]) == (1, 0):
            self.add(0, t, from_cell)

    def trips(self, trips: Iterable[Trip]) -> None:
        for trip in trips:
            for kind, (second, lon, lat) in ((1, trip[:3]), (0, trip[3:])):
                self.heard("", second)
                self.add(kind, second, cell(self.city, lon, lat))

    def check(self, truth: xr.Dataset, unknown_vehicles: bool) -> None:
        slots = truth["time"].values.astype("datetime64[s]").astype(np.int64) // self.slot_s
        assert slots.tolist() == list(range(min(self.minutes), max(self.minutes) + 1))
        flow = np.zeros_like(truth["flow"].values)
        for (slot, kind, row, col), n in self.flow.items():
            flow[slot - slots[0], kind, row, col] = n
        np.testing.assert_array_equal(truth["flow"].values, flow)
        vehicles = [-1 if unknown_vehicles and self.vehicles[slot] else len(self.vehicles[slot]) for slot in slots]
        assert truth["vehicles"].values.tolist() == vehicles
        heard = np.array(sorted(self.minutes))
        minutes = np.array([self.minutes[slot] for slot in heard.tolist()])
        coverage = np.zeros(len(slots), np.float32)
        coverage[heard - slots[0]] = (minutes > 0).mean(axis=1)
        np.testing.assert_array_equal(truth["coverage"].values, coverage)
        known = None if unknown_vehicles else np.array([len(self.vehicles[slot]) for slot in heard.tolist()])
        judged, observed = judge_observed(self.city, Evidence(heard, minutes, known, unknown_vehicles))
        np.testing.assert_array_equal(truth["observed"].values, np.isin(slots, judged[observed]))


def simulate_and_check(
    city: City, file_format: str, folder: Path, vehicles: int, days: int, seed: int, start: np.datetime64 | None = None
) -> int:
    """Returns the sum of all flows."""
    simulate(city, folder / "records", vehicles, days, seed, start, file_format=file_format)
    count = PlainCount(city)
    of_trips = file_format == "tlc" or (file_format == "porto" and city.feed.trips)
    zone = ZoneInfo(city.feed.timezone or city.timezone)
    if of_trips:
        trips = read_trips(file_format, folder / "records", zone)
        count.trips(set(trips) if file_format == "porto" else trips)  # Porto's have ids, by which they repeat
    else:
        count.points(read_points(file_format, folder / "records", zone))
    with xr.open_dataset(truth_file(folder / "records"), engine="h5netcdf") as truth:
        count.check(truth, unknown_vehicles=of_trips)
        return int(truth["flow"].sum())


@pytest.mark.parametrize("trips", [False, True])
@pytest.mark.parametrize("file_format", [*POINTS, "porto", "tlc"])
def test_the_truth_is_what_a_plain_count_of_the_files_gives(file_format: str, trips: bool, tmp_path: Path) -> None:
    city = CITY.model_copy(update={"feed": Feed(trips=trips)})
    moved = simulate_and_check(city, file_format, tmp_path, vehicles=12, days=7, seed=5)
    assert (moved > 100) == (not (trips and file_format == "tdrive"))  # which does not say who is occupied


@pytest.mark.parametrize("file_format", ["tdrive", "tlc"])
def test_of_local_times_that_occur_twice_those_of_taxis_are_told_apart_and_those_of_trips_left_out(
    file_format: str, tmp_path: Path
) -> None:
    simulate_and_check(CITY, file_format, tmp_path, vehicles=30, days=2, seed=1, start=CLOCKS_SET_BACK)


def test_times_without_offset_are_on_the_clock_of_the_feed(tmp_path: Path) -> None:
    city = CITY.model_copy(update={"feed": Feed(timezone="America/New_York")})
    simulate_and_check(city, "tdrive", tmp_path, vehicles=3, days=1, seed=1)


@pytest.mark.slow
@pytest.mark.parametrize("file_format", ["porto", "tlc"])
def test_a_ride_longer_than_the_outage_is_heard_as_two(file_format: str, tmp_path: Path) -> None:
    wide = CITY.model_copy(update={"west": 7.5, "east": 11.0, "south": 44.0, "north": 46.5})
    simulate_and_check(wide, file_format, tmp_path, vehicles=40, days=7, seed=1)
    trips = read_trips(file_format, tmp_path / "records", wide.zone)
    outage = np.datetime64("2024-04-11T12:10").astype("datetime64[s]").astype(int)
    assert max(trip[3] - trip[0] for trip in trips) > 3 * 3600
    assert not any(trip[0] < outage and trip[3] >= outage for trip in trips)


def test_a_fleet_that_never_drives_has_flows_without_a_slot(tmp_path: Path) -> None:
    sunday = np.datetime64("2024-04-14T12:00")
    summary = simulate(CITY, tmp_path / "records", vehicles=1, days=1, seed=0, start=sunday)
    assert (summary.points, summary.files) == (0, 0)
    assert xr.load_dataset(truth_file(tmp_path / "records"), engine="h5netcdf").sizes["time"] == 0


@pytest.mark.slow
@settings(derandomize=True, deadline=None, max_examples=25)
@given(
    file_format=st.sampled_from([*POINTS, "porto", "tlc"]),
    rows=st.integers(1, 40),
    cols=st.integers(1, 40),
    slot_minutes=st.sampled_from([5, 30, 60, 720, 1440]),
    max_gap_minutes=st.sampled_from([0.9, 1.1, 10, 120, 900]),  # 900: from one shift to the next
    max_speed_kmh=st.sampled_from([12, 20, 30, 150]),
    timezone=st.sampled_from(["Europe/Rome", "Asia/Kathmandu", "America/St_Johns"]),
    seed=st.integers(0, 1000),
)
def test_the_truth_keeps_to_the_rules_of_any_city(
    file_format: str,
    rows: int,
    cols: int,
    slot_minutes: int,
    max_gap_minutes: float,
    max_speed_kmh: float,
    timezone: str,
    seed: int,
) -> None:
    city = small_city(
        timezone=timezone,
        rows=rows,
        cols=cols,
        slot_minutes=slot_minutes,
        max_gap_minutes=max_gap_minutes,
        max_speed_kmh=max_speed_kmh,
    )
    with tempfile.TemporaryDirectory() as folder:
        simulate_and_check(city, file_format, Path(folder), vehicles=3, days=2, seed=seed)


@pytest.fixture(scope="module")
def fortnight(tmp_path_factory: pytest.TempPathFactory) -> tuple[_SimulationSummary, xr.Dataset]:
    out = tmp_path_factory.mktemp("fortnight") / "records"
    summary = simulate(CITY, out, vehicles=200, days=14, seed=2, file_format="parquet")
    return summary, xr.load_dataset(truth_file(out), engine="h5netcdf")


def test_the_outage_shows_as_missing_slots_between_partial_ones(
    fortnight: tuple[_SimulationSummary, xr.Dataset],
) -> None:
    summary, truth = fortnight
    assert summary.outage == (np.datetime64("2024-04-15T12:10"), np.datetime64("2024-04-15T14:10"))
    around = truth.sel(time=slice(np.datetime64("2024-04-15T11:30"), np.datetime64("2024-04-15T14:30")))
    assert around["observed"].values.tolist() == [True, False, False, False, False, False, True]
    assert around["coverage"].values.tolist() == pytest.approx([1, 1 / 3, 0, 0, 0, 2 / 3, 1])
    assert (around["vehicles"].values[2:5] == 0).all() and (around["vehicles"].values[[1, 5]] > 20).all()
    assert around["flow"].values[2:5].sum() == 0
    assert int((~truth["observed"]).sum()) == 5


def test_the_match_draws_traffic_to_the_stadium(fortnight: tuple[_SimulationSummary, xr.Dataset]) -> None:
    summary, truth = fortnight
    match = summary.match
    row = int(np.abs(truth["lat"].values - match.lat).argmin())
    col = int(np.abs(truth["lon"].values - match.lon).argmin())
    there = truth["flow"].isel(row=row, col=col)

    def flow(kind: str, day: np.datetime64, hour: int) -> int:
        """In two hours of a local evening."""
        begin = CITY.midnight(day) + np.timedelta64(hour, "h")
        slots = slice(begin, begin + np.timedelta64(119, "m"))
        return int(there.sel(flow_kind=kind, time=slots).sum())

    week_before = match.day - np.timedelta64(7, "D")
    assert flow("inflow", match.day, 19) > 3 * flow("inflow", week_before, 19) > 0
    assert flow("outflow", match.day, 22) > 10 * flow("outflow", week_before, 22) > 0


def test_weekends_differ(fortnight: tuple[_SimulationSummary, xr.Dataset]) -> None:
    truth = fortnight[1]
    local = CITY.local(truth["time"].values)
    weekend = local.day_of_week >= 5
    inflow = truth["flow"].sel(flow_kind="inflow").values.sum(axis=(1, 2))
    morning, night = (local.hour >= 7) & (local.hour < 10), (local.hour >= 1) & (local.hour < 4)
    assert inflow[morning & ~weekend].mean() > 1.5 * inflow[morning & weekend].mean()
    assert inflow[night & weekend].mean() > 1.5 * inflow[night & ~weekend].mean()


def test_passengers_leave_in_the_evening_where_they_came_in_the_morning(tmp_path: Path) -> None:
    simulate(CITY, tmp_path / "trips", vehicles=200, days=5, seed=2, file_format="tlc")
    truth = xr.load_dataset(truth_file(tmp_path / "trips"), engine="h5netcdf")
    hour = CITY.local(truth["time"].values).hour
    came = (truth["flow"].sel(flow_kind="inflow") - truth["flow"].sel(flow_kind="outflow")).values
    morning = came[(hour >= 7) & (hour < 10)].sum(axis=0)
    evening = came[(hour >= 17) & (hour < 20)].sum(axis=0)
    assert np.corrcoef(morning.ravel(), evening.ravel())[0, 1] < -0.5
