"""What the rules find in a state: each at its limit, where it lies, and nothing of what is not known."""

from __future__ import annotations

import numpy as np
import pytest
import xarray as xr

from trafficcast.alerts.findings import CityState, Finding, _findings, check_areas, scores_from
from trafficcast.config.alert_rules import (
    _DEFAULTS,
    CoverageRule,
    FeedSilentRule,
    FleetRule,
    FlowRule,
    ForecastOverdueRule,
    ModelDamagedRule,
    Rule,
    SkillRule,
)
from trafficcast.config.city import City
from trafficcast.errors import InputError
from trafficcast.geography.areas import Area
from trafficcast.stores.forecasts import forecast_dataset

# Three rows and two columns of one tenth of a degree, slots of half an hour, seven hours behind UTC in June.
HERE = City(
    west=-122.5, east=-122.3, south=37.5, north=37.8, rows=3, cols=2, timezone="America/Los_Angeles", name="bay"
)
NOON = np.datetime64("2008-06-04T19:00", "us")  # 12:00 PDT
MINUTE = np.timedelta64(1, "m")
CARD = {"architecture": {"name": "vmrnn"}, "version": "vmrnn-1"}
NORTH = Area("North", np.array([[1.0, 0.5], [0, 0], [0, 0]]), -122.42, 37.75, {})


def find(rule: Rule, **known: object) -> list[Finding]:
    return _findings([rule], CityState(city=HERE, **{"now": NOON, **known}))  # type: ignore[arg-type]


def forecast(flow: np.ndarray, init_time: np.datetime64 = NOON) -> xr.Dataset:
    return forecast_dataset(HERE, CARD, init_time, flow, init_time).isel(init_time=0)


def frames(*values: tuple[tuple[int, int, int, int], float]) -> np.ndarray:
    """One vehicle everywhere, but for some (lead, flow kind, row, col)."""
    flow = np.ones((4, 2, 3, 2), np.float32)
    for place, value in values:
        flow[place] = value
    return flow


def scores(own: np.ndarray, persistence: np.ndarray, inside: np.ndarray | None = None) -> xr.Dataset:
    """Errors, and the share inside, (init time, lead) of forecasts one a slot, the last of which ends at noon."""
    init_times = NOON - HERE.slot * np.arange(len(own) + 3, 3, -1)
    made = xr.Dataset(
        {"rmse": (("init_time", "forecaster", "lead_time"), np.stack([own, persistence], axis=1))},
        coords={"init_time": init_times, "forecaster": ["vmrnn-1", "persistence"], "lead_time": range(4)},
    )
    if inside is None:
        return made
    both = np.stack([inside, np.full_like(inside, 0.95)], axis=1)
    return made.assign(inside=(("init_time", "level", "lead_time"), both)).assign_coords(level=[0.8, 0.95])


def errors(*means: float) -> np.ndarray:
    return np.array(means)[:, None] + np.array([-0.2, -0.1, 0.1, 0.2])


def test_nothing_is_wrong_where_all_goes_well() -> None:
    well = CityState(
        HERE,
        NOON + 5 * MINUTE,
        newest_init=NOON,
        newest_observed=NOON - HERE.slot,
        forecast=forecast(frames()),
        typical=frames(),
        scores=scores(errors(*[2.0] * 48), errors(*[3.0] * 48), np.full((48, 4), 0.85)),
        forecaster="vmrnn-1",
        areas={"North": NORTH},
    )
    rules = [*_DEFAULTS, FlowRule(above=10), FlowRule(times_typical=2), FlowRule(above=10, area="North")]
    assert _findings(rules, well) == []


def test_what_is_not_known_is_not_wrong_but_for_a_city_without_forecasts_and_data() -> None:
    found = _findings([*_DEFAULTS, FlowRule(above=1), FlowRule(times_typical=2)], CityState(HERE, NOON))
    assert [(one.kind, one.value, one.message) for one in found] == [
        ("forecast-overdue", None, "no forecast was ever published"),
        ("feed-silent", None, "no slot was ever observed"),
    ]


