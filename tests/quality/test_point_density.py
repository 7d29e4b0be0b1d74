"""Where vehicles report: the picture of the box, and the coarse grid of everywhere else."""

from __future__ import annotations

import base64
import io
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from trafficcast.config.city import City
from trafficcast.ingestion.record_store import RecordStore, State
from trafficcast.ingestion.spans import Span
from trafficcast.quality import point_density
from trafficcast.quality.point_density import (
    PointDensity,
    _add_to_raster,
    _outside_box,
    ends,
    png_uri,
    point_counts,
    shade_levels,
)
from trafficcast.records.records import HOUR_US, Points, Trips, ZoneTrips

CITY = City(west=10.0, east=10.7, south=45.0, north=45.5, rows=5, cols=7, timezone="Europe/Rome", name="testville")


def density_of(lon: Any, lat: Any) -> PointDensity:
    density = PointDensity()
    density.add(np.array(lon), np.array(lat))
    return density


class Hours(RecordStore):
    """A store that holds ten points every hour."""

    def read(self, state: State, span: Span) -> Points:
        ten, hour = np.zeros(10), span.first
        time = np.full(10, hour * HOUR_US)
        return Points(ten.astype(np.int32), time, ten + 10.01 + hour / 1100, ten + 45.2, ten.astype(np.int8))


def test_the_streets_are_drawn_from_enough_hours_of_the_last_weeks(monkeypatch: pytest.MonkeyPatch) -> None:
    store, hours = Hours(Path("unused")), range(point_density._RECENT_HOURS + 50)
    state = State(kind="points", files={Span(hour, hour + 1): ("", 10) for hour in hours})
    counts = point_counts(store, state, CITY, 512)
    assert counts.sum() == 10 * point_density._RECENT_HOURS
    assert counts[:, :40].sum() == 0  # the first fifty hours lie further west
    monkeypatch.setattr(point_density, "_ENOUGH_POINTS", 95)
    some = point_counts(store, state, CITY, 512)
    assert some.sum() == 100
    assert np.flatnonzero(some.any(axis=0)).std() > 50  # of hours from all of the time
    assert (some == point_counts(store, state, CITY, 512)).all()


def test_points_fall_on_their_pixels_north_up() -> None:
    counts = np.zeros((8, 8), np.int64)
    lon = np.array([10.01, 10.01, 10.69, 10.35, 11.0, 10.7])
    lat = np.array([45.49, 45.49, 45.01, 45.25, 45.2, 45.2])
    _add_to_raster(counts, CITY, lon, lat)
    assert counts[0, 0] == 2 and counts[7, 7] == 1
    assert counts.sum() == 4  # one lies outside the box, one on its east edge
    # On a Mercator map the middle latitude lies a little south of the middle.
    assert counts[4, 4] == 1
    _add_to_raster(counts, CITY, lon[:1], lat[:1])
    assert counts[0, 0] == 3


def test_what_is_outside_has_no_cell() -> None:
    lon = np.array([10.0, 10.7, 10.3, 10.3, 9.99])
    lat = np.array([45.2, 45.2, 45.5, 45.0, 45.2])
    assert _outside_box(CITY, lon, lat).tolist() == [False, True, False, True, True]


def test_both_ends_of_trips_are_points_and_zones_have_none() -> None:
    column = np.array([1.0])
    trips = Trips(np.array([5]), column, 2 * column, np.array([9]), 3 * column, 4 * column, np.array([0]))
    assert [array.tolist() for array in ends(trips)] == [[5, 9], [1, 3], [2, 4]]
    points = Points(np.array([0], np.int32), np.array([5]), column, 2 * column, np.array([-1], np.int8))
    assert [array.tolist() for array in ends(points)] == [[5], [1], [2]]
    zones = ZoneTrips(np.array([5]), np.array([1]), np.array([9]), np.array([2]), np.array([0]))
    assert [len(array) for array in ends(zones)] == [0, 0, 0]


def test_the_box_is_the_smallest_that_holds_the_share() -> None:
    rng = np.random.default_rng(1)
    lon, lat = rng.uniform(9.101, 9.199, 5000), rng.uniform(45.401, 45.499, 5000)
    assert density_of(lon, lat).smallest_box(share=1.0) == (9.10, 9.20, 45.40, 45.50)
    # What is sparse at the edge is left out: 2 % of all in a strip as wide as the rest.
    more = np.concatenate([lon, rng.uniform(9.201, 9.299, 100)]), np.concatenate([lat, lat[:100]])
    assert density_of(*more).smallest_box(share=0.97) == (9.10, 9.20, 45.40, 45.50)
    assert density_of(*more).smallest_box(share=1.0) == (9.10, 9.30, 45.40, 45.50)


def test_no_smaller_box_of_hundredths_holds_the_share() -> None:
    rng = np.random.default_rng(2)
    lon, lat = -122.4 + 0.03 * rng.standard_normal(3000), 37.7 + 0.02 * rng.standard_t(2, 3000)
    density = density_of(lon, lat)
    west, east, south, north = density.smallest_box()
    assert density.share_in((west, east, south, north)) >= 0.97
    area = (east - west) * (north - south)
    for w in np.arange(-122.50, -122.30, 0.01):
        for s in np.arange(37.50, 37.80, 0.01):
            for width in np.arange(0.02, 0.25, 0.01):
                height = 0.01 * np.floor((area - 1e-6) / width / 0.01)
                assert density.share_in((w, w + width, s, s + height)) < 0.97


