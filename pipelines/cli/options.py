"""Options that many commands share, and the choice of the city."""

from __future__ import annotations

import inspect
import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, get_type_hints

import typer

from pipelines.cli.printing import print_json, print_object

if TYPE_CHECKING:  # pandas and xarray are slow to import, and --help is asked often
    from trafficcast.config.city import City
    from trafficcast.config.settings import Config
    from trafficcast.stores.city_stores import CityStores

ConfigOption = Annotated[Path, typer.Option("--config", help="The configuration file.")]
CityOption = Annotated[str | None, typer.Option("--city", help="The city; default: the configuration's.")]
CitiesOption = Annotated[
    list[str] | None, typer.Option("--city", help="Only this city; may be repeated. Default: all.")
]
JsonOption = Annotated[bool, typer.Option("--json", help="Print one JSON object on stdout and nothing else.")]
StartOption = Annotated[str | None, typer.Option("--start", help="First date or time, inclusive.")]
EndOption = Annotated[str | None, typer.Option("--end", help="Last date or time, exclusive.")]
ModelOption = Annotated[str | None, typer.Option("--model", help="A model version; default: the champion.")]
DeviceOption = Annotated[str, typer.Option("--device", help="auto, cpu, cuda or mps.")]
FormatOption = Annotated[
    str | None, typer.Option("--format", help="The records' format; default: recognised from their content.")
]
WorkersOption = Annotated[int, typer.Option(min=1, help="Threads that read, count and write.")]
PortOption = Annotated[int, typer.Option(min=1, max=65535, help="Port to serve on.")]
AddressOption = Annotated[str, typer.Option(help="Address to serve on.")]
CONFIG = Path("config.toml")
CORES = os.cpu_count() or 1


@dataclass(frozen=True)
class Chosen:
    """The configuration, the city that --config and --city choose, and whether --json was given."""

    settings: Config
    stores: CityStores
    as_json: bool

    @property
    def city(self) -> City:
        """The chosen city."""
        return self.stores.city

    def print(self, result: dict[str, Any], title: str, shown: dict[str, Any] | None = None) -> None:
        """Print a result as JSON or, for people, as a table of `shown` (by default all of it)."""
        if self.as_json:
            print_json(result)
        else:
            print_object(result if shown is None else shown, title)


def choose(config: Path, city: str | None, as_json: bool = False) -> Chosen:
    """Read the configuration and choose a city of it."""
    from trafficcast.config.settings import load_config
    from trafficcast.stores.city_stores import CityStores

    settings = load_config(config)
    return Chosen(settings, CityStores.of(settings, settings.city(city)), as_json)


def for_city(command: Callable[..., None]) -> Callable[..., None]:
    """Add --config, --city and --json to a command, and pass their choice as its first argument."""

    def run(config: ConfigOption = CONFIG, city: CityOption = None, as_json: JsonOption = False, **own: Any) -> None:
        command(choose(config, city, as_json), **own)

    types = get_type_hints(command, include_extras=True) | get_type_hints(run, include_extras=True)
    _, *own = inspect.signature(command).parameters.values()
    *shared, _ = inspect.signature(run).parameters.values()
    parameters = [one.replace(annotation=types[one.name], kind=one.KEYWORD_ONLY) for one in (*own, *shared)]
    run.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]  # Typer makes the options of it
    run.__annotations__ = {one.name: one.annotation for one in parameters}
    run.__name__, run.__doc__ = command.__name__, command.__doc__
    return run
