"""Agreement: do the readers agree, do they drift, are teacher and rules right, how far is this week's draw, and one's own work.

Every number stands with its count and interval, or gives way to "too few". Nobody is ranked.
"""

from __future__ import annotations

from datetime import datetime

import streamlit as st

from app.agreement_widgets import estimate_text, rolling_chart, scorer_curve, share_text, show_seats, table
from app.i18n import t
from app.session import require
from app.widgets import duration, guarded, link_to, page_title
from core.accounts import Person
from core.agreement import Estimate
from core.desk import draw, measures, scorers

EVERYONE = ("clinician", "product", "engineer")
COEFFICIENTS = ("raw", "randolph", "alpha_nominal", "alpha_ordinal", "ac1")
#: HealthBench's physicians agree on 55-75 % of criteria; far above it, somebody may have copied
LOW_RAW, HIGH_RAW = 0.55, 0.95


@st.cache_data(ttl=600, max_entries=64, show_spinner=False)
def numbers(user_id: int, role: str, newest: int) -> tuple[measures.Agreement, list[tuple[datetime, str, Estimate]]]:
    """The bootstraps of one person's page, kept until somebody decides again; `role` and `newest` only make the key."""
    return measures.agreement(user_id), measures.weekly()


def show_people(person: Person) -> None:
    """Coefficients of four weeks, rolling values, pairs, drift."""
    found, rolling = numbers(person.id, person.role, measures.newest_decision())
    st.caption(t("agreement.window", since=f"{found.since:%Y-%m-%d}", until=f"{found.until:%Y-%m-%d}", num=found.num_cases))
    if not found.num_cases:
        st.info(t("agreement.empty"), icon=":material/groups:")
    else:
        rows: list[tuple[object, ...]] = []
        for one in found.measures:
            values = [one.by_coefficient.get(c) for c in COEFFICIENTS]
            cells = ["–" if v is None else estimate_text(v, is_enough=one.is_enough) for v in values]
            rows.append((t(f"agreement.measure_{one.name}"), one.by_coefficient["raw"].num_cases, *cells))
        table(("measure", "cases", *COEFFICIENTS), rows)
        raw = found.measures[0].by_coefficient["raw"].value
        if raw is not None and found.measures[0].is_enough and not LOW_RAW <= raw <= HIGH_RAW:
            st.warning(t("agreement.raw_low" if raw < LOW_RAW else "agreement.raw_high", percent=round(100 * raw)))
        st.caption(t("agreement.coefficients_help"))
    rolling_chart(rolling)
    if found.pairs:
        st.subheader(t("agreement.pairs"), anchor=False)
        table(
            ("pair", "cases", "cohen"),
            [(f"{p.first} · {p.second}", p.kappa.num_cases, estimate_text(p.kappa, is_enough=p.is_enough)) for p in found.pairs],
        )
    st.subheader(t("agreement.drift"), anchor=False)
    lines: list[tuple[object, ...]] = []
    for d in found.drift:
        same = "–" if d.share is None else t("agreement.too_few") if not d.is_enough else f"{d.share:.2f} [{d.low:.2f}, {d.high:.2f}]"
        shift = "–" if d.mean_shift is None or not d.is_enough else f"{d.mean_shift:+.2f}"
        lines.append((t(f"agreement.{d.purpose}"), d.num, d.num_same, same, shift))
    table(("repeat", "decided", "num_same", "same", "shift"), lines)
    st.caption(t("agreement.drift_help"))


def show_scorers() -> None:
    """The model's error rate, and every scorer against the experts."""
    rate = scorers.error_rate()
    st.metric(t("agreement.error_rate"), share_text(rate), help=t("agreement.error_rate_help"))
    reports = scorers.scorers()
    if not any(one.num for one in reports):
        st.info(t("agreement.no_drawn"), icon=":material/casino:")
        return
    rows: list[tuple[object, ...]] = []
    for one in reports:
        p = one.at_rest
        name, target = t(f"agreement.scorer_{one.name}"), t(f"agreement.target_{one.target}")
        rows.append((name, target, one.num, p.num_alarms, share_text(p.precision), p.num_bad, share_text(p.recall)))
    table(("scorer", "against", "cases", "alarms", "precision", "bad", "recall"), rows)
    st.caption(t("agreement.scorers_help"))
    curves = {one.name: one for one in reports if len(one.points) > 1}
    chosen = st.selectbox(t("agreement.curve"), list(curves), format_func=lambda name: t(f"agreement.scorer_{name}"))
    scorer_curve(curves[chosen])


def show_draws(person: Person) -> None:
    """How far the draws are, what they were drawn from, and who sits where."""
    if person.role in ("admin", "engineer"):
        link_to("jobs", t("agreement.draw_now"), icon=":material/casino:", kind="draw")
    rows = draw.draws()
    if not rows:
        st.info(t("agreement.no_draws"), icon=":material/casino:")
        return
    chosen = st.selectbox(t("agreement.draw"), rows, format_func=lambda one: f"{one.name} · {one.num_decided}/{one.num_items}")
    st.progress(chosen.num_decided / chosen.num_items, text=t("agreement.decided_of", done=chosen.num_decided, total=chosen.num_items))
    purposes = [
        (t(f"agreement.purpose_{p}"), drawn, done, chosen.frame_sizes[p.split("_")[0]]) for p, (drawn, done) in chosen.by_purpose.items()
    ]
    table(("purpose", "drawn", "done", "frame"), list(purposes))
    if person.role != "clinician":  # kinds of case would unblind who still has to read them
        table(("stratum", "drawn", "done", "probability"), [(s, n, done, f"{p:.3f}") for s, (n, done, p) in chosen.by_stratum.items()])
    st.caption(t("agreement.record", seed=chosen.seed, sha=chosen.items_sha256[:16], at=f"{chosen.created_at:%Y-%m-%d %H:%M}"))
    if person.role == "admin":
        show_seats(person, chosen.id)


def show_mine(person: Person) -> None:
    """The person's own throughput and agreement, shown to nobody else."""
    own = measures.own_work(person.id)
    cells = st.columns(4)
    cells[0].metric(t("agreement.signed"), own.num_signed)
    cells[1].metric(t("agreement.active"), duration(own.active_s) if own.active_s else "–", help=t("agreement.active_help"))
    cells[2].metric(t("agreement.per_case"), "–" if own.median_active_s is None else duration(own.median_active_s))
    cells[3].metric(t("agreement.per_hour"), "–" if own.per_hour is None else f"{own.per_hour:.0f}")
    if own.agreed is None or own.num_shared < measures.MIN_CASES:
        st.caption(t("agreement.own_few", num=own.num_shared, min=measures.MIN_CASES))
    else:
        ends = {"low": f"{own.agreed_low:.2f}", "high": f"{own.agreed_high:.2f}"}
        st.markdown(t("agreement.own_agreed", share=f"{own.agreed:.2f}", num=own.num_shared, **ends))
    st.caption(t("agreement.own_ruled", num=own.num_ruled, upheld=own.num_upheld))
    st.caption(t("agreement.own_private"))


def main() -> None:
    person = require(*EVERYONE)
    page_title("agreement.title")
    is_reader = person.role in ("clinician", "admin")
    names = ["people", "scorers", "draws", *(["mine"] if is_reader else [])]
    tabs = st.tabs([t(f"agreement.tab_{name}") for name in names])
    with tabs[0], guarded():
        show_people(person)
    with tabs[1], guarded():
        show_scorers()
    with tabs[2], guarded():
        show_draws(person)
    if is_reader:
        with tabs[3], guarded():
            show_mine(person)


with guarded():
    main()
