"""The kinds of failure that users meet; every other exception that escapes is a bug of the program."""

from __future__ import annotations

from pathlib import Path


class InputError(ValueError):
    """The call, the configuration or the input is wrong; one sentence says what and where. The exit code is 2."""


class DamagedFile(InputError):
    """A file of a store, or of the registry, that cannot be read; `trafficcast repair` mends it or sets it aside.

    Parameters
    ----------
    file
        The file.
    error
        What is wrong with it.
    city
        The city's name; None for a file of all cities.
    """

    def __init__(self, file: Path, error: object, city: str | None = None) -> None:
        command = "trafficcast repair" if city is None else f"trafficcast repair --city {city}"
        super().__init__(f"cannot read {file}: {' '.join(str(error).split())}; run {command}")
        self.file, self._error, self._city = file, str(error), city

    def __reduce__(self) -> tuple[type[DamagedFile], tuple[Path, str, str | None]]:
        return DamagedFile, (self.file, self._error, self._city)


class JobError(RuntimeError):
    """The call was right and the job itself failed. The exit code is 1."""
