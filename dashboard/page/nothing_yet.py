"""The sentence that pages show while a city has no data, no model or no forecast."""

from __future__ import annotations

from trafficcast.stores.city_stores import CityStores


def next_step(stores: CityStores) -> str:
    """Say what is missing before there is a forecast, and which command makes it.

    Parameters
    ----------
    stores
        The city and its stores.

    Returns
    -------
    str
        One sentence.
    """
    name = stores.city.name
    if not stores.flows.days():
        return (
            f"There are no data of {name} yet: run trafficcast ingest PATH --city {name} with its GPS points or trips, "
            f"or name an inbox under [cities.{name}.feed] and run trafficcast schedule."
        )
    if stores.registry.champion() is None:
        return f"There is no model of {name} yet: run trafficcast train --city {name}."
    return (
        f"There is no forecast of {name} yet: run trafficcast schedule or trafficcast forecast --city {name}, or "
        "trafficcast replay for past slots."
    )
