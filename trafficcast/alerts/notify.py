"""Write alerts to the book of alerts, the log and data/<city>/alerts.jsonl, and send them to a webhook."""

from __future__ import annotations

import json
import logging
import os
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from trafficcast.alerts.book import Alert, AlertBook, _changes, _key, _Notice, _notice_of
from trafficcast.alerts.calls import call
from trafficcast.alerts.findings import CityState, Finding, _findings
from trafficcast.config.alert_rules import Alerts
from trafficcast.errors import InputError, JobError
from trafficcast.stores.city_stores import alerts_file

_log = logging.getLogger("trafficcast")
# One message holds at most so many notices; the next message holds the rest.
_MOST = 500


@dataclass
class Told:
    """What a running service has told of a city's alerts, for the time in which the book of alerts cannot be written.

    Attributes
    ----------
    open
        The alerts that were open when the book could last be read.
    unnoted
        Alerts that were raised or cleared since and are not yet in the book, the oldest first.
    logged
        Names of notices that are in the log, and whose alerts the book does not yet hold as written.
    posted
        Names of notices that the webhook has accepted, and whose alerts the book does not yet hold as delivered.
    """

    open: list[Alert] = field(default_factory=list)
    unnoted: list[Alert] = field(default_factory=list)
    logged: set[str] = field(default_factory=set)
    posted: set[str] = field(default_factory=set)


def check_alerts(alerts: Alerts, data: Path, state: CityState, live: bool, told: Told | None = None) -> list[Alert]:
    """Raise an alert for each new finding, and clear the alerts whose rules find nothing any more.

    Each alert that is raised or cleared is written once to the log and to the city's file. A rule that fails stops no
    other rule: the alerts of the others are raised and cleared first, and its own stay as they are. While the book of
    alerts cannot be written, as on a full disk, log, file and webhook are told all the same, and the book when it can.

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
    told
        What earlier calls have told, so that nothing is told twice; without it, this is the first call.

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
    told = told or Told()
    for rule in alerts.rules:
        try:
            found += _findings([rule], state)
        except Exception as error:  # noqa: BLE001  # whatever is wrong with one rule must not silence the others
            failed[rule.name] = error
    for_webhook = live and alerts.webhook is not None
    try:
        book.update(city, found, state.now, for_webhook, failed, told.unnoted, told.posted)
        told.unnoted.clear()
        with book.unwritten(city) as notices:
            _tell(lines_file, notices, told)
        told.open = book.open(city, state.now)
    except (InputError, JobError, OSError):
        raised, cleared = _changes(city, _open_alerts(book, city, state.now, told), found, state.now, failed)
        told.unnoted += raised + cleared
        _tell_unnoted(told, lines_file, alerts if for_webhook else None)
        raise
    told.logged.clear()
    told.posted.clear()
    if failed:
        reasons = "; ".join(f"'{name}': {type(error).__name__}: {error}" for name, error in failed.items())
        raise JobError(f"{len(failed)} of {len(alerts.rules)} alert rules could not be examined: {reasons}")
    return told.open


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


def deliver(alerts: Alerts, data: Path, posted: dict[str, _Notice] | None = None) -> int:
    """Send the notices that wait, of all cities, to the webhook in one message.

    After a failure the next call sends the notices again. A message that arrived but was not acknowledged is therefore
    sent twice.

    Parameters
    ----------
    alerts
        The configuration's rules and webhook.
    data
        The folder of the stores of all cities, `[paths] data`.
    posted
        The notices by name that the webhook has accepted in earlier calls, and that could not be noted as delivered.

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
    if alerts.webhook is None:
        return 0
    book, posted = AlertBook(alerts_file(data)), {} if posted is None else posted
    notices = [notice for notice in book.undelivered(_MOST) if notice.id not in posted]
    if notices:
        trouble = call(alerts.webhook, {"notices": [notice.as_json() for notice in notices]})
        if trouble:
            _log.warning("the webhook at %s %s: %d notices wait", alerts.webhook_host, trouble, len(notices))
            return 0
        posted |= {notice.id: notice for notice in notices}
    if posted:
        book.delivered(list(posted.values()))
        posted.clear()
    return len(notices)


def _tell(file: Path, notices: list[_Notice], told: Told) -> None:
    """Write notices to the file and, though that fails, to the log."""
    try:
        _append(file, notices)
    finally:
        for notice in notices:
            if notice.id not in told.logged:
                _log_alert(notice)
                told.logged.add(notice.id)


def _open_alerts(book: AlertBook, city: str, now: np.datetime64, told: Told) -> list[Alert]:
    """Return the open alerts, of which the book may not know all, nor be readable."""
    with suppress(InputError, JobError, OSError):  # a full disk can be read
        told.open = book.open(city, now)
    found = {_key(alert.finding): alert for alert in told.open}
    for alert in told.unnoted:
        if alert.cleared is None:
            found[_key(alert.finding)] = alert
        else:
            found.pop(_key(alert.finding), None)
    return list(found.values())


def _tell_unnoted(told: Told, file: Path, alerts: Alerts | None) -> None:
    """Tell what the book does not know: the log, the file if it can be written, and the webhook of `alerts`."""
    notices = [_notice_of(alert) for alert in told.unnoted]
    with suppress(OSError):
        _tell(file, notices, told)
    waiting = [notice for notice in notices if notice.id not in told.posted]
    if alerts is not None and alerts.webhook is not None and waiting:
        trouble = call(alerts.webhook, {"notices": [notice.as_json() for notice in waiting]})
        if trouble:
            _log.warning("the webhook at %s %s: %d notices wait", alerts.webhook_host, trouble, len(waiting))
        else:
            told.posted |= {notice.id for notice in waiting}


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