@pytest.mark.parametrize("outlier", [(0.001, 0.001), (-179.9, 89.0), (9.18, -45.0), (179.99, 45.47)])
def test_outliers_do_not_move_the_box(outlier: tuple[float, float]) -> None:
    rng = np.random.default_rng(3)
    lon, lat = rng.uniform(9.101, 9.199, 5000), rng.uniform(45.401, 45.499, 5000)
    with_outliers = np.append(lon, [outlier[0]] * 60), np.append(lat, [outlier[1]] * 60)
    before, after = density_of(lon, lat).smallest_box(), density_of(*with_outliers).smallest_box()
    assert np.allclose(before, after, atol=0.0101)


def test_vehicles_that_never_move_get_a_box_of_two_kilometres() -> None:
    west, east, south, north = density_of(np.full(10, 9.1851), np.full(10, 45.4651)).smallest_box()
    assert west < 9.185 < east and south < 45.465 < north
    assert east - west == pytest.approx(0.02) and north - south == pytest.approx(0.02)


@pytest.mark.parametrize("point", [(9.1234, 45.4321), (0.0, 0.0), (180.0, 90.0), (-180.0, -90.0), (179.9999, -45.0)])
def test_all_at_one_point_makes_a_small_box_around_it(point: tuple[float, float]) -> None:
    density = density_of([point[0]] * 50, [point[1]] * 50)
    west, east, south, north = density.smallest_box() or (0.0,) * 4
    assert west <= point[0] <= east and south <= point[1] <= north
    assert 0.009 < east - west < 0.05 and 0.009 < north - south < 0.05
    City(west=west, east=east, south=south, north=north, timezone="UTC")  # is valid


@pytest.mark.slow
@given(
    st.lists(st.tuples(st.floats(-180, 180), st.floats(-90, 90)), min_size=1, max_size=40),
)
@settings(derandomize=True, max_examples=60, deadline=None)
def test_any_points_make_a_valid_box_and_picture(points: list[tuple[float, float]]) -> None:
    density = density_of([p[0] for p in points], [p[1] for p in points])
    box = density.smallest_box()
    assert box is not None
    City(west=box[0], east=box[1], south=box[2], north=box[3], timezone="UTC")
    picture, edges = density.picture((-180.0, 180.0, -90.0, 90.0), 100)
    assert picture.sum() == len(points)
    assert max(picture.shape) <= 103
    assert edges[0] <= -180 and edges[1] >= 180


def test_no_points_make_no_box() -> None:
    assert PointDensity().smallest_box() is None
    assert PointDensity().share_in((0, 1, 0, 1)) == 0


def test_too_many_cells_become_wider_and_no_point_is_lost(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(point_density, "_MOST_CELLS", 200)
    rng = np.random.default_rng(1)
    density = PointDensity()
    for _ in range(10):
        density.add(rng.uniform(9, 10, 500), rng.uniform(45, 46, 500))
    row, _, counts = density.cells()
    assert len(row) <= 200 and counts.sum() == 5000
    assert density.degrees > point_density._CELL_DEGREES
    assert density.share_in((8.5, 10.5, 44.5, 46.5)) == 1
    west, east, south, north = density.smallest_box(share=1.0) or (0.0,) * 4
    # The box holds the cells' centres, so that it is half a cell nearer on each side at most.
    near = density.degrees / 2 + 0.01
    assert np.allclose((west, east, south, north), (9, 10, 45, 46), atol=near) and near < 0.1


def test_a_picture_has_north_up_and_knows_its_edges() -> None:
    picture, (west, east, south, north) = density_of([9.0, 9.5, 9.5], [45.0, 45.3, 45.3]).picture(
        (8.9, 9.6, 44.9, 45.4), 50
    )
    rows, cols = np.nonzero(picture)
    assert picture[rows, cols].tolist() == [2, 1]  # the northern one first
    lon = west + (cols + 0.5) * (east - west) / picture.shape[1]
    lat = north - (rows + 0.5) * (north - south) / picture.shape[0]
    assert np.abs(lon - [9.5, 9.0]).max() < 0.02 and np.abs(lat - [45.3, 45.0]).max() < 0.02


def test_shades_grow_with_the_logarithm_and_none_is_none() -> None:
    levels = shade_levels(np.array([[0, 1, 10], [100, 1000, 1000]]))
    assert levels[0, 0] == 0 and levels[1, 2] == 15
    assert levels[0, 1] > 0
    assert np.ptp(np.diff([levels[0, 2], levels[1, 0], levels[1, 1]]).astype(int)) <= 1
    assert not shade_levels(np.zeros((2, 2), int)).any()


def test_the_picture_is_a_png_within_the_page_clear_where_nobody_reported() -> None:
    levels = np.array([[0, 15], [7, 0]], np.uint8)
    uri = png_uri(levels)
    head, data = uri.split(",")
    assert head == "data:image/png;base64"
    alpha = np.asarray(Image.open(io.BytesIO(base64.b64decode(data))).convert("RGBA"))[:, :, 3]
    assert alpha[0, 0] == alpha[1, 1] == 0
    assert alpha[0, 1] > alpha[1, 0] > 0
