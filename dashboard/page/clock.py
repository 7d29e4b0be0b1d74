"""The present time: all pages ask here, so that all people are told of the same moment."""

from __future__ import annotations

import numpy as np


def present() -> np.datetime64:
    """Return the present time.

    Returns
    -------
    np.datetime64
        The time, naive UTC.
    """
    return np.datetime64("now", "us")
