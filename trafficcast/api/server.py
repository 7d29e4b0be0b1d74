"""The read-only HTTP API as a process: address, port and the token that it asks for."""

from __future__ import annotations

import logging
import os
import re
import socket
from collections.abc import Sequence
from ipaddress import ip_address
from typing import TYPE_CHECKING

from trafficcast.config.settings import Config
from trafficcast.errors import InputError

if TYPE_CHECKING:
    import uvicorn

_TOKEN = "TRAFFICCAST_API_TOKEN"
_TOKEN_SHAPE = re.compile(r"[A-Za-z0-9._~+/=-]+")  # of RFC 6750
_ORIGIN = re.compile(r"\*|https?://[^/\s]+")
_SHUTDOWN_SECONDS = 5

_log = logging.getLogger("trafficcast.api")


def serve(config: Config, address: str, port: int, origins: Sequence[str]) -> None:
    """Serve until stopped. The token is taken from the environment; without one, everybody may ask.

    `origins`: which pages' scripts may read the answers (CORS). Raises InputError where FastAPI or uvicorn is not
    installed, nothing can listen there, or the token or an origin is none.
    """
    with _listen(address, port) as listening:
        ready = _server(config, _read_token(), origins)
        where = f"http://{f'[{address}]' if ':' in address else address}:{listening.getsockname()[1]}"
        _log.info("the API of %s is at %s, its operations at %s/docs", ", ".join(config.cities), where, where)
        if not os.environ.get(_TOKEN) and not _is_loopback(address):
            _log.warning("whoever reaches %s may read everything: set %s to ask for a token", where, _TOKEN)
        ready.run(sockets=[listening])


def _server(config: Config, token: str | None, origins: Sequence[str]) -> uvicorn.Server:
    """A server of the API that is not running yet; its requests are not logged, and so no token is either."""
    for origin in origins:
        if not _ORIGIN.fullmatch(origin):
            raise InputError(f"--cors {origin} is no origin: write https://host or https://host:port, without a path")
    try:
        import uvicorn

        from trafficcast.api.app import _create_app
    except ModuleNotFoundError as error:
        raise InputError(f"the API needs {error.name}: pip install 'trafficcast[api]'") from None
    app = _create_app(config, token, origins)
    return uvicorn.Server(
        uvicorn.Config(
            app, log_config=None, access_log=False, server_header=False, ws="none",
            timeout_graceful_shutdown=_SHUTDOWN_SECONDS,
        )
    )  # fmt: skip


def _listen(address: str, port: int) -> socket.socket:
    """A socket that listens there. Raises InputError where it cannot."""
    try:
        return socket.create_server((address, port), family=socket.AF_INET6 if ":" in address else socket.AF_INET)
    except OSError as error:
        raise InputError(f"cannot listen on {address}, port {port}: {error.strerror}; choose another") from None


def _read_token() -> str | None:
    """The token that requests must show, from the environment; None where it is not set."""
    token = os.environ.get(_TOKEN)
    if token is not None and not _TOKEN_SHAPE.fullmatch(token):
        raise InputError(f"{_TOKEN} is set, but empty or not of letters, digits and -._~+/= alone: set it, or unset it")
    return token


def _is_loopback(address: str) -> bool:
    try:
        return ip_address(address).is_loopback
    except ValueError:
        return address == "localhost"
