"""Open alerts in words and in signs."""

from __future__ import annotations

from collections.abc import Sequence

from trafficcast.alerts.book import Alert

# The severities differ by their signs as well as by their words.
SIGNS = {"critical": "\N{BLACK UP-POINTING TRIANGLE}", "warning": "\N{WHITE UP-POINTING TRIANGLE}"}


def marks(alerts: Sequence[Alert] | None) -> str:
    """Write how many alerts are open, in signs for a menu or a title.

    Parameters
    ----------
    alerts
        The open alerts; None where they cannot be read.

    Returns
    -------
    str
        A sign and a number for each severity; empty where no alert is open, '?' where they cannot be read.
    """
    if alerts is None:
        return "?"
    counted = _counted(alerts)
    return " ".join(f"{sign}{counted[severity]}" for severity, sign in SIGNS.items() if counted[severity])


def head_line(city: str, alerts: Sequence[Alert]) -> str:
    """Write how many alerts are open, such as '3 open alerts in oslo: 1 critical, 2 warning'.

    Parameters
    ----------
    city
        The city's name.
    alerts
        The open alerts.

    Returns
    -------
    str
        The text.
    """
    if not alerts:
        return f"No open alerts in {city}"
    said = ", ".join(f"{number} {severity}" for severity, number in _counted(alerts).items() if number)
    return f"{len(alerts)} open alert{'s' if len(alerts) > 1 else ''} in {city}" + (f": {said}" if said else "")


def _counted(alerts: Sequence[Alert]) -> dict[str, int]:
    """How many alerts have each severity."""
    severities = [alert.finding.severity for alert in alerts]
    return {severity: severities.count(severity) for severity in SIGNS}
