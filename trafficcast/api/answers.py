"""From the stores and the registry to answers. Plain functions; they read at most a day of a store at once.

Times are naive UTC here, and a period is [start, end). All raise InputError for a damaged file.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import xarray as xr

from trafficcast.api import schema
from trafficcast.config.city import FLOW_KINDS, HORIZON, City
from trafficcast.stores.city_stores import CityStores
from trafficcast.stores.day_store import last_stored
from trafficcast.stores.forecasts import COMPLETE, has_intervals
from trafficcast.stores.geojson import FLOW_DECIMALS, forecast_features
from trafficcast.stores.published import latest_forecast, published

UNITS = "vehicles per slot"
MINUTE = np.timedelta64(1, "m")
DAY = np.timedelta64(1, "D")
US = np.timedelta64(1, "us")


def city_entry(city: City) -> schema.CityEntry:
    """What the configuration says of a city."""
    return schema.CityEntry.model_validate({"name": city.name, **city.grid()})


def city_state(stores: CityStores, now: np.datetime64) -> schema.City:
    """A city and how far its stores go."""
    city = stores.city
    stored = [
        last_stored(CityStores(city, stores.data, stores.models).forecasts(version))
        for version in stores.registry.champions()
    ]
    newest = max((time for time in stored if time is not None), default=None)
    until = _observed_until(stores, now)
    return schema.City(
        **city_entry(city).model_dump(),
        lat=city.lat.round(6).tolist(),
        lon=city.lon.round(6).tolist(),
        observed_until=None if until is None else city.isoformat(until),
        latest_forecast=None if newest is None else city.isoformat(newest),
        champion=stores.registry.champion(),
    )


def latest(stores: CityStores) -> tuple[str, xr.Dataset] | None:
    """The version and the forecast (of one init time, without that dimension) published last; None without any."""
    found = latest_forecast(stores)
    return None if found is None else (found[0], found[1].isel(init_time=-1))


def forecast_at(stores: CityStores, init_time: np.datetime64) -> tuple[str, xr.Dataset] | None:
    """The version and the forecast published for an init time; None where there is none."""
    for version, forecasts in published(stores, init_time, init_time + US):
        return version, forecasts.isel(init_time=0)
    return None


def forecast_list(stores: CityStores, start: np.datetime64, end: np.datetime64) -> schema.Forecasts:
    """The forecasts with init times in the period."""
    found = [
        (time, schema.ForecastEntry(**_origin(stores.city, version, forecasts.isel(init_time=i))))
        for first, last in _days(stores.city, start, end)
        for version, forecasts in published(stores, first, last)
        for i, time in enumerate(forecasts["init_time"].values)
    ]
    return schema.Forecasts(
        **_period(stores.city, start, end), forecasts=[entry for _, entry in sorted(found, key=lambda one: one[0])]
    )


def forecast_grid(city: City, version: str, forecast: xr.Dataset) -> schema.Forecast:
    """One init time's forecast of the whole grid."""
    bounded = has_intervals(forecast)
    return schema.Forecast(
        **_origin(city, version, forecast),
        city=city.name,
        units=UNITS,
        lead_minutes=_leads(forecast),
        valid_times=_isoformat(city, forecast["valid_time"].values),
        flow=schema.Frames(**_by_kind(forecast["flow"])),
        levels=_levels(forecast) if bounded else [],
        lower=schema.FrameBounds(**_by_kind(forecast["lower"])) if bounded else None,
        upper=schema.FrameBounds(**_by_kind(forecast["upper"])) if bounded else None,
    )


def forecast_geojson(city: City, version: str, forecast: xr.Dataset, zeros: bool) -> dict[str, Any]:
    """One init time's forecast as a FeatureCollection (see `forecast_features`), with who made it beside `features`."""
    return {
        "type": "FeatureCollection",
        **_origin(city, version, forecast),
        "city": city.name,
        "units": UNITS,
        "lead_minutes": _leads(forecast),
        "valid_times": _isoformat(city, forecast["valid_time"].values),
        "features": forecast_features(city, forecast, zeros),
    }


def observations(
    stores: CityStores, start: np.datetime64, end: np.datetime64, now: np.datetime64
) -> schema.Observations:
    """The slots that start in the period and have closed."""
    slots = []
    for flows in _closed_flows(stores, start, end, now):
        grids = {kind: flows["flow"].sel(flow_kind=kind).values for kind in FLOW_KINDS}
        for i, time in enumerate(_isoformat(stores.city, flows["time"].values)):
            observed, vehicles = bool(flows["observed"].values[i]), int(flows["vehicles"].values[i])
            slots.append(
                schema.ObservedFrame(
                    time=time,
                    observed=observed,
                    coverage=round(float(flows["coverage"].values[i]), 4),
                    vehicles=vehicles if vehicles >= 0 else None,
                    **{kind: grid[i].tolist() if observed else None for kind, grid in grids.items()},
                )
            )
    return schema.Observations(**_period(stores.city, start, end), units=UNITS, slots=slots)


