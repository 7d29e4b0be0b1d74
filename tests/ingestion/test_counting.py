"""Flow counting against the definition, rule by rule, and against a second, plain implementation of it."""

from __future__ import annotations

import math
import random
from collections import Counter, defaultdict
from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import pytest
import xarray as xr
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.ingestion.rows import sorted_and_deduplicated
from trafficcast.config.city import HISTORY, City
from trafficcast.config.feed import Feed
from trafficcast.geography.cells import haversine_m
from trafficcast.ingestion.counting import (
    TOTALS,
    Count,
    _count_points,
    _count_trips,
    _count_zone_trips,
    _difference,
    _merge_all,
    _slots_dataset,
    merge,
)
from trafficcast.records.records import DAY_US, HOUR_US, Points, Trips, ZoneTrips
from trafficcast.stores.flows import flows_dataset

MINUTE = 60_000_000
SECOND = 1_000_000
NOON = int(np.datetime64("2008-06-04T12:00", "us").astype(np.int64))
CELL = 1 / 128  # degrees; a power of two, so that every edge is exact in float64
CITY = City(
    west=10.0, east=10.0 + 4 * CELL, south=45.0, north=45.0 + 3 * CELL, rows=3, cols=4, timezone="UTC", name="small"
)
INFLOW, OUTFLOW = 0, 1


@dataclass(frozen=True)
class Ping:
    """One report. `time` in microseconds since 1970."""

    vehicle: int
    time: int
    lon: float
    lat: float
    occupied: int = 0


def centre(row: float, col: float) -> tuple[float, float]:
    """Longitude and latitude of a cell's centre; rows and columns outside the grid are places outside."""
    return CITY.west + (col + 0.5) * CELL, CITY.north - (row + 0.5) * CELL


def at(row: float, col: float, minutes: float = 0, vehicle: int = 0) -> Ping:
    """A report from a cell's centre, so many minutes after noon."""
    return Ping(vehicle, NOON + round(minutes * MINUTE), *centre(row, col))


def as_points(pings: list[Ping]) -> Points:
    return Points(
        np.array([p.vehicle for p in pings], np.int32),
        np.array([p.time for p in pings], np.int64),
        np.array([p.lon for p in pings], np.float64),
        np.array([p.lat for p in pings], np.float64),
        np.array([p.occupied for p in pings], np.int8),
    )


@dataclass(frozen=True)
class Counted:
    """A count and what the tests ask of it."""

    city: City
    count: Count

    @property
    def totals(self) -> np.ndarray:
        return self.count.totals

    @property
    def flow(self) -> np.ndarray:
        """(slot, flow kind, row, col), from the first slot with a record to the last."""
        return self.dataset()["flow"].values

    def dataset(self) -> xr.Dataset:
        slots = self.count.slots
        numbers = np.arange(min(slots), max(slots) + 1)
        return _slots_dataset(self.city, numbers, slots, np.isin(numbers, list(slots)), Points, None)


