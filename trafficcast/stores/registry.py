"""The model registry: models/<city>/<version>, a folder a trained model, never overwritten, and the champion."""

from __future__ import annotations

import json
import re
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from trafficcast.config.city import City
from trafficcast.errors import InputError
from trafficcast.files import write_text

VERSION = re.compile(r"[a-z0-9]+(-[a-z0-9]+)*")


@dataclass(frozen=True)
class Registry:
    """The models of one city, below `root` = models/<city>."""

    root: Path
    city: City

    def versions(self) -> list[str]:
        """All versions, by name and number."""
        found = [file.parent.name for file in self.root.glob("*/card.json") if VERSION.fullmatch(file.parent.name)]
        return sorted(found, key=lambda v: [int(p) if p.isdigit() else p for p in re.split(r"(\d+)", v)])

    def next_version(self, architecture: str) -> str:
        """The first free version of an architecture."""
        taken = [int(v.rpartition("-")[2]) for v in self.versions() if re.fullmatch(rf"{architecture}-\d+", v)]
        return f"{architecture}-{max(taken, default=0) + 1}"

    def champion(self) -> str | None:
        """The version that commands use unless told otherwise."""
        return next(iter(self.champions()), None)

    def champions(self) -> list[str]:
        """The champion and those before it, the newest first, each once."""
        pointer = self.root / "champion"
        return pointer.read_text(encoding="utf-8").split() if pointer.exists() else []

    def promote(self, version: str) -> None:
        """Make a version the champion. Raises InputError where there is no such version."""
        self.card(version)
        before = [other for other in self.champions() if other != version]
        write_text(self.root / "champion", "\n".join([version, *before]) + "\n")

    def rollback(self) -> str:
        """Make the champion before this one the champion again, and return it. Raises InputError where there is none.

        This one becomes the oldest champion: what it forecast stays published, another rollback goes further back.
        """
        (current, *before), known = self.champions() or [""], self.versions()
        previous = next((version for version in before if version in known), None)
        if previous is None:
            raise InputError(f"'{self.city.name}' has no earlier champion to go back to")
        kept = [version for version in before if version != previous]
        write_text(self.root / "champion", "\n".join([previous, *kept, current]) + "\n")
        return previous

    def card(self, version: str) -> dict[str, Any]:
        """A version's card. Raises InputError for an unknown version and a damaged card."""
        if version not in self.versions():
            known = ", ".join(self.versions()) or "none yet"
            raise InputError(f"'{self.city.name}' has no model '{version}'; it has: {known}")
        file = self.root / version / "card.json"
        try:
            card: dict[str, Any] = json.loads(file.read_text(encoding="utf-8"))
        except (OSError, ValueError) as error:
            raise InputError(f"cannot read {file}: {error}") from None
        if not isinstance(card, dict):
            raise InputError(f"cannot read {file}: it is no card of a model")
        return card

    def publish(self, version: str, fill: Callable[[Path], None]) -> None:
        """Make a version's folder, whole or not at all: `fill` writes its files. The first one becomes champion."""
        self.root.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=".new-", dir=self.root) as name:
            folder = Path(name) / version
            folder.mkdir()
            fill(folder)
            if (self.root / version).exists():
                raise InputError(f"{self.root / version} exists already, and a version is never overwritten")
            folder.rename(self.root / version)
        if self.champion() is None:
            self.promote(version)
