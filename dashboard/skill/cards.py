"""Models' cards as tables. Anyone may have changed a card, so values of an unexpected kind are left out.

A card holds what `pipelines.train` writes into card.json: split, windows, training, metrics by part ("validation",
"test") and forecaster (see `trafficcast.metrics.scores`), and intervals.
"""

from __future__ import annotations

from collections.abc import Mapping
from io import BytesIO
from typing import Any

import pandas as pd

from dashboard.page.labels import lead_name, moment_label, one_line
from dashboard.skill.tables import _ALL_LEADS
from trafficcast.config.city import City
from trafficcast.errors import InputError
from trafficcast.stores.scores import METRICS

_PARTS = ("test", "validation")
_LONGEST_TEXT = 100_000  # characters of a card's text
_MOST_EPOCHS = 10_000
_LARGEST = 1e15
_LONGEST_VALUE = 500
_Card = Mapping[str, Any]


def _lookup(card: Any, *keys: str) -> Any:
    """Return the value below the keys; None where there is none."""
    for key in keys:
        if not isinstance(card, Mapping) or key not in card:
            return None
        card = card[key]
    return card


def _number(value: Any) -> float:
    """A card's number; NaN where it is none, or not finite."""
    fine = isinstance(value, int | float) and not isinstance(value, bool) and abs(value) < _LARGEST
    return float(value) if fine else float("nan")


def _forecasters(card: _Card, part: str) -> dict[str, _Card]:
    """The metrics of a part by forecaster, as far as they are there: the model itself and the baselines."""
    known = _lookup(card, "metrics", part)
    return {_text(name): scores for name, scores in known.items() if _is_mapping(scores)} if _is_mapping(known) else {}


def _best_baseline(card: _Card, part: str) -> tuple[str, float] | None:
    """The baseline with the lowest RMSE of a part and that error, vehicles per slot."""
    own = _lookup(card, "version")
    errors = {name: _number(scores.get("rmse")) for name, scores in _forecasters(card, part).items() if name != own}
    known = {name: error for name, error in errors.items() if error == error}
    return min(known.items(), key=lambda item: item[1], default=None)


def _own_error(card: _Card, part: str) -> float:
    """The model's own RMSE of a part, vehicles per slot; NaN where the card does not say it."""
    return _number(_lookup(card, "metrics", part, str(_lookup(card, "version")), "rmse"))


def _role(version: str, champions: list[str]) -> str:
    """The role of a version: 'champion', 'former', or an empty text."""
    if version not in champions:
        return ""
    return "champion" if version == champions[0] else "former"


def _registry_table(city: City, cards: Mapping[str, _Card | None], champions: list[str]) -> pd.DataFrame:
    """A row for each version, None in `cards` where its card cannot be read; the newest made first."""
    rows = []
    for version, card in cards.items():
        made = _text(_lookup(card, "created"))
        row: dict[str, Any] = {
            "version": version,
            "role": _role(version, champions),
            "created": _time_text(city, made) if card is not None else "its card cannot be read",
            "network": _text(_lookup(card, "architecture", "name")),
            "trained from": _day_text(city, _lookup(card, "split", "start")),
            "to": _day_text(city, _lookup(card, "split", "train_end")),
        }
        for part in ("validation", "test"):
            best = None if card is None else _best_baseline(card, part)
            row[f"{part} RMSE"] = float("nan") if card is None else _own_error(card, part)
            row[f"best baseline, {part}"] = float("nan") if best is None else best[1]
            row[f"which, {part}"] = "" if best is None else best[0]
        rows.append((_sort_key(city, made), row))
    rows.sort(key=lambda item: item[0], reverse=True)
    return pd.DataFrame([row for _, row in rows])


