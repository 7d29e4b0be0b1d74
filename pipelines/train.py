"""Train: flow store -> windows -> training -> a model folder with its baselines, prediction intervals and card."""

from __future__ import annotations

import hashlib
import shlex
import sys
import time
from contextlib import nullcontext
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
import xarray as xr

from pipelines.progress import log, track
from trafficcast import __version__
from trafficcast.baselines import AnomalyPersistence, Climatology
from trafficcast.card import card_text, write_curve
from trafficcast.city import FLOW_KINDS, City
from trafficcast.distributed import agree, own_device, processes, rank
from trafficcast.errors import InputError
from trafficcast.evaluation import evaluate, forecasts_and_truth
from trafficcast.files import json_text, write_text, writer_lock
from trafficcast.gradient_boosting import GradientBoosting
from trafficcast.intervals import Intervals
from trafficcast.model import RECIPES, Model, Network, architecture_function, build, is_conditioned, publish_model
from trafficcast.nn import parameter_counts
from trafficcast.normal import Normal, calendar_features, normal_of_others
from trafficcast.patterns import Patterns
from trafficcast.registry import Registry
from trafficcast.stores import read_flows
from trafficcast.training import Trained, TrainingSettings, Windows, pick_device, windows_of
from trafficcast.training import train as fit
from trafficcast.transfer import Origin, find_origin
from trafficcast.windows import HISTORY, Split, chosen_split, window_starts

# The share of the training days that a second network does not see, whose errors calibrate the prediction intervals.
CALIBRATION_SHARE = 0.25


def train(
    city: City,
    data: Path,
    models: Path,
    architecture: str = "vmrnn-c",
    settings: TrainingSettings | None = None,
    train_end: np.datetime64 | None = None,
    valid_end: np.datetime64 | None = None,
    test_end: np.datetime64 | None = None,
    device: str = "auto",
    resume: bool = False,
    transfer: str | None = None,
) -> dict[str, Any]:
    """Train a network on the city's flow store, publish it in the registry and return its card.

    The three ends choose the split (see `windows.chosen_split`). Only the training split fits baselines and network;
    validation chooses the epoch; test is read once, for the card. Prediction intervals are calibrated on the last
    training days, with a second network that did not see them. `transfer` names a model, VERSION or CITY/VERSION, from
    whose weights the training starts. Of several processes (see `distributed`) all train, and the first does all else;
    the others return an empty card. Raises InputError where there are no flows, or too few for a window of each split.
    """
    chosen_device = own_device(pick_device(device))
    architecture_function(architecture)
    settings = settings or RECIPES[architecture]
    origin = None if transfer is None else find_origin(models, city, architecture, transfer)
    flows = read_flows(data, city)
    split = chosen_split(city, flows["time"].values, train_end, valid_end, test_end)
    starts = starts_by_split(flows, city, split)
    transferred = origin.card(city) if origin else None
    if origin and origin.has_seen(split.train_end):
        log.warning("validation and test are not all new to the weights that training starts from: %s", transferred)
    described = {"name": architecture, "rows": city.rows, "cols": city.cols, "channels": len(FLOW_KINDS)}
    registry = Registry(models / city.name, city)
    work = data / city.name / "training" / architecture
    log.info("training %s on %s: %s windows", architecture, chosen_device, {k: len(v) for k, v in starts.items()})
    with writer_lock(work) if rank() == 0 else nullcontext():
        agree("folder", str(work))  # once the first process has the lock
        setup = _Setup(city, flows, described, chosen_device, work, resume)
        model, trained = _fit(setup, origin, settings, split.train_end, starts["training"], starts["validation"])
        intervals, calibration = _calibrate(setup, origin, settings, trained.best_epoch, split)
        if rank():
            return {}
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
            "training": asdict(settings)
            | {"device": str(chosen_device), "processes": processes(), "best_epoch": trained.best_epoch},
            "transfer": transferred,
            "data_hash": hash_of(flows_before(flows, split.train_end)),
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
            write_curve(folder, trained.history)
            write_text(folder / "CARD.md", card_text(card))

        publish_model(registry, model, extra)
        for checkpoint in work.glob("*.safetensors"):
            checkpoint.unlink()
    log.info("published %s", registry.root / model.version)
    return card


@dataclass(frozen=True)
class _Setup:
    """What the network that is published and the one that calibrates its intervals have in common."""

    city: City
    flows: xr.Dataset
    described: dict[str, Any]
    device: torch.device
    work: Path
    resume: bool


