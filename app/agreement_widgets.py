"""Pieces of the agreement page: tables under translated heads, numbers with intervals, rolling values, threshold curves."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Any

import streamlit as st

from app.i18n import t
from app.session import require
from core.accounts import Person
from core.agreement import Estimate
from core.desk import lease, plan
from core.desk.measures import MIN_CASES
from core.desk.scorers import ScorerReport
from core.sampling import Share

#: readable on the light and on the dark ground
COLOURS = ["#2f8fa6", "#b7791f", "#8b5cf6"]


def table(columns: Sequence[str], rows: Sequence[tuple[object, ...]]) -> None:
    """Rows under the headings `agreement.col_<name>`."""
    heads = [t(f"agreement.col_{column}") for column in columns]
    st.dataframe([dict(zip(heads, row, strict=True)) for row in rows], hide_index=True, width="stretch")


def estimate_text(found: Estimate, *, is_enough: bool) -> str:
    """A coefficient with its interval; a dash where undefined, "too few" below the minimum."""
    if not is_enough:
        return t("agreement.too_few")
    if found.value is None:
        return t("agreement.undefined")
    return f"{found.value:.2f}" + ("" if found.low is None else f" [{found.low:.2f}, {found.high:.2f}]")


def share_text(found: Share) -> str:
    """A weighted share with its interval, or its count and "too few"."""
    if found.value is None or found.num_observed < MIN_CASES:
        return f"{t('agreement.too_few')} (n {found.num_observed})"
    return f"{found.value:.2f} [{found.low:.2f}, {found.high:.2f}] (n {found.num_observed})"


def rolling_chart(values: list[tuple[datetime, str, Estimate]]) -> None:
    """Four-week values over the last weeks, with their intervals; nothing below two points."""
    rows = [
        {"week": f"{end:%m-%d}", "name": t(f"agreement.col_{name}"), "value": e.value, "low": e.low, "high": e.high, "n": e.num_cases}
        for end, name, e in values
        if e.value is not None
    ]
    if len({row["week"] for row in rows}) < 2:
        return
    st.subheader(t("agreement.rolling"), anchor=False)
    x: dict[str, Any] = {"field": "week", "type": "ordinal", "axis": {"title": None, "labelAngle": 0}}
    y: dict[str, Any] = {"type": "quantitative", "scale": {"domain": [-0.2, 1], "clamp": True}, "axis": {"title": None}}
    colour = {"field": "name", "type": "nominal", "scale": {"range": COLOURS}, "legend": {"title": None, "orient": "top"}}
    layers = [
        {"mark": {"type": "area", "opacity": 0.12}, "encoding": {"y": {**y, "field": "low"}, "y2": {"field": "high"}}},
        {"mark": {"type": "line", "point": True, "tooltip": {"content": "data"}}, "encoding": {"y": {**y, "field": "value"}}},
    ]
    st.vega_lite_chart({"data": {"values": rows}, "height": 240, "encoding": {"x": x, "color": colour}, "layer": layers}, width="stretch")


def scorer_curve(report: ScorerReport) -> None:
    """Precision and recall over the threshold; points that rest on too few cases are left out."""
    rows = [
        {"threshold": p.threshold, "name": t(f"agreement.col_{name}"), "value": s.value, "low": s.low, "high": s.high, "n": s.num_observed}
        for p in report.points
        for name, s in (("precision", p.precision), ("recall", p.recall))
        if s.value is not None and s.num_observed >= MIN_CASES
    ]
    if not rows:
        st.caption(t("agreement.curve_few", min=MIN_CASES))
        return
    x: dict[str, Any] = {
        "field": "threshold",
        "type": "quantitative",
        "scale": {"domain": [0, 1]},
        "axis": {"title": t("agreement.threshold")},
    }
    y: dict[str, Any] = {"type": "quantitative", "scale": {"domain": [0, 1]}, "axis": {"title": None}}
    colour = {"field": "name", "type": "nominal", "scale": {"range": COLOURS}, "legend": {"title": None, "orient": "top"}}
    layers = [
        {"mark": {"type": "rule", "strokeWidth": 2, "opacity": 0.5}, "encoding": {"y": {**y, "field": "low"}, "y2": {"field": "high"}}},
        {"mark": {"type": "line", "point": True, "tooltip": {"content": "data"}}, "encoding": {"y": {**y, "field": "value"}}},
    ]
    st.vega_lite_chart({"data": {"values": rows}, "height": 260, "encoding": {"x": x, "color": colour}, "layer": layers}, width="stretch")


def show_seats(person: Person, draw_id: int) -> None:
    """Free seats, and giving one to somebody."""
    seats = plan.free_seats(draw_id)
    with st.expander(t("agreement.seats", num=len(seats))):
        if not seats:
            st.caption(t("agreement.no_seats"))
            return
        table(("case", "seat", "holder"), [(s.conflict_id, s.seat, s.holder or t("agreement.anybody")) for s in seats])
        people = {one["id"]: one["name"] for one in lease.colleagues(person.id)} | {person.id: person.display_name}
        with st.form("agreement_assign", clear_on_submit=True):
            seat = st.selectbox(t("agreement.seat"), seats, format_func=lambda s: f"{s.conflict_id} / {s.seat}")
            who = st.selectbox(t("agreement.who"), [None, *people], format_func=lambda u: people.get(u) or t("agreement.anybody"))
            speciality = st.text_input(t("agreement.speciality"))
            if st.form_submit_button(t("agreement.assign")):
                plan.assign(require("admin").id, seat.conflict_id, seat.seat, user_id=who, speciality=speciality)
                st.rerun()
