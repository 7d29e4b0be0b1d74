"""The layers of maps side by side: a forecast and the observed flows, or two moments, and their difference."""

from __future__ import annotations

import numpy as np

from dashboard.maps.colours import difference_limit
from dashboard.maps.maps import Layer


def forecast_layers(
    kind: str, limit: float, predicted: np.ndarray | None, observed: np.ndarray | None, why_not: str
) -> list[Layer]:
    """Make the layers of the predicted flows, the observed flows, and predicted less observed.

    Parameters
    ----------
    kind
        The flow kind: inflow, outflow or net.
    limit
        End of the flows' colour scale, vehicles per slot.
    predicted
        The forecast, (row, col), vehicles per slot; None where there is none.
    observed
        The observed flows of the same slot and shape; None where the slot was not observed.
    why_not
        The reason why the slot was not observed, as the map's note.

    Returns
    -------
    list[Layer]
        Three layers.
    """
    layers = [
        _layer(f"Predicted {kind}", kind, limit, predicted, 1, "no forecast of this slot"),
        _layer(f"Observed {kind}", kind, limit, observed, 0, why_not),
    ]
    missing = why_not if observed is None else "no forecast of this slot"
    return [*layers, _difference("Predicted less observed", "RMSE", limit, predicted, observed, missing)]


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
