"""What to do next where there is nothing to show yet."""

from __future__ import annotations

from trafficcast.config.city import City
from trafficcast.config.settings import Config
from trafficcast.stores.city_stores import CityStores
from trafficcast.stores.registry import Registry


def what_is_missing(config: Config, city: City) -> str:
    """The one sentence that says what to do before there is a forecast."""
    name = city.name
    if not CityStores.of(config, city).flows.days():
        return (
            f"No data of {name} yet: run trafficcast ingest PATH --city {name} with its GPS points or trips, or name "
            f"an inbox under [cities.{name}.feed] and run trafficcast schedule."
        )
    if Registry(config.paths.models / name, city).champion() is None:
        return f"No model of {name} yet: run trafficcast train --city {name}."
    return (
        f"No forecast of {name} yet: run trafficcast schedule, trafficcast forecast --city {name}, or trafficcast "
        "replay for slots gone by."
    )
