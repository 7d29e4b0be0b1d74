"""The answers of the API, made from the stores and the registry. They read at most a day of a store at once.

Times are naive UTC here. A period includes its start and excludes its end.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from typing import Any

import numpy as np
import xarray as xr

from trafficcast.api import schema
from trafficcast.config.city import DAY, FLOW_KINDS, HORIZON, City
from trafficcast.errors import DamagedFile, InputError
from trafficcast.stores.city_stores import CityStores
from trafficcast.stores.day_store import last_stored
from trafficcast.stores.flows import last_observed
from trafficcast.stores.forecasts import COMPLETE, has_intervals
from trafficcast.stores.geojson import FLOW_DECIMALS, feature_collection, forecast_features
from trafficcast.stores.published import latest_forecast, published

_UNITS = "vehicles per slot"
_MINUTE = np.timedelta64(1, "m")
_US = np.timedelta64(1, "us")
_log = logging.getLogger("trafficcast.api")
_UNKNOWN = np.full(HORIZON, np.nan)


def city_entry(city: City) -> schema.CityEntry:
    """Describe a city as the configuration does.

    Parameters
    ----------
    city
        The city.

    Returns
    -------
    schema.CityEntry
        The city's box, grid and slots.
    """
    return schema.CityEntry.model_validate({"name": city.name, **city.grid()})


def city_details(stores: CityStores, now: np.datetime64) -> schema.City:
    """Describe a city, its newest data and its newest forecast.

    Parameters
    ----------
    stores
        The city and its stores.
    now
        The present time, naive UTC; slots that have not ended are left out.

    Returns
    -------
    schema.City
        The city.

    Raises
    ------
    InputError
        A day's file is damaged.
    """
    city = stores.city
    stored = [last_stored(stores.forecasts(version)) for version in stores.registry.champions()]
    newest = max((time for time in stored if time is not None), default=None)
    newest_slot = last_observed(stores.flows, now)
    return schema.City(
        **city_entry(city).model_dump(),
        lat=city.lat.round(6).tolist(),
        lon=city.lon.round(6).tolist(),
        observed_until=None if newest_slot is None else city.isoformat(newest_slot + city.slot),
        latest_forecast=None if newest is None else city.isoformat(newest),
        champion=stores.registry.champion(),
    )


def latest(stores: CityStores) -> tuple[str, xr.Dataset] | None:
    """Read the published forecast with the newest init time.

    Parameters
    ----------
    stores
        The city and its stores.

    Returns
    -------
    tuple[str, xr.Dataset] | None
        The champion's version and the forecast, without the dimension init_time; None if nothing was published.

    Raises
    ------
    InputError
        A day's file is damaged.
    """
    found = latest_forecast(stores)
    return None if found is None else (found[0], found[1].isel(init_time=-1))


def forecast_at(stores: CityStores, init_time: np.datetime64) -> tuple[str, xr.Dataset] | None:
    """Read the published forecast of an init time.

    Parameters
    ----------
    stores
        The city and its stores.
    init_time
        Start of the first slot that is forecast, naive UTC.

    Returns
    -------
    tuple[str, xr.Dataset] | None
        The champion's version and the forecast, without the dimension init_time; None if nothing was published.

    Raises
    ------
    InputError
        A day's file is damaged.
    """
    for version, forecasts in published(stores, init_time, init_time + _US):
        return version, forecasts.isel(init_time=0)
    return None


def forecast_list(stores: CityStores, start: np.datetime64, end: np.datetime64) -> schema.Forecasts:
    """List the published forecasts of a period.

    Parameters
    ----------
    stores
        The city and its stores.
    start
        First init time, naive UTC, inclusive.
    end
        Last init time, naive UTC, exclusive.

    Returns
    -------
    schema.Forecasts
        When each forecast was made, by which forecaster and how.

    Raises
    ------
    InputError
        A day's file was made for another grid.
    """
    damaged: list[DamagedFile] = []
    found = [
        (time, schema.ForecastEntry(**_provenance(stores.city, version, forecasts.isel(init_time=i))))
        for first, last in _days(stores.city, start, end)
        for version, forecasts in published(stores, first, last, damaged)
        for i, time in enumerate(forecasts["init_time"].values)
    ]
    return schema.Forecasts(
        **_period(stores.city, start, end),
        forecasts=[entry for _, entry in sorted(found, key=lambda one: one[0])],
        unreadable=_unreadable(damaged),
    )


def forecast_grid(city: City, version: str, forecast: xr.Dataset) -> schema.Forecast:
    """Give a forecast of the whole grid.

    Parameters
    ----------
    city
        The city.
    version
        The model's version.
    forecast
        Forecast of one init time (see `forecast_dataset`), vehicles per slot.

    Returns
    -------
    schema.Forecast
        The forecast, with the bounds of its prediction intervals if it has them.
    """
    bounded = has_intervals(forecast)
    return schema.Forecast(
        **_provenance(city, version, forecast),
        city=city.name,
        units=_UNITS,
        lead_minutes=_leads(forecast),
        valid_times=_isoformat(city, forecast["valid_time"].values),
        flow=schema.Frames(**_by_kind(forecast["flow"])),
        levels=_levels(forecast) if bounded else [],
        lower=schema.FrameBounds(**_by_kind(forecast["lower"])) if bounded else None,
        upper=schema.FrameBounds(**_by_kind(forecast["upper"])) if bounded else None,
    )


def forecast_geojson(city: City, version: str, forecast: xr.Dataset, zeros: bool) -> dict[str, Any]:
    """Give a forecast as GeoJSON, a feature for each cell.

    Parameters
    ----------
    city
        The city.
    version
        The model's version.
    forecast
        Forecast of one init time (see `forecast_dataset`), vehicles per slot.
    zeros
        Whether cells that are 0 in every slot and flow kind are included.

    Returns
    -------
    dict[str, Any]
        A FeatureCollection (see `forecast_features`), with the forecast's provenance beside `features`.
    """
    return feature_collection(
        forecast_features(city, forecast, zeros),
        **_provenance(city, version, forecast),
        city=city.name,
        units=_UNITS,
        lead_minutes=_leads(forecast),
        valid_times=_isoformat(city, forecast["valid_time"].values),
    )


def observations(
    stores: CityStores, start: np.datetime64, end: np.datetime64, now: np.datetime64
) -> schema.Observations:
    """Give the observed grids of a period.

    Parameters
    ----------
    stores
        The city and its stores.
    start
        First slot's start, naive UTC, inclusive.
    end
        Last slot's start, naive UTC, exclusive.
    now
        The present time, naive UTC; slots that have not ended are left out.

    Returns
    -------
    schema.Observations
        The slots in the order of time.

    Raises
    ------
    InputError
        A day's file was made for another grid.
    """
    slots = []
    damaged: list[DamagedFile] = []
    for flows in _closed_flows(stores, start, end, now, damaged):
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
    return schema.Observations(
        **_period(stores.city, start, end), units=_UNITS, slots=slots, unreadable=_unreadable(damaged)
    )


def cell_series(
    stores: CityStores, row: int, col: int, start: np.datetime64, end: np.datetime64, now: np.datetime64
) -> schema.CellSeries:
    """Give the observed flows of a cell, and the forecasts of the same slots.

    Parameters
    ----------
    stores
        The city and its stores.
    row
        Row of the cell; row 0 is the northern one.
    col
        Column of the cell; column 0 is the western one.
    start
        First slot's start, naive UTC, inclusive.
    end
        Last slot's start, naive UTC, exclusive.
    now
        The present time, naive UTC; slots that have not ended are left out.

    Returns
    -------
    schema.CellSeries
        All slots of the period, with null where a slot was not observed or not forecast.

    Raises
    ------
    InputError
        A day's file was made for another grid.
    """
    city = stores.city
    times = np.arange(city.slot_start(start - _US) + city.slot, end, city.slot)  # the first slot start not before start
    observed = np.full((len(FLOW_KINDS), len(times)), np.nan)
    damaged: list[DamagedFile] = []
    for flows in _closed_flows(stores, start, end, now, damaged):
        is_observed = flows["observed"].values
        at = np.searchsorted(times, flows["time"].values[is_observed])
        observed[:, at] = flows["flow"].sel(flow_kind=list(FLOW_KINDS)).values[is_observed, :, row, col].T

    forecast = np.full((len(FLOW_KINDS), HORIZON, len(times)), np.nan)
    bounds: dict[str, dict[float, np.ndarray]] = {"lower": {}, "upper": {}}
    for first, last in _days(city, start - (HORIZON - 1) * city.slot, end):
        for _, made in published(stores, first, last, damaged):
            cell = made.isel(row=row, col=col).sel(flow_kind=list(FLOW_KINDS))
            inits, leads = np.nonzero((made["valid_time"].values >= start) & (made["valid_time"].values < end))
            at = np.searchsorted(times, made["valid_time"].values[inits, leads])
            forecast[:, leads, at] = cell["flow"].values[inits, leads].T
            for name, by_level in bounds.items():
                for i, level in enumerate(_levels(made)):
                    table = by_level.setdefault(level, np.full_like(forecast, np.nan))
                    table[:, leads, at] = cell[name].values[inits, i, leads].T
    levels = sorted(bounds["lower"])

    def _stacked(name: str) -> dict[str, Any]:
        tables = [bounds[name][level] for level in levels]
        return {kind: [_numbers(table[i]) for table in tables] for i, kind in enumerate(FLOW_KINDS)}

    return schema.CellSeries(
        **_period(city, start, end),
        row=row,
        col=col,
        lat=round(float(city.lat[row]), 6),
        lon=round(float(city.lon[col]), 6),
        units=_UNITS,
        times=_isoformat(city, times),
        observed=schema.CellObserved(
            **{kind: [None if np.isnan(n) else int(n) for n in observed[i]] for i, kind in enumerate(FLOW_KINDS)}
        ),
        lead_minutes=[lead * city.slot_minutes for lead in range(HORIZON)],
        forecast=schema.CellForecast(**{kind: _numbers(forecast[i]) for i, kind in enumerate(FLOW_KINDS)}),
        levels=levels,
        lower=schema.CellBounds(**_stacked("lower")),
        upper=schema.CellBounds(**_stacked("upper")),
        unreadable=_unreadable(damaged),
    )


def scores(stores: CityStores, start: np.datetime64, end: np.datetime64) -> schema.Scores:
    """Give the scores of the forecasts of a period.

    Where several champions have scores of an init time, those of the newest champion count.

    Parameters
    ----------
    stores
        The city and its stores.
    start
        First init time, naive UTC, inclusive.
    end
        Last init time, naive UTC, exclusive.

    Returns
    -------
    schema.Scores
        The scores in the order of time.

    Raises
    ------
    InputError
        A day's file was made for another grid.
    """
    city = stores.city
    rows: dict[np.datetime64, tuple[str, xr.Dataset]] = {}
    damaged: list[DamagedFile] = []
    for version in stores.registry.champions():
        found = stores.scores(version).read(start, end, damaged=damaged)
        if found is not None:
            for i, time in enumerate(found["init_time"].values):
                rows.setdefault(time, (version, found.isel(init_time=i)))
    ordered = [rows[time] for time in sorted(rows)]
    names = list(dict.fromkeys(str(name) for _, row in ordered for name in row["forecaster"].values))
    levels = sorted({level for _, row in ordered for level in _levels(row)})

    def _errors(metric: str) -> dict[str, Any]:
        tables = [dict(zip(row["forecaster"].values.tolist(), row[metric].values, strict=True)) for _, row in ordered]
        return {name: [_numbers(table.get(name, _UNKNOWN)) for table in tables] for name in names}

    def _of_intervals(metric: str) -> list[Any]:
        values = [row[metric].values if metric in row else () for _, row in ordered]
        tables = [dict(zip(_levels(row), mine, strict=True)) for (_, row), mine in zip(ordered, values, strict=True)]
        return [[_numbers(table.get(level, _UNKNOWN)) for level in levels] for table in tables]

    return schema.Scores(
        **_period(city, start, end),
        units=_UNITS,
        init_times=_isoformat(city, np.array(sorted(rows), "datetime64[us]")),
        model=[version for version, _ in ordered],
        lead_minutes=[lead * city.slot_minutes for lead in range(HORIZON)],
        rmse=_errors("rmse"),
        mae=_errors("mae"),
        levels=levels,
        inside=_of_intervals("inside"),
        width=_of_intervals("width"),
        unreadable=_unreadable(damaged),
    )


def model_list(stores: CityStores) -> schema.Models:
    """List the city's trained models.

    Parameters
    ----------
    stores
        The city and its stores.

    Returns
    -------
    schema.Models
        The models, sorted by name and number, with their errors.

    Raises
    ------
    InputError
        A card is damaged.
    """
    champion = stores.registry.champion()
    entries = []
    for version in stores.registry.versions():
        try:
            card = stores.registry.card(version)
        except InputError as error:  # the other models are listed
            _log.error("%s", error)
            card = {}
        errors = {
            f"{split}_rmse": card.get("metrics", {}).get(split, {}).get(version, {}).get("rmse")
            for split in ("validation", "test")
        }
        entry = {"version": version, "champion": version == champion, "created": card.get("created"), **errors}
        entries.append(schema.ModelEntry(**entry))
    return schema.Models(city=stores.city.name, champion=champion, models=entries)


def model_card(stores: CityStores, version: str) -> schema.Model:
    """Give a model's card.

    Parameters
    ----------
    stores
        The city and its stores.
    version
        The model's version, which must exist.

    Returns
    -------
    schema.Model
        The card, and whether the model is the champion.

    Raises
    ------
    InputError
        The card is damaged.
    """
    champion = version == stores.registry.champion()
    return schema.Model(city=stores.city.name, champion=champion, card=stores.registry.card(version))


def _days(city: City, start: np.datetime64, end: np.datetime64) -> Iterator[tuple[np.datetime64, np.datetime64]]:
    """Cut a period at the city's midnights, so that one file is read at once."""
    first, last = city.local_days(np.array([start, end]))
    for day in np.arange(first - DAY, last + 2 * DAY):  # clocks set back over midnight may interleave two days
        begin, until = max(start, city.midnight(day)), min(end, city.midnight(day + DAY))
        if begin < until:
            yield begin, until


