from typing import Any

import numpy as np
import pytest
import xarray as xr

from dashboard.skill.error_map import _cell_table, _CellErrors, _errors_by_cell, _sum_errors
from dashboard.skill.reads import _cell_errors_between
from trafficcast.forecasting.climatology import Climatology

SLOT = np.timedelta64(30, "m")


def scene(place: Any) -> tuple[xr.Dataset, xr.Dataset]:
    """Two forecasts, the second's last slot not observed yet, and the flows."""
    flows = place.add_flows()
    first, second = place.newest - 4 * SLOT, place.newest - 2 * SLOT
    place.add_forecast(first)
    place.add_forecast(second)
    made = place.forecasts().read()
    assert made is not None
    return made, flows


def test_errors_are_those_of_slots_with_known_truth(place: Any) -> None:
    made, flows = scene(place)
    errors = _errors_by_cell(made, flows, None)

    assert errors.slots.tolist() == [2, 2, 2, 1]
    number, lead = 9, 1  # row 1, column 2 of 5 x 7 cells
    slots = [int(np.flatnonzero(flows["time"].values == time)[0]) for time in made["valid_time"].values[:, lead]]
    wrong = np.array([10 * lead + 0.5 + number - (slot % 48 + number) for slot in slots])
    assert errors.mean_error("inflow", lead)[1, 2] == pytest.approx(wrong.mean())
    assert errors.rmse("inflow", lead)[1, 2] == pytest.approx(np.sqrt(np.square(wrong).mean()))
    assert errors.typical_rmse("inflow") is None


def test_a_slot_that_was_not_observed_does_not_count(place: Any) -> None:
    flows = place.add_flows()
    place.add_forecast(place.down - SLOT)
    made = place.forecasts().read()
    assert made is not None
    assert _errors_by_cell(made, flows, None).slots.tolist() == [1, 0, 1, 1]


def test_net_is_inflow_less_outflow(place: Any) -> None:
    made, flows = scene(place)
    errors = _errors_by_cell(made, flows, None)
    expected = errors.mean_error("inflow") - errors.mean_error("outflow")
    np.testing.assert_allclose(errors.mean_error("net"), expected)


def test_typical_is_scored_on_the_same_slots(place: Any) -> None:
    made, flows = scene(place)
    exact = Climatology(place.city, np.zeros((2, 48, 2, 5, 7), np.float32))
    usual = _errors_by_cell(made, flows, exact).typical_rmse("outflow", 0)
    seen = [flows["flow"].sel(time=time).values[1] for time in made["valid_time"].values[:, 0]]
    assert usual is not None
    np.testing.assert_allclose(usual, np.sqrt(np.square(seen).mean(0)))


def test_parts_together_are_the_whole(place: Any) -> None:
    made, flows = scene(place)
    whole = _errors_by_cell(made, flows, None)
    parts = _sum_errors([_errors_by_cell(made.isel(init_time=[n]), flows, None) for n in (0, 1)])
    assert parts is not None
    np.testing.assert_allclose(parts.rmse("inflow"), whole.rmse("inflow"))
    assert _sum_errors([]) is None
    nothing = np.zeros((4, 3, 5, 7))
    assert _sum_errors([_CellErrors(np.zeros(4, int), nothing, nothing, None)]) is None


def test_a_period_of_the_stores(place: Any) -> None:
    made, flows = scene(place)
    place.add_model()
    first, last = made["init_time"].values[[0, -1]]
    both = _cell_errors_between(place.stores, "vmrnn-b-1", first, last + SLOT)
    one = _cell_errors_between(place.stores, "vmrnn-b-1", first, last)
    assert both is not None and one is not None
    assert both.slots.tolist() == [2, 2, 2, 1] and one.slots.tolist() == [1, 1, 1, 1]
    assert both.typical is None  # the model of this place says nothing of it
    assert _cell_errors_between(place.stores, "vmrnn-b-1", last + SLOT, last + 2 * SLOT) is None


def test_cell_table_has_all_leads_and_each(place: Any) -> None:
    made, flows = scene(place)
    table = _cell_table(place.city, _errors_by_cell(made, flows, None), "inflow", (1, 2))
    assert table["lead"].tolist() == ["all leads", "+0 min", "+30 min", "+60 min", "+90 min"]
    assert table["slots"].tolist() == [7, 2, 2, 2, 1]
