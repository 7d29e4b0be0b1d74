"""Time zones at points, and their countries."""

from __future__ import annotations

from zoneinfo import available_timezones

import pytest
import tzfpy

from trafficcast.new_city.time_zones import _country_of, _zones_at


@pytest.mark.parametrize(
    ("lon", "lat", "zone"),
    [
        (-122.42, 37.77, "America/Los_Angeles"),  # San Francisco
        (-8.61, 41.15, "Europe/Lisbon"),  # Porto
        (9.19, 45.46, "Europe/Rome"),  # Milan
        (116.40, 39.90, "Asia/Shanghai"),  # Beijing
        (-74.00, 40.70, "America/New_York"),
        (12.49, 41.90, "Europe/Rome"),
        (77.20, 28.60, "Asia/Kolkata"),  # Delhi
        (-46.63, -23.55, "America/Sao_Paulo"),
        (104.03, 1.13, "Asia/Jakarta"),  # Batam, 25 km from Singapore
        (69.17, 41.46, "Asia/Almaty"),  # Saryagash, 16 km from Tashkent
        (-6.97, 38.88, "Europe/Madrid"),  # Badajoz, nearer to Lisbon
    ],
)
def test_the_zone_of_a_point_on_land(lon: float, lat: float, zone: str) -> None:
    assert _zones_at(lon, lat) == [zone]


def test_a_point_may_lie_in_two_zones() -> None:
    assert _zones_at(87.6, 43.8) == ["Asia/Shanghai", "Asia/Urumqi"]


@pytest.mark.parametrize(("lon", "lat"), [(-30.0, 30.0), (0.0, 0.0), (0.0, 90.0), (180.0, 0.0)])
def test_a_point_at_sea_has_none(lon: float, lat: float) -> None:
    assert _zones_at(lon, lat) == []


def test_every_zone_that_can_be_found_is_known_here() -> None:
    assert set(tzfpy.timezonenames()) <= available_timezones()


def test_a_zone_is_of_one_country_or_none() -> None:
    assert _country_of("Asia/Kolkata") == "IN"
    assert _country_of("Europe/Amsterdam") == "NL"  # which has no line of its own among the zones with a city
    assert _country_of("UTC") is None
