"""Run an experiment: train every variant with every seed, score it, and write a table and a picture of the results."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from trafficcast.config.city import FLOW_KINDS, HISTORY, City
from trafficcast.errors import InputError
from trafficcast.files import json_text, write_text, writer_lock
from trafficcast.forecasting.climatology import WeekdayClimatology
from trafficcast.forecasting.forecasters import in_batches
from trafficcast.forecasting.inference import forecast_function, pick_device
from trafficcast.forecasting.metrics import scores
from trafficcast.forecasting.model import Network, build, is_conditioned
from trafficcast.forecasting.windows import VALID_SHARE, WINDOW_LENGTH, chosen_split
from trafficcast.nn import parameter_counts
from trafficcast.progress import log, track
from trafficcast.stores.city_stores import CityStores
from trafficcast.stores.flows import late_flow, read_flows
from trafficcast.taxibj.files import WINDOWS, read_windows
from trafficcast.training.dataset import (
    _flows_before,
    _hash_of,
    _highest_count,
    _slot_context,
    _starts_by_split,
    _Windows,
    _windows_of,
    _with_patterns,
)
from trafficcast.training.experiments import (
    _EPOCHS,
    _LEADS,
    _RESULTS,
    _SCORES,
    _find_experiment,
    _picture,
    _read_table,
    _results_text,
    _Variant,
    _write_table,
)
from trafficcast.training.loop import _train, _Trained

_TAXIBJ_SCALE = 1292.0  # vehicles per slot of the value 1.0 in OpenSTL's windows


@dataclass(frozen=True)
class _Splits:
    """The windows that train a network, that choose its epoch and on which it is scored.

    Frames times `unit` are vehicles per slot; the metrics of the papers divide these by `scale`.
    """

    training: _Windows
    validation: _Windows
    scored: _Windows
    unit: float
    scale: float


@dataclass(frozen=True)
class _Material:
    """A function that makes the splits of a variant and its network, and a hash of their data."""

    splits: Callable[[_Variant, Network], _Splits]
    sha256: str


@dataclass(frozen=True)
class _Trial:
    """One training: a variant and a seed."""

    name: str
    variant: _Variant
    seed: int
    city: City
    material: _Material

    @property
    def described(self) -> dict[str, Any]:
        """Return the network's architecture, as in a card."""
        return {"rows": self.city.rows, "cols": self.city.cols, "channels": len(FLOW_KINDS), **self.variant.network}

    @property
    def fingerprint(self) -> str:
        """Return a hash of all that decides the result, except the machine."""
        variant = replace(self.variant, settings=replace(self.variant.settings, seed=self.seed))
        text = json_text([self.described, asdict(variant), self.material.sha256])
        return hashlib.sha256(text.encode()).hexdigest()[:16]


