"""A past day: its slots, its neighbours, and what was forecast in its course."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from dashboard.forecasts.past_day import (
    _day_slots,
    _forecast_table,
    _neighbours,
    _same_clock,
)
from dashboard.reads.stores import known_days
from trafficcast.config.city import City
from trafficcast.stores.forecasts import DEGRADED, Provenance, forecast_dataset
from trafficcast.stores.scores import score_dataset

SAN_FRANCISCO = City(west=-122.52, east=-122.36, south=37.7, north=37.82, timezone="America/Los_Angeles")
HOUR = np.timedelta64(60, "m")


def day(text: str) -> np.datetime64:
    return np.datetime64(text, "D")


@pytest.mark.parametrize(("text", "hours"), [("2008-06-05", 24), ("2008-03-09", 23), ("2008-11-02", 25)])
def test_a_day_has_as_many_hours_as_its_clock(text: str, hours: int) -> None:
    slots = _day_slots(SAN_FRANCISCO, day(text))
    assert len(slots) == 2 * hours and slots[0] == SAN_FRANCISCO.midnight(day(text))
    assert set(SAN_FRANCISCO.local_days(slots)) == {day(text)}


def test_the_same_time_of_day_is_the_clocks_not_so_many_hours_before() -> None:
    noon = SAN_FRANCISCO.parse_time("2008-03-10T12:00")
    assert _same_clock(SAN_FRANCISCO, day("2008-03-08"), noon) == SAN_FRANCISCO.parse_time("2008-03-08T12:00")


def test_a_time_that_the_clocks_skip_becomes_one_beside_it() -> None:
    skipped = SAN_FRANCISCO.parse_time("2008-03-08T02:30")
    found = _same_clock(SAN_FRANCISCO, day("2008-03-09"), skipped)
    assert SAN_FRANCISCO.local(np.array([found]))[0].hour in (1, 3)


def test_days_are_known_by_flows_or_forecasts(place: Any) -> None:
    assert len(known_days(place.city, [place.flows])) == 0
    place.add_flows()
    place.add_forecast(np.datetime64("2024-05-20T07:00", "us"))
    days = known_days(place.city, [place.flows, place.forecasts(), place.forecasts("none")])
    assert days.tolist() == [day(f"2024-05-{number}").item() for number in ("07", "08", "20")]
    assert _neighbours(days, day("2024-05-08")) == (day("2024-05-07"), day("2024-05-20"))
    assert _neighbours(days, day("2024-05-10")) == (day("2024-05-08"), day("2024-05-20"))
    assert _neighbours(days, day("2024-05-20")) == (day("2024-05-08"), None)


def test_a_forecast_says_who_made_it_how_and_how_good_it_was(place: Any) -> None:
    init_time = place.newest - HOUR
    made = place.add_forecast(init_time)
    place.add_forecast(place.newest)
    truth = made["flow"].values + np.array([1, 2, 3, np.nan])[:, None, None, None]
    scores = score_dataset(place.city, init_time, {"vmrnn-b-1": made["flow"].values, "persistence": truth}, truth)
    slots = _day_slots(place.city, day("2024-05-08"))
    table = _forecast_table(place.city, [("vmrnn-b-1", place.forecasts().read())], {"vmrnn-b-1": scores}, slots)
    assert table["start"].tolist() == ["08:00 CEST", "09:00 CEST"]
    assert table["made"].iloc[0] == "Wed 8 May 2024 08:00 CEST"
    assert set(table["state"]) == {"complete"} and set(table["made by"]) == {"vmrnn-b-1"}
    errors = table[[f"RMSE +{lead} min" for lead in (0, 30, 60, 90)]].to_numpy()
    np.testing.assert_allclose(errors[0], [1, 2, 3, np.nan], rtol=1e-5)
    assert np.isnan(errors[1]).all()


def test_why_a_forecast_is_not_complete_is_told(place: Any) -> None:
    card = {"version": "vmrnn-b-1", "architecture": {"name": "vmrnn-b"}}
    origin = Provenance("vmrnn-b-1", DEGRADED, "07:00 was filled in", hindcast=True)
    made = forecast_dataset(place.city, card, place.newest, np.zeros((4, 2, 5, 7)), place.newest + HOUR, origin=origin)
    slots = _day_slots(place.city, day("2024-05-08"))
    (row,) = _forecast_table(place.city, [("vmrnn-b-1", made)], {}, slots).to_dict("records")
    assert (row["state"], row["reason"], row["hindcast"]) == (DEGRADED, "07:00 was filled in", True)
    assert row["made"].endswith("10:00 CEST")


def test_champions_of_one_day_stand_in_one_table_by_time(place: Any) -> None:
    place.add_forecast(place.newest, "vmrnn-b-2")
    place.add_forecast(place.newest - HOUR, "vmrnn-b-1")
    forecasts = [(version, place.forecasts(version).read()) for version in ("vmrnn-b-2", "vmrnn-b-1")]
    slots = _day_slots(place.city, day("2024-05-08"))
    assert _forecast_table(place.city, forecasts, {}, slots)["model"].tolist() == ["vmrnn-b-1", "vmrnn-b-2"]
    assert _forecast_table(place.city, forecasts, {}, _day_slots(place.city, day("2024-05-01"))).empty
    assert _forecast_table(place.city, [], {}, slots).empty
