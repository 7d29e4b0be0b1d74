"""Unpack xz in bounded memory: a file says how much its decoder needs, up to 4 GB."""

from __future__ import annotations

import io
import lzma
from typing import Any

_DECODER_BYTES = 1 << 27  # `xz -9` needs 65 MB
_CHUNK_BYTES = 1 << 16


class _Xz(io.RawIOBase):
    """The unpacked bytes of a stream of xz, of one or more parts; reading raises LZMAError or EOFError."""

    def __init__(self, packed: Any) -> None:
        self._packed = packed
        self._decoder: lzma.LZMADecompressor | None = None

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        data = b""
        while not data:
            if self._decoder is None or self._decoder.eof:
                packed = b"" if self._decoder is None else self._decoder.unused_data
                while not packed.lstrip(b"\0"):  # between parts there may be zeros
                    packed = self._packed.read(_CHUNK_BYTES)
                    if not packed:
                        return 0
                packed = packed.lstrip(b"\0")
                self._decoder = lzma.LZMADecompressor(lzma.FORMAT_XZ, _DECODER_BYTES)
            elif self._decoder.needs_input:
                packed = self._packed.read(_CHUNK_BYTES)
                if not packed:
                    raise EOFError("the file ended before its packed bytes did")
            else:
                packed = b""
            data = self._decoder.decompress(packed, len(buffer))
        buffer[: len(data)] = data
        return len(data)

    def close(self) -> None:
        if not self.closed:
            self._packed.close()
        super().close()