def experiment(
    name: str,
    stores: CityStores,
    command: str,
    out: Path | None = None,
    variants: tuple[str, ...] = (),
    seeds: int = 3,
    epochs: int | None = None,
    batch_size: int | None = None,
    train_end: str | np.datetime64 | None = None,
    valid_end: str | np.datetime64 | None = None,
    device: str = "auto",
) -> tuple[list[dict[str, Any]], str]:
    """Train each variant of an experiment with several seeds and score it.

    results.csv, epochs.csv, results.md and results.png are written after every training. A training whose row is there
    is not repeated; an interrupted one continues. A city's test split is never read; the experiment taxibj has its own
    windows, and scores those of test.

    Parameters
    ----------
    name
        The experiment.
    stores
        The city and its stores.
    command
        The command, for results.md.
    out
        The folder of the results; None is data/<city>/experiments/<name>.
    variants
        Names of variants to train; none is all.
    seeds
        Number of seeds.
    epochs
        Number of epochs; None is each variant's own.
    batch_size
        Windows of a batch; None is each variant's own.
    train_end
        End of training, text in the city's time zone or naive UTC; see `chosen_split`.
    valid_end
        End of validation; see `chosen_split`.
    device
        The device; see `pick_device`.

    Returns
    -------
    tuple[list[dict[str, Any]], str]
        All rows of results in `out`, and their table as Markdown.

    Raises
    ------
    InputError
        The experiment, a variant or the device is unknown, or `out` has results of other flows or settings.
    """
    known, chosen = _find_experiment(name, variants)
    chosen_device = pick_device(device)
    if name == "taxibj" and (train_end is not None or valid_end is not None):
        raise InputError("the experiment taxibj has its own splits: leave --train-end and --valid-end out")
    material = (
        _taxibj_material(stores)
        if name == "taxibj"
        else _city_material(stores, *map(stores.city.as_time, (train_end, valid_end)))
    )
    city, folder = stores.city, out or stores.folder / "experiments" / name

    def _trial(key: str, seed: int) -> _Trial:
        variant = known[key]
        own = variant.settings
        settings = replace(own, epochs=epochs or own.epochs, batch_size=batch_size or own.batch_size)
        return _Trial(key, replace(variant, settings=settings), seed, city, material)

    with writer_lock(folder):
        rows = _read_table(folder / "results.csv", _RESULTS)
        for row in rows:
            if row["variant"] not in known or row["fingerprint"] != _trial(row["variant"], row["seed"]).fingerprint:
                raise InputError(
                    f"{folder} holds results of other flows, ends, epochs or settings ({row['variant']}, seed "
                    f"{row['seed']}): give another --out, or move them away"
                )
        done = {(row["variant"], row["seed"]) for row in rows}
        wanted = [(key, known[key].settings.seed + number) for number in range(seeds) for key in chosen]
        trials = [_trial(*one) for one in wanted if one not in done]
        for number, trial in enumerate(trials, 1):
            log.info("%s: %s with seed %d, training %d of %d", name, trial.name, trial.seed, number, len(trials))
            checkpoint = folder / f"{trial.name}-{trial.seed}-{trial.fingerprint}.safetensors"
            row, history = _trained_and_scored(trial, checkpoint, chosen_device)
            rows.append(row)
            _write_epochs(folder / "epochs.csv", trial, history)
            _picture(folder / "results.png", name, rows)
            write_text(folder / "results.md", _results_text(name, rows, city.slot_minutes, command))
            _write_table(folder / "results.csv", rows)  # the last, because its rows are not trained again
            checkpoint.unlink()
    return rows, _results_text(name, rows, city.slot_minutes, command)


def _trained_and_scored(
    trial: _Trial, checkpoint: Path, device: torch.device
) -> tuple[dict[str, Any], list[dict[str, float]]]:
    """Train and score; return a row of results and the epochs."""
    settings = replace(trial.variant.settings, seed=trial.seed)
    torch.manual_seed(trial.seed)
    network = build(trial.described)
    splits = trial.material.splits(trial.variant, network)
    ends = [time.perf_counter()]

    def on_epoch(state: _Trained) -> None:
        ends.append(time.perf_counter())
        last = state.history[-1]
        log.info(
            "%s, seed %d, epoch %d: training loss %.3g, RMSE %.3f vehicles per slot",
            trial.name, trial.seed, last["epoch"], last["train_loss"], last["valid_rmse"],
        )  # fmt: skip

    trained = _train(
        network,
        splits.training,
        splits.validation,
        splits.unit,
        settings,
        device,
        checkpoint,
        trial.fingerprint,
        checkpoint.exists(),
        track,
        on_epoch,
    )
    network.load_state_dict(trained.best)
    scored = scores(*_forecasts_and_truth(network, splits, device), splits.scale)
    row = {
        "variant": trial.name,
        "seed": trial.seed,
        "epochs": settings.epochs,
        "best_epoch": trained.best_epoch,
        "parameters": parameter_counts(network)["live"],
        # The mean of the epochs since the last interruption; NaN where only the scores were missing.
        "seconds_per_epoch": (ends[-1] - ends[0]) / (len(ends) - 1) if len(ends) > 1 else float("nan"),
        "fingerprint": trial.fingerprint,
    }
    by_lead = dict(zip(_LEADS, scored["by_lead"]["rmse"], strict=True))
    return row | {key: (scored | by_lead)[key] for key in _SCORES}, trained.history


