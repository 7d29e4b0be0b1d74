"""The files in the quarantine of an inbox, with the reasons beside them."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pandas as pd

from dashboard.page.labels import one_line
from trafficcast.config.city import City

_FOLDER, _REASON = "quarantine", ".reason.txt"  # as trafficcast/ingestion/inbox.py writes them
_MOST_FILES = 200
_LONGEST_REASON = 2000  # characters


def _quarantine_table(inbox: Path, city: City) -> tuple[pd.DataFrame, int]:
    """The files in an inbox's quarantine, the newest first, and how many there are; at most 200 are listed.

    Columns: file (below the quarantine), reason, since (when it was moved there, in the city's zone), size (bytes).
    Nothing but
    the reasons is read. Raises OSError where the folder cannot be read.
    """
    root = inbox / _FOLDER
    found = sorted(_files(root), key=lambda entry: (-entry[1].st_ctime_ns, entry[0]))
    shown = found[:_MOST_FILES]
    table = pd.DataFrame(
        {
            "file": [one_line(os.path.relpath(path, root)) for path, _ in shown],
            "reason": [_reason(path) for path, _ in shown],
            "since": city.local(np.array([facts.st_ctime_ns // 1000 for _, facts in shown], "datetime64[us]")).strftime(
                "%Y-%m-%d %H:%M %Z"
            ),
            "size": [facts.st_size for _, facts in shown],
        }
    )
    return table, len(found)


def _files(root: Path) -> Iterator[tuple[str, os.stat_result]]:
    """Regular files below a folder that are no reasons, with their facts; links are not followed."""
    if not root.is_dir():
        return
    folders = [str(root)]
    while folders:
        with os.scandir(folders.pop()) as entries:
            for entry in entries:
                if entry.is_dir(follow_symlinks=False):
                    folders.append(entry.path)
                elif entry.is_file(follow_symlinks=False) and not entry.name.endswith(_REASON):
                    yield entry.path, entry.stat(follow_symlinks=False)


def _reason(path: str) -> str:
    """Read the reason from the file beside the quarantined one."""
    reason = path + _REASON
    try:
        if os.path.islink(reason):
            return "no reason is given"
        with open(reason, encoding="utf-8", errors="replace") as file:
            return one_line(file.read(_LONGEST_REASON))
    except OSError:
        return "no reason is given"
