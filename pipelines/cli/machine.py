"""Commands that examine this machine: benchmark, doctor."""

from __future__ import annotations

import os
import platform
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Annotated, Any

import typer

from pipelines.cli.options import CONFIG, ConfigOption, JsonOption
from pipelines.cli.printing import print_json, print_object, print_rows
from trafficcast import __version__
from trafficcast.errors import InputError

_PACKAGES = ("torch", "numpy", "numba", "pandas", "pyarrow", "xarray", "h5py", "streamlit", "mamba-ssm")


def benchmark(
    file: Annotated[
        Path | None, typer.Argument(help="Write the JSON object to this file, and the tables on stdout.")
    ] = None,
    suite: Annotated[
        str, typer.Option("--suite", help="ingest, vmrnn, service, dashboard or gpu; default: the first two.")
    ] = "all",
    picture: Annotated[
        Path | None, typer.Option(help="Draw how time grows with the number of tokens (vmrnn) to this PNG file.")
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Measure this machine: ingest beside DuckDB and pandas, the network beside naive ones, the service, the GPU."""
    from pipelines.benchmarks.suites import benchmark as run
    from trafficcast.files import write_json

    results = {name: run(name, picture) for name in (("ingest", "vmrnn") if suite == "all" else (suite,))}
    if file is not None:
        write_json(file, results)
    elif as_json:
        print_json(results)
        return
    for name, rows in results.items():
        print_rows(rows, f"{name}, this machine")


def doctor(config: ConfigOption = CONFIG, as_json: JsonOption = False) -> None:
    """Check this installation: versions, device, the network's scan, write access, configuration."""
    result = _examine(config)
    if as_json:
        print_json(result)
    else:
        print_object(result, "trafficcast doctor")
    if result["problems"]:
        raise typer.Exit(1)


def _examine(config: Path) -> dict[str, Any]:
    """Return facts about this installation, and its `problems`, each in a sentence."""
    from trafficcast.config.settings import load_config
    from trafficcast.forecasting.inference import pick_device
    from trafficcast.nn import scan_backend

    problems: list[str] = []
    device = pick_device("auto")
    result: dict[str, Any] = {
        "trafficcast": __version__,
        "python": platform.python_version(),
        **{name: _version(name) for name in _PACKAGES},
        "device": str(device),
        "scan": scan_backend(device),
        "cores": os.cpu_count(),
        "OMP_WAIT_POLICY": os.environ.get("OMP_WAIT_POLICY", "not set"),
        "config": str(config),
    }
    try:
        settings = load_config(config)
    except InputError as error:
        problems.append(str(error))
    else:
        result["cities"] = sorted(settings.cities)
        for folder in (settings.paths.data, settings.paths.models):
            if not _writable(folder):
                problems.append(f"cannot write to {folder}: change its owner, or set [paths] in {config}")
    return result | {"problems": problems}


def _version(package: str) -> str:
    """Return the version of an installed package."""
    try:
        return version(package)
    except PackageNotFoundError:
        return "not installed"


def _writable(folder: Path) -> bool:
    """Whether the folder, or the nearest existing folder above it, may be written to."""
    existing = next(parent for parent in (folder, *folder.parents) if parent.exists())
    return os.access(existing, os.W_OK | os.X_OK)
