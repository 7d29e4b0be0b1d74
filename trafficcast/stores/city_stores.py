"""One handle to all stores of a city: flows, records, forecasts, scores, models, ledger and alerts."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from trafficcast.config.city import City
from trafficcast.config.settings import Config, load_config
from trafficcast.stores.day_store import DayStore
from trafficcast.stores.ledger import Ledger
from trafficcast.stores.registry import Registry


@dataclass(frozen=True)
class CityStores:
    """A city, its stores and its models.

    Making one reads and writes nothing: a store's folder is made by the first write.

    Attributes
    ----------
    city
        The city, as the configuration describes it.
    data
        The folder of the stores of all cities, `[paths] data`.
    models
        The folder of the models of all cities, `[paths] models`.
    """

    city: City
    data: Path
    models: Path

    @classmethod
    def of(cls, config: Config, city: City) -> CityStores:
        """Return the stores of a city below the folders that a configuration names.

        Parameters
        ----------
        config
            The configuration.
        city
            One of its cities.

        Returns
        -------
        CityStores
            The city and its stores.
        """
        return cls(city, config.paths.data, config.paths.models)

    @property
    def folder(self) -> Path:
        """The folder of the city's own stores.

        Returns
        -------
        Path
            The folder data/<city>.
        """
        return self.data / self.city.name

    @property
    def records(self) -> Path:
        """The folder of the city's record store.

        Returns
        -------
        Path
            The folder data/<city>/records (see `RecordStore`).
        """
        return self.folder / "records"

    @property
    def flows(self) -> DayStore:
        """The flow store.

        Returns
        -------
        DayStore
            The observed flows (see `flows_dataset`), by the slot's start.
        """
        return DayStore(self.folder / "flows", self.city, "time")

    @property
    def registry(self) -> Registry:
        """The registry of the city's models.

        Returns
        -------
        Registry
            The models below models/<city>.
        """
        return Registry(self.models / self.city.name, self.city)

    @property
    def ledger(self) -> Ledger:
        """The run ledger, one for all cities.

        Returns
        -------
        Ledger
            The ledger data/ledger.sqlite.
        """
        return Ledger(self.data / "ledger.sqlite")

    @property
    def alerts(self) -> Path:
        """The file of the book of alerts, one for all cities.

        Returns
        -------
        Path
            The SQLite file, which need not exist (see `AlertBook`).
        """
        return alerts_file(self.data)

    def forecasts(self, version: str) -> DayStore:
        """Return the forecast store of a model.

        Parameters
        ----------
        version
            The model's version.

        Returns
        -------
        DayStore
            Its forecasts (see `forecast_dataset`), by init time.
        """
        return DayStore(self.folder / "forecasts" / version, self.city, "init_time")

    def scores(self, version: str) -> DayStore:
        """Return the store of the scores of a model's verified forecasts.

        Parameters
        ----------
        version
            The model's version.

        Returns
        -------
        DayStore
            The scores of the model and of the baselines beside it (see `score_dataset`), by init time.
        """
        return DayStore(self.folder / "scores" / version, self.city, "init_time")


def alerts_file(data: Path) -> Path:
    """Return the file of the book of alerts.

    Parameters
    ----------
    data
        The folder of the stores of all cities, `[paths] data`.

    Returns
    -------
    Path
        The SQLite file, which need not exist.
    """
    return data / "alerts.sqlite"


def open_city(name: str | None = None, config: str | Path = "config.toml") -> CityStores:
    """Open a city of a configuration: the city, its stores and its models.

    Parameters
    ----------
    name
        The city's name; None is the configuration's `default_city`, or its only city.
    config
        The configuration file.

    Returns
    -------
    CityStores
        The handle that the other functions take.

    Raises
    ------
    InputError
        The configuration cannot be read or is wrong, or it has no such city.

    Examples
    --------
    >>> import trafficcast as tc
    >>> city = tc.open_city("demo", config="config.toml")
    """
    settings = load_config(Path(config))
    return CityStores.of(settings, settings.city(name))
