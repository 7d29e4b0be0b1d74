"""A small city, its stores and its models, for the tests that need some city and do not care which."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from trafficcast.config.city import City
from trafficcast.stores.city_stores import CityStores
from trafficcast.stores.registry import Registry


def small_city(**changes: Any) -> City:
    """The city of conftest's configuration but for slots of half an hour, with other values where they are given."""
    milan = {"west": 9.10, "east": 9.26, "south": 45.42, "north": 45.52, "timezone": "Europe/Rome"}
    return City(**{**milan, "rows": 10, "cols": 6, "name": "small", **changes})


def stores_in(data: Path, city: City) -> CityStores:
    """The stores of a city below a folder of data, with the models in the folder `models` beside it."""
    return CityStores(city, data, data.parent / "models")


def unsealed(registry: Registry, version: str) -> dict[str, Any]:
    """Take the seal off a model, as an early version of the project published it, and return its card."""
    file = registry.root / version / "card.json"
    card: dict[str, Any] = json.loads(file.read_text())
    del card["files"], card["sha256"]
    file.write_text(json.dumps(card))
    return card