def _fit(
    setup: _Setup,
    origin: Origin | None,
    settings: TrainingSettings,
    train_end: np.datetime64,
    training_starts: np.ndarray,
    validation_starts: np.ndarray | None,
) -> tuple[Model, Trained]:
    """A network and what it needs, fitted to the slots before `train_end`; without validation for all epochs."""
    city, flows = setup.city, setup.flows
    fitted = flows_before(flows, train_end)
    scale = highest_count(city, fitted)
    anomaly = AnomalyPersistence.fit(city, fitted, training_starts)
    torch.manual_seed(settings.seed)
    network = build(setup.described)
    unit, context = scale, {}
    if is_conditioned(network):
        unit, context = 1.0, known_beforehand(city, flows, fitted, anomaly.normal)
    splits = [starts for starts in (training_starts, validation_starts) if starts is not None]
    training, *validation = windows_of(flows["flow"].values, unit, context, *splits)
    training = with_patterns(network, training, city, flows["time"].values)
    if origin is not None:
        origin.load_into(network)
    purpose = "calibration" if validation_starts is None else "network"
    checkpoint = setup.work / f"{purpose}.safetensors"

    def on_epoch(state: Trained) -> None:
        last = state.history[-1]
        validated = f", validation RMSE {last['valid_rmse']:.3f} vehicles per slot" if validation else ""
        log.info("%s, epoch %d: training loss %.3g%s", purpose, last["epoch"], last["train_loss"], validated)

    trained_on = [setup.described, city.grid(), str(train_end), [len(starts) for starts in splits]]
    identity = hash_of(flows, json_text(trained_on + ([origin.sha256] if origin else [])))
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
    setup: _Setup, origin: Origin | None, settings: TrainingSettings, best_epoch: int, split: Split
) -> tuple[Intervals | None, dict[str, Any]]:
    """Prediction intervals from the last training days, forecast by a network that saw only the days before.

    These days chose nothing: the settings and the number of epochs are the first network's. Where the origin has seen
    them, the second network starts from random weights and runs all epochs. None with fewer than two training days.
    """
    city, flows = setup.city, setup.flows
    days = np.unique(city.local_days(flows_before(flows, split.train_end)["time"].values))
    held_out = round(CALIBRATION_SHARE * len(days)) or 1
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
        return GradientBoosting.fit(city, flows_before(flows, split.train_end), starts, anomaly) if anomaly else None
    except ImportError:
        log.info("without the baseline lightgbm, which is not installed: pip install 'trafficcast[lightgbm]'")
    except InputError as error:
        log.info("without the baseline lightgbm: %s", error)
    return None


def _command() -> str:
    """The command that trained, with `pipelines.train.main` for several processes."""
    words = [word for word in sys.argv[1:] if word != "--resume"]
    if processes() == 1:
        return shlex.join(["trafficcast", *words])
    return shlex.join(["torchrun", "--nproc-per-node", str(processes()), "-m", "pipelines.train", *words[1:]])


def flows_before(flows: xr.Dataset, end: np.datetime64) -> xr.Dataset:
    """The slots that start before `end`, naive UTC."""
    return flows.sel(time=flows["time"].values < end)


def highest_count(city: City, fitted: xr.Dataset) -> float:
    """The maximum over the observed slots, vehicles per slot. Raises InputError where there is no traffic at all."""
    highest = float(fitted["flow"].values[fitted["observed"].values].max())
    if highest <= 0:
        raise InputError(f"the training slots of '{city.name}' have no traffic at all: check the city's box")
    return highest


def known_beforehand(city: City, flows: xr.Dataset, fitted: xr.Dataset, normal: Normal) -> dict[str, np.ndarray]:
    """What a conditioned network is told of each slot of `flows` (see `training.Windows`).

    The first of them, `fitted`, which are trained on and made `normal`, are told what is normal by all other days than
    their own.
    """
    times = flows["time"].values
    of_others, later = normal_of_others(city, fitted), normal.at(times[len(fitted["time"]) :])
    return {"normal": np.concatenate([of_others, later]), "calendar": calendar_features(city, times)}


def with_patterns(network: Network, training: Windows, city: City, time: np.ndarray) -> Windows:
    """Give a conditioned network the patterns of its training windows, and these the patterns of other days.

    `time`: the slots of the windows' frames, naive UTC. A published network has none, and its windows need none.
    """
    if not is_conditioned(network):
        return training
    starts = training.starts.numpy()
    days = city.local_days(time[starts + HISTORY])
    normal, calendar = (training.context[name].numpy() for name in ("normal", "calendar"))
    patterns = Patterns.fit(training.frames.numpy(), normal, calendar, starts, days, len(network.start.patterns))
    network.start.set(*(torch.from_numpy(values) for values in (patterns.basis, patterns.shares, patterns.left)))
    of_others, block = torch.from_numpy(patterns.of_others), torch.from_numpy(patterns.block)
    return replace(training, patterns=of_others, block=block)


def starts_by_split(flows: xr.Dataset, city: City, split: Split) -> dict[str, np.ndarray]:
    """Positions in `flows` of each split's windows. Raises InputError without any for training or validation."""
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


def hash_of(flows: xr.Dataset, more: str = "") -> str:
    """SHA-256 of flows and whatever else."""
    digest = hashlib.sha256(more.encode())
    for name in ("time", "flow", "observed"):
        digest.update(np.ascontiguousarray(flows[name].values).tobytes())
    return digest.hexdigest()


def main() -> None:
    """`python -m pipelines.train`, alone or in each of torchrun's processes: `trafficcast train` with its options."""
    from pipelines import cli

    sys.argv[:1] = ["trafficcast", "train"]
    cli.main()


if __name__ == "__main__":
    main()
