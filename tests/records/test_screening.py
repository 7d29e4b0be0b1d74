"""Screening: which records stay, what is counted of the others, and swapped coordinates."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from trafficcast.config.city import City
from trafficcast.config.feed import Feed
from trafficcast.errors import JobError
from trafficcast.records.records import DAY_US, EARLIEST_US, HOUR_US, Batch, Points, Trips, ZoneTrips
from trafficcast.records.screening import Screen, Screening
from trafficcast.records.sources import Source, find_sources

CITY = City(west=10.0, east=10.5, south=45.0, north=45.5, rows=4, cols=4, timezone="UTC", name="small")
LATEST = EARLIEST_US + 10 * DAY_US
NOON = EARLIEST_US + DAY_US // 2


@pytest.fixture
def source(tmp_path: Path) -> Source:
    (tmp_path / "records.csv").write_text("x")
    return find_sources(str(tmp_path / "records.csv"))[0]


@pytest.fixture
def screening(source: Source) -> Screening:
    return Screening(Screen(CITY, EARLIEST_US, LATEST), source)


def points(*rows: tuple[int, float, float]) -> Batch:
    """Time, longitude, latitude."""
    time, lon, lat = zip(*rows, strict=True)
    n = len(rows)
    records = Points(
        np.zeros(n, np.int32), np.array(time, np.int64), np.array(lon, np.float64), np.array(lat, np.float64),
        np.zeros(n, np.int8),
    )  # fmt: skip
    return Batch(records, n, ["a"])


def trips(*rows: tuple[int, float, float, int, float, float]) -> Batch:
    columns = zip(*((*row, 0) for row in rows), strict=True)
    return Batch(Trips(*(np.array(c, d) for c, d in zip(columns, Trips.DTYPES.values(), strict=True))), len(rows))


@pytest.mark.parametrize("place", [(180, 90), (-180, -90), (0, 1e-9), (1e-9, 0), (-122.4, 37.7), (0, 51.5), (9.2, 0)])
def test_places_on_the_globe_are_kept(screening: Screening, place: tuple[float, float]) -> None:
    assert len(screening.apply(points((NOON, *place)))) == 1
    assert not +screening.dropped


@pytest.mark.parametrize("place", [(180.0001, 0), (-180.0001, 0), (10, 90.0001), (10, -90.0001), (0, 0), (-0.0, 0.0)])
def test_places_off_the_globe_and_null_island_are_dropped(screening: Screening, place: tuple[float, float]) -> None:
    assert len(screening.apply(points((NOON, *place)))) == 0
    assert +screening.dropped == Counter(coordinates=1)


@pytest.mark.parametrize(("time", "keeps"), [(EARLIEST_US - 1, 0), (EARLIEST_US, 1), (LATEST - 1, 1), (LATEST, 0)])
def test_the_range_of_time_is_half_open(screening: Screening, time: int, keeps: int) -> None:
    assert len(screening.apply(points((time, 10.1, 45.1)))) == keeps
    assert +screening.dropped == Counter(timestamp=1 - keeps)


def test_the_first_instant_allowed_by_default_is_the_year_2000() -> None:
    assert np.datetime64(EARLIEST_US, "us") == np.datetime64("2000-01-01T00:00")


def test_a_record_is_dropped_once_by_the_first_reason(source: Source) -> None:
    screening = Screening(Screen(CITY, EARLIEST_US, LATEST, NOON), source)
    rows = [(5, 0.0, 0.0), (5, 10.1, 45.1), (NOON - 1, 10.1, 45.1), (NOON, 10.1, 45.1), (NOON - 1, 500.0, 45.1)]
    assert screening.apply(points(*rows)).time.tolist() == [NOON]
    assert screening.dropped == Counter(coordinates=2, timestamp=1, too_late=1)


def test_either_end_of_a_trip_drops_it(screening: Screening) -> None:
    good = (NOON, 10.1, 45.1, NOON + 5, 10.2, 45.2)
    bad_places, bad_times = [(*good[:4], 0.0, 0.0), (NOON, 200.0, 1.0, *good[3:])], [(*good[:3], 5, *good[4:])]
    assert len(screening.apply(trips(good, *bad_places, *bad_times))) == 1
    assert screening.dropped == Counter(coordinates=2, timestamp=1)


@pytest.mark.parametrize(("hours", "keeps"), [(23.9, 1), (24, 1), (24.1, 0), (24 * 300, 0)])
def test_trips_that_last_too_long_are_dropped(source: Source, hours: float, keeps: int) -> None:
    end = NOON + round(hours * HOUR_US)
    screening = Screening(Screen(CITY, EARLIEST_US, EARLIEST_US + 400 * DAY_US), source)
    kept = screening.apply(trips((NOON, 10.1, 45.1, end, 10.2, 45.2)))
    assert (len(kept), screening.dropped["too_long"]) == (keeps, 1 - keeps)
    zones = ZoneTrips(*(np.array([value]) for value in (NOON, 4, end, 7, 0)))
    assert len(screening.apply(Batch(zones, 1))) == keeps
    patient = CITY.model_copy(update={"feed": Feed(max_trip_hours=24 * 365)})
    screening = Screening(Screen(patient, EARLIEST_US, EARLIEST_US + 400 * DAY_US), source)
    assert len(screening.apply(trips((NOON, 10.1, 45.1, end, 10.2, 45.2)))) == 1


def test_trips_between_zones_have_no_place(screening: Screening) -> None:
    batch = Batch(ZoneTrips(*(np.array(a, np.int64) for a in ([NOON, 5], [1, 1], [NOON, NOON], [2, 2], [0, 0]))), 2)
    assert len(screening.apply(batch)) == 1
    assert (screening.dropped["timestamp"], screening.outside) == (1, 0)
    screening.check_source()


def test_what_readers_counted_is_added_up(screening: Screening) -> None:
    for notes in (("in milliseconds",), ("in milliseconds", "odd")):
        batch = points((NOON, 10.1, 45.1), (NOON, 11.0, 45.1))
        screening.apply(Batch(batch.records, 7, ["a"], Counter(unparsable=5), notes))
    assert (screening.rows, screening.dropped["unparsable"], screening.outside) == (14, 10, 2)
    assert screening.notes == ["in milliseconds", "odd"]


@pytest.mark.parametrize(
    ("inside", "swapped", "elsewhere", "refused"),
    [(0, 10, 0, True), (0, 51, 49, True), (0, 50, 50, False), (1, 99, 0, False), (1, 200, 0, True), (50, 50, 0, False)],
)
def test_coordinates_that_have_changed_places_are_told(
    screening: Screening, inside: int, swapped: int, elsewhere: int, refused: bool
) -> None:
    rows = [(NOON, 10.1, 45.1)] * inside + [(NOON, 45.1, 10.1)] * swapped + [(NOON, 20.0, 20.0)] * elsewhere
    for start in range(0, len(rows), 30):
        screening.apply(points(*rows[start : start + 30]))
    if refused:
        with pytest.raises(JobError, match=r"are swapped in .*records\.csv.*swapped = true under \[cities\.small"):
            screening.check_source()
    else:
        screening.check_source()


def test_a_latitude_beyond_the_globe_is_told_too(source: Source) -> None:
    west = CITY.model_copy(update={"west": -122.5, "east": -122.0, "south": 37.5, "north": 38.0})
    screening = Screening(Screen(west, EARLIEST_US, LATEST), source)
    assert len(screening.apply(points(*[(NOON, 37.7, -122.3)] * 9))) == 0
    with pytest.raises(JobError, match="are swapped"):
        screening.check_source()


def test_where_the_configuration_says_so_they_are_put_back(source: Source) -> None:
    swapped = CITY.model_copy(update={"feed": Feed(swapped=True)})
    screening = Screening(Screen(swapped, EARLIEST_US, LATEST), source)
    records: Any = screening.apply(points((NOON, 45.1, 10.1)))
    assert (records.lon.tolist(), records.lat.tolist(), screening.outside) == ([10.1], [45.1], 0)
    records = screening.apply(trips((NOON, 45.1, 10.1, NOON, 45.2, 10.2)))
    assert (records.lon[0], records.lat[0], records.dropoff_lon[0], records.dropoff_lat[0]) == (10.1, 45.1, 10.2, 45.2)
    screening.check_source()
