"""The heartbeat: a call of an address outside after each good cycle, so that something outside notices silence."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field

import numpy as np

from trafficcast.alerts.calls import call
from trafficcast.config.city import City
from trafficcast.config.service import Service
from trafficcast.progress import log


@dataclass
class _Heartbeat:
    """The calls of `[service] heartbeat`; `beaten` are the init times of the cities' forecasts at the last one."""

    settings: Service
    beaten: dict[str, np.datetime64] = field(default_factory=dict)

    def beat(
        self,
        cities: Iterable[City],
        newest: Mapping[str, np.datetime64],
        now: np.datetime64,
        is_well: Callable[[], bool],
    ) -> None:
        """Call the address if the forecasts of the present slot of all cities are new, and nothing else is wrong.

        A call that fails is made again the next time.
        """
        present = {city.name: city.slot_start(now) for city in cities}
        made = {name: newest.get(name) for name in present}
        if self.settings.heartbeat is None or not present or present == self.beaten or made != present:
            return
        if not is_well():
            return
        trouble = call(self.settings.heartbeat)
        if trouble:
            log.error("the heartbeat at %s %s", self.settings.heartbeat_host, trouble)
        else:
            self.beaten = present
