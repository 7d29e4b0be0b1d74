"""A cell's day, or the city's."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import pytest

from dashboard.forecasts.cell_day import _cell_day, _day_chart, _day_table
from dashboard.forecasts.cell_history import _OBSERVED, _TYPICAL
from dashboard.forecasts.past_day import _day_slots
from dashboard.forecasts.timeline import _ahead
from trafficcast.config.city import City
from trafficcast.forecasting.climatology import Climatology

DAY = np.datetime64("2024-05-08", "D")
CELL = (2, 3)  # number 17


def lines(place: Any, kind: str = "inflow", cell: tuple[int, int] | None = CELL) -> tuple[pd.DataFrame, np.ndarray]:
    """Of a day with flows until 09:00, and the forecasts of 08:00 and 09:00."""
    flows = place.add_flows()
    for ago in (60, 0):
        place.add_forecast(place.newest - np.timedelta64(ago, "m"))
    typical = Climatology(place.city, np.full((2, 48, 2, 5, 7), 2.0, np.float32))
    slots = _day_slots(place.city, DAY)
    return _cell_day(place.city, [("vmrnn-b-1", place.forecasts().read())], flows, typical, kind, cell, slots), slots


def of(table: pd.DataFrame, what: str) -> pd.Series:
    return table[table["what"] == what].set_index("time")["vehicles"]


def test_each_lead_has_its_line(place: Any) -> None:
    table, slots = lines(place)
    first, second = place.newest - np.timedelta64(60, "m"), place.newest
    for lead in range(4):
        line = of(table, _ahead(30 * lead))
        ahead = np.timedelta64(30 * lead, "m")
        assert line.index.tolist() == [first + ahead, second + ahead]
        assert line.tolist() == pytest.approx([10 * lead + 17.5] * 2)
    seen = of(table, _OBSERVED)
    assert place.down not in seen.index and len(seen) == 19 - 1  # 00:00 to 09:00
    assert seen[place.newest] == 18 + 17
    assert len(of(table, _TYPICAL)) == len(slots) == 48


@pytest.mark.parametrize(("kind", "total"), [("inflow", 595 + 17.5), ("outflow", 595 + 35017.5), ("net", -35000)])
def test_without_a_cell_it_is_the_city(place: Any, kind: str, total: float) -> None:
    table, _ = lines(place, kind, None)
    assert of(table, _ahead(0))[place.newest] == pytest.approx(total)


def test_the_table_has_a_column_for_each_line_leads_in_order(place: Any) -> None:
    table = _day_table(lines(place)[0])
    assert list(table) == ["slot", _OBSERVED, _TYPICAL, *(_ahead(lead) for lead in (0, 30, 60, 90))]
    assert len(table) == 48
    row = table[table["slot"] == "09:00 CEST"].iloc[0]
    assert (row[_OBSERVED], row[_ahead(0)], row[_ahead(60)]) == (35, 17.5, 37.5)


def test_a_day_without_anything_has_no_row(place: Any) -> None:
    table = _cell_day(place.city, [], None, None, "inflow", CELL, _day_slots(place.city, DAY))
    assert table.empty and list(table) == ["time", "what", "vehicles", "label"]


@pytest.mark.parametrize(
    ("text", "hours", "zones", "noon"),
    [
        ("2008-06-05", 24, "slot start, PDT", 12),
        ("2008-03-09", 23, "slot start, PST then PDT", 11),
        ("2008-11-02", 25, "slot start, PDT then PST", 13),
    ],
)
def test_the_axis_has_the_days_hours_and_the_citys_clock(text: str, hours: int, zones: str, noon: int) -> None:
    city = City(west=-122.52, east=-122.36, south=37.7, north=37.82, timezone="America/Los_Angeles")
    slots = _day_slots(city, np.datetime64(text, "D"))
    typical = Climatology(city, np.zeros((2, 48, 2, 32, 32), np.float32))
    table = _cell_day(city, [], None, typical, "inflow", None, slots)
    x = _day_chart(city, table, slots, slots[3], 200).to_dict()["layer"][1]["encoding"]["x"]
    assert x["scale"]["domain"] == [0, hours] and x["axis"]["title"] == zones
    assert f'"{noon}": "12:00"' in x["axis"]["labelExpr"]