def test_a_forecast_is_overdue_so_many_minutes_after_its_slot_began() -> None:
    rule = ForecastOverdueRule(minutes=20)
    # The newest one begins at 11:30; that from noon on is due at noon.
    newest = NOON - HERE.slot
    assert find(rule, newest_init=newest, now=NOON + 20 * MINUTE) == []
    (found,) = find(rule, newest_init=newest, now=NOON + 21 * MINUTE)
    assert (found.rule, found.kind, found.severity) == ("forecast-overdue", "forecast-overdue", "critical")
    assert (found.value, found.limit, found.place, found.lon, found.lat) == (21.0, 20.0, "", None, None)
    assert found.message == "no forecast from 2008-06-04 12:00 PDT on: it is 21 minutes overdue (limit 20)"


def test_a_damaged_champion_is_told_as_it_is() -> None:
    assert find(ModelDamagedRule()) == []
    (found,) = find(ModelDamagedRule(), model_damage="model vmrnn-1 is damaged: card.json: it is gone")
    assert (found.rule, found.severity, found.message) == (
        "model-damaged",
        "critical",
        "model vmrnn-1 is damaged: card.json: it is gone",
    )


def test_a_feed_is_silent_so_many_minutes_after_the_end_of_the_slot_that_misses() -> None:
    rule = FeedSilentRule(minutes=60)
    newest = NOON - 2 * HERE.slot  # 11:00 to 11:30 is observed; 11:30 to 12:00 is not
    assert find(rule, newest_observed=newest, now=NOON + 60 * MINUTE) == []
    (found,) = find(rule, newest_observed=newest, now=NOON + 61 * MINUTE)
    assert (found.value, found.limit, found.severity) == (61.0, 60.0, "critical")
    assert "from 2008-06-04 11:30 PDT on" in found.message and "61 minutes late (limit 60)" in found.message


@pytest.mark.parametrize(("vehicles", "found"), [(60, False), (30, False), (29, True), (0, True)])
def test_a_fleet_is_compared_with_the_usual_one(vehicles: int, found: bool) -> None:
    wrong = find(FleetRule(), newest_init=NOON, fleet=(vehicles, 60.0))
    assert bool(wrong) == found
    if vehicles == 29:
        assert (wrong[0].value, wrong[0].limit, wrong[0].severity) == (pytest.approx(29 / 60), 0.5, "warning")
        assert wrong[0].message == (
            "29 vehicles reported in the slot from 2008-06-04 11:30 PDT on, 48 % of the usual 60 (limit 50 %)"
        )
    assert find(FleetRule(share=0.9), newest_init=NOON, fleet=(54, 60.0)) == []
    assert find(FleetRule(), newest_init=NOON) == []


def test_skill_looks_at_each_of_the_last_scored_forecasts() -> None:
    rule = SkillRule(cycles=3)

    def judge(own: list[float], persistence: list[float], forecaster: str = "vmrnn-1") -> list[Finding]:
        return find(rule, scores=scores(errors(*own), errors(*persistence)), forecaster=forecaster)

    (found,) = judge([1, 4, 5, 6], [3, 3, 3, 3])
    assert (found.value, found.limit) == (pytest.approx(5.0), pytest.approx(3.0))
    assert "5.00 against 3.00 vehicles per slot" in found.message
    assert "last 3 scored forecasts, since 2008-06-04 09:00 PDT" in found.message
    assert judge([4, 3, 4], [3, 3, 3]) == []  # as good as persistence, once
    assert judge([9, 9, 9, 2], [3, 3, 3, 3]) == []  # the newest one was better
    assert judge([4, 4], [3, 3]) == []  # not enough of them
    assert judge([4, 4, 4], [3, 3, 3], "another") == []  # a version without scores


def test_skill_compares_the_leads_that_both_have() -> None:
    own, persistence = errors(4, 4, 4), errors(3, 3, 3)
    own[:, 3], persistence[:, 3] = np.nan, 100
    persistence[:, 0] = np.nan
    (found,) = find(SkillRule(cycles=3), scores=scores(own, persistence), forecaster="vmrnn-1")
    assert (found.value, found.limit) == (pytest.approx(4.0), pytest.approx(3.0))
    # A forecast without any such lead is not scored: the three before it count.
    none = np.full((1, 4), np.nan)
    known = scores(np.concatenate([own, none]), np.concatenate([persistence, none]))
    assert len(find(SkillRule(cycles=3), scores=known, forecaster="vmrnn-1")) == 1
    assert find(SkillRule(cycles=4), scores=known, forecaster="vmrnn-1") == []


