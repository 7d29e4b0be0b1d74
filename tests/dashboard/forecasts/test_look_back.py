"""The page that looks back, without a browser."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from safetensors.numpy import save_file
from streamlit.testing.v1 import AppTest

from trafficcast.stores.city_stores import CityStores
from trafficcast.stores.scores import score_dataset

HOUR = np.timedelta64(60, "m")


def script(file: str, city: str) -> None:
    """What runs in the browser's place."""
    from pathlib import Path

    from dashboard.forecasts import look_back
    from dashboard.page.address import current_view
    from trafficcast.config.settings import load_config

    config = load_config(Path(file))
    look_back.draw(config, current_view(config, city))


def page(place: Any, city: str = "testville", **address: str) -> AppTest:
    """The page at an address, drawn once."""
    app = AppTest.from_function(script, args=(str(place.file), city), default_timeout=60)
    for name, value in address.items():
        app.query_params[name] = value
    return run(app)


def run(app: AppTest) -> AppTest:
    app.run()
    assert not app.exception and not app.error, (app.exception, app.error)
    return app


def address(app: AppTest) -> dict[str, str]:
    """The parameters of the page's address."""
    return {name: value if isinstance(value, str) else value[0] for name, value in app.query_params.items()}


def titles(app: AppTest) -> list[str]:
    """What stands above the maps."""
    return [text.value for text in app.markdown if "&ensp;" in text.value]


def texts(app: AppTest) -> str:
    return "\n".join(element.value for kind in (app.caption, app.markdown, app.info) for element in kind)


@pytest.fixture
def filled(place: Any) -> Any:
    """Two days of flows, a model, and forecasts of 08:00, which is verified, and 09:00."""
    place.add_flows()
    place.add_model()
    folder = place.config.paths.models / "testville" / "vmrnn-b-1"
    save_file({"table": np.full((2, 48, 2, 5, 7), 2.0, np.float32)}, folder / "climatology.safetensors")
    made = place.add_forecast(place.newest - HOUR)["flow"].values
    place.add_forecast(place.newest)
    return place, made


def test_without_anything_it_says_what_to_do(place: Any) -> None:
    assert "trafficcast ingest" in page(place).info[0].value


def test_flows_alone_can_be_looked_back_at(place: Any) -> None:
    place.add_flows()
    app = page(place)
    assert "city total" in titles(app)[1] and "no forecast of this slot" in titles(app)[0]
    assert "No forecast was made on this day" in texts(app)


def test_it_opens_at_the_newest_slot_observed(filled: Any) -> None:
    app = page(filled[0])
    assert app.date_input(key="time day").value.isoformat() == "2024-05-08"
    assert app.select_slider(key="time slot").value == filled[0].newest
    assert "times are Europe/Rome" in texts(app).replace("\\", "")


def test_the_address_says_the_moment_and_a_wrong_one_counts_as_not_given(filled: Any) -> None:
    place, _ = filled
    assert page(place, time="2024-05-07T10:30").select_slider(key="time slot").value == np.datetime64(
        "2024-05-07T08:30"
    )
    for wrong in ("1990-01-01", "2100-01-01", "yesterday"):
        assert page(place, time=wrong, other=wrong).select_slider(key="time slot").value == place.newest


def test_what_was_forecast_so_long_before_is_beside_what_came(filled: Any) -> None:
    place, made = filled
    app = page(place, time="2024-05-08T09:00")
    assert f"city total {made[0, 0].sum():,.0f}" in titles(app)[0]
    app.segmented_control(key="lead").set_value(60)
    run(app)
    assert f"city total {made[2, 0].sum():,.0f}" in titles(app)[0]
    assert "Forecast 60 min ahead, from 08:00 CEST" in texts(app).replace("\\", "")
    app.segmented_control(key="lead").set_value(30)
    assert "no forecast of this slot" in titles(run(app))[0]


def test_a_days_neighbours_are_a_button_away_at_the_same_time_of_day(filled: Any) -> None:
    app = page(filled[0], time="2024-05-08T09:00", cell="2,3", kind="outflow")
    assert app.button(key="time day after").disabled
    app.button(key="time day before").click()
    run(app)
    assert address(app) == {
        "city": "testville", "time": "2024-05-07T09:00:00+02:00", "cell": "2,3", "kind": "outflow",
    }  # fmt: skip
    assert app.button(key="time day before").disabled and not app.button(key="time day after").disabled


def test_another_slot_and_day_go_into_the_address(filled: Any) -> None:
    app = page(filled[0])
    app.select_slider(key="time slot").set_value(filled[0].newest - HOUR)
    assert address(run(app))["time"] == "2024-05-08T08:00:00+02:00"
    app.date_input(key="time day").set_value(np.datetime64("2024-05-07").item())
    assert address(run(app))["time"] == "2024-05-07T08:00:00+02:00"


def test_two_moments_stand_side_by_side(filled: Any) -> None:
    place, _ = filled
    app = page(place, time="2024-05-08T09:00")
    app.segmented_control(key="two").set_value("two moments")
    run(app)
    assert address(app)["other"] == "2024-05-07T09:00:00+02:00"  # the day before: there is none a week before
    assert "Wed 8 May" in titles(app)[0] and "Tue 7 May" in titles(app)[1] and "First less second" in titles(app)[2]
    app.select_slider(key="other slot").set_value(place.start)
    run(app)
    assert address(app)["other"] == "2024-05-07T00:00:00+02:00" and "city total +630" in titles(app)[2]  # 18 a cell
    app.segmented_control(key="choice of").set_value("predicted")
    assert "not predicted" in titles(run(app))[1]
    app.segmented_control(key="two").set_value("forecast and observed")
    assert "other" not in address(run(app))


def test_the_days_forecasts_are_told_with_their_errors(filled: Any) -> None:
    place, made = filled
    truth = made + 1
    scores = score_dataset(place.city, place.newest - HOUR, {"vmrnn-b-1": made}, truth)
    CityStores.of(place.config, place.city).scores("vmrnn-b-1").write(scores)
    table = page(place).dataframe[-1].value
    assert table["start"].tolist() == ["08:00 CEST", "09:00 CEST"]
    assert table["RMSE +90 min"].iloc[0] == pytest.approx(1, rel=1e-5) and np.isnan(table["RMSE +0 min"].iloc[1])


def test_a_chosen_cell_has_its_day_and_without_one_the_city(filled: Any) -> None:
    assert "City total, inflow" in texts(page(filled[0]))
    app = page(filled[0], cell="2,3", time="2024-05-08T09:00")
    assert "Cell: row 2, column 3, inflow" in texts(app)
    day = next(table.value for table in app.dataframe if "slot" in table.value.columns).set_index("slot")
    assert (day.loc["09:00 CEST", "observed"], day.loc["09:00 CEST", "0 min ahead"]) == (35, 17.5)


def test_a_slot_that_was_lost_says_so(filled: Any) -> None:
    app = page(filled[0], time=str(filled[0].down) + "Z")
    assert "the feed was down" in titles(app)[1]


def test_a_day_between_others_without_anything_says_so(filled: Any) -> None:
    place, _ = filled
    place.add_forecast(place.newest + 48 * HOUR)
    app = page(place, time="2024-05-09T18:00")
    assert "choose another day" in texts(app)
