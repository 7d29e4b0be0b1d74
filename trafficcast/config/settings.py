"""`config.toml`, typed and strict: an unknown key is an error that names it and the nearest valid one."""

from __future__ import annotations

import difflib
import os
import re
import tomllib
from pathlib import Path
from types import UnionType
from typing import Annotated, Any, get_args, get_origin

from pydantic import BaseModel, ConfigDict, Field, PrivateAttr, ValidationError
from pydantic_settings import BaseSettings, PydanticBaseSettingsSource, SettingsConfigDict, SettingsError

from trafficcast.config.alert_rules import Alerts
from trafficcast.config.city import City
from trafficcast.config.service import Retention, Retraining, Service
from trafficcast.errors import InputError

_PREFIX = "TRAFFICCAST__"
CITY_NAME = re.compile(r"[a-z0-9]+(-[a-z0-9]+)*")
_SECRETS = (("alerts",), ("alerts", "webhook"))  # values that no message shows


class _Paths(BaseModel):
    """Where things lie; relative paths are relative to the configuration file."""

    model_config = ConfigDict(extra="forbid")
    data: Path = Path("data")
    models: Path = Path("models")


class _Map(BaseModel):
    """The dashboard's map. Without a tile server the base map is drawn from where vehicles report."""

    model_config = ConfigDict(extra="forbid")
    tiles_url: str | None = None
    tiles_attribution: str = ""


class Dashboard(BaseModel):
    """Who may see the dashboard; the provider's address and secrets stand in Streamlit's own secrets.toml."""

    model_config = ConfigDict(extra="forbid")
    sign_in: bool = False
    # Addresses of those who may enter once they have signed in; all of them when empty.
    allowed: tuple[str, ...] = ()


class Config(BaseSettings):
    """The whole configuration. Every value can be overridden as TRAFFICCAST__SECTION__KEY."""

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
        """Where it was read from."""
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
        """The environment wins over the file, whose values come in as arguments."""
        return env_settings, init_settings

    def city(self, name: str | None = None) -> City:
        """The city of that name; without one the default, or the only one. Raises InputError."""
        known = ", ".join(sorted(self.cities)) or "none"
        name = name or self.default_city or (next(iter(self.cities)) if len(self.cities) == 1 else None)
        if name is None:
            raise InputError(f"which city? Name one with --city; the configuration has: {known}")
        if name not in self.cities:
            raise InputError(f"the configuration has no city '{name}'{_nearest(name, self.cities)}; it has: {known}")
        return self.cities[name].model_copy(update={"name": name})


def load_config(path: Path) -> Config:
    """Read and check a configuration file. Raises InputError with one sentence for the first thing wrong."""
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
        raise InputError(_sentence(path, error)) from None
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
    for key in os.environ:
        if key.upper().startswith(_PREFIX):
            section = key[len(_PREFIX) :].split("__")[0].lower()
            if section not in Config.model_fields:
                raise InputError(f"environment variable {key}: unknown section{_nearest(section, Config.model_fields)}")


def _sentence(path: Path, error: ValidationError) -> str:
    first = error.errors()[0]
    where = ".".join(str(part) for part in first["loc"])
    if first["type"] == "extra_forbidden":
        key = str(first["loc"][-1])
        return f"{path}: unknown key '{where}'{_nearest(key, _fields_at(first['loc'][:-1]))}"
    message = first["msg"].removeprefix("Value error, ")
    shown = not isinstance(first["input"], dict) and first["loc"] not in _SECRETS
    given = f" (given: {first['input']!r})" if shown else ""
    return f"{path}: {where}: {message}{given}"


def _fields_at(location: tuple[int | str, ...]) -> Any:
    model: Any = Config
    for part in location:
        if get_origin(model) is dict:
            model = get_args(model)[1]
        elif get_origin(model) is tuple:
            model = get_args(model)[0]
        elif get_origin(model) is Annotated:  # a union whose members are told apart by their `kind`
            union = get_args(get_args(model)[0])
            model = next(member for member in union if member.model_fields["kind"].default == part)
        else:
            model = model.model_fields[part].annotation
        if isinstance(model, UnionType):
            model = get_args(model)[0]
    return model.model_fields if hasattr(model, "model_fields") else ()


def _nearest(word: str, known: Any) -> str:
    close = difflib.get_close_matches(word, list(known), n=1, cutoff=0.5)
    return f" (did you mean '{close[0]}'?)" if close else ""
