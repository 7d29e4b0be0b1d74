"""Traffic-flow forecasting: from the GPS records of a city's taxis to forecasts of inflow and outflow on a grid.

Six functions do the whole job; each takes the city that `open_city` returns. Times are text in the city's time zone,
such as "2024-04-28T18:00", or NumPy times in UTC. Flows are vehicles per slot, xarray datasets with the dimensions
(time, flow_kind, row, col).

    import trafficcast as tc

    city = tc.open_city("demo", config="config.toml")  # the city, its stores and its models
    tc.ingest("gps/", city)  # count records into the flow store; returns the quality report
    flows = tc.read_flows(city)  # flow(time, flow_kind, row, col)
    card = tc.train(city, train_end="2024-04-20", valid_end="2024-04-24")  # publish a model; returns its card
    forecast = tc.forecast(city, init_time="2024-04-28T18:00")  # the next four slots
    scores = tc.backtest(city, start="2024-04-24", end="2024-04-29")  # the model beside every baseline

`help(tc.train)` and so on explain each. What a person has to mend raises `InputError`, a job that failed `JobError`;
both say in one sentence where and why. The command line, `trafficcast COMMAND`, calls the same functions.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from trafficcast.errors import InputError, JobError
    from trafficcast.forecasting.evaluation import backtest
    from trafficcast.forecasting.publish import forecast
    from trafficcast.ingestion.ingest import ingest
    from trafficcast.stores.city_stores import CityStores, open_city
    from trafficcast.stores.flows import read_flows
    from trafficcast.training.train import train

__version__ = "0.2.0"
__all__ = [
    "CityStores",
    "InputError",
    "JobError",
    "backtest",
    "forecast",
    "ingest",
    "open_city",
    "read_flows",
    "train",
]

# A name is imported when it is first used (PEP 562): `import trafficcast` takes milliseconds, PyTorch takes seconds.
_MODULES = {
    "CityStores": "stores.city_stores",
    "InputError": "errors",
    "JobError": "errors",
    "backtest": "forecasting.evaluation",
    "forecast": "forecasting.publish",
    "ingest": "ingestion.ingest",
    "open_city": "stores.city_stores",
    "read_flows": "stores.flows",
    "train": "training.train",
}


def __getattr__(name: str) -> Any:
    if name not in _MODULES:
        raise AttributeError(f"module 'trafficcast' has no attribute '{name}'")
    return getattr(import_module(f"trafficcast.{_MODULES[name]}"), name)


def __dir__() -> list[str]:
    return [*__all__, "__version__"]
