"""A city's clock and grid: local times, days of 46 and 50 half-hours, zones off the full hour."""

from __future__ import annotations

import numpy as np
import pytest
from pydantic import ValidationError

from trafficcast.config.city import City
from trafficcast.errors import InputError

HALF_HOUR = np.timedelta64(30, "m")


def city(timezone: str = "America/New_York", **values: float) -> City:
    return City(**({"west": 0, "east": 1, "south": 0, "north": 2} | values), timezone=timezone)  # type: ignore[arg-type]


def slots(start: str, number: int, step: np.timedelta64 = HALF_HOUR) -> np.ndarray:
    return np.datetime64(start, "us") + step * np.arange(number)


def utc(text: str) -> np.datetime64:
    return np.datetime64(text, "us")


@pytest.mark.parametrize(
    ("zone", "text", "wanted"),
    [
        ("America/Los_Angeles", "2008-06-04T18:00", "2008-06-05T01:00"),  # naive: the city's zone
        ("America/Los_Angeles", "2008-06-04 18:00:30", "2008-06-05T01:00:30"),
        ("America/Los_Angeles", "2008-06-04", "2008-06-04T07:00"),  # a date is its midnight
        ("America/Los_Angeles", "2008-01-04", "2008-01-04T08:00"),
        ("America/Los_Angeles", "2008-06-04T18:00Z", "2008-06-04T18:00"),
        ("America/Los_Angeles", "2008-06-04T18:00+05:45", "2008-06-04T12:15"),
        ("Asia/Kathmandu", "2008-06-04T00:00", "2008-06-03T18:15"),
        ("Asia/Kathmandu", "2008-06-04T00:00:00.000001", "2008-06-03T18:15:00.000001"),
        ("America/New_York", "2008-11-02T01:30", "2008-11-02T05:30"),  # occurs twice: the first
        ("America/New_York", "2008-11-02T01:30-05:00", "2008-11-02T06:30"),  # the second can be asked for
        ("Europe/Dublin", "2008-10-26T01:30", "2008-10-26T00:30"),  # where winter is the clock "set forward"
        ("Europe/Moscow", "2014-10-26T01:30", "2014-10-25T21:30"),  # a change of zone, not of season
        ("America/New_York", "2008-03-09T03:00", "2008-03-09T07:00"),  # right after the skipped hour
    ],
)
def test_times_as_a_person_types_them(zone: str, text: str, wanted: str) -> None:
    time = city(zone).parse_time(text)
    assert time == utc(wanted)
    assert time.dtype == np.dtype("datetime64[us]")


def test_a_time_that_the_clocks_skip_is_refused() -> None:
    with pytest.raises(InputError, match="2008-03-09T02:30 does not exist in America/New_York"):
        city().parse_time("2008-03-09T02:30")


@pytest.mark.parametrize(
    "text", ["", "now", "yesterday", "2008-13-01", "2008-02-30", "2008-06-04T25:00", "04.06.2008", "1212537600000"]
)
def test_nonsense_is_refused_and_named(text: str) -> None:
    with pytest.raises(InputError, match=f"'{text}' is no date or time"):
        city().parse_time(text)


@pytest.mark.parametrize("text", ["9999-12-31T23:59:59", "0001-01-01T00:00+14:00", "9999-12-31T23:59:59-12:00"])
def test_times_at_the_ends_of_the_calendar_are_read_or_refused(text: str) -> None:
    try:
        time = city().parse_time(text)
    except InputError:
        return
    assert abs(int(time.astype("datetime64[Y]").astype(int)) + 1970 - int(text[:4])) <= 1


def test_the_slot_of_day_where_the_zone_is_off_by_45_minutes() -> None:
    there = city("Asia/Kathmandu")
    times = slots("2008-06-03T18:00", 3)  # 23:45, 00:15 and 00:45 local
    assert there.slot_of_day(times).tolist() == [47, 0, 1]
    assert there.local_days(times).astype(str).tolist() == ["2008-06-03", "2008-06-04", "2008-06-04"]


@pytest.mark.parametrize(
    ("day", "midnight", "length"),
    [
        ("2008-03-09", "2008-03-09T05:00", 46),
        ("2008-11-02", "2008-11-02T04:00", 50),
        ("2008-06-04", "2008-06-04T04:00", 48),
    ],
)
def test_local_days_of_46_48_and_50_half_hours(day: str, midnight: str, length: int) -> None:
    times = slots(midnight, length + 2) - HALF_HOUR
    days = city().local_days(times)
    assert (days == np.datetime64(day)).tolist() == [False] + [True] * length + [False]
    assert city().midnight(np.datetime64(day)) == utc(midnight)


