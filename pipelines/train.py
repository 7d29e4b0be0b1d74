"""Train: flow store -> windows -> training -> a model folder with its card."""

from __future__ import annotations

import hashlib
import shlex
import sys
import time
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import torch
import xarray as xr

from pipelines.progress import log, track
from trafficcast import __version__
from trafficcast.card import card_text, write_curve
from trafficcast.city import FLOW_KINDS, City
from trafficcast.errors import InputError
from trafficcast.evaluation import evaluate
from trafficcast.files import json_text, write_text, writer_lock
from trafficcast.forecasters import Climatology, baselines
from trafficcast.model import Model, architecture_function, build, publish_model
from trafficcast.nn import parameter_counts
from trafficcast.registry import Registry
from trafficcast.stores import read_flows
from trafficcast.training import Trained, TrainingSettings, pick_device, windows_of
from trafficcast.training import train as fit
from trafficcast.windows import Split, chosen_split, window_starts


def train(
    city: City,
    data: Path,
    models: Path,
    architecture: str = "vmrnn-b",
    settings: TrainingSettings | None = None,
    train_end: np.datetime64 | None = None,
    valid_end: np.datetime64 | None = None,
    test_end: np.datetime64 | None = None,
    device: str = "auto",
    resume: bool = False,
) -> dict[str, Any]:
    """Train a network on the city's flow store, publish it in the registry and return its card.

    The three ends choose the split (see `windows.chosen_split`). Only the training split fits scaler, climatology
    and network; validation chooses the epoch; test is read once, for the card. Raises InputError where there are no
    flows, or too few for a window of each split.
    """
    settings = settings or TrainingSettings()
    chosen_device = pick_device(device)
    architecture_function(architecture)
    flows = read_flows(data, city)
    split = chosen_split(city, flows["time"].values, train_end, valid_end, test_end)
    starts = _window_starts(flows, city, split)
    fitted = flows.sel(time=flows["time"].values < split.train_end)
    scale = float(fitted["flow"].values[fitted["observed"].values].max())
    if scale <= 0:
        raise InputError(f"the training slots of '{city.name}' have no traffic at all: check the city's box")
    climatology = Climatology.fit(city, fitted)

    described = {"name": architecture, "rows": city.rows, "cols": city.cols, "channels": len(FLOW_KINDS)}
    torch.manual_seed(settings.seed)
    network = build(described)
    registry = Registry(models / city.name, city)
    work = data / city.name / "training" / architecture
    identity = _hash(flows, json_text([described, city.grid(), [str(t) for t in vars(split).values()]]))
    training, validation = windows_of(flows["flow"].values, scale, starts["training"], starts["validation"])

    def on_epoch(state: Trained) -> None:
        last = state.history[-1]
        log.info(
            "epoch %d: training loss %.3g, validation RMSE %.3f vehicles per slot; best is epoch %d",
            *(last["epoch"], last["train_mse"], last["valid_rmse"], state.best_epoch),
        )

    log.info("training %s on %s: %s windows", architecture, chosen_device, {k: len(v) for k, v in starts.items()})
    with writer_lock(work):
        trained = fit(
            network,
            training,
            validation,
            scale,
            settings,
            chosen_device,
            work / "checkpoint.safetensors",
            identity,
            resume,
            track,
            on_epoch,
        )
        network.load_state_dict(trained.best)
        card = {
            "version": registry.next_version(architecture),
            "city": city.name,
            "architecture": described,
            "parameters": parameter_counts(network),
            "grid": city.grid(),
            "scale": scale,
            "split": {name: city.isoformat(moment) for name, moment in vars(split).items()},
            "windows": {name: len(positions) for name, positions in starts.items()},
            "training": asdict(settings) | {"device": str(chosen_device), "best_epoch": trained.best_epoch},
            "data_hash": _hash(fitted),
            "code_version": __version__,
            "created": city.isoformat(np.datetime64(int(time.time()), "s")),
            "command": "trafficcast " + shlex.join(word for word in sys.argv[1:] if word != "--resume"),
        }
        model = Model(card, network, climatology)
        forecasters = {model.version: model.forecaster(chosen_device)} | baselines(flows, climatology)
        card["metrics"] = {
            name: evaluate(forecasters, flows, starts[name], scale) if len(starts[name]) else {}
            for name in ("validation", "test")
        }

        def extra(folder: Path) -> None:
            write_curve(folder, trained.history)
            write_text(folder / "CARD.md", card_text(card))

        publish_model(registry, model, extra)
        (work / "checkpoint.safetensors").unlink()
    log.info("published %s", registry.root / model.version)
    return card


def _window_starts(flows: xr.Dataset, city: City, split: Split) -> dict[str, np.ndarray]:
    starts = {
        "training": window_starts(flows, city, split.start, split.train_end),
        "validation": window_starts(flows, city, split.train_end, split.valid_end),
        "test": window_starts(flows, city, split.valid_end, split.test_end),
    }
    for name in ("training", "validation"):
        if not len(starts[name]):
            raise InputError(
                f"'{city.name}' has no {name} window: that needs eight contiguous observed slots; "
                f"the split is {', '.join(f'{k} {city.isoformat(v)}' for k, v in vars(split).items())}"
            )
    return starts


def _hash(flows: xr.Dataset, more: str = "") -> str:
    digest = hashlib.sha256(more.encode())
    for name in ("time", "flow", "observed"):
        digest.update(np.ascontiguousarray(flows[name].values).tobytes())
    return digest.hexdigest()
