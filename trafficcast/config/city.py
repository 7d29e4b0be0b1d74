"""The table `[cities.NAME]` of `config.toml`: a city's box, grid, slots and time zone.

Cells and slots are those of Zhang, Zheng & Qi (AAAI 2017); `trafficcast.ingestion.counting` counts by them.
"""

from __future__ import annotations

import functools
from datetime import datetime
from pathlib import Path
from typing import Annotated, Self, TypeVar
from zoneinfo import ZoneInfo

import numpy as np
import pandas as pd
from holidays import HolidayBase, country_holidays
from pydantic import Field, ValidationInfo, field_validator, model_validator

from trafficcast.config.feed import Feed
from trafficcast.config.table import _Table, _TimeZone
from trafficcast.errors import InputError

HISTORY = 4
HORIZON = 4

OUTSIDE = -1
FLOW_KINDS = ("inflow", "outflow")
MINUTE_US = 60_000_000  # microseconds
DAY = np.timedelta64(1, "D")
CLOCK_CHANGE = np.timedelta64(180 * MINUTE_US, "us")  # no clock was ever set back by more within a day


@functools.cache
def _calendar(name: str) -> HolidayBase:
    """Return the public holidays of 'US' or 'US-CA', by date; raise NotImplementedError for an unknown name."""
    country, _, part = name.partition("-")
    return country_holidays(country, subdiv=part or None)


_Time = TypeVar("_Time", bound=np.datetime64 | None)