def _card_facts(city: City, card: _Card) -> pd.DataFrame:
    """The facts of a model's card beside its metrics: fact, value (words)."""
    facts = {
        "network": _text(_lookup(card, "architecture", "name")),
        "grid": _grid(_lookup(card, "grid", "rows"), _lookup(card, "grid", "cols")),
        "slot, minutes": _text(_lookup(card, "grid", "slot_minutes")),
        "live parameters": _count(_lookup(card, "parameters", "live")),
        "parameters as published": _count(_lookup(card, "parameters", "published")),
        "training from": _time_text(city, _lookup(card, "split", "start")),
        "training to": _time_text(city, _lookup(card, "split", "train_end")),
        "validation to": _time_text(city, _lookup(card, "split", "valid_end")),
        "test to": _time_text(city, _lookup(card, "split", "test_end")),
        **{f"{part} windows": _count(_lookup(card, "windows", part)) for part in ("training", "validation", "test")},
        **{f"{part} slots not observed": _fallen_out(card, part) for part in ("training", "validation", "test")},
        **_with_prefix("training", _lookup(card, "training")),
        "scale, vehicles per slot": _text(_lookup(card, "scale")),
        **_with_prefix("started from", _lookup(card, "transfer")),
        "intervals calibrated from": _time_text(city, _lookup(card, "intervals", "calibrated_from")),
        "intervals calibrated to": _time_text(city, _lookup(card, "intervals", "calibrated_to")),
        "created": _time_text(city, _lookup(card, "created")),
        "trafficcast": _text(_lookup(card, "code_version")),
        "hash of the data": _text(_lookup(card, "data_hash")),
        "command": _text(_lookup(card, "command")),
    }
    return pd.DataFrame([(what, value) for what, value in facts.items() if value], columns=["fact", "value"])


def _fallen_out(card: _Card, part: str) -> str:
    """How many slots of a part fell out, of how many; empty where the card does not say."""
    slots, observed = (_number(_lookup(card, "periods", part, key)) for key in ("slots", "observed"))
    return f"{_count(slots - observed)} of {_count(slots)}" if _count(slots - observed) else ""


def _fact_comparison(city: City, cards: Mapping[str, _Card]) -> pd.DataFrame:
    """`_card_facts` of several versions beside each other: fact, then a column for each version."""
    columns = [_card_facts(city, card).set_index("fact")["value"].rename(version) for version, card in cards.items()]
    order = list(dict.fromkeys(what for column in columns for what in column.index))
    return pd.concat(columns, axis=1).reindex(order).fillna("").rename_axis("fact").reset_index()


def _metric_table(card: _Card, part: str, lead: int | None = None) -> pd.DataFrame:
    """All metrics of a part, a row for each forecaster, the lowest RMSE first: at a place along leads, or over all."""
    rows = []
    for name, scores in _forecasters(card, part).items():
        values = {heading: _metric(scores, metric, lead) for metric, heading in METRICS.items()}
        rows.append({"forecaster": name, **values})
    table = pd.DataFrame(rows, columns=["forecaster", *METRICS.values()])
    return table.sort_values("RMSE", ignore_index=True)


def _lead_errors(cards: Mapping[str, _Card], part: str) -> pd.DataFrame:
    """RMSE by lead of several models and their baselines: group (lead, minutes), forecaster, error, model (version).

    `model` says whose card a row is from; the rows of the models themselves have it as their forecaster.
    """
    rows = []
    for version, card in cards.items():
        minutes = _number(_lookup(card, "grid", "slot_minutes"))
        for name, scores in _forecasters(card, part).items():
            errors = _lookup(scores, "by_lead", "rmse")
            for lead, error in enumerate(errors if isinstance(errors, list) else []):
                rows.append((lead * minutes, name, _number(error), version))
    return pd.DataFrame(rows, columns=["group", "forecaster", "error", "model"]).dropna()


def _comparison_table(champion: str, challenger: str, cards: Mapping[str, _Card], part: str) -> pd.DataFrame:
    """RMSE of two models by lead, vehicles per slot, and by how many percent the challenger's is lower."""
    leads = _lead_errors(cards, part)
    leads = leads[leads["forecaster"] == leads["model"]]
    rows = [(_ALL_LEADS, _own_error(cards[champion], part), _own_error(cards[challenger], part))]
    for minutes in sorted(leads["group"].unique().tolist()):
        at = leads[leads["group"] == minutes].set_index("model")["error"]
        one, other = (float(at.get(version, float("nan"))) for version in (champion, challenger))
        rows.append((lead_name(int(minutes)), one, other))
    table = pd.DataFrame(rows, columns=["lead", champion, challenger])
    return table.assign(better=100 * (1 - table[challenger] / table[champion]))


