"""Zones: which cells they cover, and counts spread over the cells by largest remainder."""

from __future__ import annotations

import json
import zipfile
from fractions import Fraction
from pathlib import Path
from typing import Any

import geopandas
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from shapely.geometry import LineString, MultiPolygon, Polygon, box

from trafficcast.config.city import City
from trafficcast.errors import InputError
from trafficcast.geography.zones import Zones, _read_zones, position, spread

# Four rows and four columns of one tenth of a degree.
HERE = City(
    west=-74.2, east=-73.8, south=40.5, north=40.9, rows=4, cols=4, timezone="America/New_York", name="new-york"
)


def frame(zones: dict[Any, Any], crs: str | None = "EPSG:4326") -> geopandas.GeoDataFrame:
    return geopandas.GeoDataFrame({"LocationID": list(zones)}, geometry=list(zones.values()), crs=crs)


def cell(row: int, col: int) -> Polygon:
    west, north = -74.2 + col / 10, 40.9 - row / 10
    return box(west, north - 0.1, west + 0.1, north)


def read(folder: Path, zones: dict[Any, Any]) -> Zones:
    file = folder / "zones.geojson"
    frame(zones).to_file(file)
    return _read_zones(file, "LocationID", HERE)


def shares(zones: Zones) -> dict[int, dict[int, float]]:
    """Zone id -> cell -> share."""
    return {
        int(zone): dict(zip(zones.cells[a:b].tolist(), zones.shares[a:b].tolist(), strict=True))
        for zone, a, b in zip(zones.ids, zones.starts[:-1], zones.starts[1:], strict=True)
    }


def made(*by_cell: dict[int, float]) -> Zones:
    """Zones 0, 1, ... of these shares."""
    starts = np.cumsum([0, *map(len, by_cell)])
    cells = np.array([c for zone in by_cell for c in zone], np.int64)
    return Zones(np.arange(len(by_cell)), starts, cells, np.array([s for zone in by_cell for s in zone.values()]))


def counted(*by_zone: int) -> np.ndarray:
    """One slot, one kind."""
    return np.array(by_zone).reshape(1, 1, -1)


def test_shares_of_a_zone_over_cells_and_outside(tmp_path: Path) -> None:
    inside_two = box(-74.15, 40.82, -74.05, 40.84)  # half in (0, 0), half in (0, 1)
    over_the_edge = box(-73.85, 40.62, -73.65, 40.64)  # a quarter in (2, 3), the rest east of the box
    elsewhere = box(10, 50, 11, 51)
    found = shares(read(tmp_path, {7: over_the_edge, 3: inside_two, 9: elsewhere, 1: cell(3, 2)}))
    assert list(found) == [1, 3, 7, 9]
    assert found[1] == {14: pytest.approx(1)}
    assert found[3] == {0: pytest.approx(0.5), 1: pytest.approx(0.5)}
    assert found[7] == {11: pytest.approx(0.25)}
    assert found[9] == {}


def test_a_small_part_of_a_zone_or_of_a_cell_counts(tmp_path: Path) -> None:
    mostly_next = box(-74.1005, 40.82, -74.0005, 40.84)  # 0.5 % in (0, 0), the rest in (0, 1)
    tiny = box(-74.19, 40.81, -74.189, 40.811)  # a ten-thousandth of (0, 0)
    found = shares(read(tmp_path, {1: mostly_next, 2: tiny}))
    assert found[1] == {0: pytest.approx(0.005), 1: pytest.approx(0.995)}
    assert found[2] == {0: pytest.approx(1)}


def test_area_is_true_area_not_degrees(tmp_path: Path) -> None:
    there = City(west=0, east=1, south=0, north=60, rows=2, cols=1, timezone="UTC", name="tall")
    frame({1: box(0, 0, 1, 60)}).to_file(tmp_path / "z.geojson")
    found = shares(_read_zones(tmp_path / "z.geojson", "LocationID", there))
    # On a sphere the southern half has sin 30 of sin 60; the ellipsoid differs in the third digit.
    assert found[1][1] == pytest.approx(np.sin(np.pi / 6) / np.sin(np.pi / 3), abs=2e-3)
    assert sum(found[1].values()) == pytest.approx(1, abs=1e-12)