def _forecasts_and_truth(network: Network, splits: _Splits, device: torch.device) -> tuple[np.ndarray, np.ndarray]:
    """Return forecasts and truths of the scored windows, both (n, HORIZON, flow kind, row, col), vehicles per slot."""
    frames, context = splits.scored.batch(torch.arange(len(splits.scored.starts)))
    inputs = {"frames": frames[:, :HISTORY], **context}
    arrays = {name: values.numpy() for name, values in inputs.items()}
    forecast = in_batches(forecast_function(network, device), device, arrays).clip(min=0)
    return forecast * splits.unit, frames[:, HISTORY:].numpy() * splits.unit


def _city_material(stores: CityStores, train_end: np.datetime64 | None, valid_end: np.datetime64 | None) -> _Material:
    """Return a city's training and validation slots; validation is scored."""
    city, flows = stores.city, read_flows(stores)
    split = chosen_split(city, flows, train_end, valid_end, None)
    flows = _flows_before(flows, split.valid_end)  # test is not read
    starts = _starts_by_split(flows, city, split)
    fitted = _flows_before(flows, split.train_end)
    highest = _highest_count(city, fitted)
    climatology = WeekdayClimatology.fit(city, fitted)
    known = _slot_context(city, flows, fitted, climatology)
    late = late_flow(flows)
    own_day = {"climatology": climatology.at(flows["time"].values)}

    def splits(variant: _Variant, network: Network) -> _Splits:
        unit, context = highest, {}
        if is_conditioned(network):
            unit, context = 1.0, known | own_day if variant.own_day else known
            if not variant.calendar:
                context = context | {"calendar": np.zeros_like(known["calendar"])}
        chosen = starts["training"], starts["validation"]
        training, validation = _windows_of(flows["flow"].values, unit, context, *chosen, late=late)
        training = _with_patterns(network, training, city, flows["time"].values)
        return _Splits(training, validation, validation, unit, highest)

    return _Material(splits, _hash_of(flows, f"{city.grid()} {split.train_end}"))


def _taxibj_material(stores: CityStores) -> _Material:
    """Return OpenSTL's windows of TaxiBJ; test is scored."""
    whole, test = (_joined_windows(*windows) for windows in read_windows(stores.data, stores.city).values())
    held_out = round(VALID_SHARE * len(whole.starts))
    # Windows overlap: those that share a slot with validation are left out.
    training, validation = whole.starts[: -held_out - WINDOW_LENGTH + 1], whole.starts[-held_out:]
    if not (held_out and len(training)):
        raise InputError(
            f"'{stores.city.name}' has {len(whole.starts)} training windows, too few to hold a tenth of them out"
        )

    def splits(variant: _Variant, network: Network) -> _Splits:
        if variant.chosen_by == "test":
            return _Splits(whole, test, test, _TAXIBJ_SCALE, _TAXIBJ_SCALE)
        held = _Windows(whole.frames, training), _Windows(whole.frames, validation)
        return _Splits(*held, test, _TAXIBJ_SCALE, _TAXIBJ_SCALE)

    with open(stores.folder / WINDOWS, "rb") as file:
        return _Material(splits, hashlib.file_digest(file, "sha256").hexdigest())


def _joined_windows(history: np.ndarray, future: np.ndarray) -> _Windows:
    """Join histories (n, HISTORY, ...) and the frames after them (n, HORIZON, ...) to windows."""
    frames = torch.from_numpy(np.concatenate((history, future), axis=1))
    return _Windows(frames.flatten(0, 1), torch.arange(len(frames)) * WINDOW_LENGTH)


def _write_epochs(file: Path, trial: _Trial, history: list[dict[str, float]]) -> None:
    """Write a training's epochs beside those of the others, in place of any from an interrupted command."""
    others = [row for row in _read_table(file, _EPOCHS) if (row["variant"], row["seed"]) != (trial.name, trial.seed)]
    _write_table(file, others + [{"variant": trial.name, "seed": trial.seed} | epoch for epoch in history])
