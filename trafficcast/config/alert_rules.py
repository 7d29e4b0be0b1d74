"""The tables `[alerts]` and `[[alerts.rules]]` of `config.toml`: which findings raise an alert, and who is notified."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from trafficcast.config.city import City
from trafficcast.config.table import _host, _SecretAddress, _Table
from trafficcast.errors import InputError

FEW_VEHICLES = 0.5  # a share of the usual number below which a forecast is degraded, too
_Severity = Literal["warning", "critical"]
_Positive = Annotated[float, Field(gt=0, allow_inf_nan=False)]
_Index = Annotated[int, Field(ge=0)]


class _Rule(_Table):
    """What all rules have: a kind, the city that the rule is limited to (None for all cities), and a severity."""

    kind: str
    city: str | None = None
    severity: _Severity = "warning"

    @property
    def name(self) -> str:
        """Return the kind and the limits that differ from their defaults: a rule with other limits is another rule."""
        limits = self.model_dump(exclude={"kind", "city", "severity"}, exclude_defaults=True)
        return " ".join([self.kind, *(f"{key}={value}" for key, value in limits.items())])


class ForecastOverdueRule(_Rule):
    """Raise an alert when a slot began some minutes ago and no forecast starts with it.

    Attributes
    ----------
    kind
        Name of the kind of rule in `config.toml`.
    severity
        Severity of the alert.
    minutes
        Minutes since the start of the slot.
    """

    kind: Literal["forecast-overdue"] = "forecast-overdue"
    severity: _Severity = "critical"
    minutes: _Positive = 20.0


class FeedSilentRule(_Rule):
    """Raise an alert when a slot ended some minutes ago and is not observed.

    Attributes
    ----------
    kind
        Name of the kind of rule in `config.toml`.
    severity
        Severity of the alert.
    minutes
        Minutes since the end of the slot.
    """

    kind: Literal["feed-silent"] = "feed-silent"
    severity: _Severity = "critical"
    minutes: _Positive = 60.0


class FleetRule(_Rule):
    """Raise an alert when few of the usual vehicles reported in the slot before the newest forecast.

    Attributes
    ----------
    kind
        Name of the kind of rule in `config.toml`.
    share
        Least share of the usual number of vehicles, 0 to 1.
    """

    kind: Literal["fleet"] = "fleet"
    share: Annotated[float, Field(gt=0, lt=1)] = FEW_VEHICLES


class SkillRule(_Rule):
    """Raise an alert when a forecaster is worse than persistence in each of the last scored forecasts.

    The error is the RMSE, averaged over the lead times.

    Attributes
    ----------
    kind
        Name of the kind of rule in `config.toml`.
    cycles
        Number of last scored forecasts.
    """

    kind: Literal["skill"] = "skill"
    cycles: Annotated[int, Field(ge=1, le=1000)] = 6


class CoverageRule(_Rule):
    """Raise an alert when the share of observations inside a prediction interval differs from its level.

    Attributes
    ----------
    kind
        Name of the kind of rule in `config.toml`.
    level
        Level of the interval, 0 to 1.
    tolerance
        Largest difference between share and level.
    hours
        Hours of target slots, up to now, over which the share is computed.
    """

    kind: Literal["coverage"] = "coverage"
    level: Annotated[float, Field(gt=0, lt=1)] = 0.8
    # Zeros of empty cells lie inside any interval, so that a share above the level is usual (docs/intervals.md).
    tolerance: Annotated[float, Field(gt=0, lt=1)] = 0.15
    hours: Annotated[float, Field(gt=0, le=24 * 31)] = 24.0


class ModelDamagedRule(_Rule):
    """Raise an alert when the champion's files are damaged, so that another model or none replaces it.

    Attributes
    ----------
    kind
        Name of the kind of rule in `config.toml`.
    severity
        Severity of the alert.
    """

    kind: Literal["model-damaged"] = "model-damaged"
    severity: _Severity = "critical"


class FlowRule(_Rule):
    """Raise an alert when a forecast flow is above a number, or above a multiple of the typical flow.

    The flow is that of an area (the sum over its cells, each times the share of the cell that the area covers), of a
    cell, or of every cell when neither is given.

    Attributes
    ----------
    kind
        Name of the kind of rule in `config.toml`.
    above
        Vehicles per slot.
    times_typical
        Multiple of the flow that is typical at that time.
    at_least
        Vehicles per slot below which no flow is far above the typical one.
    area
        Name of an area of the city's file of areas.
    cell
        Row and column of a cell, from 0.
    flow_kind
        Inflow or outflow; None for both.
    """

    kind: Literal["flow"] = "flow"
    above: _Positive | None = None
    times_typical: Annotated[float, Field(gt=1, allow_inf_nan=False)] | None = None
    at_least: _Positive = 20.0
    area: str | None = None
    cell: tuple[_Index, _Index] | None = None
    flow_kind: Literal["inflow", "outflow"] | None = None

    @model_validator(mode="after")
    def _has_a_limit(self) -> Self:
        """Refuse a rule without a limit, with an idle key, or with both an area and a cell."""
        if self.above is None and self.times_typical is None:
            raise ValueError("a rule on flow needs 'above' (vehicles per slot) or 'times_typical'")
        if self.times_typical is None and "at_least" in self.model_fields_set:
            raise ValueError("'at_least' belongs to 'times_typical', which is not given")
        if self.area is not None and self.cell is not None:
            raise ValueError("a rule on flow has 'area' or 'cell', not both: write two rules")
        return self


Rule = ForecastOverdueRule | FeedSilentRule | FleetRule | SkillRule | CoverageRule | ModelDamagedRule | FlowRule
_DEFAULTS: tuple[Rule, ...] = (
    ForecastOverdueRule(),
    FeedSilentRule(),
    FleetRule(),
    SkillRule(),
    CoverageRule(),
    ModelDamagedRule(),
)


class Alerts(_Table):
    """The rules that raise alerts, and the address that is notified.

    Attributes
    ----------
    webhook
        Secret http(s) address to which notices are posted; only its host is ever shown.
    rules
        The rules; those given replace the default ones.
    """

    webhook: _SecretAddress | None = None
    rules: tuple[Annotated[Rule, Field(discriminator="kind")], ...] = _DEFAULTS

    @property
    def webhook_host(self) -> str:
        """Return the host that is notified, the only part of the address that may be shown.

        Returns
        -------
        str
            The host with its port; empty without a webhook.
        """
        return _host(self.webhook)

    def check(self, cities: Mapping[str, City]) -> None:
        """Check that the configuration has the cities, cells and areas that the rules name.

        Parameters
        ----------
        cities
            The configured cities by name.

        Raises
        ------
        InputError
            A rule names a city, a cell or areas that the configuration does not have.
        """
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