def test_rows_and_columns_that_differ(tmp_path: Path) -> None:
    there = HERE.model_copy(update={"rows": 2, "cols": 8})
    frame({1: box(-73.84, 40.55, -73.82, 40.56)}).to_file(tmp_path / "z.geojson")
    assert list(shares(_read_zones(tmp_path / "z.geojson", "LocationID", there))[1]) == [15]


def test_a_zone_in_several_rows_or_parts_is_one(tmp_path: Path) -> None:
    overlapping = read(tmp_path, {1: MultiPolygon([cell(0, 0), cell(2, 2)]), 2: cell(0, 1)})
    assert shares(overlapping)[1] == {0: pytest.approx(0.5, abs=0.01), 10: pytest.approx(0.5, abs=0.01)}
    rows = geopandas.GeoDataFrame(
        {"LocationID": [56, 56, 56]}, geometry=[cell(1, 1), cell(1, 2), cell(1, 2)], crs="EPSG:4326"
    )
    rows.to_file(tmp_path / "rows.geojson")
    found = shares(_read_zones(tmp_path / "rows.geojson", "LocationID", HERE))
    assert found == {56: {5: pytest.approx(0.5), 6: pytest.approx(0.5)}}  # the part given twice counts once


def test_invalid_polygons_are_repaired(tmp_path: Path) -> None:
    bow_tie = Polygon([(-74.19, 40.81), (-74.11, 40.89), (-74.11, 40.81), (-74.19, 40.89)])
    assert not bow_tie.is_valid
    assert shares(read(tmp_path, {1: bow_tie}))[1] == {0: pytest.approx(1)}


@pytest.mark.parametrize(
    ("suffix", "crs"),
    [
        (".shp", "EPSG:2263"),
        (".shp", "EPSG:4326"),
        (".geojson", "EPSG:4326"),
        (".geojson", "EPSG:3857"),
        (".gpkg", "EPSG:32618"),
        (".zip", "EPSG:2263"),
        ("nested.zip", "EPSG:2263"),
    ],
)
def test_any_file_in_any_coordinates(tmp_path: Path, suffix: str, crs: str) -> None:
    zones = frame({4: box(-74.15, 40.82, -74.05, 40.84), 2: cell(1, 1)}).to_crs(crs)
    file = tmp_path / f"zones{suffix}"
    if suffix.endswith("zip"):
        (tmp_path / "shapefile").mkdir()
        zones.to_file(tmp_path / "shapefile" / "taxi_zones.shp")
        with zipfile.ZipFile(file, "w") as archive:
            for part in (tmp_path / "shapefile").iterdir():
                archive.write(part, f"{'taxi_zones/' if suffix == 'nested.zip' else ''}{part.name}")
    else:
        zones.to_file(file)
    found = shares(_read_zones(file, "LocationID", HERE))
    assert {zone: {c: s for c, s in by_cell.items() if s > 0.001} for zone, by_cell in found.items()} == {
        2: {5: pytest.approx(1, abs=1e-3)},
        4: {0: pytest.approx(0.5, abs=1e-3), 1: pytest.approx(0.5, abs=1e-3)},
    }


def test_ids_kept_as_text_or_floats(tmp_path: Path) -> None:
    assert list(read(tmp_path, {"12": cell(0, 0), "7": cell(0, 1)}).ids) == [7, 12]
    assert list(read(tmp_path, {12.0: cell(0, 0), 7.0: cell(0, 1)}).ids) == [7, 12]


@pytest.mark.filterwarnings("ignore:Could not parse column")
@pytest.mark.parametrize("wrong", ["Newark", 1.5, None, float("inf"), 1e300])
def test_an_id_that_is_no_whole_number(tmp_path: Path, wrong: Any) -> None:
    properties = [{"LocationID": 1}, {"LocationID": str(wrong) if wrong is not None else None}]
    features = [{"type": "Feature", "properties": p, "geometry": cell(0, 0).__geo_interface__} for p in properties]
    (tmp_path / "z.geojson").write_text(json.dumps({"type": "FeatureCollection", "features": features}))
    with pytest.raises(InputError, match="z.geojson: .* in column 'LocationID', row 2, is not an integer"):
        _read_zones(tmp_path / "z.geojson", "LocationID", HERE)