def _closed_flows(
    stores: CityStores, start: np.datetime64, end: np.datetime64, now: np.datetime64, damaged: list[DamagedFile]
) -> Iterator[xr.Dataset]:
    """Read the period's flows day by day, without the slots that have not ended."""
    store = stores.flows
    for first, last in _days(stores.city, start, min(end, now)):
        flows = store.read(first, last, damaged=damaged)
        if flows is not None:
            yield flows.isel(time=flows["time"].values + stores.city.slot <= now)


def _unreadable(damaged: list[DamagedFile]) -> list[str]:
    """Return the days of damaged files, and log what is wrong with each."""
    for message in dict.fromkeys(map(str, damaged)):
        _log.error("%s", message)
    return sorted({error.file.stem for error in damaged})


def _provenance(city: City, version: str, forecast: xr.Dataset) -> dict[str, Any]:
    """Return the fields of a `schema.ForecastEntry`.

    The fields of a forecast from an older version of the program may be missing or empty: it was complete.
    """

    def text(name: str, default: str) -> str:
        value = forecast[name].item() if name in forecast else None
        return value if isinstance(value, str) and value else default

    return {
        "init_time": _isoformat(city, forecast["init_time"].values[None])[0],
        "model": version,
        "forecaster": text("forecaster", version),
        "state": text("state", COMPLETE),
        "reason": text("reason", ""),
        "hindcast": "hindcast" in forecast and forecast["hindcast"].item() == 1,
        "created": _isoformat(city, forecast["created"].values[None])[0],
    }


def _period(city: City, start: np.datetime64, end: np.datetime64) -> dict[str, Any]:
    """Return the fields that name the city and the period of an answer."""
    return {"city": city.name, "start": city.isoformat(start), "end": city.isoformat(end)}


def _isoformat(city: City, times: np.ndarray) -> list[str]:
    """Write times in the city's time zone."""
    return [moment.isoformat() for moment in city.local(times)]


def _leads(forecast: xr.Dataset) -> list[int]:
    """Return a forecast's lead times in minutes."""
    return [int(lead) for lead in forecast["lead_time"].values // _MINUTE]


def _levels(dataset: xr.Dataset) -> list[float]:
    """Return the levels of prediction intervals; none without intervals."""
    return dataset["level"].values.round(4).tolist() if "level" in dataset else []


def _by_kind(flow: xr.DataArray) -> dict[str, Any]:
    """Return nested lists of a flow by flow kind."""
    return {kind: _numbers(flow.sel(flow_kind=kind).values) for kind in FLOW_KINDS}


def _numbers(values: np.ndarray) -> Any:
    """Return nested lists, to a thousandth; a value that is not a number becomes null in JSON."""
    return np.asarray(values, np.float64).round(FLOW_DECIMALS).tolist()
