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
from trafficcast.files import write_json

CARD = "card.json"
_CHANGED = "it is not as it was sealed"


def seal(folder: Path) -> None:
    """Seal a model's files as they are now. When the card was last changed stays what it was: the age of the model.

    Parameters
    ----------
    folder
        The model's folder.

    Raises
    ------
    InputError
        The card is damaged.
    """
    file = folder / CARD
    times, card = file.stat(), read_card(folder)
    others = [other for other in sorted(folder.iterdir()) if other != file and not other.name.startswith(".")]
    card["files"] = {other.name: _digest(other.read_bytes()) for other in others}
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


def read_card(folder: Path) -> dict[str, Any]:
    """Read a model's card and compare it with its own seal.

    Parameters
    ----------
    folder
        The model's folder.

    Returns
    -------
    dict[str, Any]
        The content of card.json.

    Raises
    ------
    InputError
        The card is damaged.
    """
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


def read_sealed(folder: Path, card: dict[str, Any], name: str) -> bytes | None:
    """Read a file of a model and compare it with the seal.

    Parameters
    ----------
    folder
        The model's folder.
    card
        The model's card (see `read_card`).
    name
        The name of a file other than the card.

    Returns
    -------
    bytes | None
        The file's content; None where the model has no such file.

    Raises
    ------
    InputError
        The file is not as it was sealed, or cannot be read.
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


def check_files(folder: Path, card: dict[str, Any]) -> None:
    """Compare all files of a model with the seal. Files that did not change since the last time are not read again.

    Parameters
    ----------
    folder
        The model's folder.
    card
        The model's card (see `read_card`). Nothing is known of the files of a model without a seal.

    Raises
    ------
    InputError
        A file is not as it was sealed, or cannot be read.
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
