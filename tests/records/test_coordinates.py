"""Coordinates that are no degrees of WGS 84: scaled, projected, of Chinese maps, or across the antimeridian."""

from __future__ import annotations

import numpy as np
import pytest

from trafficcast.config.city import City
from trafficcast.config.feed import Feed
from trafficcast.records.coordinates import _to_degrees
from trafficcast.records.records import Points, Trips

CITY = City(west=9.1, east=9.26, south=45.42, north=45.52, timezone="UTC", name="small")


def converted(lon: float, lat: float, city: City = CITY, **feed: object) -> tuple[float, float]:
    city = city.model_copy(update={"feed": Feed(**feed)})  # type: ignore[arg-type]
    one = np.zeros(1, np.int64)
    points = _to_degrees(Points(one.astype(np.int32), one, np.array([lon]), np.array([lat]), one.astype(np.int8)), city)
    trips = _to_degrees(Trips(one, np.array([lon]), np.array([lat]), one, np.array([lon]), np.array([lat]), one), city)
    assert (points.lon, points.lat) == (trips.lon, trips.lat) == (trips.dropoff_lon, trips.dropoff_lat)
    return float(points.lon[0]), float(points.lat[0])


def test_microdegrees_are_exact_to_the_last_digit() -> None:
    assert converted(91_807_571, 454_880_193, scale=1e-7) == (9.1807571, 45.4880193)
    assert converted(9_180_757, 45_488_019, scale=1e-6) == (9.180757, 45.488019)
    assert converted(0.1, 0.2, scale=90.0) == (9.0, 18.0)


@pytest.mark.parametrize(
    ("crs", "x", "y"),
    [
        ("EPSG:3857", 1_021_997.19, 5_698_680.09),
        ("EPSG:32632", 514_124.96, 5_037_181.34),
        ("epsg:4326", 9.180757, 45.488019),
    ],
)
def test_projected_coordinates(crs: str, x: float, y: float) -> None:
    assert converted(x, y, crs=crs) == pytest.approx((9.180757, 45.488019), abs=1e-6)
    assert converted(y, x, crs=crs, swapped=True) == converted(x, y, crs=crs)


def test_longitudes_from_0_to_360() -> None:
    assert converted(237.6, 37.7, crs="EPSG:4326") == pytest.approx((-122.4, 37.7))


def test_what_no_projection_has_lies_off_the_globe() -> None:
    lon, _ = converted(1e30, 1e30, crs="EPSG:32632")
    assert not abs(lon) <= 180


@pytest.mark.parametrize(
    ("crs", "shifted", "place"),
    [
        # As the published converter shifts these places.
        ("gcj02", (116.41024449916938, 39.91640428150164), (116.404, 39.915)),
        ("GCJ-02", (116.41024449916938, 39.91640428150164), (116.404, 39.915)),
    ],
)
def test_coordinates_of_chinese_maps(crs: str, shifted: tuple[float, float], place: tuple[float, float]) -> None:
    assert converted(*shifted, crs=crs) == pytest.approx(place, abs=1e-8)


def test_coordinates_of_baidus_maps_are_those_of_chinese_ones_shifted_once_more() -> None:
    chinese = converted(116.39762729119315, 39.90865673957631, crs="gcj02")
    assert converted(116.404, 39.915, crs="bd09") == pytest.approx(chinese, abs=1e-8)


def test_outside_of_china_nothing_is_shifted() -> None:
    assert converted(9.18, 45.48, crs="gcj02") == (9.18, 45.48)


def test_a_box_may_cross_the_antimeridian() -> None:
    city = City(west=179.9, east=-179.9, south=-17, north=-16.6, timezone="Pacific/Fiji", name="taveuni")
    assert (city.west, city.east) == (179.9, pytest.approx(180.1))
    assert city.lon[-1] > 180
    assert City(**city.model_dump()) == city
    assert converted(-179.95, -16.8, city) == pytest.approx((180.05, -16.8))
    assert converted(179.95, -16.8, city) == (179.95, -16.8)


@pytest.mark.parametrize(("west", "east"), [(9.2, 9.1), (9.2, -9.1), (-10, 200), (5, 200)])
def test_other_boxes_beyond_the_antimeridian_are_upside_down_or_too_wide(west: float, east: float) -> None:
    with pytest.raises(ValueError, match=r"upside down|at most 180 degrees"):
        City(west=west, east=east, south=-17, north=-16.6, timezone="UTC")
