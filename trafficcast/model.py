"""A trained model: its network, the climatology of its training split and its card, in a folder of the registry."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.numpy import load_file as load_arrays
from safetensors.numpy import save_file as save_arrays
from safetensors.torch import load_file, save_file

from trafficcast.errors import InputError
from trafficcast.files import atomic, write_json
from trafficcast.forecasters import Climatology, VmrnnForecaster
from trafficcast.nn import VMRNN, vmrnn_b, vmrnn_d
from trafficcast.registry import Registry

ARCHITECTURES: dict[str, Callable[..., VMRNN]] = {"vmrnn-b": vmrnn_b, "vmrnn-d": vmrnn_d}


@dataclass(frozen=True)
class Model:
    """`card` is what card.json holds: architecture, scale, grid, split, training, metrics (see `pipelines.train`)."""

    card: dict[str, Any]
    network: VMRNN
    climatology: Climatology

    @property
    def version(self) -> str:
        """The folder's name, for instance vmrnn-b-1."""
        return str(self.card["version"])

    @property
    def scale(self) -> float:
        """The training split's maximum over both kinds, vehicles per slot."""
        return float(self.card["scale"])

    def forecaster(self, device: torch.device) -> VmrnnForecaster:
        """The network behind the Forecaster protocol."""
        return VmrnnForecaster(self.network, self.scale, device)


def load_model(registry: Registry, version: str | None = None) -> Model:
    """A model ready to forecast; without a version the champion.

    Raises InputError where there is none, where it was trained for another grid, and where a file is damaged.
    """
    city = registry.city
    version = version or registry.champion()
    if version is None:
        raise InputError(f"'{city.name}' has no model yet: run trafficcast train --city {city.name}")
    card = registry.card(version)
    for key, value in city.grid().items():
        if card["grid"].get(key) != value:
            raise InputError(
                f"model {version} was trained with {key} = {card['grid'].get(key)}, "
                f"'{city.name}' has {value}: train a model for this grid"
            )
    folder = registry.root / version
    try:
        network = build(card["architecture"])
        network.load_state_dict(load_file(folder / "model.safetensors"))
        table = load_arrays(folder / "climatology.safetensors")["table"]
    except (OSError, SafetensorError, KeyError, RuntimeError) as error:
        raise InputError(f"model {folder} is damaged: {str(error).splitlines()[0]}") from None
    return Model(card, network, Climatology(city, table))


def publish_model(registry: Registry, model: Model, extra: Callable[[Path], None]) -> None:
    """Put a model into the registry; `extra` adds what is for people to its folder."""

    def fill(folder: Path) -> None:
        tensors = {key: value.detach().cpu().contiguous() for key, value in model.network.state_dict().items()}
        # Through `atomic` for its permissions: safetensors lets nobody but the writer read.
        with atomic(folder / "model.safetensors") as temporary:
            save_file(tensors, temporary)
        with atomic(folder / "climatology.safetensors") as temporary:
            save_arrays({"table": np.ascontiguousarray(model.climatology.table)}, temporary)
        write_json(folder / "card.json", model.card)
        extra(folder)

    registry.publish(model.version, fill)


def build(architecture: dict[str, Any]) -> VMRNN:
    """An untrained network from a card's `architecture`: `name` and the arguments of its function."""
    arguments = dict(architecture)
    return architecture_function(arguments.pop("name"))(**arguments)


def architecture_function(name: str) -> Callable[..., VMRNN]:
    """The function that builds a network of that architecture. Raises InputError for an unknown one."""
    if name not in ARCHITECTURES:
        raise InputError(f"unknown model '{name}'; known are: {', '.join(ARCHITECTURES)}")
    return ARCHITECTURES[name]
