"""Calls of the addresses outside that are told: the webhook of alerts, and the heartbeat."""

from __future__ import annotations

import logging

import requests
from pydantic import SecretStr
from requests.adapters import HTTPAdapter
from urllib3.exceptions import HTTPError
from urllib3.util import Retry, Timeout

from trafficcast import __version__

# Three attempts of 3 s and a pause of 1 s before the last: an address that does not answer costs 10 s.
_ATTEMPT_SECONDS = 3.0
_RETRY = Retry(
    total=2,
    backoff_factor=0.5,
    status_forcelist=(429, 500, 502, 503, 504),
    allowed_methods=("GET", "POST"),
    raise_on_status=False,
    respect_retry_after_header=False,
)


def call(address: SecretStr, message: object = None) -> str:
    """Call an address, in bounded time.

    Parameters
    ----------
    address
        The http(s) address, which is secret.
    message
        What is posted as JSON; None only asks for the address (GET).

    Returns
    -------
    str
        The error, without the address; empty if the call was accepted.
    """
    for name in ("connectionpool", "util.retry"):  # below this level they log the whole address
        logging.getLogger(f"urllib3.{name}").setLevel(logging.ERROR)
    try:
        with requests.Session() as session:
            for scheme in ("http://", "https://"):
                session.mount(scheme, HTTPAdapter(max_retries=_RETRY))
            with session.request(
                "GET" if message is None else "POST",
                address.get_secret_value(),
                json=message,
                headers={"User-Agent": f"trafficcast/{__version__}"},
                timeout=Timeout(total=_ATTEMPT_SECONDS),  # type: ignore[arg-type]  # requests takes urllib3's too
                allow_redirects=False,
                stream=True,  # do not wait for the answer's body
            ) as answer:
                return "" if answer.ok and not answer.is_redirect else f"answered {answer.status_code}"
    except (requests.RequestException, HTTPError) as error:  # the error's text holds the address
        cause = getattr(error.args[0], "reason", error) if error.args else error
        return f"failed with {type(cause).__name__}"
