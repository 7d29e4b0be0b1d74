"""Training: from the flow store to a model folder with network, baselines, prediction intervals and card."""

from __future__ import annotations

import shlex
import sys
import time
from contextlib import nullcontext
from dataclasses import asdict, dataclass, replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import torch
import xarray as xr

from trafficcast import __version__
from trafficcast.config.city import FLOW_KINDS, City
from trafficcast.errors import InputError
from trafficcast.files import json_text, write_text, writer_lock
from trafficcast.forecasting.baselines import AnomalyPersistence
from trafficcast.forecasting.climatology import Climatology
from trafficcast.forecasting.evaluation import evaluate, forecasts_and_truth
from trafficcast.forecasting.gradient_boosting import GradientBoosting
from trafficcast.forecasting.inference import pick_device
from trafficcast.forecasting.intervals import Intervals
from trafficcast.forecasting.model import Model, architecture_function, build, is_conditioned, publish_model
from trafficcast.forecasting.windows import Split, chosen_split, describe_period, window_starts
from trafficcast.nn import parameter_counts
from trafficcast.progress import log, track
from trafficcast.stores.city_stores import CityStores
from trafficcast.stores.flows import late_flow, read_flows
from trafficcast.training.card import _card_text, _write_curve
from trafficcast.training.dataset import (
    _flows_before,
    _hash_of,
    _highest_count,
    _slot_context,
    _starts_by_split,
    _windows_of,
    _with_patterns,
)
from trafficcast.training.distributed import _agree, _own_device, _processes, rank
from trafficcast.training.loop import _train as fit
from trafficcast.training.loop import _Trained
from trafficcast.training.settings import _RECIPES, TrainingSettings
from trafficcast.training.transfer import _find_starting_model, _StartingModel

# The share of the training days that a second network does not see, whose errors calibrate the prediction intervals.
_CALIBRATION_SHARE = 0.25


def train(
    stores: CityStores,
    architecture: str = "vmrnn-c",
    settings: TrainingSettings | None = None,
    train_end: str | np.datetime64 | None = None,
    valid_end: str | np.datetime64 | None = None,
    test_end: str | np.datetime64 | None = None,
    device: str = "auto",
    resume: bool = False,
    transfer: str | None = None,
) -> Model:
    """Train a network on a city's flows and publish it as a model in the registry.

    Only the training split fits the baselines and the network; the validation split chooses the epoch; the test split
    is read once, for the model's card. A second network, which does not see the last training days, calibrates the
    prediction intervals on them. Of several processes (see `process_group`) all train and the first does the rest.

    Parameters
    ----------
    stores
        The city and its stores.
    architecture
        "vmrnn-c", "vmrnn-b" or "vmrnn-d".
    settings
        How to train; None is the architecture's recipe.
    train_end
        Training uses the slots before this time, text in the city's time zone or naive UTC. Without the three ends the
        last 15 % of the slots that windows hold are the test split and the 10 % before them validation, cut at
        midnights.
    valid_end
        End of the validation split and start of the test split.
    test_end
        End of the test split; None is the end of the last stored slot.
    device
        "auto", "cpu", "cuda" or "mps".
    resume
        Continue from the checkpoint of an interrupted training, with the same result.
    transfer
        VERSION or CITY/VERSION of a model whose weights the training starts from; None starts from random weights.

    Returns
    -------
    Model
        The published model; `model.card` has its version and scores. In torchrun's other processes its card
        holds the scale alone.

    Raises
    ------
    InputError
        There are no flows, too few for a window of each split, or an unknown architecture, model or checkpoint.

    Examples
    --------
    >>> model = tc.train(city, train_end="2024-04-20", valid_end="2024-04-24")
    >>> model.version
    'vmrnn-c-1'
    """
    city, registry = stores.city, stores.registry
    chosen_device = _own_device(pick_device(device))
    architecture_function(architecture)
    settings = settings or _RECIPES[architecture]
    origin = None if transfer is None else _find_starting_model(stores, architecture, transfer)
    flows = read_flows(stores)
    split = chosen_split(city, flows, *map(city.as_time, (train_end, valid_end, test_end)))
    starts = _starts_by_split(flows, city, split)
    transferred = origin.card(city) if origin else None
    if origin and origin.has_seen(split.train_end):
        log.warning("validation and test are not all new to the weights that training starts from: %s", transferred)
    described = {"name": architecture, "rows": city.rows, "cols": city.cols, "channels": len(FLOW_KINDS)}
    work = stores.folder / "training" / architecture
    log.info("training %s on %s: %s windows", architecture, chosen_device, {k: len(v) for k, v in starts.items()})
    with writer_lock(work) if rank() == 0 else nullcontext():
        _agree("folder", str(work))  # once the first process has the lock
        setup = _Setup(city, flows, described, chosen_device, work, resume)
        model, trained = _fit(setup, origin, settings, split.train_end, starts["training"], starts["validation"])
        intervals, calibration = _calibrate(setup, origin, settings, trained.best_epoch, split)
        if rank():
            return model
        trees = _trees(city, flows, split, starts["training"], model.anomaly)
        card: dict[str, Any] = {
            "version": registry.next_version(architecture),
            "city": city.name,
            "architecture": described,
            "parameters": parameter_counts(model.network),
            "grid": city.grid(),
            "scale": model.scale,
            "split": {name: city.isoformat(moment) for name, moment in vars(split).items()},
            "windows": {name: len(positions) for name, positions in starts.items()},
            "periods": {
                name: describe_period(flows, city, *period, starts[name])
                for name, period in zip(starts, pairwise(vars(split).values()), strict=True)
            },
            "training": asdict(settings)
            | {"device": str(chosen_device), "processes": _processes(), "best_epoch": trained.best_epoch},
            "transfer": transferred,
            "data_hash": _hash_of(_flows_before(flows, split.train_end)),
            "code_version": __version__,
            "created": city.isoformat(np.datetime64(int(time.time()), "s")),
            "command": _command(),
        }
        model = replace(model, card=card, trees=trees, intervals=intervals)
        forecasters = {model.version: model.forecaster(chosen_device)} | model.baselines(flows)
        card["metrics"], card["intervals"] = {}, calibration
        for name in ("validation", "test"):
            scored = evaluate(forecasters if len(starts[name]) else {}, flows, starts[name], model.scale, intervals)
            card["metrics"][name], card["intervals"][name] = scored

        def extra(folder: Path) -> None:
            _write_curve(folder, trained.history)
            write_text(folder / "CARD.md", _card_text(card))

        publish_model(registry, model, extra)
        for checkpoint in work.glob("*.safetensors"):
            checkpoint.unlink()
    log.info("published %s", registry.root / model.version)
    return model


