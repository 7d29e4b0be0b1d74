"""Text from files and folders as one line that any table can show."""

from __future__ import annotations

REPLACEMENT = "\N{REPLACEMENT CHARACTER}"


def one_line(text: str) -> str:
    """Blanks in a row are one; what is not printable (control signs, names that are no Unicode) is replaced."""
    return "".join(sign if sign.isprintable() else REPLACEMENT for sign in " ".join(text.split()))
