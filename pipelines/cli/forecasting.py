"""Commands that make and score forecasts: forecast, replay, verify."""

from __future__ import annotations

from typing import Annotated

import numpy as np
import typer

from pipelines.cli.options import Chosen, DeviceOption, EndOption, ModelOption, StartOption, for_city
from pipelines.cli.printing import print_json, print_rows
from trafficcast.errors import InputError


@for_city
def forecast(
    chosen: Chosen,
    init_time: Annotated[str | None, typer.Option(help="Start of the first slot to forecast.")] = None,
    model: ModelOption = None,
    device: DeviceOption = "auto",
) -> None:
    """Forecast the four slots from an init time on, and publish the forecast.

    Without --init-time the forecast starts right after the last observed slot.
    """
    from trafficcast.forecasting.publish import forecast as run

    city = chosen.city
    made = run(chosen.stores, init_time, model, device).isel(init_time=0)
    rows = [
        {
            "slot_start": city.isoformat(valid),
            "lead_minutes": int(lead / np.timedelta64(1, "m")),
            "inflow": float(flow[0].sum()),
            "outflow": float(flow[1].sum()),
            "highest_cell": float(flow.max()),
        }
        for valid, lead, flow in zip(
            made["valid_time"].values, made["lead_time"].values, made["flow"].values, strict=True
        )
    ]
    version, start = made.attrs["model_version"], city.isoformat(made["valid_time"].values[0])
    if chosen.as_json:
        print_json({"city": city.name, "model": version, "init_time": start, "slots": rows})
    else:
        print_rows(rows, f"{city.name}, {version}: vehicles per slot over the whole grid")


@for_city
def replay(
    chosen: Chosen,
    start: Annotated[str, typer.Option("--start", help="First init time, inclusive.")],
    end: Annotated[str, typer.Option("--end", help="Last init time, exclusive.")],
    speed: Annotated[
        str, typer.Option("--speed", help="max, or how many times faster than real time, such as 60.")
    ] = "max",
    device: DeviceOption = "auto",
) -> None:
    """Run the service's cycles over a past period: forecast slot by slot, and verify as soon as slots are observed."""
    from pipelines.service.replay import replay as run

    result = run(
        chosen.stores, start, end, chosen.settings.service, _times_faster(speed), device, chosen.settings.alerts
    )
    chosen.print(result, f"Replay of {chosen.city.name}")


@for_city
def verify(chosen: Chosen, start: StartOption = None, end: EndOption = None, model: ModelOption = None) -> None:
    """Score stored forecasts whose slots were observed, beside the baselines."""
    from trafficcast.forecasting.verify import verify as run

    version, result = run(chosen.stores, start, end, model)
    summary = {"city": chosen.city.name, "model": version, "scored": result.scored, "waiting": result.waiting}
    chosen.print(summary, f"Verified forecasts of {chosen.city.name}")


def _times_faster(text: str) -> float | None:
    """Return how many times faster than real time --speed is; None for max."""
    try:
        speed = None if text == "max" else float(text)
    except ValueError:
        speed = -1.0
    if speed is not None and not 0 < speed < float("inf"):
        raise InputError(f"--speed is max or a number above 0, not '{text}'")
    return speed
