"""When something is wrong, and who is told: the table `[alerts]` and the rules `[[alerts.rules]]` of `config.toml`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Literal, Self
from urllib.parse import urlsplit

from pydantic import BaseModel, ConfigDict, Field, SecretStr, field_validator, model_validator

from trafficcast.config.city import City
from trafficcast.errors import InputError

_Severity = Literal["warning", "critical"]
_Positive = Annotated[float, Field(gt=0, allow_inf_nan=False)]
_Index = Annotated[int, Field(ge=0)]


class _Rule(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)

    kind: str
    # The rule holds for this city; for all of them when not given.
    city: str | None = None
    severity: _Severity = "warning"

    @property
    def name(self) -> str:
        """The kind and what differs from its defaults: with other limits it is another rule."""
        limits = self.model_dump(exclude={"kind", "city", "severity"}, exclude_defaults=True)
        return " ".join([self.kind, *(f"{key}={value}" for key, value in limits.items())])


class ForecastOverdueRule(_Rule):
    """A slot has begun, and so many minutes later there is no forecast from it on."""

    kind: Literal["forecast-overdue"] = "forecast-overdue"
    severity: _Severity = "critical"
    minutes: _Positive = 20.0


class FeedSilentRule(_Rule):
    """A slot has ended, and so many minutes later it is not observed."""

    kind: Literal["feed-silent"] = "feed-silent"
    severity: _Severity = "critical"
    minutes: _Positive = 60.0


class SkillRule(_Rule):
    """The forecaster's error (RMSE, mean over the leads) was above persistence's in each of the last scored forecasts.

    `cycles`: how many of them.
    """

    kind: Literal["skill"] = "skill"
    cycles: Annotated[int, Field(ge=1, le=1000)] = 6


class CoverageRule(_Rule):
    """The share of truths inside the prediction interval of a level differs from the level by more than `tolerance`."""

    kind: Literal["coverage"] = "coverage"
    level: Annotated[float, Field(gt=0, lt=1)] = 0.8
    # Where little drives, zeros are inside any interval: more than the level is usual (docs/intervals.md).
    tolerance: Annotated[float, Field(gt=0, lt=1)] = 0.15
    hours: Annotated[float, Field(gt=0, le=24 * 31)] = 24.0


class FlowRule(_Rule):
    """A forecast flow, vehicles per slot, is above a number, or above so many times what is typical there and then.

    Of an area (the sum over its cells, each by the share of it that the area covers) or a cell (row, column, from 0);
    of every cell when neither is given. `at_least`: vehicles below which nothing is far above typical.
    """

    kind: Literal["flow"] = "flow"
    above: _Positive | None = None
    times_typical: Annotated[float, Field(gt=1, allow_inf_nan=False)] | None = None
    at_least: _Positive = 20.0
    area: str | None = None
    cell: tuple[_Index, _Index] | None = None
    flow_kind: Literal["inflow", "outflow"] | None = None

    @model_validator(mode="after")
    def _says_what_is_too_much(self) -> Self:
        if self.above is None and self.times_typical is None:
            raise ValueError("a rule on flow needs 'above' (vehicles per slot) or 'times_typical'")
        if self.times_typical is None and "at_least" in self.model_fields_set:
            raise ValueError("'at_least' belongs to 'times_typical', which is not given")
        if self.area is not None and self.cell is not None:
            raise ValueError("a rule on flow has 'area' or 'cell', not both: write two rules")
        return self


Rule = ForecastOverdueRule | FeedSilentRule | SkillRule | CoverageRule | FlowRule
_DEFAULTS: tuple[Rule, ...] = (ForecastOverdueRule(), FeedSilentRule(), SkillRule(), CoverageRule())


class Alerts(BaseModel):
    """What raises an alert, and the address that is told. Rules that are given take the place of DEFAULTS."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    # Whoever knows such an address can use it: it is shown nowhere, only its host.
    webhook: SecretStr | None = None
    rules: tuple[Annotated[Rule, Field(discriminator="kind")], ...] = _DEFAULTS

    @field_validator("webhook")
    @classmethod
    def _is_an_address(cls, value: SecretStr | None) -> SecretStr | None:
        if value is not None and not _host(value.get_secret_value()):
            raise ValueError("no address such as https://alerts.example/hook (it is secret and not shown)")
        return value

    @property
    def webhook_host(self) -> str:
        """The host that is told, all of the address that may be shown; empty without one."""
        return _host(self.webhook.get_secret_value()) if self.webhook else ""

    def check(self, cities: Mapping[str, City]) -> None:
        """Raise InputError for a rule about a city, a cell or areas that the configuration does not have."""
        for number, rule in enumerate(self.rules):
            where = f"alerts.rules.{number} ({rule.kind})"
            if rule.city is not None and rule.city not in cities:
                known = ", ".join(sorted(cities)) or "none"
                raise InputError(f"{where}: there is no city '{rule.city}'; the configuration has: {known}")
            if not isinstance(rule, FlowRule) or rule.area is None and rule.cell is None:
                continue
            if rule.city is None and len(cities) != 1:
                raise InputError(f"{where}: an area or a cell is one city's: name it, city = ...")
            name, city = next((name, city) for name, city in cities.items() if rule.city in (name, None))
            if rule.area is not None and city.areas is None:
                raise InputError(f"{where}: cities.{name} has no file of areas: name one, areas = ...")
            if rule.cell is not None and not (rule.cell[0] < city.rows and rule.cell[1] < city.cols):
                raise InputError(
                    f"{where}: cell {list(rule.cell)} lies outside the grid of '{name}': rows are 0 to "
                    f"{city.rows - 1}, columns 0 to {city.cols - 1}"
                )


def _host(address: str) -> str:
    """The host of an http(s) address, with its port; empty where it is no such address."""
    try:
        parts = urlsplit(address)
        host, port = parts.hostname, parts.port
    except ValueError:
        return ""
    if parts.scheme not in ("http", "https") or not host or not address.isprintable() or " " in address:
        return ""
    return host if port is None else f"{host}:{port}"
