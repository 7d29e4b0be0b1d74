"""The decorator of all cached reads."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial, wraps
from typing import Literal, ParamSpec, TypeVar

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
        A function of the read's arguments whose value changes with the files that are read. Different values, and
        different arguments, must have a different `repr`.
    entries
        How many results to keep at most.
    spinner
        The text to show while the read runs; False shows none.

    Returns
    -------
    Callable[[Callable[_P, _R]], Callable[_P, _R]]
        The decorator.
    """

    def _decorate(read: Callable[_P, _R]) -> Callable[_P, _R]:
        def _keep(key: str, _read: Callable[[], _R]) -> _R:
            return _read()

        # Streamlit tells functions, and so their results, apart by these names.
        _keep.__module__, _keep.__qualname__ = read.__module__, read.__qualname__
        kept = st.cache_resource(max_entries=entries, show_spinner=spinner)(_keep)

        @wraps(read)
        def _cached_read(*arguments: _P.args, **named: _P.kwargs) -> _R:
            key = repr((arguments, named, stamp(*arguments, **named)))
            return kept(key, partial(read, *arguments, **named))

        return _cached_read

    return _decorate
