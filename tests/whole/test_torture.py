"""Faults of the machine: kills and failed writes at each system call of a job, and flipped bits in every kind of file.

The usual tests try a few moments of each; `make torture` tries every one, for hours, and prints the figures. A shim
that a C compiler makes (tests/faults.c) stands between the program and the system. The clock jumps a day ahead and
back in each run of the cycles. Locks that hang are those of test_sick_city.py.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections import defaultdict
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.cities import small_city
from trafficcast.simulator.simulator import simulate

pytestmark = pytest.mark.slow
ALL = bool(os.environ.get("TORTURE"))
TESTS = Path(__file__).parents[1]
FIGURES = ("silent", "traceback", "lost", "recovered")


@pytest.fixture(scope="module")
def figures() -> Iterator[dict[str, list[dict[str, Any]]]]:
    """The trials by fault, of which a table is printed at the end."""
    trials: dict[str, list[dict[str, Any]]] = defaultdict(list)
    yield trials
    print("\n\n| fault | trials | silent | tracebacks | lost | recovered |\n|---|---|---|---|---|---|")
    for fault, those in trials.items():
        numbers = [sum(bool(trial[figure]) for trial in those) for figure in FIGURES]
        print(f"| {fault} | {len(those)} | {' | '.join(map(str, numbers))} |")


@pytest.fixture
def order(
    trained: Path, tmp_path_factory: pytest.TempPathFactory, figures: dict[str, list[dict[str, Any]]]
) -> Callable[..., list[dict[str, Any]]]:
    """Carry out an order of tests/faults.py with the trained city, to which new files have come."""
    compiler = shutil.which("cc")
    if compiler is None:
        pytest.skip("no C compiler (cc) makes the shim that injects the faults")
    work = tmp_path_factory.mktemp("faults")
    shim = work / "faults.so"
    subprocess.run([compiler, "-shared", "-fPIC", "-O1", "-o", shim, TESTS / "faults.c", "-ldl"], check=True)
    simulate(small_city(slot_minutes=60), trained / "new", 10, 1, 9, file_format="parquet")
    shutil.rmtree(trained / "gps")

    def carry_out(**more: Any) -> list[dict[str, Any]]:
        content = {"folder": str(trained), "work": str(work), "shim": str(shim)} | more
        ran = subprocess.run(
            [sys.executable, TESTS / "faults.py"], input=json.dumps(content), stdout=subprocess.PIPE, text=True,
            env=os.environ | {"LD_PRELOAD": str(shim), "OMP_NUM_THREADS": "1", "PYTHONPATH": str(TESTS.parent)},
            check=True,
        )  # fmt: skip
        trials = [json.loads(line) for line in ran.stdout.splitlines()]
        for trial in trials:
            figures[trial["fault"]].append(trial)
        return trials

    return carry_out


@pytest.mark.parametrize("job", ["ingest", "cycle"])
def test_a_job_killed_or_failed_at_a_system_call_is_made_good_by_the_same_job(
    job: str, order: Callable[..., list[dict[str, Any]]]
) -> None:
    trials = order(job=job, faults=["kill", "ENOSPC", "EIO"], trials=None if ALL else 3)
    assert trials
    wrong = [trial for trial in trials if trial["silent"] or trial["traceback"] or trial["lost"]]
    assert not wrong, wrong[:5]
    assert any(trial["first"]["ended"] == "killed" for trial in trials)


def test_a_flipped_bit_in_any_file_is_harmless_or_told(order: Callable[..., list[dict[str, Any]]]) -> None:
    trials = order(job="flips", trials=40 if ALL else 1)
    wrong = [trial for trial in trials if trial["silent"] or trial["traceback"]]
    wrong += [
        trial for trial in trials if trial["lost"] and not trial["told_lost"] and "report" not in trial["different"]
    ]
    assert not wrong, wrong[:5]
