"""The suites of `trafficcast benchmark`: times and memory on this machine, beside peers or naive implementations."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from trafficcast.errors import InputError

_SUITES = ("ingest", "vmrnn", "service", "dashboard", "gpu")


def benchmark(suite: str, picture: Path | None = None) -> list[dict[str, Any]]:
    """Run a suite of measurements.

    Parameters
    ----------
    suite
        The suite: ingest, vmrnn, service, dashboard or gpu.
    picture
        PNG file of time by number of tokens, for the suite vmrnn alone.

    Returns
    -------
    list[dict[str, Any]]
        A row for each measurement.

    Raises
    ------
    InputError
        The suite is unknown, or it has no picture.
    JobError
        The suite gpu was chosen on a machine without a CUDA GPU, or a measurement failed.
    """
    if picture is not None and suite != "vmrnn":
        raise InputError("--picture goes with --suite vmrnn: it shows how the time grows with the number of tokens")
    if suite == "ingest":
        from pipelines.benchmarks.ingest import _ingest_rows

        return _ingest_rows()
    if suite == "vmrnn":
        from pipelines.benchmarks.vmrnn import _vmrnn_rows

        return _vmrnn_rows(picture)
    if suite == "service":
        from pipelines.benchmarks.service import _service_rows

        return _service_rows()
    if suite == "dashboard":
        from pipelines.benchmarks.dashboard import _dashboard_rows

        return _dashboard_rows()
    if suite == "gpu":
        from pipelines.benchmarks.gpu import _gpu_rows

        return _gpu_rows()
    raise InputError(f"unknown suite '{suite}'; known are: {', '.join(_SUITES)}")
