"""The bench's model picker: who serves, who could, what changed, how people voted; and the tour of a first visit."""

from __future__ import annotations

import streamlit as st

from app.bench_ranking_widgets import rate_of
from app.i18n import t
from app.models_widgets import show_dialog, show_gates, show_service
from app.session import current_user
from app.widgets import guarded, link_to, status_badge
from core import bench_tour, bench_versions
from core.bench_versions import Candidate

STEPS = ("choose", "blind", "vote", "unsafe", "batch", "ranking", "versions")


def show_picker() -> None:
    """Every version as a choice, the serving one first; one of them in detail, with its gates and the button that signs."""
    if done := st.session_state.pop("models_done", None):
        st.success(done)
    show_service()
    serving, found = bench_versions.candidates(current_user().id)
    if not found:
        st.info(t("models.empty"), icon=":material/deployed_code:")
        return
    heads = [t(f"bench.col_{c}") for c in ("version", "status", "from", "mean", "against_serving", "votes", "cases")]
    st.dataframe([dict(zip(heads, line(one), strict=True)) for one in found], hide_index=True, width="stretch")
    names = [one.version.name for one in found]
    asked = st.query_params.get("version")
    start = names.index(asked) if asked in names else int(serving is not None and len(names) > 1)
    chosen = found[names.index(st.selectbox(t("bench.pick"), names, index=start, key="bench_pick"))]
    show_candidate(chosen, serving)
    show_dialog()


def line(one: Candidate) -> tuple[object, ...]:
    """One line of the table."""
    v = one.version
    mean = "–" if one.mean is None else f"{one.mean:.3f}"
    if one.mean is not None and one.low is not None and one.high is not None:
        mean += f" [{one.low:.3f}, {one.high:.3f}]"
    name = v.name + (f" ({t('models.toy')})" if v.is_toy else "")
    rate = rate_of(one.votes) if one.votes else "–"
    num = one.votes.num_votes if one.votes else "–"
    return name, t(f"common.status_{v.status}"), " ← ".join(v.lineage[1:]) or "–", mean, rate, str(num), v.num_open_cases


def show_candidate(one: Candidate, serving: str | None) -> None:
    """What changed against the version in service (else against what it was trained from), its gates, and where to go from here."""
    v = one.version
    reference = serving if serving and serving != v.name else (v.lineage[1] if len(v.lineage) > 1 else None)
    with st.container(horizontal=True, vertical_alignment="center"):
        status_badge(v.status)
        if reference:
            link_to("bench", t("bench.pick_compare", name=reference), icon=":material/compare:", first=reference, second=v.name)
        link_to("models", t("bench.pick_more"), icon=":material/deployed_code:", version=v.name)
    facts = bench_versions.facts(v.name, reference)
    heads = [t("bench.col_fact"), v.name, reference or "–", t("bench.col_changed")]
    cells = [(t(f"bench.fact_{f.key}"), f.value or "–", f.reference or "–", "≠" if f.has_changed else "=") for f in facts]
    st.dataframe([dict(zip(heads, cell, strict=True)) for cell in cells], hide_index=True, width="stretch")
    if v.status != "serving":
        show_gates(v)


def show_tour() -> None:
    """On the first visit, and whenever somebody asks: seven steps, closed at any time."""
    person = current_user()
    if st.session_state.get("bench_tour") is None:
        st.session_state["bench_tour"] = -1 if bench_tour.has_seen(person.id) else 0
    if st.session_state["bench_tour"] >= 0:
        st.dialog(t("bench.tour_title"), width="medium", on_dismiss=end_tour)(step)()


def step() -> None:
    number = min(st.session_state["bench_tour"], len(STEPS) - 1)
    st.markdown(f"**{number + 1}/{len(STEPS)} · {t(f'bench.tour_{STEPS[number]}_title')}**")
    st.markdown(t(f"bench.tour_{STEPS[number]}"))
    with st.container(horizontal=True):
        if number:
            st.button(t("bench.tour_back"), key="bench_tour_back", on_click=go, args=(number - 1,))
        if number < len(STEPS) - 1:
            st.button(t("bench.tour_next"), key="bench_tour_next", type="primary", on_click=go, args=(number + 1,))
        if st.button(t("bench.tour_done" if number == len(STEPS) - 1 else "bench.tour_skip"), key="bench_tour_end"):
            end_tour()
            st.rerun()


def go(number: int) -> None:
    st.session_state["bench_tour"] = number


def end_tour() -> None:
    """Closed, skipped or finished: it does not come again by itself."""
    with guarded():
        bench_tour.mark_seen(current_user().id)
    st.session_state["bench_tour"] = -1
