"""The page Now, run by Streamlit's own test."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from streamlit.testing.v1 import AppTest

from dashboard.forecasts import now
from dashboard.page import clock
from trafficcast.forecasting.climatology import Climatology

SECONDS = 60
SLOT = np.timedelta64(30, "m")


def page(file: str) -> None:
    """A script of the page alone, its view that of the address."""
    from pathlib import Path

    from dashboard.forecasts.now import draw
    from dashboard.page.address import current_view
    from trafficcast.config.settings import load_config

    config = load_config(Path(file))
    draw(config, current_view(config, "testville"))


def run(file: Path, **address: str) -> AppTest:
    """The page at an address."""
    app = AppTest.from_function(page, default_timeout=SECONDS, args=(str(file),))
    for name, value in address.items():
        app.query_params[name] = value
    app.run()
    assert not app.exception
    return app


@pytest.fixture
def forecast(place: Any, monkeypatch: pytest.MonkeyPatch) -> Any:
    """A place with flows and a forecast, where one vehicle in each cell and slot is typical."""
    place.add_flows()
    place.add_model()
    place.add_forecast(place.newest + SLOT)
    typical = Climatology(place.city, np.ones((2, 48, 2, 5, 7), np.float32))
    monkeypatch.setattr(now, "champion_climatology", lambda *_: typical)
    return place


def table_with(app: AppTest, column: str) -> pd.DataFrame:
    return next(table.value for table in app.dataframe if column in table.value.columns)


def words(app: AppTest) -> str:
    kinds = ("caption", "warning", "markdown")
    return "\n".join(str(one.value) for kind in kinds for one in app.get(kind)).replace("\\", "")


def titles(app: AppTest) -> set[str]:
    """The words in bold, the titles of maps among them."""
    return {part for line in words(app).splitlines() for part in line.split("**")}


def test_live_it_opens_at_the_slot_that_runs_beside_the_typical_flows(
    forecast: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(clock, "present", lambda: forecast.newest + SLOT + np.timedelta64(24, "m"))
    app = run(forecast.file)
    assert app.select_slider[0].value == forecast.newest + SLOT
    assert {"Predicted inflow", "Typical inflow", "Predicted less typical"} <= titles(app)
    assert "Wed 8 May 2024 09:30-10:00 CEST still runs: no record yet. The maps compare" in words(app)
    assert "city total 35 " in words(app).replace("\n", " \n")
    app = run(forecast.file, time=f"{forecast.newest + 2 * SLOT}Z")
    assert "Wed 8 May 2024 10:00-10:30 CEST is still to come" in words(app)
    assert "Predicted less typical" in titles(app)


def test_when_all_is_over_it_opens_at_the_newest_slot_observed_and_forecast(forecast: Any) -> None:
    assert run(forecast.file).select_slider[0].value == forecast.newest + SLOT  # none was forecast and observed
    forecast.add_forecast(forecast.newest)
    app = run(forecast.file)
    assert app.select_slider[0].value == forecast.newest
    assert "Wed 8 May 2024 09:00-09:30 CEST is over. The maps compare its forecast with observed flows" in words(app)
    assert {"Predicted inflow", "Observed inflow", "Predicted less observed"} <= titles(app)


def test_without_a_model_the_typical_flows_are_unknown(forecast: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(now, "champion_climatology", lambda *_: None)
    monkeypatch.setattr(clock, "present", lambda: forecast.newest + SLOT)
    forecast.add_forecast(forecast.newest)
    assert run(forecast.file).select_slider[0].value == forecast.newest
    app = run(forecast.file, time=f"{forecast.newest + SLOT}Z")
    assert "typical flows are unknown without a model" in words(app)


def test_a_slot_observed_stands_beside_its_last_forecast(forecast: Any) -> None:
    forecast.add_forecast(forecast.newest)
    app = run(forecast.file, time=f"{forecast.newest}Z", kind="outflow")
    assert {"Predicted outflow", "Observed outflow", "Predicted less observed"} <= titles(app)


def test_the_third_map_may_show_the_intervals(forecast: Any) -> None:
    app = run(forecast.file)
    app.segmented_control(key="choice third").set_value("interval width").run()
    assert "Width of the 80% interval" in words(app) and "forecasts of baselines have no interval" in words(app)
    assert "Width of the 80% interval" in words(run(forecast.file, third="interval-width"))


def test_the_hottest_cells_come_first(forecast: Any) -> None:
    table = table_with(run(forecast.file), "unusual")
    assert table["place"][0] == "row 4, column 6" and table["vehicles"][0] == pytest.approx(30 + 34.5)
    assert table["unusual"].is_monotonic_decreasing
    assert "Choose inflow or outflow" in words(run(forecast.file, kind="net"))


def test_a_cell_of_the_address_is_shown_over_time(forecast: Any) -> None:
    app = run(forecast.file, cell="2,3")
    assert "row 2, column 3" in words(app)
    assert table_with(app, "forecast")["forecast"].dropna().tolist() == [47.5, 37.5, 27.5, 17.5]
    assert "Click a cell" in words(run(forecast.file, cell="5,0"))


def test_named_areas_are_hot_spots_too(forecast: Any) -> None:
    ring = [[10.1, 45.1], [10.3, 45.1], [10.3, 45.3], [10.1, 45.3], [10.1, 45.1]]
    feature = {
        "type": "Feature",
        "properties": {"name": "<b>Harbour</b>"},
        "geometry": {"type": "Polygon", "coordinates": [ring]},
    }
    file = forecast.file.with_name("areas.geojson")
    file.write_text(json.dumps({"type": "FeatureCollection", "features": [feature]}))
    with_areas(forecast.file, file.name)
    assert table_with(run(forecast.file), "unusual")["place"][0] == "<b>Harbour</b>"


def test_areas_that_cannot_be_read_do_not_hide_the_page(forecast: Any) -> None:
    with_areas(forecast.file, "none.json")
    app = run(forecast.file, cell="2,3")
    assert any(r"none\.json of areas" in warning.value for warning in app.warning)
    assert len(table_with(app, "unusual")) > 0 and len(table_with(app, "forecast")) > 0


def with_areas(config: Path, name: str) -> None:
    zone = 'timezone = "Europe/Rome"\n'
    config.write_text(config.read_text().replace(zone, f'{zone}areas = "{name}"\n', 1))
