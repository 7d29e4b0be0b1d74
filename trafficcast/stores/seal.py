"""The seal of a model: the card holds the size and SHA-256 of each other file, and the SHA-256 of its own content.

What is read of a sealed model is compared with the seal before anything parses it. Models of earlier versions have no
seal until `trafficcast models seal` gives them one.
"""

from __future__ import annotations

import hashlib
import json
import os
from functools import lru_cache
from pathlib import Path
from typing import Any

from trafficcast.errors import InputError
from trafficcast.files import json_text, write_json

CARD = "card.json"
_CHANGED = "it is not as it was sealed"


def _seal(folder: Path) -> None:
    """Seal the files of a model's folder as they are now. Raises InputError where the card is damaged.

    When the card was last changed stays what it was, as it is the age of the model.
    """
    file = folder / CARD
    times, card = file.stat(), _read_card(folder)
    others = [other for other in sorted(folder.iterdir()) if other != file and not other.name.startswith(".")]
    card["files"] = {other.name: _digest(other.read_bytes()) for other in others}
    card = json.loads(json_text(card))  # as it will be read: numbers that are not finite are null then
    write_json(file, card | {"sha256": _digest_of_card(card)})
    os.utime(file, ns=(times.st_atime_ns, times.st_mtime_ns))


def is_sealed(card: dict[str, Any]) -> bool:
    """Tell whether a model is sealed.

    Parameters
    ----------
    card
        Its card.

    Returns
    -------
    bool
        Whether the card has a seal.
    """
    return "sha256" in card


def _read_card(folder: Path) -> dict[str, Any]:
    """Read the card in a model's folder and compare it with its own seal. Raises InputError where it is damaged."""
    file = folder / CARD
    try:
        card: dict[str, Any] = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise damaged(folder, CARD, error) from None
    if not isinstance(card, dict):
        raise damaged(folder, CARD, "it does not hold a JSON object")
    # One flipped bit may hide one of the two keys; it cannot hide that the model was sealed.
    if ("files" in card or "sha256" in card) and card.get("sha256") != _digest_of_card(card):
        raise damaged(folder, CARD, _CHANGED)
    return card


def _read_sealed(folder: Path, card: dict[str, Any], name: str) -> bytes | None:
    """Read a file of a model and compare it with the seal in the card; None where the model has no such file.

    Raises InputError where it is not as it was sealed, or cannot be read.
    """
    if not (name in card["files"] if is_sealed(card) else (folder / name).exists()):
        return None
    try:
        content = (folder / name).read_bytes()
    except OSError as error:
        raise damaged(folder, name, error.strerror) from None
    if is_sealed(card) and _digest(content) != card["files"][name]:
        raise damaged(folder, name, _CHANGED)
    return content


def _check_files(folder: Path, card: dict[str, Any]) -> None:
    """Compare all files of a model with the seal in the card, and raise InputError for the first that is damaged.

    Files that did not change since the last time are not read again. Nothing is known of a model without a seal.
    """
    for name in card["files"] if is_sealed(card) else ():
        file = folder / name
        try:
            now = file.stat()
            if _digest_of_file(file, now.st_ino, now.st_size, now.st_mtime_ns) == card["files"][name]:
                continue
        except OSError as error:
            raise damaged(folder, name, error.strerror) from None
        raise damaged(folder, name, _CHANGED)


def damaged(folder: Path, name: str, why: object) -> InputError:
    """Make the error of a damaged file of a model.

    Parameters
    ----------
    folder
        The model's folder.
    name
        The file's name.
    why
        What is wrong with it.

    Returns
    -------
    InputError
        The error, to be raised.
    """
    return InputError(f"model {folder} is damaged: {name}: {' '.join(str(why).split())}")


@lru_cache(maxsize=1024)
def _digest_of_file(file: Path, *_: int) -> dict[str, Any]:
    """Return the size and SHA-256 of a file; the other arguments change when the file does."""
    return _digest(file.read_bytes())


def _digest(content: bytes) -> dict[str, Any]:
    """Return the size and SHA-256 of a file's content, as the card holds them."""
    return {"bytes": len(content), "sha256": hashlib.sha256(content).hexdigest()}


def _digest_of_card(card: dict[str, Any]) -> str:
    """Return the SHA-256 of a card's values, whatever their order and the space between them."""
    content = {key: value for key, value in card.items() if key != "sha256"}
    return hashlib.sha256(json.dumps(content, sort_keys=True, separators=(",", ":")).encode()).hexdigest()
