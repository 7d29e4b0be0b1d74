"""Commands that serve pages: dashboard, api."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Annotated

import typer

from pipelines.cli.options import CONFIG, AddressOption, CityOption, ConfigOption, PortOption, choose
from pipelines.cli.printing import out

_SETTINGS = {
    "server.headless": "true",
    # No data may leave the machine, and nobody edits the script while it runs.
    "browser.gatherUsageStats": "false",
    "server.fileWatcherType": "none",
    "client.toolbarMode": "viewer",
    # One colour for both themes would keep the page light where the browser asks for dark.
    "theme.light.primaryColor": "#31688e",
    "theme.dark.primaryColor": "#6db3dc",
    "theme.baseFontSize": "14",
}


def dashboard(
    port: PortOption = 8501,
    address: AddressOption = "127.0.0.1",
    config: ConfigOption = CONFIG,
    city: CityOption = None,
) -> None:
    """Serve the dashboard: forecast and observed flows on the city's map."""
    chosen = choose(config, city).city
    out.print(f"The dashboard of {chosen.name} is at http://{address}:{port} (stop with Ctrl-C)")
    words = _streamlit(config, chosen.name, port, address)
    sys.stdout.flush()
    os.execv(words[0], words)  # the server takes this process's place, so that signals reach it


def api(
    port: PortOption = 8600,
    address: AddressOption = "127.0.0.1",
    cors: Annotated[
        list[str] | None,
        typer.Option(
            "--cors", metavar="ORIGIN", help="Scripts of this origin's pages may read the answers; may be repeated."
        ),
    ] = None,
    config: ConfigOption = CONFIG,
) -> None:
    """Serve the read-only HTTP API of all cities; needs the extra [api].

    Requests must show the token of the environment variable TRAFFICCAST_API_TOKEN where it is set.
    """
    from trafficcast.api.server import serve
    from trafficcast.config.settings import load_config

    serve(load_config(config), address, port, tuple(cors or ()))


def _streamlit(config: Path, city: str | None, port: int, address: str = "127.0.0.1") -> list[str]:
    """Return the command that serves the pages of a configuration file, with the city that is shown first."""
    flags = [f"--{key}={value}" for key, value in _SETTINGS.items()]
    where = [f"--server.address={address}", f"--server.port={port}"]
    shown = ["--config", str(config)] + (["--city", city] if city else [])
    # -P: do not import a folder named dashboard from the current folder.
    return [sys.executable, "-P", "-m", "dashboard", *flags, *where, "--", *shown]
