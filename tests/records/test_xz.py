"""xz is unpacked as Python's module does, in bounded memory."""

from __future__ import annotations

import io
import lzma
import random

import pytest

from trafficcast.records import xz
from trafficcast.records.xz import _Xz

TEXT = random.Random(0).randbytes(200_000) + b"1" * 500_000
PACKED = lzma.compress(TEXT)


def unpacked(packed: bytes) -> bytes:
    return io.BufferedReader(_Xz(io.BytesIO(packed)), 1 << 16).read()


@pytest.mark.parametrize("between", [b"", bytes(8), bytes(1 << 17)])
def test_parts_after_one_another_with_zeros_between_them(between: bytes) -> None:
    assert unpacked(PACKED + between + PACKED + between) == TEXT + TEXT


def test_a_part_that_ends_early_or_is_damaged_is_an_error() -> None:
    with pytest.raises(EOFError):
        unpacked(PACKED[:-9])
    damaged = bytearray(PACKED)
    damaged[len(PACKED) // 2] ^= 1
    for packed in (bytes(damaged), PACKED + b"else"):
        with pytest.raises((EOFError, lzma.LZMAError)):
            unpacked(packed)


def test_a_file_whose_decoder_needs_too_much_memory_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(xz, "_DECODER_BYTES", 1 << 20)
    with pytest.raises(lzma.LZMAError, match="[Mm]emory"):
        unpacked(PACKED)