def _same_days(cards: Mapping[str, _Card], part: str) -> bool:
    """Whether a part's errors of several models are of the same days and data of one grid."""
    first, last = ("valid_end", "test_end") if part == "test" else ("train_end", "valid_end")
    seen = [
        (_lookup(card, "split", first), _lookup(card, "split", last), _lookup(card, "grid")) for card in cards.values()
    ]
    return all(days == seen[0] and None not in days for days in seen)


def _coverage_of(card: _Card, part: str) -> pd.DataFrame:
    """The intervals of a card: level, lead (minutes), inside (share), width (vehicles per slot), slots, by level."""
    levels = _lookup(card, "intervals", part, "levels")
    minutes = _number(_lookup(card, "grid", "slot_minutes"))
    rows = []
    for level, values in levels.items() if _is_mapping(levels) else ():
        shares, widths = _lookup(values, "inside", "by_lead"), _lookup(values, "width", "by_lead")
        if isinstance(shares, list) and isinstance(widths, list):
            for lead, (share, width) in enumerate(zip(shares, widths, strict=False)):
                rows.append((_level(level), lead * minutes, _number(share), _number(width)))
    table = pd.DataFrame(rows, columns=["level", "lead", "inside", "width"]).dropna()
    return table.assign(slots=_number(_lookup(card, "intervals", part, "forecasts")))


def _card_text(content: bytes) -> str:
    """A card's text, at most LONGEST_TEXT characters of it."""
    return content.decode("utf-8", errors="replace")[:_LONGEST_TEXT]


def _read_curve(content: bytes) -> pd.DataFrame | None:
    """A training curve: epoch, the training loss and the validation RMSE, all numbers; None where it cannot be read."""
    try:
        curve = pd.read_csv(BytesIO(content), nrows=_MOST_EPOCHS).apply(pd.to_numeric, errors="coerce")
    except ValueError:
        return None
    return curve.dropna(subset="epoch") if "epoch" in curve and len(curve.columns) > 1 else None


def _time_text(city: City, value: Any) -> str:
    """A card's time in the city's zone; as it stands where it is no time."""
    text = _text(value)
    try:
        return moment_label(city, city.parse_time(text)) if text else ""
    except (InputError, OverflowError, ValueError):
        return text


def _day_text(city: City, value: Any) -> str:
    """A card's time as the local day, 2008-06-02; as it stands where it is no time."""
    text = _text(value)
    try:
        return city.isoformat(city.parse_time(text))[:10] if text else ""
    except (InputError, OverflowError, ValueError):
        return text


def _sort_key(city: City, created: str) -> str:
    """The sort key of a version: when it was made, and an empty text where that is unknown."""
    try:
        return str(city.parse_time(created))
    except (InputError, OverflowError, ValueError):
        return ""


def _metric(scores: _Card, metric: str, lead: int | None) -> float:
    if lead is None:
        return _number(scores.get(metric))
    values = _lookup(scores, "by_lead", metric)
    return _number(values[lead]) if isinstance(values, list) and lead < len(values) else float("nan")


def _with_prefix(name: str, values: Any) -> dict[str, str]:
    """Names and values of a part of a card: 'training: batch size' -> '8'."""
    return (
        {f"{name}: {_text(key).replace('_', ' ')}": _text(value) for key, value in values.items()}
        if _is_mapping(values)
        else {}
    )


def _grid(rows: Any, cols: Any) -> str:
    return "" if rows is None or cols is None else f"{_text(rows)} x {_text(cols)} cells"


def _count(value: Any) -> str:
    return f"{_number(value):,.0f}" if _number(value) == _number(value) else ""


def _text(value: Any) -> str:
    return "" if value is None else one_line(str(value)[:_LONGEST_VALUE])


def _level(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        return float("nan")


def _is_mapping(value: Any) -> bool:
    return isinstance(value, Mapping)
