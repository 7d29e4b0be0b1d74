"""The answers of the API: the contracts of flows, forecasts and scores as JSON. A null is an unknown number.

Times are ISO 8601 in the city's time zone, with its offset. Nested lists are arrays; each field's description names
their dimensions, the outermost one first.
"""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field

Number = float | None
Time = Annotated[str, Field(description="ISO 8601, in the city's time zone, with its offset")]
Row = Annotated[int, Field(ge=0, description="row of the grid; row 0 is the northern one")]
Col = Annotated[int, Field(ge=0, description="column of the grid; column 0 is the western one")]
Leads = Annotated[list[int], Field(description="(lead) minutes from the init time to the start of the slot forecast")]
Levels = Annotated[
    list[float],
    Field(description="(level) shares of observed flows that shall lie inside each interval; empty without intervals"),
]
Version = Annotated[str, Field(description="a model's version")]


Unreadable = Annotated[
    list[str], Field(description="local days of which a file is damaged; what it holds is left out of the answer")
]


class Answer(BaseModel):
    """The base of all answers."""

    model_config = ConfigDict(extra="forbid")


class Error(Answer):
    """An error."""

    error: str = Field(description="one sentence that names the error and the remedy")


class CityEntry(Answer):
    """A city: its box in WGS-84 degrees, its grid and its slots."""

    name: str
    timezone: str = Field(description="IANA time zone")
    west: float
    east: float
    south: float
    north: float
    rows: int = Field(description="rows of cells, from north to south")
    cols: int = Field(description="columns of cells, from west to east")
    slot_minutes: int = Field(description="minutes of a slot")


class Cities(Answer):
    """The cities of the configuration."""

    cities: list[CityEntry]


class City(CityEntry):
    """A city, with its newest data and its newest forecast."""

    lat: list[float] = Field(description="(row) latitude of the cells' centres, degrees north")
    lon: list[float] = Field(description="(col) longitude of the cells' centres, degrees east")
    observed_until: Time | None = Field(description="end of the newest observed slot")
    latest_forecast: Time | None = Field(description="init time of the newest published forecast")
    champion: Version | None = Field(description="version of the model whose forecasts are published")


class ForecastEntry(Answer):
    """The provenance of a forecast."""

    init_time: Time = Field(description="start of the first slot forecast; nothing later was known")
    model: Version = Field(description="version of the champion for which the forecast is published")
    forecaster: str = Field(description="the forecaster that made it: the model's version, or a baseline's name")
    state: str = Field(
        description="complete: by the model from four observed slots; degraded: by the model with a slot filled in, "
        "or by an earlier champion; baseline: by a baseline"
    )
    reason: str = Field(description="why the forecast is not complete; may be empty")
    hindcast: bool = Field(description="whether it was made after its time, from the data known at its time")
    created: Time = Field(description="when the forecast was made")


class Forecasts(Answer):
    """The published forecasts of a period, in the order of time."""

    city: str
    start: Time
    end: Time = Field(description="exclusive")
    forecasts: list[ForecastEntry]
    unreadable: Unreadable


class Frames(Answer):
    """Flows of the grid, vehicles per slot."""

    inflow: list[list[list[float]]] = Field(description="(lead, row, col) vehicles that enter the cell in the slot")
    outflow: list[list[list[float]]] = Field(description="(lead, row, col) vehicles that leave the cell in the slot")


class FrameBounds(Answer):
    """Bounds of prediction intervals over the grid, vehicles per slot."""

    inflow: list[list[list[list[float]]]] = Field(description="(level, lead, row, col)")
    outflow: list[list[list[list[float]]]] = Field(description="(level, lead, row, col)")