def test_what_cannot_be_read_is_refused(tmp_path: Path) -> None:
    def refused(name: str, message: str, column: str = "LocationID") -> None:
        with pytest.raises(InputError, match=message):
            _read_zones(tmp_path / name, column, HERE)

    refused("gone.shp", "there is no file .*gone.shp")
    (tmp_path / "text.shp").write_text("no shapefile at all")
    refused("text.shp", "cannot read zones from .*text.shp")
    (tmp_path / "text.zip").write_text("no archive at all")
    refused("text.zip", "cannot read zones from .*text.zip")
    with zipfile.ZipFile(tmp_path / "empty.zip", "w") as archive:
        archive.writestr("readme.txt", "nothing")
    refused("empty.zip", "empty.zip must hold one shapefile, GeoJSON or GeoPackage; it holds none")
    (tmp_path / "table.csv").write_text("LocationID,name\n1,Newark\n")
    refused("table.csv", "table.csv holds no polygons")
    frame({1: cell(0, 0)}).to_file(tmp_path / "zones.geojson")
    refused("zones.geojson", "no column 'zone' of zone ids; its columns are: LocationID", "zone")
    frame({1: cell(0, 0), 5: LineString([(-74, 40.6), (-74, 40.7)])}).to_file(tmp_path / "line.geojson")
    refused("line.geojson", "zone 5 has no polygon with an area")
    frame({1: cell(0, 0), 5: None}).to_file(tmp_path / "null.geojson")
    refused("null.geojson", "zone 5 has no polygon with an area")
    frame({1: box(10, 50, 11, 51)}).to_file(tmp_path / "far.geojson")
    refused("far.geojson", "none of the 1 zones of .*far.geojson touches the box of 'new-york'")


@pytest.mark.filterwarnings("ignore:'crs' was not provided")
def test_without_a_coordinate_system_only_geojson_is_read(tmp_path: Path) -> None:
    frame({1: cell(0, 0)}, crs=None).to_file(tmp_path / "zones.shp")
    with pytest.raises(InputError, match="does not name its coordinate system: .*prj.*GeoJSON"):
        _read_zones(tmp_path / "zones.shp", "LocationID", HERE)
    frame({1: cell(0, 0)}, crs='LOCAL_CS["a drawing",UNIT["metre",1]]').to_file(tmp_path / "drawing.gpkg")
    with pytest.raises(InputError, match="coordinate system cannot be converted to EPSG:6933"):
        _read_zones(tmp_path / "drawing.gpkg", "LocationID", HERE)


def test_index_of_ids() -> None:
    zones = Zones(np.array([1, 4, 263]), np.array([0, 0, 0, 0]), np.array([], int), np.array([]))
    assert position(np.array([263, 1, 264, 0, 4, 2, -1]), zones.ids).tolist() == [2, 0, -1, -1, 1, -1, -1]
    assert position(np.array([], np.int64), zones.ids).tolist() == []


def test_the_largest_remainders_get_what_is_left() -> None:
    zones = made({0: 0.5, 1: 0.3, 3: 0.2})
    # 7 * (.5, .3, .2) = 3.5, 2.1, 1.4: one left, for the first.
    assert spread(counted(7), zones, 2, 2).tolist() == [[[[4, 2], [0, 1]]]]
    # 9: 4.5, 2.7, 1.8: two left, for the last two.
    assert spread(counted(9), zones, 2, 2).tolist() == [[[[4, 3], [0, 2]]]]


def test_equal_remainders_go_by_row_then_column_and_outside_last() -> None:
    quarter = made({1: 0.25, 2: 0.25, 3: 0.25})  # and a quarter outside
    assert [spread(counted(n), quarter, 2, 2).ravel().tolist() for n in range(6)] == [
        [0, 0, 0, 0], [0, 1, 0, 0], [0, 1, 1, 0], [0, 1, 1, 1], [0, 1, 1, 1], [0, 2, 1, 1],
    ]  # fmt: skip


