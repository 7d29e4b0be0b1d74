"""Commands for the model registry: models list, show, promote, rollback, seal."""

from __future__ import annotations

from typing import Annotated

import typer

from pipelines.cli.options import Chosen, for_city
from pipelines.cli.printing import print_json, print_rows
from trafficcast.errors import InputError


@for_city
def list_models(chosen: Chosen) -> None:
    """List the city's trained models with their test and validation errors."""
    registry, name = chosen.stores.registry, chosen.city.name
    champion = registry.champion()
    rows = []
    for version in registry.versions():
        card = registry.card(version)
        row = {"version": version, "champion": version == champion, "created": card["created"]}
        for split in ("validation", "test"):
            row[f"{split}_rmse"] = card["metrics"][split].get(version, {}).get("rmse")
        rows.append(row)
    if chosen.as_json:
        print_json({"city": name, "champion": champion, "models": rows})
    elif rows:
        print_rows(rows, f"Models of {name}")
    else:
        print(f"'{name}' has no model yet: run trafficcast train --city {name}")


@for_city
def show(chosen: Chosen, version: Annotated[str | None, typer.Argument(help="Default: the champion.")] = None) -> None:
    """Show a model's card."""
    registry = chosen.stores.registry
    version = version or registry.champion()
    if version is None:
        raise InputError(f"'{chosen.city.name}' has no model yet")
    if chosen.as_json:
        print_json(registry.card(version))
    else:
        print(registry.read(version, "CARD.md", lambda content: content.decode("utf-8", errors="replace")))


@for_city
def promote(chosen: Chosen, version: Annotated[str, typer.Argument(help="The new champion.")]) -> None:
    """Make a version the champion."""
    chosen.stores.registry.promote(version)
    chosen.print({"city": chosen.city.name, "champion": version}, "Champion")


@for_city
def rollback(chosen: Chosen) -> None:
    """Undo a promotion: make the champion before this one the champion again."""
    chosen.print({"city": chosen.city.name, "champion": chosen.stores.registry.rollback()}, "Champion")


@for_city
def seal(chosen: Chosen) -> None:
    """Give models of earlier versions their seals: the SHA-256 of each file, in the card.

    A model that cannot be loaded, or is not as it was sealed, stays as it is, and the exit code is 1.
    """
    from trafficcast.forecasting.model import seal_models

    outcomes = seal_models(chosen.stores.registry)
    rows = [{"version": version, "outcome": outcome} for version, outcome in outcomes.items()]
    if chosen.as_json:
        print_json({"city": chosen.city.name, "models": rows})
    elif rows:
        print_rows(rows, f"Seals of {chosen.city.name}")
    else:
        print(f"'{chosen.city.name}' has no model yet: run trafficcast train --city {chosen.city.name}")
    if not set(outcomes.values()) <= {"sealed", "was sealed before"}:
        raise typer.Exit(1)