class City(_Table):
    """A city: its box, its grid, its slots, its time zone and its feed.

    Row 0 of the grid is the northern row, column 0 the western one.

    Attributes
    ----------
    west
        Western edge of the box, degrees east.
    east
        Eastern edge of the box, degrees east; above 180 where the box crosses the antimeridian.
    south
        Southern edge of the box, degrees north.
    north
        Northern edge of the box, degrees north.
    timezone
        IANA time zone, such as America/Los_Angeles.
    rows
        Number of rows of the grid.
    cols
        Number of columns of the grid.
    slot_minutes
        Length of a slot in minutes; it divides a day.
    max_gap_minutes
        Longest time between two points of a vehicle, in minutes, for a transition to be counted.
    max_speed_kmh
        Highest straight-line speed between two points of a vehicle, in km/h, for a transition to be counted.
    min_coverage
        Least share of a slot's minutes with a record, 0 to 1, for the slot to be observed.
    holidays
        Country (US) or part of one (US-CA) whose public holidays are Sundays; None for no holidays.
    feed
        How the city's records come.
    areas
        File of named areas, polygons with a property `name`, for alerts and pages.
    name
        Name of the city's table in `config.toml`.
    """

    west: Annotated[float, Field(ge=-180, le=180)]
    east: Annotated[float, Field(ge=-180, le=360)]
    south: Annotated[float, Field(ge=-90, le=90)]
    north: Annotated[float, Field(ge=-90, le=90)]
    timezone: _TimeZone
    rows: Annotated[int, Field(ge=1, le=1024)] = 32
    cols: Annotated[int, Field(ge=1, le=1024)] = 32
    slot_minutes: Annotated[int, Field(ge=1, le=1440)] = 30
    max_gap_minutes: Annotated[float, Field(gt=0, allow_inf_nan=False)] = 10.0
    max_speed_kmh: Annotated[float, Field(gt=0)] = 150.0
    min_coverage: Annotated[float, Field(ge=0, le=1)] = 0.8
    holidays: str | None = None
    feed: Feed = Feed()
    areas: Path | None = None
    name: str = ""

    @field_validator("east")
    @classmethod
    def _is_east_of_the_west(cls, value: float, info: ValidationInfo) -> float:
        """Count on beyond the antimeridian where a box crosses it, as from 179 to -179."""
        west = info.data.get("west", value)
        return value + 360 if value < 0 < west and value + 360 - west < 180 else value

    @field_validator("slot_minutes")
    @classmethod
    def _divides_a_day(cls, value: int) -> int:
        """Refuse a slot length that does not divide a day."""
        if 1440 % value:
            raise ValueError(f"{value} minutes do not divide a day of 1440 minutes")
        return value

    @field_validator("holidays")
    @classmethod
    def _known_holidays(cls, value: str | None) -> str | None:
        """Refuse a country without known holidays."""
        if value is not None:
            try:
                _calendar(value)
            except NotImplementedError:
                raise ValueError(
                    f"'{value}' is no country ('US') or part of one ('US-CA') with known holidays"
                ) from None
        return value

    @model_validator(mode="after")
    def _box_is_upright(self) -> Self:
        """Refuse a box whose edges are the wrong way round."""
        if self.west >= self.east:
            raise ValueError(f"the box is upside down: west {self.west} is not west of east {self.east}")
        if self.east > 180 and self.east - self.west > 180:
            raise ValueError(f"west {self.west} and east {self.east}: a box is at most 180 degrees wide")
        if self.south >= self.north:
            raise ValueError(f"the box is upside down: south {self.south} is not south of north {self.north}")
        return self

    @property
    def slot_us(self) -> int:
        """Return the slot length.

        Returns
        -------
        int
            Microseconds.
        """
        return self.slot_minutes * MINUTE_US

    @property
    def slot(self) -> np.timedelta64:
        """Return the slot length.

        Returns
        -------
        np.timedelta64
            Whole minutes.
        """
        return np.timedelta64(self.slot_minutes, "m")

    @property
    def slots_per_day(self) -> int:
        """Return the number of slots in a local day without a clock change.

        Returns
        -------
        int
            Number of slots.
        """
        return 1440 // self.slot_minutes

    @property
    def max_gap_us(self) -> int:
        """Return the longest gap between two points of a transition.

        Returns
        -------
        int
            Microseconds.
        """
        return round(self.max_gap_minutes * MINUTE_US)

    @property
    def box(self) -> np.ndarray:
        """Return the edges of the box.

        Returns
        -------
        np.ndarray
            West, east, south and north in degrees, (4).
        """
        return np.array([self.west, self.east, self.south, self.north])

    @property
    def zone(self) -> ZoneInfo:
        """Return the time zone.

        Returns
        -------
        ZoneInfo
            The zone of local times.
        """
        return ZoneInfo(self.timezone)

    @property
    def lat(self) -> np.ndarray:
        """Return the latitudes of the cell centres.

        Returns
        -------
        np.ndarray
            Degrees north, (row), falling.
        """
        return self.north - (np.arange(self.rows) + 0.5) * (self.north - self.south) / self.rows

    @property
    def lon(self) -> np.ndarray:
        """Return the longitudes of the cell centres.

        Returns
        -------
        np.ndarray
            Degrees east, (col), rising.
        """
        return self.west + (np.arange(self.cols) + 0.5) * (self.east - self.west) / self.cols

    def with_paths(self, base: Path) -> Self:
        """Make the paths of the city and of its feed absolute.

        Parameters
        ----------
        base
            Folder that relative paths are relative to.

        Returns
        -------
        Self
            The same city with absolute paths.
        """
        paths = {key: base / value for key in ("zones", "inbox") if (value := getattr(self.feed, key)) is not None}
        areas = None if self.areas is None else base / self.areas
        return self.model_copy(update={"feed": self.feed.model_copy(update=paths), "areas": areas})

    def grid(self) -> dict[str, float | int | str]:
        """Return the values that must be equal for flows, a model and a forecast to belong together.

        Returns
        -------
        dict[str, float | int | str]
            The values by their configuration keys.
        """
        return {
            key: getattr(self, key)
            for key in ("west", "east", "south", "north", "rows", "cols", "slot_minutes", "timezone")
        }

    def parse_time(self, text: str) -> np.datetime64:
        """Read a date or time that a person typed.

        A local time that occurs twice is its first occurrence.

        Parameters
        ----------
        text
            ISO 8601 date or time, local to the city unless it has an offset or Z.

        Returns
        -------
        np.datetime64
            Naive UTC, microseconds.

        Raises
        ------
        InputError
            The text is no ISO 8601 time, or the time does not exist in the city's zone.
        """
        try:
            moment = datetime.fromisoformat(text)
        except ValueError:
            raise InputError(f"'{text}' is no date or time: write 2008-06-04 or 2008-06-04T18:00") from None
        stamp = pd.Timestamp(moment)
        if stamp.tzinfo is None:
            try:
                stamp = stamp.tz_localize(self.zone, ambiguous=True, nonexistent="raise")
            except ValueError:
                raise InputError(f"{text} does not exist in {self.timezone}: the clocks skip it") from None
            except (OverflowError, NotImplementedError):
                raise InputError(f"{text} is beyond the calendar: years run from 1 to 9999") from None
        return stamp.tz_convert("UTC").tz_localize(None).to_datetime64().astype("datetime64[us]")

    def as_time(self, time: str | _Time) -> np.datetime64 | _Time:
        """Return a time that was given as text or as a naive UTC time, as naive UTC; None stays None.

        Parameters
        ----------
        time
            Text as for `parse_time`, or naive UTC.

        Returns
        -------
        np.datetime64 | _Time
            Naive UTC.

        Raises
        ------
        InputError
            The text is no date or time, or the city's clocks skip it.
        """
        return self.parse_time(time) if isinstance(time, str) else time

    def check_period(self, start: np.datetime64, end: np.datetime64) -> None:
        """Check that a period is not empty.

        Parameters
        ----------
        start
            Start of the period, naive UTC, inclusive.
        end
            End of the period, naive UTC, exclusive.

        Raises
        ------
        InputError
            The start does not lie before the end.
        """
        if start >= end:
            raise InputError(f"--start {self.isoformat(start)} does not lie before --end {self.isoformat(end)}")

    def local(self, times: np.ndarray) -> pd.DatetimeIndex:
        """Convert times to the city's time zone.

        Parameters
        ----------
        times
            Naive UTC times, datetime64.

        Returns
        -------
        pd.DatetimeIndex
            Local times with their zone.
        """
        return pd.DatetimeIndex(np.asarray(times, "datetime64[us]")).tz_localize("UTC").tz_convert(self.zone)

    def isoformat(self, time: np.datetime64) -> str:
        """Write a time in the city's time zone.

        Parameters
        ----------
        time
            Naive UTC time.

        Returns
        -------
        str
            ISO 8601 with the zone's offset.
        """
        return str(self.local(np.array([time]))[0].isoformat())

    def local_days(self, times: np.ndarray) -> np.ndarray:
        """Return the local days that slots belong to.

        Parameters
        ----------
        times
            Starts of slots, naive UTC, datetime64.

        Returns
        -------
        np.ndarray
            Local days, datetime64[D], shaped as the times.
        """
        return self.local(times).tz_localize(None).to_numpy().astype("datetime64[D]")

    def slots_of_day(self, day: np.datetime64) -> np.ndarray:
        """Return the slots that belong to a local day.

        Parameters
        ----------
        day
            A local day, datetime64[D].

        Returns
        -------
        np.ndarray
            Numbers of the slots since 1970, (slot), rising.
        """
        # A margin, because clocks set back over midnight interleave the slots of two local days.
        start, end = self.midnight(day) - CLOCK_CHANGE, self.midnight(day + DAY) + CLOCK_CHANGE
        numbers = np.arange(start.astype(np.int64) // self.slot_us, end.astype(np.int64) // self.slot_us + 1)
        return numbers[self.local_days((numbers * self.slot_us).astype("datetime64[us]")) == day]

    def slot_of_day(self, times: np.ndarray) -> np.ndarray:
        """Return the position of slots within their local day.

        Parameters
        ----------
        times
            Starts of slots, naive UTC, datetime64.

        Returns
        -------
        np.ndarray
            Local minutes since midnight divided by the slot length, rounded down.
        """
        local = self.local(times)
        return np.asarray((local.hour * 60 + local.minute) // self.slot_minutes)

    def is_weekend(self, times: np.ndarray) -> np.ndarray:
        """Say which slots belong to a Saturday or Sunday.

        Parameters
        ----------
        times
            Starts of slots, naive UTC, datetime64.

        Returns
        -------
        np.ndarray
            True where the local day is a Saturday or Sunday.
        """
        return np.asarray(self.local(times).day_of_week >= 5)

    def is_holiday(self, times: np.ndarray) -> np.ndarray:
        """Say which slots belong to a public holiday.

        Parameters
        ----------
        times
            Starts of slots, naive UTC, datetime64.

        Returns
        -------
        np.ndarray
            True where the local day is a holiday; False everywhere if the city has no calendar.
        """
        if self.holidays is None:
            return np.zeros(np.shape(times), bool)
        calendar = _calendar(self.holidays)
        days, inverse = np.unique(self.local_days(times), return_inverse=True)
        return np.array([day in calendar for day in days.astype(object)], bool)[inverse]

    def day_of_week(self, times: np.ndarray) -> np.ndarray:
        """Return the day of the week of slots.

        Parameters
        ----------
        times
            Starts of slots, naive UTC, datetime64.

        Returns
        -------
        np.ndarray
            Local day of the week, Monday 0 to Sunday 6; a public holiday is a Sunday.
        """
        return np.where(self.is_holiday(times), 6, self.local(times).day_of_week.to_numpy())

    def slot_start(self, time: np.datetime64) -> np.datetime64:
        """Return the start of the slot that holds a time.

        Parameters
        ----------
        time
            Naive UTC time.

        Returns
        -------
        np.datetime64
            Start of the slot, naive UTC.
        """
        us = time.astype("datetime64[us]").astype(np.int64)
        return np.datetime64(int(us // self.slot_us * self.slot_us), "us")

    def midnight(self, day: np.datetime64) -> np.datetime64:
        """Return the first instant of a local day.

        Parameters
        ----------
        day
            A local day, datetime64[D].

        Returns
        -------
        np.datetime64
            Naive UTC.
        """
        stamp = pd.Timestamp(str(day.astype("datetime64[D]")))
        stamp = stamp.tz_localize(self.zone, ambiguous=True, nonexistent="shift_forward")
        return stamp.tz_convert("UTC").tz_localize(None).to_datetime64().astype("datetime64[us]")


def target_times(city: City, init_times: np.ndarray) -> np.ndarray:
    """Return the slots that are forecast from each init time.

    Parameters
    ----------
    city
        The city.
    init_times
        Init times, naive UTC, (init_time).

    Returns
    -------
    np.ndarray
        Starts of the target slots, naive UTC, (init_time, HORIZON).
    """
    return np.asarray(init_times)[:, None] + city.slot * np.arange(HORIZON)
