"""The example of docs/python.md runs as it stands."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

from trafficcast.config.settings import load_config
from trafficcast.ingest.ingest import ingest
from trafficcast.simulator.simulator import simulate
from trafficcast.stores.city_stores import CityStores

DOCUMENT = Path(__file__).parents[2] / "docs" / "python.md"

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


def test_it_opens_trains_scores_and_draws(tmp_path: Path) -> None:
    (tmp_path / "config.toml").write_text(CONFIG)
    city = load_config(tmp_path / "config.toml").city()
    simulate(city, tmp_path / "gps", vehicles=20, days=7)
    ingest(str(tmp_path / "gps"), CityStores(city, tmp_path / "data", tmp_path / "models"))

    (code,) = re.findall(r"```python\n(.*?)```", DOCUMENT.read_text(encoding="utf-8"), re.DOTALL)
    for written, quick in (("epochs = 20\n", "epochs = 2\n"), ("city.cols)", "city.cols, depth=1)")):
        assert code.count(written) == 1
        code = code.replace(written, quick)
    (tmp_path / "example.py").write_text(code, encoding="utf-8")
    environment = {**os.environ, "MPLBACKEND": "Agg", "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-W", "error::FutureWarning", "example.py"]
    ran = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert ran.returncode == 0, ran.stderr

    said = dict(line.split(": ", 1) for line in ran.stdout.splitlines())
    assert said["busiest slot"].startswith("2024-04-")
    assert float(said["epoch 2"]) < float(said["epoch 1"])
    names = {"vmrnn-b", "persistence", "climatology", "scaled_climatology"}
    assert names <= set(said) and all(float(said[name]) > 0 for name in names)
    assert (tmp_path / "forecast.png").read_bytes().startswith(b"\x89PNG")
