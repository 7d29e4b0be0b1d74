"""What maps side by side show."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from dashboard.maps.layers import forecast_layers, moment_layers
from dashboard.maps.maps import Layer, _layer_table

ONE, TWO = np.full((2, 3), 5.0), np.full((2, 3), 3.0)


def test_a_forecast_stands_beside_what_came_and_their_difference() -> None:
    predicted, observed, difference = forecast_layers("inflow", 100, ONE, TWO, "")
    assert predicted.values is ONE and observed.values is TWO and difference.values is not None
    assert (difference.values == 2).all() and "+12" in difference.note and "RMSE 2.00" in difference.note
    assert [layer.limit for layer in (predicted, observed, difference)] == [100, 100, 25]
    assert [layer.diverging for layer in (predicted, observed, difference)] == [False, False, True]


def test_a_forecast_may_stand_beside_typical_flows() -> None:
    layers = forecast_layers("inflow", 100, ONE, TWO, "", "typical")
    assert [layer.title for layer in layers] == ["Predicted inflow", "Typical inflow", "Predicted less typical"]
    assert layers[1].digits == 1 and "RMS 2.00" in layers[2].note


def test_net_is_a_difference_itself() -> None:
    assert all(layer.diverging and layer.limit == 25 for layer in forecast_layers("net", 100, ONE, TWO, ""))


@pytest.mark.parametrize(
    ("predicted", "observed", "notes"),
    [
        (None, TWO, ["no forecast of this slot", "city total 18", "no forecast of this slot"]),
        (ONE, None, ["city total 30", "not observed yet", "not observed yet"]),
    ],
)
def test_what_is_not_there_says_why(
    predicted: np.ndarray | None, observed: np.ndarray | None, notes: list[str]
) -> None:
    layers = forecast_layers("inflow", 100, predicted, observed, "not observed yet")
    assert [layer.note for layer in layers] == notes and layers[2].values is None


def test_two_moments_and_the_first_less_the_second() -> None:
    first, second, difference = moment_layers("outflow", "observed", 100, ("Fri", ONE), ("Thu", TWO))
    assert (first.title, second.title, difference.title) == ("Observed Fri", "Observed Thu", "First less second")
    assert difference.values is not None and (difference.values == 2).all()
    missing = moment_layers("outflow", "predicted", 100, ("Fri", ONE), ("Thu", None))
    assert [layer.note for layer in missing] == ["city total 30", "not predicted", "not predicted"]


def test_the_numbers_of_the_maps_have_a_row_for_each_cell(place: Any) -> None:
    values = np.arange(35.0).reshape(5, 7) + 0.26
    layers = [
        Layer("Predicted", values, 100),
        Layer("Observed", values.round(), 100, digits=0),
        Layer("None", None, 100),
    ]
    table = _layer_table(place.city, layers)
    assert list(table.columns) == ["row", "column", "Predicted", "Observed"]
    assert table.iloc[9].tolist() == [1, 2, 9.3, 9]
