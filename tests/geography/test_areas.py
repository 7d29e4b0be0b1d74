"""Named areas: how much of each cell they cover, and files that are odd."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from shapely.geometry import LineString, MultiPolygon, Point, Polygon, box, mapping
from shapely.geometry import shape as geometry

from trafficcast.config.city import City
from trafficcast.errors import InputError
from trafficcast.geography.areas import Area, _read_areas, city_areas

# Four rows and five columns of one tenth of a degree.
HERE = City(
    west=9.0, east=9.5, south=45.0, north=45.4, rows=4, cols=5, timezone="Europe/Rome", name="small"
)  # fmt: skip


def write(folder: Path, *features: tuple[dict[str, Any], Any]) -> Path:
    file = folder / "areas.geojson"
    written = [
        {"type": "Feature", "properties": properties, "geometry": None if shape is None else mapping(shape)}
        for properties, shape in features
    ]
    file.write_text(json.dumps({"type": "FeatureCollection", "features": written}))
    return file


def areas(folder: Path, **shapes: Any) -> dict[str, Area]:
    return _read_areas(write(folder, *(({"name": name}, shape) for name, shape in shapes.items())), HERE)


def refused(file: Path) -> str:
    with pytest.raises(InputError) as error:
        _read_areas(file, HERE)
    assert str(file) in str(error.value)
    return str(error.value)


def test_the_share_of_each_cell_that_an_area_covers(tmp_path: Path) -> None:
    found = areas(tmp_path, Old=box(9.1, 45.25, 9.25, 45.4), West=box(9.0, 45.0, 9.1, 45.4))
    assert list(found) == ["Old", "West"]
    expected = np.zeros((4, 5))  # row 0 is the northern row
    expected[0, 1], expected[0, 2], expected[1, 1], expected[1, 2] = 1, 0.5, 0.5, 0.25
    assert np.allclose(found["Old"].share, expected, atol=1e-9)
    assert np.allclose(found["West"].share, np.eye(5)[0][None].repeat(4, 0), atol=1e-9)
    assert np.count_nonzero(found["West"].share) == 4  # a border along a cell's edge is none of the next cell
    assert found["Old"].share.max() <= 1


def test_an_area_smaller_than_a_hundredth_of_a_cell_counts(tmp_path: Path) -> None:
    found = areas(tmp_path, Stop=box(9.12, 45.32, 9.125, 45.33), Rim=box(9.0, 45.3, 9.1005, 45.4))
    assert found["Stop"].share[0, 1] == pytest.approx(0.005) and np.count_nonzero(found["Stop"].share) == 1
    assert found["Rim"].share[0, :2] == pytest.approx([1, 0.005])


def test_the_point_of_an_area_lies_in_it(tmp_path: Path) -> None:
    ring = box(9.1, 45.1, 9.4, 45.3).difference(box(9.15, 45.15, 9.35, 45.25))
    area = areas(tmp_path, Ring=ring)["Ring"]
    assert ring.contains(Point(area.lon, area.lat))


def test_what_lies_outside_the_box_is_cut_off(tmp_path: Path) -> None:
    found = areas(tmp_path, All=box(0, 40, 20, 50), Corner=box(9.45, 45.35, 12, 47))
    assert np.allclose(found["All"].share, 1)
    assert found["Corner"].share[0, 4] == pytest.approx(0.25) and np.count_nonzero(found["Corner"].share) == 1


def test_the_outline_is_the_areas_simplified(tmp_path: Path) -> None:
    disc = Point(9.25, 45.2).buffer(0.1, quad_segs=1000)
    outline = areas(tmp_path, Disc=disc)["Disc"].outline
    drawn = geometry(outline)
    assert drawn.symmetric_difference(disc).area < 0.05 * disc.area
    assert len(outline["coordinates"][0]) < 100
    assert json.loads(json.dumps(outline))["type"] == "Polygon"


def test_features_of_one_name_are_one_area_and_count_once(tmp_path: Path) -> None:
    cell, half = box(9.0, 45.3, 9.1, 45.4), box(9.05, 45.3, 9.2, 45.4)
    file = write(tmp_path, ({"name": "A"}, cell), ({"name": " A\n"}, half))
    assert np.allclose(_read_areas(file, HERE)["A"].share[0], [1, 1, 0, 0, 0])
    apart = areas(tmp_path, B=MultiPolygon([cell, box(9.4, 45.0, 9.5, 45.1)]))["B"]
    assert np.isclose(apart.share.sum(), 2) and np.isclose(apart.share[3, 4], 1)


def test_a_bow_tie_is_repaired(tmp_path: Path) -> None:
    bow = Polygon([(9.0, 45.3), (9.1, 45.4), (9.1, 45.3), (9.0, 45.4)])
    assert areas(tmp_path, Bow=bow)["Bow"].share[0, 0] == pytest.approx(0.5)


def test_names_may_be_numbers_and_markup_stays_text(tmp_path: Path) -> None:
    cell = box(9.0, 45.3, 9.1, 45.4)
    assert list(_read_areas(write(tmp_path, ({"name": 7}, cell)), HERE)) == ["7"]
    assert list(areas(tmp_path, **{"<script>x</script>": cell})) == ["<script>x</script>"]


def test_a_city_without_a_file_has_no_areas(tmp_path: Path) -> None:
    assert city_areas(HERE) == {}
    file = write(tmp_path, ({"name": "A"}, box(9.0, 45.3, 9.1, 45.4)))
    assert list(city_areas(HERE.model_copy(update={"areas": file}))) == ["A"]


def test_a_feature_without_a_name_is_named_by_its_number(tmp_path: Path) -> None:
    cell = box(9.0, 45.3, 9.1, 45.4)
    assert "no property 'name'" in refused(write(tmp_path, ({"title": "A"}, cell)))
    for missing in ({}, {"name": None}, {"name": " \t"}, {"name": "a\x1b[31mb"}):
        assert "feature 2 has no name" in refused(write(tmp_path, ({"name": "A"}, cell), (missing, cell)))
    assert "feature 1 has no name" in refused(write(tmp_path, ({"name": ["A", "B"]}, cell)))


@pytest.mark.parametrize(
    "shape", [None, Point(9.1, 45.1), LineString([(9, 45), (9.4, 45.3)]), Polygon([(9, 45), (9.1, 45.1), (9, 45)])]
)
def test_a_feature_without_a_polygon_is_named_by_its_number(tmp_path: Path, shape: Any) -> None:
    file = write(tmp_path, ({"name": "A"}, box(9.0, 45.3, 9.1, 45.4)), ({"name": "B"}, shape))
    assert "feature 2 has no polygon with an area" in refused(file)


@pytest.mark.filterwarnings("ignore:Non closed ring")
def test_a_ring_that_is_not_closed_is_named_by_its_number(tmp_path: Path) -> None:
    file = write(tmp_path, ({"name": "A"}, box(9.0, 45.3, 9.1, 45.4)), ({"name": "B"}, box(9.2, 45.0, 9.3, 45.1)))
    content = json.loads(file.read_text())
    content["features"][1]["geometry"]["coordinates"] = [[[9.2, 45.0], [9.3, 45.0]]]
    file.write_text(json.dumps(content))
    assert "feature 2 has no polygon with an area" in refused(file)


def test_coordinates_that_are_no_numbers_are_refused(tmp_path: Path) -> None:
    file = write(tmp_path, ({"name": "A"}, box(9.0, 45.3, 9.1, 45.4)))
    file.write_text(file.read_text().replace("45.4", "1e999"))
    assert refused(file)


@pytest.mark.parametrize("shape", [box(12, 41, 13, 42), box(45.0, 9.0, 45.4, 9.5), box(500000, 4900000, 600000, 5e6)])
def test_an_area_outside_the_box_is_named(tmp_path: Path, shape: Any) -> None:
    file = write(tmp_path, ({"name": "A"}, box(9.0, 45.3, 9.1, 45.4)), ({"name": "Far"}, shape))
    message = refused(file)
    assert "area 'Far' lies outside the box of 'small'" in message and "longitude, latitude" in message


@pytest.mark.parametrize(
    "text",
    [
        "",
        "{",
        "[]",
        "name,lon\nA,9.1\n",
        '{"type": "FeatureCollection"}',
        '{"type": "FeatureCollection", "features": []}',
    ],
)
def test_a_file_that_is_no_geojson_of_areas_is_refused(tmp_path: Path, text: str) -> None:
    file = tmp_path / "areas.geojson"
    file.write_text(text)
    message = refused(file)
    assert "cannot read areas from" in message or "holds no polygons" in message


def test_no_file(tmp_path: Path) -> None:
    assert "there is no file" in refused(tmp_path / "gone.geojson")
    assert "there is no file" in refused(tmp_path)


@pytest.mark.filterwarnings("ignore:overflow:RuntimeWarning")
def test_an_area_beyond_all_numbers_is_refused(tmp_path: Path) -> None:
    file = write(tmp_path, ({"name": "A"}, box(9.0, 45.3, 9.1, 45.4)), ({"name": "B"}, box(9.0, 45.0, 1e200, 1e200)))
    assert "feature 2 has no polygon with an area" in refused(file)
