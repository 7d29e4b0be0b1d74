"""A trained model: its network, baselines, prediction intervals and card, in a folder of the registry."""

from __future__ import annotations

import math
from collections.abc import Callable
from copy import deepcopy
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, TypeGuard

import numpy as np
import torch
import xarray as xr
from safetensors.numpy import load as load_arrays
from safetensors.numpy import save_file as save_arrays
from safetensors.torch import load as load_tensors
from safetensors.torch import save_file

from trafficcast.config.city import FLOW_KINDS, HORIZON
from trafficcast.errors import InputError
from trafficcast.files import atomic, write_json
from trafficcast.forecasting.baselines import AnomalyPersistence, ScaledClimatology, _LastWeek, _Persistence
from trafficcast.forecasting.climatology import Climatology, WeekdayClimatology, _check_table
from trafficcast.forecasting.forecasters import Forecaster, _ConditionedForecaster, _VmrnnForecaster
from trafficcast.forecasting.gradient_boosting import GradientBoosting
from trafficcast.forecasting.intervals import Intervals, _read_intervals, _save_intervals
from trafficcast.nn import VMRNN, VMRNNC, vmrnn_b, vmrnn_c, vmrnn_d
from trafficcast.progress import log
from trafficcast.stores.registry import Registry
from trafficcast.stores.seal import CARD, damaged, is_sealed

Network = VMRNN | VMRNNC
ARCHITECTURES: dict[str, Callable[..., Network]] = {"vmrnn-b": vmrnn_b, "vmrnn-c": vmrnn_c, "vmrnn-d": vmrnn_d}
# The share of its last anomaly that a cell keeps is fitted; it lies near 0 to 1.
_MOST_SHARE = 10.0


@dataclass(frozen=True)
class Model:
    """A trained model.

    Attributes
    ----------
    card
        The content of card.json: architecture, scale, grid, split, training, metrics and more.
    network
        The network.
    climatology
        The climatology of the training split by weekday and weekend.
    anomaly
        Anomaly persistence with the climatology by day of the week; None in models of early versions.
    trees
        The baseline of gradient-boosted trees; None where it was not trained or LightGBM is not installed.
    intervals
        The prediction intervals; None where there are none.
    """

    card: dict[str, Any]
    network: Network
    climatology: Climatology
    anomaly: AnomalyPersistence | None = None
    trees: GradientBoosting | None = None
    intervals: Intervals | None = None

    @property
    def version(self) -> str:
        """The name of the model's folder.

        Returns
        -------
        str
            The version, for instance vmrnn-b-1.
        """
        return str(self.card["version"])

    @property
    def scale(self) -> float:
        """The training split's maximum.

        Returns
        -------
        float
            The highest count of a cell and slot over both flow kinds, vehicles per slot.
        """
        return float(self.card["scale"])

    def forecaster(self, device: torch.device) -> Forecaster:
        """Make a forecaster of the network.

        Parameters
        ----------
        device
            The device on which it runs.

        Returns
        -------
        Forecaster
            The forecaster.
        """
        if self.anomaly is not None and is_conditioned(self.network):
            return _ConditionedForecaster(self.network, self.anomaly.climatology, device)
        return _VmrnnForecaster(self.network, self.scale, device)

    def baselines(self, flows: xr.Dataset | None) -> dict[str, Forecaster]:
        """Return the model's baselines.

        Parameters
        ----------
        flows
            The city's flows, for the baseline `last_week`; without them that baseline is left out.

        Returns
        -------
        dict[str, Forecaster]
            The baselines by the names that scores use; `pattern_persistence` is the linear forecast of VMRNN-C.
        """
        linear = None
        if self.anomaly is not None and is_conditioned(self.network):
            # A copy, because the network's own is moved to its device.
            start = deepcopy(self.network.start)
            linear = _ConditionedForecaster(start, self.anomaly.climatology, torch.device("cpu"))
        named: dict[str, Forecaster | None] = {
            "persistence": _Persistence(),
            "last_week": None if flows is None else _LastWeek(flows, self.climatology),
            "climatology": self.climatology,
            "scaled_climatology": ScaledClimatology(self.climatology),
            "anomaly_persistence": self.anomaly,
            "pattern_persistence": linear,
            "lightgbm": self.trees,
        }
        return {name: forecaster for name, forecaster in named.items() if forecaster is not None}


