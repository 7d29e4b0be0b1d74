"""What is downloaded reads back as what was shown."""

from __future__ import annotations

import base64
import io
import json
from typing import Any

import numpy as np
import pandas as pd
import pytest
import xarray as xr
from PIL import Image

from dashboard.forecasts.download_row import _slot_heading
from dashboard.forecasts.downloads import _as_csv, _as_geojson, _as_netcdf, _file_name, _forecast_grid, _moments_grid
from dashboard.forecasts.timeline import _ForecastSlot
from dashboard.maps.layers import forecast_layers
from dashboard.maps.maps import Layer
from dashboard.maps.png import as_png
from trafficcast.config.city import City

BOUNDS = ["lower_80", "upper_80", "lower_95", "upper_95"]


@pytest.fixture
def shown(place: Any) -> _ForecastSlot:
    """The forecast of 09:00 with intervals, at the slot 30 minutes ahead."""
    return _ForecastSlot("vmrnn-b-1", place.bounded(place.add_forecast(place.newest)), 1)


@pytest.fixture
def observed(place: Any) -> np.ndarray:
    """Another value for each cell."""
    return np.arange(35.0).reshape(5, 7) ** 2


@pytest.fixture
def grid(place: Any, shown: _ForecastSlot, observed: np.ndarray) -> xr.Dataset:
    """Outflow of the slot 09:30."""
    return _forecast_grid(place.city, "outflow", place.newest + place.city.slot, shown, observed)


def test_the_grid_holds_what_was_predicted_what_came_and_the_bounds(
    grid: xr.Dataset, shown: _ForecastSlot, observed: np.ndarray
) -> None:
    assert list(grid.data_vars) == ["predicted", "observed", "difference", *BOUNDS]
    np.testing.assert_array_equal(grid["predicted"], shown.flow("outflow"))
    np.testing.assert_array_equal(grid["difference"], shown.flow("outflow") - observed)
    np.testing.assert_allclose(grid["upper_95"] - grid["lower_80"], np.full((5, 7), 5), rtol=1e-6)
    attributes = {"slot_start": "2024-05-08T09:30:00+02:00", "slot_end": "2024-05-08T10:00:00+02:00"}
    attributes |= {"init_time": "2024-05-08T09:00:00+02:00", "lead_minutes": 30, "model_version": "vmrnn-b-1"}
    attributes |= {"flow_kind": "outflow", "city": "testville", "timezone": "Europe/Rome", "state": "complete"}
    assert attributes.items() <= grid.attrs.items()


def test_netcdf_reads_back_with_units_and_attributes(grid: xr.Dataset) -> None:
    with xr.open_dataset(io.BytesIO(_as_netcdf(grid)), engine="h5netcdf") as back:
        xr.testing.assert_identical(back.load(), grid)
    assert back["lat"].attrs["units"] == "degrees_north" and "vehicles per slot" in back["predicted"].attrs["long_name"]


