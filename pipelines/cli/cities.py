"""Commands that list the configuration's cities and add one."""

from __future__ import annotations

from typing import Any

from trafficcast.config.settings import Config
from trafficcast.stores.flows import flow_store
from trafficcast.stores.registry import Registry


def _city_rows(config: Config) -> list[dict[str, Any]]:
    """A row for each city: what it is, and what is there of it."""
    rows = []
    for name in sorted(config.cities):
        city = config.city(name)
        days = flow_store(config.paths.data, city).days()
        rows.append(
            {
                "city": name,
                "grid": f"{city.rows} x {city.cols}",
                "slot_minutes": city.slot_minutes,
                "timezone": city.timezone,
                "first_day": str(days[0]) if days else None,
                "last_day": str(days[-1]) if days else None,
                "champion": Registry(config.paths.models / name, city).champion(),
            }
        )
    return rows
