"""What is wrong with a city now: the findings of the rules in a situation. Pure: nothing is read, nothing is told."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

import numpy as np
import xarray as xr

from trafficcast.config.alert_rules import CoverageRule, FeedSilentRule, FlowRule, ForecastOverdueRule, Rule, SkillRule
from trafficcast.config.city import FLOW_KINDS, HORIZON, City
from trafficcast.errors import InputError
from trafficcast.geography.areas import Area

_BASELINE = "persistence"
_MINUTE = np.timedelta64(1, "m")
# Coverage is judged by at least this share of the forecasts of its hours: those of a quiet night say little.
_ENOUGH = 0.5


@dataclass(frozen=True)
class Situation:
    """What the rules look at. Times are naive UTC; None and empty is what is not known, and of which nothing is found.

    `newest_init`: start of the newest published forecast's first slot. `newest_observed`: start of the newest observed
    slot. `forecast`: one init time of `forecast_dataset`. `typical`: (HORIZON, flow kind, row, col), vehicles per slot,
    what is normal in the forecast's slots. `scores`: rows of `score_dataset` (see `scores_from`), those of
    `forecaster` are the city's own.
    """

    city: City
    now: np.datetime64
    newest_init: np.datetime64 | None = None
    newest_observed: np.datetime64 | None = None
    forecast: xr.Dataset | None = None
    typical: np.ndarray | None = None
    scores: xr.Dataset | None = None
    forecaster: str = ""
    areas: Mapping[str, Area] = field(default_factory=dict)


@dataclass(frozen=True)
class Finding:
    """A rule that is broken at a place: a cell "row 3, column 5", an area's name, or "", the city as a whole.

    `rule` tells rules of one kind from one another. `lon`, `lat`: the place in degrees. `value` (None: there is none)
    was compared with `limit`; their unit is the rule's: minutes, vehicles per slot, or a share.
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


def _findings(rules: Iterable[Rule], situation: Situation) -> list[Finding]:
    """What the rules that hold for the city find, in their order.

    Raises InputError for a rule about an area that the situation does not have (see `check_areas`).
    """
    return [found for rule in _of_city(rules, situation.city) for found in _judge(rule, situation)]


def check_areas(rules: Iterable[Rule], city: City, areas: Mapping[str, Area]) -> None:
    """Raise InputError for a rule of the city about an area that is not among `areas`."""
    for rule in _of_city(rules, city):
        if isinstance(rule, FlowRule) and rule.area is not None and rule.area not in areas:
            known = ", ".join(sorted(areas)) or "none"
            raise InputError(f"alerts.rules: '{city.name}' has no area '{rule.area}'; {city.areas} has: {known}")


def scores_from(rules: Iterable[Rule], city: City, now: np.datetime64) -> np.datetime64:
    """The init time from which on the rules need scores: twice the cycles, as some may be missing, and all hours."""
    spans: list[np.timedelta64] = [np.timedelta64(0, "m")]
    for rule in _of_city(rules, city):
        if isinstance(rule, SkillRule):
            spans.append(2 * rule.cycles * city.slot)
        elif isinstance(rule, CoverageRule):
            spans.append(_hours(rule))
    return now - max(spans) - (HORIZON + 1) * city.slot


def _of_city(rules: Iterable[Rule], city: City) -> list[Rule]:
    return [rule for rule in rules if rule.city in (None, city.name)]


def _judge(rule: Rule, situation: Situation) -> list[Finding]:
    match rule:
        case ForecastOverdueRule():
            return _overdue(rule, situation)
        case FeedSilentRule():
            return _silent(rule, situation)
        case SkillRule():
            return _skill(rule, situation)
        case CoverageRule():
            return _coverage(rule, situation)
        case FlowRule():
            return _flow(rule, situation)


def _overdue(rule: ForecastOverdueRule, situation: Situation) -> list[Finding]:
    city, newest = situation.city, situation.newest_init
    if newest is None:
        return [_finding(rule, "no forecast was ever published", None, rule.minutes)]
    due = newest + city.slot
    late = float((situation.now - due) / _MINUTE)
    message = f"no forecast from {_local(city, due)} on: it is {late:.0f} minutes overdue (limit {rule.minutes:g})"
    return [_finding(rule, message, late, rule.minutes)] if late > rule.minutes else []


def _silent(rule: FeedSilentRule, situation: Situation) -> list[Finding]:
    city, newest = situation.city, situation.newest_observed
    if newest is None:
        return [_finding(rule, "no slot was ever observed", None, rule.minutes)]
    since = newest + city.slot
    late = float((situation.now - since - city.slot) / _MINUTE)
    message = (
        f"the feed is silent: of the slots from {_local(city, since)} on none is observed, the first is "
        f"{late:.0f} minutes late (limit {rule.minutes:g})"
    )
    return [_finding(rule, message, late, rule.minutes)] if late > rule.minutes else []


