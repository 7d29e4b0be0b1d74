"""How the service runs: the tables `[service]`, `[retraining]` and `[retention]` of `config.toml`."""

from __future__ import annotations

from typing import Annotated

import numpy as np
from apscheduler.triggers.cron import CronTrigger
from pydantic import BaseModel, ConfigDict, Field, field_validator

_Days = Annotated[int, Field(ge=1)]


class Service(BaseModel):
    """`trafficcast schedule`: when it looks, how long it waits, where it tells of its health."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    ingest_seconds: Annotated[float, Field(ge=1)] = 60.0
    # How long after its end a slot's data are waited for, before a forecast is made without them.
    wait_minutes: Annotated[float, Field(ge=0)] = 10.0
    # How far back forecasts that were missed are made afterwards.
    catch_up_hours: Annotated[float, Field(ge=0)] = 24.0
    address: str = "127.0.0.1"
    port: Annotated[int, Field(ge=0, le=65535)] = 9464

    def wait(self, slot_minutes: int) -> np.timedelta64:
        """How long data are waited for: never until the next slot, whose forecast would then be the newest."""
        return np.timedelta64(round(min(self.wait_minutes, slot_minutes - 1) * 60_000_000), "us")


class Retraining(BaseModel):
    """When a challenger is trained, on what it is compared with the champion, and what it may use."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    # Minute, hour, day of month, month, day of week, in the city's time zone; none at all when empty.
    schedule: str = "0 3 * * sun"
    # Also when over a day the champion's error is more than the best baseline's, times this; at most once a day.
    when_worse_than: Annotated[float, Field(gt=0)] = 1.05
    # The last days of the store compare the two; those before them choose the challenger's epoch.
    test_days: _Days = 3
    validation_days: _Days = 2
    # The challenger is promoted when its error is lower by more than this share of the champion's.
    margin: Annotated[float, Field(ge=0, lt=1)] = 0.005
    hours: Annotated[float, Field(gt=0)] = 6.0
    memory_gb: Annotated[float, Field(gt=0)] = 12.0

    @field_validator("schedule")
    @classmethod
    def _is_a_schedule(cls, value: str) -> str:
        if value:
            try:
                CronTrigger.from_crontab(value)
            except ValueError as error:
                raise ValueError(f"no schedule of five fields such as '0 3 * * sun': {error}") from None
        return value


class Retention(BaseModel):
    """How many days of each store, and how many models, are kept; all of them when not given."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    flow_days: _Days | None = None
    forecast_days: _Days | None = None
    score_days: _Days | None = None
    # The newest ones, beside the champion and the one before it.
    models: Annotated[int, Field(ge=1)] | None = None