def load_model(registry: Registry, version: str | None = None) -> Model:
    """Load a model.

    Parameters
    ----------
    registry
        The city's models.
    version
        The model; None is the champion.

    Returns
    -------
    Model
        The model.

    Raises
    ------
    InputError
        There is no such model, it was trained for another city or grid, or a file of it is damaged.
    """
    version = version or registry.champion()
    if version is None:
        name = registry.city.name
        raise InputError(f"'{name}' has no model yet: run trafficcast train --city {name}")
    model = _read_model(registry, version)
    if not is_sealed(model.card):
        _warn_of_unsealed(registry, version)
    return model


def seal_models(registry: Registry) -> dict[str, str]:
    """Give the models of a city their seals. A model that cannot be loaded, or is sealed already, stays as it is.

    Parameters
    ----------
    registry
        The city's models.

    Returns
    -------
    dict[str, str]
        For each version "sealed", "was sealed before", or what is wrong with it.
    """
    outcomes = {}
    for version in registry.versions():
        try:
            registry.check(version)
            outcomes[version] = "was sealed before"
            if not is_sealed(registry.card(version)):
                _read_model(registry, version)
                registry.seal(version)
                outcomes[version] = "sealed"
        except InputError as error:
            outcomes[version] = str(error)
    return outcomes


@cache
def _warn_of_unsealed(registry: Registry, version: str) -> None:
    """Warn once that damage to a model may stay unnoticed."""
    log.warning(
        "model %s has no seal, so that damage to its files may stay unnoticed: run trafficcast models seal --city %s",
        registry.root / version, registry.city.name,
    )  # fmt: skip


def _read_model(registry: Registry, version: str) -> Model:
    """Read a model and check it; see `load_model`."""
    city, folder = registry.city, registry.root / version
    card = registry.card(version)
    advice = f"start a training from it: trafficcast train --city {city.name} --transfer {registry.root.name}/{version}"
    if card.get("city", city.name) != city.name:
        raise InputError(f"model {version} was trained for '{card['city']}', not for '{city.name}': {advice}")
    for key, value in city.grid().items():
        trained = card.get("grid", {}).get(key)
        if trained != value:
            raise InputError(f"model {version} was trained with {key} = {trained}, '{city.name}' has {value}: {advice}")
    try:
        scale, network = _check_card(card, version), build(card["architecture"])
    except (ArithmeticError, AttributeError, LookupError, RuntimeError, TypeError, ValueError) as error:
        raise damaged(folder, CARD, error) from None

    def _load_weights(content: bytes) -> Network:
        weights = load_tensors(content)
        if weights.keys() != network.state_dict().keys():
            raise InputError(
                f"model {folder} has the weights of another version of {card['architecture']['name']}: train it again"
            )
        network.load_state_dict(weights)
        if not all(values.isfinite().all() for values in weights.values()):
            raise ValueError("a weight is not finite")
        return network

    def _load_climatology(content: bytes) -> tuple[Climatology, AnomalyPersistence | None]:
        tables = load_arrays(content)
        climatology = Climatology(city, _check_table(city, tables["table"], 2, scale))
        if "normal" not in tables and not is_conditioned(network):
            return climatology, None
        normal = WeekdayClimatology(city, _check_table(city, tables["normal"], 7, scale))
        return climatology, AnomalyPersistence(normal, _check_shares(tables["persistence"]))

    registry.read(version, "model.safetensors", _load_weights)
    climatology, anomaly = registry.read(version, "climatology.safetensors", _load_climatology)
    trees = None
    if anomaly is not None:
        trees = registry.read_if_any(version, "lightgbm.txt", lambda content: GradientBoosting.read(content, anomaly))
    intervals = registry.read_if_any(
        version, "intervals.safetensors", lambda content: _read_intervals(content, HORIZON, len(FLOW_KINDS), scale)
    )
    return Model(card, network, climatology, anomaly, trees, intervals)


