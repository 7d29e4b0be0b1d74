"""The tables `[service]`, `[retraining]` and `[retention]` of `config.toml`: how the service runs."""

from __future__ import annotations

from typing import Annotated

import numpy as np
from pydantic import Field

from trafficcast.config.city import MINUTE_US
from trafficcast.config.table import _host, _SecretAddress, _Table

_Days = Annotated[int, Field(ge=1)]


class Service(_Table):
    """The table `[service]`: when `trafficcast schedule` looks for work and where it reports its health.

    Attributes
    ----------
    ingest_seconds
        Seconds from one look into an inbox to the next.
    wait_minutes
        Minutes after the end of a slot during which its data may still come; then the forecast is made without them.
    catch_up_hours
        Hours back from now for which missed forecasts are still made.
    address
        Address at which the health pages are served.
    port
        Port at which the health pages are served; 0 is any free port.
    heartbeat
        Secret http(s) address that is called after each good cycle, so that silence is noticed; only its host is ever
        shown.
    """

    ingest_seconds: Annotated[float, Field(ge=1)] = 60.0
    wait_minutes: Annotated[float, Field(ge=0)] = 10.0
    catch_up_hours: Annotated[float, Field(ge=0)] = 24.0
    address: str = "127.0.0.1"
    port: Annotated[int, Field(ge=0, le=65535)] = 9464
    heartbeat: _SecretAddress | None = None

    @property
    def heartbeat_host(self) -> str:
        """Return the host that is called, the only part of the address that may be shown.

        Returns
        -------
        str
            The host with its port; empty without a heartbeat.
        """
        return _host(self.heartbeat)

    def wait(self, slot_minutes: int) -> np.timedelta64:
        """Return how long a forecast waits for data.

        The wait ends before the next slot does, because a newer forecast is due then.

        Parameters
        ----------
        slot_minutes
            Length of a slot in minutes.

        Returns
        -------
        np.timedelta64
            The wait, in microseconds.
        """
        longest = max(slot_minutes - 1, slot_minutes / 2)
        return np.timedelta64(round(min(self.wait_minutes, longest) * MINUTE_US), "us")


class Retraining(_Table):
    """The table `[retraining]`: when a challenger is trained, how it is compared with the champion, and its limits.

    Attributes
    ----------
    schedule
        Crontab of five fields (minute, hour, day of month, month, day of week) in the city's time zone; when empty,
        no training starts by the calendar. The service checks it when it starts.
    when_worse_than
        A training also starts, at most once a day, when over a day the champion's error exceeds the best baseline's
        error times this factor.
    test_days
        Number of last days of the flow store on which champion and challenger are compared.
    validation_days
        Number of days before these by which the challenger's epoch is chosen.
    margin
        Share of the champion's error by which the challenger's error must be lower for it to be promoted.
    hours
        Longest time of one training, in hours.
    memory_gb
        Most memory of one training, in GB.
    """

    schedule: str = "0 3 * * sun"
    when_worse_than: Annotated[float, Field(gt=0)] = 1.05
    test_days: _Days = 3
    validation_days: _Days = 2
    margin: Annotated[float, Field(ge=0, lt=1)] = 0.005
    hours: Annotated[float, Field(gt=0)] = 6.0
    memory_gb: Annotated[float, Field(gt=0)] = 12.0


class Retention(_Table):
    """The table `[retention]`: how much of each store is kept; without a number, all of it.

    Attributes
    ----------
    flow_days
        Number of newest days of flows that are kept.
    forecast_days
        Number of newest days of forecasts that are kept.
    score_days
        Number of newest days of scores that are kept.
    models
        Number of newest models that are kept, besides the champion and the champion before it.
    """

    flow_days: _Days | None = None
    forecast_days: _Days | None = None
    score_days: _Days | None = None
    models: Annotated[int, Field(ge=1)] | None = None
