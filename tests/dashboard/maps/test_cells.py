"""The cells on a map."""

from __future__ import annotations

from typing import Any

import numpy as np

from dashboard.maps.cells import cell_words
from dashboard.reads.areas import _cell_names
from trafficcast.geography.areas import Area
from trafficcast.geography.cells import cell_at


def test_every_cell_is_found_by_its_centre(place: Any) -> None:
    city = place.city
    found = [cell_at(city, lat, lon) for lat in city.lat for lon in city.lon]
    assert found == [(row, col) for row in range(5) for col in range(7)]


def test_places_outside_the_box_are_no_cell(place: Any) -> None:
    assert cell_at(place.city, 45.6, 10.1) is None
    assert cell_at(place.city, 45.2, 9.99) is None
    assert cell_at(place.city, 44.99, 10.1) is None


def test_a_cell_is_called_by_the_area_that_covers_most_of_it(place: Any) -> None:
    harbour, market = np.zeros((5, 7)), np.zeros((5, 7))
    harbour[0, :2] = 0.6, 0.2
    market[0, :3] = 0.4, 0.8, 0.1
    areas = {name: Area(name, share, 0, 0, {}) for name, share in (("Harbour", harbour), ("Market", market))}
    names = _cell_names(place.city, areas)
    assert names[:4] == [
        "Harbour, row 0, column 0",
        "Market, row 0, column 1",
        "Market, row 0, column 2",
        "row 0, column 3",
    ]
    assert names[-1] == "row 4, column 6" and len(names) == 35
    assert _cell_names(place.city, {})[0] == "row 0, column 0"


def test_words_say_place_and_value() -> None:
    assert cell_words(["here", "there"], np.array([[1.26, 3]]), 1) == ["here: 1.3", "there: 3.0"]


def test_almost_nothing_below_0_prints_as_0() -> None:
    assert cell_words(["here"], np.array([[-0.01]]), 1) == ["here: 0.0"]
