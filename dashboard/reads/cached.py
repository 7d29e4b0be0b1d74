"""The decorator of all cached reads."""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps
from typing import Any, Literal, ParamSpec, TypeVar

import streamlit as st

_P = ParamSpec("_P")
_R = TypeVar("_R")


def cached(
    stamp: Callable[..., object], entries: int, spinner: str | Literal[False] = False
) -> Callable[[Callable[_P, _R]], Callable[_P, _R]]:
    """Make a decorator that caches a read for as long as a stamp of its arguments stays the same.

    The results are shared by all sessions and must not be changed. Errors are not cached.

    Parameters
    ----------
    stamp
        A function of the read's arguments whose value changes with what is read, usually the files' times of change. Its
        value, like the arguments, must be told from others by its `repr`.
    entries
        How many results to keep at most.
    spinner
        The text to show while the read runs; False shows none.

    Returns
    -------
    Callable[[Callable[_P, _R]], Callable[_P, _R]]
        The decorator. The decorated read takes positional arguments only.
    """

    def decorate(read: Callable[_P, _R]) -> Callable[_P, _R]:
        def keep(key: str, _arguments: tuple[Any, ...]) -> _R:
            return read(*_arguments)

        # Streamlit knows a function, and so its results, by these names.
        keep.__module__, keep.__qualname__ = read.__module__, read.__qualname__
        kept = st.cache_resource(max_entries=entries, show_spinner=spinner)(keep)

        @wraps(read)
        def cached_read(*arguments: _P.args, **_: _P.kwargs) -> _R:
            return kept(repr((arguments, stamp(*arguments))), arguments)

        return cached_read

    return decorate
