"""The application: an answer or an error for each address. It has only GET and HEAD, and writes nothing."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from typing import Annotated, Any, Literal

import numpy as np
from fastapi import APIRouter, Depends, FastAPI, HTTPException, Path, Query, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import HTMLResponse, JSONResponse, RedirectResponse, Response
from fastapi.security import HTTPBearer
from pydantic import BaseModel
from starlette.exceptions import HTTPException as StarletteHTTPException
from starlette.middleware.cors import CORSMiddleware

from trafficcast import __version__
from trafficcast.api import answers, schema
from trafficcast.api.middleware import _BearerToken, _Conditional
from trafficcast.api.page import _operations_page
from trafficcast.config.city import City
from trafficcast.config.settings import Config
from trafficcast.errors import InputError
from trafficcast.stores.city_stores import CityStores

_GRID_DAYS, _SERIES_DAYS = 2, 31
_EARLIEST, _LATEST = np.datetime64("1970-01-01", "us"), np.datetime64("2200-01-01", "us")
_DESCRIPTION = f"""The cities' observed flows, forecasts, scores and models, read-only.

Times in: ISO 8601; without an offset they are in the city's time zone. start is inclusive, end exclusive. At most \
{_GRID_DAYS} days of grids or {_SERIES_DAYS} days of anything else a request. Times out have the city's offset.

Flows are vehicles per slot. Row 0 is the northern row, column 0 the western one. A null is an unknown number.