@dataclass(frozen=True)
class _Setup:
    """Inputs that the published network and the one that calibrates its intervals share."""

    city: City
    flows: xr.Dataset
    described: dict[str, Any]
    device: torch.device
    work: Path
    resume: bool


def _fit(
    setup: _Setup,
    origin: _StartingModel | None,
    settings: TrainingSettings,
    train_end: np.datetime64,
    training_starts: np.ndarray,
    validation_starts: np.ndarray | None,
) -> tuple[Model, _Trained]:
    """Fit a network, its climatology and its anomaly persistence to the slots before `train_end`."""
    city, flows = setup.city, setup.flows
    fitted = _flows_before(flows, train_end)
    scale = _highest_count(city, fitted)
    anomaly = AnomalyPersistence.fit(city, fitted, training_starts)
    torch.manual_seed(settings.seed)
    network = build(setup.described)
    unit, context = scale, {}
    if is_conditioned(network):
        unit, context = 1.0, _slot_context(city, flows, fitted, anomaly.climatology)
    splits = [starts for starts in (training_starts, validation_starts) if starts is not None]
    training, *validation = _windows_of(flows["flow"].values, unit, context, *splits, late=late_flow(flows))
    training = _with_patterns(network, training, city, flows["time"].values)
    if origin is not None:
        origin.load_into(network)
    purpose = "calibration" if validation_starts is None else "network"
    checkpoint = setup.work / f"{purpose}.safetensors"

    def on_epoch(state: _Trained) -> None:
        last = state.history[-1]
        validated = f", validation RMSE {last['valid_rmse']:.3f} vehicles per slot" if validation else ""
        log.info("%s, epoch %d: training loss %.3g%s", purpose, last["epoch"], last["train_loss"], validated)

    trained_on = [setup.described, city.grid(), str(train_end), [len(starts) for starts in splits]]
    identity = _hash_of(flows, json_text(trained_on + ([origin.sha256] if origin else [])))
    trained = fit(
        network,
        training,
        validation[0] if validation else None,
        unit,
        settings,
        setup.device,
        checkpoint,
        identity,
        setup.resume and (checkpoint.exists() or validation_starts is not None),
        track if rank() == 0 else lambda items, *_: items,
        on_epoch,
    )
    network.load_state_dict(trained.best)
    return Model({"scale": scale}, network, Climatology.fit(city, fitted), anomaly), trained


def _calibrate(
    setup: _Setup, origin: _StartingModel | None, settings: TrainingSettings, best_epoch: int, split: Split
) -> tuple[Intervals | None, dict[str, Any]]:
    """Calibrate prediction intervals on the last training days, forecast by a network that saw only earlier days.

    These days chose nothing: settings and number of epochs are the first network's. Where the starting model has seen
    them, the second network starts from random weights and runs all epochs. None with fewer than two training days.
    """
    city, flows = setup.city, setup.flows
    days = np.unique(city.local_days(_flows_before(flows, split.train_end)["time"].values))
    held_out = round(_CALIBRATION_SHARE * len(days)) or 1
    if len(days) < 2:
        log.warning("no prediction intervals: they need two training days, there is %d", len(days))
        return None, {}
    cut = city.midnight(days[-held_out])
    before = window_starts(flows, city, split.start, cut)
    after = window_starts(flows, city, cut, split.train_end)
    if not (len(before) and len(after)):
        log.warning("no prediction intervals: the training days leave no window on one side of %s", city.isoformat(cut))
        return None, {}
    if origin and origin.has_seen(cut):
        origin = None
    else:
        settings = replace(settings, epochs=best_epoch)
    model, _ = _fit(setup, origin, settings, cut, before, None)
    if rank():
        return None, {}
    intervals = Intervals.fit(*forecasts_and_truth(model.forecaster(setup.device), flows, after))
    period = {"calibrated_from": city.isoformat(cut), "calibrated_to": city.isoformat(split.train_end)}
    return intervals, period | {"windows": len(after)}


def _trees(
    city: City, flows: xr.Dataset, split: Split, starts: np.ndarray, anomaly: AnomalyPersistence | None
) -> GradientBoosting | None:
    try:
        return GradientBoosting.fit(city, _flows_before(flows, split.train_end), starts, anomaly) if anomaly else None
    except ImportError:
        log.info("without the baseline lightgbm, which is not installed: pip install 'trafficcast[lightgbm]'")
    except InputError as error:
        log.info("without the baseline lightgbm: %s", error)
    return None


def _command() -> str:
    """Return the command that trained, for the card."""
    words = [word for word in sys.argv[1:] if word != "--resume"]
    if _processes() == 1:
        return shlex.join(["trafficcast", *words])
    return shlex.join(["torchrun", "--nproc-per-node", str(_processes()), "-m", "pipelines", *words])