def test_noise_of_the_shares_breaks_no_tie() -> None:
    third = 1 / 3
    zones = made({0: third - 3e-13, 1: third + 3e-13, 2: third})
    assert spread(counted(100), zones, 1, 3).ravel().tolist() == [34, 33, 33]
    assert spread(counted(300), zones, 1, 3).ravel().tolist() == [100, 100, 100]


def test_zones_on_the_map_share_equally_what_is_symmetric(tmp_path: Path) -> None:
    # Two cells of a row, and four columns' edges drawn as degrees that no float holds exactly.
    zones = read(tmp_path, {1: box(-74.2, 40.6, -73.8, 40.7)})
    assert spread(counted(401), zones, 4, 4)[0, 0, 2].tolist() == [101, 100, 100, 100]
    assert spread(counted(402), zones, 4, 4)[0, 0, 2].tolist() == [101, 101, 100, 100]


def test_zones_add_up_and_an_outer_zone_counts_nothing() -> None:
    zones = made({0: 1.0}, {}, {0: 0.5, 1: 0.5})
    counts = np.array([[[1, 5, 3], [0, 0, 0]], [[0, 9, 1], [2, 0, 0]]])
    flow = spread(counts, zones, 1, 2)
    assert flow.dtype == np.int32
    assert flow.tolist() == [[[[3, 1]], [[0, 0]]], [[[1, 0]], [[2, 0]]]]


def plain(count: int, parts: list[Fraction]) -> list[int]:
    """Largest remainder by the book, in exact fractions; the last party is outside."""
    quotas = [count * part for part in parts]
    given = [int(quota) for quota in quotas]
    order = sorted(range(len(parts)), key=lambda i: (-(quotas[i] - given[i]), i))
    for i in order[: count - sum(given)]:
        given[i] += 1
    return given


@settings(derandomize=True, max_examples=150, deadline=None)
@given(st.data())
def test_spread_is_largest_remainder_by_the_book(data: st.DataObject) -> None:
    rows, cols = data.draw(st.integers(1, 3)), data.draw(st.integers(1, 3))
    by_cell, exact = [], []
    for _ in range(data.draw(st.integers(1, 4))):
        cells = sorted(data.draw(st.sets(st.integers(0, rows * cols - 1))))
        # Small weights tie often.
        weights = data.draw(st.lists(st.integers(1, 12), min_size=len(cells), max_size=len(cells)))
        outside = data.draw(st.integers(0 if cells else 1, 12))
        total = sum(weights) + outside
        by_cell.append({c: w / total for c, w in zip(cells, weights, strict=True)})
        exact.append([Fraction(w, total) for w in [*weights, outside]])
    counts = data.draw(arrays(np.int32, (3, 2, len(by_cell)), elements=st.integers(0, 5000)))
    flow = spread(counts, made(*by_cell), rows, cols)
    wanted = np.zeros((3, 2, rows * cols), int)
    for slot, kind, zone in np.ndindex(counts.shape):
        given = plain(int(counts[slot, kind, zone]), exact[zone])
        assert sum(given) == counts[slot, kind, zone]
        for c, part in zip(by_cell[zone], given[:-1], strict=True):
            wanted[slot, kind, c] += part
    assert (flow.reshape(wanted.shape) == wanted).all()


@settings(derandomize=True, max_examples=100, deadline=None)
@given(st.lists(st.floats(1e-9, 1), min_size=1, max_size=30), st.integers(0, 2**31 - 1), st.booleans())
def test_cells_and_outside_add_up_to_the_count(weights: list[float], count: int, all_inside: bool) -> None:
    shares = np.array(weights) / (sum(weights) * (1 if all_inside else 1.7))
    flow = spread(counted(count), made(dict(enumerate(shares.tolist()))), 1, len(weights))
    assert flow.min() >= 0
    assert (np.abs(flow.ravel() - count * shares) < 1 + 1e-6).all()
    if all_inside:
        assert flow.astype(np.int64).sum() == count
