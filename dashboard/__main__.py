"""python -m dashboard ARGUMENTS: `streamlit run` of the pages' script.

What the pages import, two seconds of it, is imported before the server listens: the first page is then as fast as
the others. Not all of it: Streamlit knows a component, such as the maps', only when a page imports it.
"""

from __future__ import annotations

import importlib
import sys
from pathlib import Path

import xarray as xr
from streamlit.web import cli

_BEFORE = ("altair", "dashboard.reads.stores", "folium.plugins", "h5netcdf")


def import_before() -> None:
    """Import what the first page would wait for."""
    for name in _BEFORE:
        importlib.import_module(name)
    xr.Variable("x", [0])  # with the first one xarray imports dask, where that is installed


if __name__ == "__main__":
    import_before()
    cli.main(["run", str(Path(__file__).with_name("app.py")), *sys.argv[1:]], prog_name="streamlit")