def cell_series(
    stores: CityStores, row: int, col: int, start: np.datetime64, end: np.datetime64, now: np.datetime64
) -> schema.CellSeries:
    """A cell in the slots that start in the period: what was observed, and what had been forecast for them."""
    city = stores.city
    times = np.arange(city.slot_start(start - US) + city.slot, end, city.slot)  # the first slot start not before start
    observed = np.full((len(FLOW_KINDS), len(times)), np.nan)
    for flows in _closed_flows(stores, start, end, now):
        seen = flows["observed"].values
        at = np.searchsorted(times, flows["time"].values[seen])
        observed[:, at] = flows["flow"].sel(flow_kind=list(FLOW_KINDS)).values[seen, :, row, col].T

    forecast = np.full((len(FLOW_KINDS), HORIZON, len(times)), np.nan)
    bounds: dict[str, dict[float, np.ndarray]] = {"lower": {}, "upper": {}}
    for first, last in _days(city, start - (HORIZON - 1) * city.slot, end):
        for _, made in published(stores, first, last):
            cell = made.isel(row=row, col=col).sel(flow_kind=list(FLOW_KINDS))
            inits, leads = np.nonzero((made["valid_time"].values >= start) & (made["valid_time"].values < end))
            at = np.searchsorted(times, made["valid_time"].values[inits, leads])
            forecast[:, leads, at] = cell["flow"].values[inits, leads].T
            for name, by_level in bounds.items():
                for i, level in enumerate(_levels(made)):
                    table = by_level.setdefault(level, np.full_like(forecast, np.nan))
                    table[:, leads, at] = cell[name].values[inits, i, leads].T
    levels = sorted(bounds["lower"])

    def stacked(name: str) -> dict[str, Any]:
        tables = [bounds[name][level] for level in levels]
        return {kind: [_numbers(table[i]) for table in tables] for i, kind in enumerate(FLOW_KINDS)}

    return schema.CellSeries(
        **_period(city, start, end),
        row=row,
        col=col,
        lat=round(float(city.lat[row]), 6),
        lon=round(float(city.lon[col]), 6),
        units=UNITS,
        times=_isoformat(city, times),
        observed=schema.CellObserved(
            **{kind: [None if np.isnan(n) else int(n) for n in observed[i]] for i, kind in enumerate(FLOW_KINDS)}
        ),
        lead_minutes=[lead * city.slot_minutes for lead in range(HORIZON)],
        forecast=schema.CellForecast(**{kind: _numbers(forecast[i]) for i, kind in enumerate(FLOW_KINDS)}),
        levels=levels,
        lower=schema.CellBounds(**stacked("lower")),
        upper=schema.CellBounds(**stacked("upper")),
    )


def scores(stores: CityStores, start: np.datetime64, end: np.datetime64) -> schema.Scores:
    """The scores of the forecasts with init times in the period; a slot counts for the newest champion scored there."""
    city = stores.city
    rows: dict[np.datetime64, tuple[str, xr.Dataset]] = {}
    for version in stores.registry.champions():
        found = CityStores(city, stores.data, stores.models).scores(version).read(start, end)
        if found is not None:
            for i, time in enumerate(found["init_time"].values):
                rows.setdefault(time, (version, found.isel(init_time=i)))
    ordered = [rows[time] for time in sorted(rows)]
    names = list(dict.fromkeys(str(name) for _, row in ordered for name in row["forecaster"].values))
    levels = sorted({level for _, row in ordered for level in _levels(row)})

    def errors(metric: str) -> dict[str, Any]:
        tables = [dict(zip(row["forecaster"].values.tolist(), row[metric].values, strict=True)) for _, row in ordered]
        return {name: [_numbers(table.get(name, _UNKNOWN)) for table in tables] for name in names}

    def of_intervals(metric: str) -> list[Any]:
        values = [row[metric].values if metric in row else () for _, row in ordered]
        tables = [dict(zip(_levels(row), mine, strict=True)) for (_, row), mine in zip(ordered, values, strict=True)]
        return [[_numbers(table.get(level, _UNKNOWN)) for level in levels] for table in tables]

    return schema.Scores(
        **_period(city, start, end),
        units=UNITS,
        init_times=_isoformat(city, np.array(sorted(rows), "datetime64[us]")),
        model=[version for version, _ in ordered],
        lead_minutes=[lead * city.slot_minutes for lead in range(HORIZON)],
        rmse=errors("rmse"),
        mae=errors("mae"),
        levels=levels,
        inside=of_intervals("inside"),
        width=of_intervals("width"),
    )


