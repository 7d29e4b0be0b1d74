"""The findings of the alert rules: broken rules in the state of a city. No file is read or written here."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

import numpy as np
import xarray as xr

from trafficcast.config.alert_rules import (
    CoverageRule,
    FeedSilentRule,
    FleetRule,
    FlowRule,
    ForecastOverdueRule,
    ModelDamagedRule,
    Rule,
    SkillRule,
)
from trafficcast.config.city import FLOW_KINDS, HORIZON, City
from trafficcast.errors import InputError
from trafficcast.geography.areas import Area
from trafficcast.geography.cells import cell_name

_BASELINE = "persistence"
_MINUTE = np.timedelta64(1, "m")
# The coverage rule needs scores of at least this share of the forecasts of its hours, as few forecasts vary too much.
_ENOUGH = 0.5


@dataclass(frozen=True)
class CityState:
    """The state of a city that the rules examine.

    A field is None or empty where its value is unknown. The rules about the flow, the skill and the coverage then find
    nothing; a city without any forecast or any observed slot breaks the rule that needs it.

    Attributes
    ----------
    city
        The city.
    now
        The present time, naive UTC.
    started
        When the service began to watch the city, naive UTC: before its first forecast and slot are due they are not
        missing. None is long ago.
    newest_init
        Init time of the newest published forecast, naive UTC.
    newest_observed
        Start of the newest observed slot, naive UTC.
    fleet
        Number of vehicles in the slot before the newest forecast, and the usual number (see `reporting_vehicles`).
    forecast
        The newest published forecast (see `forecast_dataset`) without the dimension init_time, vehicles per slot.
    typical
        Climatology of the forecast's slots (HORIZON, flow kind, row, col), vehicles per slot.
    scores
        Scores of recent forecasts (see `score_dataset`), from the init time of `scores_from` on.
    forecaster
        The champion's version, whose scores are compared with the baseline's.
    model_damage
        What is wrong with the champion's files, in one sentence; empty where nothing is.
    areas
        The city's areas by name.
    """

    city: City
    now: np.datetime64
    started: np.datetime64 | None = None
    newest_init: np.datetime64 | None = None
    newest_observed: np.datetime64 | None = None
    fleet: tuple[int, float] | None = None
    forecast: xr.Dataset | None = None
    typical: np.ndarray | None = None
    scores: xr.Dataset | None = None
    forecaster: str = ""
    model_damage: str = ""
    areas: Mapping[str, Area] = field(default_factory=dict)


@dataclass(frozen=True)
class Finding:
    """A broken rule.

    Attributes
    ----------
    rule
        The rule's name, which differs between rules of one kind.
    kind
        The rule's kind, such as flow.
    severity
        How severe the rule is: warning or critical.
    message
        The finding in one sentence.
    value
        The value that was compared with the limit, in minutes, vehicles per slot or as a share, as the rule has it;
        None if there is no value.
    limit
        The limit, in the same unit.
    place
        The cell, such as "row 3, column 5", or the area's name; empty if the whole city is meant.
    lon
        Longitude of the cell or area, degrees; None for the whole city.
    lat
        Latitude of the cell or area, degrees; None for the whole city.
    """

    rule: str
    kind: str
    severity: str
    message: str
    value: float | None
    limit: float
    place: str = ""
    lon: float | None = None
    lat: float | None = None


def _findings(rules: Iterable[Rule], state: CityState) -> list[Finding]:
    """Return the findings of the rules that hold for the city, in the order of the rules.

    Raises InputError for a rule about an area that the city does not have (see `check_areas`).
    """
    return [finding for rule in _of_city(rules, state.city) for finding in _findings_of(rule, state)]


def check_areas(rules: Iterable[Rule], city: City, areas: Mapping[str, Area]) -> None:
    """Check that the areas that the rules name exist.

    Parameters
    ----------
    rules
        The rules of all cities.
    city
        The city whose rules are checked.
    areas
        The city's areas by name.

    Raises
    ------
    InputError
        A rule of the city names an area that does not exist.
    """
    for rule in _of_city(rules, city):
        if isinstance(rule, FlowRule) and rule.area is not None and rule.area not in areas:
            known = ", ".join(sorted(areas)) or "none"
            raise InputError(f"alerts.rules: '{city.name}' has no area '{rule.area}'; {city.areas} has: {known}")


def scores_from(rules: Iterable[Rule], city: City, now: np.datetime64) -> np.datetime64:
    """Return how far back the rules need scores: twice the cycles of a rule, as some may be missing, and all its hours.

    Parameters
    ----------
    rules
        The rules of all cities.
    city
        The city.
    now
        The present time, naive UTC.

    Returns
    -------
    np.datetime64
        The first init time whose scores are needed, naive UTC.
    """
    spans: list[np.timedelta64] = [np.timedelta64(0, "m")]
    for rule in _of_city(rules, city):
        if isinstance(rule, SkillRule):
            spans.append(2 * rule.cycles * city.slot)
        elif isinstance(rule, CoverageRule):
            spans.append(_hours(rule))
    return now - max(spans) - (HORIZON + 1) * city.slot


def _of_city(rules: Iterable[Rule], city: City) -> list[Rule]:
    """Return the rules that hold for a city."""
    return [rule for rule in rules if rule.city in (None, city.name)]


def _findings_of(rule: Rule, state: CityState) -> list[Finding]:
    """Return the findings of one rule."""
    match rule:
        case ForecastOverdueRule():
            return _overdue(rule, state)
        case FeedSilentRule():
            return _silent(rule, state)
        case FleetRule():
            return _fleet(rule, state)
        case SkillRule():
            return _skill(rule, state)
        case CoverageRule():
            return _coverage(rule, state)
        case ModelDamagedRule():
            return [_finding(rule, state.model_damage, None, 0.0)] if state.model_damage else []
        case FlowRule():
            return _flow(rule, state)


def _overdue(rule: ForecastOverdueRule, state: CityState) -> list[Finding]:
    """Return a finding if the next forecast is missing for too long, or no forecast was ever published."""
    city, newest = state.city, state.newest_init
    if newest is None:
        return (
            []
            if _still_waits(state, 1, rule.minutes)
            else [_finding(rule, "no forecast was ever published", None, rule.minutes)]
        )
    due = newest + city.slot
    late = float((state.now - due) / _MINUTE)
    message = f"no forecast from {_local(city, due)} on: it is {late:.0f} minutes overdue (limit {rule.minutes:g})"
    return [_finding(rule, message, late, rule.minutes)] if late > rule.minutes else []


def _silent(rule: FeedSilentRule, state: CityState) -> list[Finding]:
    """Return a finding if the data of the next slot are missing for too long, or no slot was ever observed."""
    city, newest = state.city, state.newest_observed
    if newest is None:
        return (
            []
            if _still_waits(state, 2, rule.minutes)
            else [_finding(rule, "no slot was ever observed", None, rule.minutes)]
        )
    since = newest + city.slot
    late = float((state.now - since - city.slot) / _MINUTE)
    message = (
        f"the feed is silent: of the slots from {_local(city, since)} on none is observed, the first is "
        f"{late:.0f} minutes late (limit {rule.minutes:g})"
    )
    return [_finding(rule, message, late, rule.minutes)] if late > rule.minutes else []


def _fleet(rule: FleetRule, state: CityState) -> list[Finding]:
    """Return a finding if few of the usual vehicles reported in the slot before the newest forecast."""
    if state.fleet is None or state.newest_init is None:
        return []
    vehicles, usual = state.fleet
    share = vehicles / max(usual, 1.0)
    message = (
        f"{vehicles} vehicles reported in the slot from {_local(state.city, state.newest_init - state.city.slot)} on, "
        f"{100 * share:.0f} % of the usual {usual:.0f} (limit {100 * rule.share:g} %)"
    )
    return [_finding(rule, message, share, rule.share)] if share < rule.share else []


def _skill(rule: SkillRule, state: CityState) -> list[Finding]:
    """Return a finding if the champion's error was above persistence's in each of the last scored forecasts."""
    city, scores, names = state.city, state.scores, [state.forecaster, _BASELINE]
    if scores is None or not np.isin(names, scores["forecaster"].values).all():
        return []
    rmse = scores["rmse"].sel(forecaster=names).transpose("init_time", "forecaster", "lead_time").sortby("init_time")
    known = np.isfinite(rmse.values).all(axis=1)  # (init time, lead): both forecasters are scored
    scored = known.any(axis=1)
    errors = np.nanmean(np.where(known[:, None], rmse.values, np.nan)[scored], axis=2)  # (init time, forecaster)
    last = errors[-rule.cycles :]
    if len(last) < rule.cycles or (last[:, 0] <= last[:, 1]).any():
        return []
    own, baseline = last.mean(axis=0)
    first = _local(city, rmse["init_time"].values[scored][-rule.cycles])
    message = (
        f"the error of {state.forecaster} was above persistence's in each of the last {rule.cycles} scored "
        f"forecasts, since {first}: {own:.2f} against {baseline:.2f} vehicles per slot"
    )
    return [_finding(rule, message, float(own), float(baseline))]


def _coverage(rule: CoverageRule, state: CityState) -> list[Finding]:
    """Return a finding if the coverage of the prediction intervals was too far from their level."""
    city, scores = state.city, state.scores
    if scores is None or "inside" not in scores:
        return []
    # A forecast is scored when the last of its slots has ended.
    recent = scores["init_time"].values + HORIZON * city.slot > state.now - _hours(rule)
    level = np.isclose(scores["level"].values, rule.level)
    inside = scores["inside"].transpose("init_time", "level", "lead_time").values[recent][:, level]
    inside = inside[np.isfinite(inside).any(axis=(1, 2))]
    if len(inside) < max(1.0, _ENOUGH * (_hours(rule) / city.slot)):
        return []
    share = float(np.nanmean(inside))
    message = (
        f"{100 * share:.1f} % of the observed flows of the last {rule.hours:g} hours lay inside the "
        f"{100 * rule.level:g} % interval, as of {_local(city, state.now)} "
        f"(limit: {100 * rule.tolerance:g} percentage points apart)"
    )
    return [_finding(rule, message, share, rule.level)] if abs(share - rule.level) > rule.tolerance else []


def _flow(rule: FlowRule, state: CityState) -> list[Finding]:
    """Return a finding for each position above the limit, with the slot and flow kind that exceed it most.

    Slots that have ended are left out.
    """
    city, forecast = state.city, state.forecast
    check_areas([rule], city, state.areas)
    if forecast is None:
        return []
    ends = forecast["valid_time"].values + city.slot  # (lead)
    flow = _at_positions(forecast["flow"].values.astype(np.float64), rule, state)
    typical = None if state.typical is None else _at_positions(state.typical, rule, state)
    limit = np.full(flow.shape, np.inf if rule.above is None else rule.above)
    if rule.times_typical is not None and typical is not None:
        limit = np.minimum(limit, np.maximum(rule.times_typical * typical, rule.at_least))
    examined = (ends > np.full(len(ends), state.now))[:, None] & np.isin(FLOW_KINDS, rule.flow_kind or FLOW_KINDS)
    excess = np.where((flow > limit) & examined[..., None], flow / limit, 0)  # (lead, flow kind, position)
    found = []
    for position in np.flatnonzero(excess.any(axis=(0, 1))):
        lead, kind = np.unravel_index(excess[..., position].argmax(), examined.shape)
        value, most = float(flow[lead, kind, position]), float(limit[lead, kind, position])
        usual = "" if typical is None else f", typical {typical[lead, kind, position]:.1f}"
        name, lon, lat = _describe(int(position), rule, state)
        message = (
            f"{FLOW_KINDS[kind]} of {name} is forecast to be {value:.1f} vehicles in the slot from "
            f"{_local(city, ends[lead] - city.slot)} on (limit {most:.1f}{usual})"
        )
        found.append(_finding(rule, message, value, most, name, lon, lat))
    return found


def _at_positions(frames: np.ndarray, rule: FlowRule, state: CityState) -> np.ndarray:
    """Return the flow (lead, flow kind, position) of frames (lead, flow kind, row, col).

    The positions are the rule's area, the rule's cell, or every cell.
    """
    if rule.area is not None:
        return np.asarray((frames * state.areas[rule.area].share).sum(axis=(2, 3))[..., None])
    if rule.cell is not None:
        return frames[:, :, rule.cell[0], rule.cell[1], None]
    return frames.reshape(*frames.shape[:2], -1)


def _describe(position: int, rule: FlowRule, state: CityState) -> tuple[str, float, float]:
    """Return the name, longitude and latitude, in degrees, of a position of `_at_positions`."""
    city = state.city
    if rule.area is not None:
        area = state.areas[rule.area]
        return area.name, area.lon, area.lat
    row, col = divmod(position, city.cols) if rule.cell is None else rule.cell
    return cell_name(row, col), float(city.lon[col]), float(city.lat[row])


def _finding(
    rule: Rule,
    message: str,
    value: float | None,
    limit: float,
    place: str = "",
    lon: float | None = None,
    lat: float | None = None,
) -> Finding:
    """Make a finding of a rule."""
    return Finding(rule.name, rule.kind, rule.severity, message, value, limit, place, lon, lat)


def _still_waits(state: CityState, slots: int, minutes: float) -> bool:
    """Whether the end of the first `slots` slots since the service's start is at most so many minutes ago."""
    if state.started is None:
        return False
    due = state.city.slot_start(state.started) + slots * state.city.slot
    return bool((state.now - due) / _MINUTE <= minutes)


def _hours(rule: CoverageRule) -> np.timedelta64:
    """Return the time span of a coverage rule."""
    return np.timedelta64(round(rule.hours * 60), "m")


def _local(city: City, time: np.datetime64) -> str:
    """Write a naive UTC time for an operator: in the city's time zone, with the zone's name."""
    return str(city.local(np.array([time]))[0].strftime("%Y-%m-%d %H:%M %Z"))
