"""Transfer: a training that starts from the weights of another model instead of random ones."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, replace

import numpy as np
import torch
from safetensors.torch import load
from torch import nn

from trafficcast.config.city import City
from trafficcast.errors import InputError
from trafficcast.stores.city_stores import CityStores
from trafficcast.stores.registry import VERSION
from trafficcast.stores.seal import CARD, damaged


@dataclass(frozen=True)
class _StartingModel:
    """The model that a training starts from: its weights and their SHA-256.

    `seen_until` is the end of its training slots, naive UTC, where its grid overlaps the city's; otherwise None.
    """

    city: str
    version: str
    sha256: str
    weights: dict[str, torch.Tensor]
    seen_until: np.datetime64 | None

    def has_seen(self, time: np.datetime64) -> bool:
        """Return whether it was trained on slots of this city from that time on, naive UTC."""
        return self.seen_until is not None and bool(self.seen_until > time)

    def card(self, city: City) -> dict[str, str | None]:
        """Return the entry `transfer` in the card of the new model, of `city`."""
        seen_until = None if self.seen_until is None else city.isoformat(self.seen_until)
        return {"city": self.city, "version": self.version, "weights_sha256": self.sha256, "seen_until": seen_until}

    def load_into(self, network: nn.Module) -> None:
        """Copy the weights into a network. Raises an InputError that names the first parameter that does not fit.

        Buffers are fitted to a city (the linear forecast of VMRNN-C) and stay as they are.
        """
        own = {name: buffer for name, buffer in network.named_buffers() if name in self.weights}
        weights, wanted = self.weights | own, network.state_dict()
        for name in [*wanted, *weights]:
            shapes = [tuple(tensors[name].shape) if name in tensors else None for tensors in (weights, wanted)]
            if shapes[0] != shapes[1]:
                there, here = ("is missing" if shape is None else f"has the shape {shape}" for shape in shapes)
                raise InputError(
                    f"--transfer {self.city}/{self.version}: {name} {there} there and {here} in this network: "
                    "only a model of the same architecture can be a start"
                )
        network.load_state_dict(weights)


def _find_starting_model(stores: CityStores, architecture: str, reference: str) -> _StartingModel:
    """Load the model VERSION, of this city, or CITY/VERSION.

    Raises InputError where there is none, where its file is damaged, and where it has another architecture.
    """
    city = stores.city
    owner, _, version = reference.rpartition("/")
    owner = owner or city.name
    if not (VERSION.fullmatch(owner) and VERSION.fullmatch(version)):
        raise InputError(f"--transfer '{reference}' is neither VERSION nor CITY/VERSION, such as {city.name}/vmrnn-c-1")
    registry = replace(stores, city=city.model_copy(update={"name": owner})).registry
    card = registry.card(version)
    try:
        name, box = card["architecture"]["name"], card["grid"]
        seen_until = city.parse_time(card["split"]["train_end"])
        elsewhere = (
            city.east <= box["west"]
            or box["east"] <= city.west
            or city.north <= box["south"]
            or box["north"] <= city.south
        )
    except (LookupError, TypeError) as error:
        raise damaged(registry.root / version, CARD, error) from None

    def _parse(content: bytes) -> tuple[str, dict[str, torch.Tensor]]:
        return hashlib.sha256(content).hexdigest(), load(content)

    digest, weights = registry.read(version, "model.safetensors", _parse)
    if name != architecture:
        raise InputError(f"--transfer {reference} is a {name} and cannot start a {architecture}: give --model {name}")
    return _StartingModel(owner, version, digest, weights, None if elsewhere else seen_until)
