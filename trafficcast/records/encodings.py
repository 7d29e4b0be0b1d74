"""Read text of any encoding as UTF-8: the feed names the encoding, or a byte order mark does."""

from __future__ import annotations

import codecs
import io
import re
from collections.abc import Iterable
from typing import Any

# UTF-32 before UTF-16, whose mark it begins with.
_MARKS = {
    codecs.BOM_UTF32_LE: "utf-32",
    codecs.BOM_UTF32_BE: "utf-32",
    codecs.BOM_UTF16_LE: "utf-16",
    codecs.BOM_UTF16_BE: "utf-16",
}
_LONGEST_MARK = 4  # bytes
# Encodings of many countries' exports, in which names of columns are looked for; the first that has them is proposed.
_USUAL = ("gbk", "cp1252", "cp1251", "cp1250", "big5", "shift_jis", "euc_kr", "cp1254", "cp1253", "utf-16-le")
_ESCAPED = re.compile(rb"\\x([0-9a-f]{2})")


def _marked_encoding(head: bytes) -> str:
    """Return the encoding that a byte order mark names; empty for UTF-8 and where there is no mark."""
    return next((name for mark, name in _MARKS.items() if head.startswith(mark)), "")


def encoding_of_names(names: Iterable[str], wanted: Iterable[str]) -> str | None:
    r"""Find the encoding in which names, whose bytes are no UTF-8, are the wanted ones.

    Parameters
    ----------
    names
        Names in which bytes that are no UTF-8 are written as `\xff`.
    wanted
        Names that shall be among them.

    Returns
    -------
    str | None
        The encoding; None where no usual one makes all wanted names.
    """
    raw = [_ESCAPED.sub(lambda found: bytes.fromhex(found[1].decode()), name.encode()) for name in names]
    return next((one for one in _USUAL if {*wanted} <= {name.decode(one, "replace").strip() for name in raw}), None)


class _Recoded(io.RawIOBase):
    r"""The text of a stream as UTF-8; bytes that the encoding does not have are written as `\xff`."""

    def __init__(self, stream: Any, encoding: str) -> None:
        self._stream = stream
        self._decoder = codecs.getincrementaldecoder(encoding)("backslashreplace")
        self._ready = b""

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        while not self._ready:
            more = self._stream.read(len(buffer))
            self._ready = self._decoder.decode(more, final=not more).encode("utf-8", "backslashreplace")
            if not more:
                break
        n = min(len(buffer), len(self._ready))
        buffer[:n], self._ready = self._ready[:n], self._ready[n:]
        return n

    def close(self) -> None:
        if not self.closed:
            self._stream.close()
        super().close()
