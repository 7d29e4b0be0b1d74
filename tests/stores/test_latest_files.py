"""The latest forecast for other systems: NetCDF, CSV and GeoJSON that say the same."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import geopandas
import numpy as np
import pandas as pd
import pytest
import xarray as xr

from tests.cities import small_city, stores_in
from trafficcast.forecasting.intervals import Intervals
from trafficcast.stores.forecasts import DEGRADED, Provenance, forecast_dataset
from trafficcast.stores.latest_files import write_latest

CITY = small_city(west=0, east=3, south=10, north=12, rows=2, cols=3, timezone="America/New_York")
INIT = np.datetime64("2024-04-08T14:00", "us")
CREATED = np.datetime64("2024-04-08T14:01:07", "us")
CARD = {"version": "v1", "architecture": {"name": "vmrnn-b"}}
ORIGIN = Provenance("v1", DEGRADED, 'not observed: 09:30, <b>"filled"</b>', hindcast=True)


def forecast(bounded: bool = True) -> xr.Dataset:
    draw = np.random.default_rng(0)
    known = draw.uniform(0, 9, (40, 4, 2, 2, 3)).astype(np.float32)
    intervals = Intervals.fit(known, draw.poisson(known)) if bounded else None
    flow = draw.uniform(0, 20, (4, 2, 2, 3)).astype(np.float32)
    bounds = None if intervals is None else (intervals.levels, *intervals.around(flow))
    return forecast_dataset(CITY, CARD, INIT, flow, CREATED, bounds, ORIGIN)


def collection(data: Path) -> Any:
    return json.loads((data / "small" / "latest.geojson").read_text())


def test_the_netcdf_file_is_the_forecast(tmp_path: Path) -> None:
    made = forecast()
    write_latest(stores_in(tmp_path, CITY), made)
    with xr.open_dataset(tmp_path / "small" / "latest.nc", engine="h5netcdf", decode_timedelta=True) as found:
        xr.testing.assert_equal(found.load(), made)
        assert found.attrs == made.attrs
        assert str(found["reason"].values[0]) == ORIGIN.reason and found["hindcast"].values[0]


def test_the_table_has_a_row_for_each_slot_and_cell(tmp_path: Path) -> None:
    made = forecast()
    write_latest(stores_in(tmp_path, CITY), made)
    table = pd.read_csv(tmp_path / "small" / "latest.csv")
    assert len(table) == 4 * 2 * 3
    bounds = [f"{bound}_{level}" for level in (80, 95) for bound in ("lower", "upper")]
    assert [*table] == [
        "slot_start", "lead_minutes", "row", "col", "lat", "lon",
        "inflow", *(f"inflow_{bound}" for bound in bounds), "outflow", *(f"outflow_{bound}" for bound in bounds),
    ]  # fmt: skip
    indexed = table.set_index(["lead_minutes", "row", "col"])
    row = indexed.loc[(60, 1, 2)]
    assert row["slot_start"] == "2024-04-08T11:00:00-04:00"
    assert (row["lat"], row["lon"]) == (10.5, 2.5)
    one = made.isel(init_time=0, lead_time=2, row=1, col=2)
    for number, kind in enumerate(("inflow", "outflow")):
        assert row[kind] == pytest.approx(one["flow"].values[number], abs=5.1e-4)
        for i, level in enumerate((80, 95)):
            assert row[f"{kind}_lower_{level}"] == pytest.approx(one["lower"].values[i, number], abs=5.1e-4)
            assert row[f"{kind}_upper_{level}"] == pytest.approx(one["upper"].values[i, number], abs=5.1e-4)
    assert indexed.index.is_unique


def test_a_table_without_intervals_has_no_columns_for_them(tmp_path: Path) -> None:
    write_latest(stores_in(tmp_path, CITY), forecast(bounded=False))
    assert [*pd.read_csv(tmp_path / "small" / "latest.csv")][6:] == ["inflow", "outflow"]


def test_the_collection_is_geojson_with_a_cell_s_flows_by_lead(tmp_path: Path) -> None:
    made = forecast()
    write_latest(stores_in(tmp_path, CITY), made)
    found = collection(tmp_path)
    features = found.pop("features")
    assert found == {
        "type": "FeatureCollection",
        "city": "small",
        "model": "v1",
        "forecaster": "v1",
        "state": "degraded",
        "reason": ORIGIN.reason,
        "created": "2024-04-08T10:01:07-04:00",
        "slot_starts": [f"2024-04-08T{time}:00-04:00" for time in ("10:00", "10:30", "11:00", "11:30")],
        "slot_minutes": 30,
        "units": "vehicles per slot",
    }
    assert len(features) == 6
    cell = next(one for one in features if (one["properties"]["row"], one["properties"]["col"]) == (1, 2))
    assert cell["geometry"]["coordinates"] == [[[2, 11], [2, 10], [3, 10], [3, 11], [2, 11]]]
    for number, kind in enumerate(("inflow", "outflow")):
        for lead in range(4):
            flow = made["flow"].values[0, lead, number, 1, 2]
            assert cell["properties"][f"{kind}_{30 * lead}"] == pytest.approx(flow, abs=5.1e-4)


def test_geopandas_reads_it(tmp_path: Path) -> None:
    write_latest(stores_in(tmp_path, CITY), forecast())
    cells = geopandas.read_file(tmp_path / "small" / "latest.geojson")
    assert cells.total_bounds.tolist() == [0, 10, 3, 12]
    assert cells.geometry.is_valid.all() and len(cells) == 6


def test_what_the_store_gives_back_is_written_as_well(tmp_path: Path) -> None:
    """A baseline's forecast in a file beside one with intervals."""
    stores = stores_in(tmp_path, CITY)
    store = stores.forecasts("v1")
    store.write(forecast())
    store.write(forecast(bounded=False).assign_coords(init_time=[INIT + CITY.slot]))
    found = store.read(INIT + CITY.slot)
    assert found is not None
    write_latest(stores, found)
    assert [*pd.read_csv(tmp_path / "small" / "latest.csv")][6:] == ["inflow", "outflow"]
    assert len(collection(tmp_path)["features"]) == 6


def test_a_new_forecast_takes_the_place_of_the_old_and_leaves_nothing_else(tmp_path: Path) -> None:
    stores = stores_in(tmp_path, CITY)
    write_latest(stores, forecast())
    later = forecast(bounded=False)
    later["flow"][:] = 1.25
    write_latest(stores, later)
    assert {file.name for file in (tmp_path / "small").iterdir()} == {"latest.nc", "latest.csv", "latest.geojson"}
    assert set(pd.read_csv(tmp_path / "small" / "latest.csv")["inflow"]) == {1.25}
    assert {one["properties"]["outflow_90"] for one in collection(tmp_path)["features"]} == {1.25}


def test_a_write_that_fails_leaves_the_old_files_whole(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, snapshot: Callable[[Path], dict[str, bytes]]
) -> None:
    stores = stores_in(tmp_path, CITY)
    write_latest(stores, forecast())
    before = snapshot(tmp_path)

    def full(path: Path, *content: Any, **options: Any) -> None:
        path.write_bytes(b"slot_start,lead")
        raise OSError("no space left")

    with monkeypatch.context() as patch:
        patch.setattr(Path, "write_text", full)
        with pytest.raises(OSError, match="no space left"):
            write_latest(stores, forecast(bounded=False))
    assert snapshot(tmp_path) == before
