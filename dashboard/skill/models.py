"""The page Models: the registry, champions, cards, training curves, and the champion beside a challenger."""

from __future__ import annotations

from typing import Any, Literal

import streamlit as st

from dashboard.page.choices import choice
from dashboard.page.labels import lead_name, plain
from dashboard.page.nothing_yet import next_step
from dashboard.page.number_columns import decimals
from dashboard.page.refresh import rerun_when_changed
from dashboard.page.view import View
from dashboard.skill.card_charts import _comparison_chart, _curve_chart
from dashboard.skill.cards import (
    _PARTS,
    _card_facts,
    _comparison_table,
    _coverage_of,
    _fact_comparison,
    _lead_errors,
    _metric_table,
    _registry_table,
    _same_days,
)
from dashboard.skill.charts import _coverage_chart, _lead_chart
from dashboard.skill.reads import _card_of, _card_text_of, _curve_of, _registry_stamp
from dashboard.skill.tables import _ALL_LEADS
from trafficcast.config.settings import Config
from trafficcast.errors import InputError
from trafficcast.stores.city_stores import CityStores
from trafficcast.stores.registry import Registry

_TABLE_HEIGHT, _CHART_HEIGHT, _TEXT_HEIGHT = 180, 300, 380
_FEW = 4  # versions that need no scrolling
_MANY_FACTS = 10
_SECTIONS = ("Scores", "Training curve", "Intervals", "Facts", "Card", "Against the champion")


def draw(config: Config, view: View) -> None:
    """Draw the page Models.

    Parameters
    ----------
    config
        The configuration.
    view
        The view, as the address gives it.
    """
    city, stores = view.city, CityStores.of(config, view.city)
    registry = stores.registry
    versions, champions = registry.versions(), registry.champions()
    if not versions:
        st.info(plain(next_step(stores)))
        return
    rerun_when_changed(city, lambda: _registry_stamp(registry))
    cards: dict[str, dict[str, Any] | None] = {}
    damaged = []
    for version in versions:
        try:
            cards[version] = _card_of(registry, version)
        except InputError as error:
            cards[version] = None
            damaged.append(plain(str(error)))
    if damaged:
        st.warning("\n\n".join(damaged))
    _history(view, versions, champions)
    table = _registry_table(city, cards, champions)
    height: Literal["auto"] | int = _TABLE_HEIGHT if len(table) > _FEW else "auto"
    st.dataframe(table, hide_index=True, height=height, column_config=decimals(table, 3))

    left, right = st.columns([1, 4], vertical_alignment="bottom")
    order = table["version"].tolist()
    first = next((champion for champion in champions if champion in order), order[0])
    version = choice(left.selectbox, "Model", order, "model", first)
    section = choice(right.segmented_control, "Show", _SECTIONS, "show", required=True)
    card = cards[version]
    if section in ("Training curve", "Card"):
        draw_section = _curve if section == "Training curve" else _card
        try:
            draw_section(registry, version)
        except InputError as error:
            st.warning(plain(str(error)))
    elif card is None:
        st.warning(plain(f"The card of {version} cannot be read: restore its card.json, or train anew."))
    elif section == "Scores":
        _scores(version, card)
    elif section == "Intervals":
        _intervals(card)
    elif section == "Facts":
        facts = _card_facts(city, card)
        st.dataframe(facts, hide_index=True, height=_TEXT_HEIGHT if len(facts) > _MANY_FACTS else "auto")
    else:
        _against(view, version, cards, champions)


def _history(view: View, versions: list[str], champions: list[str]) -> None:
    """Draw a line with the champion and the champions before it."""
    if not champions:
        st.info(plain(f"No champion of {view.city.name}: run trafficcast models promote VERSION."))
        return
    named = [f"{version}{'' if version in versions else ' (its card is gone)'}" for version in champions]
    before = f"; before it, the newest first: {', '.join(named[1:])}" if named[1:] else ", none before it"
    st.caption(
        plain(f"{view.city.name}: champion {named[0]}{before}. Errors are RMSE in vehicles per slot, from the cards; ")
        + plain(f"times are {view.city.timezone}")
    )