def test_the_slot_of_day_skips_and_repeats_with_the_clock() -> None:
    spring = city().slot_of_day(slots("2008-03-09T06:00", 4))
    autumn = city().slot_of_day(slots("2008-11-02T05:00", 5))
    assert spring.tolist() == [2, 3, 6, 7]
    assert autumn.tolist() == [2, 3, 2, 3, 4]
    assert city(slot_minutes=60).slot_of_day(slots("2008-11-02T05:00", 3, np.timedelta64(1, "h"))).tolist() == [1, 1, 2]


def test_weekends_are_those_of_the_local_day() -> None:
    # Friday 20:00 in New York is Saturday in UTC; Sunday 20:00 is Monday in UTC.
    times = np.array(["2008-06-07T00:00", "2008-06-07T04:00", "2008-06-09T00:00", "2008-06-09T04:00"], "datetime64[us]")
    assert city().is_weekend(times).tolist() == [False, True, True, False]


@pytest.mark.parametrize(
    ("zone", "day", "first"),
    [
        ("America/Sao_Paulo", "2008-10-19", "2008-10-19T03:00"),  # 00:00 is skipped: the day begins at 01:00
        ("Asia/Beirut", "2020-03-29", "2020-03-28T22:00"),
        ("America/Havana", "2008-10-26", "2008-10-26T04:00"),  # 00:00 occurs twice
        ("Asia/Kathmandu", "2008-06-04", "2008-06-03T18:15"),
    ],
)
def test_midnight_is_the_first_instant_of_the_local_day(zone: str, day: str, first: str) -> None:
    there = city(zone)
    midnight = there.midnight(np.datetime64(day))
    assert midnight == utc(first)
    around = there.local_days(np.array([midnight - np.timedelta64(1, "us"), midnight]))
    assert around[0] < around[1] == np.datetime64(day)


def test_slots_start_at_multiples_of_their_length_since_1970() -> None:
    there = city("Asia/Kathmandu")
    assert there.slot_start(utc("2008-06-04T12:29:59.999999")) == utc("2008-06-04T12:00")
    assert there.slot_start(utc("2008-06-04T12:30")) == utc("2008-06-04T12:30")
    assert there.slot_start(utc("1969-12-31T23:59")) == utc("1969-12-31T23:30")
    assert city(slot_minutes=480).slot_start(utc("2008-06-04T17:00")) == utc("2008-06-04T16:00")


def test_local_times_are_written_with_their_offset() -> None:
    assert city().isoformat(utc("2008-11-02T05:30")) == "2008-11-02T01:30:00-04:00"
    assert city().isoformat(utc("2008-11-02T06:30")) == "2008-11-02T01:30:00-05:00"
    assert city("Asia/Kathmandu").isoformat(utc("2008-06-03T18:15")) == "2008-06-04T00:00:00+05:45"


def test_cell_centres_fall_from_north_to_south_and_rise_from_west_to_east() -> None:
    there = city(rows=4, cols=2)
    assert there.lat.tolist() == [1.75, 1.25, 0.75, 0.25]
    assert there.lon.tolist() == [0.25, 0.75]


def test_defaults() -> None:
    there = city()
    assert (there.rows, there.cols, there.slot_minutes) == (32, 32, 30)
    assert (there.max_gap_minutes, there.max_speed_kmh, there.min_coverage) == (10, 150, 0.8)
    assert (there.slots_per_day, there.slot_us, there.slot) == (48, 1_800_000_000, HALF_HOUR)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"west": 2}, "upside down: west 2.0 is not west of east 1.0"),
        ({"west": 1}, "upside down"),
        ({"south": 3}, "upside down: south 3.0 is not south of north 2.0"),
        ({"slot_minutes": 7}, "7 minutes do not divide a day"),
        ({"slot_minutes": 0}, "slot_minutes"),
        ({"rows": 0}, "rows"),
        ({"west": -181}, "west"),
        ({"north": 91}, "north"),
        ({"west": float("nan")}, "west"),
        ({"max_gap_minutes": 0}, "max_gap_minutes"),
        ({"max_gap_minutes": float("inf")}, "max_gap_minutes"),
        ({"max_speed_kmh": -1}, "max_speed_kmh"),
        ({"min_coverage": 1.1}, "min_coverage"),
    ],
)
def test_a_city_that_cannot_be_is_refused(values: dict[str, float], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        city(**values)


def test_a_zone_is_an_iana_name() -> None:
    with pytest.raises(ValidationError, match="'Pacific' is not an IANA time zone"):
        city("Pacific")