Every answer has an ETag: send it back as If-None-Match, and an answer that has not changed is a 304 without content. \
An error is {{"error": sentence}}."""
_PAGE_POLICY = "default-src 'none'; style-src 'unsafe-inline'; base-uri 'none'; form-action 'none'"

_log = logging.getLogger("trafficcast.api")
_Start = Annotated[str, Query(description="first time, inclusive, such as 2008-06-04 or 2008-06-04T18:00-07:00")]
_End = Annotated[str, Query(description="last time, exclusive")]
_REFUSALS: dict[int | str, dict[str, Any]] = {
    400: {"model": schema.Error, "description": "a time, a period or a number is wrong, or the period too long"},
    401: {"model": schema.Error, "description": "the token is missing or wrong"},
    404: {"model": schema.Error, "description": "there is no such city, cell, forecast or model"},
    503: {"model": schema.Error, "description": "a stored file is damaged, or there is no forecast yet"},
    "default": {"model": schema.Error, "description": "any other error"},
}
_router = APIRouter(prefix="/v1", responses=_REFUSALS)


def _utc_now() -> np.datetime64:
    """Return the present time, naive UTC."""
    return np.datetime64("now", "us")


def _create_app(
    config: Config,
    token: str | None = None,
    origins: Sequence[str] = (),
    now: Callable[[], np.datetime64] = _utc_now,
) -> FastAPI:
    """Make the API of all cities of a configuration.

    Every request must show the `token` if there is one, also for the page of operations. `origins` names the pages
    whose scripts a browser lets read the answers (CORS). `now` returns the present time, naive UTC.
    """
    app = FastAPI(
        title="trafficcast",
        version=__version__,
        description=_DESCRIPTION,
        docs_url=None,  # FastAPI's own page loads scripts from outside
        redoc_url=None,
        # For the schema only: the middleware checks the token.
        dependencies=[Depends(HTTPBearer(auto_error=False))] if token else [],
    )
    app.state.config, app.state.now = config, now
    app.include_router(_router)
    app.add_api_route("/docs", _page, include_in_schema=False)
    app.add_api_route("/", lambda: RedirectResponse("docs"), include_in_schema=False)
    app.add_exception_handler(StarletteHTTPException, _refused)
    app.add_exception_handler(RequestValidationError, _invalid)
    app.add_exception_handler(InputError, _damaged)
    app.add_exception_handler(OSError, _damaged)
    app.add_exception_handler(Exception, _failed)
    app.add_middleware(_Conditional)
    if token:
        app.add_middleware(_BearerToken, token=token)
    if origins:  # the outermost: a browser's first request has no token, and it must be able to read a 401
        app.add_middleware(
            CORSMiddleware,
            allow_origins=list(origins),
            allow_methods=["GET", "HEAD"],
            allow_headers=["Authorization", "If-None-Match"],
            expose_headers=["ETag"],
        )
    return app


def _find_city(request: Request, city: Annotated[str, Path(description="a city's name")]) -> CityStores:
    """Return the stores of the city that an address names."""
    config: Config = request.app.state.config
    if city not in config.cities:
        raise HTTPException(404, f"there is no such city; there are: {', '.join(sorted(config.cities)) or 'none'}")
    found = config.city(city)
    return CityStores.of(config, found)


_Stores = Annotated[CityStores, Depends(_find_city)]


@_router.get("/cities", response_model=schema.Cities)
def cities(request: Request) -> Response:
    """The cities of the configuration."""
    config: Config = request.app.state.config
    entries = [answers.city_entry(config.city(name)) for name in sorted(config.cities)]
    return _json(schema.Cities(cities=entries))


@_router.get("/cities/{city}", response_model=schema.City)
def city(request: Request, stores: _Stores) -> Response:
    """A city: its grid, its cells, its newest observed slot and its newest forecast."""
    return _json(answers.city_details(stores, request.app.state.now()))


@_router.get("/cities/{city}/forecasts", response_model=schema.Forecasts)
def forecasts(stores: _Stores, start: _Start, end: _End) -> Response:
    """The published forecasts with init times in a period of at most 31 days, with the provenance of each."""
    return _json(answers.forecast_list(stores, *_period(stores.city, start, end, _SERIES_DAYS)))


_Format = Annotated[Literal["json", "geojson"], Query(description="json, or geojson: one feature a cell")]
_SkipZeros = Annotated[bool, Query(description="geojson: leave out the cells that are 0 in every slot and kind")]
_GEOJSON: dict[int | str, dict[str, Any]] = {
    200: {
        "content": {"application/geo+json": {}},
        "description": "the forecast; as GeoJSON, each feature has the properties row, col, inflow_0, ... "
        "outflow_90: the flow by kind and lead in minutes, vehicles per slot",
    }
}


@_router.get("/cities/{city}/forecasts/latest", response_model=schema.Forecast, responses=_GEOJSON)
def latest(stores: _Stores, format: _Format = "json", skip_zeros: _SkipZeros = False) -> Response:
    """The published forecast with the newest init time."""
    found = answers.latest(stores)
    if found is None:
        raise HTTPException(503, f"no forecast of {stores.city.name} has been published yet", {"Retry-After": "60"})
    return _forecast(stores.city, found, format, skip_zeros)


@_router.get("/cities/{city}/forecasts/{init_time}", response_model=schema.Forecast, responses=_GEOJSON)
def forecast(
    stores: _Stores,
    init_time: Annotated[str, Path(description="the start of the first slot forecast")],
    format: _Format = "json",
    skip_zeros: _SkipZeros = False,
) -> Response:
    """The forecast of an init time."""
    time = _time(stores.city, init_time)
    found = answers.forecast_at(stores, time)
    if found is None:
        raise HTTPException(404, f"no forecast of {stores.city.name} starts at {stores.city.isoformat(time)}")
    return _forecast(stores.city, found, format, skip_zeros)


@_router.get("/cities/{city}/observations", response_model=schema.Observations)
def observations(request: Request, stores: _Stores, start: _Start, end: _End) -> Response:
    """The observed grids of the slots that start in a period of at most 2 days and have ended."""
    period = _period(stores.city, start, end, _GRID_DAYS)
    return _json(answers.observations(stores, *period, request.app.state.now()))


@_router.get("/cities/{city}/cells/{row}/{col}", response_model=schema.CellSeries)
def cell(
    request: Request,
    stores: _Stores,
    row: Annotated[int, Path(description="row of the grid; row 0 is the northern one")],
    col: Annotated[int, Path(description="column of the grid; column 0 is the western one")],
    start: _Start,
    end: _End,
) -> Response:
    """One cell over at most 31 days: observed flows, and the forecasts of the same slots by lead, with intervals."""
    rows, cols = stores.city.rows, stores.city.cols
    if not (0 <= row < rows and 0 <= col < cols):
        raise HTTPException(404, f"there is no such cell: rows run from 0 to {rows - 1}, columns from 0 to {cols - 1}")
    period = _period(stores.city, start, end, _SERIES_DAYS)
    return _json(answers.cell_series(stores, row, col, *period, request.app.state.now()))


@_router.get("/cities/{city}/scores", response_model=schema.Scores)
def scores(stores: _Stores, start: _Start, end: _End) -> Response:
    """Errors of the verified forecasts with init times in a period of at most 31 days, beside every baseline's."""
    return _json(answers.scores(stores, *_period(stores.city, start, end, _SERIES_DAYS)))


