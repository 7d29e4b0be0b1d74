import numpy as np
import pandas as pd
import pytest
import xarray as xr

from dashboard.skill.tables import (
    _ALL_LEADS,
    _at_lead,
    _by_day,
    _by_hour,
    _by_weekday,
    _coverage_table,
    _errors_by,
    _lead_table,
    _pivot_forecasters,
    _published_table,
    _scores_by_lead,
)
from trafficcast.config.city import City
from trafficcast.forecasting.metrics import scores as metrics
from trafficcast.stores.scores import score_dataset

CITY = City(west=10, east=11, south=45, north=46, rows=8, cols=9, timezone="Europe/Rome", name="testville")


def together(parts: list[xr.Dataset]) -> xr.Dataset:
    """Scores of several init times as one dataset; a forecaster or level that one of them lacks is NaN there."""
    return xr.concat(
        parts,
        "init_time",
        data_vars="minimal",
        coords="minimal",
        compat="override",
        join="outer",
        combine_attrs="override",
    ).sortby("init_time")


def scored(init_time: str, unseen: tuple[int, ...] = (), bounded: bool = False, baseline: bool = True) -> xr.Dataset:
    """Scores of a model that is off by 1, 2, 3, 4 at the leads, and a baseline off by 2; `unseen` leads have none."""
    observed = np.full((4, 2, 8, 9), 10.0)
    observed[list(unseen)] = np.nan
    off = np.arange(1.0, 5.0)[:, None, None, None]
    made = {"vmrnn-c-1": np.full(observed.shape, 10.0) + off}
    if baseline:
        made["persistence"] = np.full(observed.shape, 12.0)
    bounds = None
    if bounded:
        reach = np.array([1.5, 3.5])[:, None, None, None, None]
        dimensions = ("level", "lead_time", "flow_kind", "row", "col")
        flow = made["vmrnn-c-1"]
        bounds = xr.Dataset(
            {"lower": (dimensions, flow - reach), "upper": (dimensions, flow + reach)}, {"level": [0.8, 0.95]}
        )
    return score_dataset(CITY, np.datetime64(init_time, "us"), made, observed, bounds)


def test_errors_by_lead_are_those_of_all_slots_together() -> None:
    scores = together([scored("2024-05-06T22:00"), scored("2024-05-06T22:30", unseen=(3,))])
    assert scores is not None

    table = _errors_by(scores, "rmse", _scores_by_lead(scores)).set_index(["forecaster", "group"])

    assert table.loc[("vmrnn-c-1", 90), "error"] == 4 and table.loc[("vmrnn-c-1", 90), "slots"] == 1
    assert table.loc[("persistence", 0), "error"] == 2 and table.loc[("persistence", 0), "slots"] == 2


def test_rmse_of_a_group_is_the_root_of_the_mean_square_and_mae_the_mean() -> None:
    scores = scored("2024-05-06T22:00")
    one = np.zeros((1, 4), int)
    assert _errors_by(scores, "rmse", one)["error"][0] == pytest.approx(np.sqrt((1 + 4 + 9 + 16) / 4))
    assert _errors_by(scores, "mae", one)["error"][0] == pytest.approx(2.5)


def test_a_slot_belongs_to_its_own_local_hour_day_and_weekday() -> None:
    scores = scored("2024-05-05T21:00")  # Sunday 5 May, 23:00 in Rome
    assert _by_hour(CITY, scores).tolist() == [[23, 23, 0, 0]]
    assert _by_day(CITY, scores).astype(str).tolist() == [["2024-05-05", "2024-05-05", "2024-05-06", "2024-05-06"]]
    assert _by_weekday(CITY, scores).tolist() == [[6, 6, 0, 0]]


def test_one_lead_alone() -> None:
    scores = scored("2024-05-06T22:00")
    assert _at_lead(scores, "+60 min")["rmse"].sel(forecaster="vmrnn-c-1").values.tolist() == [[3]]
    assert _at_lead(scores, _ALL_LEADS).sizes["lead_time"] == 4


def test_lead_table_has_the_best_forecaster_first() -> None:
    table = _lead_table(scored("2024-05-06T22:00", unseen=(2, 3)), "rmse")
    assert table["forecaster"].tolist() == ["vmrnn-c-1", "persistence"]
    assert table.columns.tolist() == ["forecaster", _ALL_LEADS, "+0 min", "+30 min", "slots scored"]
    assert table.loc[0, "+30 min"] == 2 and table.loc[0, "slots scored"] == 2


def test_nothing_observed_gives_empty_tables() -> None:
    scores = scored("2024-05-06T22:00", unseen=(0, 1, 2, 3), bounded=True)
    assert _errors_by(scores, "rmse", _scores_by_lead(scores)).empty
    assert _coverage_table(scores).empty
    assert _published_table(scores, 100.0).empty


def test_wide_puts_forecasters_beside_each_other() -> None:
    scores = scored("2024-05-06T22:00")
    table = _pivot_forecasters(_errors_by(scores, "mae", _by_hour(CITY, scores)), "hour")
    assert table.columns.tolist() == ["hour", "vmrnn-c-1", "persistence"]
    assert table["vmrnn-c-1"].tolist() == [1.5, 3.5]


def test_days_join_where_a_forecaster_or_intervals_are_missing_in_one() -> None:
    parts = [scored("2024-05-06T22:00", baseline=False), scored("2024-05-07T22:00", bounded=True)]
    scores = together(parts)
    assert scores is not None
    table = _errors_by(scores, "rmse", _scores_by_lead(scores))
    assert table[table["forecaster"] == "persistence"]["slots"].tolist() == [1, 1, 1, 1]
    assert _coverage_table(scores)["slots"].tolist() == [1] * 8


def test_coverage_counts_known_slots_only() -> None:
    table = _coverage_table(scored("2024-05-06T22:00", unseen=(1,), bounded=True))
    assert table["lead"].tolist() == [0, 60, 90, 0, 60, 90]
    assert table["inside"].tolist() == [1, 0, 0, 1, 1, 0]  # off by 1, 3, 4 with reaches 1.5 and 3.5
    assert table["width"].tolist() == pytest.approx([3, 3, 3, 7, 7, 7])
    assert _coverage_table(scored("2024-05-06T22:00")).empty


def test_published_metrics_are_those_of_the_frames() -> None:
    rng = np.random.default_rng(3)
    truth, prediction = rng.uniform(0, 50, (2, 5, 4, 2, 8, 9))
    parts = [
        score_dataset(CITY, np.datetime64("2024-05-06T22:00", "us") + n * CITY.slot, {"m": prediction[n]}, truth[n])
        for n in range(5)
    ]
    scores = together(parts)
    assert scores is not None
    expected = metrics(prediction, truth, 60.0)

    table = _published_table(scores, 60.0)

    wanted = pd.DataFrame(
        {"forecaster": ["m"], "MSE": expected["mse"], "MAE": expected["mae_sum"], "PSNR, dB": expected["psnr"]}
    )
    pd.testing.assert_frame_equal(table, wanted)
