"""The configuration file `config.toml`: an unknown key is an error that names the nearest valid key."""

from __future__ import annotations

import difflib
import os
import re
import tomllib
from pathlib import Path
from types import UnionType
from typing import Annotated, Any, get_args, get_origin

from pydantic import Field, PrivateAttr, ValidationError
from pydantic_settings import BaseSettings, PydanticBaseSettingsSource, SettingsConfigDict, SettingsError

from trafficcast.config.alert_rules import Alerts
from trafficcast.config.city import City
from trafficcast.config.service import Retention, Retraining, Service
from trafficcast.config.table import _Table
from trafficcast.errors import InputError

_PREFIX = "TRAFFICCAST__"
CITY_NAME = re.compile(r"[a-z0-9]+(-[a-z0-9]+)*")
_SECRETS = (
    ("alerts",),
    ("alerts", "webhook"),
    ("service",),
    ("service", "heartbeat"),
)  # keys whose values no message shows


class _Paths(_Table):
    """The table `[paths]`: the folders of stores and models, relative to the configuration file."""

    data: Path = Path("data")
    models: Path = Path("models")


class _Map(_Table):
    """The table `[map]`: the map tiles; without a tile server the base map is drawn from the positions of vehicles."""

    tiles_url: str | None = None
    tiles_attribution: str = ""


class Dashboard(_Table):
    """The table `[dashboard]`: who may see the dashboard.

    The provider's address and secrets stand in Streamlit's own `secrets.toml`.

    Attributes
    ----------
    sign_in
        Whether the dashboard asks for a sign-in.
    allowed
        E-mail addresses of the users who may see the pages once signed in; empty allows all.
    """

    sign_in: bool = False
    allowed: tuple[str, ...] = ()


class Config(BaseSettings):
    """The whole configuration; the environment variable TRAFFICCAST__SECTION__KEY overrides each value.

    Attributes
    ----------
    model_config
        Settings of pydantic.
    paths
        Folders of stores and models.
    map
        Map tiles of the dashboard.
    dashboard
        Access to the dashboard.
    service
        The unattended service.
    retraining
        Training of challengers.
    retention
        How much of each store is kept.
    alerts
        Rules that raise alerts, and the webhook.
    default_city
        City that commands use when none is named.
    cities
        The cities by name.
    """

    model_config = SettingsConfigDict(extra="forbid", env_prefix=_PREFIX, env_nested_delimiter="__")

    paths: _Paths = _Paths()
    map: _Map = _Map()
    dashboard: Dashboard = Dashboard()
    service: Service = Service()
    retraining: Retraining = Retraining()
    retention: Retention = Retention()
    alerts: Alerts = Alerts()
    default_city: str | None = None
    _file: Path = PrivateAttr(Path("config.toml"))
    cities: dict[str, City] = Field(default_factory=dict)

    @property
    def file(self) -> Path:
        """Return the path of the configuration file.

        Returns
        -------
        Path
            Absolute path.
        """
        return self._file

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """Let the environment override the values of the file, which come in as arguments.

        Parameters
        ----------
        settings_cls
            The class Config.
        init_settings
            Values from the file.
        env_settings
            Values from the environment.
        dotenv_settings
            Not used.
        file_secret_settings
            Not used.

        Returns
        -------
        tuple[PydanticBaseSettingsSource, ...]
            The sources, the strongest first.
        """
        return env_settings, init_settings

    def city(self, name: str | None = None) -> City:
        """Return a city by name.

        Parameters
        ----------
        name
            Name of the city; None is the default city, or the only one.

        Returns
        -------
        City
            The city, with its name.

        Raises
        ------
        InputError
            There is no such city, or none is named and there are several.
        """
        known = ", ".join(sorted(self.cities)) or "none"
        name = name or self.default_city or (next(iter(self.cities)) if len(self.cities) == 1 else None)
        if name is None:
            raise InputError(f"which city? Name one with --city; the configuration has: {known}")
        if name not in self.cities:
            raise InputError(f"the configuration has no city '{name}'{_suggestion(name, self.cities)}; it has: {known}")
        return self.cities[name].model_copy(update={"name": name})


def load_config(path: Path) -> Config:
    """Read and check a configuration file.

    Parameters
    ----------
    path
        The file.

    Returns
    -------
    Config
        The configuration with absolute paths.

    Raises
    ------
    InputError
        The file cannot be read or a value is wrong; one sentence names the first error.
    """
    try:
        values = tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise InputError(f"cannot read the configuration {path}: {error.strerror}; name one with --config") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise InputError(f"{path} is not valid TOML: {error}") from None
    _check_environment()
    try:
        config = Config(**values)
    except ValidationError as error:
        raise InputError(_message(path, error)) from None
    except SettingsError as error:
        raise InputError(f"environment variables {_PREFIX}...: {error}; a whole section is written as JSON") from None
    for name in config.cities:
        if not CITY_NAME.fullmatch(name):
            raise InputError(f"{path}: cities.{name}: a city's name is lower-case letters, digits and single dashes")
    if config.default_city is not None:
        config.city(config.default_city)
    config.alerts.check(config.cities)
    base = path.resolve().parent
    config.cities = {name: city.with_paths(base) for name, city in config.cities.items()}
    config._file = path.resolve()
    config.paths = _Paths(data=base / config.paths.data, models=base / config.paths.models)
    return config


def _check_environment() -> None:
    """Raise InputError for an environment variable that overrides an unknown section."""
    for key in os.environ:
        if key.upper().startswith(_PREFIX):
            section = key[len(_PREFIX) :].split("__")[0].lower()
            if section not in Config.model_fields:
                raise InputError(
                    f"environment variable {key}: unknown section{_suggestion(section, Config.model_fields)}"
                )


def _message(path: Path, error: ValidationError) -> str:
    """Describe the first error in one sentence, with the path of its key and the value, unless it is secret."""
    first = error.errors()[0]
    where = ".".join(str(part) for part in first["loc"])
    if first["type"] == "extra_forbidden":
        key = str(first["loc"][-1])
        return f"{path}: unknown key '{where}'{_suggestion(key, _fields_at(first['loc'][:-1]))}"
    message = first["msg"].removeprefix("Value error, ")
    shown = not isinstance(first["input"], dict) and first["loc"] not in _SECRETS
    given = f" (given: {first['input']!r})" if shown else ""
    return f"{path}: {where}: {message}{given}"


def _fields_at(location: tuple[int | str, ...]) -> Any:
    """Return the keys that are valid at a location in the configuration."""
    model: Any = Config
    for part in location:
        if get_origin(model) is dict:
            model = get_args(model)[1]
        elif get_origin(model) is tuple:
            model = get_args(model)[0]
        elif get_origin(model) is Annotated:  # a union whose members differ in their `kind`
            union = get_args(get_args(model)[0])
            model = next(member for member in union if member.model_fields["kind"].default == part)
        else:
            model = model.model_fields[part].annotation
        if isinstance(model, UnionType):
            model = get_args(model)[0]
    return model.model_fields if hasattr(model, "model_fields") else ()


def _suggestion(word: str, known: Any) -> str:
    """Return a hint with the known word nearest to a mistyped one, or nothing."""
    close = difflib.get_close_matches(word, list(known), n=1, cutoff=0.5)
    return f" (did you mean '{close[0]}'?)" if close else ""
