"""A wheel, installed not editable in an environment of its own, holds everything and runs."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import sysconfig
import venv
import zipfile
from pathlib import Path

import pytest

pytestmark = pytest.mark.slow

PROJECT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    source = tmp_path_factory.mktemp("source")
    for name in ("trafficcast", "pipelines", "dashboard"):
        shutil.copytree(PROJECT / name, source / name, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(PROJECT / name, source)
    out = tmp_path_factory.mktemp("wheel")
    command = [sys.executable, "-m", "pip", "wheel", "--no-deps", "--no-build-isolation", "-w", str(out), str(source)]
    subprocess.run(command, check=True, capture_output=True)
    return next(out.glob("*.whl"))


def test_it_holds_the_packages_leaflet_and_the_template(wheel: Path) -> None:
    names = zipfile.ZipFile(wheel).namelist()
    assert {name.split("/")[0] for name in names if ".dist-info" not in name} == {
        "trafficcast",
        "pipelines",
        "dashboard",
    }
    assert "trafficcast/quality/quality_page.html.jinja" in names
    leaflet = {Path(name).name for name in names if name.startswith("dashboard/static/leaflet-1.9.4/")}
    assert {"leaflet.js", "leaflet.css", "LICENSE"} <= leaflet


def test_it_runs_from_an_environment_of_its_own(wheel: Path, tmp_path: Path) -> None:
    environment = tmp_path / "environment"
    venv.create(environment, with_pip=True)
    python = environment / "bin" / "python"
    subprocess.run([python, "-m", "pip", "install", "--no-deps", "--quiet", wheel], check=True)
    # The dependencies come from this environment; its own site hooks, an editable install among them, do not.
    site = Path(
        subprocess.check_output(
            [python, "-c", "import sysconfig; print(sysconfig.get_path('purelib'))"], text=True
        ).strip()
    )
    (site / "dependencies.pth").write_text(sysconfig.get_path("purelib") + "\n")
    (tmp_path / "config.toml").write_text((PROJECT / "config.toml").read_text())

    clean = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}

    def run(*words: str) -> str:
        command = [environment / "bin" / "trafficcast", *words]
        return subprocess.run(command, cwd=tmp_path, env=clean, check=True, capture_output=True, text=True).stdout

    run("simulate", "--city", "demo", "--vehicles", "10", "--days", "1", "--out", "gps")
    assert '"transitions"' in run("ingest", "gps", "--city", "demo", "--json")
    run("quality", "--city", "demo", "--html", "quality.html")
    assert "Quality of the records of demo" in (tmp_path / "quality.html").read_text(encoding="utf-8")
    assert '"problems": []' in run("doctor", "--json")
    where = "import trafficcast as t, pipelines as p, dashboard as d; print(t.__file__, p.__file__, d.__file__)"
    files = subprocess.check_output([python, "-c", where], cwd=tmp_path, env=clean, text=True).split()
    assert all(file.startswith(str(site)) for file in files)
