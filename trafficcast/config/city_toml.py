"""A city's table of `config.toml`, as text."""

from __future__ import annotations

import tomlkit

from trafficcast.config.city import City


def city_toml(city: City) -> str:
    """Write a city's table of the configuration.

    Parameters
    ----------
    city
        The city. Its box, grid, slot length, time zone and holidays are written, and the settings of its feed that were
        given.

    Returns
    -------
    str
        TOML: [cities.NAME], then [cities.NAME.feed] and [cities.NAME.feed.columns] where they have a key.
    """
    table = tomlkit.table()
    for edge in ("west", "east", "south", "north"):
        table.add(edge, tomlkit.value(f"{getattr(city, edge):.2f}"))
    for key in ("rows", "cols", "slot_minutes", "timezone", "holidays"):
        if getattr(city, key) is not None:
            table.add(key, getattr(city, key))
    feed = city.feed.model_dump(mode="json", exclude_unset=True)
    if feed:
        table.add("feed", feed)
    return tomlkit.document().add("cities", tomlkit.table(is_super_table=True).add(city.name, table)).as_string()
