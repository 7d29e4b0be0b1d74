"""Commands for the model registry: models list, show, promote, rollback."""

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
    card = registry.card(version)
    if chosen.as_json:
        print_json(card)
    else:
        print((registry.root / version / "CARD.md").read_text(encoding="utf-8"))


@for_city
def promote(chosen: Chosen, version: Annotated[str, typer.Argument(help="The new champion.")]) -> None:
    """Make a version the champion."""
    chosen.stores.registry.promote(version)
    chosen.print({"city": chosen.city.name, "champion": version}, "Champion")


@for_city
def rollback(chosen: Chosen) -> None:
    """Undo a promotion: make the champion before this one the champion again."""
    chosen.print({"city": chosen.city.name, "champion": chosen.stores.registry.rollback()}, "Champion")
