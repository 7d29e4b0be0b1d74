"""The view of a page: city, time, flow kind and cell. Its address holds them, so that a link can be shared.

    /?city=san-francisco&time=2008-06-06T18:00:00-07:00&kind=outflow&cell=12,20

Anyone can write an address: values that are unknown or impossible are ignored.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Self

import numpy as np

from trafficcast.config.city import FLOW_KINDS, HORIZON, City
from trafficcast.config.settings import Config
from trafficcast.errors import InputError

_NET = "net"  # inflow less outflow
KINDS = (*FLOW_KINDS, _NET)
_LEADS = tuple(str(lead) for lead in range(HORIZON))


@dataclass(frozen=True)
class View:
    """The choices that all pages share.

    Attributes
    ----------
    city
        The city.
    time
        Start of the slot shown, naive UTC; None is the newest slot.
    other
        Start of the slot that it is compared with, naive UTC; None compares with none.
    kind
        The flow kind: inflow, outflow or net.
    cell
        Row and column of the chosen cell; None while none is chosen.
    lead
        Position along lead times of the forecast shown, where a page offers the choice.
    """

    city: City
    time: np.datetime64 | None = None
    other: np.datetime64 | None = None
    kind: str = FLOW_KINDS[0]
    cell: tuple[int, int] | None = None
    lead: int = 0

    @classmethod
    def from_address(cls, parameters: Mapping[str, str], config: Config, default_city: str) -> Self:
        """Make the view of an address; an unknown city is replaced by the default one.

        Parameters
        ----------
        parameters
            The parameters of the address.
        config
            The configuration.
        default_city
            The name of the city of an address without a known city.

        Returns
        -------
        Self
            The view.
        """
        name = parameters.get("city", default_city)
        known = name in config.cities
        city = config.city(name if known else default_city)
        if not known:
            return cls(city)
        kind = parameters.get("kind", FLOW_KINDS[0])
        return cls(
            city,
            _slot(city, parameters.get("time")),
            _slot(city, parameters.get("other")),
            kind if kind in KINDS else FLOW_KINDS[0],
            _cell(city, parameters.get("cell")),
            _LEADS.index(parameters["lead"]) if parameters.get("lead") in _LEADS else 0,
        )

    def address(self) -> dict[str, str]:
        """Return the parameters of the view's address, without those that hold the default.

        Returns
        -------
        dict[str, str]
            The parameters by name.
        """
        given = {
            "city": self.city.name,
            "time": None if self.time is None else self.city.isoformat(self.time),
            "other": None if self.other is None else self.city.isoformat(self.other),
            "kind": None if self.kind == FLOW_KINDS[0] else self.kind,
            "lead": None if self.lead == 0 else _LEADS[self.lead],
            "cell": None if self.cell is None else f"{self.cell[0]},{self.cell[1]}",
        }
        return {name: value for name, value in given.items() if value is not None}


def _slot(city: City, text: str | None) -> np.datetime64 | None:
    """Return the start of the slot that contains a time; a blank stands for a +, as addresses encode it."""
    try:
        slot = None if text is None else city.slot_start(city.parse_time(text.replace(" ", "+")))
        return None if slot is None or not city.isoformat(slot) else slot
    except (InputError, OverflowError, ValueError, NotImplementedError):  # the last ones at the ends of the calendar
        return None


def _cell(city: City, text: str | None) -> tuple[int, int] | None:
    parts = (text or "").split(",")
    if len(parts) != 2 or not all(part.isascii() and part.isdigit() and len(part) < 5 for part in parts):
        return None
    row, col = int(parts[0]), int(parts[1])
    return (row, col) if row < city.rows and col < city.cols else None
