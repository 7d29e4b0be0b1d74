"""Periods to choose from, the calendar and the lines over time."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import xarray as xr

from dashboard.data.calendar import _calendar_chart, _line_chart, _month_label, _months, _period_days, _steps
from dashboard.data.slots import _slot_table
from dashboard.reads.stamps import DAY

HALF_HOUR = np.timedelta64(30, "m")


def days(first: str, last: str) -> list[np.datetime64]:
    return list(np.arange(np.datetime64(first), np.datetime64(last) + DAY))


def slots(times: np.ndarray, vehicles: np.ndarray) -> xr.Dataset:
    ones = np.ones(len(times))
    columns = {"observed": ones.astype(bool), "coverage": ones, "vehicles": vehicles}
    return xr.Dataset({name: ("time", values) for name, values in columns.items()}, {"time": times})


def table_of(place: Any, observed: list[bool]) -> pd.DataFrame:
    times = place.start + HALF_HOUR * np.arange(len(observed))
    kept = np.array(observed)
    stored = slots(times[kept], np.arange(len(kept))[kept])
    return _slot_table(place.city, stored, times[0], times[-1] + HALF_HOUR)


def test_all_months_between_the_first_and_the_last_day_can_be_chosen() -> None:
    known = [np.datetime64("2023-11-30"), np.datetime64("2024-02-01")]
    assert [str(month) for month in _months(known)] == ["2024-02", "2024-01", "2023-12", "2023-11"]
    assert _month_label(_months(known)[0]) == "February 2024"
    assert _months([]) == []


def test_a_period_ends_with_the_store() -> None:
    known = days("2023-01-10", "2024-02-05")
    assert [str(day) for day in _period_days(known, None)] == ["2023-12-12", "2024-02-05"]
    assert [str(day) for day in _period_days(known, np.datetime64("2023-01"))] == ["2023-01-10", "2023-01-31"]
    assert [str(day) for day in _period_days(known, np.datetime64("2023-04"))] == ["2023-04-01", "2023-04-30"]


def test_a_line_holds_for_its_slots_and_stops_at_gaps(place: Any) -> None:
    points = _steps(table_of(place, [True, True, False, True, False]), "vehicles")
    midnight = pd.Timestamp("2024-05-07")
    at = [midnight + pd.Timedelta(minutes=30 * i) for i in (0, 1, 2, 2, 3, 4, 4)]
    assert points["at"].tolist() == at
    # The last slot before a gap is as wide as the others; then comes nothing.
    assert points["value"].fillna(-1).tolist() == [0, 1, 1, -1, 3, 3, -1]


def test_a_cell_of_the_calendar_is_a_slot(place: Any) -> None:
    table = table_of(place, [True, False, True])
    for by in ("state", "coverage"):
        chart = _calendar_chart(table, by, "Europe/Rome", 200)
        assert len(chart.data) == 3 and chart.data["left"].nunique() == 1
        assert (chart.data["right"] - chart.data["left"] == pd.Timedelta(days=1)).all()
        assert chart.to_dict()["encoding"]["color"]["field"] == by


def test_an_hour_that_comes_twice_stands_side_by_side(place: Any) -> None:
    start, end = (place.city.midnight(np.datetime64("2024-10-27") + i * DAY) for i in (0, 1))
    times = np.arange(start, end, HALF_HOUR)
    stored = slots(times, np.ones(len(times)))
    cells = _calendar_chart(_slot_table(place.city, stored, start, end), "state", "Europe/Rome", 200).data
    twice = cells[cells["hour"] == 2.0]
    assert len(twice) == 2 and twice["right"].iloc[0] == twice["left"].iloc[1]


def test_lines_can_be_drawn_of_what_is_unknown(place: Any) -> None:
    assert _line_chart(table_of(place, [False, False]), "records", 100).to_dict()["mark"]["type"] == "line"
