"""The base of all tables of `config.toml`."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict


class _Table(BaseModel):
    """A table that refuses unknown keys and never changes."""

    model_config = ConfigDict(extra="forbid", frozen=True)
