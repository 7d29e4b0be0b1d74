"""What several tests share: a small city, its configuration, and the command line called in this process."""

from __future__ import annotations

import json
import logging
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

os.environ.setdefault("OMP_WAIT_POLICY", "passive")

from pipelines.cli import main as cli  # noqa: E402  # the environment is set before torch loads

CONFIG = """
default_city = "small"

[cities.small]
west = 9.10
east = 9.26
south = 45.42
north = 45.52
rows = 10
cols = 6
slot_minutes = 60
timezone = "Europe/Rome"
"""


@dataclass
class Ran:
    """One call of the command line."""

    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        """What stdout holds, which must be JSON and nothing else."""
        return json.loads(self.out)


@pytest.fixture
def config(tmp_path: Path) -> Path:
    """A configuration with one small city, 10 x 6 cells and slots of one hour; its stores lie beside it."""
    file = tmp_path / "config.toml"
    file.write_text(CONFIG)
    return file


@pytest.fixture
def trafficcast(
    config: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Callable[..., Ran]:
    """Call the command line as a shell would, with that configuration unless another is given."""

    def call(*arguments: object) -> Ran:
        words = [str(argument) for argument in arguments]
        if "--config" not in words:
            words += ["--config", str(config)]
        monkeypatch.setattr(sys, "argv", ["trafficcast", *words])
        monkeypatch.setattr(logging.getLogger("trafficcast"), "handlers", [])
        capsys.readouterr()
        with pytest.raises(SystemExit) as ended:
            cli.main()
        captured = capsys.readouterr()
        code = ended.value.code
        return Ran(code if isinstance(code, int) else 0 if code is None else 1, captured.out, captured.err)

    return call


@pytest.fixture
def snapshot() -> Callable[[Path], dict[str, bytes]]:
    """All files below a folder but locks, by name, with their bytes."""

    def take(folder: Path) -> dict[str, bytes]:
        files = (file for file in sorted(folder.rglob("*")) if file.is_file() and file.name != ".lock")
        return {str(file.relative_to(folder)): file.read_bytes() for file in files}

    return take


@pytest.fixture(scope="session")
def _trained_once(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("trained")
    (folder / "config.toml").write_text(CONFIG)
    for words in (
        "simulate --vehicles 60 --days 7 --out gps",
        "ingest gps",
        "train --epochs 1 --batch-size 32 --device cpu --train-end 2024-04-13 --valid-end 2024-04-14",
    ):
        subprocess.run([Path(sys.executable).with_name("trafficcast"), *words.split()], cwd=folder, check=True)
    return folder


@pytest.fixture
def trained(_trained_once: Path, config: Path) -> Path:
    """Seven simulated days of the small city, ingested and trained on for one epoch by the installed command.

    Returns the folder of config, data and models; 13 April validated, 14 April is test.
    """
    shutil.copytree(_trained_once, config.parent, dirs_exist_ok=True)
    return config.parent
