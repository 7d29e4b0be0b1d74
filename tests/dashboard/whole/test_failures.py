"""A page that fails says so in one sentence; the traceback is in the server's log, however the pages were started."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

sync_api = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")

SECONDS = 60
PROJECT = Path(__file__).resolve().parents[3]
FAILURE = """
import trafficcast.config.settings as settings
def load_config(file, load=settings.load_config):
    if {where} in __import__("sys")._getframe(1).f_code.co_filename:
        raise RuntimeError("a bug at /some/secret/path")
    return load(file)
settings.load_config = load_config
"""
STREAMLIT = ["--server.headless=true", "--browser.gatherUsageStats=false", "--client.showErrorDetails=full"]
STARTS = {
    "trafficcast": ["pipelines", "dashboard", "--port", "PORT", "--config", "CONFIG", "--city", "testville"],
    "package": ["dashboard", *STREAMLIT, "--server.port=PORT", "--", "--config", "CONFIG", "--city", "testville"],
    "streamlit": [
        *["streamlit", "run", str(PROJECT / "dashboard" / "app.py")],
        *[*STREAMLIT, "--server.port=PORT", "--", "--config", "CONFIG", "--city", "testville"],
    ],
}


@pytest.mark.parametrize("start", STARTS)
def test_a_traceback_never_reaches_a_browser(
    filled: Any, tmp_path: Path, open_tab: Callable[..., Any], start: str
) -> None:
    (tmp_path / "sitecustomize.py").write_text(FAILURE.format(where="'dashboard'"))
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    words = [word.replace("PORT", port).replace("CONFIG", str(filled.file)) for word in STARTS[start]]
    paths = os.pathsep.join([str(tmp_path), str(PROJECT)])
    environment = os.environ | {"PYTHONPATH": paths, "OMP_WAIT_POLICY": "passive", "HOME": str(tmp_path)}
    with open(tmp_path / "log", "w") as log:
        server = subprocess.Popen([sys.executable, "-m", *words], cwd=tmp_path, env=environment, stdout=log, stderr=log)
    try:
        _wait_for(f"http://127.0.0.1:{port}/_stcore/health", server)
        tab = open_tab()
        tab.goto(f"http://127.0.0.1:{port}/")
        shown = tab.get_by_test_id("stException")
        sync_api.expect(shown).to_contain_text("encountered an error")
        content = tab.content()
        assert "secret" not in content and "RuntimeError" not in content and ".py" not in shown.inner_text()
    finally:
        server.terminate()
        server.wait(SECONDS)
    said = (tmp_path / "log").read_text()
    assert "Traceback" in said and "/some/secret/path" in said


def _wait_for(url: str, server: subprocess.Popen[bytes]) -> None:
    end = time.monotonic() + SECONDS
    while server.poll() is None and time.monotonic() < end:
        try:
            urllib.request.urlopen(url, timeout=5)
            return
        except OSError:
            time.sleep(0.2)
    raise AssertionError(f"the server did not answer at {url}")