def counted(pings: list[Ping], city: City = CITY) -> tuple[Counted, int]:
    """Sort, deduplicate and count, an hour at a time, as an ingest does. Returns the number of repeats as well."""
    counts, repeats = [], 0
    for hour in sorted({p.time // HOUR_US for p in pings}):
        points, dropped = sorted_and_deduplicated(as_points([p for p in pings if p.time // HOUR_US == hour]))
        counts.append(_count_points(city, points))
        repeats += dropped
    return Counted(city, _merge_all(city, counts)), repeats


def totals(pings: list[Ping], city: City = CITY) -> dict[str, int]:
    return dict(zip(TOTALS, counted(pings, city)[0].totals.tolist(), strict=True))


def moves(pings: list[Ping], city: City = CITY) -> dict[tuple[str, str, int, int], int]:
    """What was counted: {(kind, HH:MM of the slot, row, col): number}."""
    flows = counted(pings, city)[0].dataset()
    return {
        (("in", "out")[kind], str(flows["time"].values[slot].astype("datetime64[m]"))[11:], row, col): number
        for (slot, kind, row, col), number in nonzero(flows["flow"].values).items()
    }


def nonzero(values: np.ndarray) -> dict[tuple[int, ...], int]:
    return {tuple(map(int, index)): int(values[tuple(index)]) for index in np.argwhere(values)}


# Grid


@pytest.mark.parametrize(
    ("lon", "lat", "cell"),
    [
        (CITY.west, CITY.north, (0, 0)),  # the west and north edges belong to the grid
        (math.nextafter(CITY.west, 0), CITY.north, None),
        (CITY.west, math.nextafter(CITY.north, 90), None),
        (math.nextafter(CITY.east, 0), CITY.north, (0, 3)),
        (CITY.east, CITY.north, None),  # the east and south edges do not
        (CITY.west, math.nextafter(CITY.south, 90), (2, 0)),
        (CITY.west, CITY.south, None),
        (CITY.west + CELL, CITY.north - CELL, (1, 1)),  # an inner edge belongs to the cell east or south of it
        (math.nextafter(CITY.west + CELL, 0), math.nextafter(CITY.north - CELL, 90), (0, 0)),
        (CITY.west, CITY.north - CELL / 2, (0, 0)),  # row 0 is the northern row
        (CITY.west, CITY.south + CELL / 2, (2, 0)),
    ],
)
def test_edges(lon: float, lat: float, cell: tuple[int, int] | None) -> None:
    far = Ping(0, NOON, CITY.west - 5 * CELL, CITY.north + 5 * CELL)
    counter, _ = counted([far, Ping(0, NOON + 9 * MINUTE, lon, lat)])
    inflow = nonzero(counter.flow[:, INFLOW].sum(axis=0))
    assert inflow == ({cell: 1} if cell else {})
    assert counter.totals[TOTALS.index("points_outside")] == (1 if cell else 2)


def test_cell_centres_fall_in_their_own_cells() -> None:
    flows = counted([at(0, 0)])[0].dataset()
    for row, lat in enumerate(flows["lat"].values):
        for col, lon in enumerate(flows["lon"].values):
            pings = [Ping(0, NOON, 9.9, 45.0), Ping(0, NOON + 10 * MINUTE, float(lon), float(lat))]
            assert moves(pings) == {("in", "12:00", row, col): 1}


@pytest.mark.parametrize("zone", ["UTC", "Asia/Kathmandu", "America/New_York"])
def test_slots_are_aligned_to_utc_and_named_by_their_start(zone: str) -> None:
    city = CITY.model_copy(update={"timezone": zone})
    flows = counted([at(0, 0, -0.5), at(0, 0, 0), at(0, 0, 29.999), at(0, 0, 30)], city)[0].dataset()
    starts = np.array(["2008-06-04T11:30", "2008-06-04T12:00", "2008-06-04T12:30"], "datetime64[us]")
    assert (flows["time"].values == starts).all()
    assert (flows["coverage"].values == np.array([1, 2, 1], np.float32) / np.float32(30)).all()


# Transitions


def test_a_move_leaves_one_cell_and_enters_another() -> None:
    assert moves([at(0, 0), at(1, 2, 5)]) == {("out", "12:00", 0, 0): 1, ("in", "12:00", 1, 2): 1}


def test_each_half_is_counted_in_the_slot_of_its_own_point() -> None:
    assert moves([at(0, 0, 29), at(0, 1, 30)]) == {("out", "12:00", 0, 0): 1, ("in", "12:30", 0, 1): 1}


def test_a_vehicle_that_enters_the_grid_adds_only_inflow() -> None:
    assert moves([at(0, -1), at(0, 0, 5)]) == {("in", "12:00", 0, 0): 1}


def test_a_vehicle_that_leaves_the_grid_adds_only_outflow() -> None:
    assert moves([at(2, 1), at(3, 1, 5)]) == {("out", "12:00", 2, 1): 1}


def test_outside_is_one_cell() -> None:
    pings = [at(-1, 0), at(3, 3, 9)]
    assert moves(pings) == {}
    assert totals(pings)["transitions"] == 0
    assert totals(pings)["pairs"] == 1


def test_within_a_cell_nothing_is_counted() -> None:
    lon, lat = centre(1, 1)
    pings = [Ping(0, NOON, lon, lat), Ping(0, NOON + MINUTE, lon + CELL / 4, lat - CELL / 4)]
    assert moves(pings) == {}


def test_vehicles_do_not_mix() -> None:
    pings = [at(0, 0, 0, vehicle=0), at(0, 1, 1, vehicle=1), at(0, 2, 2, vehicle=0), at(0, 3, 3, vehicle=1)]
    assert moves(pings) == {
        ("out", "12:00", 0, 0): 1,
        ("in", "12:00", 0, 2): 1,
        ("out", "12:00", 0, 1): 1,
        ("in", "12:00", 0, 3): 1,
    }


def test_only_consecutive_points_make_a_pair() -> None:
    assert moves([at(0, 0), at(0, 1, 1), at(0, 0, 2)]) == {
        ("out", "12:00", 0, 0): 1,
        ("in", "12:00", 0, 1): 1,
        ("out", "12:00", 0, 1): 1,
        ("in", "12:00", 0, 0): 1,
    }


def test_a_refused_pair_still_ends_where_the_next_one_begins() -> None:
    assert moves([at(0, 0), at(0, 3, 11), at(0, 2, 12)]) == {("out", "12:00", 0, 3): 1, ("in", "12:00", 0, 2): 1}


def test_max_gap_is_inclusive() -> None:
    first, second = at(0, 0), at(0, 1, 10)
    later = Ping(0, second.time + 1, second.lon, second.lat)
    assert totals([first, second])["transitions"] == 1
    assert totals([first, later])["transitions"] == 0
    assert totals([first, later])["refused_by_gap"] == 1


@pytest.mark.parametrize("gap_seconds", [90, 120.6, 121.8])  # 2.01 and 2.03 minutes are no exact floats
def test_max_gap_is_inclusive_at_any_number_of_minutes(gap_seconds: float) -> None:
    city = CITY.model_copy(update={"max_gap_minutes": round(gap_seconds / 60, 4)})
    gap = round(gap_seconds * SECOND)
    first, (lon, lat) = at(0, 0), centre(0, 1)
    assert totals([first, Ping(0, NOON + gap, lon, lat)], city)["transitions"] == 1
    assert totals([first, Ping(0, NOON + gap + 1, lon, lat)], city)["refused_by_gap"] == 1


def test_max_speed_is_inclusive() -> None:
    first, second = at(0, 0), at(0, 1, 0.5)
    speed = haversine_m(first.lon, first.lat, second.lon, second.lat) / (second.time - first.time) * 3.6e6
    assert 50 < speed < 100  # km/h: 614 m in half a minute
    exactly = CITY.model_copy(update={"max_speed_kmh": speed})
    just_less = CITY.model_copy(update={"max_speed_kmh": math.nextafter(speed, 0)})
    assert totals([first, second], exactly)["transitions"] == 1
    assert totals([first, second], just_less)["transitions"] == 0
    assert totals([first, second], just_less)["refused_by_speed"] == 1


def test_the_default_speed_limit_is_150_kmh_on_a_sphere_of_6371008_8_m() -> None:
    lat1, lat2 = CITY.south + CELL / 2, CITY.south + 3 * CELL / 2  # due north: the arc is R times the angle
    seconds = 6371008.8 * math.radians(CELL) / (150 / 3.6)
    allowed, refused = math.ceil(seconds * SECOND), math.floor(seconds * SECOND)
    lon = CITY.west + CELL / 2
    assert 20 < seconds < 21
    assert totals([Ping(0, NOON, lon, lat1), Ping(0, NOON + allowed, lon, lat2)])["transitions"] == 1
    assert totals([Ping(0, NOON, lon, lat1), Ping(0, NOON + refused, lon, lat2)])["refused_by_speed"] == 1


@pytest.mark.parametrize(
    ("places", "angle"),
    [((0, 0, 0, 1), 1), ((7, 50, 7, 51), 1), ((0, 0, 90, 0), 90), ((0, 0, 180, 0), 180), ((179.5, 0, -179.5, 0), 1)],
)
def test_haversine(places: tuple[float, float, float, float], angle: float) -> None:
    assert haversine_m(*map(float, places)) == pytest.approx(6371008.8 * math.radians(angle), rel=1e-12)


def test_refused_pairs_are_counted_once_by_the_first_rule_that_refuses_them() -> None:
    late = 11 * MINUTE
    far_lon = CITY.west - 10.0  # some 780 km away: too fast in eleven minutes as well
    pings = [Ping(0, NOON, far_lon, 45.0), Ping(0, NOON + late, *centre(0, 0))]
    assert totals(pings) == {
        "points": 2,
        "points_outside": 1,
        "pairs": 1,
        "pairs_beyond_max_gap": 1,
        "transitions": 0,
        "refused_by_gap": 1,
        "refused_by_speed": 0,
    }


def test_pairs_beyond_max_gap_count_whatever_their_cells_and_others_are_no_refusals() -> None:
    pings = [at(0, 0), at(0, 0, 11), at(-1, 0, 12), at(-2, 0, 30), at(0, 0, 50)]
    assert totals(pings) == {
        "points": 5,
        "points_outside": 2,
        "pairs": 4,
        "pairs_beyond_max_gap": 3,  # within a cell, within the outside, and from outside to inside
        "transitions": 1,
        "refused_by_gap": 1,
        "refused_by_speed": 0,
    }


def test_a_fast_pair_within_one_cell_or_outside_is_no_refusal() -> None:
    lon, lat = centre(0, 0)
    inside = [Ping(0, NOON, lon, lat), Ping(0, NOON + 1, lon + CELL / 4, lat)]
    outside = [Ping(0, NOON, -50.0, lat), Ping(0, NOON + 1, 50.0, lat)]
    assert totals(inside)["refused_by_speed"] == totals(outside)["refused_by_speed"] == 0


def test_a_pair_across_midnight_utc_is_a_pair() -> None:
    midnight = NOON // DAY_US * DAY_US + DAY_US
    pings = [Ping(0, midnight - MINUTE, *centre(0, 0)), Ping(0, midnight + MINUTE, *centre(0, 1))]
    assert moves(pings) == {("out", "23:30", 0, 0): 1, ("in", "00:00", 0, 1): 1}


def test_days_without_records_between_two_chunks() -> None:
    late = Ping(0, NOON + 3 * DAY_US, *centre(1, 1))
    flows = counted([at(0, 0), late])[0].dataset()
    assert flows.sizes["time"] == 3 * 48 + 1
    assert flows["vehicles"].values.sum() == 2
    assert not flows["flow"].values.any()


# Missing is not zero


def test_coverage_is_the_share_of_minutes_with_a_report_from_anyone_anywhere() -> None:
    pings = [at(0, 0, 0), at(0, 0, 0.5), at(0, 0, 0.9, vehicle=1), at(-9, -9, 1.0, vehicle=2), at(0, 0, 29.99)]
    flows = counted(pings)[0].dataset()
    assert flows["coverage"].values.tolist() == [np.float32(3 / 30)]
    assert flows["vehicles"].values.tolist() == [3]


def test_vehicles_are_distinct_in_each_slot_and_count_outside_the_grid() -> None:
    pings = [at(-3, 0, minute, vehicle) for vehicle in range(3) for minute in (1, 2, 29)] + [at(0, 0, 31, 1)]
    flows = counted(pings)[0].dataset()
    assert flows["vehicles"].values.tolist() == [3, 1]


def test_a_vehicle_that_comes_back_after_a_slot_is_seen_in_both() -> None:
    assert counted([at(0, 0, 5), at(0, 0, 65), at(0, 0, 70)])[0].dataset()["vehicles"].values.tolist() == [1, 0, 1]


def test_a_slot_without_records_has_no_vehicles_and_no_coverage() -> None:
    full = [at(0, 0, minute) for minute in range(30)]
    partial = [at(0, 0, 30 + minute, vehicle) for minute in range(5) for vehicle in range(3)]
    later = [at(0, 0, 90 + minute) for minute in range(30)]
    flows = counted(full + partial + later)[0].dataset()
    assert flows["observed"].values.tolist() == [True, True, False, True]  # as it was judged
    assert flows["vehicles"].values.tolist() == [1, 3, 0, 1]  # the whole fleet was seen in the slot that was cut
    assert flows["coverage"].values.tolist() == [1.0, np.float32(5 / 30), 0.0, 1.0]


def test_the_dataset_keeps_its_contract() -> None:
    flows = counted([at(0, 0), at(0, 1, 5)])[0].dataset()
    assert flows["flow"].dims == ("time", "flow_kind", "row", "col")
    assert flows["flow"].dtype == np.int32
    assert flows["flow_kind"].values.tolist() == ["inflow", "outflow"]
    assert flows["time"].dtype == np.dtype("datetime64[us]")
    assert flows["observed"].dtype == bool
    assert flows["lat"].values.tolist() == [CITY.north - (row + 0.5) * CELL for row in range(3)]
    assert flows["lon"].values.tolist() == [CITY.west + (col + 0.5) * CELL for col in range(4)]
    wanted = {"west": 10.0, "east": CITY.east, "south": 45.0, "north": CITY.north, "rows": 3, "cols": 4}
    assert wanted | {"slot_minutes": 30, "timezone": "UTC"} == {
        key: flows.attrs[key] for key in (*wanted, "slot_minutes", "timezone")
    }


def test_unknown_vehicles_of_an_imported_grid_are_minus_one() -> None:
    time = np.array(["2008-06-04T12:00"], "datetime64[us]")
    flows = flows_dataset(CITY, time, np.ones((1, 2, 3, 4)), np.array([-1]), np.ones(1))
    assert flows["vehicles"].values.tolist() == [-1]
    assert flows["observed"].values.tolist() == [True]


# A second implementation, in plain Python


@dataclass
class Naive:
    """Flows as the definition reads, with dicts and loops."""

    flow: Counter[tuple[int, int, int, int]]
    vehicles: dict[int, set[int]]
    minutes: dict[int, Counter[int]]
    totals: Counter[str]
    repeats: int
    ends_inside: int


def naive_cell(city: City, lon: float, lat: float) -> tuple[int, int] | None:
    col = math.floor((lon - city.west) / (city.east - city.west) * city.cols)
    row = math.floor((city.north - lat) / (city.north - city.south) * city.rows)
    return (row, col) if 0 <= row < city.rows and 0 <= col < city.cols else None


def naive_distance_m(a: Ping, b: Ping) -> float:
    lat1, lat2 = math.radians(a.lat), math.radians(b.lat)
    h = math.sin((lat1 - lat2) / 2) ** 2
    h += math.cos(lat1) * math.cos(lat2) * math.sin(math.radians(a.lon - b.lon) / 2) ** 2
    return 2 * 6371008.8 * math.asin(math.sqrt(h))


def naive_count(city: City, pings: list[Ping]) -> Naive:
    kept: dict[tuple[int, int], Ping] = {}
    for ping in pings:
        key = ping.vehicle, ping.time
        if key not in kept or (ping.lon, ping.lat, ping.occupied) < (kept[key].lon, kept[key].lat, kept[key].occupied):
            kept[key] = ping
    slot_us = city.slot_minutes * MINUTE
    found = Naive(Counter(), defaultdict(set), defaultdict(Counter), Counter(), len(pings) - len(kept), 0)
    tracks: dict[int, list[Ping]] = defaultdict(list)
    for ping in sorted(kept.values(), key=lambda p: p.time):
        tracks[ping.vehicle].append(ping)
        found.vehicles[ping.time // slot_us].add(ping.vehicle)
        found.minutes[ping.time // slot_us][ping.time % slot_us // MINUTE] += 1
        found.totals["points"] += 1
        found.totals["points_outside"] += naive_cell(city, ping.lon, ping.lat) is None
    for track in tracks.values():
        for p, q in pairwise(track):
            beyond = q.time - p.time > city.max_gap_minutes * MINUTE
            found.totals["pairs"] += 1
            found.totals["pairs_beyond_max_gap"] += beyond
            left, entered = naive_cell(city, p.lon, p.lat), naive_cell(city, q.lon, q.lat)
            if left == entered:
                continue
            hours = (q.time - p.time) / (3600 * SECOND)
            if beyond:
                found.totals["refused_by_gap"] += 1
            elif naive_distance_m(p, q) / 1000 / hours > city.max_speed_kmh:
                found.totals["refused_by_speed"] += 1
            else:
                found.totals["transitions"] += 1
                if left:
                    found.flow[p.time // slot_us, OUTFLOW, *left] += 1
                if entered:
                    found.flow[q.time // slot_us, INFLOW, *entered] += 1
                    found.ends_inside += 1
    return found


def assert_as_naive(city: City, pings: list[Ping], flows: xr.Dataset, counter: Counted, repeats: int) -> None:
    naive = naive_count(city, pings)
    slots = range(min(naive.vehicles), max(naive.vehicles) + 1)
    flow = np.zeros((len(slots), 2, city.rows, city.cols), int)
    for (slot, kind, row, col), number in naive.flow.items():
        flow[slot - slots[0], kind, row, col] = number
    shares = [len(naive.minutes[slot]) / city.slot_minutes for slot in slots]
    assert (flows["time"].values.astype("datetime64[m]").astype(int) == np.array(slots) * city.slot_minutes).all()
    assert (flows["flow"].values == flow).all()
    assert flows["vehicles"].values.tolist() == [len(naive.vehicles[slot]) for slot in slots]
    assert flows["coverage"].values.tolist() == [np.float32(share) for share in shares]
    for number, slot in counter.count.slots.items():
        assert slot.minutes.tolist() == [naive.minutes[number][minute] for minute in range(city.slot_minutes)]
    assert dict(zip(TOTALS, counter.totals.tolist(), strict=True)) == {name: naive.totals[name] for name in TOTALS}
    assert repeats == naive.repeats


# Late evening UTC, so that fleets cross midnight; half cells, so that points lie on edges; half minutes, so that
# timestamps repeat and gaps of exactly ten minutes occur.
EVENING = NOON // DAY_US * DAY_US + 23 * 60 * MINUTE
PINGS = st.builds(
    Ping,
    vehicle=st.integers(0, 2),
    time=st.builds(
        lambda half_minutes, fraction: EVENING + half_minutes * MINUTE // 2 + fraction,
        st.integers(0, 260),
        st.sampled_from([0, 0, 0, 1, 499_999]),
    ),
    lon=st.integers(-2, 10).map(lambda k: CITY.west + k * CELL / 2),
    lat=st.integers(-2, 8).map(lambda k: CITY.north - k * CELL / 2),
    occupied=st.integers(0, 1),
)
FLEETS = st.lists(PINGS, min_size=1, max_size=80)
CITIES = st.builds(
    lambda minutes, gap, speed: CITY.model_copy(
        update={"slot_minutes": minutes, "max_gap_minutes": gap, "max_speed_kmh": speed}
    ),
    st.sampled_from([5, 30, 60]),
    st.sampled_from([2.0, 10.0]),
    st.sampled_from([20.0, 150.0]),
)
HYPOTHESIS = settings(derandomize=True, max_examples=80, deadline=None, database=None)


@HYPOTHESIS
@given(CITIES, FLEETS)
def test_a_plain_implementation_counts_the_same(city: City, pings: list[Ping]) -> None:
    counter, repeats = counted(pings, city)
    assert_as_naive(city, pings, counter.dataset(), counter, repeats)


@pytest.mark.parametrize("seed", range(5))
def test_a_plain_implementation_counts_the_same_for_a_busy_fleet(seed: int) -> None:
    draw = random.Random(seed)
    pings: list[Ping] = []
    for vehicle in range(8):
        time, row, col = EVENING, draw.uniform(-1, 4), draw.uniform(-1, 5)
        for _ in range(150):
            time += draw.choice([8, 45, 60, 60, 60, 601]) * SECOND + draw.randrange(SECOND)
            row, col = row + draw.gauss(0, 0.5), col + draw.gauss(0, 0.5)
            lon, lat = centre(min(max(row, -2), 4), min(max(col, -2), 5))
            pings.append(Ping(vehicle, time, lon, lat, draw.randrange(2)))
    draw.shuffle(pings)
    counter, repeats = counted(pings)
    naive = naive_count(CITY, pings)
    assert min(naive.totals[name] for name in TOTALS) > 0  # every rule has something to do
    assert_as_naive(CITY, pings, counter.dataset(), counter, repeats)


@HYPOTHESIS
@given(FLEETS, st.randoms(use_true_random=False))
def test_the_order_of_arrival_does_not_matter(pings: list[Ping], draw: random.Random) -> None:
    shuffled = draw.sample(pings, len(pings))
    (one, repeats), (other, other_repeats) = counted(pings), counted(shuffled)
    assert one.dataset().identical(other.dataset())
    assert (one.totals == other.totals).all()
    assert repeats == other_repeats


@HYPOTHESIS
@given(FLEETS)
def test_grids_of_single_vehicles_add_up_to_the_grid_of_all(pings: list[Ping]) -> None:
    whole = counted(pings)[0].count
    parts = [counted([p for p in pings if p.vehicle == v])[0].count for v in sorted({p.vehicle for p in pings})]
    assert set(whole.slots) == {number for part in parts for number in part.slots}
    for number, slot in whole.slots.items():
        own = [part.slots[number] for part in parts if number in part.slots]
        assert (sum(one.flow for one in own) == slot.flow).all()
        assert sum(one.vehicles for one in own) == slot.vehicles
        assert (sum(one.minutes for one in own) == slot.minutes).all()
    assert (sum(part.totals for part in parts) == whole.totals).all()


@HYPOTHESIS
@given(FLEETS)
def test_the_sum_of_inflow_is_the_number_of_transitions_that_end_inside(pings: list[Ping]) -> None:
    assert counted(pings)[0].flow[:, INFLOW].sum() == naive_count(CITY, pings).ends_inside


@HYPOTHESIS
@given(FLEETS, st.integers(0, 2), st.integers(0, 3))
def test_a_vehicle_that_never_changes_cell_adds_nothing(pings: list[Ping], row: int, col: int) -> None:
    lon, lat = centre(row, col)
    parked = [Ping(9, p.time, lon + (p.lon - CITY.west) / 32, lat, p.occupied) for p in pings]
    with_it, without = counted(pings + parked)[0], counted(pings)[0]
    assert (with_it.flow == without.flow).all()
    assert with_it.totals[TOTALS.index("transitions")] == without.totals[TOTALS.index("transitions")]


# What was known when


def assert_known_as_counted_before(city: City, whole: Count, before: Callable[[int], Count]) -> None:
    """What is known some slots after a slot began is what the records before that time count in it."""
    for number, slot in whole.slots.items():
        for age in range(1, HISTORY + 1):
            then = before((number + age) * city.slot_us).slots.get(number)
            assert (slot.flow - slot.not_known()[age - 1] == (0 if then is None else then.flow)).all()


@pytest.mark.parametrize("trips", [False, True])
@HYPOTHESIS
@given(CITIES, FLEETS)
def test_late_flow_is_what_the_records_of_later_slots_add(trips: bool, city: City, pings: list[Ping]) -> None:
    city = city.model_copy(update={"feed": Feed(trips=trips)})
    points, _ = sorted_and_deduplicated(as_points(pings))
    whole = _count_points(city, points)
    assert_known_as_counted_before(city, whole, lambda end: _count_points(city, points.take(points.time < end)))


# Merging


def assert_same(one: Count, other: Count) -> None:
    assert set(one.slots) == set(other.slots)
    for number, slot in one.slots.items():
        same = other.slots[number]
        assert (slot.flow == same.flow).all() and (slot.minutes == same.minutes).all()
        assert slot.vehicles == same.vehicles and (slot.late == same.late).all()
    assert (one.totals == other.totals).all()
    for end in ("first", "last"):
        for name, array in getattr(one, end).arrays().items():
            assert (array == getattr(other, end).arrays()[name]).all()


@HYPOTHESIS
@given(CITIES, FLEETS, st.lists(st.integers(0, 260), max_size=6), st.randoms(use_true_random=False))
def test_any_cuts_of_time_merged_as_any_tree_are_one_count(
    city: City, pings: list[Ping], cuts: list[int], draw: random.Random
) -> None:
    points, _ = sorted_and_deduplicated(as_points(pings))
    edges = [EVENING - DAY_US, *sorted({EVENING + cut * MINUTE // 2 for cut in cuts}), EVENING + DAY_US]
    counts = [
        _count_points(city, points.take((points.time >= start) & (points.time < end))) for start, end in pairwise(edges)
    ]
    while len(counts) > 1:
        i = draw.randrange(len(counts) - 1)
        counts[i : i + 2] = [merge(city, counts[i], counts[i + 1])]
    assert_same(counts[0], _count_points(city, points))


@HYPOTHESIS
@given(FLEETS, FLEETS)
def test_a_difference_added_to_what_was_is_what_is(before: list[Ping], more: list[Ping]) -> None:
    old = _count_points(CITY, sorted_and_deduplicated(as_points(before))[0])
    new = _count_points(CITY, sorted_and_deduplicated(as_points(before + more))[0])
    change = _difference(new, old)
    for number, slot in new.slots.items():
        found = old.slots[number].plus(change.slots[number]) if number in old.slots else change.slots[number]
        assert (found.flow == slot.flow).all() and (found.minutes == slot.minutes).all()
        assert found.vehicles == slot.vehicles and (found.late == slot.late).all()
    assert (old.totals + change.totals == new.totals).all()


def test_nothing_counts_nothing() -> None:
    empty = Points.concatenate([])
    assert _count_points(CITY, empty).slots == {}
    assert _count_trips(CITY, Trips.concatenate([])).slots == {}
    assert _count_zone_trips(CITY, ZoneTrips.concatenate([]), np.array([1])).slots == {}
    assert merge(CITY, Count(), Count()).slots == {}


# Trips

WITH_TRIPS = CITY.model_copy(update={"feed": Feed(trips=True)})


def ride(*flags: int, gap: float = 2, vehicle: int = 0) -> list[Ping]:
    """Reports from cells (0, 0), (0, 1), ... with these occupied flags, some minutes apart."""
    return [Ping(vehicle, at(0, i, i * gap).time, *centre(0, i % 4), occupied) for i, occupied in enumerate(flags)]


def test_a_passenger_gets_in_at_the_first_occupied_point_and_out_at_the_last() -> None:
    assert moves(ride(0, 1, 1, 0), WITH_TRIPS) == {("out", "12:00", 0, 1): 1, ("in", "12:00", 0, 2): 1}
    assert totals(ride(0, 1, 1, 0), WITH_TRIPS)["transitions"] == 2


def test_rides_whose_ends_nobody_saw_have_none() -> None:
    assert moves(ride(1, 1, 0), WITH_TRIPS) == {("in", "12:00", 0, 1): 1}
    assert moves(ride(0, 0, 1), WITH_TRIPS) == {("out", "12:00", 0, 2): 1}
    assert moves(ride(1, 1, 1), WITH_TRIPS) == moves(ride(0, 0), WITH_TRIPS) == {}


def test_an_unknown_flag_is_no_event() -> None:
    assert moves(ride(0, -1, 1, -1, 0), WITH_TRIPS) == {}


def test_gap_and_speed_refuse_the_ends_of_rides_as_well() -> None:
    slow = totals(ride(0, 1, gap=11), WITH_TRIPS)
    assert (slow["transitions"], slow["refused_by_gap"]) == (0, 1)
    fast = totals([at(0, 0), Ping(0, NOON + 1, *centre(0, 3), 1)], WITH_TRIPS)
    assert (fast["transitions"], fast["refused_by_speed"]) == (0, 1)


TRIP = st.tuples(
    st.integers(-90, 90), st.integers(-1, 3), st.integers(-1, 4),
    st.integers(-90, 9000), st.integers(-1, 3), st.integers(-1, 4),
)  # fmt: skip


@HYPOTHESIS
@given(st.lists(TRIP, min_size=1, max_size=30))
def test_trips_leave_where_they_begin_and_enter_where_they_end(rides: list[tuple[int, ...]]) -> None:
    ends = [((NOON + a * MINUTE, *centre(b, c)), (NOON + d * MINUTE, *centre(e, f))) for a, b, c, d, e, f in rides]
    columns = zip(*((*pickup, *dropoff, 0) for pickup, dropoff in ends), strict=True)
    trips = Trips(*(np.array(column, dtype) for column, dtype in zip(columns, Trips.DTYPES.values(), strict=True)))
    found = _count_trips(CITY, trips)
    flow: Counter[tuple[int, ...]] = Counter()
    minutes: dict[int, Counter[int]] = defaultdict(Counter)
    for pickup, dropoff in ends:
        for kind, (time, lon, lat) in ((OUTFLOW, pickup), (INFLOW, dropoff)):
            minutes[time // CITY.slot_us][time % CITY.slot_us // MINUTE] += 1
            cell = naive_cell(CITY, lon, lat)
            if cell:
                flow[time // CITY.slot_us, kind, cell[0] * CITY.cols + cell[1]] += 1
    assert {
        (number, *map(int, place)): int(slot.flow[tuple(place)])
        for number, slot in found.slots.items()
        for place in np.argwhere(slot.flow)
    } == dict(flow)
    assert {number: slot.minutes.tolist() for number, slot in found.slots.items()} == {
        number: [seen[minute] for minute in range(CITY.slot_minutes)] for number, seen in minutes.items()
    }
    assert found.totals[TOTALS.index("points")] == 2 * len(rides)
    reported = np.maximum(trips.time, trips.dropoff_time)
    assert_known_as_counted_before(CITY, found, lambda end: _count_trips(CITY, trips.take(reported < end)))


def test_trips_between_zones_count_by_zone() -> None:
    trips = ZoneTrips(
        *(np.array(a, np.int64) for a in ([NOON] * 3, [4, 4, 9], [NOON + 40 * MINUTE] * 3, [7, 264, 4], [0] * 3))
    )
    found = _count_zone_trips(CITY, trips, np.array([4, 7, 9]))
    first = NOON // CITY.slot_us
    assert found.slots[first].flow.tolist() == [[0, 0, 0], [2, 0, 1]]
    assert found.slots[first + 1].flow.tolist() == [[1, 1, 0], [0, 0, 0]]
    assert found.slots[first].not_known()[0].tolist() == [[0, 0, 0], [2, 0, 1]]  # the trips end in the next slot
    assert not found.slots[first].not_known()[1:].any() and not found.slots[first + 1].not_known().any()
    assert found.totals[TOTALS.index("points_outside")] == 1


@pytest.mark.parametrize(("more", "beyond"), [(0, 0), (1, 1)])
def test_a_pair_of_exactly_the_maximal_gap_is_not_beyond_it(more: int, beyond: int) -> None:
    pings = [at(0, 0), Ping(0, NOON + CITY.max_gap_us + more, *centre(0, 1))]
    found = totals(pings)
    assert (found["pairs"], found["pairs_beyond_max_gap"], found["transitions"]) == (1, beyond, 1 - beyond)


def test_a_slot_has_the_number_of_its_records_and_vehicles() -> None:
    found = counted([at(0, 0), at(0, 0, 1), at(-1, 0, 2, vehicle=1), at(0, 1, 31)])[0].count.slots
    first = NOON // CITY.slot_us
    assert {number: (int(slot.minutes.sum()), slot.vehicles) for number, slot in found.items()} == {
        first: (3, 2),
        first + 1: (1, 1),
    }
    trips = ZoneTrips(
        *(np.array(a, np.int64) for a in ([NOON] * 3, [4, 4, 9], [NOON + 40 * MINUTE] * 3, [7, 264, 4], [0] * 3))
    )
    ends = _count_zone_trips(CITY, trips, np.array([4, 7, 9])).slots  # trips name no vehicle
    assert {number: (int(slot.minutes.sum()), slot.vehicles) for number, slot in ends.items()} == {
        first: (3, 0),
        first + 1: (3, 0),
    }
