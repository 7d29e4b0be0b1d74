"""Cycles of the service: what is due, how a forecast comes about, what is published instead, what is verified."""

from __future__ import annotations

import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import xarray as xr

from pipelines.service.cycle import _ATTEMPTS, CityService, _best_baselines, _due, _verify_recent, run_cycle
from pipelines.service.replay import replay
from tests.cities import small_city, stores_in
from trafficcast.config.service import Service
from trafficcast.errors import JobError
from trafficcast.forecasting.baselines import ScaledClimatology
from trafficcast.forecasting.climatology import Climatology
from trafficcast.forecasting.intervals import Intervals
from trafficcast.forecasting.model import Model, build, load_model, publish_model
from trafficcast.stores.city_stores import CityStores
from trafficcast.stores.day_store import DamagedFile
from trafficcast.stores.flows import flows_dataset
from trafficcast.stores.ledger import Ledger
from trafficcast.stores.registry import Registry
from trafficcast.stores.scores import recent_scores, skill

CITY = small_city(rows=8, cols=8, timezone="America/New_York")
SLOT = CITY.slot
INIT = np.datetime64("2024-04-08T14:00", "us")  # a Monday, 10:00 in New York
WAIT = np.timedelta64(10, "m")
# Each forecaster's error on validation: scaled climatology is the best that does not learn.
ERRORS = {"vmrnn-b-1": 1.0, "persistence": 4.0, "climatology": 3.0, "scaled_climatology": 2.0, "last_week": 5.0}
TABLE = np.random.default_rng(1).uniform(1, 5, (2, 48, 2, 8, 8)).astype(np.float32)


class Network:
    """Stands in for a trained network: `answer` is what it says, made of the history, or what it raises."""

    def __init__(self, answer: Any) -> None:
        self.answer, self.histories = answer, list[np.ndarray]()

    def forecast(self, history: np.ndarray, init_times: np.ndarray) -> np.ndarray:
        self.histories.append(history)
        if isinstance(self.answer, Exception):
            raise self.answer
        return np.asarray(self.answer(history[0]), np.float32)[None]


def busier(history: np.ndarray) -> np.ndarray:
    """Each lead more than the one before: no baseline says the same."""
    return history[-1] + np.arange(1, 5, dtype=np.float32)[:, None, None, None]


def model(version: str = "vmrnn-b-1") -> Model:
    torch.manual_seed(0)
    described = {"name": "vmrnn-b", "rows": 8, "cols": 8, "channels": 2, "depth": 1, "embed": 16}
    card: dict[str, Any] = {
        "version": version,
        "city": "small",
        "architecture": described,
        "grid": CITY.grid(),
        "scale": 100.0,
        "metrics": {"validation": {name: {"rmse": error} for name, error in ERRORS.items()}, "test": {}},
    }
    drawn = np.random.default_rng(2).uniform(0, 9, (20, 4, 2, 8, 8)).astype(np.float32)
    intervals = Intervals.fit(drawn, np.random.default_rng(3).poisson(drawn))
    return Model(card, build(described), Climatology(CITY, TABLE), intervals=intervals)


@pytest.fixture
def service(tmp_path: Path) -> CityService:
    """A city with a champion and no data."""
    made = CityService(stores_in(tmp_path / "data", CITY), Service(), torch.device("cpu"))
    publish_model(made.stores.registry, model(), lambda folder: None)
    return made


@pytest.fixture
def network(monkeypatch: pytest.MonkeyPatch) -> Network:
    """What every model's network is from here on."""
    stand_in = Network(busier)
    monkeypatch.setattr(Model, "forecaster", lambda self, device: stand_in)
    return stand_in


