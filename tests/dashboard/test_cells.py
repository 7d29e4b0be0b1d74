"""The grid as GeoJSON."""

from __future__ import annotations

import json
from typing import Any

import geopandas
import numpy as np

from dashboard.cells import cell_at, cell_ring, cell_rings, feature_collection


def test_row_0_is_the_northern_one_and_column_0_the_western(place: Any) -> None:
    assert cell_ring(place.city, 0, 0)[0] == [10.0, 45.5]
    assert cell_ring(place.city, 4, 6) == [
        [10.6, 45.1],
        [10.6, 45.0],
        [10.7, 45.0],
        [10.7, 45.1],
        [10.6, 45.1],
    ]


def test_every_cell_is_found_by_its_centre(place: Any) -> None:
    city = place.city
    found = [cell_at(city, lat, lon) for lat in city.lat for lon in city.lon]
    assert found == [(row, col) for row in range(5) for col in range(7)]


def test_places_outside_the_box_are_no_cell(place: Any) -> None:
    assert cell_at(place.city, 45.6, 10.1) is None
    assert cell_at(place.city, 45.2, 9.99) is None
    assert cell_at(place.city, 44.99, 10.1) is None


def test_features_tile_the_box_and_carry_each_cells_value(place: Any) -> None:
    values = np.arange(35).reshape(5, 7) + 0.25
    colours = [f"#0000{i:02x}ff" for i in range(35)]
    collection = feature_collection(cell_rings(place.city), values, colours, 1)
    table = geopandas.GeoDataFrame.from_features(json.loads(json.dumps(collection)))
    assert len(table) == 35
    np.testing.assert_allclose(table.union_all().bounds, (10.0, 45.0, 10.7, 45.5))
    np.testing.assert_allclose(table.area, 0.01)
    last_of_first_row = table.iloc[6]
    assert (last_of_first_row["row"], last_of_first_row["col"]) == (0, 6)
    assert last_of_first_row["value"] == "6.2" and last_of_first_row["fill"] == "#000006ff"
    assert last_of_first_row["geometry"].bounds == (10.6, 45.4, 10.7, 45.5)


def test_almost_nothing_below_0_prints_as_0(place: Any) -> None:
    collection = feature_collection(cell_rings(place.city), np.full((5, 7), -0.01), ["#00000000"] * 35, 1)
    assert collection["features"][0]["properties"]["value"] == "0.0"
