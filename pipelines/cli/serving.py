"""How the pages are started: Streamlit (see __main__.py) in its own process, with every setting on its command line."""

from __future__ import annotations

import sys
from pathlib import Path

_SETTINGS = {
    # Leaflet lies in static/ beside the script.
    "server.enableStaticServing": "true",
    "server.headless": "true",
    # Nothing is to leave the machine, and nobody edits the script while it runs.
    "browser.gatherUsageStats": "false",
    "server.fileWatcherType": "none",
    "client.toolbarMode": "viewer",
    # One that fixed a colour for both would keep the page light where the browser asks for dark.
    "theme.light.primaryColor": "#31688e",
    "theme.dark.primaryColor": "#6db3dc",
    "theme.baseFontSize": "14",
}


def _command(config: Path, city: str | None, port: int, address: str = "127.0.0.1") -> list[str]:
    """The argument vector that serves the pages for a configuration file; `city` is the one shown first."""
    flags = [f"--{key}={value}" for key, value in _SETTINGS.items()]
    where = [f"--server.address={address}", f"--server.port={port}"]
    shown = ["--config", str(config)] + (["--city", city] if city else [])
    # -P: a folder of the same name where it is started is not this package.
    return [sys.executable, "-P", "-m", "dashboard", *flags, *where, "--", *shown]
