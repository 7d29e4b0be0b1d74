"""Experiment: every variant trained with every seed and scored, each once; a table and a picture of what came of it."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from trafficcast.config.city import FLOW_KINDS, HISTORY, HORIZON, City
from trafficcast.errors import InputError
from trafficcast.files import json_text, write_text, writer_lock
from trafficcast.forecasting.climatology import WeekdayClimatology
from trafficcast.forecasting.forecasters import in_batches
from trafficcast.forecasting.inference import forecasting, pick_device
from trafficcast.forecasting.metrics import scores
from trafficcast.forecasting.model import Network, build, is_conditioned
from trafficcast.forecasting.windows import VALID_SHARE, chosen_split
from trafficcast.nn import parameter_counts
from trafficcast.progress import log, track
from trafficcast.stores.city_stores import CityStores
from trafficcast.stores.flows import read_flows
from trafficcast.taxibj.files import WINDOWS, read_windows
from trafficcast.training.dataset import (
    _flows_before,
    _hash_of,
    _highest_count,
    _known_beforehand,
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
    _markdown,
    _picture,
    _read_table,
    _Variant,
    _write_table,
)
from trafficcast.training.loop import _train, _Trained

_LENGTH = HISTORY + HORIZON
_TAXIBJ_SCALE = 1292.0  # vehicles per slot that 1.0 stands for in the ready windows


@dataclass(frozen=True)
class _Splits:
    """What trains a network, what chooses its epoch and what it is scored on.

    Frames times `unit` are vehicles per slot, and those over `scale` what the published metrics are of.
    """

    training: _Windows
    validation: _Windows
    scored: _Windows
    unit: float
    scale: float


@dataclass(frozen=True)
class _Material:
    """The splits for a variant and its network, and a hash of what they are made of."""

    splits: Callable[[_Variant, Network], _Splits]
    sha256: str


@dataclass(frozen=True)
class _Trial:
    """A variant, trained with one seed."""

    name: str
    variant: _Variant
    seed: int
    city: City
    material: _Material

    @property
    def described(self) -> dict[str, Any]:
        """What a card's `architecture` holds."""
        return {"rows": self.city.rows, "cols": self.city.cols, "channels": len(FLOW_KINDS), **self.variant.network}

    @property
    def fingerprint(self) -> str:
        """A hash of all that decides what comes of it, but for the machine."""
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
    """Train each variant (default: all) with as many seeds; return all rows of results in `out`, and their table.

    results.csv, epochs.csv, results.md and results.png are written after every training. One whose row is there is not
    run again, one that was interrupted goes on. A city's test split is never read; taxibj has windows of its own, and
    scores those of test. Raises InputError for what is unknown, and where `out` holds results of other flows or
    settings.
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

    def run_of(key: str, seed: int) -> _Trial:
        variant = known[key]
        own = variant.settings
        settings = replace(own, epochs=epochs or own.epochs, batch_size=batch_size or own.batch_size)
        return _Trial(key, replace(variant, settings=settings), seed, city, material)

    with writer_lock(folder):
        rows = _read_table(folder / "results.csv", _RESULTS)
        for row in rows:
            if row["variant"] not in known or row["fingerprint"] != run_of(row["variant"], row["seed"]).fingerprint:
                raise InputError(
                    f"{folder} holds results of other flows, ends, epochs or settings ({row['variant']}, seed "
                    f"{row['seed']}): give another --out, or move them away"
                )
        done = {(row["variant"], row["seed"]) for row in rows}
        wanted = [(key, known[key].settings.seed + number) for number in range(seeds) for key in chosen]
        runs = [run_of(*one) for one in wanted if one not in done]
        for number, run in enumerate(runs, 1):
            log.info("%s: %s with seed %d, training %d of %d", name, run.name, run.seed, number, len(runs))
            checkpoint = folder / f"{run.name}-{run.seed}-{run.fingerprint}.safetensors"
            row, history = _trained_and_scored(run, checkpoint, chosen_device)
            rows.append(row)
            _write_epochs(folder / "epochs.csv", run, history)
            _picture(folder / "results.png", name, rows)
            write_text(folder / "results.md", _markdown(name, rows, city.slot_minutes, command))
            _write_table(folder / "results.csv", rows)  # the last, as it says what is done
            checkpoint.unlink()
    return rows, _markdown(name, rows, city.slot_minutes, command)


def _trained_and_scored(
    run: _Trial, checkpoint: Path, device: torch.device
) -> tuple[dict[str, Any], list[dict[str, float]]]:
    """A row of results and the epochs."""
    settings = replace(run.variant.settings, seed=run.seed)
    torch.manual_seed(run.seed)
    network = build(run.described)
    splits = run.material.splits(run.variant, network)
    ends = [time.perf_counter()]

    def on_epoch(state: _Trained) -> None:
        ends.append(time.perf_counter())
        last = state.history[-1]
        log.info(
            "%s, seed %d, epoch %d: training loss %.3g, RMSE %.3f vehicles per slot",
            run.name, run.seed, last["epoch"], last["train_loss"], last["valid_rmse"],
        )  # fmt: skip

    trained = _train(
        network,
        splits.training,
        splits.validation,
        splits.unit,
        settings,
        device,
        checkpoint,
        run.fingerprint,
        checkpoint.exists(),
        track,
        on_epoch,
    )
    network.load_state_dict(trained.best)
    scored = scores(*_forecasts_and_truth(network, splits, device), splits.scale)
    row = {
        "variant": run.name,
        "seed": run.seed,
        "epochs": settings.epochs,
        "best_epoch": trained.best_epoch,
        "parameters": parameter_counts(network)["live"],
        # Of the epochs since the last interruption; none where only the scores were missing.
        "seconds_per_epoch": (ends[-1] - ends[0]) / (len(ends) - 1) if len(ends) > 1 else float("nan"),
        "fingerprint": run.fingerprint,
    }
    by_lead = dict(zip(_LEADS, scored["by_lead"]["rmse"], strict=True))
    return row | {key: (scored | by_lead)[key] for key in _SCORES}, trained.history


def _forecasts_and_truth(network: Network, splits: _Splits, device: torch.device) -> tuple[np.ndarray, np.ndarray]:
    """Forecasts and what came of the scored windows, both (n, HORIZON, flow kind, row, col) in vehicles per slot."""
    frames, context = splits.scored.batch(torch.arange(len(splits.scored.starts)))
    inputs = {"frames": frames[:, :HISTORY], **context}
    arrays = {name: values.numpy() for name, values in inputs.items()}
    forecast = in_batches(forecasting(network, device), device, arrays).clip(min=0)
    return forecast * splits.unit, frames[:, HISTORY:].numpy() * splits.unit


def _city_material(stores: CityStores, train_end: np.datetime64 | None, valid_end: np.datetime64 | None) -> _Material:
    """A city's training and validation slots; validation is what is scored."""
    city, flows = stores.city, read_flows(stores)
    split = chosen_split(city, flows["time"].values, train_end, valid_end, None)
    flows = _flows_before(flows, split.valid_end)  # what comes later is for nobody here
    starts = _starts_by_split(flows, city, split)
    fitted = _flows_before(flows, split.train_end)
    highest = _highest_count(city, fitted)
    normal = WeekdayClimatology.fit(city, fitted)
    known = _known_beforehand(city, flows, fitted, normal)
    own_day = {"normal": normal.at(flows["time"].values)}

    def splits(variant: _Variant, network: Network) -> _Splits:
        unit, context = highest, {}
        if is_conditioned(network):
            unit, context = 1.0, known | own_day if variant.own_day else known
            if not variant.calendar:
                context = context | {"calendar": np.zeros_like(known["calendar"])}
        chosen = starts["training"], starts["validation"]
        training, validation = _windows_of(flows["flow"].values, unit, context, *chosen)
        training = _with_patterns(network, training, city, flows["time"].values)
        return _Splits(training, validation, validation, unit, highest)

    return _Material(splits, _hash_of(flows, f"{city.grid()} {split.train_end}"))


def _taxibj_material(stores: CityStores) -> _Material:
    """OpenSTL's ready windows of TaxiBJ; test is what is scored."""
    whole, test = (_ready(*windows) for windows in read_windows(stores.data, stores.city).values())
    held_out = round(VALID_SHARE * len(whole.starts))
    # Windows overlap: between the two are those that would share a slot with validation.
    training, validation = whole.starts[: -held_out - _LENGTH + 1], whole.starts[-held_out:]
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


def _ready(history: np.ndarray, future: np.ndarray) -> _Windows:
    """Ready windows (n, HISTORY, ...) and the frames after them (n, HORIZON, ...) as windows of frames in a row."""
    frames = torch.from_numpy(np.concatenate((history, future), axis=1))
    return _Windows(frames.flatten(0, 1), torch.arange(len(frames)) * _LENGTH)


def _write_epochs(file: Path, run: _Trial, history: list[dict[str, float]]) -> None:
    """Add a training's epochs to those of the others, in place of what an interrupted command may have added."""
    others = [row for row in _read_table(file, _EPOCHS) if (row["variant"], row["seed"]) != (run.name, run.seed)]
    _write_table(file, others + [{"variant": run.name, "seed": run.seed} | epoch for epoch in history])
