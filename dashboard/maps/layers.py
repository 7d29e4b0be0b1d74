"""The layers of maps side by side: a forecast beside observed or typical flows, or two moments, and the difference."""

from __future__ import annotations

import numpy as np

from dashboard.maps.colours import difference_limit
from dashboard.maps.maps import Layer


def forecast_layers(
    kind: str,
    limit: float,
    predicted: np.ndarray | None,
    other: np.ndarray | None,
    why_not: str,
    what: str = "observed",
) -> list[Layer]:
    """Make the layers of the predicted flows, of the observed or the typical ones, and of predicted less those.

    Parameters
    ----------
    kind
        The flow kind: inflow, outflow or net.
    limit
        End of the flows' colour scale, vehicles per slot.
    predicted
        The forecast, (row, col), vehicles per slot; None where there is none.
    other
        The observed or the typical flows of the same slot and shape; None where they are unknown.
    why_not
        The reason why they are unknown, as the map's note.
    what
        Which flows they are: observed or typical.

    Returns
    -------
    list[Layer]
        Three layers.
    """
    layers = [
        _layer(f"Predicted {kind}", kind, limit, predicted, 1, "no forecast of this slot"),
        _layer(f"{what.capitalize()} {kind}", kind, limit, other, 0 if what == "observed" else 1, why_not),
    ]
    missing = why_not if other is None else "no forecast of this slot"
    measure = "RMSE" if what == "observed" else "RMS"
    return [*layers, _difference(f"Predicted less {what}", measure, limit, predicted, other, missing)]


def moment_layers(
    kind: str, source: str, limit: float, first: tuple[str, np.ndarray | None], second: tuple[str, np.ndarray | None]
) -> list[Layer]:
    """Make the layers of two moments, and of the first less the second.

    Parameters
    ----------
    kind
        The flow kind: inflow, outflow or net.
    source
        Which flows are compared: observed or predicted.
    limit
        End of the flows' colour scale, vehicles per slot.
    first
        The first moment in words and its flows, (row, col), vehicles per slot; None where there are none.
    second
        The same of the second moment.

    Returns
    -------
    list[Layer]
        Three layers.
    """
    (first_time, one), (second_time, two) = first, second
    why_not, digits = f"not {source}", 0 if source == "observed" else 1
    layers = [
        _layer(f"{source.capitalize()} {first_time}", kind, limit, one, digits, why_not),
        _layer(f"{source.capitalize()} {second_time}", kind, limit, two, digits, why_not),
    ]
    return [*layers, _difference("First less second", "RMS", limit, one, two, why_not)]


def _layer(title: str, kind: str, limit: float, values: np.ndarray | None, digits: int, why_not: str) -> Layer:
    net = kind == "net"
    note = why_not if values is None else f"city total {values.sum():,.0f}"
    return Layer(title, values, difference_limit(limit) if net else limit, net, digits, note)


def _difference(
    title: str, measure: str, limit: float, one: np.ndarray | None, two: np.ndarray | None, why_not: str
) -> Layer:
    diverging = difference_limit(limit)
    if one is None or two is None:
        return Layer("Difference", None, diverging, True, 1, why_not)
    difference = one - two
    rms = float(np.sqrt(np.square(difference).mean()))
    return Layer(title, difference, diverging, True, 1, f"city total {difference.sum():+,.0f}, {measure} {rms:.2f}")
