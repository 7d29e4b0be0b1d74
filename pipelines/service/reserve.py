"""The reserve: a file that is removed when the disk of the stores is full, so that the last notes can be written."""

from __future__ import annotations

import errno
import os
import shutil
from dataclasses import dataclass
from pathlib import Path

from trafficcast.files import atomic
from trafficcast.progress import log

_BYTES = 16 * 2**20
_BLOCK = 2**20
# Where so much is free beside it, the reserve is made.
_ROOM = 4 * _BYTES
_FULL = (errno.ENOSPC, errno.EDQUOT)


@dataclass
class _Reserve:
    """The reserve `data/reserve`; `missing` is whether there is no room for it."""

    file: Path
    missing: bool = False

    def keep(self) -> None:
        """Make the reserve, unless it is there or there is too little room."""
        try:
            if self.file.exists():
                self.missing = False
                return
            self.missing = shutil.disk_usage(self.file.parent).free < _BYTES + _ROOM
            if not self.missing:
                with atomic(self.file) as temporary, open(temporary, "wb") as file:
                    for _ in range(_BYTES // _BLOCK):
                        file.write(os.urandom(_BLOCK))  # not to be made small by a file system that compresses
                log.info("%s keeps %d MB for the case that the disk is full", self.file, _BYTES // 2**20)
        except OSError as error:
            self.missing = True
            log.error("there is no reserve for the case that the disk is full: %s", error)

    def free_if_full(self, error: BaseException) -> None:
        """Remove the reserve if an error comes from a full disk."""
        try:
            full = isinstance(error, OSError) and error.errno in _FULL or "disk is full" in str(error)
            if (full or shutil.disk_usage(self.file.parent).free < _BLOCK) and self.file.exists():
                self.file.unlink()
                self.missing = True
                log.error("%s; the reserve %s is removed, so that notes can be written", self.fault(), self.file)
        except OSError:  # the folder itself is gone
            return

    def fault(self) -> str:
        """Return a sentence on the missing reserve."""
        return f"the disk of {self.file.parent} is full or nearly so: make room"