def _check_card(card: dict[str, Any], version: str) -> float:
    """Return the scale of a card, or raise an error where the card, which may have no seal, cannot be right."""
    if card["version"] != version:
        raise ValueError(f"it is that of {card['version']}")
    for name, scores in card.get("metrics", {}).get("validation", {}).items():
        if not math.isfinite(scores["rmse"]):
            raise ValueError(f"the error of {name} is not finite")
    scale = float(card["scale"])
    if not 0 < scale < math.inf:
        raise ValueError(f"the scale is {scale}")
    return scale


def _check_shares(shares: np.ndarray) -> np.ndarray:
    """Return the shares of the anomaly that persist, (HORIZON), or raise ValueError where they cannot be right."""
    if shares.shape != (HORIZON,) or not (np.abs(shares) <= _MOST_SHARE).all():
        raise ValueError(f"the shares of the anomaly that persist are {shares}")
    return shares


def publish_model(registry: Registry, model: Model, extra: Callable[[Path], None]) -> None:
    """Put a model into the registry.

    Parameters
    ----------
    registry
        The city's models.
    model
        The model, whose card names a version that is not there yet.
    extra
        Called with the model's folder before it is published, to add other files.
    """

    def _fill(folder: Path) -> None:
        tensors = {key: value.detach().cpu().contiguous() for key, value in model.network.state_dict().items()}
        # `atomic` gives the usual permissions; safetensors makes files that only their writer can read.
        with atomic(folder / "model.safetensors") as temporary:
            save_file(tensors, temporary)
        tables = {"table": model.climatology.table}
        if model.anomaly is not None:
            tables |= {"normal": model.anomaly.climatology.table, "persistence": model.anomaly.weights}
        if model.trees is not None:
            model.trees.save(folder)
        with atomic(folder / "climatology.safetensors") as temporary:
            save_arrays({name: np.ascontiguousarray(table) for name, table in tables.items()}, temporary)
        if model.intervals is not None:
            _save_intervals(folder / "intervals.safetensors", model.intervals)
        write_json(folder / CARD, model.card)
        extra(folder)

    registry.add(model.version, _fill)


def is_conditioned(network: Network) -> TypeGuard[VMRNNC]:
    """Tell whether a network reads climatology and calendar.

    Parameters
    ----------
    network
        The network.

    Returns
    -------
    TypeGuard[VMRNNC]
        True where it reads vehicles per slot, climatology and calendar; False where it reads frames in [0, 1] alone.
    """
    return isinstance(network, VMRNNC)


def build(architecture: dict[str, Any]) -> Network:
    """Build an untrained network.

    Parameters
    ----------
    architecture
        A card's `architecture`: the name and the sizes.

    Returns
    -------
    Network
        The network with random weights.
    """
    arguments = dict(architecture)
    return architecture_function(arguments.pop("name"))(**arguments)


def architecture_function(name: str) -> Callable[..., Network]:
    """Find the function that builds networks of an architecture.

    Parameters
    ----------
    name
        The architecture's name, such as vmrnn-c.

    Returns
    -------
    Callable[..., Network]
        The function; its arguments are the sizes.

    Raises
    ------
    InputError
        There is no such architecture.
    """
    if name not in ARCHITECTURES:
        raise InputError(f"unknown model '{name}'; known are: {', '.join(ARCHITECTURES)}")
    return ARCHITECTURES[name]
