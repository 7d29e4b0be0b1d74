"""Commands for the configuration's cities: city list, city add."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from pipelines.cli.options import CONFIG, ConfigOption, FormatOption, JsonOption
from pipelines.cli.printing import print_json, print_object, print_rows

if TYPE_CHECKING:
    from trafficcast.config.settings import Config


def list_cities(config: ConfigOption = CONFIG, as_json: JsonOption = False) -> None:
    """List the configuration's cities with grid, slots, time zone, stored days of flows, and champion."""
    from trafficcast.config.settings import load_config

    rows = _city_rows(load_config(config))
    if as_json:
        print_json({"cities": rows})
    elif rows:
        print_rows(rows, f"Cities of {config}")
    else:
        print(f"{config} has no city yet: add one with trafficcast city add NAME --records PATH")


def add(
    name: Annotated[str, typer.Argument(help="Lower-case letters, digits and single dashes.")],
    records: Annotated[str, typer.Option("--records", help="File, folder, glob or URL of GPS points or trips.")],
    record_format: FormatOption = None,
    timezone: Annotated[
        str | None, typer.Option(help="IANA time zone, such as Asia/Kolkata; default: the one at the records.")
    ] = None,
    rows: Annotated[
        int | None, typer.Option(min=1, max=1024, help="Rows of cells; default: as many as fit the records.")
    ] = None,
    cols: Annotated[
        int | None, typer.Option(min=1, max=1024, help="Columns of cells; default: as many as fit the records.")
    ] = None,
    slot_minutes: Annotated[
        int | None, typer.Option(min=1, max=1440, help="Minutes of a slot; default: 30, or more for few records.")
    ] = None,
    feed: Annotated[
        list[str] | None,
        typer.Option("--feed", help="KEY=VALUE of the city's feed, such as columns.time=when; may be repeated."),
    ] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Print the table and write nothing.")] = False,
    config: ConfigOption = CONFIG,
    as_json: JsonOption = False,
) -> None:
    """Choose a box, a grid and a slot length that fit a new city's records, and add its table to the configuration.

    The table comes at the end of the file, and may be changed before the first ingest. Comments and order stay.
    """
    from trafficcast.new_city.add import add_city

    result = add_city(
        config, name, records, record_format, timezone, rows, cols, slot_minutes, tuple(feed or ()), dry_run
    )
    if as_json:
        print_json(result)
    elif dry_run:
        print(result["toml"], end="")
    else:
        shown = {key: result[key] for key in ("records", "kind", "rows_dropped", "why", "notes")}
        print_object({**shown.pop("why"), **shown}, f"City {name}")
        print(f"Written to {config}:\n\n{result['toml']}\nNext:\n" + "\n".join(result["next"]))


def _city_rows(config: Config) -> list[dict[str, Any]]:
    """Make a row for each city, with the days that are stored and the champion."""
    from trafficcast.stores.city_stores import CityStores

    rows = []
    for name in sorted(config.cities):
        city = config.city(name)
        stores = CityStores.of(config, city)
        days = stores.flows.days()
        rows.append(
            {
                "city": name,
                "grid": f"{city.rows} x {city.cols}",
                "slot_minutes": city.slot_minutes,
                "timezone": city.timezone,
                "first_day": str(days[0]) if days else None,
                "last_day": str(days[-1]) if days else None,
                "champion": stores.registry.champion(),
            }
        )
    return rows
