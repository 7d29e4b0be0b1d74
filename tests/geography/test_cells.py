"""Cells: their outlines as GeoJSON has them, and the cell of a point."""

from __future__ import annotations

import pytest

from trafficcast.config.city import City
from trafficcast.geography.cells import cell_at, cell_ring, cell_rings

# Cells of 0.1 degrees of longitude by 0.2 of latitude.
CITY = City(west=9.0, east=9.3, south=45.0, north=45.4, rows=2, cols=3, timezone="UTC", name="small")


def test_a_ring_goes_counterclockwise_from_the_north_western_corner_and_closes() -> None:
    assert cell_ring(CITY, 0, 0) == [[9.0, 45.4], [9.0, 45.2], [9.1, 45.2], [9.1, 45.4], [9.0, 45.4]]
    assert cell_ring(CITY, 1, 2) == [[9.2, 45.2], [9.2, 45.0], [9.3, 45.0], [9.3, 45.2], [9.2, 45.2]]


def test_corners_have_five_decimals() -> None:
    thirds = CITY.model_copy(update={"east": 9.1})
    assert [lon for lon, _ in cell_ring(thirds, 0, 1)] == [9.03333, 9.03333, 9.06667, 9.06667, 9.03333]


def test_rings_are_row_after_row_from_the_north_western_cell_on() -> None:
    corners = [ring[0] for ring in cell_rings(CITY)]
    assert corners == [[9.0, 45.4], [9.1, 45.4], [9.2, 45.4], [9.0, 45.2], [9.1, 45.2], [9.2, 45.2]]


@pytest.mark.parametrize(
    ("lat", "lon", "cell"),
    [(45.3, 9.05, (0, 0)), (45.3, 9.25, (0, 2)), (45.1, 9.15, (1, 1)), (45.5, 9.05, None), (45.3, 9.35, None)],
)
def test_the_row_and_the_column_of_a_point(lat: float, lon: float, cell: tuple[int, int] | None) -> None:
    assert cell_at(CITY, lat, lon) == cell
