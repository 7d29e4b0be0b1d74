"""Retraining in a separate process with limits of time and memory, so that it never disturbs a forecast."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
from collections import deque

from trafficcast.config.city import City
from trafficcast.config.settings import Config
from trafficcast.errors import JobError

try:
    import resource
except ImportError:  # Windows has no limit of memory
    resource = None  # type: ignore[assignment]

_NICE = 10
_LAST_LINES = 5  # of a failed retraining's output, which the error quotes


class _RetrainingProcess:
    """`trafficcast retrain` as a child process, one at a time."""

    def __init__(self, config: Config, device: str) -> None:
        self._config, self._device = config, device
        self._child: subprocess.Popen[str] | None = None
        self._lock = threading.Lock()

    def run(self, city: City) -> str:
        """Retrain a city and return the result in a sentence. Raises JobError where it fails or meets a limit."""
        limits = self._config.retraining
        words = ["retrain", "--city", city.name, "--device", self._device, "--json", "--config", str(self._config.file)]
        command = [sys.executable, "-m", "pipelines", *words]
        with self._lock:
            child = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
            self._child = child
        with child:  # closes its pipes
            try:
                os.setpriority(os.PRIO_PROCESS, child.pid, _NICE)
                if resource is not None and hasattr(resource, "prlimit"):
                    most = int(limits.memory_gb * 2**30)
                    resource.prlimit(child.pid, resource.RLIMIT_DATA, (most, most))
                out, err = child.communicate(timeout=limits.hours * 3600)
            except subprocess.TimeoutExpired:
                raise JobError(f"the retraining took more than {limits.hours:g} h and was ended") from None
            finally:
                self.stop()
        if child.returncode:
            last = " / ".join(deque((line for line in err.splitlines() if line.strip()), _LAST_LINES))
            raise JobError(f"the retraining ended with {child.returncode}: {last}")
        result = json.loads(out)
        errors = ", ".join(f"{version} {error:.3f}" for version, error in result["rmse"].items())
        return f"{errors}: {'promoted' if result['promoted'] else 'not promoted'} {result['challenger']}"

    def stop(self) -> None:
        """End the child process if it runs; its checkpoint stays."""
        with self._lock:
            child, self._child = self._child, None
        if child is not None and child.poll() is None:
            child.terminate()
            try:
                child.wait(5)
            except subprocess.TimeoutExpired:
                child.kill()
                child.wait()
