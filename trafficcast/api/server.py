"""The process that serves the API: address, port and token."""

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
    """Serve the API until a signal arrives.

    The environment variable TRAFFICCAST_API_TOKEN holds the token that requests must show; without it every request is
    answered.

    Parameters
    ----------
    config
        The configuration, whose cities are served.
    address
        The address to listen on.
    port
        The port to listen on; 0 is any free port.
    origins
        The origins of pages whose scripts may read the answers (CORS).

    Raises
    ------
    InputError
        FastAPI or uvicorn is not installed, the address or port cannot be used, or the token or an origin is invalid.
    """
    with _listen(address, port) as listener:
        server = _server(config, _read_token(), origins)
        where = f"http://{f'[{address}]' if ':' in address else address}:{listener.getsockname()[1]}"
        _log.info("the API of %s is at %s, its operations at %s/docs", ", ".join(config.cities), where, where)
        if not os.environ.get(_TOKEN) and not _is_loopback(address):
            _log.warning("everyone who reaches %s may read everything: set %s to require a token", where, _TOKEN)
        server.run(sockets=[listener])


def _server(config: Config, token: str | None, origins: Sequence[str]) -> uvicorn.Server:
    """Return a server of the API that does not run yet. Requests are not logged, so that no token is."""
    for origin in origins:
        if not _ORIGIN.fullmatch(origin):
            raise InputError(
                f"--cors {origin} is not an origin: write https://host or https://host:port, without a path"
            )
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
    """Return a socket that listens on an address and a port. Raises InputError where that fails."""
    try:
        return socket.create_server((address, port), family=socket.AF_INET6 if ":" in address else socket.AF_INET)
    except OSError as error:
        raise InputError(f"cannot listen on {address}, port {port}: {error.strerror}; choose another") from None


def _read_token() -> str | None:
    """Return the token from the environment; None if it is not set."""
    token = os.environ.get(_TOKEN)
    if token is not None and not _TOKEN_SHAPE.fullmatch(token):
        raise InputError(f"{_TOKEN} must consist of letters, digits and -._~+/=: change it or unset it")
    return token


def _is_loopback(address: str) -> bool:
    """Whether only this machine can reach an address."""
    try:
        return ip_address(address).is_loopback
    except ValueError:
        return address == "localhost"