def _skill(rule: SkillRule, situation: Situation) -> list[Finding]:
    city, scores, names = situation.city, situation.scores, [situation.forecaster, _BASELINE]
    if scores is None or not np.isin(names, scores["forecaster"].values).all():
        return []
    rmse = scores["rmse"].sel(forecaster=names).transpose("init_time", "forecaster", "lead_time").sortby("init_time")
    known = np.isfinite(rmse.values).all(axis=1)  # (init time, lead): of both
    scored = known.any(axis=1)
    errors = np.nanmean(np.where(known[:, None], rmse.values, np.nan)[scored], axis=2)  # (init time, name)
    last = errors[-rule.cycles :]
    if len(last) < rule.cycles or (last[:, 0] <= last[:, 1]).any():
        return []
    own, baseline = last.mean(axis=0)
    first = _local(city, rmse["init_time"].values[scored][-rule.cycles])
    message = (
        f"the error of {situation.forecaster} was above persistence's in each of the last {rule.cycles} scored "
        f"forecasts, since {first}: {own:.2f} against {baseline:.2f} vehicles per slot"
    )
    return [_finding(rule, message, float(own), float(baseline))]


def _coverage(rule: CoverageRule, situation: Situation) -> list[Finding]:
    city, scores = situation.city, situation.scores
    if scores is None or "inside" not in scores:
        return []
    # A forecast is scored when the last of its slots has ended.
    recent = scores["init_time"].values + HORIZON * city.slot > situation.now - _hours(rule)
    level = np.isclose(scores["level"].values, rule.level)
    inside = scores["inside"].transpose("init_time", "level", "lead_time").values[recent][:, level]
    inside = inside[np.isfinite(inside).any(axis=(1, 2))]
    if len(inside) < max(1.0, _ENOUGH * (_hours(rule) / city.slot)):
        return []
    share = float(np.nanmean(inside))
    message = (
        f"{100 * share:.1f} % of what came in the last {rule.hours:g} hours lay inside the {100 * rule.level:g} % "
        f"interval, as of {_local(city, situation.now)} (limit: {100 * rule.tolerance:g} percentage points apart)"
    )
    return [_finding(rule, message, share, rule.level)] if abs(share - rule.level) > rule.tolerance else []


def _flow(rule: FlowRule, situation: Situation) -> list[Finding]:
    """One finding a place: the slot and flow kind that are furthest above their limit. Slots that are over are none."""
    city, forecast = situation.city, situation.forecast
    check_areas([rule], city, situation.areas)
    if forecast is None:
        return []
    starts = forecast["valid_time"].values[0]
    flow = _at_places(forecast["flow"].values[0].astype(np.float64), rule, situation)
    typical = None if situation.typical is None else _at_places(situation.typical, rule, situation)
    limit = np.full(flow.shape, np.inf if rule.above is None else rule.above)
    if rule.times_typical is not None and typical is not None:
        limit = np.minimum(limit, np.maximum(rule.times_typical * typical, rule.at_least))
    judged = (starts + city.slot > situation.now)[:, None] & np.isin(FLOW_KINDS, rule.flow_kind or FLOW_KINDS)
    excess = np.where((flow > limit) & judged[..., None], flow / limit, 0)  # (lead, flow kind, place)
    found = []
    for place in np.flatnonzero(excess.any(axis=(0, 1))):
        lead, kind = np.unravel_index(excess[..., place].argmax(), judged.shape)
        value, most = float(flow[lead, kind, place]), float(limit[lead, kind, place])
        usual = "" if typical is None else f", typical {typical[lead, kind, place]:.1f}"
        name, lon, lat = _place(int(place), rule, situation)
        message = (
            f"{FLOW_KINDS[kind]} of {name} is forecast to be {value:.1f} vehicles in the slot from "
            f"{_local(city, starts[lead])} on (limit {most:.1f}{usual})"
        )
        found.append(_finding(rule, message, value, most, name, lon, lat))
    return found


def _at_places(frames: np.ndarray, rule: FlowRule, situation: Situation) -> np.ndarray:
    """Frames (lead, flow kind, row, col) -> (lead, flow kind, place): the rule's area or cell, or every cell."""
    if rule.area is not None:
        return np.asarray((frames * situation.areas[rule.area].share).sum(axis=(2, 3))[..., None])
    if rule.cell is not None:
        return frames[:, :, rule.cell[0], rule.cell[1], None]
    return frames.reshape(*frames.shape[:2], -1)


def _place(number: int, rule: FlowRule, situation: Situation) -> tuple[str, float, float]:
    """The name of a place of `_at_places` and its point, degrees."""
    city = situation.city
    if rule.area is not None:
        area = situation.areas[rule.area]
        return area.name, area.lon, area.lat
    row, col = divmod(number, city.cols) if rule.cell is None else rule.cell
    return f"row {row}, column {col}", float(city.lon[col]), float(city.lat[row])


def _finding(
    rule: Rule,
    message: str,
    value: float | None,
    limit: float,
    place: str = "",
    lon: float | None = None,
    lat: float | None = None,
) -> Finding:
    return Finding(rule.name, rule.kind, rule.severity, message, value, limit, place, lon, lat)


def _hours(rule: CoverageRule) -> np.timedelta64:
    return np.timedelta64(round(rule.hours * 60), "m")


def _local(city: City, time: np.datetime64) -> str:
    """A naive UTC time as an operator reads it: in the city's zone, with its name."""
    return str(city.local(np.array([time]))[0].strftime("%Y-%m-%d %H:%M %Z"))
