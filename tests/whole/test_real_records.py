"""All of the real records: the grid equals an independent count, the baselines an independent score."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.cities import stores_in
from trafficcast.config.settings import load_config
from trafficcast.forecasting.baselines import AnomalyPersistence
from trafficcast.forecasting.climatology import Climatology
from trafficcast.forecasting.evaluation import evaluate
from trafficcast.forecasting.model import Model
from trafficcast.forecasting.windows import window_starts
from trafficcast.nn import vmrnn_b
from trafficcast.stores.flows import read_flows

PROJECT = Path(__file__).parents[2]
SHARED = PROJECT.parent / "shared"
pytestmark = pytest.mark.skipif(
    not (SHARED / "data" / "cabspotting").exists(), reason="the Cabspotting records are not beside the project"
)


@pytest.mark.slow
def test_flows_and_baselines_of_san_francisco(trafficcast: Callable[..., Any], config: Path) -> None:
    config.write_text((PROJECT / "config.toml").read_text())
    ran = trafficcast("ingest", SHARED / "data" / "cabspotting", "--city", "san-francisco", "--json")
    assert ran.code == 0, ran.err
    report = ran.json
    assert report["rows_read"] == report["points_kept"] == 9_982_770
    assert (report["pairs"], report["pairs_beyond_max_gap"]) == (9_982_233, 52_642)
    assert report["transitions_refused"]["speed"] == 65_456
    assert report["slots"] == {"observed": 996, "partial": 3, "missing": 3}

    city = load_config(config).city("san-francisco")
    flows = read_flows(stores_in(config.parent / "data", city))
    expected = np.load(SHARED / "vectors" / "cabspotting_flows.npz", allow_pickle=False)
    np.testing.assert_array_equal(flows["time"].values.astype("datetime64[s]").astype(int), expected["time"])
    for name in ("flow", "vehicles", "coverage"):
        np.testing.assert_array_equal(flows[name].values, expected[name])

    june_2, june_4, june_7 = (city.parse_time(f"2008-06-0{day}") for day in (2, 4, 7))
    training = flows.sel(time=flows["time"].values < june_2)
    starts = window_starts(flows, city, june_4, june_7)
    assert len(window_starts(flows, city, flows["time"].values[0], june_2)) == 735
    assert len(starts) == 141
    learnt = window_starts(flows, city, flows["time"].values[0], june_2)
    anomaly = AnomalyPersistence.fit(city, training, learnt)
    compared = Model({}, vmrnn_b(), Climatology.fit(city, training), anomaly).baselines(flows)
    scores, _ = evaluate(compared, flows, starts, float(training["flow"].max()))
    found = scores.pop("anomaly_persistence")["rmse"]
    rmse = {name: round(values["rmse"], 2) for name, values in scores.items()}
    assert rmse == {"persistence": 4.82, "last_week": 3.71, "climatology": 3.07, "scaled_climatology": 3.01}
    assert found < 2.9