def _scores(version: str, card: dict[str, Any]) -> None:
    """All metrics of the model and its baselines on test or validation, and RMSE by lead."""
    with st.container(horizontal=True):
        part = choice(st.segmented_control, "Days", _PARTS, "days", required=True)
        minutes = _lead_errors({version: card}, part)
        leads = [_ALL_LEADS, *(lead_name(int(lead)) for lead in sorted(minutes["group"].unique()))]
        lead = choice(st.segmented_control, "Lead", leads, "ahead", required=True)
    table = _metric_table(card, part, None if lead == _ALL_LEADS else leads.index(lead) - 1)
    if table.empty:
        st.info(plain(f"The card of {version} holds no scores on {part} days."))
        return
    numbers, chart = st.columns([4, 3])
    numbers.dataframe(table, hide_index=True, column_config=decimals(table, 4))
    numbers.caption(
        "RMSE and MAE in vehicles per slot over all cells and both flow kinds; the published ones are of frames "
        "divided by the training maximum. Validation chose the epoch; the test days were used once."
    )
    if not minutes.empty:
        chart.altair_chart(_lead_chart(minutes, version, "RMSE", _CHART_HEIGHT))


def _curve(registry: Registry, version: str) -> None:
    curve = _curve_of(registry, version)
    if curve is None or curve.empty:
        st.info(plain(f"The training curve of {version} is missing or cannot be read: {version}/curve.csv"))
        return
    names = [name for name in curve.columns if name != "epoch"]
    for name, column in zip(names, st.columns(len(names)), strict=True):
        column.altair_chart(_curve_chart(curve, name, _CHART_HEIGHT))
    with st.expander("Numbers"):
        st.dataframe(curve, hide_index=True)


def _card(registry: Registry, version: str) -> None:
    text = _card_text_of(registry, version)
    if text is None:
        st.info(plain(f"{version} has no CARD.md that can be read."))
        return
    st.code(text, language=None, height=_TEXT_HEIGHT, wrap_lines=True)


def _intervals(card: dict[str, Any]) -> None:
    part = choice(st.segmented_control, "Days", _PARTS, "days", required=True)
    table = _coverage_of(card, part)
    if table.empty:
        st.info("The model has no prediction intervals: its card does not mention any.")
        return
    chart, numbers = st.columns(2)
    chart.altair_chart(_coverage_chart(table, _CHART_HEIGHT))
    shown = table.rename(columns={"width": "mean width", "inside": "observed flows inside", "slots": "forecasts"})
    numbers.dataframe(shown, hide_index=True, column_config=decimals(shown, 3))
    numbers.caption("Shares are between 0 and 1, widths in vehicles per slot, lead times in minutes.")


def _against(view: View, chosen: str, cards: dict[str, dict[str, Any] | None], champions: list[str]) -> None:
    """Compare the cards of the champion and the chosen model, or a challenger where the champion is chosen."""
    readable = {version: card for version, card in cards.items() if card is not None}
    champion = champions[0] if champions and champions[0] in readable else None
    others = [version for version in reversed(readable) if version != champion]
    if champion is None or not others:
        st.info(
            "A comparison needs a champion and another version whose cards can be read: trafficcast train makes one."
        )
        return
    left, right = st.columns([1, 3], vertical_alignment="bottom")
    part = choice(left.segmented_control, "Days", _PARTS, "days", required=True)
    challenger = chosen
    if chosen == champion:
        challenger = choice(right.selectbox, "Challenger", others, "against", width=240)
    pair = {champion: readable[champion], challenger: readable[challenger]}
    if not _same_days(pair, part):
        st.warning(f"The two cards' {part} days are not the same: compare the errors with care.")
    table = _comparison_table(champion, challenger, pair, part)
    numbers, chart = st.columns(2)
    shown = table.rename(columns={"better": "challenger lower by, %"})
    percent = {"challenger lower by, %": st.column_config.NumberColumn(format="%.1f")}
    numbers.dataframe(shown, hide_index=True, column_config=decimals(shown, 3) | percent)
    errors = _lead_errors(pair, part)
    chart.altair_chart(_comparison_chart(errors, champion, challenger, _CHART_HEIGHT))
    st.dataframe(_fact_comparison(view.city, pair), hide_index=True, height=_TEXT_HEIGHT)
