"""Serve the pages: `python -m dashboard ARGUMENTS` is `streamlit run` of the pages' script.

Slow modules, which take two seconds to import, are imported before the server listens, so that the first page is as
fast as the others. The maps' component is not among them: Streamlit finds a component only when a page imports it.
"""

from __future__ import annotations

import importlib
import sys
from pathlib import Path

import xarray as xr
from streamlit.web import cli

_BEFORE = ("altair", "dashboard.reads.stores", "h5netcdf")


def import_before() -> None:
    """Import what the first page would wait for."""
    for name in _BEFORE:
        importlib.import_module(name)
    xr.Variable("x", [0])  # with the first one xarray imports dask, where that is installed


if __name__ == "__main__":
    import_before()
    cli.main(["run", str(Path(__file__).with_name("app.py")), *sys.argv[1:]], prog_name="streamlit")
