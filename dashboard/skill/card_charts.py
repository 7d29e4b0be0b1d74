"""Charts of training curves, and of two models' errors beside each other."""

from __future__ import annotations

import altair as alt
import pandas as pd

from dashboard.skill.charts import _MODEL, _UNIT, _Chart

_CHALLENGER, _BASELINE = "#0072b2", "#888888"
_VALIDATION = "valid_rmse"


def _curve_chart(curve: pd.DataFrame, name: str, height: int) -> _Chart:
    """One column of a training curve by epoch; the best epoch is marked on the validation error."""
    shown = pd.DataFrame({"epoch": curve["epoch"], "value": curve[name]}).dropna()
    validation = name == _VALIDATION
    title = f"validation RMSE, {_UNIT}" if validation else name.replace("_", " ")
    spans_decades = len(shown) > 0 and shown["value"].min() > 0 and shown["value"].max() > 10 * shown["value"].min()
    scale = alt.Scale(type="log") if spans_decades else alt.Scale(zero=False)
    x = alt.X("epoch:Q", title="epoch", axis=alt.Axis(tickMinStep=1, format="d", grid=False))
    y = alt.Y("value:Q", title=title, scale=scale)
    tooltip = [alt.Tooltip("epoch:Q"), alt.Tooltip("value:Q", title=title, format=".5g")]
    colour = _MODEL if validation else _CHALLENGER
    line = alt.Chart(shown).mark_line(color=colour, point=alt.OverlayMarkDef(color=colour, size=30))
    line = line.encode(x=x, y=y, tooltip=tooltip)
    best = shown.nsmallest(1, "value") if validation else shown.head(0)
    mark = alt.Chart(best).mark_point(size=220, shape="circle", strokeWidth=2, color=colour).encode(x=x, y=y)
    return alt.layer(line, mark).properties(height=height)


def _comparison_chart(errors: pd.DataFrame, champion: str, challenger: str, height: int) -> _Chart:
    """RMSE by lead of `_lead_errors` of two models, and of the best baseline of each lead on each card."""
    own = errors[errors["forecaster"] == errors["model"]]
    baselines = errors[errors["forecaster"] != errors["model"]]
    best = baselines.loc[baselines.groupby(["group", "model"])["error"].idxmin()]
    # Where both cards hold the same best baseline, as of the same days, one line says it.
    names = {
        version: "best baseline" if same else f"best baseline of {version}'s card"
        for same in [_same_errors(best, champion, challenger)]
        for version in (champion, challenger)
    }
    best = best.assign(line=best["model"].map(names)).drop_duplicates(["group", "line"])
    shown = pd.concat([own.assign(line=own["forecaster"]), best], ignore_index=True)
    looks = {champion: (_MODEL, "circle"), challenger: (_CHALLENGER, "diamond")}
    for place, name in enumerate(dict.fromkeys(best["line"])):
        looks[name] = (_BASELINE, ("square", "cross")[place % 2])
    legend = alt.Legend(title=None, orient="top", columns=2, labelLimit=260)
    domain = list(looks)
    colour = alt.Color("line:N", scale=alt.Scale(domain=domain, range=[c for c, _ in looks.values()]), legend=legend)
    shape = alt.Shape("line:N", scale=alt.Scale(domain=domain, range=[s for _, s in looks.values()]), legend=legend)
    leads = sorted(shown["group"].unique().tolist())
    x = alt.X("group:Q", axis=alt.Axis(title="lead, minutes", values=leads, grid=False))
    y = alt.Y("error:Q", title=f"RMSE, {_UNIT}", scale=alt.Scale(zero=False))
    tooltip = [
        alt.Tooltip("line:N", title="line"),
        alt.Tooltip("forecaster:N", title="forecaster"),
        alt.Tooltip("group:Q", title="lead, minutes"),
        alt.Tooltip("error:Q", title=f"RMSE, {_UNIT}", format=".3f"),
    ]
    base = alt.Chart(shown).encode(x=x, y=y, color=colour)
    points = base.mark_point(filled=True, size=70, opacity=1).encode(shape=shape, tooltip=tooltip)
    return alt.layer(base.mark_line(strokeWidth=2.5), points).properties(height=height)


def _same_errors(best: pd.DataFrame, one: str, other: str) -> bool:
    errors = [best[best["model"] == version].set_index("group")["error"].round(9).to_dict() for version in (one, other)]
    return bool(errors[0] == errors[1])