@_router.get("/cities/{city}/models", response_model=schema.Models)
def models(stores: _Stores) -> Response:
    """The city's trained models and its champion."""
    return _json(answers.model_list(stores))


@_router.get("/cities/{city}/models/{version}", response_model=schema.Model)
def model(stores: _Stores, version: Annotated[str, Path(description="a model's version")]) -> Response:
    """A model's card."""
    known = stores.registry.versions()
    if version not in known:
        raise HTTPException(404, f"there is no such model; {stores.city.name} has: {', '.join(known) or 'none yet'}")
    return _json(answers.model_card(stores, version))


def _forecast(city: City, found: tuple[str, Any], form: str, skip_zeros: bool) -> Response:
    """Answer with a forecast, as JSON or as GeoJSON."""
    if form == "geojson":
        collection = answers.forecast_geojson(city, *found, zeros=not skip_zeros)
        return JSONResponse(collection, media_type="application/geo+json")
    return _json(answers.forecast_grid(city, *found))


def _page(request: Request) -> HTMLResponse:
    """Answer with the page of operations."""
    return HTMLResponse(_operations_page(request.app.openapi()), headers={"Content-Security-Policy": _PAGE_POLICY})


def _period(city: City, start: str, end: str, most_days: int) -> tuple[np.datetime64, np.datetime64]:
    """Return the start and the end of a period, naive UTC."""
    first, last = _time(city, start), _time(city, end)
    if first >= last:
        raise HTTPException(400, f"start {city.isoformat(first)} does not lie before end {city.isoformat(last)}")
    # An hour more, for the day on which clocks are set back.
    if last - first > np.timedelta64(most_days * 24 + 1, "h"):
        raise HTTPException(400, f"a request may cover at most {most_days} days: ask for less at once")
    return first, last


def _time(city: City, text: str) -> np.datetime64:
    """Return a time of an address, naive UTC. A plus sign that was not written as %2B arrives as a blank."""
    try:
        time = city.parse_time(text.replace(" ", "+") if "T" in text else text)
    except InputError as error:
        raise HTTPException(400, str(error)) from None
    if not _EARLIEST <= time < _LATEST:
        raise HTTPException(400, f"{text} is out of range: years run from 1970 to 2199")
    return time


def _json(answer: BaseModel) -> Response:
    """Answer with JSON."""
    return Response(answer.model_dump_json(), media_type="application/json")


def _refused(request: Request, error: Exception) -> Response:
    """Answer a request that asks for something that does not exist or is not allowed."""
    assert isinstance(error, StarletteHTTPException)
    sentence, headers = str(error.detail), dict(error.headers or {})
    if error.status_code == 405:
        sentence, headers = "this API is read-only: use GET or HEAD", {"Allow": "GET, HEAD"}
    elif error.status_code == 404 and sentence == "Not Found":
        sentence = "there is nothing at this address: see /docs"
    return JSONResponse({"error": sentence}, error.status_code, headers)


def _invalid(request: Request, error: Exception) -> Response:
    """Answer a request with a missing or wrong parameter."""
    assert isinstance(error, RequestValidationError)
    first = error.errors()[0]
    return JSONResponse({"error": f"{first['loc'][-1]}: {first['msg']}"}, 400)


def _damaged(request: Request, error: Exception) -> Response:
    """Answer a request for a damaged file. The error goes to the log only, as it names files of this machine."""
    _log.error("%s: %s", request.scope["path"].encode("unicode_escape").decode(), error)
    sentence = "a stored file that this answer needs cannot be read: the server's log says which"
    return JSONResponse({"error": sentence}, 503, {"Retry-After": "60"})


def _failed(request: Request, error: Exception) -> Response:
    """Answer a request that failed by a bug."""
    return JSONResponse({"error": "the server failed: its log says why"}, 500)