def counts(first: np.datetime64, slots: int, seed: int = 0) -> xr.Dataset:
    """Observed flows of so many slots, each the same however many are asked for."""
    time = first + SLOT * np.arange(slots)
    flow = [np.random.default_rng([seed, int(t.astype(np.int64) // 60_000_000)]).poisson(4, (2, 8, 8)) for t in time]
    return flows_dataset(CITY, time, np.array(flow), np.full(slots, 9), np.ones(slots))


def observe(service: CityService, flows: xr.Dataset, missing: tuple[int, ...] = ()) -> xr.Dataset:
    """Put flows into the store, those at positions `missing` as slots that the feed did not cover; it goes on then."""
    flows["observed"][list(missing)] = False
    flows["flow"][list(missing)] = 0
    flows["coverage"][list(missing)] = 0.1
    service.stores.flows.write(flows)
    following = flows["time"].values[-1] + SLOT
    if service.stores.flows.read(following, following + SLOT) is None:
        hear(service, following, 5)
    return flows


def hear(service: CityService, slot: np.datetime64, vehicles: int) -> None:
    """So many vehicles have reported in a slot that is still open."""
    begun = counts(slot, 1)
    begun["vehicles"][:] = vehicles
    begun["observed"][:] = False
    begun["coverage"][:] = 1 / 30
    service.stores.flows.write(begun)


def stored(service: CityService, version: str = "vmrnn-b-1") -> xr.Dataset:
    found = service.stores.forecasts(version).read()
    assert found is not None
    return found


def scored(service: CityService, init_time: np.datetime64 = INIT, version: str = "vmrnn-b-1") -> xr.Dataset:
    found = service.stores.scores(version).read()
    assert found is not None
    return found.sel(init_time=init_time)


def said(forecast: xr.Dataset, name: str) -> Any:
    return forecast[name].values[0].item() if name == "hindcast" else str(forecast[name].values[0])


def one_cycle(service: CityService, now: np.datetime64 = INIT) -> xr.Dataset:
    (made,) = run_cycle(service, now)
    return made


def test_from_four_observed_slots_the_forecast_is_complete_and_the_network_s_own(service: CityService) -> None:
    seen = observe(service, counts(INIT - 6 * SLOT, 6))
    reported: list[xr.Dataset] = []
    (made,) = run_cycle(service, INIT, on_made=reported.append)
    loaded = load_model(service.stores.registry)
    history = seen["flow"].values[None, 2:].astype(np.float32)
    expected = loaded.forecaster(torch.device("cpu")).forecast(history, np.array([INIT]))[0]
    np.testing.assert_array_equal(made["flow"].values[0], expected)
    assert (said(made, "state"), said(made, "forecaster"), said(made, "reason")) == ("complete", "vmrnn-b-1", "")
    assert said(made, "hindcast") is False
    assert made["created"].values[0] == made["data_cut"].values[0] == INIT
    assert np.isfinite(made["lower"].values).all()
    assert reported == [made]
    xr.testing.assert_identical(stored(service), made)
    run = service.stores.ledger.last("forecast", "small")
    assert run is not None
    assert (run.slot, run.model, run.result, run.detail, run.attempts) == (INIT, "vmrnn-b-1", "complete", "", 1)
    assert run_cycle(service, INIT + SLOT - np.timedelta64(1, "s")) == []


@pytest.mark.parametrize("absent", [0, 1, 2, 3])
def test_one_missing_slot_is_filled_from_scaled_climatology(
    service: CityService, network: Network, absent: int
) -> None:
    flows = observe(service, counts(INIT - 4 * SLOT, 4), missing=(absent,))
    made = one_cycle(service, INIT + WAIT)
    # 08:00 to 10:00 in New York on a Monday are slots 16 to 19 of a weekday.
    normal, observed = TABLE[0, 16:20], np.arange(4) != absent
    busy = flows["flow"].values[observed].sum() / normal[observed].sum(dtype=np.float64)
    (history,) = network.histories
    np.testing.assert_array_equal(history[0, observed], flows["flow"].values[observed])
    np.testing.assert_allclose(history[0, absent], normal[absent] * busy, rtol=1e-6)
    np.testing.assert_array_equal(made["flow"].values[0], busier(history[0]))
    assert (said(made, "state"), said(made, "forecaster")) == ("degraded", "vmrnn-b-1")
    local = f"2024-04-08T{8 + absent // 2:02d}:{30 * (absent % 2):02d}:00-04:00"
    assert said(made, "reason") == f"not observed, filled from scaled climatology: {local}"
    assert np.isfinite(made["lower"].values).all()
    run = service.stores.ledger.last("forecast", "small")
    assert run is not None and (run.result, run.detail) == ("degraded", said(made, "reason"))


@pytest.mark.parametrize("missing", [(0, 3), (0, 1, 2), (0, 1, 2, 3)])
def test_with_more_missing_the_best_baseline_is_published(
    service: CityService, network: Network, missing: tuple[int, ...]
) -> None:
    flows = observe(service, counts(INIT - 4 * SLOT, 4), missing)
    made = one_cycle(service, INIT + WAIT)
    assert not network.histories
    assert (said(made, "state"), said(made, "forecaster")) == ("baseline", "scaled_climatology")
    for slot in range(4):
        local = f"2024-04-08T{8 + slot // 2:02d}:{30 * (slot % 2):02d}:00-04:00"
        assert (local in said(made, "reason")) == (slot in missing)
    # Filled slots are as busy as the observed ones, so the ratio is that of these; 1 without any.
    observed = [slot for slot in range(4) if slot not in missing]
    busy = flows["flow"].values[observed].sum() / TABLE[0, 16:20][observed].sum(dtype=np.float64) if observed else 1
    np.testing.assert_allclose(made["flow"].values[0], TABLE[0, 20:24] * busy, rtol=1e-5)
    assert "lower" not in made and made.attrs["model_version"] == "vmrnn-b-1"


def test_the_best_baseline_is_the_card_s(service: CityService) -> None:
    known = model()
    assert _best_baselines(known, None)[0][0] == "scaled_climatology"
    known.card["metrics"]["validation"]["persistence"]["rmse"] = 0.1
    assert _best_baselines(known, None)[0][0] == "persistence"
    known.card["metrics"]["validation"]["last_week"]["rmse"] = 0.01  # which needs flows
    assert _best_baselines(known, None)[0][0] == "persistence"
    assert _best_baselines(known, counts(INIT, 1))[0][0] == "last_week"
    known.card["metrics"]["validation"] = {}  # a model without validation days
    assert _best_baselines(known, None)[0][0] in known.baselines(None)


def test_last_week_as_the_best_baseline_finds_last_week(service: CityService, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(ERRORS, "last_week", 0.5)
    publish_model(service.stores.registry, model("vmrnn-b-2"), lambda folder: None)
    service.stores.registry.promote("vmrnn-b-2")
    week = observe(service, counts(INIT - np.timedelta64(7, "D"), 4))
    observe(service, counts(INIT - SLOT, 1))
    made = one_cycle(service)
    assert said(made, "forecaster") == "last_week"
    np.testing.assert_array_equal(made["flow"].values[0], week["flow"].values)


def test_without_any_flow_what_is_normal_is_forecast(service: CityService, network: Network) -> None:
    made = one_cycle(service, INIT + WAIT)
    assert (said(made, "state"), said(made, "forecaster")) == ("baseline", "scaled_climatology")
    np.testing.assert_array_equal(made["flow"].values[0], TABLE[0, 20:24])
    assert not network.histories


def with_one(value: float) -> Any:
    def answer(history: np.ndarray) -> np.ndarray:
        flow = busier(history)
        flow[2, 1, 3, 4] = value
        return flow

    return answer


@pytest.mark.parametrize(
    ("answer", "why"),
    [
        (with_one(np.nan), "not finite"),
        (with_one(np.inf), "not finite"),
        (with_one(-0.5), "holds -0.5 vehicles"),
        (with_one(300.5), "3 times the training maximum is 300"),
        (RuntimeError("out of memory"), "out of memory"),
        (JobError("the network is no network"), "no network"),
    ],
    ids=["nan", "infinite", "negative", "beyond", "runtime", "job"],
)
def test_a_forecast_that_must_not_be_published_makes_way_for_a_baseline(
    service: CityService, network: Network, answer: Any, why: str, caplog: pytest.LogCaptureFixture
) -> None:
    observe(service, counts(INIT - 4 * SLOT, 4))
    network.answer = answer
    made = one_cycle(service)
    assert (said(made, "state"), said(made, "forecaster")) == ("baseline", "scaled_climatology")
    assert said(made, "reason").startswith("vmrnn-b-1: ") and why in said(made, "reason")
    assert np.isfinite(made["flow"].values).all() and "lower" not in made
    loud = [record for record in caplog.records if record.levelname == "ERROR"]
    assert len(loud) == 1 and "vmrnn-b-1 failed" in loud[0].getMessage() and why in loud[0].getMessage()
    run = service.stores.ledger.last("forecast", "small")
    assert run is not None and (run.result, run.attempts) == ("baseline", 1)


def test_a_fault_on_top_of_a_gap_tells_both(service: CityService, network: Network) -> None:
    observe(service, counts(INIT - 4 * SLOT, 4), missing=(1,))
    network.answer = with_one(np.nan)
    reason = said(one_cycle(service, INIT + WAIT), "reason")
    assert reason.startswith("not observed") and "; vmrnn-b-1: " in reason


def test_a_bug_of_our_own_is_no_forecast_and_no_baseline(service: CityService, network: Network) -> None:
    observe(service, counts(INIT - 4 * SLOT, 4))
    network.answer = lambda history: history[7]
    with pytest.raises(IndexError):
        run_cycle(service, INIT)
    assert service.stores.forecasts("vmrnn-b-1").read() is None
    assert service.stores.ledger.last("forecast", "small") is None


def test_the_forecast_before_again_makes_way_for_a_baseline(
    service: CityService, network: Network, caplog: pytest.LogCaptureFixture
) -> None:
    observe(service, counts(INIT - 4 * SLOT, 8))
    network.answer = lambda history: np.full((4, 2, 8, 8), 7.0)
    states = [said(one_cycle(service, INIT + i * SLOT), "state") for i in range(3)]
    # The third is not a copy of the second, which is a baseline's.
    assert states == ["complete", "baseline", "complete"]
    assert "a copy of the one before" in str(stored(service)["reason"].values[1])
    assert [record.levelname for record in caplog.records].count("ERROR") == 1


def test_where_there_is_no_traffic_at_all_the_forecast_may_repeat(service: CityService, network: Network) -> None:
    silent = counts(INIT - 4 * SLOT, 8)
    silent["flow"][:] = 0
    observe(service, silent)
    network.answer = lambda history: np.zeros((4, 2, 8, 8))
    assert [said(one_cycle(service, INIT + i * SLOT), "state") for i in range(3)] == ["complete"] * 3


def two_champions(service: CityService) -> CityService:
    publish_model(service.stores.registry, model("vmrnn-b-2"), lambda folder: None)
    service.stores.registry.promote("vmrnn-b-2")
    return CityService(service.stores, service.settings, service.device)


def damage(service: CityService, version: str) -> Path:
    file = service.stores.registry.root / version / "model.safetensors"
    file.write_bytes(file.read_bytes()[:200])
    return file


def test_a_damaged_champion_makes_way_for_the_one_before(
    service: CityService, network: Network, caplog: pytest.LogCaptureFixture
) -> None:
    service = two_champions(service)
    damage(service, "vmrnn-b-2")
    observe(service, counts(INIT - 4 * SLOT, 4))
    made = one_cycle(service)
    assert (said(made, "state"), said(made, "forecaster")) == ("degraded", "vmrnn-b-1")
    assert "vmrnn-b-2 is damaged" in said(made, "reason")
    assert any(record.levelname == "ERROR" and "damaged" in record.getMessage() for record in caplog.records)
    np.testing.assert_array_equal(made["flow"].values[0], busier(network.histories[0][0]))
    xr.testing.assert_identical(stored(service, "vmrnn-b-1"), made)
    assert run_cycle(service, INIT) == []


def test_a_champion_in_memory_outlives_its_files(service: CityService, network: Network) -> None:
    observe(service, counts(INIT - 4 * SLOT, 8))
    one_cycle(service)
    damage(service, "vmrnn-b-1")
    assert said(one_cycle(service, INIT + SLOT), "state") == "complete"


def test_without_any_readable_model_a_baseline_forecasts_from_the_flows_and_says_why(
    service: CityService, caplog: pytest.LogCaptureFixture
) -> None:
    damage(service, "vmrnn-b-1")
    assert run_cycle(service, INIT + WAIT) == []
    run = service.stores.ledger.last("forecast", "small")
    assert run is not None and (run.model, run.result) == ("vmrnn-b-1", "failed")
    assert "no slot of the last four weeks was observed" in run.detail
    observe(service, counts(INIT - 4 * SLOT, 4))
    (made,) = run_cycle(service, INIT + WAIT)
    assert (said(made, "state"), said(made, "forecaster")) == ("baseline", "scaled_climatology")
    assert said(made, "reason").startswith("no model can be read: ") and "vmrnn-b-1 is damaged" in said(made, "reason")
    assert np.isfinite(made["flow"].values).all() and made["flow"].values.any()
    run = service.stores.ledger.last("forecast", "small")
    assert run is not None and (run.model, run.result) == ("vmrnn-b-1", "baseline")
    assert "no model can be read, and a baseline forecasts" in caplog.text
    publish_model(service.stores.registry, model("vmrnn-b-2"), lambda folder: None)
    service.stores.registry.promote("vmrnn-b-2")
    observe(service, counts(INIT - 4 * SLOT, 5))
    assert said(run_cycle(service, INIT + SLOT + WAIT)[0], "forecaster") == "vmrnn-b-2"


def test_a_damaged_flow_file_is_no_gap_but_to_be_repaired(service: CityService) -> None:
    observe(service, counts(INIT - 4 * SLOT, 4))
    (file,) = service.stores.flows.root.glob("*.nc")
    file.write_bytes(b"no grid")
    with pytest.raises(DamagedFile) as raised:
        run_cycle(service, INIT)
    assert raised.value.file == file
    assert service.stores.ledger.last("forecast", "small") is None


def test_a_city_without_model_has_nothing_due(service: CityService, tmp_path: Path) -> None:
    bare = CityService(replace(service.stores, models=tmp_path / "none"), service.settings, service.device)
    observe(service, counts(INIT - 4 * SLOT, 4))
    assert _due(bare, INIT) == run_cycle(bare, INIT) == []


@pytest.mark.parametrize("missing", [(), (3,)])
def test_a_forecast_waits_for_its_data_as_long_as_the_configuration_says(
    service: CityService, missing: tuple[int, ...]
) -> None:
    observe(service, counts(INIT - 4 * SLOT, 4), missing)
    hear(service, INIT, 5)
    assert INIT not in _due(service, INIT - np.timedelta64(1, "us"))  # the slot before is still open
    if missing:
        assert _due(service, INIT) == _due(service, INIT + WAIT - np.timedelta64(1, "us")) == []
    else:
        assert _due(service, INIT) == [INIT]
    assert _due(service, INIT + WAIT) == [INIT]
    patient = CityService(service.stores, Service(wait_minutes=20), service.device)
    assert _due(patient, INIT + WAIT) == ([] if missing else [INIT])
    assert _due(patient, INIT + 2 * WAIT) == [INIT]


@pytest.mark.parametrize(("vehicles", "come"), [(0, False), (1, False), (4, False), (5, True)])
def test_data_have_come_when_half_of_the_fleet_was_heard_after_the_slot(
    service: CityService, vehicles: int, come: bool
) -> None:
    observe(service, counts(INIT - 4 * SLOT, 4))  # of nine vehicles, in each minute
    hear(service, INIT, vehicles)  # one may be a clock that is fast
    now = INIT + np.timedelta64(2, "m")
    assert _due(service, now) == ([INIT] if come else [])
    made = one_cycle(service, now if come else INIT + WAIT)
    if come:
        assert (said(made, "state"), said(made, "reason")) == ("complete", "")
    else:
        assert said(made, "state") == "degraded"
        assert said(made, "reason") == (
            f"the last slot may not be whole: {vehicles} vehicles were heard after its end, 5 would show that it is"
        )


def test_a_forecast_from_a_slot_in_which_few_of_the_usual_vehicles_reported_is_degraded(service: CityService) -> None:
    for days in (1, 3, 4):  # 8 April is a Monday; of the days before two are working days
        observe(service, counts(INIT - np.timedelta64(days, "D") - SLOT, 1).assign(vehicles=("time", [40])))
    observe(service, counts(INIT - 4 * SLOT, 4))
    made = one_cycle(service)
    assert (said(made, "state"), said(made, "forecaster")) == ("degraded", "vmrnn-b-1")
    assert said(made, "reason") == "9 vehicles reported in the last slot, where 40 are usual"


@pytest.mark.parametrize(("ends", "come"), [(0, False), (16, False), (17, True)])
def test_data_of_trips_have_come_when_a_usual_minute_s_ends_have(service: CityService, ends: int, come: bool) -> None:
    flows = counts(INIT - 4 * SLOT, 5)
    flows["vehicles"][:] = -1
    flows["flow"][3:] = 0
    flows["flow"][3, 0, 0, 0] = 30 * 17
    flows["flow"][4, 1, 2, 2] = ends
    observe(service, flows)
    assert _due(service, INIT + np.timedelta64(2, "m")) == ([INIT] if come else [])


def test_history_holds_nothing_of_the_open_slot(service: CityService, network: Network) -> None:
    observe(service, counts(INIT - 4 * SLOT, 6))
    one_cycle(service)
    np.testing.assert_array_equal(network.histories[0][0], counts(INIT - 4 * SLOT, 4)["flow"].values)


def test_what_was_missed_is_made_afterwards_as_it_would_have_been(
    service: CityService, network: Network, tmp_path: Path
) -> None:
    observe(service, counts(INIT - 4 * SLOT, 8))
    one_cycle(service)
    back = INIT + 3 * SLOT
    assert _due(service, back) == [back, INIT + SLOT, INIT + 2 * SLOT]
    assert _due(service, back, catch_up=False) == [back]
    made = run_cycle(service, back)
    assert [said(forecast, "hindcast") for forecast in made] == [False, True, True]
    assert {said(forecast, "state") for forecast in made} == {"complete"}
    assert {str(forecast["created"].values[0])[:19] for forecast in made} == {"2024-04-08T15:30:00"}
    assert _due(service, back) == []

    undisturbed = CityService(
        CityStores(CITY, tmp_path / "undisturbed", service.stores.models), service.settings, service.device
    )
    flows = counts(INIT - 4 * SLOT, 8)
    for i in range(4):
        observe(undisturbed, flows.isel(time=slice(0, 4 + i)))
        one_cycle(undisturbed, INIT + i * SLOT)
    assert not stored(undisturbed)["hindcast"].any()
    np.testing.assert_array_equal(stored(service)["flow"], stored(undisturbed)["flow"])


def test_a_hindcast_of_a_gap_fills_it_though_the_slots_after_it_are_known(
    service: CityService, network: Network
) -> None:
    observe(service, counts(INIT - 4 * SLOT, 4))
    one_cycle(service)
    observe(service, counts(INIT, 4), missing=(0,))
    made = run_cycle(service, INIT + 4 * SLOT)[1]
    assert made["init_time"].values[0] == INIT + SLOT
    assert (said(made, "state"), said(made, "hindcast")) == ("degraded", True)
    assert "10:00:00-04:00" in said(made, "reason")


def test_what_lies_further_back_than_the_configuration_says_is_left(service: CityService) -> None:
    brief = CityService(service.stores, Service(catch_up_hours=2), service.device)
    service.stores.ledger.record("forecast", "small", "vmrnn-b-1", INIT, "complete")
    service.stores.ledger.record("forecast", "small", "vmrnn-b-1", INIT + 6 * SLOT, "complete")
    now = INIT + 8 * SLOT + WAIT
    assert _due(service, now) == [INIT + i * SLOT for i in (8, 1, 2, 3, 4, 5, 7)]
    assert _due(brief, now) == [INIT + i * SLOT for i in (8, 4, 5, 7)]


def test_after_a_stop_longer_than_that_the_last_hours_are_made(service: CityService) -> None:
    brief = CityService(service.stores, Service(catch_up_hours=2), service.device)
    service.stores.ledger.record("forecast", "small", "vmrnn-b-1", INIT, "complete")
    assert _due(brief, INIT + 8 * SLOT + WAIT) == [INIT + i * SLOT for i in (8, 4, 5, 6, 7)]


def test_a_service_that_never_ran_has_missed_nothing(service: CityService) -> None:
    observe(service, counts(INIT - 40 * SLOT, 40))
    assert _due(service, INIT) == [INIT]


def test_failed_forecasts_are_tried_again_missed_ones_three_times(service: CityService) -> None:
    def failed(init_time: np.datetime64) -> None:
        service.stores.ledger.record("forecast", "small", "vmrnn-b-1", init_time, "failed", "why")

    newest = INIT + 2 * SLOT
    service.stores.ledger.record("forecast", "small", "vmrnn-b-1", INIT, "complete")
    for attempt in range(_ATTEMPTS):
        assert _due(service, newest + WAIT) == [newest, INIT + SLOT], attempt
        failed(INIT + SLOT)
    for _ in range(_ATTEMPTS + 2):
        assert _due(service, newest + WAIT) == [newest]
        failed(newest)
    service.stores.ledger.lose("forecast", "small", "vmrnn-b-1", INIT, INIT + SLOT)  # its file was damaged
    assert _due(service, newest + WAIT) == [newest, INIT]


def test_a_failure_ends_the_cycle_and_the_next_one_goes_on(
    service: CityService, network: Network, monkeypatch: pytest.MonkeyPatch
) -> None:
    observe(service, counts(INIT - 4 * SLOT, 8))
    one_cycle(service)
    good = damage(service, "vmrnn-b-1").parent
    fresh = CityService(service.stores, service.settings, service.device)
    now = INIT + 3 * SLOT

    def fail(*_: object) -> None:
        raise JobError("no baseline either")

    monkeypatch.setattr("pipelines.service.cycle._flow_without_model", fail)
    assert run_cycle(fresh, now) == []
    runs = {run.slot: (run.result, run.attempts) for run in service.stores.ledger.runs("forecast", "small", INIT)}
    assert runs == {INIT: ("complete", 1), now: ("failed", 1)}
    for file in good.iterdir():
        file.unlink()
    good.rmdir()
    publish_model(service.stores.registry, model(), lambda folder: None)
    assert [forecast["init_time"].values[0] for forecast in run_cycle(fresh, now)] == [
        now,
        INIT + SLOT,
        INIT + 2 * SLOT,
    ]


def test_a_new_champion_between_two_forecasts_does_not_make_past_slots_again(
    service: CityService, network: Network
) -> None:
    observe(service, counts(INIT - 4 * SLOT, 8))
    for i in range(3):
        one_cycle(service, INIT + i * SLOT)
    publish_model(service.stores.registry, model("vmrnn-b-2"), lambda folder: None)
    service.stores.registry.promote("vmrnn-b-2")
    assert _due(service, INIT + 2 * SLOT + WAIT) == []
    made = one_cycle(service, INIT + 3 * SLOT)  # the same service: the champion in memory is exchanged
    assert said(made, "forecaster") == "vmrnn-b-2"
    assert stored(service, "vmrnn-b-2")["init_time"].values.tolist() == made["init_time"].values.tolist()
    assert stored(service).sizes["init_time"] == 3


def test_a_forecast_is_scored_by_lead_when_its_slots_have_come(service: CityService, network: Network) -> None:
    observe(service, counts(INIT - 4 * SLOT, 4))
    made = one_cycle(service)
    truth = observe(service, counts(INIT, 4))["flow"].values.astype(np.float64)
    assert _verify_recent(service, INIT + 3 * SLOT) == 0  # the last slot is in the store, and still open
    assert _verify_recent(service, INIT + 4 * SLOT) == 1
    assert _verify_recent(service, INIT + 4 * SLOT) == 0
    found = scored(service)
    assert set(found["forecaster"].values) >= {"vmrnn-b-1", "persistence", "climatology", "scaled_climatology"}
    error = made["flow"].values[0] - truth
    np.testing.assert_allclose(found["rmse"].sel(forecaster="vmrnn-b-1"), np.sqrt((error**2).mean((1, 2, 3))))
    np.testing.assert_allclose(found["mae"].sel(forecaster="vmrnn-b-1"), np.abs(error).mean((1, 2, 3)))
    last = counts(INIT - SLOT, 1)["flow"].values
    np.testing.assert_allclose(
        found["rmse"].sel(forecaster="persistence"), np.sqrt(((last - truth) ** 2).mean((1, 2, 3)))
    )
    inside = (made["lower"].values[0] <= truth) & (truth <= made["upper"].values[0])
    np.testing.assert_allclose(found["inside"].transpose("level", "lead_time"), inside.mean((2, 3, 4)))
    run = service.stores.ledger.last("verify", "small")
    assert run is not None and (run.slot, run.result) == (INIT, "4 of 4 leads")


def test_the_baselines_of_a_degraded_forecast_know_no_more_than_it_did(service: CityService, network: Network) -> None:
    flows = observe(service, counts(INIT - 4 * SLOT, 8), missing=(3,))
    one_cycle(service, INIT + WAIT)
    _verify_recent(service, INIT + 4 * SLOT)
    history, truth = network.histories[0], flows["flow"].values[4:]
    for name, flow in (
        ("persistence", history[0, 3]),
        ("scaled_climatology", ScaledClimatology(model().climatology).forecast(history, np.array([INIT]))[0]),
    ):
        rmse = np.sqrt(((flow - truth.astype(np.float64)) ** 2).mean((1, 2, 3)))
        np.testing.assert_allclose(scored(service)["rmse"].sel(forecaster=name), rmse, rtol=1e-6)


def test_a_slot_that_is_never_observed_is_no_number_once_patience_is_over(
    service: CityService, network: Network
) -> None:
    observe(service, counts(INIT - 4 * SLOT, 4))
    one_cycle(service)
    whole = counts(INIT, 12)
    for slots in (3, 7):
        observe(service, counts(INIT, slots), missing=(2,) if slots > 2 else ())
        assert _verify_recent(service, INIT + slots * SLOT) == 0, slots
    observe(service, counts(INIT, 8), missing=(2,))
    assert _verify_recent(service, INIT + 8 * SLOT) == 1
    found = scored(service)
    assert np.isnan(found["rmse"].values).any(axis=0).tolist() == [False, False, True, False]
    assert np.isnan(found["inside"].transpose("level", "lead_time").values).all(axis=0).tolist() == [
        False, False, True, False,
    ]  # fmt: skip
    assert _verify_recent(service, INIT + 9 * SLOT) == 0
    found = recent_scores(service.stores, INIT, INIT + SLOT)
    assert found is not None
    recent = skill(*found)
    assert np.isfinite([*recent.rmse.values(), *recent.inside.values()]).all()
    assert np.isnan(recent.by_lead).tolist() == [False, False, True, False]

    observe(service, whole.isel(time=[2]))  # it arrives late after all
    assert _verify_recent(service, INIT + 12 * SLOT) == 1
    assert np.isfinite(scored(service)["rmse"].values).all()
    run = service.stores.ledger.last("verify", "small")
    assert run is not None and (run.result, run.attempts) == ("4 of 4 leads", 2)


def test_a_forecast_of_which_no_slot_was_observed_waits(service: CityService, network: Network) -> None:
    observe(service, counts(INIT - 4 * SLOT, 4))
    one_cycle(service)
    observe(service, counts(INIT, 20), missing=(0, 1, 2, 3))
    assert _verify_recent(service, INIT + 20 * SLOT) == 0
    assert service.stores.scores("vmrnn-b-1").read() is None


def test_what_comes_after_two_days_is_left_for_the_command(service: CityService, network: Network) -> None:
    observe(service, counts(INIT - 4 * SLOT, 4))
    one_cycle(service)
    observe(service, counts(INIT, 4))
    assert _verify_recent(service, INIT + np.timedelta64(49, "h")) == 0
    assert _verify_recent(service, INIT + np.timedelta64(48, "h")) == 1


def test_each_champion_s_forecasts_are_verified_beside_its_own_baselines(
    service: CityService, network: Network
) -> None:
    observe(service, counts(INIT - 4 * SLOT, 8))
    one_cycle(service)
    publish_model(service.stores.registry, model("vmrnn-b-2"), lambda folder: None)
    service.stores.registry.promote("vmrnn-b-2")
    one_cycle(service, INIT + SLOT)
    observe(service, counts(INIT + 4 * SLOT, 1))
    assert _verify_recent(service, INIT + 5 * SLOT) == 2
    assert "vmrnn-b-1" in scored(service)["forecaster"].values
    assert "vmrnn-b-2" in scored(service, INIT + SLOT, "vmrnn-b-2")["forecaster"].values


def test_a_damaged_champion_s_old_forecasts_do_not_keep_others_from_being_verified(
    service: CityService, network: Network
) -> None:
    service = two_champions(service)
    observe(service, counts(INIT - 4 * SLOT, 4))
    one_cycle(service)
    damage(service, "vmrnn-b-2")
    fresh = CityService(service.stores, service.settings, service.device)
    for i in range(1, 6):
        observe(service, counts(INIT + (i - 1) * SLOT, 1))
        assert said(one_cycle(fresh, INIT + i * SLOT), "forecaster") == "vmrnn-b-1"
    assert np.isfinite(scored(service, INIT + SLOT)["rmse"].values).all()


def test_where_the_best_baseline_is_beyond_the_bound_another_is_published(
    service: CityService, network: Network
) -> None:
    parade = counts(INIT - 4 * SLOT, 4)
    parade["flow"][2:] += 290  # the only slots observed: scaled climatology takes the whole city to be so busy
    observe(service, parade, missing=(0, 1))
    made = one_cycle(service)
    assert said(made, "state") == "baseline" and made["flow"].max() <= 300


def test_a_forecast_published_just_before_a_crash_is_noted_and_not_made_again(
    service: CityService, network: Network, monkeypatch: pytest.MonkeyPatch
) -> None:
    observe(service, counts(INIT - 5 * SLOT, 5))
    one_cycle(service, INIT - SLOT)
    with monkeypatch.context() as patch:
        patch.setattr(Ledger, "record", crash)
        with pytest.raises(KeyboardInterrupt):
            run_cycle(service, INIT)
    published = stored(service)
    observe(service, counts(INIT - SLOT, 2, seed=1))  # late records change what was known
    run_cycle(service, INIT + SLOT)
    xr.testing.assert_identical(stored(service).isel(init_time=[0, 1]), published)
    assert service.stores.ledger.results("forecast", "small", "vmrnn-b-1")[INIT] == "complete"


def crash(*arguments: object) -> None:
    raise KeyboardInterrupt


def test_a_replay_waits_where_data_are_missing_and_sums_up(service: CityService, network: Network) -> None:
    missing = (5, 9, 10)
    observe(service, counts(INIT - 4 * SLOT, 12), missing)
    result = replay(service.stores, INIT, INIT + 8 * SLOT, device="cpu")
    made = stored(service)
    late = (made["created"] - made["init_time"]).values / np.timedelta64(1, "m")
    # Those whose last slot was observed did not wait.
    assert late.tolist() == [10 if slot + 3 in missing else 0 for slot in range(8)]
    assert not made["hindcast"].any()
    assert made["state"].values.tolist() == ["complete"] * 2 + ["degraded"] * 5 + ["baseline"]
    assert [result[state] for state in ("complete", "degraded", "baseline")] == [2, 5, 1]
    assert result["verified"] == 1  # the first: one of its slots is missing, and the four after the last have come


def test_a_second_replay_makes_nothing_again(service: CityService, network: Network) -> None:
    observe(service, counts(INIT - 4 * SLOT, 7))
    first = replay(service.stores, INIT, INIT + 3 * SLOT, device="cpu")
    asked = len(network.histories)
    assert replay(service.stores, INIT, INIT + 3 * SLOT, device="cpu") == first
    assert (first["forecasts"], asked, len(network.histories)) == (3, 3, 3)


def test_registries_are_read_anew_each_cycle(service: CityService, network: Network) -> None:
    observe(service, counts(INIT - 4 * SLOT, 8))
    two_champions(service)
    one_cycle(service)
    assert Registry(service.stores.models / "small", CITY).rollback() == "vmrnn-b-1"
    assert said(one_cycle(service, INIT + SLOT), "forecaster") == "vmrnn-b-1"


class Clock:
    """Stands in for the module `time`: it runs only while somebody sleeps or works."""

    def __init__(self) -> None:
        self.now, self.pauses = 1000.0, list[float]()

    def monotonic(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        self.pauses.append(seconds)
        self.now += seconds


@pytest.mark.parametrize(("speed", "pauses"), [(60, [0, 30, 0, 20]), (None, [])])
def test_a_replay_runs_so_many_times_faster_than_real_time(
    service: CityService, network: Network, monkeypatch: pytest.MonkeyPatch, speed: float | None, pauses: list[float]
) -> None:
    observe(service, counts(INIT - 4 * SLOT, 8))
    clock = Clock()
    monkeypatch.setattr("pipelines.service.replay.time", clock)
    work = iter([0.0, 35.0, 5.0, 0.0])  # seconds; the second slot's work is longer than a slot of half a minute

    def working(history: np.ndarray) -> np.ndarray:
        clock.now += next(work)
        return busier(history)

    network.answer = working
    assert replay(service.stores, INIT, INIT + 4 * SLOT, speed=speed, device="cpu")["forecasts"] == 4
    assert clock.pauses == pauses


def test_a_replay_verifies_forecasts_whose_last_slot_ends_with_the_period(
    service: CityService, network: Network
) -> None:
    observe(service, counts(INIT - 4 * SLOT, 8))
    result = replay(service.stores, INIT, INIT + 4 * SLOT, device="cpu")
    assert (result["forecasts"], result["verified"]) == (4, 1)
    found = scored(service)["rmse"]
    for name, error in result["rmse"].items():
        assert error == pytest.approx(float(np.sqrt((found.sel(forecaster=name) ** 2).mean())))


def test_last_week_is_scored_for_every_forecast_that_waited(service: CityService, network: Network) -> None:
    week = np.timedelta64(7, "D")
    observe(service, counts(INIT - week, 5))
    observe(service, counts(INIT - 4 * SLOT, 4))
    one_cycle(service)
    observe(service, counts(INIT, 1))
    one_cycle(service, INIT + SLOT)
    observe(service, counts(INIT + SLOT, 4))
    assert _verify_recent(service, INIT + 5 * SLOT) == 2
    for init_time in (INIT, INIT + SLOT):
        error = counts(init_time - week, 4)["flow"].values - counts(init_time, 4)["flow"].values.astype(np.float64)
        found = scored(service, init_time)["rmse"].sel(forecaster="last_week")
        np.testing.assert_allclose(found, np.sqrt((error**2).mean((1, 2, 3))))


def test_the_log_says_how_a_forecast_came_about_and_how_many_were_verified(
    service: CityService, network: Network, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO", logger="trafficcast")
    observe(service, counts(INIT - 4 * SLOT, 12), missing=(3,))
    made = one_cycle(service, INIT + WAIT)
    assert _verify_recent(service, INIT + 4 * SLOT) == 1
    assert _verify_recent(service, INIT + 4 * SLOT) == 0
    run_cycle(service, INIT + 8 * SLOT, catch_up=False)
    spoken = [record.getMessage() for record in caplog.records]
    expected = [
        f"forecast for 2024-04-08T10:00:00-04:00, degraded by vmrnn-b-1 ({said(made, 'reason')}), ",
        "1 forecasts of vmrnn-b-1 verified in ",
        "forecast for 2024-04-08T14:00:00-04:00, complete by vmrnn-b-1, ",
    ]
    assert [line.startswith(start) for line, start in zip(spoken, expected, strict=True)] == [True] * 3


def test_the_ledger_holds_how_long_a_forecast_took(service: CityService, network: Network) -> None:
    observe(service, counts(INIT - 4 * SLOT, 4))
    began = time.perf_counter()
    one_cycle(service)
    run = service.stores.ledger.last("forecast", "small")
    assert run is not None and 0 < run.seconds <= time.perf_counter() - began