def model_list(stores: CityStores) -> schema.Models:
    """The city's trained models, by name and number."""
    champion = stores.registry.champion()
    entries = []
    for version in stores.registry.versions():
        card = stores.registry.card(version)
        errors = {
            f"{split}_rmse": card.get("metrics", {}).get(split, {}).get(version, {}).get("rmse")
            for split in ("validation", "test")
        }
        entry = {"version": version, "champion": version == champion, "created": card.get("created"), **errors}
        entries.append(schema.ModelEntry(**entry))
    return schema.Models(city=stores.city.name, champion=champion, models=entries)


def model_card(stores: CityStores, version: str) -> schema.Model:
    """The card of one of the city's versions."""
    champion = version == stores.registry.champion()
    return schema.Model(city=stores.city.name, champion=champion, card=stores.registry.card(version))


_UNKNOWN = np.full(HORIZON, np.nan)


def _days(city: City, start: np.datetime64, end: np.datetime64) -> Iterator[tuple[np.datetime64, np.datetime64]]:
    """The period cut at the city's midnights, so that what is read at once is one file."""
    first, last = city.local_days(np.array([start, end]))
    for day in np.arange(first - DAY, last + 2 * DAY):  # clocks set back over midnight may interleave two days
        begin, until = max(start, city.midnight(day)), min(end, city.midnight(day + DAY))
        if begin < until:
            yield begin, until


def _closed_flows(
    stores: CityStores, start: np.datetime64, end: np.datetime64, now: np.datetime64
) -> Iterator[xr.Dataset]:
    """The period's flows day by day, without the slots that have not closed."""
    store = stores.flows
    for first, last in _days(stores.city, start, min(end, now)):
        flows = store.read(first, last)
        if flows is not None:
            yield flows.isel(time=flows["time"].values + stores.city.slot <= now)


def _observed_until(stores: CityStores, now: np.datetime64) -> np.datetime64 | None:
    """The end of the newest observed slot that has closed; None where there is none."""
    store = stores.flows
    for day in reversed(store.days()):
        flows = store.read_day(day)
        if flows is not None:
            ends = flows["time"].values[flows["observed"].values] + stores.city.slot
            if (ends <= now).any():
                newest: np.datetime64 = ends[ends <= now].max()
                return newest
    return None


def _origin(city: City, version: str, forecast: xr.Dataset) -> dict[str, Any]:
    """The fields of a `schema.ForecastEntry`.

    An older forecast, which does not say it, or beside newer ones in a file is empty there, was complete.
    """

    def said(name: str, otherwise: str) -> str:
        value = forecast[name].item() if name in forecast else None
        return value if isinstance(value, str) and value else otherwise

    return {
        "init_time": _isoformat(city, forecast["init_time"].values[None])[0],
        "model": version,
        "forecaster": said("forecaster", version),
        "state": said("state", COMPLETE),
        "reason": said("reason", ""),
        "hindcast": "hindcast" in forecast and forecast["hindcast"].item() == 1,
        "created": _isoformat(city, forecast["created"].values[None])[0],
    }


def _period(city: City, start: np.datetime64, end: np.datetime64) -> dict[str, Any]:
    return {"city": city.name, "start": city.isoformat(start), "end": city.isoformat(end)}


def _isoformat(city: City, times: np.ndarray) -> list[str]:
    return [moment.isoformat() for moment in city.local(times)]


def _leads(forecast: xr.Dataset) -> list[int]:
    return [int(lead) for lead in forecast["lead_time"].values // MINUTE]


def _levels(dataset: xr.Dataset) -> list[float]:
    return dataset["level"].values.round(4).tolist() if "level" in dataset else []


def _by_kind(flow: xr.DataArray) -> dict[str, Any]:
    return {kind: _numbers(flow.sel(flow_kind=kind).values) for kind in FLOW_KINDS}


def _numbers(values: np.ndarray) -> Any:
    """Nested lists, to a thousandth; what is not a number becomes null when it is written as JSON."""
    return np.asarray(values, np.float64).round(FLOW_DECIMALS).tolist()