class Forecast(ForecastEntry):
    """One forecast of the whole grid, vehicles per slot."""

    city: str
    units: str
    lead_minutes: Leads
    valid_times: list[str] = Field(description="(lead) starts of the slots forecast")
    flow: Frames = Field(description="forecast flow of each cell and slot")
    levels: Levels
    lower: FrameBounds | None = Field(description="lower bounds; null without intervals")
    upper: FrameBounds | None = Field(description="upper bounds; null without intervals")


class ObservedFrame(Answer):
    """The counts of one slot."""

    time: Time = Field(description="the slot's start")
    observed: bool = Field(description="whether the feed was alive in the slot")
    coverage: Number = Field(description="share of the slot's minutes with a report")
    vehicles: int | None = Field(description="distinct vehicles with a report in the slot; null where unknown")
    inflow: list[list[int]] | None = Field(
        description="(row, col) vehicles that entered the cell; null where not observed"
    )
    outflow: list[list[int]] | None = Field(
        description="(row, col) vehicles that left the cell; null where not observed"
    )


class Observations(Answer):
    """The stored slots of a period that have ended, in the order of time."""

    city: str
    start: Time
    end: Time = Field(description="exclusive")
    units: str
    slots: list[ObservedFrame]
    unreadable: Unreadable


class CellObserved(Answer):
    """Counts of one cell; null where a slot was not observed or has not ended."""

    inflow: list[int | None] = Field(description="(time)")
    outflow: list[int | None] = Field(description="(time)")


class CellForecast(Answer):
    """Forecasts of one cell; null where no forecast with that lead was published."""

    inflow: list[list[Number]] = Field(description="(lead, time) flow of the slot that was forecast with that lead")
    outflow: list[list[Number]] = Field(description="(lead, time)")


class CellBounds(Answer):
    """Bounds of prediction intervals of one cell."""

    inflow: list[list[list[Number]]] = Field(description="(level, lead, time)")
    outflow: list[list[list[Number]]] = Field(description="(level, lead, time)")


class CellSeries(Answer):
    """One cell over time: observed flows and the forecasts of the same slots, vehicles per slot."""

    city: str
    row: Row
    col: Col
    lat: float = Field(description="of the cell's centre, degrees north")
    lon: float = Field(description="of the cell's centre, degrees east")
    start: Time
    end: Time = Field(description="exclusive")
    units: str
    times: list[str] = Field(description="(time) starts of all slots of the period")
    observed: CellObserved
    lead_minutes: Leads
    forecast: CellForecast
    levels: Levels
    lower: CellBounds
    upper: CellBounds
    unreadable: Unreadable


class Scores(Answer):
    """Errors of the verified forecasts of a period, over all cells and both flow kinds."""

    city: str
    start: Time
    end: Time = Field(description="exclusive")
    units: str
    init_times: list[str] = Field(description="(forecast) init times, in order")
    model: list[str] = Field(description="(forecast) version of the champion for which each is published")
    lead_minutes: Leads
    rmse: dict[str, list[list[Number]]] = Field(
        description="forecaster -> (forecast, lead) root mean squared error, vehicles per slot"
    )
    mae: dict[str, list[list[Number]]] = Field(
        description="forecaster -> (forecast, lead) mean absolute error, vehicles per slot"
    )
    levels: Levels
    inside: list[list[list[Number]]] = Field(
        description="(forecast, level, lead) share of observed flows inside the interval"
    )
    width: list[list[list[Number]]] = Field(description="(forecast, level, lead) mean width, vehicles per slot")
    unreadable: Unreadable


class ModelEntry(Answer):
    """A trained model and its errors."""

    version: Version
    champion: bool
    created: str | None
    validation_rmse: Number = Field(description="vehicles per slot")
    test_rmse: Number = Field(description="vehicles per slot")


class Models(Answer):
    """The city's trained models."""

    city: str
    champion: Version | None
    models: list[ModelEntry]


class Model(Answer):
    """A model's card, as the training wrote it."""

    city: str
    champion: bool
    card: dict[str, Any] = Field(description="architecture, grid, periods, metrics beside every baseline's, ...")
