"""The bench: comparison (Gradio, /arena, in a frame of the same look), batch runs, the ranking, and the versions to choose from."""

from __future__ import annotations

from urllib.parse import urlencode

import streamlit as st

from app.bench_batch_widgets import show_batches
from app.bench_ranking_widgets import show_ranking
from app.bench_versions_widgets import go, show_picker, show_tour
from app.i18n import t
from app.session import language, require
from app.widgets import guarded, link_to, page_title
from core.model_client import server_is_up
from core.model_list import list_versions, service

ROLES = ("product", "engineer", "admin")
VIEWS = ("compare", "batch", "ranking", "versions")
FRAME_HEIGHT = 1240


def show_line() -> None:
    """Who answers people now; changing it is one press away."""
    now = service()
    with st.container(horizontal=True, horizontal_alignment="distribute", vertical_alignment="center"):
        if now is None:
            st.caption(t("bench.serving_none"), width="content")
        else:
            line = f"**{t('bench.serving_now', name=now.name, hash=now.content_hash[:6] or '–')}**"
            if now.since is not None:
                line += " · " + t("bench.serving_since", date=f"{now.since.created_at:%Y-%m-%d}", who=now.since.signed_name)
            st.markdown(line, width="content")
        if now is not None and now.previous:
            link_to("models", t("bench.to_roll_back"), icon=":material/undo:", dialog="roll_back")
        st.button(t("bench.tour_again"), key="bench_tour_again", icon=":material/tour:", type="tertiary", on_click=go, args=(0,))


def show_compare() -> None:
    """The side-by-side frame, or why there is none."""
    versions = list_versions()
    needs_server = any(v.kind != "external" for v in versions)
    if versions and needs_server and not server_is_up():
        st.warning(t("bench.server_is_down"), icon=":material/cloud_off:")
        st.button(t("bench.try_again"), key="bench_retry")
        if all(v.kind != "external" for v in versions):
            return
    if not versions:
        st.info(t("bench.too_few_versions"), icon=":material/compare:")
        return
    words: dict[str, str] = {"__theme": st.context.theme.type or "light", "lang": language()}
    words |= {key: st.query_params[key] for key in ("first", "second") if key in st.query_params}
    st.iframe(f"/arena/?{urlencode(words)}", height=FRAME_HEIGHT)


def choose_view() -> str:
    """Which of the four; it is in the address (?view=), so that it can be sent to somebody."""
    asked = st.query_params.get("view", "")
    asked = asked if asked in VIEWS else "batch" if "batch" in st.query_params else "compare"
    chosen = st.segmented_control(
        t("bench.view"),
        VIEWS,
        default=asked,
        format_func=lambda v: t(f"bench.view_{v}"),
        key="bench_view",
        label_visibility="collapsed",
        required=True,
    )
    return str(chosen)


def main() -> None:
    require(*ROLES)
    page_title("bench.title")
    show_tour()
    show_line()
    view = choose_view()
    with guarded():
        {"compare": show_compare, "batch": show_batches, "ranking": show_ranking, "versions": show_picker}[view]()


with guarded():
    main()
