"""The model registry: models/<city>/<version>, a folder a trained model, never overwritten, and the champion."""

from __future__ import annotations

import json
import os
import re
import tempfile
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

from trafficcast.city import City
from trafficcast.errors import InputError
from trafficcast.files import write_json, write_text
from trafficcast.forecasters import Climatology, VmrnnForecaster
from trafficcast.nn import VMRNN, vmrnn_b

ARCHITECTURES: dict[str, Callable[..., VMRNN]] = {"vmrnn-b": vmrnn_b}
VERSION = re.compile(r"[a-z0-9]+(-[a-z0-9]+)*")


@dataclass(frozen=True)
class Model:
    """A trained model: its network, the climatology of its training split, and its card (see `card.py`)."""

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


@dataclass(frozen=True)
class Registry:
    """The models of one city, below `root` = models/<city>."""

    root: Path
    city: City

    def versions(self) -> list[str]:
        """All versions, by name and number."""
        found = [file.parent.name for file in self.root.glob("*/card.json") if VERSION.fullmatch(file.parent.name)]
        return sorted(found, key=lambda v: [int(p) if p.isdigit() else p for p in re.split(r"(\d+)", v)])

    def next_version(self, architecture: str) -> str:
        """The first free version of an architecture."""
        taken = [int(v.rpartition("-")[2]) for v in self.versions() if re.fullmatch(rf"{architecture}-\d+", v)]
        return f"{architecture}-{max(taken, default=0) + 1}"

    def champion(self) -> str | None:
        """The version that commands use unless told otherwise."""
        pointer = self.root / "champion"
        return pointer.read_text(encoding="utf-8").strip() if pointer.exists() else None

    def promote(self, version: str) -> None:
        """Make a version the champion. Raises InputError where there is no such version."""
        self.card(version)
        write_text(self.root / "champion", version + "\n")

    def card(self, version: str) -> dict[str, Any]:
        """A version's card. Raises InputError for an unknown version and a damaged card."""
        if version not in self.versions():
            known = ", ".join(self.versions()) or "none yet"
            raise InputError(f"'{self.city.name}' has no model '{version}'; it has: {known}")
        file = self.root / version / "card.json"
        try:
            card: dict[str, Any] = json.loads(file.read_text(encoding="utf-8"))
        except (OSError, ValueError) as error:
            raise InputError(f"cannot read {file}: {error}") from None
        return card

    def load(self, version: str | None = None) -> Model:
        """A model ready to forecast; without a version the champion.

        Raises InputError where there is none, where it was trained for another grid, and where a file is damaged.
        """
        version = version or self.champion()
        if version is None:
            raise InputError(f"'{self.city.name}' has no model yet: run trafficcast train --city {self.city.name}")
        card = self.card(version)
        for key, value in self.city.grid().items():
            if card["grid"].get(key) != value:
                raise InputError(
                    f"model {version} was trained with {key} = {card['grid'].get(key)}, "
                    f"'{self.city.name}' has {value}: train a model for this grid"
                )
        folder = self.root / version
        try:
            network = build(card["architecture"])
            network.load_state_dict(load_file(folder / "model.safetensors"))
            table = load_arrays(folder / "climatology.safetensors")["table"]
        except (OSError, SafetensorError, KeyError, RuntimeError) as error:
            raise InputError(f"model {folder} is damaged: {str(error).splitlines()[0]}") from None
        return Model(card, network, Climatology(self.city, table))

    def publish(self, model: Model, extra: Callable[[Path], None]) -> None:
        """Write a model's folder, whole or not at all; `extra` may add files to it. The first becomes champion."""
        self.root.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=".new-", dir=self.root) as name:
            folder = Path(name) / model.version
            folder.mkdir()
            tensors = {key: value.detach().cpu().contiguous() for key, value in model.network.state_dict().items()}
            save_file(tensors, folder / "model.safetensors")
            save_arrays({"table": np.ascontiguousarray(model.climatology.table)}, folder / "climatology.safetensors")
            write_json(folder / "card.json", model.card)
            extra(folder)
            if (self.root / model.version).exists():
                raise InputError(f"{self.root / model.version} exists already, and a version is never overwritten")
            os.rename(folder, self.root / model.version)
        if self.champion() is None:
            self.promote(model.version)


def build(architecture: dict[str, Any]) -> VMRNN:
    """An untrained network from a card's `architecture`: `name` and the arguments of its function."""
    arguments = dict(architecture)
    return architecture_function(arguments.pop("name"))(**arguments)


def architecture_function(name: str) -> Callable[..., VMRNN]:
    """The function that builds a network of that architecture. Raises InputError for an unknown one."""
    if name not in ARCHITECTURES:
        raise InputError(f"unknown model '{name}'; known are: {', '.join(ARCHITECTURES)}")
    return ARCHITECTURES[name]