@pytest.mark.parametrize(("share", "off"), [(0.69, True), (0.71, False), (0.89, False), (0.91, True)])
def test_coverage_may_be_off_on_either_side(share: float, off: bool) -> None:
    inside = np.full((48, 4), share)
    inside[:, 3] = np.nan
    inside[:5] = np.nan  # of a model without intervals
    known = scores(errors(*[2.0] * 48), errors(*[3.0] * 48), inside)
    found = find(CoverageRule(level=0.8, tolerance=0.1), scores=known)
    assert len(found) == off
    if off:
        assert (found[0].value, found[0].limit) == (pytest.approx(share), 0.8)
        assert f"{100 * share:.1f} %" in found[0].message and "80 % interval" in found[0].message
    assert find(CoverageRule(level=0.95, tolerance=0.01), scores=known) == []
    assert find(CoverageRule(level=0.5, tolerance=0.01), scores=known) == []  # there is no such interval


def test_coverage_is_of_the_last_hours_and_needs_half_of_their_forecasts() -> None:
    inside = np.full((48, 4), 0.8)
    inside[-8:] = 0.5  # scored in the last four hours
    known = scores(errors(*[2.0] * 48), errors(*[3.0] * 48), inside)
    assert len(find(CoverageRule(hours=4, tolerance=0.1), scores=known)) == 1
    assert find(CoverageRule(hours=24, tolerance=0.1), scores=known) == []
    assert len(find(CoverageRule(hours=4, tolerance=0.1), scores=known.isel(init_time=slice(-4, None)))) == 1
    assert find(CoverageRule(hours=4, tolerance=0.1), scores=known.isel(init_time=slice(-3, None))) == []
    assert find(CoverageRule(hours=4, tolerance=0.1), scores=known, now=NOON + np.timedelta64(3, "h")) == []


def test_scores_are_needed_as_far_back_as_the_rules_look() -> None:
    assert scores_from([ForecastOverdueRule()], HERE, NOON) == NOON - 5 * HERE.slot
    assert scores_from([SkillRule(cycles=6), CoverageRule(hours=24)], HERE, NOON) == NOON - 53 * HERE.slot
    assert scores_from([SkillRule(cycles=96)], HERE, NOON) == NOON - 197 * HERE.slot
    assert scores_from([SkillRule(cycles=96, city="another")], HERE, NOON) == NOON - 5 * HERE.slot


def test_a_flow_above_a_number_is_found_in_its_cell_once() -> None:
    flow = frames(((1, 0, 2, 1), 120), ((2, 1, 2, 1), 150), ((0, 0, 0, 0), 100), ((3, 1, 1, 0), 101))
    found = find(FlowRule(above=100, severity="critical"), forecast=forecast(flow))
    assert [(one.place, one.value, one.limit) for one in found] == [
        ("row 1, column 0", 101, 100),
        ("row 2, column 1", 150, 100),
    ]
    worst = found[1]
    assert (worst.kind, worst.rule, worst.severity) == ("flow", "flow above=100.0", "critical")
    assert (worst.lon, worst.lat) == (pytest.approx(-122.35), pytest.approx(37.55))
    assert worst.message == (
        "outflow of row 2, column 1 is forecast to be 150.0 vehicles in the slot from 2008-06-04 13:00 PDT on "
        "(limit 100.0)"
    )


def test_a_flow_of_one_kind_or_one_cell() -> None:
    flow = frames(((1, 0, 2, 1), 120), ((2, 1, 2, 1), 150), ((3, 1, 1, 0), 101))
    (inflow,) = find(FlowRule(above=100, flow_kind="inflow"), forecast=forecast(flow))
    assert (inflow.place, inflow.value) == ("row 2, column 1", 120) and inflow.message.startswith("inflow of")
    (cell,) = find(FlowRule(above=100, cell=(1, 0)), forecast=forecast(flow))
    assert (cell.place, cell.value) == ("row 1, column 0", 101)
    assert find(FlowRule(above=100, cell=(0, 0)), forecast=forecast(flow)) == []


