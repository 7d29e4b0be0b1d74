"""Doctor: versions, device, scan, write access and configuration, with what to do about what is wrong."""

from __future__ import annotations

import os
import platform
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from trafficcast import __version__
from trafficcast.config.settings import load_config
from trafficcast.errors import InputError

_PACKAGES = ("torch", "numpy", "numba", "pandas", "pyarrow", "xarray", "h5py", "streamlit", "folium", "mamba-ssm")


def _doctor(config: Path) -> dict[str, Any]:
    """What this installation is; `problems` lists sentences about what keeps it from working."""
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
    try:
        return version(package)
    except PackageNotFoundError:
        return "not installed"


def _writable(folder: Path) -> bool:
    """Whether the folder, or the nearest one above it that exists, may be written to."""
    existing = next(parent for parent in (folder, *folder.parents) if parent.exists())
    return os.access(existing, os.W_OK | os.X_OK)
