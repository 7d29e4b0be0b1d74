"""Replay: run the service's cycles over a past period, slot by slot, with a clock that runs through the period."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

import numpy as np

from pipelines.service.city_state import _read_state
from pipelines.service.cycle import CityService, _verify_recent, run_cycle
from pipelines.service.repair import _remove_leftovers
from trafficcast.alerts.notify import alert_files, check_alerts
from trafficcast.config.alert_rules import Alerts
from trafficcast.config.service import Service
from trafficcast.forecasting.inference import pick_device
from trafficcast.geography.areas import city_areas
from trafficcast.progress import track
from trafficcast.stores.city_stores import CityStores
from trafficcast.stores.flows import read_flows
from trafficcast.stores.forecasts import BASELINE, COMPLETE, DEGRADED


def replay(
    stores: CityStores,
    start: str | np.datetime64,
    end: str | np.datetime64,
    settings: Service | None = None,
    speed: float | None = None,
    device: str = "auto",
    alerts: Alerts | None = None,
) -> dict[str, Any]:
    """Run a cycle of the service at every slot of a past period, each with the data known at its time.

    A cycle runs at the slot's start if the data before it are complete, and at the end of the service's wait for them
    otherwise. A slot that an earlier replay forecast is not forecast again.

    Parameters
    ----------
    stores
        The city and its stores.
    start
        First init time, inclusive; text is in the city's time zone, a NumPy time is naive UTC.
    end
        Last init time, exclusive, in the same form.
    settings
        The service's settings; None is the defaults.
    speed
        How many times faster than real time the replay may run; None is as fast as possible.
    device
        Where the network runs: auto, cpu, cuda or mps.
    alerts
        The alert rules, which are examined after every cycle; their alerts go to the log, and to a book and a file of
        the replay's own (see `alert_files`), which begin anew. None examines none.

    Returns
    -------
    dict[str, Any]
        The city, the model's version, the period, the number of forecasts, of each state and of verified forecasts,
        each forecaster's RMSE in vehicles per slot, and the number of alerts raised (None without rules).

    Raises
    ------
    InputError
        The city has no model, or no flows in the period.
    """
    city = stores.city
    start, end = city.as_time(start), city.as_time(end)
    city.check_period(start, end)
    settings = settings or Service()
    service = CityService(stores, settings, pick_device(device))
    model = service.champion()[0]
    flows = read_flows(stores, start, end)
    for store in (stores.forecasts(model.version), stores.scores(model.version)):
        _remove_leftovers(store.root)
    slots = int(np.ceil((end - city.slot_start(start)) / city.slot))
    init_times = city.slot_start(start) + city.slot * np.arange(slots)
    wait = settings.wait(city.slot_minutes)
    book_file, lines_file = alert_files(stores.data, city.name, live=False)
    for file in (book_file, lines_file):
        file.unlink(missing_ok=True)
    areas = {} if alerts is None else city_areas(city)
    began = time.monotonic()
    for number, init_time in enumerate(track(init_times, f"replaying {city.name}", len(init_times))):
        if speed is not None:
            due = number * city.slot_minutes * 60 / speed
            time.sleep(max(0.0, began + due - time.monotonic()))
        for now in (init_time, init_time + wait):
            if run_cycle(service, now, catch_up=False):
                break
        if alerts is not None:
            # When the wait is over, whether the forecast was made before: so a second replay examines the same states.
            state = _read_state(service, alerts.rules, areas, init_times[0] - city.slot, init_time + wait)
            check_alerts(alerts, stores.data, state, live=False)
    _verify_recent(service, flows["time"].values[-1] + city.slot)
    made = stores.forecasts(model.version).read(init_times[0], end)
    states = [] if made is None else [str(state) for state in made["state"].values]
    scores = stores.scores(model.version).read(start, end)
    return {
        "city": city.name,
        "model": model.version,
        "start": city.isoformat(start),
        "end": city.isoformat(end),
        "forecasts": len(states),
        **{state: states.count(state) for state in (COMPLETE, DEGRADED, BASELINE)},
        "verified": 0 if scores is None else len(scores["init_time"]),
        "rmse": _mean_rmse(scores),
        "alerts": None if alerts is None else _raised(lines_file),
    }


def _raised(lines_file: Path) -> int:
    """Return how many alerts a file of notices says were raised."""
    lines = lines_file.read_text(encoding="utf-8").splitlines() if lines_file.exists() else []
    return sum(json.loads(line)["event"] == "raised" for line in lines)


def _mean_rmse(scores: Any) -> dict[str, float]:
    """Return each forecaster's RMSE over all verified forecasts and lead times, vehicles per slot."""
    if scores is None:
        return {}
    squared = np.square(scores["rmse"]).mean(("init_time", "lead_time"))
    return {
        str(name): float(np.sqrt(value))
        for name, value in zip(squared["forecaster"].values, squared.values, strict=True)
    }
