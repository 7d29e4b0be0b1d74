"""Benchmark: this machine's times and memory, each beside a peer or the naive way in one run."""

from __future__ import annotations

from typing import Any

from trafficcast.errors import InputError

SUITES = ("ingest", "vmrnn")


def benchmark(suite: str) -> list[dict[str, Any]]:
    """The rows of a suite, one a measurement. Raises InputError for an unknown one."""
    if suite == "ingest":
        from pipelines.benchmark_ingest import ingest_rows

        return ingest_rows()
    if suite == "vmrnn":
        from pipelines.benchmark_vmrnn import vmrnn_rows

        return vmrnn_rows()
    raise InputError(f"unknown suite '{suite}'; known are: {', '.join(SUITES)}")
