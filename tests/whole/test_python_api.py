"""The public API: quick to import, explained by help(), and run as docs/python.md and the docstrings show it."""

from __future__ import annotations

import doctest
import inspect
import pydoc
import re
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

import trafficcast as tc
from trafficcast.config.settings import load_config
from trafficcast.simulator.simulator import simulate
from trafficcast.training import settings

DOCUMENT = Path(__file__).parents[2] / "docs" / "python.md"
VERBS = ("open_city", "ingest", "read_flows", "train", "forecast", "backtest")
CONFIG = """
[cities.demo]
west = 9.10
east = 9.16
south = 45.42
north = 45.46
rows = 8
cols = 8
slot_minutes = 60
timezone = "Europe/Rome"
"""


@pytest.fixture(scope="module")
def records(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a configuration and, in gps/, the records of 21 days of a small city."""
    folder = tmp_path_factory.mktemp("demo")
    (folder / "config.toml").write_text(CONFIG)
    simulate(load_config(folder / "config.toml").city(), folder / "gps", vehicles=20, days=21)
    return folder


@pytest.fixture
def folder(records: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The current folder, with configuration and records but without stores; a training is one short epoch."""
    (tmp_path / "config.toml").write_text(CONFIG)
    (tmp_path / "gps").symlink_to(records / "gps")
    (tmp_path / "data" / "demo").mkdir(parents=True)
    (tmp_path / "data" / "demo" / "simulated").symlink_to(records / "gps")
    quick = replace(settings._RECIPES["vmrnn-c"], epochs=1, batch_size=32)
    monkeypatch.setitem(settings._RECIPES, "vmrnn-c", quick)
    monkeypatch.chdir(tmp_path)
    yield tmp_path


def test_importing_it_loads_nothing_heavy() -> None:
    code = (
        "import sys, trafficcast as tc; print(*(name for name in ('numpy', 'xarray', 'torch') if name in sys.modules))"
    )
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert ran.stdout.split() == []


def test_a_name_stays_a_function_after_its_folders_are_imported() -> None:
    code = (
        "import trafficcast as tc, trafficcast.ingestion.inbox, trafficcast.training.retrain, "
        f"trafficcast.forecasting.verify; print(all(callable(getattr(tc, name)) for name in {VERBS!r}))"
    )
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert ran.stdout.strip() == "True"


def test_an_unknown_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="module 'trafficcast' has no attribute 'forecsat'"):
        tc.forecsat  # noqa: B018  # asking is enough


def test_help_teaches_the_whole_way() -> None:
    text = pydoc.plain(pydoc.render_doc(tc))
    for name in VERBS:
        assert f"tc.{name}(" in tc.__doc__ and f"\n    {name}(" in text
    assert set(tc.__all__) <= set(dir(tc))


def test_every_verb_has_an_example() -> None:
    for name in VERBS:
        assert ">>> " in (inspect.getdoc(getattr(tc, name)) or ""), name


@pytest.mark.slow
def test_the_examples_of_the_docstrings_run_in_the_order_of_the_way(folder: Path) -> None:
    names = {"tc": tc}
    parser, runner = doctest.DocTestParser(), doctest.DocTestRunner(optionflags=doctest.ELLIPSIS)
    for name in VERBS:
        example = parser.get_doctest(inspect.getdoc(getattr(tc, name)) or "", names, name, None, None)
        report: list[str] = []
        runner.run(example, out=report.append, clear_globs=False)
        names = example.globs
        assert not report, "".join(report)


@pytest.mark.slow
def test_the_document_runs_as_it_stands(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    way, own = re.findall(r"```python\n(.*?)```", DOCUMENT.read_text(encoding="utf-8"), re.DOTALL)
    exec(compile(way, "docs/python.md, the whole way", "exec"), {})  # noqa: S102  # the project's own document
    said = capsys.readouterr().out
    assert "transitions" in said and "busiest slot: 2024-04-" in said
    assert {"vmrnn-c-1", "climatology"} <= set(re.findall(r"^(\S+): [\d.]+ vehicles per slot$", said, re.MULTILINE))
    exec(compile(own, "docs/python.md, a forecaster of your own", "exec"), {})  # noqa: S102
    said = capsys.readouterr().out
    assert re.search(r"^mean_of_history: [\d.]+ vehicles per slot$", said, re.MULTILINE)
