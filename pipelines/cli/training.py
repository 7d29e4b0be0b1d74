"""Commands that train and measure models: train, experiment, backtest, retrain."""

from __future__ import annotations

import logging
import shlex
import sys
from pathlib import Path
from typing import Annotated

import typer

from pipelines.cli.options import Chosen, DeviceOption, ModelOption, for_city
from pipelines.cli.printing import out, print_coverage, print_json, print_scores, print_windows

TrainEnd = Annotated[str | None, typer.Option(help="Training uses the slots before this time.")]


@for_city
def train(
    chosen: Chosen,
    model: Annotated[
        str,
        typer.Option(
            "--model", help="vmrnn-c (reads the climatology and the calendar as well), vmrnn-b, or vmrnn-d (deep)."
        ),
    ] = "vmrnn-c",
    epochs: Annotated[int | None, typer.Option(min=1, help="Passes over the training windows.")] = None,
    batch_size: Annotated[
        int | None, typer.Option(min=1, help="Windows in a training step; fewer need less memory.")
    ] = None,
    learning_rate: Annotated[
        float | None, typer.Option(min=1e-8, help="Highest learning rate of the cosine schedule.")
    ] = None,
    weight_decay: Annotated[float | None, typer.Option(min=0.0, help="AdamW's weight decay.")] = None,
    seed: Annotated[
        int | None, typer.Option(help="Seed of the weights, the order of the windows and drop path.")
    ] = None,
    train_end: TrainEnd = None,
    valid_end: Annotated[
        str | None, typer.Option(help="Validation uses the slots before this time, test those from it on.")
    ] = None,
    test_end: Annotated[
        str | None, typer.Option(help="Test uses the slots before this time; default: up to the last slot.")
    ] = None,
    resume: Annotated[bool, typer.Option("--resume", help="Continue an interrupted training.")] = False,
    transfer: Annotated[
        str | None,
        typer.Option(metavar="[CITY/]VERSION", help="Start from this model's weights instead of random ones."),
    ] = None,
    device: DeviceOption = "auto",
) -> None:
    """Train a network on the city's flows, and store it with its card in the registry.

    Without the three ends the last 15 % of the slots that windows hold are test and the 10 % before them validation,
    cut at midnights.
    Other options that are not given have the values of the architecture's recipe.
    """
    from trafficcast.training.distributed import process_group, rank
    from trafficcast.training.settings import recipe
    from trafficcast.training.train import train as run

    settings = recipe(
        model, epochs=epochs, batch_size=batch_size, learning_rate=learning_rate, weight_decay=weight_decay, seed=seed
    )
    with process_group():
        if rank():  # the first of torchrun's processes logs; the others log errors only
            logging.disable(logging.WARNING)
        made = run(chosen.stores, model, settings, train_end, valid_end, test_end, device, resume, transfer)
        if rank():
            return
    card = made.card
    if chosen.as_json:
        print_json(card)
    else:
        print_windows(card["periods"])
        print_scores(card["metrics"]["test"] or card["metrics"]["validation"], chosen.city.slot_minutes)
        out.print(f"Stored {card['version']} in the registry.")


@for_city
def experiment(
    chosen: Chosen,
    name: Annotated[str, typer.Argument(help="blocks, patch, convolution, choices, seeds or taxibj.")],
    variant: Annotated[
        list[str] | None, typer.Option("--variant", help="Only this variant; may be repeated. Default: all.")
    ] = None,
    seeds: Annotated[int, typer.Option(min=1, help="How many seeds, from 42 on.")] = 3,
    epochs: Annotated[
        int | None, typer.Option(min=1, help="Default: the number of each architecture's recipe.")
    ] = None,
    batch_size: Annotated[
        int | None, typer.Option(min=1, help="Windows in a training step; default: as for --epochs.")
    ] = None,
    train_end: TrainEnd = None,
    valid_end: Annotated[
        str | None, typer.Option(help="Validation uses the slots before this time; later slots are not read.")
    ] = None,
    folder: Annotated[
        Path | None, typer.Option("--out", help="Folder of the results; default: data/CITY/experiments/NAME.")
    ] = None,
    device: DeviceOption = "auto",
) -> None:
    """Compare variants of the networks and of their training, each with several seeds, on the validation split.

    Writes results.csv, results.md, results.png and epochs.csv. The same command continues an interrupted experiment.
    """
    from trafficcast.training.run_experiment import experiment as run

    command = shlex.join(["trafficcast", *sys.argv[1:]])
    sizes, ends = (seeds, epochs, batch_size), (train_end, valid_end)
    rows, table = run(name, chosen.stores, command, folder, tuple(variant or ()), *sizes, *ends, device)
    if chosen.as_json:
        print_json({"experiment": name, "city": chosen.city.name, "results": rows})
    else:
        print(table)


@for_city
def backtest(
    chosen: Chosen,
    start: Annotated[str, typer.Option("--start", help="First target slot, inclusive.")],
    end: Annotated[str, typer.Option("--end", help="End of the last target slot, exclusive.")],
    model: ModelOption = None,
    device: DeviceOption = "auto",
) -> None:
    """Score a model beside every baseline on a past period."""
    from trafficcast.forecasting.evaluation import backtest as run

    result = run(chosen.stores, start, end, model, device)
    if chosen.as_json:
        print_json(result)
        return
    out.print(f"{result['forecasts']} forecasts of {chosen.city.name} from {result['start']} to {result['end']}")
    print_windows({"backtest": result})
    print_scores(result["scores"], chosen.city.slot_minutes)
    if result["intervals"]:
        print_coverage(result["intervals"], chosen.city.slot_minutes)


@for_city
def retrain(chosen: Chosen, device: DeviceOption = "auto") -> None:
    """Train a challenger on the newest data, and promote it if it beats the champion on days new to both."""
    from trafficcast.training.retrain import retrain as run

    chosen.print(run(chosen.stores, chosen.settings.retraining, device), f"Retraining of {chosen.city.name}")
