"""A city: its box in WGS-84 degrees, its grid, its slots and its clock (flows: what a cell and a slot are)."""

from __future__ import annotations

import functools
from datetime import datetime
from pathlib import Path
from typing import Annotated, Self, overload
from zoneinfo import ZoneInfo, available_timezones

import numpy as np
import pandas as pd
from holidays import HolidayBase, country_holidays
from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from trafficcast.config.feed import Feed
from trafficcast.errors import InputError

HISTORY = 4
HORIZON = 4

OUTSIDE = -1
FLOW_KINDS = ("inflow", "outflow")
CLOCK_CHANGE = np.timedelta64(3 * 3600 * 10**6, "us")  # no clock was ever set back by more within a day


@functools.cache
def _calendar(name: str) -> HolidayBase:
    """The public holidays of 'US' or 'US-CA', by date. Raises NotImplementedError for an unknown name."""
    country, _, part = name.partition("-")
    return country_holidays(country, subdiv=part or None)


class City(BaseModel):
    """One city's table of `config.toml`. Edges in degrees; row 0 is the northern row, column 0 the western one."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    west: Annotated[float, Field(ge=-180, le=180)]
    east: Annotated[float, Field(ge=-180, le=180)]
    south: Annotated[float, Field(ge=-90, le=90)]
    north: Annotated[float, Field(ge=-90, le=90)]
    timezone: str
    rows: Annotated[int, Field(ge=1, le=1024)] = 32
    cols: Annotated[int, Field(ge=1, le=1024)] = 32
    slot_minutes: Annotated[int, Field(ge=1, le=1440)] = 30
    max_gap_minutes: Annotated[float, Field(gt=0, allow_inf_nan=False)] = 10.0
    max_speed_kmh: Annotated[float, Field(gt=0)] = 150.0
    min_coverage: Annotated[float, Field(ge=0, le=1)] = 0.8
    holidays: str | None = None
    feed: Feed = Feed()
    # Named areas (any file geopandas reads, polygons with a property `name`), for alerts and pages.
    areas: Path | None = None
    name: str = ""

    @field_validator("timezone")
    @classmethod
    def _known_zone(cls, value: str) -> str:
        if value not in available_timezones():
            raise ValueError(f"'{value}' is not an IANA time zone such as 'America/Los_Angeles'")
        return value

    @field_validator("slot_minutes")
    @classmethod
    def _divides_a_day(cls, value: int) -> int:
        if 1440 % value:
            raise ValueError(f"{value} minutes do not divide a day of 1440 minutes")
        return value

    @field_validator("holidays")
    @classmethod
    def _known_holidays(cls, value: str | None) -> str | None:
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
        if self.west >= self.east:
            raise ValueError(f"the box is upside down: west {self.west} is not west of east {self.east}")
        if self.south >= self.north:
            raise ValueError(f"the box is upside down: south {self.south} is not south of north {self.north}")
        return self

    @property
    def slot_us(self) -> int:
        """Slot length in microseconds."""
        return self.slot_minutes * 60_000_000

    @property
    def slot(self) -> np.timedelta64:
        """Slot length."""
        return np.timedelta64(self.slot_minutes, "m")

    @property
    def slots_per_day(self) -> int:
        """Slots in a local day without a clock change."""
        return 1440 // self.slot_minutes

    @property
    def zone(self) -> ZoneInfo:
        """The city's time zone."""
        return ZoneInfo(self.timezone)

    @property
    def lat(self) -> np.ndarray:
        """Latitudes of the cell centres, (row), degrees north, falling."""
        return self.north - (np.arange(self.rows) + 0.5) * (self.north - self.south) / self.rows

    @property
    def lon(self) -> np.ndarray:
        """Longitudes of the cell centres, (col), degrees east, rising."""
        return self.west + (np.arange(self.cols) + 0.5) * (self.east - self.west) / self.cols

    def with_paths(self, base: Path) -> Self:
        """The same city with its paths and those of its feed absolute, relative ones being relative to `base`."""
        paths = {key: base / value for key in ("zones", "inbox") if (value := getattr(self.feed, key)) is not None}
        areas = None if self.areas is None else base / self.areas
        return self.model_copy(update={"feed": self.feed.model_copy(update=paths), "areas": areas})

    def grid(self) -> dict[str, float | int | str]:
        """What must be equal for flows, a model and a forecast to belong together."""
        return {
            key: getattr(self, key)
            for key in ("west", "east", "south", "north", "rows", "cols", "slot_minutes", "timezone")
        }

    def parse_time(self, text: str) -> np.datetime64:
        """A date or time as a person types it -> naive UTC; in the city's zone unless it has an offset or Z.

        A local time that occurs twice is its first occurrence. Raises InputError for one that does not
        exist, and for what is no ISO 8601 time.
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

    @overload
    def as_time(self, time: str | np.datetime64) -> np.datetime64: ...

    @overload
    def as_time(self, time: str | np.datetime64 | None) -> np.datetime64 | None: ...

    def as_time(self, time: str | np.datetime64 | None) -> np.datetime64 | None:
        """Return a time that was given as text or as a naive UTC time, as naive UTC; None stays None.

        Parameters
        ----------
        time
            Text as for `parse_time`, or naive UTC.

        Returns
        -------
        np.datetime64 | None
            Naive UTC.

        Raises
        ------
        InputError
            The text is no date or time, or the city's clocks skip it.
        """
        return self.parse_time(time) if isinstance(time, str) else time

    def check_period(self, start: np.datetime64, end: np.datetime64) -> None:
        """Raise InputError where a period a person gave is empty."""
        if start >= end:
            raise InputError(f"--start {self.isoformat(start)} does not lie before --end {self.isoformat(end)}")

    def local(self, times: np.ndarray) -> pd.DatetimeIndex:
        """Naive UTC times -> the city's local times (aware)."""
        return pd.DatetimeIndex(np.asarray(times, "datetime64[us]")).tz_localize("UTC").tz_convert(self.zone)

    def isoformat(self, time: np.datetime64) -> str:
        """A naive UTC time -> ISO 8601 in the city's zone, with its offset."""
        return str(self.local(np.array([time]))[0].isoformat())

    def local_days(self, times: np.ndarray) -> np.ndarray:
        """Naive UTC slot starts -> the local day each belongs to, datetime64[D]."""
        return self.local(times).tz_localize(None).to_numpy().astype("datetime64[D]")

    def slots_of_day(self, day: np.datetime64) -> np.ndarray:
        """The slots that belong to a local day, by their numbers since 1970."""
        # A margin, because clocks set back over midnight interleave the slots of two local days.
        start, end = self.midnight(day) - CLOCK_CHANGE, self.midnight(day + np.timedelta64(1, "D")) + CLOCK_CHANGE
        numbers = np.arange(start.astype(np.int64) // self.slot_us, end.astype(np.int64) // self.slot_us + 1)
        return numbers[self.local_days((numbers * self.slot_us).astype("datetime64[us]")) == day]

    def slot_of_day(self, times: np.ndarray) -> np.ndarray:
        """Naive UTC slot starts -> floor(local minutes since midnight / slot length)."""
        local = self.local(times)
        return np.asarray((local.hour * 60 + local.minute) // self.slot_minutes)

    def is_weekend(self, times: np.ndarray) -> np.ndarray:
        """Naive UTC slot starts -> whether the local day is a Saturday or Sunday."""
        return np.asarray(self.local(times).day_of_week >= 5)

    def is_holiday(self, times: np.ndarray) -> np.ndarray:
        """Naive UTC slot starts -> whether the local day is a public holiday; without a calendar never."""
        if self.holidays is None:
            return np.zeros(np.shape(times), bool)
        known = _calendar(self.holidays)
        days, inverse = np.unique(self.local_days(times), return_inverse=True)
        return np.array([day in known for day in days.astype(object)], bool)[inverse]

    def day_of_week(self, times: np.ndarray) -> np.ndarray:
        """Naive UTC slot starts -> the local day of the week, Monday 0; a public holiday is a Sunday, 6."""
        return np.where(self.is_holiday(times), 6, self.local(times).day_of_week.to_numpy())

    def slot_start(self, time: np.datetime64) -> np.datetime64:
        """The start of the slot that holds a naive UTC time."""
        us = time.astype("datetime64[us]").astype(np.int64)
        return np.datetime64(int(us // self.slot_us * self.slot_us), "us")

    def midnight(self, day: np.datetime64) -> np.datetime64:
        """The first instant of a local day, naive UTC."""
        stamp = pd.Timestamp(str(day.astype("datetime64[D]")))
        stamp = stamp.tz_localize(self.zone, ambiguous=True, nonexistent="shift_forward")
        return stamp.tz_convert("UTC").tz_localize(None).to_datetime64().astype("datetime64[us]")


def target_times(city: City, init_times: np.ndarray) -> np.ndarray:
    """The HORIZON slot starts forecast from each init time: (n, HORIZON), naive UTC."""
    return np.asarray(init_times)[:, None] + city.slot * np.arange(HORIZON)
