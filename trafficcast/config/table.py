"""The base of all tables of `config.toml`, and the types of their time zones and secret addresses."""

from __future__ import annotations

from typing import Annotated
from urllib.parse import urlsplit
from zoneinfo import available_timezones

from pydantic import AfterValidator, BaseModel, ConfigDict, SecretStr


class _Table(BaseModel):
    """A table that refuses unknown keys and never changes."""

    model_config = ConfigDict(extra="forbid", frozen=True)


def _known_zone(name: str) -> str:
    """Refuse a name that is no IANA time zone."""
    if name not in available_timezones():
        raise ValueError(f"'{name}' is not an IANA time zone such as 'UTC' or 'America/Los_Angeles'")
    return name


_TimeZone = Annotated[str, AfterValidator(_known_zone)]


def _host(value: SecretStr | None) -> str:
    """Return the host of an http(s) address with its port, which may be shown; empty if there is no such address."""
    address = "" if value is None else value.get_secret_value()
    try:
        parts = urlsplit(address)
        host, port = parts.hostname, parts.port
    except ValueError:
        return ""
    if parts.scheme not in ("http", "https") or not host or not address.isprintable() or " " in address:
        return ""
    return host if port is None else f"{host}:{port}"


def _http_address(value: SecretStr) -> SecretStr:
    """Refuse what is no http(s) address, without showing it."""
    if not _host(value):
        raise ValueError("no address such as https://alerts.example/hook (it is secret and not shown)")
    return value


_SecretAddress = Annotated[SecretStr, AfterValidator(_http_address)]