def test_a_flow_far_above_typical_is_no_matter_of_a_few_vehicles() -> None:
    flow = frames(((0, 0, 0, 0), 15), ((1, 1, 1, 1), 61), ((2, 0, 2, 0), 61))
    typical = frames(((1, 1, 1, 1), 20), ((2, 0, 2, 0), 21))
    rule = FlowRule(times_typical=3, at_least=20)
    (found,) = find(rule, forecast=forecast(flow), typical=typical)
    assert (found.place, found.value, found.limit) == ("row 1, column 1", 61, 60)
    assert "(limit 60.0, typical 20.0)" in found.message
    assert find(rule, forecast=forecast(flow)) == []  # what is typical is not known
    # With both limits the lower one holds.
    both = find(FlowRule(times_typical=3, above=14), forecast=forecast(flow), typical=typical)
    assert [(one.place, one.limit) for one in both] == [
        ("row 0, column 0", 14),
        ("row 1, column 1", 14),
        ("row 2, column 0", 14),
    ]


def test_an_area_is_the_sum_of_its_shares_of_cells() -> None:
    flow = frames(((1, 0, 0, 0), 60), ((1, 0, 0, 1), 60), ((3, 1, 2, 0), 500))
    known = {"forecast": forecast(flow), "areas": {"North": NORTH}}
    assert find(FlowRule(above=90, area="North"), **known) == []
    (found,) = find(FlowRule(above=89, area="North"), **known)
    assert (found.place, found.value, found.lon, found.lat) == ("North", 90, -122.42, 37.75)
    typical = frames(((1, 0, 0, 0), 20), ((1, 0, 0, 1), 18))  # 29 in the area
    (found,) = find(FlowRule(times_typical=3, area="North"), typical=typical, **known)
    assert (found.value, found.limit) == (90, 87)


def test_slots_that_are_over_are_not_ahead() -> None:
    flow = frames(((1, 0, 0, 0), 60))  # from 12:30 to 13:00
    rule = FlowRule(above=50)
    assert len(find(rule, forecast=forecast(flow), now=NOON + 59 * MINUTE)) == 1
    assert find(rule, forecast=forecast(flow), now=NOON + 60 * MINUTE) == []


def test_rules_of_other_cities_are_left_out_and_an_unknown_area_is_refused() -> None:
    elsewhere = [ForecastOverdueRule(city="another"), FlowRule(above=1, area="Nowhere", city="another")]
    assert _findings(elsewhere, CityState(HERE, NOON)) == []
    check_areas(elsewhere, HERE, {})
    check_areas([FlowRule(above=1, area="North")], HERE, {"North": NORTH})
    for call in (lambda r: check_areas(r, HERE, {"North": NORTH}), lambda r: _findings(r, CityState(HERE, NOON))):
        with pytest.raises(InputError, match="'bay' has no area 'Nort'"):
            call([FlowRule(above=1, area="Nort", city="bay")])


def test_coverage_is_of_the_forecasts_that_ended_within_the_hours() -> None:
    inside = np.full((48, 4), 1.0)
    inside[-8:] = 0.5  # the ninth last one ended four hours ago
    known = scores(errors(*[2.0] * 48), errors(*[3.0] * 48), inside)
    (found,) = find(CoverageRule(hours=4, tolerance=0.1), scores=known)
    assert found.value == 0.5
    assert found.message == (
        "50.0 % of the observed flows of the last 4 hours lay inside the 80 % interval, as of 2008-06-04 12:00 PDT "
        "(limit: 10 percentage points apart)"
    )


def test_coverage_of_an_hour_or_less_needs_one_forecast() -> None:
    known = scores(errors(2.0), errors(3.0), np.full((1, 4), 0.5))
    for hours in (0.25, 1):
        assert len(find(CoverageRule(hours=hours, tolerance=0.1), scores=known)) == 1
    assert find(CoverageRule(hours=1.5, tolerance=0.1), scores=known.isel(init_time=slice(0))) == []
    assert find(CoverageRule(hours=0.001, tolerance=0.1), scores=known) == []  # no whole minute


def test_an_unknown_area_is_refused_with_the_areas_that_there_are() -> None:
    rule = [FlowRule(above=1, area="Nort")]
    with pytest.raises(InputError, match=r"has: North, South$"):
        check_areas(rule, HERE, {"South": NORTH, "North": NORTH})
    with pytest.raises(InputError, match=r"has: none$"):
        check_areas(rule, HERE, {})
