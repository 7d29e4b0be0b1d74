"""The model registry: a folder models/<city>/<version> for each trained model, and the name of the champion."""

from __future__ import annotations

import re
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from safetensors import SafetensorError

from trafficcast.config.city import City
from trafficcast.errors import DamagedFile, InputError
from trafficcast.files import replace, write_text
from trafficcast.stores.seal import CARD, _check_files, _read_card, _read_sealed, _seal, damaged

_T = TypeVar("_T")
_NOT_PARSED = (ArithmeticError, AttributeError, LookupError, RuntimeError, TypeError, ValueError)
VERSION = re.compile(r"[a-z0-9]+(-[a-z0-9]+)*")


@dataclass(frozen=True)
class Registry:
    """The models of one city. A version that is stored is never overwritten.

    Attributes
    ----------
    root
        The folder of the city's models, models/<city>, which need not exist.
    city
        The city.
    """

    root: Path
    city: City

    def versions(self) -> list[str]:
        """List the versions that are stored.

        Returns
        -------
        list[str]
            The versions, sorted by name and number.
        """
        found = [file.parent.name for file in self.root.glob(f"*/{CARD}") if VERSION.fullmatch(file.parent.name)]
        return sorted(found, key=lambda v: [int(p) if p.isdigit() else p for p in re.split(r"(\d+)", v)])

    def next_version(self, architecture: str) -> str:
        """Choose the next version's name of an architecture.

        Parameters
        ----------
        architecture
            The architecture's name, such as vmrnn-c.

        Returns
        -------
        str
            The architecture's name and the first number above all that are taken.
        """
        taken = [int(v.rpartition("-")[2]) for v in self.versions() if re.fullmatch(rf"{architecture}-\d+", v)]
        return f"{architecture}-{max(taken, default=0) + 1}"

    def champion(self) -> str | None:
        """Return the champion, which commands use where no version is given.

        Returns
        -------
        str | None
            The version; None if the city has no model yet.
        """
        return next(iter(self.champions()), None)

    def champions(self) -> list[str]:
        """Return the champion and the champions before it.

        Returns
        -------
        list[str]
            The versions, the newest champion first, each once.

        Raises
        ------
        DamagedFile
            The file that names them is damaged.
        """
        if not self.pointer.exists():
            return []
        try:
            named = self.pointer.read_text(encoding="utf-8").split()
        except (OSError, UnicodeDecodeError) as error:
            raise DamagedFile(self.pointer, error, self.city.name) from None
        if not named:
            raise DamagedFile(self.pointer, "it is empty", self.city.name)
        if not all(VERSION.fullmatch(version) for version in named):
            raise DamagedFile(self.pointer, "it holds what is no name of a model", self.city.name)
        if not any((self.root / version).is_dir() for version in named) and self.versions():
            raise DamagedFile(self.pointer, "it names no model that is stored", self.city.name)
        return named

    @property
    def pointer(self) -> Path:
        """The file that names the champions.

        Returns
        -------
        Path
            The file `champion`, which does not exist where the city has no model.
        """
        return self.root / "champion"

    def name_champions(self, versions: list[str]) -> None:
        """Write anew which versions are the champion and the champions before it.

        Parameters
        ----------
        versions
            The versions, the newest champion first.
        """
        write_text(self.pointer, "\n".join(versions) + "\n")

    def promote(self, version: str) -> None:
        """Make a version the champion.

        Parameters
        ----------
        version
            The version.

        Raises
        ------
        InputError
            There is no such version, or its card is damaged.
        """
        self.card(version)
        before = [other for other in self.champions() if other != version]
        self.name_champions([version, *before])

    def rollback(self) -> str:
        """Make the champion before this one the champion again.

        The present champion becomes the oldest champion: its forecasts stay published, and another rollback goes
        further back.

        Returns
        -------
        str
            The version that is the champion now.

        Raises
        ------
        InputError
            There is no earlier champion whose model is still stored.
        """
        (current, *before), known = self.champions() or [""], self.versions()
        previous = next((version for version in before if version in known), None)
        if previous is None:
            raise InputError(f"'{self.city.name}' has no earlier champion to go back to")
        kept = [version for version in before if version != previous]
        self.name_champions([previous, *kept, current])
        return previous

    def card(self, version: str) -> dict[str, Any]:
        """Read a version's card.

        Parameters
        ----------
        version
            The version.

        Returns
        -------
        dict[str, Any]
            The content of card.json.

        Raises
        ------
        InputError
            There is no such version, or its card is damaged.
        """
        if version not in self.versions():
            known = ", ".join(self.versions()) or "none yet"
            raise InputError(f"'{self.city.name}' has no model '{version}'; it has: {known}")
        return _read_card(self.root / version)

    def read_if_any(self, version: str, name: str, parse: Callable[[bytes], _T]) -> _T | None:
        """Read a file that a model may have: it is compared with the model's seal, and then parsed.

        Parameters
        ----------
        version
            The version.
        name
            The name of a file other than the card.
        parse
            Makes the result of the file's content. Its errors become those of a damaged file.

        Returns
        -------
        _T | None
            What `parse` returned; None where the model has no such file.

        Raises
        ------
        InputError
            There is no such version, or the card or the file is damaged.
        """
        folder = self.root / version
        content = _read_sealed(folder, self.card(version), name)
        try:
            return None if content is None else parse(content)
        except InputError:
            raise
        except (*_NOT_PARSED, SafetensorError) as error:
            raise damaged(folder, name, error) from None

    def read(self, version: str, name: str, parse: Callable[[bytes], _T]) -> _T:
        """Read a file that every model has; see `read_if_any`.

        Parameters
        ----------
        version
            The version.
        name
            The name of a file other than the card.
        parse
            Makes the result of the file's content. Its errors become those of a damaged file.

        Returns
        -------
        _T
            What `parse` returned.

        Raises
        ------
        InputError
            There is no such version, or the card or the file is damaged or missing.
        """
        parsed = self.read_if_any(version, name, parse)
        if parsed is None:
            raise damaged(self.root / version, name, "it is missing")
        return parsed

    def check(self, version: str) -> None:
        """Compare all files of a version with its seal, as far as they changed since the last time.

        Parameters
        ----------
        version
            The version.

        Raises
        ------
        InputError
            There is no such version, or a file of it is damaged.
        """
        _check_files(self.root / version, self.card(version))

    def seal(self, version: str) -> None:
        """Seal the files of a version as they are now.

        Parameters
        ----------
        version
            The version.

        Raises
        ------
        InputError
            There is no such version, or its card is damaged.
        """
        self.card(version)
        _seal(self.root / version)

    def add(self, version: str, write_files: Callable[[Path], None]) -> None:
        """Store a new version, sealed, whole or not at all. The first version of a city becomes the champion.

        Parameters
        ----------
        version
            The version, which must not be stored yet.
        write_files
            Writes the model's files, card.json among them, to the folder that it is given.

        Raises
        ------
        InputError
            The version exists already.
        """
        self.root.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=".new-", dir=self.root) as name:
            folder = Path(name) / version
            folder.mkdir()
            write_files(folder)
            _seal(folder)
            if (self.root / version).exists():
                raise InputError(f"{self.root / version} exists already, and a version is never overwritten")
            replace(folder, self.root / version)
        if self.champion() is None:
            self.promote(version)
