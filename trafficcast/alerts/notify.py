"""Write alerts to the book of alerts, the log and data/<city>/alerts.jsonl, and send them to a webhook."""

from __future__ import annotations

import json
import logging
import os
from pathlib import Path

import requests
from pydantic import SecretStr
from requests.adapters import HTTPAdapter
from urllib3.exceptions import HTTPError
from urllib3.util import Retry, Timeout

from trafficcast import __version__
from trafficcast.alerts.book import Alert, AlertBook, _Notice
from trafficcast.alerts.findings import CityState, Finding, _findings
from trafficcast.config.alert_rules import Alerts
from trafficcast.errors import JobError
from trafficcast.stores.city_stores import alerts_file

_log = logging.getLogger("trafficcast")
# Three attempts of 3 s and a pause of 1 s before the last: a webhook that does not answer costs 10 s.
_ATTEMPT_SECONDS = 3.0
_RETRY = Retry(
    total=2,
    backoff_factor=0.5,
    status_forcelist=(429, 500, 502, 503, 504),
    allowed_methods=("POST",),
    raise_on_status=False,
    respect_retry_after_header=False,
)
# One message holds at most so many notices; the next message holds the rest.
_MOST = 500


def check_alerts(alerts: Alerts, data: Path, state: CityState, live: bool) -> list[Alert]:
    """Raise an alert for each new finding, and clear the alerts whose rules find nothing any more.

    Each alert that is raised or cleared is written once to the log and to the city's file. A rule that fails stops no
    other rule: the alerts of the others are raised and cleared first, and its own stay as they are.

    Parameters
    ----------
    alerts
        The configuration's rules and webhook.
    data
        The folder of the stores of all cities, `[paths] data`.
    state
        The state of the city.
    live
        Whether the state is the present one: then the webhook gets the alerts too, if there is one (`deliver` sends
        them). A replay has a book and a file of its own, data/<city>/replay-alerts.sqlite and replay-alerts.jsonl.

    Returns
    -------
    list[Alert]
        The open alerts of the city, the oldest first.

    Raises
    ------
    InputError
        The book of alerts is damaged.
    JobError
        A rule could not be examined, or the book of alerts cannot be used now.
    """
    city, (book_file, lines_file) = state.city.name, alert_files(data, state.city.name, live)
    book, found, failed = AlertBook(book_file), list[Finding](), dict[str, Exception]()
    for rule in alerts.rules:
        try:
            found += _findings([rule], state)
        except Exception as error:  # noqa: BLE001  # whatever is wrong with one rule must not silence the others
            failed[rule.name] = error
    for_webhook = live and alerts.webhook is not None
    book.update(city, found, state.now, deliver=for_webhook, undecided=failed)
    with book.unwritten(city) as notices:
        _append(lines_file, notices)
        for notice in notices:
            _log_alert(notice)
    if failed:
        reasons = "; ".join(f"'{name}': {type(error).__name__}: {error}" for name, error in failed.items())
        raise JobError(f"{len(failed)} of {len(alerts.rules)} alert rules could not be examined: {reasons}")
    return book.open(city, state.now)


def alert_files(data: Path, city: str, live: bool) -> tuple[Path, Path]:
    """Return the files that alerts are written to.

    Parameters
    ----------
    data
        The folder of the stores of all cities, `[paths] data`.
    city
        The city's name.
    live
        Whether the files are those of the service, or of a replay.

    Returns
    -------
    tuple[Path, Path]
        The book of alerts, and the file of notices, one JSON object a line.
    """
    folder = data / city
    if live:
        return alerts_file(data), folder / "alerts.jsonl"
    return folder / "replay-alerts.sqlite", folder / "replay-alerts.jsonl"


def deliver(alerts: Alerts, data: Path) -> int:
    """Send the notices that wait, of all cities, to the webhook in one message.

    After a failure the next call sends the notices again. A message that arrived but was not acknowledged is therefore
    sent twice.

    Parameters
    ----------
    alerts
        The configuration's rules and webhook.
    data
        The folder of the stores of all cities, `[paths] data`.

    Returns
    -------
    int
        How many notices the webhook accepted; 0 without a webhook.

    Raises
    ------
    InputError
        The book of alerts is damaged.
    JobError
        The book of alerts cannot be used now.
    """
    book = AlertBook(alerts_file(data))
    notices = book.undelivered(_MOST) if alerts.webhook is not None else []
    if alerts.webhook is None or not notices:
        return 0
    trouble = _post(alerts.webhook, {"notices": [notice.as_json() for notice in notices]})
    if trouble:
        _log.warning("the webhook at %s %s: %d notices wait", alerts.webhook_host, trouble, len(notices))
        return 0
    book.delivered(notices)
    return len(notices)


def _post(address: SecretStr, message: object) -> str:
    """Send JSON and return the error, if any, without the address, which may hold a secret."""
    for name in ("connectionpool", "util.retry"):  # below this level they log the whole address
        logging.getLogger(f"urllib3.{name}").setLevel(logging.ERROR)
    try:
        with requests.Session() as session:
            for scheme in ("http://", "https://"):
                session.mount(scheme, HTTPAdapter(max_retries=_RETRY))
            with session.post(
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


def _log_alert(notice: _Notice) -> None:
    """Log that an alert was raised or cleared."""
    alert = notice.alert
    if notice.event == "raised":
        _log.warning("%s: alert (%s): %s", alert.city, alert.finding.severity, alert.finding.message)
    else:
        _log.info("%s: alert cleared: %s", alert.city, alert.finding.message)


def _append(file: Path, notices: list[_Notice]) -> None:
    """Append a line of JSON for each notice that the file does not hold yet. Half a line left by a crash is removed."""
    if not notices:
        return
    file.parent.mkdir(parents=True, exist_ok=True)
    with open(file, "a+b") as lines:
        lines.seek(0)
        content = lines.read()
        whole = content[: content.rfind(b"\n") + 1]
        lines.truncate(len(whole))
        written = [notice for notice in notices if f'"id": "{notice.id}"'.encode() not in whole]
        lines.write("".join(json.dumps(notice.as_json()) + "\n" for notice in written).encode())
        lines.flush()
        os.fsync(lines.fileno())
