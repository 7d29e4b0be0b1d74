"""What a model's folder says is typical, read without its network."""

from __future__ import annotations

from safetensors import SafetensorError
from safetensors.numpy import load_file

from trafficcast.baselines import Climatology
from trafficcast.errors import InputError
from trafficcast.normal import Normal
from trafficcast.registry import Registry


def read_typical(registry: Registry, version: str) -> Normal | Climatology:
    """What is normal on each day of the week where the model knows it, else its climatology.

    Both have `at(times)`, vehicles per slot. Raises InputError where the version is unknown or its file damaged.
    """
    registry.card(version)
    file = registry.root / version / "climatology.safetensors"
    try:
        tables = load_file(file)
        city = registry.city
        return Normal(city, tables["normal"]) if "normal" in tables else Climatology(city, tables["table"])
    except (OSError, SafetensorError, KeyError) as error:
        raise InputError(f"cannot read {file}: {error}") from None
