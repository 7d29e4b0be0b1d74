"""The folium maps ask nobody but this server for anything."""

from __future__ import annotations

import re
from typing import Any

import pytest

from dashboard.maps.base_map import base_map, cell_layer

URI = "data:image/png;base64,AAAA"


def whole_page(the_map: Any) -> str:
    return str(the_map.get_root().render())


def test_the_only_files_loaded_are_the_vendored_ones(place: Any) -> None:
    the_map = base_map(place.city, URI, None, "")
    cell_layer(place.city, ["#00000000"] * 35, ["</script><script>"] * 35, (1, 2)).add_to(the_map)
    page = whole_page(the_map)
    assert set(re.findall(r'(?:src|href)="([^"]+)"', page)) == {
        "../../app/static/leaflet-1.9.4/leaflet.js",
        "../../app/static/leaflet-1.9.4/leaflet.css",
    }
    assert not re.search(r"https?://", page)
    assert URI in page
    assert "</script><script>" not in page


def test_the_base_map_is_the_same_every_time(place: Any) -> None:
    first, second = (whole_page(base_map(place.city, URI, None, "")) for _ in range(2))
    without_ids = [re.sub(r"_[0-9a-f]{32}", "", page) for page in (first, second)]
    assert without_ids[0] == without_ids[1]


@pytest.mark.parametrize("attribution", ["", "Map makers"])
def test_a_tile_server_takes_the_place_of_the_picture(place: Any, attribution: str) -> None:
    page = whole_page(base_map(place.city, URI, "https://tiles.example/{z}/{x}/{y}.png", attribution))
    assert "https://tiles.example/{z}/{x}/{y}.png" in page and attribution in page
    assert URI not in page


def test_outlines_of_areas_are_drawn_on_the_base_map(place: Any) -> None:
    outline = {"type": "Polygon", "coordinates": [[[10.1, 45.1], [10.2, 45.1], [10.2, 45.2], [10.1, 45.1]]]}
    assert "45.2" in whole_page(base_map(place.city, None, None, "", (outline,)))
    assert "L.geoJson" not in whole_page(base_map(place.city, None, None, ""))
