"""The base of all tables of `config.toml`, and the type of their time zones."""

from __future__ import annotations

from typing import Annotated
from zoneinfo import available_timezones

from pydantic import AfterValidator, BaseModel, ConfigDict


class _Table(BaseModel):
    """A table that refuses unknown keys and never changes."""

    model_config = ConfigDict(extra="forbid", frozen=True)


def _known_zone(name: str) -> str:
    """Refuse a name that is no IANA time zone."""
    if name not in available_timezones():
        raise ValueError(f"'{name}' is not an IANA time zone such as 'UTC' or 'America/Los_Angeles'")
    return name


_TimeZone = Annotated[str, AfterValidator(_known_zone)]
