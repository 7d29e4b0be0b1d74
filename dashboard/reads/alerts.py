"""The open alerts of a city, which every page counts."""

from __future__ import annotations

from dashboard.page import clock
from trafficcast.alerts.book import Alert, AlertBook
from trafficcast.errors import InputError, JobError
from trafficcast.stores.city_stores import CityStores


def open_alerts(stores: CityStores) -> list[Alert] | None:
    """Read the open alerts of a city.

    Parameters
    ----------
    stores
        The city and its stores.

    Returns
    -------
    list[Alert] | None
        The alerts, the oldest first; None where they cannot be read, of which the page Alerts says more.
    """
    try:
        return AlertBook(stores.alerts, read_only=True).open(stores.city.name, clock.present())
    except (InputError, JobError):
        return None
