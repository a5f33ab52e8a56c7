"""Sets of query expansions: rows with their score and why points are missing, mended or rejected with a reason; import, split, export."""

from __future__ import annotations

import streamlit as st

from app import expansion_data_widgets as widgets
from app.i18n import t
from app.session import current_user, require
from app.widgets import choose_in_address, guarded, page_title
from core.expansion import sets
from core.expansion.sets import Listed

ROLES = ("clinician", "engineer")


def choose(found: list[Listed]) -> Listed:
    """Which set is open is in the address (?set=), so that it can be sent to somebody."""
    names = {one.id: f"{one.name} · {t('expansion.rows', num=one.num_rows)} · {one.created_at:%Y-%m-%d %H:%M}" for one in found}
    chosen = choose_in_address("set", t("expansion.choose"), names)
    st.query_params["set"] = str(chosen)
    return next(one for one in found if one.id == chosen)


def show_figures(chosen: Listed) -> None:
    cells = st.columns(4)
    cells[0].metric(t("expansion.kept"), chosen.num_rows - chosen.num_rejected)
    cells[1].metric(t("expansion.status_rejected"), chosen.num_rejected)
    cells[2].metric(t("expansion.changed"), chosen.num_edits)
    cells[3].metric(t("expansion.mean"), "–" if chosen.mean_rubric is None else f"{chosen.mean_rubric:.0%}", help=t("expansion.mean_help"))


def main() -> None:
    require(*ROLES)
    page_title("expansion.title")
    if said := st.session_state.pop("ed_said", ""):
        st.success(said, icon=":material/check_circle:")
    found = sets.listing()
    may_add = current_user().role in ("engineer", "admin")
    chosen = choose(found) if found else None
    if chosen is None:
        st.info(t("expansion.empty"), icon=":material/playlist_add:")
    else:
        show_figures(chosen)
    names = (["rows", "overview"] if chosen else []) + (["import", "generate"] if may_add else [])
    if not names:
        return
    tabs = dict(zip(names, st.tabs([t(f"expansion.tab_{name}") for name in names]), strict=True))
    if chosen is not None:
        with tabs["rows"], guarded():
            widgets.show_rows(chosen)
        with tabs["overview"], guarded():
            widgets.show_overview(chosen)
    if may_add:
        with tabs["import"], guarded():
            widgets.show_import()
        with tabs["generate"], guarded():
            widgets.show_generate()


with guarded():
    main()