def test_csv_reads_back_a_row_a_cell(place: Any, grid: xr.Dataset) -> None:
    table = pd.read_csv(io.BytesIO(_as_csv(grid)))
    assert len(table) == 35
    assert table[["row", "col"]].to_numpy().tolist() == [[i // 7, i % 7] for i in range(35)]
    for name in grid.data_vars:
        np.testing.assert_allclose(table[name].to_numpy().reshape(5, 7), grid[name], atol=5e-4)
    np.testing.assert_allclose(table["lat"].to_numpy()[::7], place.city.lat)
    np.testing.assert_allclose(table["lon"].to_numpy()[:7], place.city.lon)
    assert set(table["slot_start"]) == {"2024-05-08T09:30:00+02:00"} and set(table["flow_kind"]) == {"outflow"}


def test_geojson_reads_back_a_polygon_a_cell(place: Any, grid: xr.Dataset) -> None:
    whole = json.loads(_as_geojson(place.city, grid))
    assert whole["type"] == "FeatureCollection" and whole["units"] == "vehicles per slot"
    assert whole["slot_start"] == grid.attrs["slot_start"] and whole["city"] == "testville"
    assert [feature["id"] for feature in whole["features"]] == list(range(35))
    for feature in whole["features"]:
        properties = feature["properties"]
        row, col = properties["row"], properties["col"]
        for name in grid.data_vars:
            assert properties[name] == pytest.approx(float(grid[name][row, col]), abs=5e-4)
        west_north, south = feature["geometry"]["coordinates"][0][0], feature["geometry"]["coordinates"][0][1][1]
        assert west_north[0] < place.city.lon[col] and south < place.city.lat[row] < west_north[1]


def test_what_is_not_there_stays_empty(place: Any, shown: _ForecastSlot) -> None:
    usual = _forecast_grid(place.city, "inflow", place.newest, shown, np.ones((5, 7)), "typical")
    assert (usual["typical"] == 1).all() and usual["difference"].attrs["long_name"].startswith("predicted less typical")
    empty = _forecast_grid(place.city, "inflow", place.newest, shown, None)
    assert json.loads(_as_geojson(place.city, empty))["features"][0]["properties"]["difference"] is None
    table = pd.read_csv(io.BytesIO(_as_csv(empty)))
    assert table["observed"].isna().all() and table["predicted"].notna().all()
    nothing = _forecast_grid(place.city, "net", place.newest, None, None)
    assert list(nothing.data_vars) == ["predicted", "observed", "difference"] and "init_time" not in nothing.attrs
    with xr.open_dataset(io.BytesIO(_as_netcdf(nothing)), engine="h5netcdf") as back:
        assert np.isnan(back["predicted"].values).all()


def test_net_and_a_forecast_without_intervals_have_no_bounds(place: Any, shown: _ForecastSlot) -> None:
    plain = _ForecastSlot("vmrnn-b-1", place.add_forecast(place.newest), 1)
    for kind, one in (("net", shown), ("inflow", plain)):
        assert "lower_80" not in _forecast_grid(place.city, kind, place.newest, one, None)


def test_two_moments_are_the_first_the_second_and_their_difference(place: Any, observed: np.ndarray) -> None:
    before = place.newest - np.timedelta64(7, "D")
    two = _moments_grid(place.city, "inflow", "observed", (place.newest, observed), (before, observed[::-1]))
    with xr.open_dataset(io.BytesIO(_as_netcdf(two)), engine="h5netcdf") as back:
        xr.testing.assert_identical(back.load(), two)
    np.testing.assert_array_equal(two["difference"], observed - observed[::-1])
    assert two.attrs["other_start"] == "2024-05-01T09:00:00+02:00" and two.attrs["what"] == "observed"
    table = pd.read_csv(io.BytesIO(_as_csv(two)))
    assert set(table["other_start"]) == {"2024-05-01T09:00:00+02:00"}
    name = _file_name(two, "nc")
    assert name == "testville_2024-05-08T0900+0200_2024-05-01T0900+0200_inflow_observed.nc"


def test_a_file_is_named_by_city_slot_kind_and_lead(grid: xr.Dataset) -> None:
    assert _file_name(grid, "csv") == "testville_2024-05-08T0930+0200_outflow_30-min-ahead.csv"
    unsafe = grid.assign_attrs(city="../a b\\<script>\n")
    assert _file_name(unsafe, "csv").startswith("..-a-b--script--_2024")


def test_a_picture_is_headed_by_city_kind_slot_and_zone(place: Any) -> None:
    heading = _slot_heading(place.city, "inflow", place.newest)
    assert heading == "testville, inflow, Wed 8 May 2024 09:00-09:30 CEST (Europe/Rome)"


@pytest.mark.parametrize("streets", [False, True])
def test_a_picture_shows_every_map(place: Any, shown: _ForecastSlot, observed: np.ndarray, streets: bool) -> None:
    layers = forecast_layers("outflow", 1000, shown.flow("outflow"), observed, "")
    background = None
    if streets:
        file = io.BytesIO()
        Image.new("RGBA", (70, 50), (0, 0, 0, 128)).save(file, "PNG")
        background = "data:image/png;base64," + base64.b64encode(file.getvalue()).decode()
    heading = "$a_{b$ <script> outflow, Wed 8 May 2024 09:30-10:00 CEST"  # no formula of TeX
    picture = Image.open(io.BytesIO(as_png(place.city, heading, layers, background)))
    assert picture.format == "PNG" and picture.width > 1500
    pixels = np.asarray(picture.convert("RGB"), int).reshape(-1, 3)
    assert len(np.unique(pixels, axis=0)) > 50
    blue, red = pixels[:, 2] - pixels[:, 0], pixels[:, 0] - pixels[:, 2]
    assert (blue > 60).any() and (red > 60).any()


def test_a_picture_of_nothing_is_a_picture(place: Any) -> None:
    layers = [Layer("Predicted inflow", None, 100, note="no forecast of this slot")]
    assert as_png(place.city, "testville", layers).startswith(b"\x89PNG")


def test_a_tall_city_is_drawn_too() -> None:
    city = City(west=10.0, east=10.01, south=-80.0, north=80.0, rows=1, cols=1, timezone="UTC")
    assert as_png(city, "a line", [Layer("x", np.ones((1, 1)), 4, True)]).startswith(b"\x89PNG")
