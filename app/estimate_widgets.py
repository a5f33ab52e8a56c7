"""The estimate under a start form: time, tokens, teacher's cost and memory for the values as they are, before anything is started."""

from __future__ import annotations

import json
from typing import Any

import streamlit as st

from app.i18n import t
from app.run_widgets import memory_text
from app.widgets import duration
from core.estimate_facts import START, estimate_for
from core.home import current_home


def estimate_panel(kind: str, values: dict[str, Any], key: str) -> None:
    """Inside a form, above its start button. The second button of the form computes anew for changed values."""
    if kind not in START:
        return
    given = {name: value for name, value in values.items() if value is not None}
    found = _estimate(str(current_home().root), kind, json.dumps(given, sort_keys=True, default=str))
    with st.container(border=True):
        if found is None:
            st.caption(t("run.estimate_open"))
        else:
            _show(found)
        st.form_submit_button(t("run.estimate_again"), icon=":material/calculate:", key=f"{key}_estimate", type="tertiary")


@st.cache_data(ttl=30, show_spinner=False, max_entries=64)
def _estimate(_root: str, kind: str, values: str) -> dict[str, Any] | None:
    return estimate_for(kind, json.loads(values))


def _show(e: dict[str, Any]) -> None:
    columns = st.columns(4)
    columns[0].metric(t("run.row_time"), "–" if e["seconds"] is None else duration(e["seconds"]))
    columns[1].metric(t("run.row_samples"), f"{e['num_samples']:,}")
    usd = e["teacher"]["usd"]
    columns[2].metric(t("run.row_usd"), t("run.unknown_price") if usd is None else f"${usd:,.2f}")
    peak = e["memory"]["peak"] if e["memory"] else None
    columns[3].metric(t("run.row_memory"), memory_text(peak) or "–")
    if e["seconds"] is None:
        st.caption(t("run.estimate_no_model"))
    else:
        low, high = duration(e["seconds_low"]), duration(e["seconds_high"])
        basis = t("run.calibrated", num=e["calibration"]["num_runs"]) if e["calibration"]["num_runs"] else t("run.not_calibrated")
        st.caption(f"{t('run.estimate_range', low=low, high=high, device=e['device']['name'])} {basis}")
    tokens = e["tokens"]
    said = t("run.estimate_tokens", generated=f"{tokens['generated']:,}", trained=f"{tokens['trained']:,}")
    if e["teacher"]["num_calls"]:
        total = tokens["teacher_prompt"] + tokens["teacher_completion"]
        said += " " + t("run.estimate_teacher", calls=f"{e['teacher']['num_calls']:,}", name=e["teacher"]["name"], tokens=f"{total:,}")
    st.caption(said)
    if e["fits"] is False:
        available = memory_text(e["device"]["memory"])
        st.warning(t("run.does_not_fit", needed=memory_text(peak), available=available), icon=":material/memory:")
