"""Zones near a place."""

from __future__ import annotations

from zoneinfo import available_timezones

import pytest

from trafficcast.new_city.time_zones import _country_of, _nearest_zones, _own_zone


@pytest.mark.parametrize(
    ("lon", "lat", "zone"),
    [
        (88.36, 22.54, "Asia/Kolkata"),
        (-118.30, 34.05, "America/Los_Angeles"),
        (151.20, -33.87, "Australia/Sydney"),
        (-46.63, -23.55, "America/Sao_Paulo"),
    ],
)
def test_a_zone_s_own_city_has_it(lon: float, lat: float, zone: str) -> None:
    own = _own_zone(lon, lat)
    assert own is not None and own.name == zone and own.km < 10


@pytest.mark.parametrize(
    ("lon", "lat", "nearest"),
    [
        (104.03, 1.13, "Asia/Singapore"),  # Batam is Indonesian
        (69.17, 41.46, "Asia/Tashkent"),  # Saryagash is Kazakh
        (-6.97, 38.88, "Europe/Lisbon"),  # Badajoz is Spanish
        (-122.42, 37.77, "America/Los_Angeles"),  # right, which nobody can know from nearness
    ],
)
def test_elsewhere_nothing_is_concluded_from_the_nearest(lon: float, lat: float, nearest: str) -> None:
    assert _own_zone(lon, lat) is None
    assert _nearest_zones(lon, lat)[0].name == nearest


def test_all_zones_are_there_with_their_distances() -> None:
    zones = _nearest_zones(-0.1278, 51.5074)
    assert zones[0].name == "Europe/London" and zones[0].km < 1
    assert [zone.km for zone in zones] == sorted(zone.km for zone in zones)
    paris = next(zone.km for zone in zones if zone.name == "Europe/Paris")
    assert paris == pytest.approx(344, abs=3)
    assert len(zones) > 250 and {zone.name for zone in zones} <= available_timezones()


def test_a_zone_is_of_one_country_or_none() -> None:
    assert _country_of("Asia/Kolkata") == "IN"
    assert _country_of("Europe/Amsterdam") == "NL"  # which has no line of its own among the zones with places
    assert _country_of("UTC") is None
